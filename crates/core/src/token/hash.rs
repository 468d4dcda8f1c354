//! The keyed hash that stands in a token's record, and the key of it.
//!
//! The secret of a token of ours has 256 random bits, so nobody guesses it and a slow hash would buy nothing. The key keeps
//! whoever can only write into the store from making tokens of their own; what is hashed besides binds the hash to its
//! place, so that a record copied elsewhere opens nothing there.
//!
//! Stored form of the key: as [`record`](crate::record) has it, one byte for the layout (1), then a CBOR map.

use std::fmt;

use minicbor::{Decode, Encode};
use subtle::ConstantTimeEq as _;

use super::text::{Format, TokenId, legacy};
use crate::crypto::Crypto;
use crate::id::WriteId;
use crate::record::{RecordError, read, stored};
use crate::seal::SealedFor;
use crate::secret::Secret;

const LAYOUT: u8 = 1;
const STORED_BYTES_MAX: usize = 1024;

/// What a secret is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// The family of tokens: the name of its table in the configuration.
    pub family: &'a str,
    /// The target.
    pub target: &'a str,
    /// Which token.
    pub id: TokenId,
    /// How it is spelt.
    pub format: Format,
}

impl Bound<'_> {
    /// HMAC-SHA-256 (RFC 2104) of the secret and all that it is bound to, each part with its length before it.
    #[must_use]
    pub fn hash(&self, crypto: &dyn Crypto, key: &[u8; 32], secret: &[u8]) -> [u8; 32] {
        let length = |text: &[u8]| (text.len() as u64).to_be_bytes();
        crypto.hmac_sha256(
            key,
            &[
                b"keyreeve access token v1\0",
                &length(self.family.as_bytes()),
                self.family.as_bytes(),
                &length(self.target.as_bytes()),
                self.target.as_bytes(),
                &self.id.0,
                &[self.format as u8],
                secret,
            ],
        )
    }
}

/// The id of the one legacy token of a target: no text of it names one.
#[must_use]
pub fn legacy_id(crypto: &dyn Crypto, family: &str, target: &str) -> TokenId {
    let digest = crypto.sha256(&[b"keyreeve legacy token v1\0", family.as_bytes(), &[0], target.as_bytes()]);
    TokenId(first(&digest))
}

/// The legacy token of a target, as its makers compute it from their `secret`: HMAC-SHA-256 of the target's name, in base64.
#[must_use]
pub fn legacy_token(crypto: &dyn Crypto, secret: &[u8], target: &str) -> Secret<String> {
    legacy(&crypto.hmac_sha256(secret, &[target.as_bytes()]))
}

/// Whether `text` is the legacy token of a target, in constant time.
#[must_use]
pub fn is_legacy_token(crypto: &dyn Crypto, secret: &[u8], target: &str, text: &[u8]) -> bool {
    legacy_token(crypto, secret, target).expose().as_bytes().ct_eq(text).into()
}

/// What the places of a target's tokens are found by.
#[must_use]
pub fn target_digest(crypto: &dyn Crypto, family: &str, target: &str) -> [u8; 16] {
    first(&crypto.sha256(&[family.as_bytes(), &[0], target.as_bytes()]))
}

fn first(digest: &[u8; 32]) -> [u8; 16] {
    digest.first_chunk().copied().unwrap_or_default()
}

/// Whether two hashes are the same, in constant time.
#[must_use]
pub fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

/// The key of the hashes, sealed: drawn once, by whichever node needs it first, and shared by the fleet. Seal keys come and
/// go around it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HashKey {
    /// The write that made this record; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// The key, 32 bytes, in a seal envelope for [`SealedHashKey`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

impl HashKey {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        stored(LAYOUT, self)
    }

    /// Reads a stored form of layout 1.
    ///
    /// # Errors
    /// [`RecordError`]; nothing is guessed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        read(LAYOUT, STORED_BYTES_MAX, bytes)
    }
}

/// What the key of the hashes is sealed for.
#[derive(Clone, Copy, Debug)]
pub struct SealedHashKey;

impl SealedFor for SealedHashKey {
    fn associated_data(&self) -> Vec<u8> {
        b"keyreeve token hash key v1".to_vec()
    }
}

impl fmt::Display for SealedHashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key of token hashes")
    }
}
