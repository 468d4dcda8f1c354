//! The primitives of the core, computed by the libraries that the product uses.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use keyreeve_core::crypto::{Crypto, OpenError};

/// RustCrypto's implementations.
pub(crate) struct RustCrypto;

impl Crypto for RustCrypto {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn hmac_sha256(&self, key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn seal(&self, key: &[u8; 32], nonce: &[u8; 24], context: &[u8], plain: &[u8]) -> Vec<u8> {
        let cipher = XChaCha20Poly1305::new(&Key::from(*key));
        cipher.encrypt(&XNonce::from(*nonce), Payload { msg: plain, aad: context }).unwrap()
    }

    fn open(&self, key: &[u8; 32], nonce: &[u8; 24], context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let cipher = XChaCha20Poly1305::new(&Key::from(*key));
        cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: context }).map_err(|_| OpenError)
    }
}
