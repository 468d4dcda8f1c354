//! Stacks, vectors, keys and moments that several tests use.

use std::path::{Path, PathBuf};

use keyreeve::core::jwt::{Key, KeySet, Selected, Signed, Unverified};
use keyreeve::core::time::Timestamp;
use keyreeve::crypto::{Check, KeyError, MakeCheck, check, verify};
use keyreeve::jwt::{Algorithm, Jwk, JwkSet, Refusal, key_set};

/// 2026-11-21T12:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp(1_795_262_400_000);

/// What computes: the build's own, and pure Rust alone, as on a Worker.
pub(crate) const STACKS: [(&str, MakeCheck); 2] = [("build", check), ("pure", verify::pure)];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A key, for `algorithm` whatever it says itself.
pub(crate) fn key(jwk: &serde_json::Value, algorithm: Algorithm, make: MakeCheck) -> Result<Key<Check>, KeyError> {
    let mut jwk = jwk.clone();
    jwk.as_object_mut().unwrap().remove("alg");
    let jwk = Jwk::parse(jwk.to_string().as_bytes(), Some(algorithm)).unwrap();
    Ok(Key::new(jwk.id.as_deref(), algorithm, make(&jwk.key, algorithm)?))
}

/// Keys of a JWK or a JWKS.
pub(crate) fn keys(text: &serde_json::Value, make: MakeCheck) -> KeySet<Check> {
    let set = if text.get("keys").is_some() { text.clone() } else { serde_json::json!({ "keys": [text] }) };
    JwkSet::parse(set.to_string().as_bytes()).map(|set| key_set(&set, make).0).unwrap_or(KeySet::new(Vec::new()))
}

/// Verifies a signature with keys that answer at once.
pub(crate) fn signed(token: &str, keys: &KeySet<Check>) -> Result<Signed, Refusal> {
    judged(Unverified::parse(token)?.select(keys)?)
}

pub(crate) fn judged(selected: Selected<'_, '_, Check>) -> Result<Signed, Refusal> {
    let Check::Now(key) = selected.key().check() else { panic!("answers later") };
    let is_good = key.verify(selected.message(), selected.signature()).is_ok();
    selected.judged(is_good)
}
