//! One written value, checked against the kind and the limits of its setting.

use std::path::PathBuf;

use keyreeve_core::secret::Secret;
use serde_json::{Map, Value as Json};

use super::problem::{Fault, Origin, nearest, shown};
use super::table::{Kind, Setting, Text};
use super::tree::{Entry, Node, Raw, join};
use super::types::{Home, Keep, SecretRef};
use super::units::{duration_ms, show_duration, show_size, size_bytes, with_units};

/// Tables and lists inside `header` and `claims` may be nested this deep.
pub(super) const JSON_DEPTH_MAX: usize = 8;
/// The longest path in a secret reference, in bytes.
const PATH_BYTES_MAX: usize = 4096;
/// The most lifetimes without demand.
pub(super) const LIFETIMES_MAX: u32 = 1000;

/// A value of the right kind.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Flag(bool),
    /// A count, bytes, or milliseconds.
    Number(u64),
    /// Per cent.
    Share(u64),
    Text(String),
    Texts(Vec<(String, Origin)>),
    TextMap(Vec<(String, String)>),
    Secret(SecretRef),
    Secrets(Vec<SecretRef>),
    SecretMap(Vec<(String, SecretRef)>),
    Json(Map<String, Json>),
    Keep(Keep),
}

/// A complaint about a value, or about a part of it with a place of its own.
pub(super) struct Complaint {
    pub(super) path: String,
    pub(super) origin: Origin,
    pub(super) fault: Fault,
}

/// Reads values of one setting.
pub(super) struct ValueReader<'r> {
    pub(super) setting: &'static Setting,
    pub(super) path: &'r str,
    pub(super) allow_literals: bool,
    pub(super) home: Home,
    pub(super) complaints: Vec<Complaint>,
}

impl ValueReader<'_> {
    /// The value, or complaints.
    pub(super) fn read(&mut self, node: &Node) -> Option<Value> {
        let one = |value: Result<Value, Fault>| value;
        let value = match &self.setting.kind {
            Kind::Group(_) | Kind::Named(_) | Kind::Groups(..) => Err(wrong(node, "a table", false)),
            Kind::Flag => match node.raw {
                Raw::Flag(flag) => Ok(Value::Flag(flag)),
                _ => Err(wrong(node, "`true` or `false`", false)),
            },
            Kind::Count(least, most) => count(node, *least, *most),
            Kind::Duration(least, most) => {
                one(amount(node, "a time with its unit", (*least, *most), duration_ms, show_duration))
            }
            Kind::DurationOrShare(least, most) => match share(node) {
                Some(share) => share.map(Value::Share),
                None => amount(node, "a time with its unit", (*least, *most), duration_ms, show_duration),
            },
            Kind::Size(least, most) => {
                one(amount(node, "a size with its unit", (*least, *most), size_bytes, show_size))
            }
            Kind::Choice(now, later) => choice(node, now, later).map(Value::Text),
            Kind::Choices(now, later) => {
                return self.list(node, now.len(), |node, _, _| choice(node, now, later)).map(Value::Texts);
            }
            Kind::Text(rule) => text(node, rule).map(Value::Text),
            Kind::Texts(rule, most) => {
                return self.list(node, *most, |node, _, _| text(node, rule)).map(Value::Texts);
            }
            Kind::OneOrMore(rule, most) => return self.one_or_more(node, rule, *most).map(Value::Texts),
            Kind::TextMap(rule, most) => {
                return self.map(node, *most, |node, _, _| text(node, rule)).map(Value::TextMap);
            }
            Kind::Secret => secret(node, self.allow_literals, self.home).map(Value::Secret),
            Kind::Secrets(most) => {
                let items = self.list(node, *most, secret)?;
                return Some(Value::Secrets(items.into_iter().map(|(item, _)| item).collect()));
            }
            Kind::SecretMap(most) => return self.map(node, *most, secret).map(Value::SecretMap),
            Kind::Json(bytes_max) => return self.json(node, *bytes_max),
            Kind::Keep => keep(node),
        };
        match value {
            Ok(value) => Some(value),
            Err(fault) => {
                self.complain(node.origin.clone(), fault);
                None
            }
        }
    }

    fn complain(&mut self, origin: Origin, fault: Fault) {
        self.complaints.push(Complaint { path: self.path.to_owned(), origin, fault });
    }

    fn list<T>(
        &mut self,
        node: &Node,
        most: usize,
        item: impl Fn(&Node, bool, Home) -> Result<T, Fault>,
    ) -> Option<Vec<(T, Origin)>> {
        let Raw::List(nodes) = &node.raw else {
            let is_quiet = self.is_quiet();
            self.complain(node.origin.clone(), wrong(node, "a list", is_quiet));
            return None;
        };
        if nodes.len() > most {
            let fault = Fault::plain(format!("has {} entries, the most is {most}", nodes.len()));
            self.complain(node.origin.clone(), fault);
            return None;
        }
        let before = self.complaints.len();
        let mut items = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            match item(node, self.allow_literals, self.home) {
                Ok(value) => items.push((value, node.origin.clone())),
                Err(fault) => {
                    let path = format!("{}[{at}]", self.path);
                    self.complaints.push(Complaint { path, origin: node.origin.clone(), fault });
                }
            }
        }
        (self.complaints.len() == before).then_some(items)
    }

    fn one_or_more(&mut self, node: &Node, rule: &Text, most: usize) -> Option<Vec<(String, Origin)>> {
        if let Raw::Text(_) = node.raw {
            return match text(node, rule) {
                Ok(text) => Some(vec![(text, node.origin.clone())]),
                Err(fault) => {
                    self.complain(node.origin.clone(), fault);
                    None
                }
            };
        }
        let items = self.list(node, most, |node, _, _| text(node, rule))?;
        if items.is_empty() {
            self.complain(node.origin.clone(), Fault::plain("must not be empty"));
            return None;
        }
        Some(items)
    }

    fn map<T>(
        &mut self,
        node: &Node,
        most: usize,
        item: impl Fn(&Node, bool, Home) -> Result<T, Fault>,
    ) -> Option<Vec<(String, T)>> {
        let Raw::Table(entries) = &node.raw else {
            let is_quiet = self.is_quiet();
            self.complain(node.origin.clone(), wrong(node, "a table", is_quiet));
            return None;
        };
        if entries.len() > most {
            let fault = Fault::plain(format!("has {} entries, the most is {most}", entries.len()));
            self.complain(node.origin.clone(), fault);
            return None;
        }
        let before = self.complaints.len();
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            match item(&entry.node, self.allow_literals, self.home) {
                Ok(value) => items.push((entry.key.clone(), value)),
                Err(fault) => {
                    let path = join(self.path, &entry.key);
                    self.complaints.push(Complaint { path, origin: entry.origin.clone(), fault });
                }
            }
        }
        (self.complaints.len() == before).then_some(items)
    }

    fn json(&mut self, node: &Node, bytes_max: usize) -> Option<Value> {
        let Raw::Table(entries) = &node.raw else {
            self.complain(node.origin.clone(), wrong(node, "a table", false));
            return None;
        };
        let path = self.path.to_owned();
        let map = self.json_table(entries, &path, 1)?;
        let bytes = serde_json::to_string(&map).map_or(usize::MAX, |text| text.len());
        if bytes > bytes_max {
            let (bytes, most) = (show_size(bytes as u64), show_size(bytes_max as u64));
            self.complain(
                node.origin.clone(),
                Fault::new(
                    format!("is {bytes} of JSON, the most is {most}"),
                    "tokens travel in headers: say less in them",
                ),
            );
            return None;
        }
        Some(Value::Json(map))
    }

    fn json_table(&mut self, entries: &[Entry], path: &str, depth: usize) -> Option<Map<String, Json>> {
        let mut map = Map::new();
        let mut is_whole = true;
        for entry in entries {
            match self.json_value(&entry.node, &join(path, &entry.key), depth) {
                Some(value) => {
                    map.insert(entry.key.clone(), value);
                }
                None => is_whole = false,
            }
        }
        is_whole.then_some(map)
    }

    fn json_value(&mut self, node: &Node, path: &str, depth: usize) -> Option<Json> {
        let fault = match &node.raw {
            Raw::Text(text) => return Some(Json::String(text.clone())),
            Raw::Flag(flag) => return Some(Json::Bool(*flag)),
            Raw::Integer(number) => match number.parse::<i64>() {
                Ok(number) => return Some(Json::from(number)),
                Err(_) => {
                    Fault::new(format!("is outside the whole numbers of JSON: {}", shown(number)), "write it as text")
                }
            },
            Raw::Float(number) => {
                let parsed = number.replace('_', "").parse().ok().and_then(serde_json::Number::from_f64);
                match parsed {
                    Some(number) => return Some(Json::Number(number)),
                    None => Fault::new(format!("is not a number of JSON: {}", shown(number)), "write it as text"),
                }
            }
            Raw::Moment(moment) => Fault::new(
                format!("is a date, which JSON does not have: {}", shown(moment)),
                "write it in quotes, or as seconds since 1970",
            ),
            Raw::List(_) | Raw::Table(_) if depth >= JSON_DEPTH_MAX => {
                Fault::new(format!("is nested deeper than {JSON_DEPTH_MAX}"), "flatten it")
            }
            Raw::List(nodes) => {
                let items = nodes.iter().enumerate();
                let values: Vec<_> =
                    items.map(|(at, node)| self.json_value(node, &format!("{path}[{at}]"), depth + 1)).collect();
                return values.into_iter().collect::<Option<Vec<_>>>().map(Json::Array);
            }
            Raw::Table(entries) => return self.json_table(entries, path, depth + 1).map(Json::Object),
        };
        self.complaints.push(Complaint { path: path.to_owned(), origin: node.origin.clone(), fault });
        None
    }

    fn is_quiet(&self) -> bool {
        match &self.setting.kind {
            Kind::Secret | Kind::Secrets(_) | Kind::SecretMap(_) => true,
            Kind::Text(rule) | Kind::Texts(rule, _) | Kind::OneOrMore(rule, _) | Kind::TextMap(rule, _) => {
                rule.is_quiet
            }
            _ => false,
        }
    }
}

fn wrong(node: &Node, what: &str, is_quiet: bool) -> Fault {
    let found = if is_quiet { node.raw.kind().to_owned() } else { node.raw.described() };
    Fault::plain(format!("must be {what}, not {found}"))
}

fn count(node: &Node, least: u64, most: u64) -> Result<Value, Fault> {
    let Raw::Integer(text) = &node.raw else { return Err(wrong(node, "a whole number", false)) };
    match text.replace('_', "").parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(Value::Number(number)),
        _ => Err(Fault::plain(format!("must be between {least} and {most}, not {}", shown(text)))),
    }
}

fn amount(
    node: &Node,
    what: &str,
    (least, most): (u64, u64),
    parse: fn(&str) -> Result<u64, Fault>,
    show: fn(u64) -> String,
) -> Result<Value, Fault> {
    let text = match &node.raw {
        Raw::Text(text) | Raw::Integer(text) => text,
        _ => return Err(wrong(node, &format!("{what}, in quotes"), false)),
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let choices: Vec<_> =
            with_units(text, (least, most), parse).into_iter().map(|choice| format!("`{choice}`")).collect();
        let hint = if choices.is_empty() { String::new() } else { format!("did you mean {}?", choices.join(" or ")) };
        return Err(Fault::new(format!("must be {what}, not just {}", shown(text)), hint));
    }
    let value = parse(text)?;
    if (least..=most).contains(&value) {
        return Ok(Value::Number(value));
    }
    Err(Fault::plain(format!("must be between {} and {}, not {}", show(least), show(most), shown(text))))
}

/// `20%`; none where there is no per cent sign.
fn share(node: &Node) -> Option<Result<u64, Fault>> {
    let Raw::Text(text) = &node.raw else { return None };
    let digits = text.trim().strip_suffix('%')?.trim_end();
    let percent = digits.parse::<u64>().ok().filter(|percent| (1..=99).contains(percent));
    let fault = || Fault::new(format!("must be `1%` to `99%`, not {}", shown(text)), "or write a time, such as `10m`");
    Some(percent.ok_or_else(fault))
}

fn choice(node: &Node, now: &[&str], later: &[&str]) -> Result<String, Fault> {
    let list = now.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let Raw::Text(text) = &node.raw else { return Err(wrong(node, &format!("one of {list}"), false)) };
    if now.contains(&text.as_str()) {
        return Ok(text.clone());
    }
    if later.contains(&text.as_str()) {
        return Err(Fault::new(
            format!("is {}, which is not in this version", shown(text)),
            format!("this version has {list}"),
        ));
    }
    let hint = nearest(text, now.iter().chain(later).copied())
        .map_or_else(String::new, |near| format!("did you mean `{near}`?"));
    Err(Fault::new(format!("must be one of {list}, not {}", shown(text)), hint))
}

fn text(node: &Node, rule: &Text) -> Result<String, Fault> {
    let text = match &node.raw {
        Raw::Text(text) => text,
        Raw::Integer(text) if rule.takes_numbers => text,
        _ => return Err(wrong(node, &format!("{}, in quotes", rule.what), rule.is_quiet)),
    };
    if text.len() > rule.bytes_max {
        let (found, most) = (show_size(text.len() as u64), show_size(rule.bytes_max as u64));
        return Err(Fault::plain(format!("is {found} long, the most is {most}")));
    }
    Ok(text.clone())
}

fn keep(node: &Node) -> Result<Value, Fault> {
    let text = match &node.raw {
        Raw::Text(text) => text.trim(),
        Raw::Integer(text) => text,
        _ => return Err(wrong(node, "`\"always\"` or a number of lifetimes", false)),
    };
    if text == "always" {
        return Ok(Value::Keep(Keep::Always));
    }
    let number = text.strip_suffix("lifetimes").or_else(|| text.strip_suffix("lifetime")).unwrap_or(text).trim();
    match number.parse::<u32>() {
        Ok(lifetimes) if (1..=LIFETIMES_MAX).contains(&lifetimes) => Ok(Value::Keep(Keep::OnDemand { lifetimes })),
        _ => Err(Fault::new(
            format!("must be `always` or 1 to {LIFETIMES_MAX} lifetimes, not {}", shown(text)),
            "write `keep = \"always\"` or `keep = \"3 lifetimes\"`",
        )),
    }
}

/// Reads a reference to a secret. The text is never part of the complaint: it may be the secret.
fn secret(node: &Node, allow_literals: bool, home: Home) -> Result<SecretRef, Fault> {
    match &node.raw {
        Raw::Text(text) => secret_ref(text, allow_literals, home),
        raw => Err(Fault::new(format!("must be a reference to a secret, in quotes, not {}", raw.kind()), hint(home))),
    }
}

const fn hint(home: Home) -> &'static str {
    match home {
        Home::Native => "write `file:/path/to/it`, or `env:NAME` for an environment variable",
        Home::Worker => "write `binding:NAME`, and give the secret to the Worker: `wrangler secret put NAME`",
    }
}

/// Reads a reference to a secret. What stands there instead may be the secret itself, so it is not repeated.
pub(super) fn secret_ref(text: &str, allow_literals: bool, home: Home) -> Result<SecretRef, Fault> {
    let hint = hint(home);
    let name = |rest: &str| {
        if is_variable(rest) {
            return Ok(rest.to_owned());
        }
        Err(Fault::new(
            "does not name a variable: A-Z, a-z, 0-9 and `_`, at most 128 of them (the value is not shown)",
            hint,
        ))
    };
    let reference = match text.split_once(':') {
        Some(("env", rest)) => SecretRef::Env(name(rest)?),
        Some(("binding", rest)) => SecretRef::Binding(name(rest)?),
        Some(("name-in", rest)) => SecretRef::NameIn(name(rest)?),
        Some(("file", rest)) if !rest.is_empty() && rest.len() <= PATH_BYTES_MAX && !rest.contains('\0') => {
            SecretRef::File(PathBuf::from(rest))
        }
        Some(("file", _)) => {
            return Err(Fault::new(
                format!("does not name a file: a path of 1 to {PATH_BYTES_MAX} bytes (the value is not shown)"),
                hint,
            ));
        }
        _ if text.is_empty() => return Err(Fault::new("must not be empty", hint)),
        _ if allow_literals => SecretRef::Literal(Secret::new(text.to_owned())),
        _ => {
            return Err(Fault::new(
                "must be a reference to a secret, not the secret itself (the value is not shown)",
                hint,
            ));
        }
    };
    let absent = match (home, &reference) {
        (Home::Worker, SecretRef::File(_)) => "is a file, and a Worker has none",
        (Home::Worker, SecretRef::Env(_) | SecretRef::NameIn(_)) => "is an environment variable, and a Worker has none",
        (Home::Native, SecretRef::Binding(_)) => "is a binding, and those exist on Workers only",
        _ => return Ok(reference),
    };
    Err(Fault::new(format!("{absent}: `{}`", show_secret(&reference)), hint))
}

/// Whether this can be the name of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    starts && name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Value {
    /// The value as `config explain` shows it: references to secrets, never secrets.
    pub(super) fn explained(&self, kind: &Kind) -> String {
        match (self, kind) {
            (Self::Flag(flag), _) => flag.to_string(),
            (Self::Number(ms), Kind::Duration(..) | Kind::DurationOrShare(..)) => show_duration(*ms),
            (Self::Share(percent), _) => format!("{percent}%"),
            (Self::Number(bytes), Kind::Size(..)) => show_size(*bytes),
            (Self::Number(number), _) => number.to_string(),
            (Self::Text(text), Kind::Text(rule)) if rule.is_quiet => format!("({} bytes)", text.len()),
            (Self::Text(text), _) => text.clone(),
            (Self::Texts(items), Kind::Texts(rule, _)) if rule.is_quiet => format!("({} entries)", items.len()),
            (Self::Texts(items), _) => listed(items.iter().map(|(item, _)| item.clone())),
            (Self::TextMap(items), Kind::TextMap(rule, _)) if rule.is_quiet => {
                listed(items.iter().map(|(key, _)| key.clone()))
            }
            (Self::TextMap(items), _) => listed(items.iter().map(|(key, value)| format!("{key} = {value}"))),
            (Self::Secret(secret), _) => show_secret(secret),
            (Self::Secrets(items), _) => listed(items.iter().map(show_secret)),
            (Self::SecretMap(items), _) => {
                listed(items.iter().map(|(key, secret)| format!("{key} = {}", show_secret(secret))))
            }
            (Self::Json(map), _) => serde_json::to_string(map).unwrap_or_default(),
            (Self::Keep(Keep::Always), _) => "always".into(),
            (Self::Keep(Keep::OnDemand { lifetimes }), _) => format!("{lifetimes} lifetimes"),
        }
    }
}

fn listed(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A reference as it would be written; a literal is not shown.
pub(super) fn show_secret(secret: &SecretRef) -> String {
    match secret {
        SecretRef::Env(name) => format!("env:{name}"),
        SecretRef::File(path) => format!("file:{}", path.display()),
        SecretRef::Binding(name) => format!("binding:{name}"),
        SecretRef::NameIn(name) => format!("name-in:{name}"),
        SecretRef::Literal(_) => "***".into(),
    }
}
