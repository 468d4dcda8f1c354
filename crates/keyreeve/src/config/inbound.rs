//! Valid settings about tokens of others.

use keyreeve_core::jwt::{Algorithm, Expected, Thumbprint};
use keyreeve_core::policy::Claim;

use super::types::SecretRef;
use crate::port::Via;

/// Somebody whose tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierConfig {
    /// What its tokens have to say.
    pub expected: Expected,
    /// The algorithms that its keys may be for. Never empty; either all with secrets or none.
    pub algorithms: Vec<Algorithm>,
    /// Its keys.
    pub keys: KeysConfig,
    /// The only keys that are taken; empty for all.
    pub pins: Vec<Thumbprint>,
}

/// Where the keys of a verifier are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysConfig {
    /// Somewhere else: they are fetched, and fetched again.
    Fetched(FetchConfig),
    /// Here: JWK or JWKS.
    Held(Vec<SecretRef>),
    /// One secret in base64url, which signs as well.
    Secret(SecretRef),
}

/// How keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// From where.
    pub from: KeysUrl,
    /// How the requests leave, where that is not the usual way.
    pub via: Option<Via>,
    /// The least time between two fetches, in milliseconds.
    pub cooldown_ms: u64,
    /// How long keys serve before they are fetched anew in the background, in milliseconds.
    pub fresh_ms: u64,
    /// How long after that they still serve while nobody answers, in milliseconds.
    pub stale_ms: u64,
}

/// Where a JWKS is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysUrl {
    /// Where the discovery document (OpenID Connect Discovery 1.0) says. Holds the document's own URL.
    Discovery(String),
    /// Here: `https`, `http` on loopback, or `service:NAME/path` on a Worker.
    Jwks(String),
}

/// Something that lets requests through, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Who asks.
    pub proxy: Proxy,
    /// Where nginx names the method, in lower case.
    pub method_header: String,
    /// Where nginx names the path, in lower case.
    pub uri_header: String,
    /// Headers of the answer, in lower case, and the claims that they say.
    pub identity: Vec<(String, Claim)>,
}

/// Which proxy asks, and so where it says what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Any of these; a request that could be from two is refused.
    Any,
    /// nginx `auth_request`: in two headers that its configuration names.
    Nginx,
    /// Envoy `ext_authz` over HTTP: in the method and the path of the request itself.
    Envoy,
    /// Traefik `forwardAuth`: in `X-Forwarded-Method` and `X-Forwarded-Uri`.
    Traefik,
    /// Caddy `forward_auth`: as Traefik.
    Caddy,
}
