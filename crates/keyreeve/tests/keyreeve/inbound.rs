//! Keys of outside issuers: fetched once for everybody, seldom for strangers, and kept while nobody answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::join_all;
use keyreeve::config::{FetchConfig, GateConfig, KeysUrl, Proxy};
use keyreeve::core::jwt::Refusal;
use keyreeve::core::policy::{Claim, Policy, Source};
use keyreeve::inbound::{Inbound, Trusted};
use keyreeve::jwt::{Verifier, VerifyError};
use keyreeve::port::Host as _;
use serde_json::json;

use crate::http_world::{HOUR, MINUTE, SECOND, TestHost, pass};
use crate::inbound_world::{ISSUER, JWKS_URL, Says, TestKey, Web, claims, jwks, parts, verifier};

async fn verify(verifier: &Verifier, host: &TestHost, token: &str) -> Result<(), VerifyError> {
    verifier.verify(token, host.now().latest()).await.map(drop)
}

fn unknown(result: &Result<(), VerifyError>) -> bool {
    matches!(result, Err(VerifyError::Refused(Refusal::UnknownKey { .. })))
}

fn unavailable(result: Result<(), VerifyError>) -> String {
    match result {
        Err(VerifyError::Unavailable(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_cold_callers_are_one_fetch_and_none_of_them_owns_it() {
    let host = Arc::new(TestHost::new());
    let key = TestKey::new("k1", 1);
    let web = Web::new(&host, Says::Body(jwks(&[&key])));
    let verifier = verifier(parts(&host, &web));
    let token = key.token(json!({}));
    // The caller that asks goes away while its fetch is under way.
    let first = tokio::time::timeout(std::time::Duration::from_millis(5), verify(&verifier, &host, &token)).await;
    assert!(first.is_err());
    let all = join_all((0..50).map(|_| verify(&verifier, &host, &token))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(web.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_made_up_key_ids_are_one_fetch_per_cooldown() {
    let host = Arc::new(TestHost::new());
    let key = TestKey::new("k1", 1);
    let web = Web::new(&host, Says::Body(jwks(&[&key])));
    let verifier = verifier(parts(&host, &web));
    assert!(verify(&verifier, &host, &key.token(json!({}))).await.is_ok());
    let claims = claims(json!({}));
    for round in 1..=3 {
        pass(30 * SECOND).await;
        for chunk in 0..100 {
            let tokens: Vec<String> =
                (0..100).map(|n| key.signed_as(&format!("no-{round}-{chunk}-{n}"), &claims)).collect();
            let all = join_all(tokens.iter().map(|token| verify(&verifier, &host, token))).await;
            assert!(all.iter().all(unknown), "{all:?}");
        }
        assert_eq!(web.fetches(), 1 + round, "in round {round}");
    }
    // The edge itself. The last fetch began when the last round did.
    let stranger = key.signed_as("no-more", &claims);
    pass(29 * SECOND).await;
    assert!(unknown(&verify(&verifier, &host, &stranger).await));
    assert_eq!(web.fetches(), 4);
    pass(SECOND).await;
    assert!(unknown(&verify(&verifier, &host, &stranger).await));
    assert_eq!(web.fetches(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_picked_up_without_an_error_and_a_key_that_leaves_is_gone() {
    let host = Arc::new(TestHost::new());
    let (old, new) = (TestKey::new("k1", 1), TestKey::new("k2", 2));
    let web = Web::new(&host, Says::Body(jwks(&[&old])));
    let verifier = verifier(parts(&host, &web));
    assert!(verify(&verifier, &host, &old.token(json!({}))).await.is_ok());
    let epoch = verifier.keys().epoch();
    pass(31 * SECOND).await;
    web.says(Says::Body(jwks(&[&old, &new])));
    assert!(verify(&verifier, &host, &new.token(json!({}))).await.is_ok());
    assert_eq!((web.fetches(), verifier.keys().epoch()), (2, epoch));
    // Fresh for five minutes; then one look in the background, and the old keys serve meanwhile.
    web.says(Says::Body(jwks(&[&new])));
    pass(5 * MINUTE).await;
    assert!(verify(&verifier, &host, &old.token(json!({}))).await.is_ok());
    pass(SECOND).await;
    assert_eq!((web.fetches(), verifier.keys().epoch()), (3, epoch + 1));
    assert!(unknown(&verify(&verifier, &host, &old.token(json!({}))).await));
    assert!(verify(&verifier, &host, &new.token(json!({}))).await.is_ok());
    // The same id with another key is another key.
    pass(5 * MINUTE).await;
    web.says(Says::Body(jwks(&[&TestKey::new("k2", 3)])));
    assert!(verifier.keys().known().is_some());
    pass(SECOND).await;
    assert_eq!(verifier.keys().epoch(), epoch + 2);
}

#[tokio::test(start_paused = true)]
async fn whatever_an_issuer_answers_the_known_keys_go_on() {
    let host = Arc::new(TestHost::new());
    let key = TestKey::new("k1", 1);
    let web = Web::new(&host, Says::Body(jwks(&[&key])));
    let verifier = verifier(parts(&host, &web));
    let token = key.signed_as("k1", &claims(json!({ "exp": 4_000_000_000_u64 })));
    assert!(verify(&verifier, &host, &token).await.is_ok());
    let spoiled = [
        Says::Refused,
        Says::Hang,
        Says::TooLarge,
        Says::Status(302),
        Says::Status(500),
        Says::Status(404),
        Says::Status(204),
        Says::Body("<html>".into()),
        Says::Body("{}".into()),
        Says::Body(r#"{"keys":[]}"#.into()),
        Says::Body(r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#.into()),
        Says::Body(format!(r#"{{"keys":[],{}}}"#, jwks(&[&key]).trim_start_matches('{'))),
    ];
    for (at, says) in spoiled.into_iter().enumerate() {
        web.says(says);
        pass(6 * MINUTE).await;
        let fetches = web.fetches();
        assert!(verify(&verifier, &host, &token).await.is_ok(), "{at}");
        let stranger = key.signed_as("k9", &claims(json!({ "exp": 4_000_000_000_u64 })));
        assert!(unknown(&verify(&verifier, &host, &stranger).await), "{at}");
        assert_eq!(web.fetches(), fetches + 1, "{at}");
        assert!(verify(&verifier, &host, &token).await.is_ok(), "{at}");
    }
    // Not for ever: a key that was withdrawn meanwhile must go some time.
    web.says(Says::Refused);
    pass(25 * HOUR).await;
    let why = unavailable(verify(&verifier, &host, &token).await);
    assert_eq!(why, "no keys to verify with: verifier `outside`: it was not reached: connection refused");
    web.says(Says::Body(jwks(&[&key])));
    pass(30 * SECOND).await;
    assert!(verify(&verifier, &host, &token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_away_at_first_is_asked_again_soon_and_ever_less_often() {
    let host = Arc::new(TestHost::new());
    let key = TestKey::new("k1", 1);
    let web = Web::new(&host, Says::Refused);
    let verifier = verifier(parts(&host, &web));
    let token = key.token(json!({}));
    let began = host.now().mono;
    while host.now().mono.since(began) < 2 * MINUTE {
        unavailable(verify(&verifier, &host, &token).await);
        pass(100).await;
    }
    // At 0, 1, 3, 7, 15, 31 s, and from there on once per cooldown.
    assert_eq!(web.fetches(), 8);
    web.says(Says::Body(jwks(&[&key])));
    pass(30 * SECOND).await;
    assert!(verify(&verifier, &host, &token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_bad_key_costs_itself_and_pins_and_algorithms_leave_out_others() {
    let host = Arc::new(TestHost::new());
    let (good, other) = (TestKey::new("k1", 1), TestKey::new("k2", 2));
    let secret =
        json!({ "kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U", "kid": "s", "alg": "HS256" });
    let set = json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "broken" }, secret, { "kty": "what" },
        good.jwk(), other.private_jwk(),
    ] });
    let web = Web::new(&host, Says::Body(set.to_string()));
    let all = verifier(parts(&host, &web));
    assert!(verify(&all, &host, &good.token(json!({}))).await.is_ok());
    // Whoever publishes a private key has lost it.
    assert!(unknown(&verify(&all, &host, &other.token(json!({}))).await));

    let both = Web::new(&host, Says::Body(jwks(&[&good, &other])));
    let print = keyreeve::jwt::Jwk::parse(good.jwk().to_string().as_bytes(), None).unwrap();
    let print = print.key.thumbprint(&keyreeve::crypto::LocalCrypto);
    let pinned = verifier(keyreeve::inbound::FetchedParts { pins: vec![print], ..parts(&host, &both) });
    assert!(verify(&pinned, &host, &good.token(json!({}))).await.is_ok());
    assert!(unknown(&verify(&pinned, &host, &other.token(json!({}))).await));

    let narrow = verifier(keyreeve::inbound::FetchedParts {
        algorithms: vec![keyreeve::jwt::Algorithm::Es256],
        ..parts(&host, &both)
    });
    assert!(unavailable(verify(&narrow, &host, &good.token(json!({}))).await).contains("no key that can be used here"));
}

#[tokio::test(start_paused = true)]
async fn discovery_is_believed_for_its_own_issuer_and_https_only() {
    let host = Arc::new(TestHost::new());
    let key = TestKey::new("k1", 1);
    let web = Web::new(&host, Says::Body(jwks(&[&key])));
    let document = |issuer: &str, url: &str| Says::Body(json!({ "issuer": issuer, "jwks_uri": url }).to_string());
    let from = KeysUrl::Discovery(format!("{ISSUER}/.well-known/openid-configuration"));
    let mut parts = parts(&host, &web);
    parts.fetch = FetchConfig { from, ..parts.fetch };
    let token = key.token(json!({}));
    for (says, cause) in [
        (document("https://issuer.example/", JWKS_URL), "is that of `https://issuer.example/`"),
        (document(ISSUER, "http://keys.example/jwks"), "which is not `https`"),
        (document(ISSUER, "http://127.0.0.1/jwks"), "which is not `https`"),
        (document(ISSUER, "file:///etc/passwd"), "which is not `https`"),
        (Says::Body(json!({ "issuer": ISSUER }).to_string()), "names no `jwks_uri`"),
        (Says::Status(301), "redirects are not followed"),
        (Says::Body("[".into()), "not good JSON"),
    ] {
        web.discovery_says(says);
        let verifier = verifier(parts.clone());
        let why = unavailable(verify(&verifier, &host, &token).await);
        assert!(why.contains(cause), "{why}");
    }
    assert_eq!(web.fetches(), 0);
    web.discovery_says(document(ISSUER, JWKS_URL));
    let verifier = verifier(parts);
    let before = web.discoveries.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert!(verify(&verifier, &host, &token).await.is_ok());
        pass(MINUTE).await;
        let _ = verify(&verifier, &host, &key.signed_as("k9", &claims(json!({})))).await;
    }
    // The document is asked for once an hour while what it names works.
    assert_eq!((web.fetches(), web.discoveries.load(Ordering::SeqCst) - before), (11, 1));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_says_how_long_its_keys_are_fresh_within_limits() {
    let host = Arc::new(TestHost::new());
    let key = TestKey::new("k1", 1);
    for (seconds, quiet_s, then) in [(3600, 3500, 110), (0, 25, 10), (999_999_999, 86_000, 500)] {
        let web = Web::new(&host, Says::Kept(jwks(&[&key]), seconds));
        let verifier = verifier(parts(&host, &web));
        assert!(verifier.keys().look(None).await.is_ok());
        pass(quiet_s * SECOND).await;
        assert!(verifier.keys().known().is_some());
        pass(SECOND).await;
        assert_eq!(web.fetches(), 1, "max-age={seconds}");
        pass(then * SECOND).await;
        assert!(verifier.keys().known().is_some());
        pass(SECOND).await;
        assert_eq!(web.fetches(), 2, "max-age={seconds}");
    }
}

fn gates() -> std::collections::BTreeMap<String, GateConfig> {
    let gate = GateConfig {
        proxy: Proxy::Any,
        method_header: "x-original-method".into(),
        uri_header: "x-original-uri".into(),
        identity: vec![("x-auth-subject".into(), Claim::parse("sub").unwrap())],
    };
    std::collections::BTreeMap::from([("orders".to_owned(), gate)])
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_remembered_until_the_token_ends_or_a_key_leaves() {
    let host = Arc::new(TestHost::new());
    let (old, new) = (TestKey::new("k1", 1), TestKey::new("k2", 2));
    let web = Web::new(&host, Says::Kept(jwks(&[&old, &new]), 60));
    let trusted =
        Trusted { source: Source::Verifier("outside".into()), verifier: verifier(parts(&host, &web)), revoked: None };
    let inbound = Inbound::new(vec![trusted], &gates(), Policy::default(), [7; 32]);
    let token = old.token(json!({}));
    assert!(inbound.seen(&token, host.now()).is_none());
    assert!(inbound.accept(&token, host.now()).await.is_ok());
    assert!(inbound.seen(&token, host.now()).is_some());
    // One character more or less is another token, whatever it decodes to.
    for other in [format!("{token}="), format!("{token} "), token.chars().take(token.len() - 1).collect()] {
        assert!(inbound.seen(&other, host.now()).is_none());
        assert!(matches!(inbound.accept(&other, host.now()).await, Err(VerifyError::Refused(_))));
        assert!(inbound.seen(&other, host.now()).is_none());
    }
    // The token ends ten minutes after the test began: at that moment it is forgotten, whatever the leeway.
    let short = old.signed_as("k1", &claims(json!({ "exp": (host.now().latest().seconds()) + 30 })));
    assert!(inbound.accept(&short, host.now()).await.is_ok());
    pass(29_900).await;
    assert!(inbound.seen(&short, host.now()).is_some());
    pass(200).await;
    assert!(inbound.seen(&short, host.now()).is_none());
    assert!(inbound.accept(&short, host.now()).await.is_ok(), "within the leeway it is verified each time");
    assert!(inbound.seen(&short, host.now()).is_none());
    // A key leaves: what it signed is refused as soon as that is known, and what is asked makes it known.
    web.says(Says::Kept(jwks(&[&new]), 60));
    pass(MINUTE).await;
    assert!(inbound.seen(&token, host.now()).is_some());
    pass(SECOND).await;
    assert!(inbound.seen(&token, host.now()).is_none());
    assert!(inbound.accept(&token, host.now()).await.is_err());
}
