//! Walks the tree of a configuration along the table of settings: right values on one side, problems on the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::problem::{Fault, Origin, PROBLEMS_MAX, Problem, Severity, nearest, shown};
use super::settings::{LATER, PRESETS, SOURCES, settings};
use super::table::{Kind, Setting};
use super::tree::{Entry, Node, Raw, join};
use super::types::Home;
use super::value::{Complaint, Value, ValueReader};

/// Keys that look right and are not, with what to do instead: table, key, hint.
const INSTEAD: &[(&str, &str, &str)] = &[
    ("caller.*", "key", NEW_KEY),
    ("caller.*", "api_key", NEW_KEY),
    ("caller.*", "secret", NEW_KEY),
    ("caller.*", "token", NEW_KEY),
    ("caller.*", "password", NEW_KEY),
    ("credential.*", "ttl", "the life of a credential is `life.max`"),
    ("credential.*", "interval", "the least time between two mints is `life.min_interval`"),
    ("seal", "key", "`keys` is a list: the first seals, all open"),
    ("listener[]", "address", "the address is `bind`"),
    ("listener[]", "port", "the port is part of `bind`: `bind = \"127.0.0.1:7070\"`"),
];
/// How an API key gets into the configuration: as its hash.
pub(super) const NEW_KEY: &str =
    "`keyreeve config new-key NAME` makes a key, and prints the `key_sha256` that belongs here";

/// An effective value, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The setting: `credential.apns-prod.life.lead`.
    pub path: String,
    /// Its value, as it would be written; references to secrets, never secrets.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
    /// What it means.
    pub doc: &'static str,
}

/// One of the tables that the user names, or of a list.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) key: String,
    pub(super) path: String,
    pub(super) origin: Origin,
}

/// Everything that was written, checked one by one.
pub(super) struct Sheet {
    file: Arc<str>,
    pub(super) allow_literals: bool,
    pub(super) home: Home,
    found: BTreeMap<String, (Value, Origin)>,
    broken: BTreeSet<String>,
    /// Every table and value, with its line.
    places: BTreeMap<String, Origin>,
    named: BTreeMap<&'static str, Vec<Named>>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    explained: Vec<Explained>,
}

/// What became of a setting.
pub(super) enum Taken {
    Written(Value, Origin),
    Absent,
    /// A problem has been reported already.
    Broken,
}

impl Sheet {
    pub(super) fn new(file: &str, allow_literals: bool, home: Home) -> Self {
        Self {
            file: file.into(),
            allow_literals,
            home,
            found: BTreeMap::new(),
            broken: BTreeSet::new(),
            places: BTreeMap::new(),
            named: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            explained: Vec::new(),
        }
    }

    /// Reports a problem whose message is a whole sentence.
    pub(super) fn report(&mut self, setting: &str, origin: Origin, message: String, hint: &str) {
        self.broken.insert(setting.to_owned());
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(self.entry(Severity::Error, setting, origin, message, hint));
        }
    }

    /// Reports what is wrong with a setting.
    pub(super) fn fault(&mut self, setting: &str, origin: Origin, fault: &Fault, example: Option<&Setting>) {
        let hint = match example {
            Some(row) if fault.hint.is_empty() => for_example(row),
            _ => fault.hint.clone(),
        };
        self.report(setting, origin, format!("`{setting}` {}", fault.must), &hint);
    }

    pub(super) fn warn(&mut self, setting: &str, origin: Origin, message: String, hint: &str) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push(self.entry(Severity::Warning, setting, origin, message, hint));
        }
    }

    fn entry(&self, severity: Severity, setting: &str, origin: Origin, message: String, hint: &str) -> Problem {
        let file = Arc::clone(&self.file);
        Problem { severity, setting: setting.into(), message, hint: hint.into(), origin, file }
    }

    pub(super) fn take(&self, path: &str) -> Taken {
        match self.found.get(path) {
            Some((value, origin)) => Taken::Written(value.clone(), origin.clone()),
            None if self.broken.contains(path) => Taken::Broken,
            None => Taken::Absent,
        }
    }

    /// The tables that the user named, in the order of the file.
    pub(super) fn named(&self, inside: &'static str) -> Vec<Named> {
        self.named.get(inside).cloned().unwrap_or_default()
    }

    /// Where a setting or a table was written, or else the nearest table around it.
    pub(super) fn place(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            if let Some(origin) = self.places.get(path) {
                return origin.clone();
            }
            match path.rsplit_once('.') {
                Some((around, _)) => path = around,
                None => return Origin::Default,
            }
        }
    }

    pub(super) fn is_written(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    pub(super) fn is_broken(&self, path: &str) -> bool {
        self.broken.contains(path)
    }

    /// Whether anything in this table is broken.
    pub(super) fn is_broken_in(&self, table: &str) -> bool {
        let start = format!("{table}.");
        self.broken.range(start.clone()..).next().is_some_and(|path| path.starts_with(&start))
    }

    pub(super) fn explain(&mut self, path: String, value: String, origin: Origin, doc: &'static str) {
        self.explained.push(Explained { path, value, origin, doc });
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Problems and warnings in the order of the lines, and the effective values.
    pub(super) fn finish(mut self) -> (Vec<Problem>, Vec<Problem>, Vec<Explained>) {
        self.problems.sort_by(|left, right| left.origin.cmp(&right.origin));
        self.warnings.sort_by(|left, right| left.origin.cmp(&right.origin));
        (self.problems, self.warnings, self.explained)
    }

    /// Checks the entries of the table `at`, whose settings have this `parent`. `flavour` is the source of the
    /// credential that the table belongs to.
    pub(super) fn table(&mut self, entries: &[Entry], at: &str, parent: &'static str, flavour: Option<&'static str>) {
        for entry in entries {
            let path = join(at, &entry.key);
            let Some(setting) = Setting::find(parent, &entry.key) else {
                self.unknown(entry, &path, at, parent, flavour);
                continue;
            };
            self.places.insert(path.clone(), entry.origin.clone());
            if let Some(source) = flavour
                && !setting.belongs_to(source)
            {
                let owners = setting.only.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let message = format!("`{path}` does not belong to source `{source}`");
                self.report(&path, entry.origin.clone(), message, &format!("it is a setting of {owners}"));
                continue;
            }
            if let Some((home, hint)) = setting.home.filter(|(home, _)| *home != self.home) {
                let message = match home {
                    Home::Native => format!("`{path}` is not for a Worker"),
                    Home::Worker => format!("`{path}` is for a Worker only"),
                };
                self.report(&path, entry.origin.clone(), message, hint);
                continue;
            }
            self.one(setting, entry, &path, flavour);
        }
    }

    fn one(&mut self, setting: &'static Setting, entry: &Entry, path: &str, flavour: Option<&'static str>) {
        match (&setting.kind, &entry.node.raw) {
            (Kind::Group(inside), Raw::Table(entries)) => self.table(entries, path, inside, flavour),
            (Kind::Named(inside), Raw::Table(entries)) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    self.member(inside, &entry.key, path, &entry.node, entry.origin.clone());
                }
            }
            (Kind::Groups(inside, most), Raw::List(nodes)) => {
                if nodes.len() > *most {
                    let fault = Fault::new(format!("has {} entries, the most is {most}", nodes.len()), "remove some");
                    self.fault(path, entry.origin.clone(), &fault, Some(setting));
                }
                for (at, node) in nodes.iter().enumerate().take(*most) {
                    self.member(inside, "", format!("{path}[{at}]"), node, node.origin.clone());
                }
            }
            (Kind::Groups(..), found) => {
                let fault = Fault::plain(format!("must be a list of tables, not {}", found.kind()));
                self.fault(path, entry.origin.clone(), &fault, Some(setting));
            }
            _ => self.leaf(setting, &entry.node, path),
        }
    }

    fn member(&mut self, inside: &'static str, key: &str, path: String, node: &Node, origin: Origin) {
        self.places.insert(path.clone(), origin.clone());
        let Raw::Table(entries) = &node.raw else {
            let fault = Fault::new(format!("must be a table, not {}", node.raw.kind()), format!("write `[{path}]`"));
            self.fault(&path, origin, &fault, None);
            return;
        };
        let flavour = if inside == "credential.*" { flavour_of(entries) } else { None };
        self.table(entries, &path, inside, flavour);
        self.named.entry(inside).or_default().push(Named { key: key.to_owned(), path, origin });
    }

    fn leaf(&mut self, setting: &'static Setting, node: &Node, path: &str) {
        let (allow_literals, home) = (self.allow_literals, self.home);
        let mut reader = ValueReader { setting, path, allow_literals, home, complaints: Vec::new() };
        let value = reader.read(node);
        let complaints = std::mem::take(&mut reader.complaints);
        for Complaint { path, origin, fault } in complaints {
            self.fault(&path, origin, &fault, Some(setting));
        }
        match value {
            Some(value) => {
                self.found.insert(path.to_owned(), (value, node.origin.clone()));
            }
            None => {
                self.broken.insert(path.to_owned());
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, path: &str, at: &str, parent: &str, flavour: Option<&str>) {
        // Nobody reads this far, and looking for the nearest spelling takes its time.
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let key = entry.key.as_str();
        let around = if at.is_empty() { String::from("at the top of the file") } else { format!("in `{at}`") };
        let home = self.home;
        let is_here = |row: &&Setting| row.lives_on(home) && flavour.is_none_or(|source| row.belongs_to(source));
        let here: Vec<&str> = Setting::children_of(parent).filter(is_here).map(|row| row.name).collect();
        if LATER.contains(&(parent, key)) {
            let hint = format!("this version has {}", ticked(&here));
            self.report(path, entry.origin.clone(), format!("`{path}` is not in this version"), &hint);
            return;
        }
        let instead = INSTEAD.iter().find(|(table, name, _)| *table == parent && *name == key);
        let hint = if let Some((_, _, hint)) = instead {
            (*hint).to_owned()
        } else if let Some(other) = misplaced(key, parent, flavour) {
            other
        } else if let Some(near) = nearest(key, here.iter().copied()) {
            format!("did you mean `{near}`?")
        } else {
            format!("known here: {}", ticked(&here))
        };
        let message = format!("{} is not a setting {around}", shown(key));
        self.report(path, entry.origin.clone(), message, &hint);
    }
}

/// The hint for a key that is right, but in another table of the same thing.
fn misplaced(key: &str, parent: &str, flavour: Option<&str>) -> Option<String> {
    let root = |parent: &str| parent.split('.').take(2).collect::<Vec<_>>().join(".");
    let other = settings().find(|row| {
        row.name == key
            && row.parent != parent
            && !row.parent.is_empty()
            && root(row.parent) == root(parent)
            && flavour.is_none_or(|source| row.belongs_to(source))
    })?;
    let inner = other.parent.strip_prefix(&root(parent)).map(|rest| rest.trim_start_matches('.'));
    Some(match inner {
        None | Some("") => {
            format!("`{key}` stands beside `{}`, not in it", parent.rsplit('.').next().unwrap_or(parent))
        }
        Some(table) => format!("`{key}` belongs into `{table}`: `{table} = {{ {key} = {} }}`", other.example),
    })
}

/// The source of a credential: its preset, where it has one, since presets have settings of their own.
fn flavour_of(entries: &[Entry]) -> Option<&'static str> {
    let written = |key: &str| {
        entries.iter().find(|entry| entry.key == key).map(|entry| match &entry.node.raw {
            Raw::Text(text) => text.as_str(),
            _ => "",
        })
    };
    let source = SOURCES.iter().copied().find(|name| written("source") == Some(name))?;
    match written("preset") {
        Some(preset) if source == "jwt" => PRESETS.iter().copied().find(|name| *name == preset),
        _ => Some(source),
    }
}

fn ticked(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A right value of the setting, as a hint.
pub(super) fn for_example(row: &Setting) -> String {
    match row.kind {
        Kind::Group(_) | Kind::Named(_) | Kind::Groups(..) => format!("for example `{}`", row.example),
        _ => format!("for example `{} = {}`", row.name, row.example),
    }
}
