//! The shape of one row of the table of settings, and look-ups in it.
//!
//! The table ([`settings`](super::settings)) drives reading, the finding of unknown keys, `config explain`, the JSON
//! Schema and the reference page, so that none of them can disagree.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::settings::settings;
use super::types::Home;

/// The rows by their table: a file of a mebibyte asks for some hundred thousand.
static BY_PARENT: LazyLock<BTreeMap<&'static str, Vec<&'static Setting>>> = LazyLock::new(|| {
    let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    settings().for_each(|row| rows.entry(row.parent).or_default().push(row));
    rows
});

/// One setting, or one table of settings.
#[derive(Debug)]
pub struct Setting {
    /// The table it is in: `credential.*.life`, `listener[]`, empty at the top.
    pub parent: &'static str,
    /// Its key.
    pub name: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// What holds if nobody writes it.
    pub fallback: Fallback,
    /// The sources it belongs to, where not to all; presets count as sources of their own.
    pub only: &'static [&'static str],
    /// The only home where it makes sense, if one, and what to do elsewhere.
    pub home: Option<(Home, &'static str)>,
    /// What it means, in one or two sentences.
    pub doc: &'static str,
    /// A right value, as TOML.
    pub example: &'static str,
}

/// What may be written.
#[derive(Debug)]
pub enum Kind {
    /// A table of settings whose `parent` is this.
    Group(&'static str),
    /// A table of named tables, whose settings have this `parent`.
    Named(&'static str),
    /// A list of tables, whose settings have the first as `parent`, and at most so many.
    Groups(&'static str, usize),
    /// `true` or `false`.
    Flag,
    /// A whole number, limits included.
    Count(u64, u64),
    /// A time with its unit, limits included, in milliseconds.
    Duration(u64, u64),
    /// The same, or a share of another time, such as `20%`.
    DurationOrShare(u64, u64),
    /// A size with its unit, limits included, in bytes.
    Size(u64, u64),
    /// One of the first; the second are known, but not in this version.
    Choice(&'static [&'static str], &'static [&'static str]),
    /// A list of such.
    Choices(&'static [&'static str], &'static [&'static str]),
    /// Text.
    Text(Text),
    /// A list of texts, at most so many.
    Texts(Text, usize),
    /// One text, or a list of texts, at least one and at most so many.
    OneOrMore(Text, usize),
    /// A table of texts, at most so many.
    TextMap(Text, usize),
    /// A reference to a secret.
    Secret,
    /// A list of references to secrets, at most so many.
    Secrets(usize),
    /// A table of references to secrets, at most so many.
    SecretMap(usize),
    /// A table of anything that JSON can say, at most so many bytes of it.
    Json(usize),
    /// `"always"`, a whole number, or `"3 lifetimes"`.
    Keep,
}

/// What a text must look like.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// For people: `an absolute path`.
    pub what: &'static str,
    /// For the JSON Schema: ECMA 262.
    pub pattern: &'static str,
    /// The longest, in bytes.
    pub bytes_max: usize,
    /// Whether the value may hold a secret after all, and is therefore never repeated.
    pub is_quiet: bool,
    /// Whether a whole number may be written for it.
    pub takes_numbers: bool,
}

/// What holds if nobody writes a setting.
#[derive(Debug)]
pub enum Fallback {
    /// It has to be written.
    Required,
    /// Nothing; the text says when it is needed.
    Unset(&'static str),
    /// This value, as it would be written.
    Value(&'static str),
    /// What the text says.
    Computed(&'static str),
}

impl Setting {
    /// Where it is written, with `*` for a name: `credential.*.life.max`.
    #[must_use]
    pub fn path(&self) -> String {
        if self.parent.is_empty() { self.name.into() } else { format!("{}.{}", self.parent, self.name) }
    }

    /// The settings of the same table.
    pub(super) fn children_of(parent: &str) -> impl Iterator<Item = &'static Self> {
        BY_PARENT.get(parent).into_iter().flatten().copied()
    }

    pub(super) fn find(parent: &str, name: &str) -> Option<&'static Self> {
        Self::children_of(parent).find(|setting| setting.name == name)
    }

    /// Whether a credential of this source may have it.
    pub(super) fn belongs_to(&self, flavour: &str) -> bool {
        self.only.is_empty() || self.only.contains(&flavour)
    }

    /// Whether it makes sense there.
    pub(super) fn lives_on(&self, home: Home) -> bool {
        self.home.is_none_or(|(only, _)| only == home)
    }

    pub(super) const fn on(mut self, home: Home, elsewhere: &'static str) -> Self {
        self.home = Some((home, elsewhere));
        self
    }

    pub(super) const fn only(mut self, sources: &'static [&'static str]) -> Self {
        self.only = sources;
        self
    }
}

/// A row: where, what, the default, the meaning, an example.
pub(super) const fn row(
    place: (&'static str, &'static str),
    kind: Kind,
    fallback: Fallback,
    doc: &'static str,
    example: &'static str,
) -> Setting {
    Setting { parent: place.0, name: place.1, kind, fallback, only: &[], home: None, doc, example }
}

impl Text {
    pub(super) const fn new(what: &'static str, pattern: &'static str, bytes_max: usize) -> Self {
        Self { what, pattern, bytes_max, is_quiet: false, takes_numbers: false }
    }

    pub(super) const fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    pub(super) const fn or_number(mut self) -> Self {
        self.takes_numbers = true;
        self
    }
}
