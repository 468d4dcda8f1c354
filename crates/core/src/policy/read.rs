//! Reads the text of a rule's `who`.
//!
//! ```text
//! who       = ("issuer:" | "verifier:") NAME [ "[" condition "]" ]
//! condition = part { "and" part } | part { "or" part }          mixing the two takes parentheses
//! part      = "(" condition ")" | claim question
//! claim     = "actor" | "actors" | name { "." name }            name = word, or text in quotes
//! question  = "has" text | "has any" list | "has all" list | "has like" text | "within" list
//!           | "is" (text | number | "true" | "false" | "none") | "like" text
//! list      = "(" text { "," text } ")"
//! ```
//! Text stands in single quotes; a quote inside is doubled.

use super::who::{Ask, Claim, Condition, LIST_MAX, Literal, Pattern, Source, Test, Who, is_bare};

/// The longest `who`, in bytes.
pub const WHO_BYTES_MAX: usize = 2048;
/// The most questions of one `who`.
pub const TESTS_MAX: usize = 64;
/// How deep parentheses may stand in each other.
pub const DEPTH_MAX: usize = 8;
/// The most names of a claim's path.
const PATH_MAX: usize = 8;
/// The questions, as a hint.
const QUESTIONS: &str =
    "ask with `has`, `has any`, `has all`, `has like`, `within`, `is` or `like`: `permissions has 'orders:write'`";

/// Why a text is no [`Who`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at column {column}")]
pub struct ReadError {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong there.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}

impl Who {
    /// Reads `issuer:gateway[permissions has 'orders:write']`.
    ///
    /// # Errors
    /// [`ReadError`] with the column; nothing is guessed. Takes time and memory in proportion to the text, which has
    /// [`WHO_BYTES_MAX`] bytes at the most.
    pub fn parse(text: &str) -> Result<Self, ReadError> {
        let mut reader = Reader { text, at: 0, tests: 0 };
        if text.len() > WHO_BYTES_MAX {
            let what = format!("the text has {} bytes, the most is {WHO_BYTES_MAX}: it goes on", text.len());
            reader.at = WHO_BYTES_MAX;
            return Err(reader.error(what, "write several rules"));
        }
        let source = reader.source()?;
        let condition = match reader.eats("[") {
            false => Condition::Anything,
            true => {
                let condition = reader.condition(0)?;
                if !reader.eats("]") {
                    return Err(reader.unexpected("`]`, `and` or `or`", "a condition ends with `]`"));
                }
                condition
            }
        };
        reader.spaces();
        if reader.rest().is_empty() {
            return Ok(Self { source, condition });
        }
        let after = if matches!(condition, Condition::Anything) { "`[` or the end" } else { "the end" };
        Err(reader.unexpected(after, "for example `issuer:gateway[permissions has 'orders:write']`"))
    }
}

impl Claim {
    /// Reads the name of a claim: `realm_access.roles`, `'https://example.org/roles'`, `actor`.
    ///
    /// # Errors
    /// [`ReadError`] with the column.
    pub fn parse(text: &str) -> Result<Self, ReadError> {
        let mut reader = Reader { text, at: 0, tests: 0 };
        let claim = reader.claim()?;
        if reader.rest().is_empty() { Ok(claim) } else { Err(reader.unexpected("the end", "one claim by its name")) }
    }
}

struct Reader<'t> {
    text: &'t str,
    /// In bytes, at the start of a character.
    at: usize,
    tests: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(' ').len();
    }

    fn error(&self, what: impl Into<String>, hint: &'static str) -> ReadError {
        let before = self.text.char_indices().take_while(|(at, _)| *at < self.at).count();
        ReadError { column: before + 1, what: what.into(), hint }
    }

    fn unexpected(&mut self, wanted: &str, hint: &'static str) -> ReadError {
        self.spaces();
        let word = self.rest().chars().take_while(|c| !c.is_whitespace()).take(20);
        let found: String = word.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        let found = if self.rest().is_empty() { "the end".into() } else { format!("`{found}`") };
        self.error(format!("expected {wanted}, found {found}"), hint)
    }

    /// Takes a mark, spaces before it included.
    fn eats(&mut self, mark: &str) -> bool {
        self.spaces();
        let is_there = self.rest().starts_with(mark);
        if is_there {
            self.at += mark.len();
        }
        is_there
    }

    /// The word here, which is not taken.
    fn peek(&mut self) -> &'t str {
        self.spaces();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    /// Takes this word, if it is the one here.
    fn word(&mut self, word: &str) -> bool {
        let is_there = self.peek() == word;
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn source(&mut self) -> Result<Source, ReadError> {
        const HINT: &str = "a rule is about the tokens of one `issuer:NAME` or `verifier:NAME`";
        let kind = self.peek();
        let make = match kind {
            "issuer" => Source::Issuer,
            "verifier" => Source::Verifier,
            _ => return Err(self.unexpected("`issuer:` or `verifier:`", HINT)),
        };
        self.at += kind.len();
        if !self.rest().starts_with(':') {
            return Err(self.unexpected("`:`", HINT));
        }
        self.at += 1;
        let rest = self.rest();
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        let name = rest.get(..rest.find(|c| !is_name(c)).unwrap_or(rest.len())).unwrap_or_default();
        if name.is_empty() {
            return Err(self.unexpected("a name of a-z, 0-9, `.`, `_` and `-`", HINT));
        }
        self.at += name.len();
        Ok(make(name.to_owned()))
    }

    fn condition(&mut self, depth: usize) -> Result<Condition, ReadError> {
        let mut parts = vec![self.part(depth)?];
        let word = match self.peek() {
            word @ ("and" | "or") => word,
            _ => return Ok(parts.remove(0)),
        };
        while self.word(word) {
            parts.push(self.part(depth)?);
        }
        if matches!(self.peek(), "and" | "or") {
            let what = "`and` and `or` stand side by side";
            return Err(self.error(what, "say what belongs together: `a has 'x' and (b has 'y' or b has 'z')`"));
        }
        Ok(if word == "and" { Condition::All(parts) } else { Condition::Any(parts) })
    }

    fn part(&mut self, depth: usize) -> Result<Condition, ReadError> {
        if !self.eats("(") {
            return self.test().map(Condition::Test);
        }
        if depth >= DEPTH_MAX {
            let what = format!("parentheses stand more than {DEPTH_MAX} deep");
            return Err(self.error(what, "write several rules"));
        }
        let condition = self.condition(depth + 1)?;
        if self.eats(")") { Ok(condition) } else { Err(self.unexpected("`)`, `and` or `or`", "a `(` is open")) }
    }

    fn test(&mut self) -> Result<Test, ReadError> {
        if self.tests >= TESTS_MAX {
            let what = format!("there are more than {TESTS_MAX} questions");
            return Err(self.error(what, "write several rules, or ask with `has any` and a list"));
        }
        self.tests += 1;
        if self.peek() == "not" {
            let what = "there is no `not`";
            return Err(self.error(what, "a rule says what allows something; what no rule allows is denied"));
        }
        self.spaces();
        let at = self.at;
        let claim = self.claim()?;
        let asked_at = {
            self.spaces();
            self.at
        };
        let ask = self.ask()?;
        let is_right = match (&claim, &ask) {
            (Claim::Actors, ask) => matches!(ask, Ask::Within(_)),
            (Claim::Actor, ask) => matches!(ask, Ask::Is(Literal::Text(_)) | Ask::Like(_) | Ask::IsNone),
            (Claim::Named(_), ask) => !matches!(ask, Ask::IsNone),
        };
        if is_right {
            return Ok(Test { claim, ask });
        }
        self.at = asked_at;
        Err(match claim {
            Claim::Actors => self.error(
                "`actors` can only be asked `within`",
                "`actors within ('gateway', 'billing')`: no others acted",
            ),
            Claim::Actor => self.error(
                "`actor` can only be asked `is`, `like` or `is none`",
                "`actor is 'gateway'`, or `actor is none` where nobody may act for somebody",
            ),
            Claim::Named(_) => {
                self.at = at;
                self.error("only `actor` can be asked whether it is none", "a claim that is not there allows nothing")
            }
        })
    }

    fn claim(&mut self) -> Result<Claim, ReadError> {
        const HINT: &str = "a claim is named as it is, or in quotes: `permissions`, `realm_access.roles`, `'https://example.org/roles'`";
        if self.word("actors") {
            return Ok(Claim::Actors);
        }
        if self.word("actor") {
            return Ok(Claim::Actor);
        }
        let mut path = Vec::new();
        loop {
            let word = self.peek();
            if self.rest().starts_with('\'') {
                path.push(self.quoted("a name")?);
            } else if is_bare(word) {
                self.at += word.len();
                path.push(word.to_owned());
            } else {
                return Err(self.unexpected("a claim", HINT));
            }
            if !self.rest().starts_with('.') {
                return Ok(Claim::Named(path));
            }
            if path.len() >= PATH_MAX {
                return Err(self.error(format!("the claim is more than {PATH_MAX} names deep"), HINT));
            }
            self.at += 1;
        }
    }

    fn ask(&mut self) -> Result<Ask, ReadError> {
        let word = self.peek();
        if !matches!(word, "has" | "within" | "is" | "like") {
            return Err(self.unexpected("a question", QUESTIONS));
        }
        self.at += word.len();
        match word {
            "has" if self.word("any") => Ok(Ask::HasAny(self.list()?)),
            "has" if self.word("all") => Ok(Ask::HasAll(self.list()?)),
            "has" if self.word("like") => Ok(Ask::HasLike(Pattern::new(self.quoted("a pattern")?))),
            "has" => self.quoted("text, `any`, `all` or `like`").map(Ask::Has),
            "within" => Ok(Ask::Within(self.list()?)),
            "like" => Ok(Ask::Like(Pattern::new(self.quoted("a pattern")?))),
            _ if self.word("none") => Ok(Ask::IsNone),
            _ => self.literal().map(Ask::Is),
        }
    }

    fn literal(&mut self) -> Result<Literal, ReadError> {
        let word = self.peek();
        let literal = match word {
            "true" => Literal::Flag(true),
            "false" => Literal::Flag(false),
            _ => match word.parse() {
                // `+1` and `01` are numbers to Rust and none to JSON.
                Ok(number) if i64::to_string(&number) == word => Literal::Number(number),
                _ => return self.quoted("text, a whole number, `true`, `false` or `none`").map(Literal::Text),
            },
        };
        self.at += word.len();
        Ok(literal)
    }

    fn list(&mut self) -> Result<Vec<String>, ReadError> {
        const HINT: &str = "a list stands in parentheses: `('orders:read', 'orders:write')`";
        if !self.eats("(") {
            return Err(self.unexpected("`(`", HINT));
        }
        let mut items = vec![self.quoted("text")?];
        while self.eats(",") {
            if items.len() >= LIST_MAX {
                return Err(self.error(format!("the list has more than {LIST_MAX} entries"), "write several rules"));
            }
            items.push(self.quoted("text")?);
        }
        if self.eats(")") { Ok(items) } else { Err(self.unexpected("`,` or `)`", HINT)) }
    }

    fn quoted(&mut self, wanted: &str) -> Result<String, ReadError> {
        const HINT: &str = "text stands in single quotes: `'orders:write'`; a quote inside is doubled";
        self.spaces();
        let Some(mut rest) = self.rest().strip_prefix('\'') else {
            return Err(self.unexpected(wanted, HINT));
        };
        let mut text = String::new();
        while let Some((part, after)) = rest.split_once('\'') {
            text.push_str(part);
            match after.strip_prefix('\'') {
                Some(more) => {
                    text.push('\'');
                    rest = more;
                }
                None => {
                    self.at = self.text.len() - after.len();
                    return Ok(text);
                }
            }
        }
        Err(self.error("a quote is not closed", HINT))
    }
}
