//! The text of a configuration as a tree that remembers the line of everything, in the order of the file.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, shown};

/// One value, and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) raw: Raw,
}

/// What was written.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Text(String),
    Integer(String),
    Float(String),
    Flag(bool),
    Moment(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key is written.
    pub(super) origin: Origin,
    pub(super) node: Node,
}

impl Raw {
    /// What this is, for a message.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::Moment(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// What this is with its value, for a message about a setting that holds no secret.
    pub(super) fn described(&self) -> String {
        match self {
            Self::Text(text) => format!("the text {}", shown(text)),
            Self::Integer(text) | Self::Float(text) => format!("the number {}", shown(text)),
            Self::Flag(flag) => format!("`{flag}`"),
            Self::Moment(text) => format!("the date {}", shown(text)),
            Self::List(_) | Self::Table(_) => self.kind().into(),
        }
    }
}

/// The line of each byte offset.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    pub(super) fn at(&self, offset: usize) -> Origin {
        Origin::Line(self.0.partition_point(|newline| *newline < offset) + 1)
    }
}

/// The entries of a parsed table, in the order of the file.
pub(super) fn entries(table: &DeTable<'_>, lines: &Lines) -> Vec<Entry> {
    // The parser sorts by name. Claims are signed in the order in which they were written, so the spans restore it.
    let mut sorted: Vec<_> = table.iter().collect();
    sorted.sort_by_key(|(key, _)| key.span().start);
    sorted
        .into_iter()
        .map(|(key, value)| {
            let origin = lines.at(key.span().start);
            let node = Node { origin: origin.clone(), raw: raw(value, lines) };
            Entry { key: key.get_ref().to_string(), origin, node }
        })
        .collect()
}

fn raw(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Raw::Integer(number.as_str().trim_start_matches('+').into())
        }
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) => Raw::Integer(value.to_string()),
            Err(_) => Raw::Integer(number.to_string()),
        },
        DeValue::Float(number) => Raw::Float(number.as_str().into()),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Datetime(moment) => Raw::Moment(moment.to_string()),
        DeValue::Array(items) => Raw::List(
            items.iter().map(|item| Node { origin: lines.at(item.span().start), raw: raw(item, lines) }).collect(),
        ),
        DeValue::Table(table) => Raw::Table(entries(table, lines)),
    }
}

/// `base.key`, with the key in quotes where TOML needs them.
pub(super) fn join(base: &str, key: &str) -> String {
    let is_bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if is_bare {
        key.to_owned()
    } else {
        format!("\"{}\"", key.chars().take(200).flat_map(char::escape_debug).collect::<String>())
    };
    if base.is_empty() { key } else { format!("{base}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_the_order_and_the_lines_of_the_file() {
        let text = "zebra = 1\n[ape]\nc = \"x\"\nb.d = [\n  1,\n  2,\n]\na = +0\n";
        let table = DeTable::parse(text).unwrap();
        let top = entries(table.get_ref(), &Lines::of(text));
        assert_eq!(top.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["zebra", "ape"]);
        let Raw::Table(ape) = &top[1].node.raw else { panic!("`ape` is a table") };
        let keys: Vec<_> = ape.iter().map(|entry| (entry.key.as_str(), entry.origin.clone())).collect();
        assert_eq!(keys, [("c", Origin::Line(3)), ("b", Origin::Line(4)), ("a", Origin::Line(8))]);
        let Raw::Table(b) = &ape[1].node.raw else { panic!("`b` is a table") };
        let Raw::List(items) = &b[0].node.raw else { panic!("`d` is a list") };
        assert_eq!(items[1].origin, Origin::Line(6));
    }

    #[test]
    fn a_path_quotes_what_toml_would_quote() {
        assert_eq!(join("credential", "acme/push"), "credential.\"acme/push\"");
        assert_eq!(join("", "store"), "store");
        assert_eq!(join("a", ""), "a.\"\"");
    }
}
