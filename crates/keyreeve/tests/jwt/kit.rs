//! A program's own kit, in the environment of the Flarelette kit: what works there works here, and what goes wrong there does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use keyreeve::core::jwt::{Delegation, KeySet, Request, base64url};
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Timestamp;
use keyreeve::crypto::{any_signer, check};
use keyreeve::jwt::generate::{generate, secret};
use keyreeve::jwt::{
    Algorithm, Expected, Fixed, IssueError, Key, Keys, Kit, KitError, Platform, Refusal, SignOptions, SigningKey,
    VerifyError,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::given::NOW;

const ISS: &str = "https://gateway.example";

/// Bytes that count up: keys that differ, and are the same in every run.
fn counting() -> impl FnMut(&mut [u8]) {
    let mut next = 1_u8;
    move |bytes| {
        bytes.iter_mut().for_each(|byte| {
            next = next.wrapping_mul(31).wrapping_add(7);
            *byte = next;
        });
    }
}

fn secret_text() -> String {
    secret(64, &mut counting()).expose().clone()
}

/// A pair as `keyreeve keys generate` prints it, and its halves.
fn pair(algorithm: Algorithm) -> (String, String, String) {
    let pair = generate(algorithm, "k1", &mut counting()).unwrap();
    let (public, private) = (Value::Object(pair.public), pair.private.expose().clone());
    let whole = format!(r#"{{"publicJwk":{public},"privateJwk":{private}}}"#);
    (whole, public.to_string(), private)
}

fn made_at(variables: &[(&str, &str)], now: Timestamp) -> Result<Kit, KitError> {
    let mut all: BTreeMap<&str, &str> = BTreeMap::from([("JWT_ISS", ISS), ("JWT_AUD", "orders")]);
    all.extend(variables.iter().copied());
    let platform = Platform {
        variable: &|name| all.get(name).map(|value| (*value).to_owned()),
        file: &|path| if path == "/pair.json" { Ok(pair(Algorithm::EdDsa).0) } else { Err(format!("no `{path}`")) },
        remote: &|remote| Err(format!("fetched: {remote:?}")),
        signer: any_signer,
        check,
    };
    Kit::from_platform(&platform, Arc::new(move || now))
}

fn made(variables: &[(&str, &str)]) -> Kit {
    made_at(variables, NOW).unwrap_or_else(|problems| panic!("{problems}"))
}

fn mistakes(variables: &[(&str, &str)]) -> Vec<String> {
    match made_at(variables, NOW) {
        Ok(_) => panic!("taken: {variables:?}"),
        Err(problems) => problems.0,
    }
}

async fn refused(kit: &Kit, token: &str) -> String {
    kit.verify(token).await.err().map_or_else(|| panic!("accepted"), |error| error.to_string())
}

#[tokio::test]
async fn a_token_goes_round_with_a_secret_and_with_each_kind_of_key_pair() {
    let text = secret_text();
    let both = made(&[("JWT_SECRET", &text)]);
    let token =
        both.sign(&json!({ "sub": "u1", "permissions": ["a"], "iss": "somebody else", "exp": 1 })).await.unwrap();
    let good = both.verify(&token).await.unwrap();
    let claims = good.claims();
    assert_eq!((claims.subject(), claims.issuer(), good.algorithm()), (Some("u1"), Some(ISS), Algorithm::Hs512));
    assert_eq!(claims.expires_at_s().unwrap() - claims.issued_at_s().unwrap(), 900);
    assert_eq!(good.header().typ.as_deref(), Some("JWT"));
    assert!(both.claims(&token).await.is_some() && both.claims("x").await.is_none(), "the fail-silent form");

    for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512] {
        let (whole, public, private) = pair(algorithm);
        let consumer = made(&[("JWT_PUBLIC_JWK", &public)]);
        for variables in [
            vec![("JWT_PRIVATE_JWK", private.as_str())],
            vec![("JWT_PRIVATE_JWK", &whole)],
            vec![("JWT_PRIVATE_JWK_NAME", "SIGNING"), ("SIGNING", &private)],
        ] {
            let token = made(&variables).sign(&json!({ "sub": "u1" })).await.unwrap();
            let good = consumer.verify(&token).await.unwrap();
            assert_eq!((good.algorithm(), good.header().key_id.as_deref()), (algorithm, Some("k1")));
        }
        assert!(made(&[("JWT_PUBLIC_JWK", &whole)]).verifier().is_some(), "what people pipe");
        assert!(made(&[("JWT_PUBLIC_JWK", &format!(r#"{{"keys":[{public}]}}"#))]).verifier().is_some());
    }
    let from_file = made(&[("JWT_PRIVATE_JWK_PATH", "/pair.json"), ("JWT_KID", "k9")]);
    assert_eq!(from_file.signing_key().unwrap().id(), Some("k9"));
    // Both there: the pair signs, the secret verifies.
    let (_, _, private) = pair(Algorithm::EdDsa);
    let gateway = made(&[("JWT_PRIVATE_JWK", &private), ("JWT_SECRET", &text)]);
    assert_eq!(gateway.signing_key().unwrap().algorithm(), Algorithm::EdDsa);
    assert!(gateway.verify(&token).await.is_ok());
}

#[test]
fn mistakes_are_told_all_at_once_with_what_helps() {
    let text = secret_text();
    let (whole, public, private) = pair(Algorithm::EdDsa);
    let short = base64url::encode(&[7; 63]);
    let mismatched = private.replace("k1", "k1\",\"alg\":\"ES256");
    let cases: [&[(&str, &str)]; 25] = [
        &[("JWT_SECRET", &short)],
        &[("JWT_SECRET", "not base64url!")],
        &[("JWT_SECRET_NAME", "S"), ("JWT_SECRET", &text)],
        &[("JWT_SECRET", &text), ("JWT_PUBLIC_JWK", &public)],
        &[("JWT_SECRET", &text), ("JWT_JWKS_URL", "https://a.example/jwks")],
        &[("JWT_SECRET", &text), ("JWT_JWKS_SERVICE_NAME", "S"), ("S", "AUTH")],
        &[("JWT_LEEWAY", "90s")],
        &[("JWT_LEEWAY", "-1")],
        &[("JWT_LEEWAY", "301")],
        &[("JWT_TTL_SECONDS", "0")],
        &[("JWT_ISS", ""), ("JWT_AUD", "  ")],
        &[("JWT_AUD", ",")],
        &[("JWT_PRIVATE_JWK", &public)],
        &[("JWT_PRIVATE_JWK", "x")],
        &[("JWT_PRIVATE_JWK", &mismatched)],
        &[("JWT_PRIVATE_JWK_PATH", "/nowhere")],
        &[("JWT_PUBLIC_JWK", &private)],
        &[("JWT_PUBLIC_JWK", r#"{"kty":"oct","k":"AAAA","alg":"HS256"}"#)],
        &[("JWT_PUBLIC_JWK", r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#)],
        &[("JWT_PUBLIC_JWK", r#"{"keys":[]}"#)],
        &[("JWT_JWKS_URL", "http://a.example/jwks")],
        &[("JWT_JWKS_URL", "file:///etc/passwd")],
        &[("JWT_JWKS_URL_NAME", "U"), ("U", "http://127.0.0.1:1/j"), ("JWT_JWKS_CACHE_TTL_SECONDS", "60")],
        &[("JWT_JWKS_SERVICE", "AUTH"), ("JWT_JWKS_URL", "https://a.example/j")],
        &[("JWT_ISS", ""), ("JWT_TTL_SECONDS", "1h"), ("JWT_PRIVATE_JWK", "{}")],
    ];
    let mut told = String::new();
    for variables in cases {
        let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
        told.push_str(&format!("{}\n  {}\n", names.join(", "), mistakes(variables).join("\n  ")));
    }
    for part in [&text, &private] {
        assert!(!told.contains(part.as_str()), "a secret in a message");
    }
    insta::assert_snapshot!(told);
    assert!(made_at(&[("JWT_PRIVATE_JWK", &whole)], NOW).is_ok());
}

/// `jwt-kit.md`, "What the peer gets wrong": what can be seen from outside of one process.
#[tokio::test]
async fn what_the_peer_gets_wrong_is_right_here() {
    let text = secret_text();
    let kit = made(&[("JWT_SECRET", &text)]);
    let raw = Secret::new(base64url::decode(&text).unwrap());
    let token_of = |algorithm: Algorithm, claims: Value| {
        let key = SigningKey::new(any_signer(algorithm, &raw).unwrap(), None);
        key.sign(&claims.to_string()).now_or_never().unwrap().unwrap()
    };
    let now_s = NOW.seconds();
    let good = json!({ "iss": ISS, "aud": "orders", "sub": "u1", "iat": now_s, "exp": now_s + 60 });
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    assert!(kit.verify(&token_of(Algorithm::Hs512, good.clone())).await.is_ok());
    for (token, message) in [
        (token_of(Algorithm::Hs256, good.clone()), "the token says `HS256`, the key it would need is for `HS512`"),
        (token_of(Algorithm::Hs384, good.clone()), "the token says `HS384`, the key it would need is for `HS512`"),
        (token_of(Algorithm::Hs512, without("exp")), "no `exp` in the token"),
        (token_of(Algorithm::Hs512, without("iss")), "no `iss` in the token"),
        (token_of(Algorithm::Hs512, without("aud")), "no `aud` in the token"),
        (
            format!("{}=", token_of(Algorithm::Hs512, good.clone())),
            "the signature is not base64url as RFC 7515 has it: no padding, no white space, no spare bits",
        ),
        ("x".repeat(5 << 20), "the token has 5242880 bytes, more than the limit of 8192"),
    ] {
        assert_eq!(refused(&kit, &token).await, message);
    }
    // The leeway of the peer is 90 seconds, and it ends.
    let ended = |ago: u64| {
        let mut claims = good.clone();
        claims["exp"] = (now_s - ago).into();
        token_of(Algorithm::Hs512, claims)
    };
    assert!(kit.verify(&ended(89)).await.is_ok());
    assert_eq!(refused(&kit, &ended(90)).await, "expired 1m 30s ago");
    // Two kits of one process do not know of each other.
    let other = made(&[("JWT_SECRET", &text), ("JWT_AUD", "billing")]);
    let token = other.sign(&json!({ "sub": "u1" })).await.unwrap();
    assert_eq!(refused(&kit, &token).await, "audience `billing`, wanted `orders`");
    assert!(other.verify(&token).await.is_ok());
}

/// Found by fuzzing: what only just can be read would stand one level deeper.
#[tokio::test]
async fn a_delegated_token_can_be_read_however_deep_the_original_was() {
    let text = secret_text();
    let kit = made(&[("JWT_SECRET", &text)]);
    for (lists, is_made) in [(13, true), (14, false)] {
        let act = json!({ "sub": "x", "note": (0..lists).fold(json!(1), |inside, _| json!([inside])) });
        let deep = kit.sign(&json!({ "sub": "u1", "act": act })).await.unwrap();
        let deep = kit.verify(&deep).await.unwrap();
        match kit.create_delegated_token(&deep, "service-a", &SignOptions::default()).await {
            Ok(token) => assert!(is_made && kit.verify(&token).await.is_ok(), "{lists}"),
            Err(error) => {
                assert!(!is_made, "{lists}: {error}");
                assert!(error.to_string().contains("nested too deep"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_delegated_token_gains_nothing_and_ends_no_later() {
    let text = secret_text();
    let kit = made(&[("JWT_SECRET", &text)]);
    let claims = json!({
        "sub": "u1", "permissions": ["a", "b"], "roles": ["r"], "groups": "all", "email": "u1@example", "org_id": "o", "scope": "x y",
        "secret_claim": 1, "jti": "j", "nbf": 1,
    });
    let token = kit.sign_with(&claims, &SignOptions { ttl_s: Some(100), ..SignOptions::default() }).await.unwrap();
    let original = kit.verify(&token).await.unwrap();
    let delegated = kit.create_delegated_token(&original, "service-a", &SignOptions::default()).await.unwrap();
    let delegated = kit.verify(&delegated).await.unwrap();
    let now_s = NOW.seconds();
    assert_eq!(
        serde_json::from_str::<Value>(delegated.claims().json().text()).unwrap(),
        json!({
            "iss": ISS, "sub": "u1", "aud": "orders", "iat": now_s, "exp": now_s + 100, "permissions": ["a", "b"], "roles": ["r"],
            "scope": "x y", "email": "u1@example", "org_id": "o", "act": { "sub": "service-a" },
        })
    );
    // A shorter life is granted; the next actor stands in front of the first.
    let options =
        SignOptions { ttl_s: Some(10), audience: vec!["orders".into(), "billing".into()], ..SignOptions::default() };
    let second = kit.create_delegated_token(&delegated, "service-b", &options).await.unwrap();
    let second = kit.verify(&second).await.unwrap();
    assert_eq!(second.claims().expires_at_s(), Some(now_s + 10));
    assert_eq!(second.claims().actors().collect::<Vec<_>>(), ["service-b", "service-a"]);
    assert_eq!(second.claims().audience().collect::<Vec<_>>(), ["orders", "billing"]);

    let audience = ["orders".to_owned()];
    let less = Delegation { permissions: Some(&["b"]), scopes: Some(&["y"]), ..Delegation::new("s", ISS, &audience) };
    let less = kit.verify(&kit.sign_delegation(&less, &original).await.unwrap()).await.unwrap();
    assert_eq!(
        (less.claims().list("permissions").collect::<Vec<_>>(), less.claims().text("scope")),
        (vec!["b"], Some("y"))
    );
    for (more, message) in [
        (
            Delegation { permissions: Some(&["b", "admin"]), ..Delegation::new("s", ISS, &audience) },
            "`admin` is not in `permissions` of the original: a delegated token gains nothing",
        ),
        (
            Delegation { roles: Some(&["root"]), ..Delegation::new("s", ISS, &audience) },
            "`root` is not in `roles` of the original: a delegated token gains nothing",
        ),
        (
            Delegation { scopes: Some(&["z"]), ..Delegation::new("s", ISS, &audience) },
            "`z` is not in `scope` of the original: a delegated token gains nothing",
        ),
    ] {
        assert_eq!(kit.sign_delegation(&more, &original).await.unwrap_err().to_string(), message);
    }
    // An original that is only alive by leeway is the origin of nothing.
    let later = made_at(&[("JWT_SECRET", &text)], NOW.plus(100_000)).unwrap();
    let refusal = later.create_delegated_token(&original, "s", &SignOptions::default()).await.unwrap_err();
    assert_eq!(refusal, IssueError::Refused(Refusal::Expired { by_s: 0 }));
    // RFC 8693 4.4.
    let token = kit.sign(&json!({ "sub": "u1", "may_act": { "sub": "service-a" } })).await.unwrap();
    let original = kit.verify(&token).await.unwrap();
    assert!(kit.create_delegated_token(&original, "service-a", &SignOptions::default()).await.is_ok());
    let refusal = kit.create_delegated_token(&original, "service-b", &SignOptions::default()).await.unwrap_err();
    assert_eq!(refusal.to_string(), "`may_act` does not let `service-b` act for the subject");
    let elsewhere = json!({ "sub": "u1", "may_act": { "sub": "service-a", "iss": "https://elsewhere.example" } });
    let elsewhere = kit.verify(&kit.sign(&elsewhere).await.unwrap()).await.unwrap();
    let refusal = kit.create_delegated_token(&elsewhere, "service-a", &SignOptions::default()).await.unwrap_err();
    assert_eq!(refusal.to_string(), "`may_act` does not let `service-a` act for the subject");
    let mut chain = original;
    let mut made = 0;
    let refusal = loop {
        match kit.create_delegated_token(&chain, "service-a", &SignOptions::default()).await {
            Ok(token) => chain = kit.verify(&token).await.unwrap(),
            Err(refusal) => break refusal,
        }
        made += 1;
    };
    assert_eq!((made, refusal.to_string().as_str()), (8, "8 actors already stand behind this token"));
}

#[tokio::test]
async fn a_request_bound_token_is_good_for_one_request() {
    let kit = made(&[("JWT_SECRET", &secret_text())]);
    let request = Request { method: "POST", target: "/orders?a=1", body: b"{}" };
    let token =
        kit.sign_with_request_binding(&json!({ "sub": "u1" }), &request, &SignOptions::default()).await.unwrap();
    let good = kit.verify_with_request_binding(&token, &request).await.unwrap();
    assert!(good.claims().claim("req").is_none() && good.claims().subject() == Some("u1"), "stripped");
    // base64url(SHA-256("POST\n/orders?a=1\n{}")), by another program.
    let bound = kit.verify(&token).await.unwrap();
    assert_eq!(bound.claims().text("req"), Some("Qm-DrzFXd4tN4H__P2F0rQJHOwAjUKFE0tKDcfLHtTM"));
    for other in [
        Request { method: "PUT", ..request },
        Request { target: "/orders?a=2", ..request },
        Request { target: "/orders", ..request },
        Request { body: b"{ }", ..request },
    ] {
        let error = kit.verify_with_request_binding(&token, &other).await.unwrap_err();
        assert_eq!(error.to_string(), "the token is bound to another request: method, path, query or body differ");
    }
    let lower = Request { method: "post", ..request };
    assert!(kit.verify_with_request_binding(&token, &lower).await.is_ok());
    let unbound = kit.sign(&json!({ "sub": "u1" })).await.unwrap();
    let error = kit.verify_with_request_binding(&unbound, &request).await.unwrap_err();
    assert_eq!(error, VerifyError::Refused(Refusal::MissingClaim("req")));
}

#[derive(Debug, Deserialize, PartialEq)]
struct Typed {
    sub: String,
    permissions: Vec<String>,
}

#[tokio::test]
async fn claims_are_read_as_a_type_of_the_callers_only_after_verification() {
    let kit = made(&[("JWT_SECRET", &secret_text())]);
    let token = kit.sign(&json!({ "sub": "u1", "permissions": ["a"] })).await.unwrap();
    let typed = kit.verify_as::<Typed>(&token).await.unwrap();
    assert_eq!(*typed.claims(), Typed { sub: "u1".into(), permissions: vec!["a".into()] });
    let token = kit.sign(&json!({ "sub": "u1", "permissions": "a" })).await.unwrap();
    assert_eq!(
        kit.verify_as::<Typed>(&token).await.unwrap_err().to_string(),
        "`claims` do not fit the type they are read as"
    );
}

/// Explicit configuration: no environment anywhere.
#[tokio::test]
async fn a_kit_can_be_made_of_values() {
    let pair = generate(Algorithm::Es256, "k1", &mut counting()).unwrap();
    let private = Secret::new(pair.private.expose().clone().into_bytes());
    let signing = SigningKey::new(any_signer(Algorithm::Es256, &private).unwrap(), Some("k1"));
    let key = Key::new(Some("k1"), Algorithm::Es256, check(&pair.jwk.key, Algorithm::Es256).unwrap());
    let keys: Arc<dyn Keys> = Arc::new(Fixed(Arc::new(KeySet::new(vec![key]))));
    let expected = Expected::new([ISS], ["orders"]).unwrap();
    let kit = Kit::new(expected, 60, Some(signing), Some(keys), Arc::new(|| NOW));
    let options = SignOptions { typ: Some("at+jwt".into()), ..SignOptions::default() };
    let token = kit.create_token(&json!({ "sub": "u1" }), &options).await.unwrap();
    let good = kit.verify(&token).await.unwrap();
    assert!(good.is_expiring(NOW, 61) && !good.is_expiring(NOW, 60));
    assert_eq!(good.header().typ.as_deref(), Some("at+jwt"));
    let only_verifies = Kit::new(Expected::new([ISS], ["orders"]).unwrap(), 60, None, None, Arc::new(|| NOW));
    assert_eq!(only_verifies.sign(&json!({})).await.unwrap_err(), IssueError::NoKey);
    assert!(matches!(only_verifies.verify(&token).await, Err(VerifyError::Unavailable(_))), "never a refusal");
}
