//! Takes the settings of one table off the sheet, fills in what nobody wrote, and notes where each value comes from.

use super::problem::{Fault, Origin};
use super::sheet::{Named, Sheet, Taken, for_example};
use super::table::{Fallback, Kind, Setting};
use super::tree::join;
use super::types::{Keep, SecretRef};
use super::units::{duration_ms, show_duration, size_bytes};
use super::value::Value;

/// One table: its settings have this `parent` and start with this path.
pub(super) struct Scope<'s> {
    pub(super) sheet: &'s mut Sheet,
    pub(super) at: String,
    parent: &'static str,
}

impl<'s> Scope<'s> {
    pub(super) fn new(sheet: &'s mut Sheet, at: &str, parent: &'static str) -> Self {
        Self { sheet, at: at.to_owned(), parent }
    }

    pub(super) fn of(sheet: &'s mut Sheet, named: &Named, parent: &'static str) -> Self {
        Self::new(sheet, &named.path, parent)
    }

    /// A table inside this one.
    pub(super) fn inner(&mut self, name: &'static str) -> Scope<'_> {
        let at = self.path(name);
        let parent = match self.row(name).map(|row| &row.kind) {
            Some(Kind::Group(inside)) => inside,
            _ => "",
        };
        Scope { sheet: &mut *self.sheet, at, parent }
    }

    pub(super) fn path(&self, name: &str) -> String {
        join(&self.at, name)
    }

    fn row(&self, name: &str) -> Option<&'static Setting> {
        Setting::find(self.parent, name)
    }

    pub(super) fn is_written(&self, name: &str) -> bool {
        self.sheet.is_written(&self.path(name))
    }

    /// Whether something was written that is wrong.
    pub(super) fn is_broken(&self, name: &str) -> bool {
        self.sheet.is_broken(&self.path(name))
    }

    /// Says what is wrong with a setting of this table.
    pub(super) fn fault(&mut self, name: &str, fault: &Fault) {
        let path = self.path(name);
        let origin = self.sheet.place(&path);
        let row = self.row(name);
        self.sheet.fault(&path, origin, fault, row);
    }

    pub(super) fn warn(&mut self, name: &str, message: &str, hint: &str) {
        let path = self.path(name);
        let origin = self.sheet.place(&path);
        self.sheet.warn(&path, origin, format!("`{path}` {message}"), hint);
    }

    /// Notes an effective value that the table of settings cannot show by itself.
    pub(super) fn explain(&mut self, name: &str, value: String, origin: Origin) {
        let row = self.row(name);
        if row.is_some_and(|row| !row.lives_on(self.sheet.home)) {
            return;
        }
        let doc = row.map_or("", |row| row.doc);
        let path = self.path(name);
        self.sheet.explain(path, value, origin, doc);
    }

    /// What was written, noted; where nothing was, whether that is a problem is up to the table.
    fn written(&mut self, name: &str) -> Option<(Value, Origin)> {
        let path = self.path(name);
        let row = self.row(name);
        match (self.sheet.take(&path), row) {
            (Taken::Written(value, origin), Some(row)) => {
                self.sheet.explain(path, value.explained(&row.kind), origin.clone(), row.doc);
                Some((value, origin))
            }
            (Taken::Absent, Some(row)) if matches!(row.fallback, Fallback::Required) => {
                self.missing(name);
                None
            }
            _ => None,
        }
    }

    /// Says that a setting is needed.
    pub(super) fn missing(&mut self, name: &str) {
        let path = self.path(name);
        let origin = self.sheet.place(&self.at);
        let hint = self.row(name).map(|row| format!("{}: {}", for_example(row), first_sentence(row.doc)));
        self.sheet.report(&path, origin, format!("`{path}` is missing"), &hint.unwrap_or_default());
    }

    /// A duration, size or count; the default from the table where it has one.
    pub(super) fn number(&mut self, name: &str) -> u64 {
        let fallback = self.row(name).map_or(0, fallback_number);
        self.number_or(name, fallback)
    }

    /// A duration, size or count that `computed` stands in for.
    pub(super) fn number_or(&mut self, name: &str, computed: u64) -> u64 {
        if let Some((Value::Number(number), _)) = self.written(name) {
            return number;
        }
        if let Some(row) = self.row(name) {
            let value = Value::Number(computed).explained(&row.kind);
            self.explain(name, value, Origin::Default);
        }
        computed
    }

    /// A duration, written as such or as a share of `whole`, or `computed`.
    pub(super) fn share_or(&mut self, name: &str, whole: u64, computed: u64) -> u64 {
        match self.written(name) {
            Some((Value::Share(percent), origin)) => {
                let share = whole / 100 * percent + whole % 100 * percent / 100;
                self.explain(
                    name,
                    format!("{} ({percent}% of {})", show_duration(share), show_duration(whole)),
                    origin,
                );
                share
            }
            Some((Value::Number(number), _)) => number,
            _ => {
                self.explain(name, show_duration(computed), Origin::Default);
                computed
            }
        }
    }

    /// A count without a default.
    pub(super) fn maybe_number(&mut self, name: &str) -> Option<u64> {
        match self.written(name)? {
            (Value::Number(number), _) => Some(number),
            _ => None,
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        if let Some((Value::Flag(flag), _)) = self.written(name) {
            return flag;
        }
        let fallback = matches!(self.row(name).map(|row| &row.fallback), Some(Fallback::Value("true")));
        self.explain(name, fallback.to_string(), Origin::Default);
        fallback
    }

    /// Text as it was written.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.written(name)? {
            (Value::Text(text), _) => Some(text),
            _ => None,
        }
    }

    /// Text as it was written, or `computed`.
    pub(super) fn text_or(&mut self, name: &str, computed: &str) -> String {
        if let Some(text) = self.text(name) {
            return text;
        }
        self.explain(name, computed.to_owned(), Origin::Default);
        computed.to_owned()
    }

    /// Text, parsed. `show` says how `config explain` shows it.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
        show: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        self.parsed_or(name, None, parse, show)
    }

    /// Text that `computed` stands in for, parsed.
    pub(super) fn parsed_or<T>(
        &mut self,
        name: &str,
        computed: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
        show: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let path = self.path(name);
        let row = self.row(name)?;
        let (text, origin) = match (self.sheet.take(&path), &row.fallback) {
            (Taken::Written(Value::Text(text), origin), _) => (text, origin),
            (Taken::Absent, Fallback::Value(text)) => ((*text).to_owned(), Origin::Default),
            (Taken::Absent, Fallback::Computed(_)) if computed.is_some() => {
                (computed.unwrap_or_default().to_owned(), Origin::Default)
            }
            (Taken::Absent, Fallback::Required) => {
                self.missing(name);
                return None;
            }
            _ => return None,
        };
        match parse(&text) {
            Ok(value) => {
                self.sheet.explain(path, show(&value), origin, row.doc);
                Some(value)
            }
            Err(fault) => {
                self.fault(name, &fault);
                None
            }
        }
    }

    /// One of the names of a choice, as what it stands for.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, names: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    }

    /// One of the names of a choice, or what is computed.
    pub(super) fn choice_or<T: Copy + PartialEq>(&mut self, name: &str, names: &[(&str, T)], computed: T) -> T {
        if let Some(value) = self.choice(name, names) {
            return value;
        }
        let word = names.iter().find(|(_, value)| *value == computed).map_or("", |(name, _)| *name);
        self.explain(name, word.to_owned(), Origin::Default);
        computed
    }

    pub(super) fn texts(&mut self, name: &str) -> Option<Vec<(String, Origin)>> {
        match self.written(name)? {
            (Value::Texts(texts), _) => Some(texts),
            _ => None,
        }
    }

    pub(super) fn text_map(&mut self, name: &str) -> Vec<(String, String)> {
        match self.written(name) {
            Some((Value::TextMap(items), _)) => items,
            _ => Vec::new(),
        }
    }

    pub(super) fn secret(&mut self, name: &str) -> Option<SecretRef> {
        match self.written(name)? {
            (Value::Secret(secret), _) => Some(secret),
            _ => None,
        }
    }

    pub(super) fn secrets(&mut self, name: &str) -> Vec<SecretRef> {
        match self.written(name) {
            Some((Value::Secrets(secrets), _)) => secrets,
            _ => Vec::new(),
        }
    }

    pub(super) fn secret_map(&mut self, name: &str) -> Vec<(String, SecretRef)> {
        match self.written(name) {
            Some((Value::SecretMap(items), _)) => items,
            _ => Vec::new(),
        }
    }

    pub(super) fn json(&mut self, name: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
        match self.written(name)? {
            (Value::Json(map), _) => Some(map),
            _ => None,
        }
    }

    pub(super) fn keep(&mut self, name: &str) -> Keep {
        if let Some((Value::Keep(keep), _)) = self.written(name) {
            return keep;
        }
        let computed = Keep::OnDemand { lifetimes: 3 };
        self.explain(name, Value::Keep(computed).explained(&Kind::Keep), Origin::Default);
        computed
    }
}

/// The default of a row as a number; the tests of the table see to it that every default can be read.
pub(super) fn fallback_number(row: &Setting) -> u64 {
    match (&row.fallback, &row.kind) {
        (Fallback::Value(text), Kind::Duration(..) | Kind::DurationOrShare(..)) => {
            duration_ms(text).unwrap_or_default()
        }
        (Fallback::Value(text), Kind::Size(..)) => size_bytes(text).unwrap_or_default(),
        (Fallback::Value(text), _) => text.parse().unwrap_or_default(),
        _ => 0,
    }
}

fn first_sentence(doc: &str) -> String {
    let sentence = doc.split(". ").next().unwrap_or(doc).split(": ").next().unwrap_or(doc).trim_end_matches('.');
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
