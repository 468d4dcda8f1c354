//! What the targets share.

use std::sync::{Arc, OnceLock};

use keyreeve_core::crypto::{Crypto, OpenError};
use keyreeve_core::jwt::{Algorithm, BadSignature, Key, KeySet, Verify};

/// Takes every signature for a good one: what comes after it is to be reached.
pub struct Gullible;

impl Verify for Gullible {
    fn verify(&self, _: &[u8], _: &[u8]) -> Result<(), BadSignature> {
        Ok(())
    }
}

/// A key without an id for each algorithm, and one with.
pub fn keys() -> &'static KeySet<Arc<dyn Verify>> {
    static KEYS: OnceLock<KeySet<Arc<dyn Verify>>> = OnceLock::new();
    KEYS.get_or_init(made)
}

fn made() -> KeySet<Arc<dyn Verify>> {
    let key = |id, algorithm| Key::new(id, algorithm, Arc::new(Gullible) as Arc<dyn Verify>);
    let nameless = Algorithm::ALL.map(|algorithm| key(None, algorithm));
    KeySet::new(nameless.into_iter().chain([key(Some("k"), Algorithm::Hs256)]).collect())
}

/// Hashes nothing to speak of.
pub struct NoCrypto;

impl Crypto for NoCrypto {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        [parts.iter().flat_map(|part| part.iter()).fold(7, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(*byte)); 32]
    }

    fn hmac_sha256(&self, _: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        self.sha256(parts)
    }

    fn seal(&self, _: &[u8; 32], _: &[u8; 24], _: &[u8], plain: &[u8]) -> Vec<u8> {
        plain.to_vec()
    }

    fn open(&self, _: &[u8; 32], _: &[u8; 24], _: &[u8], _: &[u8]) -> Result<Vec<u8>, OpenError> {
        Err(OpenError)
    }
}
