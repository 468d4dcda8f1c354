//! The primitives the core needs, passed in as a value. Which library computes them is the platform's choice.

/// The opened text did not match its tag, key, nonce or context. Nothing more is said, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct OpenError;

/// Hashing, authentication and sealing. Every method is deterministic: the caller brings nonces.
pub trait Crypto: Send + Sync {
    /// SHA-256 (FIPS 180-4) of the parts, one after the other.
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32];

    /// HMAC-SHA-256 (RFC 2104) of the parts, one after the other.
    fn hmac_sha256(&self, key: &[u8], parts: &[&[u8]]) -> [u8; 32];

    /// XChaCha20-Poly1305: ciphertext followed by its 16-byte tag. A nonce must never be used twice with one key; 24
    /// random bytes are enough to draw it.
    fn seal(&self, key: &[u8; 32], nonce: &[u8; 24], context: &[u8], plain: &[u8]) -> Vec<u8>;

    /// The reverse of [`seal`](Self::seal).
    ///
    /// # Errors
    /// [`OpenError`] where the tag does not match; no plain text is returned then.
    fn open(&self, key: &[u8; 32], nonce: &[u8; 24], context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError>;
}
