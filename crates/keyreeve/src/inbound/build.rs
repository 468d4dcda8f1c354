//! From settings and secrets to whom is trusted.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyreeve_core::crypto::Crypto;
use keyreeve_core::jwt::{Jwk, JwkSet, PublicKey, base64url};
use keyreeve_core::policy::Source;
use keyreeve_core::secret::Secret;

use super::Trusted;
use super::fetched::{Fetched, FetchedParts};
use crate::config::{KeysConfig, SecretRef, VerifierConfig};
use crate::crypto::MakeCheck;
use crate::jwt::{KeySet, Verifier, key_of};
use crate::port::{Host, Http, Secrets};

/// What verifiers are made with.
#[derive(Clone)]
pub struct Parts {
    /// Time and tasks.
    pub host: Arc<dyn Host>,
    /// The way out.
    pub http: Arc<dyn Http>,
    /// Hashes thumbprints.
    pub crypto: Arc<dyn Crypto>,
    /// Makes keys ready.
    pub make: MakeCheck,
}

/// What is wrong with a key: a sentence that names the setting, and never a secret.
pub type Problem = String;

/// Makes the verifiers. Those in `kept` whose settings are the same go on with the keys that they have.
///
/// # Errors
/// Every key that cannot be read or used.
pub fn verifiers(
    configs: &BTreeMap<String, VerifierConfig>,
    secrets: &dyn Secrets,
    parts: &Parts,
    kept: &mut BTreeMap<String, Fetched>,
) -> Result<Vec<Trusted>, Vec<Problem>> {
    let (mut trusted, mut problems, mut fetching) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (name, config) in configs {
        let verifier = match &config.keys {
            KeysConfig::Fetched(fetch) => {
                let checked = fetch.via.as_ref().map_or(Ok(()), |via| parts.http.check(via));
                problems.extend(checked.err().map(|what| format!("`verifier.{name}`: {what}")));
                let fetched = fetched(name, config, parts, kept.get(name));
                fetching.extend(fetched.clone().map(|fetched| (name.clone(), fetched)));
                fetched.map(|fetched| Verifier::new(config.expected.clone(), Arc::new(fetched)))
            }
            KeysConfig::Held(references) => {
                let mut reader = Reader { name, config, secrets, parts, problems: &mut problems };
                reader.held(references).map(|keys| Verifier::with_keys(config.expected.clone(), keys))
            }
            KeysConfig::Secret(reference) => {
                let mut reader = Reader { name, config, secrets, parts, problems: &mut problems };
                reader.secret(reference).map(|keys| Verifier::with_keys(config.expected.clone(), keys))
            }
        };
        let source = Source::Verifier(name.clone());
        trusted.extend(verifier.map(|verifier| Trusted { source, verifier, revoked: None }));
    }
    *kept = fetching;
    if problems.is_empty() { Ok(trusted) } else { Err(problems) }
}

fn fetched(name: &str, config: &VerifierConfig, parts: &Parts, kept: Option<&Fetched>) -> Option<Fetched> {
    let KeysConfig::Fetched(fetch) = &config.keys else { return None };
    let parts = FetchedParts {
        name: name.to_owned(),
        issuer: config.expected.issuers().first().cloned().unwrap_or_default(),
        fetch: fetch.clone(),
        algorithms: config.algorithms.clone(),
        pins: config.pins.clone(),
        host: Arc::clone(&parts.host),
        http: Arc::clone(&parts.http),
        crypto: Arc::clone(&parts.crypto),
        make: parts.make,
    };
    Some(kept.filter(|kept| kept.is_for(&parts)).cloned().unwrap_or_else(|| Fetched::new(parts)))
}

/// Reads the keys of one verifier that are at hand.
struct Reader<'r> {
    name: &'r str,
    config: &'r VerifierConfig,
    secrets: &'r dyn Secrets,
    parts: &'r Parts,
    problems: &'r mut Vec<Problem>,
}

impl Reader<'_> {
    fn complain(&mut self, setting: &str, what: &str) {
        self.problems.push(format!("`verifier.{}.{setting}`: {what}", self.name));
    }

    fn read(&mut self, setting: &str, reference: &SecretRef) -> Option<Secret<Vec<u8>>> {
        self.secrets.read(reference).map_err(|cause| self.complain(setting, &cause)).ok()
    }

    fn held(&mut self, references: &[SecretRef]) -> Option<KeySet> {
        let before = self.problems.len();
        let mut jwks = Vec::new();
        for (at, reference) in references.iter().enumerate() {
            let setting = format!("keys[{at}]");
            let Some(text) = self.read(&setting, reference) else { continue };
            match public_keys(text.expose()) {
                Ok(found) => jwks.extend(found.into_iter().map(|jwk| (setting.clone(), jwk))),
                Err(what) => self.complain(&setting, &what),
            }
        }
        let mut keys = Vec::new();
        for (setting, jwk) in &jwks {
            match self.one(jwk) {
                Ok(key) => keys.extend(key),
                Err(what) => self.complain(setting, &what),
            }
        }
        if self.problems.len() > before {
            return None;
        }
        if keys.is_empty() {
            self.complain("pins", "no key has one of these thumbprints\nhint: then no token is ever accepted");
            return None;
        }
        Some(KeySet::new(keys))
    }

    /// A key, unless it is not among those that are pinned.
    fn one(&self, jwk: &Jwk) -> Result<Option<crate::jwt::Key>, String> {
        let id = jwk.id.as_deref().unwrap_or("without an id");
        if !self.config.algorithms.contains(&jwk.algorithm) {
            let wanted: Vec<&str> = self.config.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            let wanted = wanted.join(", ");
            let what = format!("the key `{id}` is for {}, and `algorithms` has {wanted}", jwk.algorithm);
            return Err(format!("{what}\nhint: one of the two is wrong"));
        }
        let print = jwk.key.thumbprint(self.parts.crypto.as_ref());
        if !self.config.pins.is_empty() && !self.config.pins.contains(&print) {
            return Ok(None);
        }
        key_of(jwk, self.parts.make).map(Some).map_err(|error| format!("the key `{id}` cannot be used: {error}"))
    }

    fn secret(&mut self, reference: &SecretRef) -> Option<KeySet> {
        let text = self.read("secret", reference)?;
        let bytes = std::str::from_utf8(text.expose()).ok().and_then(|text| base64url::decode(text.trim()));
        let Some(bytes) = bytes.map(Secret::new) else {
            self.complain(
                "secret",
                "is not base64url without padding (the value is not shown)\nhint: 64 random bytes are 86 characters of base64url",
            );
            return None;
        };
        let mut keys = Vec::new();
        for algorithm in &self.config.algorithms {
            let (found, least) = (bytes.expose().len(), algorithm.secret_bytes_min());
            if found < least {
                let what = format!("has {found} bytes, and {algorithm} needs at least {least} (RFC 7518 3.2)");
                self.complain("secret", &format!("{what}\nhint: {} characters of base64url", (least * 4).div_ceil(3)));
                return None;
            }
            let jwk = Jwk { id: None, algorithm: *algorithm, key: PublicKey::Secret(bytes.clone()), is_private: true };
            match key_of(&jwk, self.parts.make) {
                Ok(key) => keys.push(key),
                Err(error) => self.complain("secret", &format!("cannot be used: {error}")),
            }
        }
        Some(KeySet::new(keys))
    }
}

/// Reads a JWK or a JWKS.
fn public_keys(text: &[u8]) -> Result<Vec<Jwk>, String> {
    const PUBLIC: &str = "\nhint: give the public key; a private one signs, and has no business here";
    let text = text.trim_ascii();
    if text.starts_with(b"-----BEGIN") {
        return Err(
            "is PEM, which does not say what the key is for\nhint: write it as a JWK, with `kid` and `alg`".into()
        );
    }
    let is_set = keyreeve_core::json::Json::parse(text.to_vec())
        .map_err(|error| format!("is not good JSON: {error}"))?
        .root()
        .member("keys")
        .is_some();
    if is_set {
        let set = JwkSet::parse_public(text).map_err(|error| format!("is no JWKS: {error}"))?;
        if let Some(skipped) = set.skipped.first() {
            let id = skipped.id.as_ref().map_or("without an id", |id| id.as_str());
            return Err(format!("the key `{id}` cannot be used: {}", skipped.cause));
        }
        return Ok(set.keys);
    }
    let jwk = Jwk::parse(text, None).map_err(|error| format!("is no JWK: {error}"))?;
    match (&jwk.key, jwk.is_private) {
        (PublicKey::Secret(_), _) => {
            Err("holds a secret, and who verifies with it can sign\nhint: a shared secret is `secret = \"file:..\"`"
                .into())
        }
        (_, true) => Err(format!("holds a private key (the value is not shown){PUBLIC}")),
        _ => Ok(vec![jwk]),
    }
}
