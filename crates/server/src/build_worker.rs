//! `keyreeve build worker`: a configuration and the Worker's code, as a folder that `wrangler deploy` takes as it is.
//!
//! ```text
//! DIR/wrangler.jsonc    name, bindings, migration, cron
//! DIR/keyreeve.toml     the configuration, as it was written
//! DIR/config.mjs        hands it to the code
//! DIR/main.mjs          where Cloudflare starts
//! DIR/keyreeve/         the code
//! DIR/README.md         the secrets to put, and what to do next
//! ```
//!
//! Compiles nothing, and talks to nobody.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use keyreeve::config::{Bindings, Config, ConfigRead, Home, StoreUrl};
use serde_json::{Map, Value, json};

use crate::cli::BuildWorkerArgs;
use crate::exit::{Code, Failure, say, tell};
use crate::load;

/// The first line of what this command writes; only a folder with it is written over.
const MARK: &str = "// Written by `keyreeve build worker`; the next build writes it again.";
/// What of Cloudflare's behaviour the code was tested with.
const COMPATIBILITY_DATE: &str = "2026-04-01";
/// The class of the Durable Objects.
const CLASS: &str = "Keyreeve";
/// The folder of the code.
const CODE: &str = "keyreeve";
/// The file of the code that is imported.
const ENTRY: &str = "index.js";
/// The most that the code may be, in files and in bytes.
const CODE_FILES_MAX: usize = 200;
const CODE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const MAIN: &str = "\
// The configuration first: the code looks for it when it is loaded.
import \"./config.mjs\";
export * from \"./keyreeve/index.js\";
export { default } from \"./keyreeve/index.js\";
";
const CONFIG: &str = "\
import text from \"./keyreeve.toml\";
globalThis.KEYREEVE_CONFIG = text;
";

/// Writes the folder.
pub(crate) fn run(args: &BuildWorkerArgs) -> Result<(), Failure> {
    let ConfigRead { config, warnings, .. } = load::read(&args.config, Home::Worker)?;
    warnings.iter().for_each(|warning| tell(&warning.to_string()));
    let text = load::text_of(&args.config)?;
    check_name(&args.name)?;
    let bindings = config.bindings();
    let bound = bound(&args.bind, &bindings)?;
    let to_put: Vec<&String> = bindings.secrets.iter().filter(|name| !bound.contains_key(*name)).collect();
    let code = code(&args.script)?;
    check_out(&args.out)?;
    let wrangler = format!("{MARK}\n{:#}\n", wrangler(&args.name, &config, &bindings, &bound));
    let written = write(
        &args.out,
        (&args.script, &code),
        &[
            ("wrangler.jsonc", &wrangler),
            ("keyreeve.toml", &text),
            ("config.mjs", CONFIG),
            ("main.mjs", MAIN),
            ("README.md", &readme(&args.name, &config, &bindings, &to_put)),
        ],
    );
    written.map_err(|cause| Failure::new(Code::Unavailable, cause))?;
    if args.json {
        say(&json!({ "ok": true, "out": args.out.display().to_string(), "name": args.name, "secrets": to_put })
            .to_string());
    } else {
        say(&format!(
            "`{}` is ready\n{}",
            args.out.display(),
            next_steps(&args.out.display().to_string(), &to_put).trim_end()
        ));
    }
    Ok(())
}

fn usage(message: String, hint: &str) -> Failure {
    Failure::new(Code::Usage, message).hint(hint)
}

fn check_name(name: &str) -> Result<(), Failure> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_right =
        (1..=63).contains(&name.len()) && name.bytes().all(is_good) && !name.starts_with('-') && !name.ends_with('-');
    if is_right {
        return Ok(());
    }
    Err(usage(
        format!("`--name {name}` is not a name for a Worker"),
        "1 to 63 characters of a-z, 0-9 and `-`, none of these at its ends",
    ))
}

/// What stands behind each binding: those that need it have it, and there are no others.
fn bound(given: &[String], bindings: &Bindings) -> Result<BTreeMap<String, String>, Failure> {
    let needed: Vec<(&String, &str)> = (bindings.services.iter().map(|name| (name, "the name of another Worker")))
        .chain(bindings.certificates.iter().map(|name| (name, "the id of a client certificate")))
        .collect();
    let optional = bindings.kv.iter().chain(&bindings.bucket).chain(&bindings.secrets);
    let known: Vec<&String> = needed.iter().map(|(name, _)| *name).chain(optional).collect();
    let mut bound = BTreeMap::new();
    for one in given {
        let Some((name, value)) = one.split_once('=') else {
            return Err(usage(
                format!("`--bind {one}` is not `NAME=VALUE`"),
                "for example `--bind RENEWAL=renewal-worker`",
            ));
        };
        if !known.iter().any(|known| *known == name) {
            let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let hint = if list.is_empty() { "it names none that needs one".into() } else { format!("it names {list}") };
            return Err(usage(
                format!("the configuration names no binding `{name}` that something stands behind"),
                &hint,
            ));
        }
        let is_right = match bindings.secrets.contains(name) {
            true => value.split_once('/').is_some_and(|(store, secret)| is_value(store) && is_value(secret)),
            false => is_value(value),
        };
        if !is_right {
            // Whoever writes a secret here has it in the history of the shell already; it need not be in a log as well.
            let message = format!("`--bind {name}=..` says nothing that can stand behind it (the value is not shown)");
            return Err(usage(
                message,
                "an id or a name: letters, digits, `.`, `_` and `-`; for a secret `STORE_ID/SECRET_NAME`",
            ));
        }
        if bound.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(usage(format!("`--bind {name}=..` is there twice"), "remove one"));
        }
    }
    match needed.iter().find(|(name, _)| !bound.contains_key(*name)) {
        Some((name, what)) => Err(usage(
            format!("nothing stands behind the binding `{name}`"),
            &format!("say {what}: `--bind {name}=..`"),
        )),
        None => Ok(bound),
    }
}

fn is_value(value: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=128).contains(&value.len()) && value.bytes().all(is_good)
}

/// The files of the code, by their path in the folder.
fn code(script: &Path) -> Result<Vec<PathBuf>, Failure> {
    const HINT: &str = "`scripts/build-worker` makes it; `--script DIR` says where it is";
    let shown = script.display();
    if !script.join(ENTRY).is_file() {
        return Err(usage(format!("there is no Worker in `{shown}`: `{ENTRY}` is missing"), HINT));
    }
    let unreadable = |cause: std::io::Error| usage(format!("cannot read the Worker in `{shown}`: {cause}"), HINT);
    let (mut files, mut folders, mut bytes) = (Vec::new(), vec![PathBuf::new()], 0u64);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(script.join(&folder)).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            // What begins with a point is a note of whoever made the code.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let (kind, path) = (entry.file_type().map_err(unreadable)?, folder.join(entry.file_name()));
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                bytes = bytes.saturating_add(entry.metadata().map_err(unreadable)?.len());
                files.push(path);
            }
            if files.len().max(folders.len()) > CODE_FILES_MAX || bytes > CODE_BYTES_MAX {
                return Err(usage(
                    format!(
                        "`{shown}` holds more than a Worker: {CODE_FILES_MAX} files and {CODE_BYTES_MAX} bytes are the most"
                    ),
                    HINT,
                ));
            }
        }
    }
    if !files.iter().any(|path| path.extension().is_some_and(|ending| ending == "wasm")) {
        return Err(usage(format!("there is no Worker in `{shown}`: no `.wasm` file is there"), HINT));
    }
    files.sort();
    Ok(files)
}

/// A folder that is empty, absent, or from an earlier build.
fn check_out(out: &Path) -> Result<(), Failure> {
    let is_ours = || fs::read_to_string(out.join("wrangler.jsonc")).is_ok_and(|text| text.starts_with(MARK));
    let is_free = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_free || is_ours() {
        return Ok(());
    }
    Err(usage(
        format!("`{}` is there already, and not from an earlier build", out.display()),
        "name another folder for `--out`",
    ))
}

fn write(out: &Path, (script, code): (&Path, &[PathBuf]), texts: &[(&str, &str)]) -> Result<(), String> {
    let failed = |path: &Path, cause: &std::io::Error| format!("cannot write `{}`: {cause}", path.display());
    let folder = out.join(CODE);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|cause| failed(&folder, &cause))?;
    }
    for path in code {
        let to = folder.join(path);
        let around = to.parent().unwrap_or(&folder);
        fs::create_dir_all(around).map_err(|cause| failed(around, &cause))?;
        fs::copy(script.join(path), &to).map_err(|cause| failed(&to, &cause))?;
    }
    for (name, text) in texts {
        let path = out.join(name);
        fs::write(&path, text).map_err(|cause| failed(&path, &cause))?;
    }
    Ok(())
}

/// The project as wrangler reads it.
fn wrangler(name: &str, config: &Config, bindings: &Bindings, bound: &BTreeMap<String, String>) -> Value {
    let mut project = Map::new();
    let mut set = |key: &str, value: Value| drop(project.insert(key.to_owned(), value));
    set("name", json!(name));
    set("main", json!("main.mjs"));
    set("compatibility_date", json!(COMPATIBILITY_DATE));
    set("rules", json!([{ "type": "Text", "globs": ["**/*.toml"], "fallthrough": false }]));
    set("observability", json!({ "enabled": true }));
    if let Some(object) = &bindings.durable_object {
        set("durable_objects", json!({ "bindings": [{ "name": object, "class_name": CLASS }] }));
        set("migrations", json!([{ "tag": "v1", "new_sqlite_classes": [CLASS] }]));
    }
    let with = |first: (&str, &String), second: &str| {
        let mut one = Map::new();
        one.insert(first.0.to_owned(), json!(first.1));
        if let Some(value) = bound.get(first.1) {
            one.insert(second.to_owned(), json!(value));
        }
        Value::Object(one)
    };
    if let Some(bucket) = &bindings.bucket {
        set("r2_buckets", json!([with(("binding", bucket), "bucket_name")]));
    }
    if let Some(kv) = &bindings.kv {
        set("kv_namespaces", json!([with(("binding", kv), "id")]));
    }
    let all = |names: &std::collections::BTreeSet<String>, second: &str| {
        names.iter().map(|name| with(("binding", name), second)).collect::<Vec<_>>()
    };
    if !bindings.services.is_empty() {
        set("services", all(&bindings.services, "service").into());
    }
    if !bindings.certificates.is_empty() {
        set("mtls_certificates", all(&bindings.certificates, "certificate_id").into());
    }
    let stored = bindings.secrets.iter().filter_map(|name| Some((name, bound.get(name)?.split_once('/')?)));
    let stored =
        stored.map(|(name, (store, secret))| json!({ "binding": name, "store_id": store, "secret_name": secret }));
    let stored: Vec<Value> = stored.collect();
    if !stored.is_empty() {
        set("secrets_store_secrets", stored.into());
    }
    if let Some(cron) = cron(config) {
        set("triggers", json!({ "crons": [cron] }));
    }
    Value::Object(project)
}

/// How often renewals are looked after although nobody asks. Durable Objects wake up by themselves, and this only starts
/// them; with a bucket nothing else does it.
fn cron(config: &Config) -> Option<&'static str> {
    match config.store {
        _ if !config.needs_store() => None,
        StoreUrl::DurableObject(_) => Some("*/5 * * * *"),
        _ => Some("* * * * *"),
    }
}

fn next_steps(folder: &str, secrets: &[&String]) -> String {
    let mut steps = format!("next:\n  cd {folder}\n");
    for secret in secrets {
        // Writing to a String cannot fail.
        let _ = writeln!(steps, "  wrangler secret put {secret}");
    }
    steps.push_str("  wrangler deploy\n");
    steps
}

fn readme(name: &str, config: &Config, bindings: &Bindings, secrets: &[&String]) -> String {
    let mut page = format!(
        "# `{name}`\n\nA keyreeve Worker. Everything in this folder was written by `keyreeve build worker`, and is written\n\
         again by the next build: change `keyreeve.toml` at its source.\n\n## Secrets\n\n"
    );
    if secrets.is_empty() {
        page.push_str("None.\n");
    }
    for secret in secrets {
        let _ = writeln!(page, "    wrangler secret put {secret}");
    }
    page.push_str(
        "\nThey are asked for at the terminal, and never stand in a file here.\n\n## Deploy\n\n    wrangler deploy\n",
    );
    if bindings.durable_object.is_some() {
        page.push_str("\nThe credentials are kept in Durable Objects of the class `Keyreeve`. Removing its migration from\n`wrangler.jsonc` does not remove them.\n");
    }
    if config.store_key.is_some() {
        page.push_str("\nNative nodes share them with `store.url = \"https://HOST\"` and the same `store.key`.\n");
    }
    page
}
