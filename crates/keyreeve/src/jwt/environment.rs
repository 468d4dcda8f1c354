//! The environment of the Flarelette JWT kit, with the same names and the same meaning.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `JWT_ISS`, `JWT_AUD` | issuer, audience (several with commas) | must be there |
//! | `JWT_TTL_SECONDS`, `JWT_LEEWAY` | life of a signed token, clock tolerance; whole seconds | 900, 90 |
//! | `JWT_SECRET` | HS512 secret, base64url, at least 64 bytes | |
//! | `JWT_PRIVATE_JWK`, `JWT_PRIVATE_JWK_PATH` | signing key, or the whole output of `keyreeve keys generate` | |
//! | `JWT_KID` | id of the signing key, instead of its own | |
//! | `JWT_PUBLIC_JWK` | verification key, JWKS, or the whole output of `keyreeve keys generate` | |
//! | `JWT_JWKS_SERVICE` | on a Worker: the binding that serves `/.well-known/jwks.json` | |
//! | `JWT_JWKS_URL`, `JWT_JWKS_CACHE_TTL_SECONDS` | JWKS over HTTPS, how long it is kept | 300 |
//!
//! `JWT_SECRET_NAME=MY_SECRET` says that the secret is in the variable `MY_SECRET`; the same goes for `JWT_PRIVATE_JWK_NAME`,
//! `JWT_PUBLIC_JWK_NAME`, `JWT_JWKS_SERVICE_NAME` and `JWT_JWKS_URL_NAME`.
//!
//! A private JWK signs, else the secret does. The secret verifies, else the inline key, else the service, else the URL; the
//! secret *and* one of the others is an error, because then a token could choose its algorithm.

use std::fmt;
use std::sync::Arc;

use keyreeve_core::jwt::{Algorithm, Expected, Jwk, JwkSet, LEEWAY_S_MAX, PublicKey, base64url};
use keyreeve_core::secret::Secret;
use serde_json::Value;

use super::keys::{Fixed, KeySet, Keys, key_of, key_set};
use super::signing::SigningKey;
use crate::crypto::{MakeCheck, MakeSigner};

/// Seconds for which a token is signed where nobody says.
const TTL_S: u64 = 900;
/// The longest life of a token that is signed, in seconds.
const TTL_S_MAX: u64 = 30 * 86_400;
/// Seconds by which clocks may differ where nobody says: as the Flarelette kit has it.
const LEEWAY_S: u64 = 90;
/// How long a JWKS is kept where nobody says, in seconds.
const JWKS_TTL_S: u64 = 300;
const JWKS_TTL_S_MAX: u64 = 86_400;
/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 64;

/// Everything that is wrong with a configuration, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KitError(pub Vec<String>);

impl fmt::Display for KitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for KitError {}

/// Keys that somebody else serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// At a URL.
    Url {
        /// `https`, or `http` on loopback.
        url: String,
        /// How long an answer is kept, in seconds.
        ttl_s: u64,
    },
    /// By another Worker, at `/.well-known/jwks.json` of this binding.
    Service {
        /// The binding.
        binding: String,
        /// How long an answer is kept, in seconds.
        ttl_s: u64,
    },
}

/// Makes remote keys of what an environment says about them.
pub type MakeRemote<'a> = &'a dyn Fn(&Remote) -> Result<Arc<dyn Keys>, String>;

/// What a platform brings to an environment.
pub struct Platform<'a> {
    /// Reads a variable or a secret binding; `None` where it is not there.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
    /// Makes remote keys; an error where this platform has none of that kind.
    pub remote: MakeRemote<'a>,
    /// Makes signers.
    pub signer: MakeSigner,
    /// Makes keys ready to verify.
    pub check: MakeCheck,
}

/// What an environment says.
pub struct Settings {
    /// `JWT_ISS`.
    pub issuer: String,
    /// `JWT_AUD`.
    pub audience: Vec<String>,
    /// `JWT_TTL_SECONDS`.
    pub ttl_s: u64,
    /// What tokens have to say.
    pub expected: Expected,
    /// What signs, if anything does.
    pub signing: Option<SigningKey>,
    /// What verifies, if anything does.
    pub keys: Option<Arc<dyn Keys>>,
}

impl Settings {
    /// Reads an environment.
    ///
    /// # Errors
    /// [`KitError`] with every problem, each with the variable and what helps.
    pub fn read(platform: &Platform<'_>) -> Result<Self, KitError> {
        let mut reader = Reader { platform, problems: Vec::new() };
        let issuer = reader.needed("JWT_ISS", "the issuer: tokens of others are refused");
        let audience = reader.audience();
        let ttl_s = reader.seconds("JWT_TTL_SECONDS", TTL_S, 1, TTL_S_MAX);
        let leeway_s = reader.seconds("JWT_LEEWAY", LEEWAY_S, 0, LEEWAY_S_MAX);
        let secret = reader.secret();
        let private = reader.private();
        let keys = reader.keys(secret.as_ref());
        let signing = reader.signing(private.as_ref(), secret.as_ref());
        let expected = Expected::new([issuer.clone()], audience.clone()).and_then(|e| e.with_leeway_s(leeway_s));
        match expected {
            Ok(expected) if reader.problems.is_empty() => Ok(Self { issuer, audience, ttl_s, expected, signing, keys }),
            Err(error) if reader.problems.is_empty() => Err(KitError(vec![error.to_string()])),
            _ => Err(KitError(reader.problems)),
        }
    }
}

struct Reader<'a> {
    platform: &'a Platform<'a>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    fn plain(&self, name: &str) -> Option<String> {
        (self.platform.variable)(name).filter(|value| !value.trim().is_empty())
    }

    fn needed(&mut self, name: &str, what: &str) -> String {
        self.plain(name).unwrap_or_else(|| {
            self.problem(format!("`{name}` is not set: it names {what}"));
            String::new()
        })
    }

    /// The variable itself, or the one that `NAME_NAME` names. Answers with the name of the variable that held it.
    fn named(&mut self, name: &str) -> Option<(String, String)> {
        let pointer = format!("{name}_NAME");
        let Some(other) = self.plain(&pointer) else { return self.plain(name).map(|value| (name.to_owned(), value)) };
        let found = self.plain(&other);
        if found.is_none() {
            self.problem(format!("`{pointer}` says that the value is in `{other}`, and `{other}` is not set"));
        }
        Some((other, found?))
    }

    fn audience(&mut self) -> Vec<String> {
        let text = self.needed("JWT_AUD", "the audience: tokens for other services are refused");
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    }

    fn seconds(&mut self, name: &str, usual: u64, least: u64, most: u64) -> u64 {
        let Some(text) = self.plain(name) else { return usual };
        match text.trim().parse() {
            Ok(seconds) if (least..=most).contains(&seconds) => seconds,
            _ => {
                self.problem(format!(
                    "`{name}` must be whole seconds from {least} to {most}, without a unit, not `{text}`"
                ));
                usual
            }
        }
    }

    fn secret(&mut self) -> Option<Secret<Vec<u8>>> {
        let (name, text) = self.named("JWT_SECRET")?;
        let hint = "`keyreeve keys secret` makes one";
        match base64url::decode(text.trim()) {
            None => self.problem(format!("`{name}` is not base64url without padding: {hint}")),
            Some(bytes) if bytes.len() < SECRET_BYTES_MIN => {
                let found = bytes.len();
                self.problem(format!("`{name}` has {found} bytes, HS512 needs {SECRET_BYTES_MIN} or more: {hint}"));
            }
            Some(bytes) => return Some(Secret::new(bytes)),
        }
        None
    }

    /// The private JWK and the name of what held it.
    fn private(&mut self) -> Option<(String, Value)> {
        let (name, text) = match (self.named("JWT_PRIVATE_JWK"), self.plain("JWT_PRIVATE_JWK_PATH")) {
            (Some(found), _) => found,
            (None, Some(path)) => match (self.platform.file)(&path) {
                Ok(text) => ("JWT_PRIVATE_JWK_PATH".to_owned(), text),
                Err(cause) => {
                    self.problem(format!("`JWT_PRIVATE_JWK_PATH`: {cause}"));
                    return None;
                }
            },
            (None, None) => return None,
        };
        let jwk = self.json(&name, &text, "privateJwk")?;
        if jwk.get("d").is_none() {
            self.problem(format!("`{name}` holds no private key: it has no `d`"));
            return None;
        }
        Some((name, jwk))
    }

    /// A JWK, or the half of a key pair that was printed whole.
    fn json(&mut self, name: &str, text: &str, half: &str) -> Option<Value> {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(mut object)) => Some(object.remove(half).unwrap_or(Value::Object(object))),
            _ => {
                self.problem(format!("`{name}` is no JSON object: a JWK, or what `keyreeve keys generate` prints"));
                None
            }
        }
    }

    fn signing(&mut self, private: Option<&(String, Value)>, secret: Option<&Secret<Vec<u8>>>) -> Option<SigningKey> {
        let Some((name, jwk)) = private else {
            let signer = (self.platform.signer)(Algorithm::Hs512, secret?);
            return self
                .made("JWT_SECRET", signer)
                .map(|signer| SigningKey::new(signer, self.plain("JWT_KID").as_deref()));
        };
        let id = self.plain("JWT_KID").or_else(|| jwk.get("kid")?.as_str().map(str::to_owned));
        let text = Secret::new(jwk.to_string().into_bytes());
        let algorithm = match Jwk::parse(text.expose(), None) {
            Ok(jwk) if !jwk.algorithm.is_symmetric() => jwk.algorithm,
            Ok(_) => {
                self.problem(format!("`{name}` holds a secret, not a private key: put it into `JWT_SECRET`"));
                return None;
            }
            Err(cause) => {
                self.problem(format!("`{name}`: {cause}"));
                return None;
            }
        };
        let signer = (self.platform.signer)(algorithm, &text);
        self.made(name, signer).map(|signer| SigningKey::new(signer, id.as_deref()))
    }

    fn made<T>(&mut self, name: &str, made: Result<T, crate::crypto::KeyError>) -> Option<T> {
        made.map_err(|cause| self.problem(format!("`{name}`: {cause}"))).ok()
    }

    fn keys(&mut self, secret: Option<&Secret<Vec<u8>>>) -> Option<Arc<dyn Keys>> {
        let inline = self.named("JWT_PUBLIC_JWK");
        let service = self.named("JWT_JWKS_SERVICE");
        let url = self.named("JWT_JWKS_URL");
        let ttl_s = self.seconds("JWT_JWKS_CACHE_TTL_SECONDS", JWKS_TTL_S, 1, JWKS_TTL_S_MAX);
        let others = [&inline, &service, &url].into_iter().flatten().map(|(name, _)| format!("`{name}`"));
        let others: Vec<String> = others.collect();
        if let Some(secret) = secret {
            if !others.is_empty() {
                let others = others.join(", ");
                self.problem(format!(
                    "a shared secret and a public key are both configured (`JWT_SECRET` and {others}): tokens of either \
                     kind would be accepted, and a forger could choose; keep one of them"
                ));
                return None;
            }
            let secret = Jwk {
                id: None,
                algorithm: Algorithm::Hs512,
                key: PublicKey::Secret(secret.clone()),
                is_private: false,
            };
            let key = key_of(&secret, self.platform.check);
            return self.made("JWT_SECRET", key).map(|key| fixed(KeySet::new(vec![key])));
        }
        if let Some((name, text)) = inline {
            return self.inline(&name, &text);
        }
        let remote = match (service, url) {
            (Some((_, binding)), _) => Remote::Service { binding, ttl_s },
            (None, Some((name, url))) => {
                if !is_safe(&url) {
                    self.problem(format!("`{name}` must be an https URL (http on loopback only)"));
                    return None;
                }
                Remote::Url { url, ttl_s }
            }
            (None, None) => return None,
        };
        (self.platform.remote)(&remote).map_err(|cause| self.problem(cause)).ok()
    }

    fn inline(&mut self, name: &str, text: &str) -> Option<Arc<dyn Keys>> {
        let jwk = self.json(name, text, "publicJwk")?;
        let set = if jwk.get("keys").is_some() { jwk } else { serde_json::json!({ "keys": [jwk] }) };
        let set = match JwkSet::parse_public(set.to_string().as_bytes()) {
            Ok(set) => set,
            Err(cause) => {
                self.problem(format!("`{name}`: {cause}"));
                return None;
            }
        };
        let (keys, skipped) = key_set(&set, self.platform.check);
        if keys.keys().is_empty() {
            let cause = skipped.first().map_or_else(|| "it has no keys".to_owned(), |one| one.cause.to_string());
            self.problem(format!("`{name}` holds no key to verify with: {cause}"));
            return None;
        }
        Some(fixed(keys))
    }
}

fn fixed(keys: KeySet) -> Arc<dyn Keys> {
    Arc::new(Fixed(Arc::new(keys)))
}

/// `https`, or `http` to this machine.
fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => matches!(host, "localhost" | "127.0.0.1" | "[::1]"),
        _ => false,
    }
}
