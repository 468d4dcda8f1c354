//! Revocations over HTTP: what is asked for, what gates, `/v1/verify` and introspection answer then, and without news.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use keyreeve::config::{Config, OnStale};
use keyreeve::core::id::NodeId;
use keyreeve::core::policy::Source;
use keyreeve::crypto::LocalCrypto;
use keyreeve::inbound::{Inbound, Trusted};
use keyreeve::revocation::{Parts, Revocations};
use serde_json::{Value, json};

use crate::http_world::{Answer, EPOCH_MS, SECOND, TestHost, World, pass, request};
use crate::inbound_world::{Says, TestKey, Web, jwks, parts, verifier};
use crate::issuer_world::{self, ISSUER};
use crate::revocation_world::DENY;

const GATE: &str = r#"
store.url = "memory:"
[verifier.outside]
issuer = "https://issuer.example"
audience = "orders"
[gate.orders]
kind = "auth"
[[policy]]
who = "verifier:outside"
can = "GET /**"
on = "gate:orders"
"#;

/// A node that takes the tokens of `verifier:outside` and of its own `issuer:push`, and another one that follows.
struct Revoking {
    world: World,
    other: Revocations,
    key: TestKey,
}

impl Revoking {
    async fn new(on_stale: OnStale) -> Self {
        let key = TestKey::new("k1", 1);
        let follow = |world: &World, name: &str| {
            let parts = Parts {
                node: NodeId::parse(name).unwrap(),
                host: Arc::<TestHost>::clone(&world.node.host),
                register: Arc::clone(&world.node.wire) as _,
                crypto: Arc::new(LocalCrypto),
                store_ms: 2 * SECOND,
            };
            Revocations::start(parts, keyreeve::config::RevocationConfig { on_stale, ..DENY }, None)
        };
        let config = Config::read(GATE, "gate.toml", &BTreeMap::new(), Default::default()).unwrap().config;
        let text = format!("{ISSUER}{}", issuer_world::clients());
        let world = issuer_world::world_with(&text, BTreeMap::new(), |world, issuers, _| {
            let web = Web::new(&world.node.host, Says::Body(jwks(&[&key])));
            let outside = verifier(parts(&world.node.host, &web));
            let trusted = |source, verifier| Trusted { source, verifier, revoked: None };
            let trusted = vec![
                trusted(Source::Verifier("outside".into()), outside),
                trusted(Source::Issuer("push".into()), issuer_world::verifier(issuers, "push")),
            ];
            let revocations = Some(follow(world, "node-2"));
            Inbound::revoking(trusted, &config.gates, config.policy.clone(), [7; 32], revocations)
        });
        let other = follow(&world, "node-3");
        pass(SECOND).await;
        Self { world, other, key }
    }

    async fn gate(&self, token: &str) -> Answer {
        let request = request("GET", "/auth/orders", "").header("authorization", format!("Bearer {token}"));
        let request = request.header("x-original-method", "GET").header("x-original-uri", "/orders/7");
        self.world.send(request.body(Body::empty()).unwrap()).await
    }

    async fn verify(&self, token: &str) -> Answer {
        self.world.post("/v1/verify", "ops", &json!({ "token": token }).to_string()).await
    }

    async fn revoke(&self, body: &Value) -> Answer {
        self.world.post("/v1/revocations", "ops", &body.to_string()).await
    }

    /// Whether gate and verification agree that a token is good, or that it has been revoked.
    async fn takes(&self, token: &str) -> bool {
        let (gate, verified) = (self.gate(token).await, self.verify(token).await.json());
        match (gate.status.as_u16(), verified["valid"].as_bool(), verified["code"].as_str()) {
            (200, Some(true), None) => true,
            (401, Some(false), Some("revoked")) => {
                assert!(gate.body.contains("the token is not valid") && !gate.body.contains("revoked"), "{gate}");
                false
            }
            other => panic!("{other:?}: {gate}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_jwt_is_refused_at_once_although_it_was_just_accepted_and_each_node_has_a_receipt() {
    let node = Revoking::new(OnStale::Deny).await;
    let token = |jti: &str| node.key.token(json!({ "jti": jti }));
    let (one, two) = (token("j1"), token("j2"));
    for token in [&one, &two] {
        assert!(node.takes(token).await && node.takes(token).await);
    }
    let answer = node.revoke(&json!({ "token": one })).await;
    assert_eq!(answer.status, 202, "{answer}");
    let revoked = answer.json();
    assert_eq!((&revoked["kind"], &revoked["bound_ms"]), (&"jwt".into(), &1000.into()));
    assert!(!node.takes(&one).await && node.takes(&two).await);
    let path = format!("/v1/revocations/{}?wait=2s", revoked["id"].as_str().unwrap());
    let receipts = node.world.get(&path, "ops").await;
    assert_eq!(receipts.status, 200, "{receipts}");
    let receipts = receipts.json();
    assert_eq!((&receipts["complete"], &receipts["epoch"]), (&true.into(), &revoked["epoch"]));
    let nodes = receipts["nodes"].as_array().unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node["node"].as_str().unwrap()).collect();
    // The first one is the follower of this world's access tokens.
    assert_eq!(names, ["node-1", "node-2", "node-3"]);
    for receipt in nodes {
        assert_eq!(receipt["state"], "applied");
        assert!(receipt["after_ms"].as_u64().is_some_and(|ms| ms <= 250) && receipt["at"].is_string(), "{receipt}");
    }
    assert_eq!(node.other.epoch(), revoked["epoch"].as_u64().unwrap());
    // The same again is the same.
    assert_eq!(node.revoke(&json!({ "token": one })).await.json(), revoked);
}

#[tokio::test(start_paused = true)]
async fn by_id_subject_key_and_age_and_by_the_names_of_issuers() {
    let node = Revoking::new(OnStale::Deny).await;
    let now_s = EPOCH_MS / 1000;
    let token = |more: Value| node.key.token(more);
    let outside = json!("verifier:outside");
    let by_id = token(json!({ "jti": "j1" }));
    assert!(node.takes(&by_id).await);
    let answer = node.revoke(&json!({ "jti": "j1", "issuer": outside })).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["kind"]), (202, &"jwt".into()), "{answer}");
    assert!(!node.takes(&by_id).await);
    let (before, after) =
        (token(json!({ "sub": "bob", "iat": now_s })), token(json!({ "sub": "bob", "iat": now_s + 4 })));
    pass(10 * SECOND).await;
    // Named by its `iss`, and up to a moment.
    let answer = node
        .revoke(
            &json!({ "subject": "bob", "issuer": "https://issuer.example", "issued_before": "2026-11-22T00:00:03Z" }),
        )
        .await;
    assert_eq!(answer.status, 202, "{answer}");
    assert!(!node.takes(&before).await && node.takes(&after).await);
    // Up to now, where nothing else is said.
    assert_eq!(node.revoke(&json!({ "subject": "bob", "issuer": outside })).await.status, 202);
    assert!(!node.takes(&after).await);
    let (old, young) = (token(json!({ "sub": "eve", "iat": now_s })), token(json!({ "sub": "eve", "iat": now_s + 5 })));
    let answer = node.revoke(&json!({ "issued_before": "2026-11-22T00:00:05Z", "issuer": outside })).await;
    assert_eq!(&answer.json()["kind"], "issued-before", "{answer}");
    assert!(!node.takes(&old).await && node.takes(&young).await, "before, and not at");
    let answer = node.revoke(&json!({ "kid": "k1", "issuer": outside })).await;
    assert_eq!(&answer.json()["kind"], "kid", "{answer}");
    assert!(!node.takes(&young).await);
}

#[tokio::test(start_paused = true)]
async fn an_access_token_is_revoked_by_itself_or_by_its_id_for_whoever_it_belongs_to() {
    let node = Revoking::new(OnStale::Deny).await;
    let make = async |alias: &str| {
        let body = json!({ "target": "acme", "alias": alias }).to_string();
        node.world.post("/v1/tokens", "ops", &body).await.json()
    };
    let is_valid = async |made: &Value| {
        let body = json!({ "target": "acme", "token": made["token"] }).to_string();
        node.world.post("/v1/tokens/verify", "ops", &body).await.json()["valid"].clone()
    };
    for (alias, by) in [("ci", "token"), ("cd", "id")] {
        let made = make(alias).await;
        assert_eq!(is_valid(&made).await, true);
        let body = json!({ "token": made[by] });
        let theirs = node.world.post("/v1/revocations", "elsewhere", &body.to_string()).await;
        assert_eq!(theirs.status, 422, "{theirs}");
        assert!(theirs.body.contains("no token that you may revoke here"), "{theirs}");
        assert_eq!(is_valid(&made).await, true);
        let answer = node.revoke(&body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["kind"]), (202, &"token".into()), "{answer}");
        assert_eq!(is_valid(&made).await, false);
        let path = format!("/v1/revocations/{}?wait=2s", answer.json()["id"].as_str().unwrap());
        let receipts = node.world.get(&path, "ops").await.json();
        assert_eq!(receipts["complete"], true, "{receipts}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_say_what_is_to_be_revoked_is_refused_with_what_would_do() {
    let node = Revoking::new(OnStale::Deny).await;
    let expired = node.key.token(json!({ "exp": EPOCH_MS / 1000 - 3600 }));
    for (body, status, said) in [
        (json!({}), 400, "one of `token`, `jti`, `subject`, `kid` and `issued_before`"),
        (json!({ "subject": "a", "kid": "b" }), 400, "this does not say what is to be revoked"),
        (json!({ "token": "x.y.z", "issuer": "issuer:push" }), 400, "this does not say what is to be revoked"),
        (json!({ "who": "a" }), 400, "unknown field `who`"),
        (json!({ "subject": "a" }), 422, "`issuer` is missing"),
        (json!({ "subject": "a", "issuer": "issuer:other" }), 422, "one of `verifier:outside`, `issuer:push`"),
        (json!({ "subject": "", "issuer": "issuer:push" }), 422, "`subject` must have 1 to 1024 bytes, not 0"),
        (json!({ "subject": "s".repeat(1025), "issuer": "issuer:push" }), 422, "`subject` must have 1 to 1024 bytes"),
        (json!({ "subject": 7, "issuer": "issuer:push" }), 400, "`subject` must be a string, not a number"),
        (json!({ "token": "x.y.z" }), 422, "`token` is no token that is accepted here"),
        (json!({ "token": expired }), 422, "expired"),
        (json!({ "token": "krt_0" }), 422, "`token` is no token that you may revoke here"),
        (json!({ "issued_before": "yesterday", "issuer": "issuer:push" }), 422, "`issued_before` is no moment"),
        (
            json!({ "issued_before": "2026-11-23T00:00:00Z", "issuer": "issuer:push" }),
            422,
            "`issued_before` lies ahead",
        ),
        (json!({ "answer_loss": false }), 400, "`answer_loss` is `true`, and stands alone"),
        (json!({ "answer_loss": true, "kid": "a" }), 400, "`answer_loss` is `true`, and stands alone"),
    ] {
        let answer = node.revoke(&body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer}");
        assert!(answer.body.contains(said), "{body}: {answer}");
    }
    assert_eq!(node.revoke(&json!({ "answer_loss": true })).await.json(), json!({ "answered": false }));
    for id in ["x", "0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF", "a/b"] {
        let answer = node.world.get(&format!("/v1/revocations/{id}"), "ops").await;
        assert_eq!(answer.status, 404, "{id}: {answer}");
    }
    for wait in ["11s", "x", "-1s"] {
        let answer = node.world.get(&format!("/v1/revocations/{}?wait={wait}", "0".repeat(32)), "ops").await;
        assert_eq!(answer.status, 400, "{wait}: {answer}");
    }
    assert_eq!(node.other.epoch(), 0, "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn without_news_gates_and_verification_say_that_they_cannot_tell_and_readyz_says_it_too() {
    let node = Revoking::new(OnStale::Deny).await;
    let token = node.key.token(json!({ "jti": "j1" }));
    assert!(node.takes(&token).await);
    let ready = node.world.get("/readyz", "ops").await.json();
    assert_eq!((&ready["revocation"]["stale"], &ready["revocation"]["on_stale"]), (&false.into(), &"deny".into()));
    node.world.unplug_store();
    pass(700).await;
    assert!(node.takes(&token).await, "its news are fresh enough");
    pass(400).await;
    for answer in [node.gate(&token).await, node.verify(&token).await, node.gate(&node.key.token(json!({}))).await] {
        assert_eq!(answer.status, 503, "{answer}");
        assert_eq!(answer.problem(), "stale-revocation-data");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    let ready = node.world.get("/readyz", "ops").await;
    let said = &ready.json()["revocation"];
    assert_eq!((&ready.json()["status"], &said["stale"]), (&"degraded".into(), &true.into()), "{ready}");
    assert!(said["cause"].as_str().unwrap().contains("unplugged"), "{ready}");
    assert_eq!(node.world.get("/readyz", "").await.json(), json!({ "status": "degraded" }));
    // A revocation that cannot be written is not said to be made.
    let answer = node.revoke(&json!({ "jti": "j1", "issuer": "verifier:outside" })).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "store-unavailable"), "{answer}");
    node.world.plug_store();
    pass(300).await;
    assert!(node.takes(&token).await);
}

#[tokio::test(start_paused = true)]
async fn where_it_is_allowed_tokens_are_accepted_without_news_and_readyz_says_so() {
    let node = Revoking::new(OnStale::Allow).await;
    let token = node.key.token(json!({ "jti": "j1" }));
    node.world.unplug_store();
    pass(5 * SECOND).await;
    // The keys of the outside issuer are known already.
    assert_eq!(node.gate(&token).await.status, 200);
    let ready = node.world.get("/readyz", "ops").await.json();
    assert_eq!(ready["status"], "degraded");
    assert_eq!((&ready["revocation"]["stale"], &ready["revocation"]["on_stale"]), (&true.into(), &"allow".into()));
}

#[tokio::test(start_paused = true)]
async fn introspection_and_exchange_hear_of_it_too() {
    let node = Revoking::new(OnStale::Deny).await;
    let token = issuer_world::token(&node.world, "billing", &[]).await;
    let is_active = async || {
        let answer = issuer_world::post(&node.world, "/oauth2/introspect", "idle", &[("token", &token)]).await;
        (answer.status.as_u16(), answer.json()["active"].clone())
    };
    let exchange = async || {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", token.as_str()),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ];
        issuer_world::post(&node.world, "/oauth2/token", "orders", &form).await.status.as_u16()
    };
    assert_eq!((is_active().await, exchange().await), ((200, true.into()), 200));
    assert_eq!(node.revoke(&json!({ "subject": "billing", "issuer": "issuer:push" })).await.status, 202);
    assert_eq!((is_active().await, exchange().await), ((200, false.into()), 400));
    node.world.unplug_store();
    pass(1100).await;
    assert_eq!(
        (is_active().await.0, exchange().await),
        (503, 503),
        "never an answer about a token that nobody can tell of"
    );
}
