//! The reference page of the configuration, made from the table of settings.

use std::fmt::Write as _;

use super::environment::PREFIX;
use super::settings::settings;
use super::table::{Fallback, Kind, Setting};
use super::types::Home;
use super::units::{show_duration, show_size};
use super::value::{JSON_DEPTH_MAX, LIFETIMES_MAX};

const INTRODUCTION: &str = "\
# Configuration

<!-- Made from the table of settings in `crates/keyreeve/src/config/settings.rs`: `UPDATE_DOCS=1 cargo nextest run -p keyreeve config_reference` writes it. -->

One TOML file of at most 1 MiB says everything. `keyreeve config check` reports all its problems at once, each with its
line; `keyreeve config explain` prints each effective value and where it comes from. Both take `--home worker` for the
configuration of a [Cloudflare Worker](../guide/worker.md), which has other stores and other secrets. A JSON Schema for
editors is in [`configuration.schema.json`](configuration.schema.json).

- **Unknown keys are errors.** The nearest right spelling is named.
- **Times and sizes carry units**: `250ms`, `90s`, `20m`, `1h 30m`, `30d`; `512B`, `64KiB`, `10MiB`.
- **Secrets are references**: `file:PATH` (the contents of a file), `env:NAME` (an environment variable), `name-in:VARIABLE`
  (the variable holds the name of the variable with the secret); on a Worker `binding:NAME`, and nothing else. A secret
  in the file itself is refused, except under `keyreeve dev`.
- **The environment wins over the file.** `KEYREEVE__STORE__URL` is `store.url`. Two underscores stand between the parts; a
  name of yours is written in upper case, with `_` for everything but letters and digits
  (`KEYREEVE__CREDENTIAL__APNS_PROD__LIFE__LEAD`), and has to be in the file. Lists are separated by commas. Tables of free
  keys (`claims`, `headers`, `secrets`) can be set in the file only.
- **Numbers that contradict each other are refused**, with the sum.

```toml
store.url = \"sqlite:/var/lib/keyreeve/state.db\"
seal.keys = [\"file:/etc/keyreeve/seal.key\"]

[[listener]]
bind = \"127.0.0.1:7070\"
serve = [\"api\", \"metrics\"]

[caller.push]
key_sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"
can = [\"token\", \"report\"]
credentials = [\"apns-*\"]

[credential.apns-prod]
source = \"apns\"
key = \"file:/etc/keyreeve/AuthKey_ABC123DEFG.p8\"
params = { team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }
life = { max = \"55m\", min_interval = \"20m\", lead = \"10m\" }
mode = \"replay\"
```
";

/// The page `docs/reference/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    tables("", &mut page);
    page
}

fn tables(parent: &str, page: &mut String) {
    for setting in Setting::children_of(parent) {
        let (inside, title) = match setting.kind {
            Kind::Group(inside) => (inside, inside.replace('*', "NAME")),
            Kind::Named(inside) => (inside, inside.replace('*', "NAME")),
            Kind::Groups(inside, _) => (inside, format!("[{}]", setting.path())),
            _ => continue,
        };
        // Writing to a String cannot fail.
        let _ = writeln!(page, "\n## `[{title}]`\n\n{}{}", setting.doc, owners(setting));
        if !fallback(setting).is_empty() {
            let _ = writeln!(page, "Without one: {}.", fallback(setting));
        }
        let _ = writeln!(page, "\n| setting | value | default | meaning |\n|---|---|---|---|");
        for row in settings().filter(|row| row.parent == inside) {
            if matches!(row.kind, Kind::Group(_) | Kind::Named(_) | Kind::Groups(..)) {
                continue;
            }
            let meaning = format!("{}{}<br>`{} = {}`", row.doc, owners(row), row.name, row.example);
            let cells = [format!("`{}`", row.name), value(&row.kind), fallback(row), meaning];
            let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        if inside == "store" {
            let _ = writeln!(page, "\nIn the environment: `{PREFIX}STORE__URL`.");
        }
        tables(inside, page);
    }
}

fn owners(row: &Setting) -> String {
    let sources = row.only.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let sources = if sources.is_empty() { sources } else { format!(" Only for {sources}.") };
    match row.home {
        None => sources,
        Some((Home::Native, _)) => format!("{sources} Not on a Worker."),
        Some((Home::Worker, _)) => format!("{sources} Only on a Worker."),
    }
}

fn fallback(row: &Setting) -> String {
    match &row.fallback {
        Fallback::Required => "required".into(),
        Fallback::Unset(text) | Fallback::Computed(text) => (*text).into(),
        Fallback::Value(text) => format!("`{text}`"),
    }
}

fn value(kind: &Kind) -> String {
    let ticked = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match kind {
        Kind::Group(_) | Kind::Named(_) | Kind::Groups(..) => String::new(),
        Kind::Flag => "`true` or `false`".into(),
        Kind::Count(least, most) => format!("{least} to {most}"),
        Kind::Duration(least, most) => format!("time, {} to {}", show_duration(*least), show_duration(*most)),
        Kind::DurationOrShare(least, most) => {
            format!("time, {} to {}, or `1%` to `99%`", show_duration(*least), show_duration(*most))
        }
        Kind::Size(least, most) => format!("size, {} to {}", show_size(*least), show_size(*most)),
        Kind::Choice(now, _) => ticked(now),
        Kind::Choices(now, _) => format!("list of {}", ticked(now)),
        Kind::Text(rule) => format!("{}, {} at most", rule.what, show_size(rule.bytes_max as u64)),
        Kind::Texts(rule, most) => format!("list of at most {most}: {}", rule.what),
        Kind::OneOrMore(rule, most) => format!("{}, or a list of at most {most}", rule.what),
        Kind::TextMap(rule, most) => format!("table of at most {most}: {}", rule.what),
        Kind::Secret => "secret reference".into(),
        Kind::Secrets(most) => format!("list of at most {most} secret references"),
        Kind::SecretMap(most) => format!("table of at most {most} secret references"),
        Kind::Json(most) => {
            format!("table, {} of JSON at most, {JSON_DEPTH_MAX} levels deep at most", show_size(*most as u64))
        }
        Kind::Keep => format!("`\"always\"`, or 1 to {LIFETIMES_MAX} lifetimes"),
    }
}
