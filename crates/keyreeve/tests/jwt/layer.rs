//! What stands in front of a router.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures::FutureExt as _;
use http::{Request, StatusCode};
use keyreeve::core::jwt::base64url;
use keyreeve::crypto::{any_signer, check};
use keyreeve::jwt::keys::Unavailable;
use keyreeve::jwt::{Bearer, Expected, KeySet, Keys, Kit, Platform, RequireToken};
use serde_json::json;
use tower::ServiceExt as _;

use crate::given::NOW;

fn kit() -> Kit {
    let secret = base64url::encode(&[7; 64]);
    let platform = Platform {
        variable: &|name| match name {
            "JWT_ISS" => Some("i".into()),
            "JWT_AUD" => Some("a".into()),
            "JWT_SECRET" => Some(secret.clone()),
            _ => None,
        },
        file: &|_| Err(String::new()),
        remote: &|_| Err(String::new()),
        signer: any_signer,
        check,
    };
    Kit::from_platform(&platform, Arc::new(|| NOW)).unwrap()
}

async fn hello(Bearer(caller): Bearer) -> String {
    caller.claims().subject().unwrap_or("nobody").to_owned()
}

fn asked(router: &Router, authorization: &[&str]) -> (StatusCode, String, String) {
    let mut request = Request::get("/");
    for value in authorization {
        request = request.header("authorization", *value);
    }
    let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).now_or_never().unwrap().unwrap();
    let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 10_000).now_or_never().unwrap().unwrap();
    (status, challenge.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
}

fn bearer(claims: &serde_json::Value) -> String {
    format!("Bearer {}", kit().sign(claims).now_or_never().unwrap().unwrap())
}

#[test]
fn only_a_good_token_said_once_goes_through() {
    let router = Router::new().route("/", get(hello)).layer(RequireToken::new(kit()));
    let good = bearer(&json!({ "sub": "u1" }));
    assert_eq!(asked(&router, &[&good]), (StatusCode::OK, String::new(), "u1".to_owned()));
    assert_eq!(asked(&router, &[&good.replacen("Bearer", "bEARER", 1)]).0, StatusCode::OK);
    for missing in [&[] as &[&str], &[&good, &good], &["Basic dTpw"], &["Bearer"], &["é"]] {
        let (status, challenge, _) = asked(&router, missing);
        assert_eq!((status, challenge.as_str()), (StatusCode::UNAUTHORIZED, "Bearer"), "{missing:?}");
    }
    let invalid = "Bearer error=\"invalid_token\", error_description=\"the token is not valid\"";
    for bad in ["Bearer x", "Bearer  ", &format!("{good}="), &good.replacen("eyJ", "eyK", 1)] {
        let (status, challenge, body) = asked(&router, &[bad]);
        assert_eq!((status, challenge.as_str()), (StatusCode::UNAUTHORIZED, invalid), "{bad}");
        assert_eq!(body, r#"{"code":"unauthenticated","detail":"the token is not valid","status":401}"#);
    }
    // Bound to a key that nobody proved to have.
    let bound = bearer(&json!({ "sub": "u1", "cnf": { "jkt": base64url::encode(&[1; 32]) } }));
    assert_eq!(asked(&router, &[&bound]).0, StatusCode::UNAUTHORIZED);
}

#[test]
fn a_good_token_may_not_be_enough() {
    let asks = RequireToken::new(kit()).admitting(|caller| caller.claims().list("roles").any(|role| role == "admin"));
    let router = Router::new().route("/", get(hello)).layer(asks);
    assert_eq!(asked(&router, &[&bearer(&json!({ "sub": "u1", "roles": ["admin"] }))]).0, StatusCode::OK);
    for roles in [json!("admin"), json!(["administrator"]), json!([])] {
        let (status, challenge, _) = asked(&router, &[&bearer(&json!({ "sub": "u1", "roles": roles }))]);
        assert_eq!((status, challenge.as_str()), (StatusCode::FORBIDDEN, "Bearer error=\"insufficient_scope\""));
    }
}

/// A handler that was mounted without the layer is closed, not open.
#[test]
fn claims_that_nobody_verified_are_not_handed_out() {
    let router = Router::new().route("/", get(hello));
    assert_eq!(asked(&router, &[&bearer(&json!({ "sub": "u1" }))]).0, StatusCode::UNAUTHORIZED);
}

struct Away;

#[async_trait::async_trait]
impl Keys for Away {
    fn known(&self) -> Option<Arc<KeySet>> {
        None
    }

    async fn look(&self, _: Option<&str>) -> Result<Arc<KeySet>, Unavailable> {
        Err(Unavailable("the issuer is down".into()))
    }
}

/// Keys that are away are nobody's fault at the door: 503, never 401; and what is no token makes nobody look for keys.
#[test]
fn keys_that_are_away_are_503() {
    let kit = Kit::new(Expected::new(["i"], ["a"]).unwrap(), 60, None, Some(Arc::new(Away)), Arc::new(|| NOW));
    let router = Router::new().route("/", get(hello)).layer(RequireToken::new(kit));
    let (status, challenge, body) = asked(&router, &[&bearer(&json!({ "sub": "u1" }))]);
    assert_eq!((status, challenge.as_str()), (StatusCode::SERVICE_UNAVAILABLE, ""));
    assert!(!body.contains("issuer"), "{body}");
    assert_eq!(asked(&router, &["Bearer x.y.z"]).0, StatusCode::UNAUTHORIZED);
}
