//! An issuer inside a test: keys, tokens, and an HTTP port that answers as it is told and counts.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use http::HeaderMap;
use keyreeve::config::{FetchConfig, KeysUrl};
use keyreeve::core::jwt::base64url;
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Mono;
use keyreeve::crypto::{LocalCrypto, check, signer};
use keyreeve::inbound::{Fetched, FetchedParts};
use keyreeve::jwt::{Algorithm, Expected, SigningKey, Verifier};
use keyreeve::port::{Host, Http, HttpAnswer, HttpError, HttpRequest};
use serde_json::{Value, json};

use crate::http_world::{EPOCH_MS, TestHost};

pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "orders";
pub(crate) const JWKS_URL: &str = "https://keys.example/jwks";

/// An Ed25519 key of this id; another seed is another key.
pub(crate) struct TestKey {
    id: String,
    secret: ed25519_dalek::SigningKey,
}

impl TestKey {
    pub(crate) fn new(id: &str, seed: u8) -> Self {
        Self { id: id.to_owned(), secret: ed25519_dalek::SigningKey::from_bytes(&[seed; 32]) }
    }

    pub(crate) fn jwk(&self) -> Value {
        let x = base64url::encode(self.secret.verifying_key().as_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id, "alg": "EdDSA", "use": "sig" })
    }

    pub(crate) fn private_jwk(&self) -> Value {
        let mut jwk = self.jwk();
        jwk["d"] = base64url::encode(self.secret.as_bytes()).into();
        jwk
    }

    /// A token with these claims under another key id.
    pub(crate) fn signed_as(&self, id: &str, claims: &Value) -> String {
        let jwk = Secret::new(self.private_jwk().to_string().into_bytes());
        let key = SigningKey::new(signer(Algorithm::EdDsa, &jwk).unwrap(), Some(id));
        key.sign(&claims.to_string()).now_or_never().unwrap().unwrap()
    }

    /// A token for ten minutes, with these claims besides the usual ones.
    pub(crate) fn token(&self, more: Value) -> String {
        self.signed_as(&self.id, &claims(more))
    }
}

/// The usual claims of a token made when the test began, and these.
pub(crate) fn claims(more: Value) -> Value {
    let now_s = EPOCH_MS / 1000;
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now_s, "exp": now_s + 600 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

pub(crate) fn jwks(keys: &[&TestKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// What the other side does.
#[derive(Clone)]
pub(crate) enum Says {
    Body(String),
    /// With `Cache-Control: max-age`.
    Kept(String, u64),
    Status(u16),
    TooLarge,
    Refused,
    Hang,
}

/// The other side.
pub(crate) struct Web {
    host: Arc<TestHost>,
    says: Mutex<Says>,
    discovery: Mutex<Says>,
    pub(crate) jwks_fetches: AtomicU64,
    pub(crate) discoveries: AtomicU64,
}

impl Web {
    pub(crate) fn new(host: &Arc<TestHost>, says: Says) -> Arc<Self> {
        Arc::new(Self {
            host: Arc::clone(host),
            says: Mutex::new(says),
            discovery: Mutex::new(Says::Status(404)),
            jwks_fetches: AtomicU64::new(0),
            discoveries: AtomicU64::new(0),
        })
    }

    pub(crate) fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub(crate) fn discovery_says(&self, says: Says) {
        *self.discovery.lock().unwrap() = says;
    }

    pub(crate) fn fetches(&self) -> u64 {
        self.jwks_fetches.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Http for Web {
    async fn send(&self, request: HttpRequest, deadline: Mono) -> Result<HttpAnswer, HttpError> {
        assert!(request.answer_bytes_max <= 100 * 1024 && request.method == http::Method::GET);
        let left_ms = deadline.since(self.host.now().mono);
        assert!((1..=5000).contains(&left_ms), "a fetch has {left_ms} ms");
        let says = if request.url.ends_with("/.well-known/openid-configuration") {
            self.discoveries.fetch_add(1, Ordering::SeqCst);
            self.discovery.lock().unwrap().clone()
        } else {
            assert_eq!(request.url, JWKS_URL);
            self.jwks_fetches.fetch_add(1, Ordering::SeqCst);
            self.says.lock().unwrap().clone()
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        let answer =
            |status, body: &str, headers| HttpAnswer { status, headers, body: Secret::new(body.as_bytes().to_vec()) };
        match says {
            Says::Body(body) => Ok(answer(200, &body, HeaderMap::new())),
            Says::Kept(body, seconds) => {
                let mut headers = HeaderMap::new();
                headers.insert("cache-control", format!("public, max-age={seconds}").parse().unwrap());
                Ok(answer(200, &body, headers))
            }
            Says::Status(status) => Ok(answer(status, "<html>", HeaderMap::new())),
            Says::TooLarge => Err(HttpError::TooLarge(request.answer_bytes_max)),
            Says::Refused => Err(HttpError::NotSent("connection refused".into())),
            Says::Hang => {
                self.host.sleep_until(deadline).await;
                Err(HttpError::NoAnswer("none came before the deadline".into()))
            }
        }
    }
}

pub(crate) const FETCH: FetchConfig = FetchConfig {
    from: KeysUrl::Jwks(String::new()),
    via: None,
    cooldown_ms: 30_000,
    fresh_ms: 300_000,
    stale_ms: 86_400_000,
};

pub(crate) fn parts(host: &Arc<TestHost>, web: &Arc<Web>) -> FetchedParts {
    FetchedParts {
        name: "outside".into(),
        issuer: ISSUER.into(),
        fetch: FetchConfig { from: KeysUrl::Jwks(JWKS_URL.into()), ..FETCH },
        algorithms: Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric()).collect(),
        pins: Vec::new(),
        host: Arc::<TestHost>::clone(host),
        http: Arc::<Web>::clone(web),
        crypto: Arc::new(LocalCrypto),
        make: check,
    }
}

pub(crate) fn verifier(parts: FetchedParts) -> Verifier {
    Verifier::new(Expected::new([ISSUER], [AUDIENCE]).unwrap(), Arc::new(Fetched::new(parts)))
}
