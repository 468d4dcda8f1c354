//! What is wrong with a configuration, told so that it can be put right in one go.

use std::fmt;
use std::sync::Arc;

/// The most problems that are kept; a file with more is better mended in steps.
pub const PROBLEMS_MAX: usize = 500;
/// The longest part of a value that is repeated in a message, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// Where an effective value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of the file, counted from 1.
    Line(usize),
    /// An environment variable, by its name.
    Environment(String),
    /// A preset of a source.
    Preset(&'static str),
    /// Nobody wrote it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Whether a configuration may be used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// No.
    Error,
    /// Yes, but somebody should know.
    Warning,
}

/// One thing to change. Prints as `error: .. (file:line)` and a hint on the next line; never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops keyreeve from starting.
    pub severity: Severity,
    /// The path of the setting, such as `credential.apns-prod.life.lead`; empty where the whole file is meant.
    pub setting: String,
    /// What is wrong, with the value and the limit.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Where it was written; for something that is missing, where it belongs.
    pub origin: Origin,
    /// The file.
    pub file: Arc<str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{kind}: {}", self.message)?;
        match &self.origin {
            Origin::Line(line) => write!(f, " ({}:{line})", self.file)?,
            Origin::Environment(name) => write!(f, " (environment {name})")?,
            Origin::Preset(_) | Origin::Default => write!(f, " ({})", self.file)?,
        }
        if !self.hint.is_empty() {
            write!(f, "\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// The problems.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'p> IntoIterator for &'p Problems {
    type Item = &'p Problem;
    type IntoIter = std::slice::Iter<'p, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What is wrong with one value: the rest of a sentence that starts with the setting's path, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// `must be ..., not ...`.
    pub(super) must: String,
    /// What to do; empty to give the setting's example.
    pub(super) hint: String,
}

impl Fault {
    pub(super) fn new(must: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { must: must.into(), hint: hint.into() }
    }

    /// A fault whose hint is the example of the setting.
    pub(super) fn plain(must: impl Into<String>) -> Self {
        Self::new(must, "")
    }
}

/// A value as it may stand in a message: in backticks, on one line, cut where it is long.
pub(super) fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    // `escape_debug` escapes quotes, which need no escape between backticks.
    text = text.replace("\\\"", "\"").replace("\\'", "'");
    if value.chars().nth(SHOWN_CHARS_MAX).is_some() {
        text.push_str("..");
    }
    format!("`{text}`")
}

/// The candidate that `word` was most probably meant to be, if one is close.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // A mistyped name is about as long as the right one; this also bounds the work for absurd keys.
    let most = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= most)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits between two words, where swapping two neighbours is one edit (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut rows: Vec<Vec<usize>> = vec![(0..width).collect()];
    let cell = |rows: &[Vec<usize>], row: usize, column: usize| {
        rows.get(row).and_then(|row| row.get(column)).copied().unwrap_or(usize::MAX / 2)
    };
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let substituted = cell(&rows, i, j) + usize::from(a != b);
            let inserted = row.last().copied().unwrap_or_default() + 1;
            let removed = cell(&rows, i, j + 1) + 1;
            let mut best = substituted.min(inserted).min(removed);
            let is_swap = i > 0 && j > 0 && left.get(i - 1) == Some(b) && right.get(j - 1) == Some(a);
            if is_swap {
                best = best.min(cell(&rows, i - 1, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    cell(&rows, left.len(), right.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_word_finds_its_right_spelling_and_a_foreign_one_does_not() {
        let words = ["lead", "lease", "max", "min_interval"];
        assert_eq!(nearest("leed", words), Some("lead"));
        assert_eq!(nearest("laed", words), Some("lead"));
        assert_eq!(nearest("mim_intervall", words), Some("min_interval"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest(&"x".repeat(100_000), words), None);
    }

    #[test]
    fn a_shown_value_stays_on_one_line_and_is_cut() {
        assert_eq!(shown("a\nb\"c"), "`a\\nb\"c`");
        assert_eq!(shown(&"y".repeat(61)), format!("`{}..`", "y".repeat(60)));
        assert_eq!(shown(&"y".repeat(60)), format!("`{}`", "y".repeat(60)));
    }
}
