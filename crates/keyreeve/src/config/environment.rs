//! `KEYREEVE__STORE__URL`: settings from the environment, which win over the file.

use std::collections::BTreeMap;

use super::problem::{Fault, Origin, nearest, shown};
use super::settings::settings;
use super::sheet::Sheet;
use super::table::{Kind, Setting};
use super::tree::{Entry, Node, Raw, join};

/// What every such variable starts with.
pub const PREFIX: &str = "KEYREEVE__";
const BETWEEN: &str = "__";

/// One step from the top of the tree to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// A setting that a variable may stand for.
struct Target {
    steps: Vec<Step>,
    setting: &'static Setting,
}

/// Puts every `KEYREEVE__` variable into the tree.
pub(super) fn apply(env: &BTreeMap<String, String>, tree: &mut Vec<Entry>, sheet: &mut Sheet) {
    let ours = env.range(String::from(PREFIX)..).take_while(|(name, _)| name.starts_with(PREFIX));
    for (name, value) in ours {
        let origin = Origin::Environment(name.clone());
        let rest = name.strip_prefix(PREFIX).unwrap_or_default();
        let mut targets = Vec::new();
        find(rest, "", tree, &mut Vec::new(), &mut targets);
        match targets.as_slice() {
            [target] => match raw(value, &target.setting.kind, &origin) {
                Some(raw) => put(tree, &target.steps, &Node { origin: origin.clone(), raw }, &origin),
                None => {
                    let path = shown_path(&target.steps);
                    let fault =
                        Fault::new("cannot be set from the environment", "it is a table: write it into the file");
                    sheet.fault(&path, origin, &fault, None);
                }
            },
            [] => unknown(rest, name, origin, tree, sheet),
            several => {
                let paths: Vec<_> = several.iter().map(|target| format!("`{}`", shown_path(&target.steps))).collect();
                let message = format!("{} could be {}", shown(name), paths.join(" or "));
                sheet.report(name, origin, message, "write the setting into the file");
            }
        }
    }
}

/// Every setting that `rest` may stand for. Names of the user's are compared as upper case with `_` for anything else.
fn find(rest: &str, parent: &str, here: &[Entry], steps: &mut Vec<Step>, targets: &mut Vec<Target>) {
    for setting in Setting::children_of(parent) {
        let Some(after) = rest.strip_prefix(setting.name.to_ascii_uppercase().as_str()) else { continue };
        let inner = after.strip_prefix(BETWEEN);
        steps.push(Step::Key(setting.name.into()));
        let node = here.iter().find(|entry| entry.key == setting.name).map(|entry| &entry.node.raw);
        let tables: &[Entry] = if let Some(Raw::Table(entries)) = node { entries } else { &[] };
        match (&setting.kind, inner) {
            (Kind::Group(inside), Some(inner)) => find(inner, inside, tables, steps, targets),
            (Kind::Named(inside), Some(inner)) => {
                for entry in tables {
                    let name = variable_part(&entry.key);
                    let Some(inner) = inner.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix(BETWEEN))
                    else {
                        continue;
                    };
                    steps.push(Step::Key(entry.key.clone()));
                    let entries: &[Entry] = if let Raw::Table(entries) = &entry.node.raw { entries } else { &[] };
                    find(inner, inside, entries, steps, targets);
                    steps.pop();
                }
            }
            (Kind::Groups(inside, _), Some(inner)) => {
                let nodes: &[Node] = if let Some(Raw::List(nodes)) = node { nodes } else { &[] };
                let parts =
                    inner.split_once(BETWEEN).and_then(|(index, inner)| Some((index.parse::<usize>().ok()?, inner)));
                // One more than there are: a container without a file can still listen.
                if let Some((index, inner)) = parts.filter(|(index, _)| *index <= nodes.len()) {
                    steps.push(Step::Index(index));
                    let entries: &[Entry] = if let Some(Raw::Table(entries)) = nodes.get(index).map(|node| &node.raw) {
                        entries
                    } else {
                        &[]
                    };
                    find(inner, inside, entries, steps, targets);
                    steps.pop();
                }
            }
            (Kind::Group(_) | Kind::Named(_) | Kind::Groups(..), None) => {}
            _ if after.is_empty() => targets.push(Target { steps: steps.clone(), setting }),
            _ => {}
        }
        steps.pop();
    }
}

/// A name of the user's as it stands in a variable.
fn variable_part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The text of a variable as what a file would hold; none for tables.
fn raw(value: &str, kind: &Kind, origin: &Origin) -> Option<Raw> {
    let text = || Raw::Text(value.to_owned());
    Some(match kind {
        Kind::Group(_) | Kind::Named(_) | Kind::Groups(..) | Kind::TextMap(..) | Kind::SecretMap(_) | Kind::Json(_) => {
            return None;
        }
        Kind::Flag => value.parse().map_or_else(|_| text(), Raw::Flag),
        Kind::Count(..) if value.parse::<u64>().is_ok() => Raw::Integer(value.to_owned()),
        Kind::Choices(..) | Kind::Texts(..) | Kind::OneOrMore(..) | Kind::Secrets(_) => {
            let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
            Raw::List(items.map(|item| Node { origin: origin.clone(), raw: Raw::Text(item.to_owned()) }).collect())
        }
        _ => text(),
    })
}

fn put(entries: &mut Vec<Entry>, steps: &[Step], node: &Node, origin: &Origin) {
    let [Step::Key(key), rest @ ..] = steps else { return };
    let at = match entries.iter().position(|entry| entry.key == *key) {
        Some(at) => at,
        None => {
            let raw = if matches!(rest.first(), Some(Step::Index(_))) {
                Raw::List(Vec::new())
            } else {
                Raw::Table(Vec::new())
            };
            let node = Node { origin: origin.clone(), raw };
            entries.push(Entry { key: key.clone(), origin: origin.clone(), node });
            entries.len().saturating_sub(1)
        }
    };
    let Some(entry) = entries.get_mut(at) else { return };
    match (rest, &mut entry.node.raw) {
        ([], _) => {
            entry.node = node.clone();
            entry.origin = origin.clone();
        }
        ([Step::Index(index), rest @ ..], Raw::List(nodes)) => {
            if nodes.len() == *index {
                nodes.push(Node { origin: origin.clone(), raw: Raw::Table(Vec::new()) });
            }
            if let Some(Node { raw: Raw::Table(entries), .. }) = nodes.get_mut(*index) {
                put(entries, rest, node, origin);
            }
        }
        (_, Raw::Table(entries)) => put(entries, rest, node, origin),
        // The file has something else where a table belongs, which the reader is about to say.
        _ => {}
    }
}

fn shown_path(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |path, step| match step {
        Step::Key(key) => join(&path, key),
        Step::Index(index) => format!("{path}[{index}]"),
    })
}

fn unknown(rest: &str, name: &str, origin: Origin, tree: &[Entry], sheet: &mut Sheet) {
    let mut known = Vec::new();
    for row in settings().filter(|row| !matches!(row.kind, Kind::Group(_) | Kind::Named(_) | Kind::Groups(..))) {
        let path = row.path().replace("[]", ".0").replace('.', BETWEEN).to_ascii_uppercase();
        match row.parent.split_once('*') {
            None => known.push(path),
            Some((root, _)) => {
                let root = root.trim_end_matches('.');
                let table = tree.iter().find(|entry| entry.key == root).map(|entry| &entry.node.raw);
                if let Some(Raw::Table(entries)) = table {
                    known
                        .extend(entries.iter().take(64).map(|entry| path.replacen('*', &variable_part(&entry.key), 1)));
                }
            }
        }
    }
    let hint = nearest(rest, known.iter().map(String::as_str)).map_or_else(
        || String::from("`KEYREEVE__STORE__URL` stands for `store.url`; a name under `credential` or `caller` has to be in the file"),
        |near| format!("did you mean `{PREFIX}{near}`?"),
    );
    sheet.report(name, origin, format!("{} names no setting", shown(name)), &hint);
}
