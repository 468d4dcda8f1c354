//! Issuers inside a test: nodes that share a memory register, clients, and tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::Request;
use keyreeve::config::{Config, Keep, Limits, ReadOptions, SecretRef, Surface};
use keyreeve::core::id::NodeId;
use keyreeve::core::jwt::{Algorithm, Expected};
use keyreeve::core::seal::{KeyRing, SealKey};
use keyreeve::core::secret::Secret;
use keyreeve::crypto::LocalCrypto;
use keyreeve::http::{Live, router};
use keyreeve::inbound::client::Clients;
use keyreeve::inbound::issuer::{Issuers, KeyMaker, KeyPair, Parts};
use keyreeve::inbound::{Inbound, Issuing};
use keyreeve::jwt::{Verifier, generate};
use keyreeve::port::{Host, Register, Secrets};
use sha2::{Digest as _, Sha256};

use crate::http_world::{Answer, SECOND, TestHost, World};
use crate::inbound_world::TestKey;

/// One issuer `push` (the name that the tests of all routes ask for): a day of use, an hour of overlap, a quarter of an hour
/// of life.
pub(crate) const ISSUER: &str = r#"
store.url = "memory:"
seal.keys = ["a seal key"]
[issuer.push]
url = "https://push.example"
audience = ["api", "other"]
ttl = "15m"
keys = { rotate = "1d", overlap = "1h", poll = "1s", skew = "1m" }
"#;

/// Its clients. The secret of each is `secret-NAME`, and of `signer` a key.
pub(crate) fn clients() -> String {
    let secret = |name: &str| hex(&Sha256::digest(format!("secret-{name}")));
    let jwks = serde_json::json!({ "keys": [TestKey::new("s1", 9).jwk()] }).to_string();
    format!(
        r#"
[client.orders]
issuer = "push"
secret_sha256 = "{}"
can = ["client-credentials", "token-exchange", "introspect", "revoke"]
scopes = ["read", "write"]
claims = {{ roles = ["service"] }}
[client.billing]
issuer = "push"
secret_sha256 = "{}"
can = ["client-credentials", "token-exchange"]
scopes = ["read"]
audience = ["other"]
[client.idle]
issuer = "push"
secret_sha256 = "{}"
can = ["introspect"]
[client.signer]
issuer = "push"
jwks = '{jwks}'
can = ["client-credentials", "jwt-bearer"]
scopes = ["read"]
subjects = ["user-*"]
[client.bound]
issuer = "push"
certificate_sha256 = "{}"
can = ["client-credentials"]
[client.named]
issuer = "push"
certificate_name = "dns:named.internal"
can = ["client-credentials"]
"#,
        secret("orders"),
        secret("billing"),
        secret("idle"),
        hex(&[5; 32]),
    )
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) struct Literals;

impl Secrets for Literals {
    fn read(&self, reference: &SecretRef) -> Result<Secret<Vec<u8>>, String> {
        match reference {
            SecretRef::Literal(text) => Ok(Secret::new(text.expose().as_bytes().to_vec())),
            other => panic!("{other:?}"),
        }
    }
}

/// Makes keys at once.
pub(crate) struct Maker(pub(crate) Arc<dyn Host>);

#[async_trait]
impl KeyMaker for Maker {
    async fn make(&self, algorithm: Algorithm) -> Result<KeyPair, String> {
        let made = generate::generate(algorithm, "new", &mut |bytes| self.0.fill(bytes));
        let made = made.map_err(|error| error.to_string())?;
        Ok(KeyPair { public: made.jwk.key, private: Secret::new(made.private.expose().as_bytes().to_vec()) })
    }
}

pub(crate) fn config(text: &str) -> Config {
    let options = ReadOptions { allow_literals: true, ..ReadOptions::default() };
    Config::read(text, "issuer.toml", &BTreeMap::new(), options).unwrap_or_else(|error| panic!("{error}")).config
}

/// A node of this name on this register.
pub(crate) fn start(
    config: &Config,
    (name, host): (&str, &Arc<dyn Host>),
    register: &Arc<dyn Register>,
    previous: Option<&Issuers>,
) -> Issuers {
    start_sealed(
        config,
        (name, host),
        register,
        KeyRing::new(SealKey::new(&LocalCrypto, [7; 32]), Vec::new()),
        previous,
    )
}

pub(crate) fn start_sealed(
    config: &Config,
    (name, host): (&str, &Arc<dyn Host>),
    register: &Arc<dyn Register>,
    keys: KeyRing,
    previous: Option<&Issuers>,
) -> Issuers {
    let parts = Parts {
        node: NodeId::parse(name).unwrap(),
        host: Arc::clone(host),
        register: Arc::clone(register),
        crypto: Arc::new(LocalCrypto),
        keys,
        maker: Arc::new(Maker(Arc::clone(host))),
        store_ms: 2 * SECOND,
    };
    Issuers::start(parts, &config.issuers, previous)
}

/// Signs a token of ten minutes, or less where the issuer says so.
pub(crate) async fn sign(issuers: &Issuers, name: &str, jti: &str) -> Result<String, keyreeve::error::Error> {
    let ready = issuers.ready(name).await?;
    let now_s = ready.now.wall.seconds();
    let url = &issuers.config(name).unwrap().url;
    let claims = serde_json::json!({
        "iss": url, "sub": "x", "aud": "api", "iat": now_s, "exp": now_s + ready.life_ms_max / 1000, "jti": jti, "client_id": "x",
    });
    Ok(ready.key.sign_as("at+jwt", &claims.to_string()).await.unwrap())
}

pub(crate) fn verifier(issuers: &Issuers, name: &str) -> Verifier {
    let url = issuers.config(name).unwrap().url.clone();
    let expected = Expected::new([url], ["api".to_owned(), "other".to_owned()]).unwrap().with_leeway_s(0).unwrap();
    Verifier::new(expected, issuers.keys(name).unwrap())
}

/// The world of the HTTP tests with the issuer `push` and its clients.
pub(crate) fn world(text: &str) -> World {
    world_trusting(text, BTreeMap::new())
}

/// The same, where tokens of others are known by these names.
pub(crate) fn world_trusting(text: &str, verifiers: BTreeMap<String, Verifier>) -> World {
    world_with(text, verifiers, |_, _, inbound| inbound)
}

/// The same with other tokens at its gates.
pub(crate) fn world_with(
    text: &str,
    verifiers: BTreeMap<String, Verifier>,
    inbound: impl FnOnce(&World, &Issuers, Arc<Inbound>) -> Arc<Inbound>,
) -> World {
    let mut world = World::new();
    let config = config(text);
    let host: Arc<dyn Host> = Arc::<TestHost>::clone(&world.node.host);
    let register: Arc<dyn Register> = Arc::clone(&world.node.wire) as _;
    let issuers = start(&config, ("node-1", &host), &register, None);
    let clients = Clients::new(&config.clients, &Literals).unwrap_or_else(|error| panic!("{error:?}"));
    let live = world.node.live(Keep::OnDemand { lifetimes: 3 }, [7; 32], Some(&world.outbound));
    let live = Live { inbound: inbound(&world, &issuers, Arc::clone(&live.inbound)), ..live };
    let issuing = Issuing { issuers, clients: Arc::new(clients), verifiers: Arc::new(verifiers) };
    world.outbound = live.outbound.clone();
    let limits = Limits { body_bytes_max: 8192, ..live.limits };
    let tokens = Some(world.node.tokens());
    let artifacts = crate::http_artifacts::one_gate(&world);
    world.api.reload(Live { issuing: Some(issuing), tokens, limits, artifacts, ..live });
    let surfaces = [Surface::Api, Surface::Metrics, Surface::Gate, Surface::Oauth2];
    world.router = router(Arc::clone(&world.api), &surfaces.into());
    world
}

/// A request of a client that proves itself by its secret, in the header.
pub(crate) async fn post(world: &World, path: &str, client: &str, form: &[(&str, &str)]) -> Answer {
    let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    let request = match client {
        "" => request,
        client => {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{client}:secret-{client}"));
            request.header("authorization", format!("Basic {text}"))
        }
    };
    world.send(request.body(Body::from(encoded(form))).unwrap()).await
}

pub(crate) fn encoded(form: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    };
    form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

/// A token for this client.
pub(crate) async fn token(world: &World, client: &str, form: &[(&str, &str)]) -> String {
    let form = [&[("grant_type", "client_credentials")], form].concat();
    let answer = post(world, "/oauth2/token", client, &form).await;
    assert_eq!(answer.status, 200, "{answer}");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}
