use std::fmt;

use super::algorithm::Algorithm;
use crate::json::JsonError;
use crate::time::Span;

/// The most characters of a stranger's text that a message repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// Text that a stranger wrote, made fit for a log: escaped, cut short.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Takes the text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
        if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
            shown.push('…');
        }
        Self(shown)
    }

    /// The text as it may be shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A part of a compact token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Before the first dot.
    Header,
    /// Between the dots.
    Payload,
    /// After the last dot.
    Signature,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        })
    }
}

/// Why a token is not accepted. The text is for the operator; strangers hear [`public`](Self::public).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Larger than the limit; nothing of it was read.
    #[error("the token has {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is read.
        limit: usize,
    },
    /// Not three parts with two dots between them.
    #[error("not a signed token: {parts} parts instead of 3")]
    Parts {
        /// How many there are.
        parts: usize,
    },
    /// A part is not in the one spelling of base64url.
    #[error("the {part} is not base64url as RFC 7515 has it: no padding, no white space, no spare bits")]
    Encoding {
        /// Which.
        part: Part,
    },
    /// A part is not the JSON it should be.
    #[error("the {part} is not good JSON: {cause}")]
    Json {
        /// Which.
        part: Part,
        /// What is wrong, and where.
        cause: JsonError,
    },
    /// A part is JSON, but not an object.
    #[error("the {part} is JSON, but not an object")]
    NoObject {
        /// Which.
        part: Part,
    },
    /// `alg` is `none`, in whatever spelling.
    #[error("the token is not signed: its `alg` is `{found}`")]
    Unsigned {
        /// How it spells that.
        found: Shown,
    },
    /// `alg` is nothing that is verified here.
    #[error("the algorithm `{found}` is not known here")]
    UnknownAlgorithm {
        /// What the header says.
        found: Shown,
    },
    /// A member of the header is missing or of the wrong kind.
    #[error("`{member}` of the header {why}")]
    Header {
        /// Which.
        member: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `crit` names what has to be understood (RFC 7515 4.1.11), and nothing of that is.
    #[error("the header demands extensions that are not known here: {names}")]
    Critical {
        /// Their names.
        names: Shown,
    },
    /// The payload is not encoded (RFC 7797): never for a JWT.
    #[error("`b64` of the header is false: an unencoded payload is no JWT")]
    Unencoded,
    /// `typ` is another one than asked for (RFC 8725 3.11).
    #[error("the token's `typ` is `{found}`, wanted {wanted}")]
    Type {
        /// What the header says; `-` for nothing.
        found: Shown,
        /// What is accepted.
        wanted: String,
    },
    /// No key has that id, or none was named and none fits.
    #[error("{}", match kid { Some(kid) => format!("unknown key id `{kid}`"), None => "the token names no key, and none fits".to_owned() })]
    UnknownKey {
        /// The `kid` of the header.
        kid: Option<Shown>,
    },
    /// More than one key would do; none is tried.
    #[error("{count} keys fit this token: give each key an id of its own")]
    AmbiguousKey {
        /// How many.
        count: usize,
    },
    /// The key is for another algorithm than the header says.
    #[error("the token says `{found}`, the key {} is for `{wanted}`", match key { Some(key) => format!("`{key}`"), None => "it would need".to_owned() })]
    WrongAlgorithm {
        /// The key's id.
        key: Option<Shown>,
        /// What the header says.
        found: Algorithm,
        /// What the key is for.
        wanted: Algorithm,
    },
    /// The signature has a length that this algorithm never gives.
    #[error("the signature has {found} bytes, those of {algorithm} have {wanted}")]
    SignatureLength {
        /// The key's algorithm.
        algorithm: Algorithm,
        /// What came.
        found: usize,
        /// What it has to be.
        wanted: usize,
    },
    /// The key did not make this signature.
    #[error("the signature was not made by the key {}", match key { Some(key) => format!("`{key}`"), None => "without an id".to_owned() })]
    BadSignature {
        /// The key's id.
        key: Option<Shown>,
    },
    /// A claim that has to be there is not.
    #[error("no `{0}` in the token")]
    MissingClaim(&'static str),
    /// A claim is of the wrong kind.
    #[error("`{name}` {why}")]
    BadClaim {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Issued by somebody else.
    #[error("issuer `{found}`, wanted {wanted}")]
    WrongIssuer {
        /// What it says.
        found: Shown,
        /// What is accepted.
        wanted: String,
    },
    /// For somebody else.
    #[error("audience {found}, wanted {wanted}")]
    WrongAudience {
        /// What it says.
        found: Shown,
        /// What is accepted.
        wanted: String,
    },
    /// `exp` has passed, leeway included.
    #[error("expired {} ago", Span(by_s.saturating_mul(1000)))]
    Expired {
        /// Seconds since `exp`.
        by_s: u64,
    },
    /// `nbf` has not come yet, leeway included.
    #[error("not valid for another {}", Span(in_s.saturating_mul(1000)))]
    NotYetValid {
        /// Seconds until `nbf`.
        in_s: u64,
    },
    /// `iat` lies ahead, leeway included.
    #[error("issued {} in the future: one of the clocks is wrong", Span(in_s.saturating_mul(1000)))]
    IssuedInFuture {
        /// Seconds until `iat`.
        in_s: u64,
    },
    /// Issued longer ago than is accepted.
    #[error("issued {} ago, accepted for {}", Span(age_s.saturating_mul(1000)), Span(limit_s.saturating_mul(1000)))]
    TooOld {
        /// Seconds since `iat`.
        age_s: u64,
        /// How many are accepted.
        limit_s: u64,
    },
    /// Taken back by who issued it.
    #[error("the token has been revoked")]
    Revoked,
    /// Something that the token is bound to is not there or is another one.
    #[error("{0}")]
    Unbound(&'static str),
    /// A delegation asks for what the original does not allow.
    #[error("{0}")]
    Delegation(String),
}

impl Refusal {
    /// A stable name, for metrics and machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Parts { .. } => "not_a_token",
            Self::Encoding { .. } => "bad_encoding",
            Self::Json { .. } | Self::NoObject { .. } => "bad_json",
            Self::Unsigned { .. } => "unsigned",
            Self::UnknownAlgorithm { .. } => "unknown_algorithm",
            Self::Header { .. } => "bad_header",
            Self::Critical { .. } => "critical_header",
            Self::Unencoded => "unencoded",
            Self::Type { .. } => "wrong_type",
            Self::UnknownKey { .. } => "unknown_key",
            Self::AmbiguousKey { .. } => "ambiguous_key",
            Self::WrongAlgorithm { .. } => "wrong_algorithm",
            Self::SignatureLength { .. } | Self::BadSignature { .. } => "bad_signature",
            Self::MissingClaim(_) => "missing_claim",
            Self::BadClaim { .. } => "bad_claim",
            Self::WrongIssuer { .. } => "wrong_issuer",
            Self::WrongAudience { .. } => "wrong_audience",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::IssuedInFuture { .. } => "issued_in_future",
            Self::TooOld { .. } => "too_old",
            Self::Revoked => "revoked",
            Self::Unbound(_) => "unbound",
            Self::Delegation(_) => "delegation_refused",
        }
    }

    /// What a stranger may hear: whether a fresh token would help, and nothing about keys, issuers or rules. Whoever hears
    /// that a token has expired has shown one with a good signature.
    #[must_use]
    pub const fn public(&self) -> &'static str {
        match self {
            Self::Expired { .. } | Self::TooOld { .. } => "the token has expired",
            Self::TooLarge { .. } => "the token is too large",
            _ => "the token is not valid",
        }
    }
}
