//! The fake issuers hold their rules: what a real one refuses is refused, with its words.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use keyreeve_picky::clock::PickyClock;
use keyreeve_picky::issuers::oauth::{self, Rotation, Server};
use keyreeve_picky::issuers::{Fault, Faults, Key, github, sts};
use serde_json::{Value, json};

use crate::client::{START_MS, START_S, plain, sign};

async fn plain_request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, Vec<u8>) {
    let answer = plain(addr, method, path, headers, body.to_owned()).await.unwrap();
    (answer.status, answer.body.to_vec())
}

/// The public key of the signer with seed 1, as a JWK set.
fn keys() -> Vec<Key> {
    let point = crate::client::signing_key(1).verifying_key().to_sec1_point(false);
    let set = json!({ "keys": [{
        "kty": "EC", "crv": "P-256",
        "x": crate::client::encode(point.x().unwrap()), "y": crate::client::encode(point.y().unwrap()),
    }] });
    Key::all(&set.to_string()).unwrap()
}

async fn server(rotation: Rotation) -> Server {
    let config = oauth::Config {
        rotation,
        clock: PickyClock::manual(START_MS),
        trusted: keys(),
        refresh_tokens: vec!["first".into()],
        ..Default::default()
    };
    oauth::start(config).await.unwrap()
}

async fn ask(server: &Server, form: &str) -> (StatusCode, Value) {
    let basic = format!("Basic {}", STANDARD.encode("keyreeve:client-secret"));
    let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let (status, body) = plain_request(server.addr(), "POST", "/token", &headers, form).await;
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_second_use_ends_the_family() {
    let server = server(Rotation::Strict).await;
    let (status, body) = ask(&server, "grant_type=refresh_token&refresh_token=first").await;
    assert_eq!(status, 200, "{body}");
    let next = body["refresh_token"].as_str().unwrap().to_owned();
    let (status, body) = ask(&server, "grant_type=refresh_token&refresh_token=first").await;
    assert_eq!((status.as_u16(), body["error"].as_str()), (400, Some("invalid_grant")));
    let (_, body) = ask(&server, &format!("grant_type=refresh_token&refresh_token={next}")).await;
    assert_eq!(body["error"], "invalid_grant", "the whole family is gone");
    let score = server.score();
    assert_eq!((score.refreshes, score.reuses, score.families_revoked), (1, 1, 1));
    let another = server.consent();
    let (status, _) = ask(&server, &format!("grant_type=refresh_token&refresh_token={another}")).await;
    assert_eq!(status, 200, "a new consent is a new family");
}

#[tokio::test]
async fn without_rotation_a_refresh_token_stays() {
    let server = server(Rotation::None).await;
    for _ in 0..2 {
        let (status, body) = ask(&server, "grant_type=refresh_token&refresh_token=first").await;
        assert!(status == 200 && body.get("refresh_token").is_none(), "{body}");
    }
}

#[tokio::test]
async fn requests_that_a_server_would_refuse_are_refused_in_its_words() {
    let server = server(Rotation::Strict).await;
    for (form, error) in [
        ("", "invalid_request"),
        ("grant_type=password", "unsupported_grant_type"),
        ("grant_type=refresh_token", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=unknown", "invalid_grant"),
        ("grant_type=client_credentials&scope=forbidden", "invalid_scope"),
        (
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=x&subject_token_type=y",
            "invalid_grant",
        ),
    ] {
        let (status, body) = ask(&server, form).await;
        assert_eq!((status.as_u16(), body["error"].as_str()), (400, Some(error)), "{form}");
    }
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let form = "grant_type=client_credentials&client_id=keyreeve&client_secret=wrong";
    let (status, body) = plain_request(server.addr(), "POST", "/token", &headers, form).await;
    assert!(status == 401 && String::from_utf8_lossy(&body).contains("invalid_client"));
    assert_eq!(server.score().issued, 0);
}

#[tokio::test]
async fn a_lost_answer_has_rotated_all_the_same() {
    let server = server(Rotation::Strict).await;
    server.set_faults(Faults::next(1, Fault::DropAfterIssue)).unwrap();
    let addr = server.addr();
    let lost = tokio::spawn(async move {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let form = "grant_type=refresh_token&refresh_token=first&client_id=keyreeve&client_secret=client-secret";
        plain_request(addr, "POST", "/token", &headers, form).await
    });
    assert!(lost.await.is_err(), "no answer");
    assert_eq!((server.score().refreshes, server.score().issued), (1, 1));
    let (_, body) = ask(&server, "grant_type=refresh_token&refresh_token=first").await;
    assert_eq!(body["error"], "invalid_grant");
}

fn identity(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({
        "iss": "https://issuer.example.org", "sub": "me", "aud": "sts.amazonaws.com", "iat": START_S, "exp": START_S + 300,
    });
    change(&mut claims);
    sign(1, &json!({"alg": "ES256"}), &claims)
}

#[tokio::test]
async fn sts_verifies_the_web_identity_and_every_field() {
    let config = sts::Config {
        clock: PickyClock::manual(START_MS),
        trusted: keys(),
        subject: Some("me".into()),
        ..Default::default()
    };
    let sts = sts::start(config).await.unwrap();
    let good = identity(|_| {});
    let role = "arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Flake";
    let form = |token: &str, more: &str| {
        format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={role}&RoleSessionName=me&WebIdentityToken={token}{more}"
        )
    };
    let cases = [
        (form(&good, ""), 200, "<AccessKeyId>ASIA"),
        (form(&good, "&DurationSeconds=899"), 400, "ValidationError"),
        (form(&good, "&DurationSeconds=43201"), 400, "ValidationError"),
        (form(&good, "&DurationSeconds=43200"), 200, "<Expiration>"),
        (form(&good, "&Policy=nonsense"), 400, "MalformedPolicyDocument"),
        (form(&good, "").replace("lake", "other"), 403, "AccessDenied"),
        (form(&good, "").replace("=me", "=m"), 400, "ValidationError"),
        (form("abc", ""), 400, "ValidationError"),
        (form("a.b.c", ""), 400, "InvalidIdentityToken"),
        (form(&identity(|claims| claims["exp"] = json!(START_S)), ""), 400, "ExpiredTokenException"),
        (form(&identity(|claims| claims["exp"] = json!(START_S + 1)), ""), 200, "<Expiration>"),
        (form(&identity(|claims| claims["iat"] = json!(START_S + 6)), ""), 400, "InvalidIdentityToken"),
        (form(&identity(|claims| claims["aud"] = json!("other")), ""), 400, "InvalidIdentityToken"),
        (form(&identity(|claims| claims["iss"] = json!("other")), ""), 400, "InvalidIdentityToken"),
        (form(&identity(|claims| claims["sub"] = json!("other")), ""), 403, "AccessDenied"),
        (form(&sign(2, &json!({"alg": "ES256"}), &json!({"exp": START_S + 300})), ""), 400, "InvalidIdentityToken"),
    ];
    for (form, status, text) in cases {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let (found, body) = plain_request(sts.addr(), "POST", "/", &headers, &form).await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(found == status && body.contains(text), "{found} {body} for {form}");
    }
    assert_eq!(sts.score().issued, 3);
}

#[tokio::test]
async fn github_refuses_assertions_from_the_future_and_those_that_live_too_long() {
    let clock = PickyClock::manual(START_MS);
    let config = github::Config {
        clock: clock.clone(),
        keys: keys(),
        app_id: "app".into(),
        replication: std::time::Duration::from_secs(3),
        ..Default::default()
    };
    let github = github::start(config).await.unwrap();
    let path = "/app/installations/1/access_tokens";
    let ask = async |iat: i64, exp: i64, path: &str| {
        let token = sign(1, &json!({"alg": "ES256"}), &json!({"iss": "app", "iat": iat, "exp": exp}));
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("user-agent", "test")];
        plain_request(github.addr(), "POST", path, &headers, "{}").await
    };
    for (iat, exp, status) in [
        (START_S, START_S + 600, 201),
        (START_S, START_S + 601, 401),
        (START_S + 1, START_S + 60, 401),
        (START_S - 60, START_S, 401),
        (START_S - 60, START_S + 1, 201),
    ] {
        assert_eq!(ask(iat, exp, path).await.0, status, "{iat} {exp}");
    }
    assert_eq!(ask(START_S, START_S + 60, "/app/installations/2/access_tokens").await.0, 404);
    let (_, body) = ask(START_S, START_S + 60, path).await;
    let token = serde_json::from_slice::<Value>(&body).unwrap()["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let use_it = async || {
        let headers = [("authorization", bearer.as_str())];
        plain_request(github.addr(), "GET", "/installation/repositories", &headers, "").await.0
    };
    assert_eq!(use_it().await, 401, "the replicas do not know it yet");
    clock.advance(std::time::Duration::from_secs(3));
    assert_eq!(use_it().await, 204);
}
