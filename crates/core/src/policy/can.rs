//! Requests: a method and a path, as rules name them and as they come in.
//!
//! A path that two programs could read in two ways is read in none: what the gate takes for `/orders/..` must not be
//! `/admin` to the service behind it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The longest request of a rule, in bytes.
pub const CAN_BYTES_MAX: usize = 512;
/// The longest path of a request with its query, in bytes.
pub const PATH_BYTES_MAX: usize = 8192;
/// The longest method of a rule, in bytes.
const METHOD_BYTES_MAX: usize = 32;

/// `POST /orders/*`: what a rule allows.
///
/// The method is one word, or `*` for any; `GET` allows `HEAD` as well (RFC 9110 9.3.2: it asks for less). In the path
/// `*` stands for one or more characters, but no `/`; `/**` at the end stands for everything below. The query is not
/// looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    method: Option<Box<str>>,
    path: Box<str>,
    segments: Vec<Glob>,
    has_rest: bool,
}

/// Why a text is no [`Act`]: the rest of a sentence that starts with its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ActError(String);

impl Act {
    /// The method: `*` for any.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("*")
    }

    /// The path, as it is written.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether this is its method.
    #[must_use]
    pub fn has_method(&self, method: &str) -> bool {
        match self.method.as_deref() {
            None => true,
            Some("GET") => method == "GET" || method == "HEAD",
            Some(own) => own == method,
        }
    }

    /// Whether this is one of its paths.
    #[must_use]
    pub fn has_path(&self, path: &RequestPath<'_>) -> bool {
        let mut sent = path.segments();
        for glob in &self.segments {
            match sent.next() {
                Some(segment) if glob.matches(segment) => {}
                _ => return false,
            }
        }
        // `/orders/**` is what is below `/orders/`, and that itself; `/orders` is another path.
        if self.has_rest { sent.next().is_some() } else { sent.next().is_none() }
    }
}

impl FromStr for Act {
    type Err = ActError;

    fn from_str(text: &str) -> Result<Self, ActError> {
        let refuse = |what: &str| Err(ActError(what.to_owned()));
        if text.len() > CAN_BYTES_MAX {
            return Err(ActError(format!("has {} bytes, the most is {CAN_BYTES_MAX}", text.len())));
        }
        let Some((method, path)) = text.split_once(' ') else {
            return refuse("must be a method and a path with one space between them");
        };
        let is_word = !method.is_empty()
            && method.len() <= METHOD_BYTES_MAX
            && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if method != "*" && !is_word {
            return refuse("must start with a method in capitals, such as `GET`, or with `*` for any");
        }
        let Some(rest) = path.strip_prefix('/') else { return refuse("has a path that does not start with `/`") };
        if path.contains(['?', '#', '\\']) || path.chars().any(char::is_control) {
            return refuse("has a path with `?`, `#`, `\\` or a control character in it, which no path holds");
        }
        if path.contains('%') {
            return refuse("has a path with `%` in it: write characters as they are, without percent-encoding");
        }
        let (rest, has_rest) = match rest.strip_suffix("**") {
            Some("") => (None, true),
            Some(before) if before.ends_with('/') => (before.strip_suffix('/'), true),
            Some(_) => {
                return refuse("has `**` in the middle of a word: it stands alone, at the end, as in `/orders/**`");
            }
            None => (Some(rest), false),
        };
        let mut segments = Vec::new();
        let count = rest.map_or(0, |rest| rest.split('/').count());
        for (at, segment) in rest.into_iter().flat_map(|rest| rest.split('/')).enumerate() {
            if segment.contains("**") {
                return refuse("has `**` before its end: `*` stands for what is between two `/`, `/**` ends a path");
            }
            if is_dots(segment) {
                return refuse("has `.` or `..` in its path, which no request may have");
            }
            if segment.is_empty() && (at + 1 < count || has_rest) {
                return refuse("has `//` in its path, which no request may have");
            }
            segments.push(Glob::new(segment));
        }
        let method = (method != "*").then(|| method.into());
        Ok(Self { method, path: path.into(), segments, has_rest })
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method(), self.path)
    }
}

/// One part of a path, in which `*` stands for one or more characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob(Vec<Box<str>>);

impl Glob {
    fn new(text: &str) -> Self {
        Self(text.split('*').map(Into::into).collect())
    }

    fn matches(&self, text: &str) -> bool {
        glob(&self.0, text, 1)
    }
}

/// Whether `text` is `parts` with at least `least` bytes between any two of them.
///
/// Greedy from the left, which finds a match where there is one; time is the product of the lengths at the worst.
pub(super) fn glob(parts: &[Box<str>], text: &str, least: usize) -> bool {
    let (first, last) = match parts {
        [] => return text.is_empty(),
        [only] => return **only == *text,
        [first, .., last] => (first, last),
    };
    let Some(mut rest) = text.as_bytes().strip_prefix(first.as_bytes()) else { return false };
    for part in parts.iter().skip(1).take(parts.len().saturating_sub(2)) {
        let Some(after) = rest.get(least..) else { return false };
        let found = if part.is_empty() { Some(0) } else { find(after, part.as_bytes()) };
        let Some(after) = found.and_then(|at| after.get(at + part.len()..)) else { return false };
        rest = after;
    }
    rest.strip_suffix(last.as_bytes()).is_some_and(|between| between.len() >= least)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The path of a request, read once: percent-encoding undone, query dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath<'p>(Cow<'p, str>);

/// A path that is not read, because somebody else could read it in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It does not start with `/`, as that of `OPTIONS *`.
    #[error("the path does not start with `/`")]
    Relative,
    /// It has more than [`PATH_BYTES_MAX`] bytes.
    #[error("the path has more than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// `.` or `..` between two `/`, written in whatever way.
    #[error("the path has `.` or `..` in it, which the service behind may undo")]
    Dots,
    /// `//`, which many servers take for `/`.
    #[error("the path has `//` in it, which the service behind may take for `/`")]
    Empty,
    /// An encoded `/` or `%`, a backslash, a control character.
    #[error("the path has an encoded `/`, an encoded escape, `\\` or a control character in it")]
    Ambiguous,
    /// Percent-encoding that is none, or not of UTF-8.
    #[error("the path is not percent-encoded UTF-8")]
    Encoding,
}

impl<'p> RequestPath<'p> {
    /// Reads the path of a request: `/orders/7?draft=1`.
    ///
    /// # Errors
    /// [`PathError`]: what is refused here could mean one thing to a rule and another to the service.
    pub fn parse(sent: &'p str) -> Result<Self, PathError> {
        if sent.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        let path = sent.split_once('?').map_or(sent, |(path, _)| path);
        let plain = if path.contains('%') { Cow::Owned(decoded(path)?) } else { Cow::Borrowed(path) };
        let rest = plain.strip_prefix('/').ok_or(PathError::Relative)?;
        if plain.contains(['\\', '#']) || plain.chars().any(char::is_control) {
            return Err(PathError::Ambiguous);
        }
        let mut parts = rest.split('/').peekable();
        while let Some(part) = parts.next() {
            if part.is_empty() && parts.peek().is_some() {
                return Err(PathError::Empty);
            }
            // `..;x=1` is `..` to servers that take off parameters.
            if is_dots(part.split(';').next().unwrap_or(part)) {
                return Err(PathError::Dots);
            }
        }
        Ok(Self(plain))
    }

    /// The path, decoded, without its query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.strip_prefix('/').unwrap_or(&self.0).split('/')
    }
}

fn is_dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

fn decoded(path: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (byte, after) = escape(rest).ok_or(PathError::Encoding)?;
        if byte == b'/' {
            return Err(PathError::Ambiguous);
        }
        bytes.push(byte);
        rest = after;
    }
    // `%252e` would be `.` to whoever decodes twice.
    let mut percents = bytes.split(|byte| *byte == b'%').skip(1);
    if percents.any(|after| escape(after).is_some()) {
        return Err(PathError::Ambiguous);
    }
    String::from_utf8(bytes).map_err(|_| PathError::Encoding)
}

/// The byte of the two hexadecimal digits that `text` starts with.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.split_at_checked(2)?;
    let [high, low] = digits else { return None };
    let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
    Some((u8::try_from(value).ok()?, after))
}
