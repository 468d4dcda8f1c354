use std::fmt;

use crate::json::{Node, write_text};

/// Claims to be signed, in the order they are said. A name that is said again replaces nothing: the first one stays.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    names: Vec<String>,
    members: String,
}

impl Draft {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it says this already.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|said| said == name)
    }

    /// Says a text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.member(name, |out| write_text(out, value))
    }

    /// Says a whole number, such as seconds since 1970.
    #[must_use]
    pub fn number(self, name: &str, value: u64) -> Self {
        self.member(name, |out| out.push_str(&value.to_string()))
    }

    /// Says a list of texts.
    #[must_use]
    pub fn list<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        self.member(name, |out| {
            out.push('[');
            for (index, value) in values.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(out, value);
            }
            out.push(']');
        })
    }

    /// Says an audience: one as a text, several as a list (RFC 7519 4.1.3).
    #[must_use]
    pub fn audience<S: AsRef<str>>(self, audiences: &[S]) -> Self {
        match audiences {
            [one] => self.text("aud", one.as_ref()),
            several => self.list("aud", several.iter().map(AsRef::as_ref)),
        }
    }

    /// Says what a document says.
    #[must_use]
    pub fn node(self, name: &str, value: Node<'_>) -> Self {
        self.member(name, |out| value.write(out))
    }

    /// Says an object.
    #[must_use]
    pub fn object(self, name: &str, value: &Self) -> Self {
        self.member(name, |out| out.push_str(&value.json()))
    }

    fn member(mut self, name: &str, value: impl FnOnce(&mut String)) -> Self {
        if self.has(name) {
            return self;
        }
        if !self.members.is_empty() {
            self.members.push(',');
        }
        write_text(&mut self.members, name);
        self.members.push(':');
        value(&mut self.members);
        self.names.push(name.to_owned());
        self
    }

    /// The claims as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        format!("{{{}}}", self.members)
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.members)
    }
}
