//! Who calls, and what they may do. Nothing is allowed that the configuration does not allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::config::{Action, CallerConfig, Proof};

/// The longest API key, in bytes.
const KEY_BYTES_MAX: usize = 512;

/// The other end of a connection. Whoever serves a Unix socket puts it into the extensions of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The uid of the process at the other end, as the kernel says.
    pub uid: Option<u32>,
}

/// The certificate that a connection was made with, and that belongs to its private key. Whoever serves TLS puts it into the
/// extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The SHA-256 of its DER (RFC 8705 3).
    pub sha256: [u8; 32],
    /// Its names, where somebody who is trusted with that vouches for them, else none: `dns:..`, `uri:..`, and the subject in
    /// the form of RFC 4514 as `subject:..`.
    pub names: Arc<[String]>,
}

/// Somebody who has proved who they are. Only [`Callers::identify`] makes one.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) name: Box<str>,
    actions: u32,
    patterns: Vec<Pattern>,
    issuers: Vec<Pattern>,
    tokens: Vec<Pattern>,
}

#[derive(Debug)]
enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl Pattern {
    fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Exact(text.into()),
        }
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

impl Caller {
    pub(super) const fn may(&self, action: Action) -> bool {
        self.actions & bit(action) != 0
    }

    /// Whether the credential is one of theirs.
    pub(super) fn reaches(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.fits(name))
    }

    /// Whether the issuer is one of theirs.
    pub(super) fn reaches_issuer(&self, name: &str) -> bool {
        self.issuers.iter().any(|pattern| pattern.fits(name))
    }

    /// Whether access tokens for this target of this family are theirs.
    pub(super) fn reaches_tokens(&self, family: &str, target: &str) -> bool {
        let name = format!("{family}/{target}");
        self.tokens.iter().any(|pattern| pattern.fits(&name))
    }

    /// Whether the access tokens for every target of this family are theirs.
    pub(super) fn reaches_family(&self, family: &str) -> bool {
        // No target is called nothing, so only what ends before the target fits.
        let name = format!("{family}/");
        self.tokens.iter().any(|pattern| pattern.fits(&name))
    }
}

const fn bit(action: Action) -> u32 {
    match action {
        Action::List => 1,
        Action::Token => 1 << 1,
        Action::Report => 1 << 2,
        Action::Renew => 1 << 3,
        Action::Resolve => 1 << 4,
        Action::History => 1 << 5,
        Action::Events => 1 << 6,
        Action::Metrics => 1 << 7,
        Action::Keys => 1 << 9,
        Action::Rotate => 1 << 10,
        Action::Retire => 1 << 11,
        Action::Verify => 1 << 8,
        Action::Tokens => 1 << 12,
        Action::Grant => 1 << 13,
        Action::Revoke => 1 << 14,
        Action::Artifacts => 1 << 16,
        Action::Publish => 1 << 17,
    }
}

/// The name of an action in the configuration and in problems.
pub(super) const fn action_name(action: Action) -> &'static str {
    match action {
        Action::List => "list",
        Action::Token => "token",
        Action::Report => "report",
        Action::Renew => "renew",
        Action::Resolve => "resolve",
        Action::History => "history",
        Action::Events => "events",
        Action::Metrics => "metrics",
        Action::Keys => "keys",
        Action::Rotate => "rotate",
        Action::Retire => "retire",
        Action::Verify => "verify",
        Action::Tokens => "tokens",
        Action::Grant => "grant",
        Action::Revoke => "revoke",
        Action::Artifacts => "artifacts",
        Action::Publish => "publish",
    }
}

/// Everybody who may call.
#[derive(Debug, Default)]
pub(super) struct Callers {
    callers: Vec<Arc<Caller>>,
    keys: Vec<([u64; 4], u64)>,
    uids: BTreeMap<u32, u64>,
}

impl Callers {
    pub(super) fn new(configured: &BTreeMap<String, CallerConfig>) -> Self {
        let mut all = Self::default();
        for (index, (name, config)) in (0u64..).zip(configured) {
            let actions = config.can.iter().fold(0, |actions, action| actions | bit(*action));
            let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
            let caller = Caller {
                name: name.as_str().into(),
                actions,
                patterns: patterns(&config.credentials),
                issuers: patterns(&config.issuers),
                tokens: patterns(&config.tokens),
            };
            all.callers.push(Arc::new(caller));
            match &config.proof {
                Proof::KeySha256(digest) => all.keys.push((words(*digest), index)),
                Proof::Uid(uid) => {
                    all.uids.entry(*uid).or_insert(index);
                }
            }
        }
        all
    }

    /// Who sends these headers from this end. A key that is sent decides alone: a wrong one is nobody, on a Unix socket too.
    pub(super) fn identify(&self, headers: &HeaderMap, peer: Option<Peer>) -> Option<&Arc<Caller>> {
        self.identify_by(headers, &AUTHORIZATION, bearer, peer)
    }

    /// The same for clients that send the key as it is, in `header`; with the scheme before it, it is taken too.
    pub(super) fn identify_bare(
        &self,
        headers: &HeaderMap,
        header: &HeaderName,
        peer: Option<Peer>,
    ) -> Option<&Arc<Caller>> {
        self.identify_by(headers, header, |value| bearer(value).or_else(|| bare(value)), peer)
    }

    fn identify_by<'h>(
        &self,
        headers: &'h HeaderMap,
        header: &HeaderName,
        key: impl FnOnce(&'h HeaderValue) -> Option<&'h [u8]>,
        peer: Option<Peer>,
    ) -> Option<&Arc<Caller>> {
        let mut sent = headers.get_all(header).iter();
        let index = match (sent.next(), sent.next()) {
            (None, _) => self.uids.get(&peer?.uid?).copied()?,
            (Some(value), None) => self.by_key(key(value)?),
            // RFC 9110 5.3: a header that is no list must not be sent twice; which one is meant is not guessed.
            (Some(_), Some(_)) => return None,
        };
        self.callers.get(usize::try_from(index).ok()?)
    }

    /// The caller with this key, or a number beyond all of them. Takes the same time whichever key it is, or none.
    fn by_key(&self, key: &[u8]) -> u64 {
        let digest = words(Sha256::digest(key).into());
        let mut found = u64::MAX;
        for (known, index) in &self.keys {
            let is_same = known.iter().zip(digest).fold(Choice::from(1), |same, (a, b)| same & a.ct_eq(&b));
            found.conditional_assign(index, is_same);
        }
        found
    }

    pub(super) fn named(&self, name: &str) -> Option<&Arc<Caller>> {
        self.callers.iter().find(|caller| *caller.name == *name)
    }
}

/// A digest as four numbers, which compare in constant time with a fraction of the steps.
fn words(digest: [u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// The key in `Bearer KEY` (RFC 6750 2.1; the scheme in any case, RFC 9110 11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, key) = value.as_bytes().split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty() && key.len() <= KEY_BYTES_MAX).then_some(key)
}

/// A key without a scheme.
fn bare(value: &HeaderValue) -> Option<&[u8]> {
    let key = value.as_bytes().trim_ascii();
    (!key.is_empty() && key.len() <= KEY_BYTES_MAX && !key.contains(&b' ')).then_some(key)
}
