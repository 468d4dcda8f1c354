//! The words: what is revoked, and what a token says about itself.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::crypto::Crypto;
use crate::time::Timestamp;

/// What a revocation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// One opaque access token.
    #[n(0)]
    Token,
    /// Every opaque access token of a target that was made up to a moment.
    #[n(1)]
    Target,
    /// One JWT.
    #[n(2)]
    Jwt,
    /// Every JWT of a subject that was issued up to a moment.
    #[n(3)]
    Subject,
    /// Every JWT that a key signed.
    #[n(4)]
    Key,
    /// Every JWT of an issuer that was issued up to a moment.
    #[n(5)]
    Issuer,
}

impl Kind {
    /// The name used in the API, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Target => "target",
            Self::Jwt => "jwt",
            Self::Subject => "subject",
            Self::Key => "kid",
            Self::Issuer => "issued-before",
        }
    }
}

/// Which JWT: by its `jti`, or by what was signed where it has none. The signature says nothing: some algorithms have
/// more than one for the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtId<'a> {
    /// Its `jti`.
    Id(&'a str),
    /// Header and payload as they were signed, with the dot between them.
    Signed(&'a str),
}

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// One opaque access token.
    Token {
        /// Whose; empty where there are no tenants.
        tenant: &'a str,
        /// Its id, which is no secret.
        id: &'a str,
    },
    /// Every opaque access token of a target.
    Target {
        /// Whose.
        tenant: &'a str,
        /// The target.
        target: &'a str,
    },
    /// One JWT.
    Jwt {
        /// Its `iss`.
        issuer: &'a str,
        /// Which.
        token: JwtId<'a>,
    },
    /// Every JWT of a subject.
    Subject {
        /// Their `iss`.
        issuer: &'a str,
        /// Their `sub`.
        subject: &'a str,
    },
    /// Every JWT that a key signed.
    Key {
        /// Their `iss`.
        issuer: &'a str,
        /// Their `kid`.
        kid: &'a str,
    },
    /// Every JWT of an issuer.
    Issuer {
        /// Their `iss`.
        issuer: &'a str,
    },
}

impl What<'_> {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Token { .. } => Kind::Token,
            Self::Target { .. } => Kind::Target,
            Self::Jwt { .. } => Kind::Jwt,
            Self::Subject { .. } => Kind::Subject,
            Self::Key { .. } => Kind::Key,
            Self::Issuer { .. } => Kind::Issuer,
        }
    }

    /// The digest it is known by.
    #[must_use]
    pub fn mark(&self, crypto: &dyn Crypto) -> Mark {
        let (scope, form, name) = match *self {
            Self::Token { tenant, id } => (tenant, b't', id),
            Self::Target { tenant, target } => (tenant, b'g', target),
            Self::Jwt { issuer, token: JwtId::Id(jti) } => (issuer, b'j', jti),
            Self::Jwt { issuer, token: JwtId::Signed(message) } => (issuer, b'm', message),
            Self::Subject { issuer, subject } => (issuer, b's', subject),
            Self::Key { issuer, kid } => (issuer, b'k', kid),
            Self::Issuer { issuer } => (issuer, b'i', ""),
        };
        // The length keeps scope and name apart, whatever is in them.
        let length = (scope.len() as u64).to_be_bytes();
        let digest = crypto.sha256(&[b"keyreeve revocation v1\0", &[form], &length, scope.as_bytes(), name.as_bytes()]);
        Mark(*digest.first_chunk().unwrap_or(&[0; 16]))
    }

    /// The digest of its issuer or tenant.
    #[must_use]
    pub fn scope(&self, crypto: &dyn Crypto) -> Scope {
        match *self {
            Self::Token { tenant, .. } | Self::Target { tenant, .. } => Scope::of(crypto, b't', tenant),
            Self::Jwt { issuer, .. }
            | Self::Subject { issuer, .. }
            | Self::Key { issuer, .. }
            | Self::Issuer { issuer } => Scope::of(crypto, b'i', issuer),
        }
    }
}

/// What a token that has been found good says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// An opaque access token.
    Token {
        /// Whose; empty where there are no tenants.
        tenant: &'a str,
        /// Its id.
        id: &'a str,
        /// Its target.
        target: &'a str,
        /// When it was made.
        created_at: Timestamp,
    },
    /// A JWT.
    Jwt {
        /// Its `iss`.
        issuer: &'a str,
        /// Which it is.
        token: JwtId<'a>,
        /// Its `sub`.
        subject: Option<&'a str>,
        /// The `kid` of its header.
        kid: Option<&'a str>,
        /// Its `iat`.
        issued_at: Option<Timestamp>,
    },
}

/// What a revocation is known by: half of a SHA-256. It names nothing to whoever does not know the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub [u8; 16]);

impl Mark {
    /// Reads 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = <[u8; 32]>::try_from(text.as_bytes()).ok()?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            });
            *byte = high? << 4 | low?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of an issuer or a tenant. Both are the operator's own words, so a quarter of a SHA-256 is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub [u8; 8]);

impl Scope {
    fn of(crypto: &dyn Crypto, form: u8, name: &str) -> Self {
        let digest = crypto.sha256(&[b"keyreeve revocation scope v1\0", &[form], name.as_bytes()]);
        Self(*digest.first_chunk().unwrap_or(&[0; 8]))
    }

    /// The scope of an issuer.
    #[must_use]
    pub fn of_issuer(crypto: &dyn Crypto, issuer: &str) -> Self {
        Self::of(crypto, b'i', issuer)
    }
}

bytes_in_cbor!(Mark, "a mark has 16 bytes");
bytes_in_cbor!(Scope, "a scope has 8 bytes");
