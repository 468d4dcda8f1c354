//! Names and identifiers: bounded, parsed once at the edge, never checked again.

use std::fmt;
use std::sync::Arc;

/// The longest part of a credential's name, in bytes.
pub const NAME_PART_BYTES_MAX: usize = 63;
/// The longest node name, in bytes.
pub const NODE_BYTES_MAX: usize = 64;

/// Why a name was refused. The text names the rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing between the separators.
    #[error("a name part must not be empty")]
    Empty,
    /// Longer than the limit.
    #[error("a name part must be at most {limit} bytes, this one is {found}")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
        /// What was given, in bytes.
        found: usize,
    },
    /// A character outside `a-z 0-9 . _ -`.
    #[error("a name part may contain a-z, 0-9, `.`, `_` and `-` and starts with a letter or digit, not `{0}`")]
    Character(char),
    /// More than one `/`.
    #[error("a name is `name` or `tenant/name`: at most one `/`")]
    Depth,
}

/// The name of a credential: `name` or `tenant/name`, lower case, at most 63 bytes a part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(Arc<str>);

impl CredentialName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule was broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        check_part(parts.next().unwrap_or_default())?;
        if let Some(second) = parts.next() {
            check_part(second)?;
        }
        if parts.next().is_some() {
            return Err(NameError::Depth);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tenant, where the name has one.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.0.split_once('/').map(|(tenant, _)| tenant)
    }
}

/// The name of an issuer in the configuration: lower case, at most 63 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerName(Arc<str>);

impl IssuerName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule was broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_part(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for IssuerName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for CredentialName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_part(part: &str) -> Result<(), NameError> {
    if part.is_empty() {
        return Err(NameError::Empty);
    }
    if part.len() > NAME_PART_BYTES_MAX {
        return Err(NameError::TooLong { limit: NAME_PART_BYTES_MAX, found: part.len() });
    }
    for (at, c) in part.chars().enumerate() {
        let is_alphanumeric = c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(is_alphanumeric || (at > 0 && matches!(c, '.' | '_' | '-'))) {
            return Err(NameError::Character(c));
        }
    }
    Ok(())
}

/// The name of one running copy of keyreeve. Two nodes of a fleet must not share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Parses a node name: 1 to 64 bytes of printable ASCII without spaces.
    ///
    /// # Errors
    /// [`NameError`] says which rule was broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NODE_BYTES_MAX {
            return Err(NameError::TooLong { limit: NODE_BYTES_MAX, found: text.len() });
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(NameError::Character(bad));
        }
        Ok(Self(Arc::from(text)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sixteen random bytes that name one write. What a register compares: unguessable and never reused, so that a
/// register that forgot a write cannot make two different writes look alike, as a counter would.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub [u8; 16]);

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Who holds a lease: a node, and which life of it. A node that crashed and came back is somebody else, because it no
/// longer knows what it sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Drawn at random when the process starts.
    pub boot: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_lower_case() {
        assert!(CredentialName::parse("apns-prod").is_ok());
        assert_eq!(CredentialName::parse("acme/apns.prod_1").unwrap().tenant(), Some("acme"));
        assert_eq!(CredentialName::parse(""), Err(NameError::Empty));
        assert_eq!(CredentialName::parse("a/"), Err(NameError::Empty));
        assert_eq!(CredentialName::parse("a/b/c"), Err(NameError::Depth));
        assert_eq!(CredentialName::parse("Apns"), Err(NameError::Character('A')));
        assert_eq!(CredentialName::parse("-a"), Err(NameError::Character('-')));
        assert_eq!(CredentialName::parse("../etc"), Err(NameError::Character('.')));
        assert!(CredentialName::parse(&"a".repeat(63)).is_ok());
        assert_eq!(CredentialName::parse(&"a".repeat(64)), Err(NameError::TooLong { limit: 63, found: 64 }));
    }

    #[test]
    fn node_names_are_bounded_printable_ascii() {
        assert!(NodeId::parse("pod-7.eu-west").is_ok());
        assert_eq!(NodeId::parse("a b"), Err(NameError::Character(' ')));
        assert_eq!(NodeId::parse(&"n".repeat(65)), Err(NameError::TooLong { limit: 64, found: 65 }));
    }
}
