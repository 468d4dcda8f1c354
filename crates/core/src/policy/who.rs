//! Whose tokens, and what they must say: `issuer:gateway[permissions has 'orders:write']`.

use std::borrow::Cow;
use std::fmt;

use super::Lack;
use super::can::glob;
use crate::json::{Items, Node, Value};

/// The most entries of a list in a condition.
pub const LIST_MAX: usize = 64;
/// The longest chain of actors that is followed.
const ACTORS_MAX: usize = 8;
/// Claims that are lists of words in one text (RFC 8693 4.2; `scp` is Microsoft's name for it).
const SPACED: [&str; 2] = ["scope", "scp"];

/// Whose tokens, and what they must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The issuer or verifier that accepted the token.
    pub source: Source,
    /// What the claims must be.
    pub condition: Condition,
}

/// Who vouches for a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// `issuer:NAME`: an issuer of this fleet.
    Issuer(String),
    /// `verifier:NAME`: somebody else, whose tokens are verified here.
    Verifier(String),
}

/// What claims must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Anything: every token of the source will do.
    Anything,
    /// One thing.
    Test(Test),
    /// All of these. At least two.
    All(Vec<Condition>),
    /// One of these. At least two.
    Any(Vec<Condition>),
}

/// One question to one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Which claim.
    pub claim: Claim,
    /// What it must be.
    pub ask: Ask,
}

/// A claim, or something that claims say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// By its name, and by names inside of it: `realm_access.roles`. Never empty.
    Named(Vec<String>),
    /// `actor`: who acts for the subject at present, `act.sub` (RFC 8693 4.1).
    Actor,
    /// `actors`: everybody in the chain of `act`, the present one first. Rules can ask that all of them be known, and no
    /// more: by the RFC, earlier actors are no reason to allow anything.
    Actors,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A list with this entry.
    Has(String),
    /// A list with one of these entries.
    HasAny(Vec<String>),
    /// A list with all of these entries.
    HasAll(Vec<String>),
    /// A list with an entry like this.
    HasLike(Pattern),
    /// A list with no other entries than these.
    Within(Vec<String>),
    /// Exactly this.
    Is(Literal),
    /// Text like this.
    Like(Pattern),
    /// Not there. Only `actor` can be asked that.
    IsNone,
}

/// A value of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// Text, compared byte by byte.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A truth.
    Flag(bool),
}

/// Text in which `*` stands for any characters, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Box<str>>,
}

impl Pattern {
    /// Takes a pattern. Without a `*` it fits one text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let parts = text.split('*').map(Into::into).collect();
        Self { text, parts }
    }

    /// Whether it fits.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        glob(&self.parts, text, 0)
    }
}

impl Condition {
    /// Whether these claims are so. A claim that is missing or of another type is never so.
    #[must_use]
    pub fn holds(&self, claims: Node<'_>) -> bool {
        match self {
            Self::Anything => true,
            Self::Test(test) => test.holds(claims),
            Self::All(parts) => parts.iter().all(|part| part.holds(claims)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(claims)),
        }
    }

    /// How many tests fail, on the shortest way to where it holds.
    pub(super) fn missing(&self, claims: Node<'_>) -> u32 {
        match self {
            Self::Anything => 0,
            Self::Test(test) => u32::from(!test.holds(claims)),
            Self::All(parts) => parts.iter().map(|part| part.missing(claims)).sum(),
            Self::Any(parts) => parts.iter().map(|part| part.missing(claims)).min().unwrap_or(0),
        }
    }

    /// Those tests.
    pub(super) fn lacks(&self, claims: Node<'_>, lacks: &mut Vec<Lack>) {
        match self {
            Self::Anything => {}
            Self::Test(test) if test.holds(claims) => {}
            Self::Test(test) => lacks.push(Lack::Claim(test.lacking(claims), test.why_not(claims))),
            Self::All(parts) => parts.iter().for_each(|part| part.lacks(claims, lacks)),
            Self::Any(parts) => {
                if let Some(nearest) = parts.iter().min_by_key(|part| part.missing(claims)) {
                    nearest.lacks(claims, lacks);
                }
            }
        }
    }
}

/// What stands where a test looks.
enum Found<'c> {
    Nothing,
    List(Items<'c>),
    /// Words with spaces between them.
    Words(&'c str),
    /// The one entry of a list that is written without brackets (`aud`, RFC 7519 4.1.3).
    Single(&'c str),
    Other(Node<'c>),
    Actors(Vec<&'c str>),
    /// An `act` that is not what RFC 8693 says.
    Malformed,
}

impl Test {
    /// Whether these claims are so.
    #[must_use]
    pub fn holds(&self, claims: Node<'_>) -> bool {
        let found = self.claim.find(claims, self.ask.wants_list());
        match &self.ask {
            Ask::Has(entry) => found.any(|it| it == entry),
            Ask::HasAny(entries) => found.any(|it| entries.iter().any(|entry| entry == it)),
            Ask::HasAll(entries) => entries.iter().all(|entry| found.any(|it| it == entry)),
            Ask::HasLike(pattern) => found.any(|it| pattern.fits(it)),
            Ask::Within(entries) => found.all(|it| entries.iter().any(|entry| entry == it)),
            Ask::Is(literal) => found.is(literal),
            Ask::Like(pattern) => found.text().is_some_and(|text| pattern.fits(text)),
            Ask::IsNone => matches!(found, Found::Nothing),
        }
    }

    /// This test without what holds already.
    fn lacking(&self, claims: Node<'_>) -> Self {
        let Ask::HasAll(entries) = &self.ask else { return self.clone() };
        let found = self.claim.find(claims, true);
        let lacking: Vec<String> = entries.iter().filter(|entry| !found.any(|it| it == *entry)).cloned().collect();
        let ask = match lacking.as_slice() {
            [one] => Ask::Has(one.clone()),
            _ => Ask::HasAll(lacking),
        };
        Self { claim: self.claim.clone(), ask }
    }

    fn why_not(&self, claims: Node<'_>) -> Option<&'static str> {
        match (self.claim.find(claims, self.ask.wants_list()), &self.ask) {
            (Found::Malformed, _) => Some("its `act` is not what RFC 8693 says"),
            (Found::Nothing, Ask::IsNone) | (Found::Actors(_), _) => None,
            (Found::Nothing, _) => Some("it is not there"),
            (Found::Other(node), ask) if ask.wants_list() && node.text().is_some() => Some("it is text, and no list"),
            (Found::Other(_), ask) if ask.wants_list() => Some("it is no list"),
            (Found::Other(node), Ask::Is(_) | Ask::Like(_)) if node.items().is_some() => Some("it is a list"),
            _ => None,
        }
    }

    /// As the end of "it would be allowed if ..".
    pub(super) fn wished(&self) -> String {
        let claim = &self.claim;
        match &self.ask {
            Ask::Has(entry) => format!("`{claim}` had {}", Quoted(entry)),
            Ask::HasAny(entries) => format!("`{claim}` had one of {}", List(entries)),
            Ask::HasAll(entries) => format!("`{claim}` had all of {}", List(entries)),
            Ask::HasLike(pattern) => format!("`{claim}` had one like {}", Quoted(&pattern.text)),
            Ask::Within(entries) => format!("`{claim}` had no others than {}", List(entries)),
            Ask::Is(literal) => format!("`{claim}` were {literal}"),
            Ask::Like(pattern) => format!("`{claim}` were like {}", Quoted(&pattern.text)),
            Ask::IsNone => "nobody acted for the subject".into(),
        }
    }
}

impl Ask {
    const fn wants_list(&self) -> bool {
        matches!(self, Self::Has(_) | Self::HasAny(_) | Self::HasAll(_) | Self::HasLike(_) | Self::Within(_))
    }
}

impl Claim {
    /// What it says as one text, for a header: a text as it is, the texts of a list, a number or a truth as JSON has it.
    /// Nothing where it is not there or is of another kind.
    #[must_use]
    pub fn texts<'c>(&self, claims: Node<'c>) -> Vec<Cow<'c, str>> {
        match self.find(claims, true) {
            Found::List(items) => items.filter_map(Node::text).map(Cow::Borrowed).collect(),
            Found::Words(text) => vec![text.into()],
            Found::Single(text) => vec![text.into()],
            Found::Actors(actors) => actors.into_iter().map(Cow::Borrowed).collect(),
            Found::Other(node) => match node.value() {
                Value::Text(text) | Value::Number(text) => vec![text.into()],
                Value::Bool(is) => vec![is.to_string().into()],
                Value::Null | Value::List(_) | Value::Object(_) => Vec::new(),
            },
            Found::Nothing | Found::Malformed => Vec::new(),
        }
    }

    fn find<'c>(&self, claims: Node<'c>, wants_list: bool) -> Found<'c> {
        match self {
            Self::Named(path) => named(path, claims, wants_list),
            Self::Actor => match actors(claims).as_deref() {
                Ok([]) => Found::Nothing,
                Ok([present, ..]) => Found::Single(present),
                Err(()) => Found::Malformed,
            },
            Self::Actors => actors(claims).map_or(Found::Malformed, Found::Actors),
        }
    }
}

fn named<'c>(path: &[String], claims: Node<'c>, wants_list: bool) -> Found<'c> {
    let Some(found) = path.iter().try_fold(claims, |inside, name| inside.member(name)) else { return Found::Nothing };
    match (found.value(), path) {
        (Value::List(items), _) if wants_list => Found::List(items),
        (Value::Text(text), [name]) if wants_list && SPACED.contains(&name.as_str()) => Found::Words(text),
        (Value::Text(text), [name]) if wants_list && name == "aud" => Found::Single(text),
        _ => Found::Other(found),
    }
}

/// Everybody in the chain of `act`, the present one first.
fn actors(claims: Node<'_>) -> Result<Vec<&str>, ()> {
    let mut actors = Vec::new();
    let mut next = claims.member("act");
    while let Some(actor) = next {
        actors.push(actor.member("sub").and_then(Node::text).ok_or(())?);
        if actors.len() > ACTORS_MAX {
            return Err(());
        }
        next = actor.member("act");
    }
    Ok(actors)
}

impl Found<'_> {
    fn any(&self, fits: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::List(items) => items.clone().any(|item| item.text().is_some_and(&fits)),
            // RFC 6749 3.3: one space between two words. An empty word is nobody's scope.
            Self::Words(text) => text.split(' ').any(|word| !word.is_empty() && fits(word)),
            Self::Single(text) => fits(text),
            Self::Nothing | Self::Other(_) | Self::Actors(_) | Self::Malformed => false,
        }
    }

    fn all(&self, fits: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::List(items) => items.clone().all(|item| item.text().is_some_and(&fits)),
            Self::Words(text) => text.split(' ').all(|word| word.is_empty() || fits(word)),
            Self::Single(text) => fits(text),
            Self::Actors(actors) => actors.iter().all(|actor| fits(actor)),
            Self::Nothing | Self::Other(_) | Self::Malformed => false,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Other(node) => node.text(),
            Self::Single(text) => Some(text),
            _ => None,
        }
    }

    fn is(&self, literal: &Literal) -> bool {
        match (literal, self) {
            (Literal::Text(text), _) => self.text() == Some(text),
            // Numbers are compared as they are written: `3.0` is somebody else's three.
            (Literal::Number(number), Self::Other(node)) => {
                matches!(node.value(), Value::Number(text) if text.parse() == Ok(*number))
            }
            (Literal::Flag(flag), Self::Other(node)) => node.boolean() == Some(*flag),
            _ => false,
        }
    }
}

impl fmt::Display for Who {
    /// As it would be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.condition {
            Condition::Anything => write!(f, "{}", self.source),
            condition => write!(f, "{}[{condition}]", self.source),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer(name) => write!(f, "issuer:{name}"),
            Self::Verifier(name) => write!(f, "verifier:{name}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, word) = match self {
            Self::Anything => return Ok(()),
            Self::Test(test) => return write!(f, "{test}"),
            Self::All(parts) => (parts, " and "),
            Self::Any(parts) => (parts, " or "),
        };
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                f.write_str(word)?;
            }
            match part {
                Self::All(_) | Self::Any(_) => write!(f, "({part})")?,
                Self::Anything | Self::Test(_) => write!(f, "{part}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.claim)?;
        match &self.ask {
            Ask::Has(entry) => write!(f, "has {}", Quoted(entry)),
            Ask::HasAny(entries) => write!(f, "has any {}", List(entries)),
            Ask::HasAll(entries) => write!(f, "has all {}", List(entries)),
            Ask::HasLike(pattern) => write!(f, "has like {}", Quoted(&pattern.text)),
            Ask::Within(entries) => write!(f, "within {}", List(entries)),
            Ask::Is(literal) => write!(f, "is {literal}"),
            Ask::Like(pattern) => write!(f, "like {}", Quoted(&pattern.text)),
            Ask::IsNone => f.write_str("is none"),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Actor => f.write_str("actor"),
            Self::Actors => f.write_str("actors"),
            Self::Named(path) => {
                for (at, name) in path.iter().enumerate() {
                    if at > 0 {
                        f.write_str(".")?;
                    }
                    let is_taken = at == 0 && matches!(name.as_str(), "actor" | "actors" | "not");
                    if is_bare(name) && !is_taken {
                        f.write_str(name)?;
                    } else {
                        write!(f, "{}", Quoted(name))?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Whether a name of a claim needs no quotes.
pub(super) fn is_bare(name: &str) -> bool {
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    starts && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", Quoted(text)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// Text in single quotes, one inside of it doubled.
struct Quoted<'t>(&'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

struct List<'t>(&'t [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = self.0.iter().map(|item| Quoted(item).to_string()).collect();
        write!(f, "({})", items.join(", "))
    }
}
