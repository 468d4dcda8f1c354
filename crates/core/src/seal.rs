//! The envelope in which secrets are stored: version, algorithm, seal-key id, nonce, ciphertext.
//!
//! An envelope is bound to what it belongs to (a credential's name and generation, an issuer's name and key id), so that a stored secret cannot be
//! moved to another record and opened there. Layout, version 1, bytes:
//!
//! ```text
//! 0      1      2           10          34            ..
//! | 0x01 | alg  | key id 8  | nonce 24  | ciphertext and 16-byte tag |
//! ```
//! `alg` 1 is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), chosen because its 24-byte nonce may be drawn at random
//! for ever by any number of nodes.

use std::fmt;

use crate::crypto::Crypto;
use crate::id::{CredentialName, IssuerName};
use crate::secret::Secret;

const VERSION: u8 = 1;
const ALG_XCHACHA20_POLY1305: u8 = 1;
const HEAD_BYTES: usize = 34;
/// The largest secret that may be sealed, in bytes.
pub const PLAIN_BYTES_MAX: usize = 32 * 1024;

/// The public name of a seal key: the first 8 bytes of a hash of it. Safe to print.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SealKeyId(pub [u8; 8]);

impl fmt::Display for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One 256-bit seal key.
#[derive(Clone, Debug)]
pub struct SealKey {
    id: SealKeyId,
    key: Secret<[u8; 32]>,
}

impl SealKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(crypto: &dyn Crypto, key: [u8; 32]) -> Self {
        let digest = crypto.sha256(&[b"keyreeve seal key id v1", &key]);
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        Self { id: SealKeyId(id), key: Secret::new(key) }
    }

    /// The key's public name.
    #[must_use]
    pub const fn id(&self) -> SealKeyId {
        self.id
    }
}

/// The seal keys of a node: the first one seals, all of them open. That is what makes rotation possible without a
/// moment at which something cannot be read.
#[derive(Clone, Debug)]
pub struct KeyRing {
    first: SealKey,
    others: Vec<SealKey>,
}

/// Why a secret could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Sealed with a key that this node does not have.
    #[error(
        "sealed with seal key {0}, which is not in `seal.keys`\nhint: add the key file back, or renew the credential to seal it anew"
    )]
    UnknownKey(SealKeyId),
    /// Right key, wrong bytes or wrong place: damaged, or moved from another record.
    #[error("the sealed secret does not belong to {0} or was damaged")]
    Damaged(String),
    /// Made by a newer keyreeve.
    #[error("the seal envelope has version {0}, this keyreeve reads version 1\nhint: upgrade this node")]
    Newer(u8),
    /// More than [`PLAIN_BYTES_MAX`].
    #[error("a credential of {found} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// What was given, in bytes.
        found: usize,
        /// The limit, in bytes.
        limit: usize,
    },
}

/// What an envelope can belong to. Displayed as the words that a message names it by.
pub trait SealedFor: fmt::Display {
    /// Sealed in as associated data: no two things have the same.
    fn associated_data(&self) -> Vec<u8>;
}

/// A generation of a credential.
#[derive(Clone, Copy, Debug)]
pub struct SealContext<'a> {
    /// The credential.
    pub name: &'a CredentialName,
    /// Its generation.
    pub generation: u64,
}

/// What a cache keeps of a credential.
#[derive(Clone, Copy, Debug)]
pub struct SealedCopy<'a> {
    /// The credential.
    pub name: &'a CredentialName,
    /// A digest of what it is for, where that is part of what it is stored under.
    pub identity: Option<[u8; 32]>,
}

/// The private key of an issuer.
#[derive(Clone, Copy, Debug)]
pub struct SealedKey<'a> {
    /// The issuer.
    pub issuer: &'a IssuerName,
    /// What tokens name the key by.
    pub kid: &'a str,
}

/// A domain, a name with its length, and what follows.
fn associated(domain: &[u8], name: &str, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(domain.len() + name.len() + rest.len() + 9);
    bytes.extend_from_slice(domain);
    bytes.push(0);
    bytes.extend_from_slice(&(name.len() as u64).to_be_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

impl SealedFor for SealContext<'_> {
    fn associated_data(&self) -> Vec<u8> {
        associated(b"keyreeve credential v1", self.name.as_str(), &self.generation.to_be_bytes())
    }
}

impl fmt::Display for SealContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` generation {}", self.name, self.generation)
    }
}

impl SealedFor for SealedCopy<'_> {
    fn associated_data(&self) -> Vec<u8> {
        let identity = self.identity.unwrap_or_default();
        let identity = if self.identity.is_some() { &identity[..] } else { &[] };
        associated(b"keyreeve copy v1", self.name.as_str(), identity)
    }
}

impl fmt::Display for SealedCopy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a copy of `{}` as it is configured now", self.name)
    }
}

impl SealedFor for SealedKey<'_> {
    fn associated_data(&self) -> Vec<u8> {
        associated(b"keyreeve issuer key v1", self.issuer.as_str(), self.kid.as_bytes())
    }
}

impl fmt::Display for SealedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issuer `{}` key `{}`", self.issuer, self.kid)
    }
}

impl KeyRing {
    /// A ring: `first` seals, and both `first` and `others` open.
    #[must_use]
    pub const fn new(first: SealKey, others: Vec<SealKey>) -> Self {
        Self { first, others }
    }

    /// The id of the key that seals.
    #[must_use]
    pub const fn sealing_key(&self) -> SealKeyId {
        self.first.id
    }

    /// The ids of all keys, the sealing one first.
    pub fn ids(&self) -> impl Iterator<Item = SealKeyId> + '_ {
        std::iter::once(&self.first).chain(&self.others).map(SealKey::id)
    }

    /// HMAC-SHA-256 (RFC 2104) of `text` under the sealing key, for this `purpose` alone: a name that nobody without the key
    /// can make or read.
    #[must_use]
    pub fn keyed(&self, crypto: &dyn Crypto, purpose: &str, text: &[u8]) -> [u8; 32] {
        crypto.hmac_sha256(self.first.key.expose(), &[purpose.as_bytes(), &[0], text])
    }

    /// Seals `plain` for `context`. `nonce` must be 24 fresh random bytes.
    ///
    /// # Errors
    /// [`SealError::TooLarge`].
    pub fn seal(
        &self,
        crypto: &dyn Crypto,
        nonce: &[u8; 24],
        context: impl SealedFor,
        plain: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        if plain.len() > PLAIN_BYTES_MAX {
            return Err(SealError::TooLarge { found: plain.len(), limit: PLAIN_BYTES_MAX });
        }
        let mut envelope = Vec::with_capacity(HEAD_BYTES + plain.len() + 16);
        envelope.push(VERSION);
        envelope.push(ALG_XCHACHA20_POLY1305);
        envelope.extend_from_slice(&self.first.id.0);
        envelope.extend_from_slice(nonce);
        envelope.extend(crypto.seal(self.first.key.expose(), nonce, &context.associated_data(), plain));
        Ok(envelope)
    }

    /// Opens an envelope.
    ///
    /// # Errors
    /// [`SealError`] names the missing key, or says that the bytes are damaged, misplaced or too new.
    pub fn open(
        &self,
        crypto: &dyn Crypto,
        context: impl SealedFor,
        envelope: &[u8],
    ) -> Result<Secret<Vec<u8>>, SealError> {
        let damaged = || SealError::Damaged(context.to_string());
        let Head { id, nonce, body } = head(envelope).map_err(|e| e.unwrap_or_else(damaged))?;
        let key = std::iter::once(&self.first)
            .chain(&self.others)
            .find(|key| key.id == id)
            .ok_or(SealError::UnknownKey(id))?;
        let plain = crypto.open(key.key.expose(), &nonce, &context.associated_data(), body).map_err(|_| damaged())?;
        Ok(Secret::new(plain))
    }
}

/// Which key an envelope was sealed with; `None` where it is not an envelope of this version.
#[must_use]
pub fn key_of(envelope: &[u8]) -> Option<SealKeyId> {
    head(envelope).ok().map(|head| head.id)
}

struct Head<'a> {
    id: SealKeyId,
    nonce: [u8; 24],
    body: &'a [u8],
}

fn head(envelope: &[u8]) -> Result<Head<'_>, Option<SealError>> {
    let (version, rest) = envelope.split_first().ok_or(None)?;
    if *version > VERSION {
        return Err(Some(SealError::Newer(*version)));
    }
    let (alg, rest) = rest.split_first().ok_or(None)?;
    let (id, rest) = rest.split_first_chunk::<8>().ok_or(None)?;
    let (nonce, body) = rest.split_first_chunk::<24>().ok_or(None)?;
    if *version != VERSION || *alg != ALG_XCHACHA20_POLY1305 {
        return Err(None);
    }
    Ok(Head { id: SealKeyId(*id), nonce: *nonce, body })
}
