//! JSON (RFC 8259) from strangers: read once, strictly, into one flat list that borrows nothing.
//!
//! A document owns its text; what it says is a list of spans of that text, so a claim can be handed out without a copy.
//! Refused besides what the grammar refuses: an object that says a name twice (also where the two are spelt
//! differently), nesting beyond a limit, text after the value, and escapes that stand for half a character.
//! Numbers stay text: whoever wants one says what kind.

use std::collections::BTreeSet;
use std::fmt;

/// The most levels of lists and objects that [`Json::parse`] follows.
pub const DEPTH_MAX: usize = 16;
/// The largest document, in bytes; positions are 32 bits wide.
pub const BYTES_MAX: usize = 1 << 24;
/// Up to so many members are compared pair by pair; more are sorted.
const PAIRS_MAX: usize = 16;

/// Why a text is no JSON that is read here, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {at}")]
pub struct JsonError {
    /// What is wrong.
    pub fault: Fault,
    /// The position in the text, in bytes from 0.
    pub at: usize,
}

/// What can be wrong with a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Larger than [`BYTES_MAX`].
    TooLarge,
    /// Not UTF-8.
    NotText,
    /// The text ends too early.
    End,
    /// A character that does not belong there.
    Unexpected,
    /// Something after the value.
    Trailing,
    /// An escape that is none, or half a surrogate pair.
    Escape,
    /// Deeper than [`DEPTH_MAX`].
    TooDeep,
    /// A name that the object has said before.
    Duplicate,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "more than {BYTES_MAX} bytes"),
            Self::NotText => f.write_str("not UTF-8"),
            Self::End => f.write_str("ends too early"),
            Self::Unexpected => f.write_str("a character that does not belong there"),
            Self::Trailing => f.write_str("something after the value"),
            Self::Escape => f.write_str("an escape that stands for no character"),
            Self::TooDeep => write!(f, "nested deeper than {DEPTH_MAX} levels"),
            Self::Duplicate => f.write_str("a member that is there twice"),
        }
    }
}

/// A JSON document that has been read.
#[derive(Clone)]
pub struct Json {
    text: String,
    /// The texts that were written with escapes, without them, one after the other.
    unescaped: String,
    slots: Vec<Slot>,
}

/// One value. Members of an object are two slots each: the name, then the value.
#[derive(Clone, Copy)]
struct Slot {
    kind: Kind,
    start: u32,
    end: u32,
    /// The slot after this value and everything in it.
    next: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    True,
    False,
    Number,
    Text,
    /// A text whose span is one of `unescaped`.
    Escaped,
    List,
    Object,
}

/// A value inside of a document.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    json: &'a Json,
    at: usize,
}

/// What a value is.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(&'a str),
    /// A text, without its escapes.
    Text(&'a str),
    /// The items of a list, in order.
    List(Items<'a>),
    /// The members of an object, in order; no name comes twice.
    Object(Members<'a>),
}

impl Json {
    /// Reads a document.
    ///
    /// # Errors
    /// [`JsonError`] for the first thing that is wrong.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, JsonError> {
        if bytes.len() > BYTES_MAX {
            return Err(JsonError { fault: Fault::TooLarge, at: BYTES_MAX });
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| JsonError { fault: Fault::NotText, at: error.utf8_error().valid_up_to() })?;
        let mut reader = Reader {
            bytes: text.as_bytes(),
            text: &text,
            at: 0,
            unescaped: String::new(),
            slots: Vec::with_capacity(text.len() / 12 + 4),
        };
        reader.value(0)?;
        reader.blanks();
        if reader.at < reader.bytes.len() {
            return Err(reader.error(Fault::Trailing));
        }
        let Reader { unescaped, slots, .. } = reader;
        Ok(Self { text, unescaped, slots })
    }

    /// The whole value.
    #[must_use]
    pub const fn root(&self) -> Node<'_> {
        Node { json: self, at: 0 }
    }

    /// The text that was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value at a place that [`Node::place`] named.
    #[must_use]
    pub const fn at(&self, place: u32) -> Node<'_> {
        Node { json: self, at: place as usize }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'a> Node<'a> {
    fn slot(self) -> Slot {
        let nothing = Slot { kind: Kind::Null, start: 0, end: 0, next: u32::MAX };
        self.json.slots.get(self.at).copied().unwrap_or(nothing)
    }

    fn span(self, of: &'a str) -> &'a str {
        let slot = self.slot();
        of.get(slot.start as usize..slot.end as usize).unwrap_or_default()
    }

    fn end(self) -> usize {
        self.slot().next as usize
    }

    /// What it is.
    #[must_use]
    pub fn value(self) -> Value<'a> {
        match self.slot().kind {
            Kind::Null => Value::Null,
            Kind::True => Value::Bool(true),
            Kind::False => Value::Bool(false),
            Kind::Number => Value::Number(self.span(&self.json.text)),
            Kind::Text => Value::Text(self.span(&self.json.text)),
            Kind::Escaped => Value::Text(self.span(&self.json.unescaped)),
            Kind::List => Value::List(Items { json: self.json, at: self.at + 1, end: self.end() }),
            Kind::Object => {
                Value::Object(Members { items: Items { json: self.json, at: self.at + 1, end: self.end() } })
            }
        }
    }

    /// Its text, where it is a text.
    #[must_use]
    pub fn text(self) -> Option<&'a str> {
        match self.slot().kind {
            Kind::Text => Some(self.span(&self.json.text)),
            Kind::Escaped => Some(self.span(&self.json.unescaped)),
            _ => None,
        }
    }

    /// Its number, where it is one that is whole, not negative, written in digits only and fits.
    #[must_use]
    pub fn whole(self) -> Option<u64> {
        let is_digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        match self.value() {
            Value::Number(text) => Some(text).filter(is_digits)?.parse().ok(),
            _ => None,
        }
    }

    /// `true` or `false`, where it is one of them.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        match self.slot().kind {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    /// Its items, where it is a list.
    #[must_use]
    pub fn items(self) -> Option<Items<'a>> {
        if let Value::List(items) = self.value() { Some(items) } else { None }
    }

    /// Its members, where it is an object.
    #[must_use]
    pub fn members(self) -> Option<Members<'a>> {
        if let Value::Object(members) = self.value() { Some(members) } else { None }
    }

    /// The member of this name, where it is an object that has one.
    #[must_use]
    pub fn member(self, name: &str) -> Option<Node<'a>> {
        self.members()?.find(|(its, _)| *its == name).map(|(_, value)| value)
    }

    /// Where it stands in its document, for [`Json::at`].
    #[must_use]
    pub fn place(self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    /// Writes it again: the same value, in its shortest spelling and the same order of members.
    pub fn write(self, out: &mut String) {
        match self.value() {
            Value::Null => out.push_str("null"),
            Value::Bool(is) => out.push_str(if is { "true" } else { "false" }),
            Value::Number(text) => out.push_str(text),
            Value::Text(text) => write_text(out, text),
            Value::List(items) => {
                out.push('[');
                for (index, item) in items.enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(out, name);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

/// The items of a list.
#[derive(Clone)]
pub struct Items<'a> {
    json: &'a Json,
    at: usize,
    end: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        if self.at >= self.end {
            return None;
        }
        let node = Node { json: self.json, at: self.at };
        self.at = node.end();
        Some(node)
    }
}

/// The members of an object.
#[derive(Clone)]
pub struct Members<'a> {
    items: Items<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Node<'a>);

    fn next(&mut self) -> Option<(&'a str, Node<'a>)> {
        let name = self.items.next()?;
        Some((name.text().unwrap_or_default(), self.items.next()?))
    }
}

/// Writes a text as JSON, quotes included.
pub fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _written = fmt::Write::write_fmt(out, format_args!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A bit for names of one length, first and last character.
fn kind_of_name(name: &[u8]) -> u64 {
    let (first, last) = (name.first().copied().unwrap_or_default(), name.last().copied().unwrap_or_default());
    let mixed =
        (name.len() as u64).wrapping_mul(7) ^ u64::from(first).wrapping_mul(31) ^ u64::from(last).wrapping_mul(17);
    1 << (mixed & 63)
}

/// Whether one of eight bytes is a quote, a backslash or a control character: its lowest such byte has its top bit set.
const fn special_of(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES * 0x80;
    const fn zero_of(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & TOPS
    }
    let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
    zero_of(word ^ (ONES * b'"' as u64)) | zero_of(word ^ (ONES * b'\\' as u64)) | control
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
    unescaped: String,
    slots: Vec<Slot>,
}

impl Reader<'_> {
    const fn error(&self, fault: Fault) -> JsonError {
        JsonError { fault, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn unexpected(&self) -> JsonError {
        self.error(if self.peek().is_some() { Fault::Unexpected } else { Fault::End })
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        // INVARIANT: no position is beyond BYTES_MAX, and there are fewer slots than bytes.
        let next = self.slots.len() as u32 + 1;
        self.slots.push(Slot { kind, start: start as u32, end: end as u32, next });
    }

    /// Everything pushed since belongs to the slot `at`.
    fn close(&mut self, at: usize) {
        let next = self.slots.len() as u32;
        if let Some(slot) = self.slots.get_mut(at) {
            slot.next = next;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        self.blanks();
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Kind::True),
            Some(b'f') => self.word("false", Kind::False),
            Some(b'n') => self.word("null", Kind::Null),
            _ => Err(self.unexpected()),
        }
    }

    fn word(&mut self, word: &str, kind: Kind) -> Result<(), JsonError> {
        let end = self.at + word.len();
        if self.bytes.get(self.at..end) != Some(word.as_bytes()) {
            return Err(self.error(Fault::Unexpected));
        }
        self.push(kind, self.at, end);
        self.at = end;
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.push(Kind::Number, start, self.at);
        Ok(())
    }

    fn enter(&mut self, kind: Kind, depth: usize) -> Result<usize, JsonError> {
        if depth >= DEPTH_MAX {
            return Err(self.error(Fault::TooDeep));
        }
        let slot = self.slots.len();
        self.push(kind, self.at, self.at);
        self.at += 1;
        self.blanks();
        Ok(slot)
    }

    fn list(&mut self, depth: usize) -> Result<(), JsonError> {
        let slot = self.enter(Kind::List, depth)?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.unexpected()),
            }
        }
        self.at += 1;
        self.close(slot);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let slot = self.enter(Kind::Object, depth)?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        // One bit for each kind of name that was said: most names are of a kind of their own, and need no comparison.
        let (mut count, mut said) = (0, 0_u64);
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let (name, start) = (self.slots.len(), self.at);
            self.quoted()?;
            let bit = self.name(name).map_or(0, kind_of_name);
            if said & bit != 0 && count < PAIRS_MAX && self.was_said(slot, name) {
                return Err(JsonError { fault: Fault::Duplicate, at: start });
            }
            said |= bit;
            count += 1;
            self.blanks();
            if self.peek() != Some(b':') {
                return Err(self.unexpected());
            }
            self.at += 1;
            self.value(depth + 1)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.unexpected()),
            }
        }
        if count > PAIRS_MAX && self.has_twins(slot) {
            return Err(self.error(Fault::Duplicate));
        }
        self.at += 1;
        self.close(slot);
        Ok(())
    }

    fn name(&self, at: usize) -> Option<&[u8]> {
        let slot = self.slots.get(at)?;
        let of = if slot.kind == Kind::Escaped { self.unescaped.as_bytes() } else { self.bytes };
        of.get(slot.start as usize..slot.end as usize)
    }

    /// The slots of the names of an object that is still open.
    fn names(&self, object: usize, end: usize) -> impl Iterator<Item = usize> {
        let after = |name: usize| self.slots.get(name + 1).map(|value| value.next as usize);
        let first = Some(object + 1).filter(|first| *first < end);
        std::iter::successors(first, move |name| after(*name).filter(|next| *next < end))
    }

    fn was_said(&self, object: usize, name: usize) -> bool {
        let new = self.name(name);
        self.names(object, name).any(|earlier| self.name(earlier) == new)
    }

    fn has_twins(&self, object: usize) -> bool {
        let mut said = BTreeSet::new();
        self.names(object, self.slots.len()).any(|name| !said.insert(self.name(name)))
    }

    fn quoted(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        let start = self.at;
        self.plain();
        if self.peek() == Some(b'"') {
            self.push(Kind::Text, start, self.at);
            self.at += 1;
            return Ok(());
        }
        let copied = self.unescaped.len();
        let mut from = start;
        loop {
            self.unescaped.push_str(self.text.get(from..self.at).unwrap_or_default());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    let c = self.escape()?;
                    self.unescaped.push(c);
                }
                _ => return Err(self.unexpected()),
            }
            from = self.at;
            self.plain();
        }
        self.push(Kind::Escaped, copied, self.unescaped.len());
        self.at += 1;
        Ok(())
    }

    /// Goes on to a quote, a backslash, a control character or the end.
    fn plain(&mut self) {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
            let special = special_of(u64::from_le_bytes(*chunk));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
            rest = after;
        }
        let is_special = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
        self.at += rest.iter().position(is_special).unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let bad = self.error(Fault::Escape);
        self.at += 1;
        let escaped = self.peek().ok_or_else(|| self.error(Fault::End))?;
        self.at += 1;
        Ok(match escaped {
            b'"' | b'\\' | b'/' => char::from(escaped),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.four_digits().ok_or(bad)?;
                let code = if (0xd800..0xdc00).contains(&unit) {
                    if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                        return Err(bad);
                    }
                    self.at += 2;
                    let low = self.four_digits().filter(|low| (0xdc00..0xe000).contains(low)).ok_or(bad)?;
                    0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                } else {
                    unit
                };
                char::from_u32(code).ok_or(bad)?
            }
            _ => return Err(bad),
        })
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.at += 4;
        is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
    }
}
