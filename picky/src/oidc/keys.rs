//! The issuer's keys. Each is made of its number, so that every run has the same ones: they protect nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The most keys that are published at once.
const PUBLISHED_MAX: usize = 64;

struct Key {
    id: String,
    secret: SigningKey,
    is_published: bool,
}

/// All keys that ever were, the oldest first.
pub(crate) struct Keys {
    all: Vec<Key>,
    signing: usize,
}

impl Keys {
    /// One key, which is published and signs.
    pub(crate) fn new() -> Self {
        let mut keys = Self { all: Vec::new(), signing: 0 };
        let _ = keys.publish();
        keys
    }

    /// Publishes a new key. Says its id, or why there is none.
    pub(crate) fn publish(&mut self) -> Result<String, &'static str> {
        if self.published().len() >= PUBLISHED_MAX {
            return Err("there are 64 keys: withdraw some");
        }
        let id = format!("k{}", self.all.len() + 1);
        let seed: [u8; 32] = Sha256::digest(format!("picky oidc {id}")).into();
        let secret = SigningKey::from_bytes(&seed.into()).map_err(|_| "this number gives no key")?;
        self.all.push(Key { id: id.clone(), secret, is_published: true });
        Ok(id)
    }

    /// From now on the newest key signs.
    pub(crate) fn switch(&mut self) {
        self.signing = self.all.len().saturating_sub(1);
    }

    /// Publishes a key no more. Whether there was one.
    pub(crate) fn withdraw(&mut self, id: &str) -> bool {
        let found = self.all.iter_mut().find(|key| key.id == id && key.is_published);
        found.map(|key| key.is_published = false).is_some()
    }

    pub(crate) fn published(&self) -> Vec<String> {
        self.all.iter().filter(|key| key.is_published).map(|key| key.id.clone()).collect()
    }

    pub(crate) fn signs_with(&self) -> &str {
        self.all.get(self.signing).map_or("", |key| &key.id)
    }

    /// The published keys as JWKs.
    pub(crate) fn jwks(&self) -> Vec<Value> {
        self.all.iter().filter(|key| key.is_published).map(Key::jwk).collect()
    }

    /// A token with these claims, whose header names `id`: by the key of that id, or else by the present one.
    pub(crate) fn sign(&self, id: Option<&str>, claims: &Value) -> Option<(String, String)> {
        let named = id.and_then(|id| self.all.iter().find(|key| key.id == id));
        let key = named.or_else(|| self.all.get(self.signing))?;
        let id = id.unwrap_or(&key.id);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "ES256", "typ": "JWT", "kid": id })), part(claims));
        let signature: Signature = key.secret.sign(signed.as_bytes());
        Some((format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())), id.to_owned()))
    }
}

impl Key {
    fn jwk(&self) -> Value {
        let point = self.secret.verifying_key().to_sec1_point(false);
        let coordinate = |bytes: Option<&[u8]>| URL_SAFE_NO_PAD.encode(bytes.unwrap_or_default());
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": coordinate(point.x().map(|x| x.as_slice())), "y": coordinate(point.y().map(|y| y.as_slice())),
        })
    }
}
