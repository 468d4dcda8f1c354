//! SHA-2, HMAC and XChaCha20-Poly1305 in pure Rust, so that a Worker computes what a server computes.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use hmac::{Hmac, Mac as _};
use keyreeve_core::crypto::{Crypto, OpenError};
use sha2::{Digest as _, Sha256};

/// The primitives of the core, computed in this process.
///
/// ```
/// use keyreeve::core::crypto::Crypto as _;
/// use keyreeve::crypto::LocalCrypto;
///
/// let sealed = LocalCrypto.seal(&[7; 32], &[1; 24], b"for whom", b"secret");
/// assert_eq!(LocalCrypto.open(&[7; 32], &[1; 24], b"for whom", &sealed).unwrap(), b"secret");
/// assert!(LocalCrypto.open(&[7; 32], &[1; 24], b"for somebody else", &sealed).is_err());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalCrypto;

impl Crypto for LocalCrypto {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn hmac_sha256(&self, key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "RFC 2104: HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn seal(&self, key: &[u8; 32], nonce: &[u8; 24], context: &[u8], plain: &[u8]) -> Vec<u8> {
        let cipher = XChaCha20Poly1305::new(key.into());
        #[expect(clippy::expect_used, reason = "fails only beyond 256 GiB; the core seals at most 32 KiB")]
        cipher.encrypt(nonce.into(), Payload { msg: plain, aad: context }).expect("a plain text of this size")
    }

    fn open(&self, key: &[u8; 32], nonce: &[u8; 24], context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        XChaCha20Poly1305::new(key.into())
            .decrypt(nonce.into(), Payload { msg: sealed, aad: context })
            .map_err(|_| OpenError)
    }
}
