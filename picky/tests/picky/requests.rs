//! What a request has to look like, and what the fake says when it does not.

use bytes::Bytes;
use http_body_util::Full;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, Signature};
use p256::pkcs8::{EncodePublicKey, LineEnding};
use serde_json::{Value, json};

use keyreeve_picky::apns::{Key, TOKEN_BYTES_MAX};

use crate::client::*;

fn header() -> Value {
    json!({"alg": "ES256", "kid": KEY})
}

fn claims() -> Value {
    json!({"iss": TEAM, "iat": START_S})
}

/// Tokens that must not be taken, each with what is wrong with it.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let good = token(START_S);
    let parts: Vec<&str> = good.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let signed = format!("{head}.{body}");
    let der: DerSignature = signing_key(1).sign(signed.as_bytes());
    let over_raw = |signed: String| {
        let signature: Signature = signing_key(1).sign(signed.as_bytes());
        format!("{signed}.{}", encode(signature.to_bytes()))
    };
    let mut altered = signature.to_owned();
    altered.replace_range(10..11, if &altered[10..11] == "A" { "B" } else { "A" });
    // 64 bytes leave four unused bits in the last character, so its three neighbours decode to the same bytes.
    let last = signature.chars().last().unwrap() as u8 + 1;
    let respelt = format!("{signed}.{}{}", &signature[..signature.len() - 1], last as char);
    vec![
        ("one part", head.to_owned()),
        ("two parts", signed.clone()),
        ("four parts", format!("{good}.{signature}")),
        ("no signature", format!("{signed}.")),
        ("no header", format!(".{body}.{signature}")),
        ("padding", format!("{good}==")),
        ("another spelling of the same signature", respelt),
        ("an altered signature", format!("{signed}.{altered}")),
        ("a signature in DER", format!("{signed}.{}", encode(der.as_bytes()))),
        ("a short signature", format!("{signed}.{}", encode([1_u8; 63]))),
        ("a signature of zeros", format!("{signed}.{}", encode([0_u8; 64]))),
        ("another key's signature", sign(2, &header(), &claims())),
        ("a payload that was not signed", format!("{head}.{}.{signature}", encode(r#"{"iss":"TEAM000001","iat":1}"#))),
        ("alg none", sign(1, &json!({"alg": "none", "kid": KEY}), &claims())),
        ("alg HS256", sign(1, &json!({"alg": "HS256", "kid": KEY}), &claims())),
        ("no alg", sign(1, &json!({"kid": KEY}), &claims())),
        ("no kid", sign(1, &json!({"alg": "ES256"}), &claims())),
        ("an unknown kid", sign(1, &json!({"alg": "ES256", "kid": OTHER_KEY}), &claims())),
        ("a critical extension", sign(1, &json!({"alg": "ES256", "kid": KEY, "crit": ["b64"]}), &claims())),
        ("another type", sign(1, &json!({"alg": "ES256", "kid": KEY, "typ": "at+jwt"}), &claims())),
        ("another team", sign(1, &header(), &json!({"iss": OTHER_TEAM, "iat": START_S}))),
        ("no iss", sign(1, &header(), &json!({"iat": START_S}))),
        ("no iat", sign(1, &header(), &json!({"iss": TEAM}))),
        ("iat as text", sign(1, &header(), &json!({"iss": TEAM, "iat": START_S.to_string()}))),
        ("iat with a fraction", sign(1, &header(), &json!({"iss": TEAM, "iat": START_S as f64 + 0.5}))),
        ("iat in milliseconds", sign(1, &header(), &json!({"iss": TEAM, "iat": START_MS}))),
        ("claims that are a list", sign(1, &header(), &json!([TEAM, START_S]))),
        ("claims that are no JSON", over_raw(format!("{head}.{}", encode("iss=TEAM000001")))),
        ("iat twice", over_raw(format!("{head}.{}", encode(r#"{"iss":"TEAM000001","iat":1,"iat":1700000000}"#)))),
        ("too long", sign(1, &header(), &json!({"iss": TEAM, "iat": START_S, "x": "x".repeat(TOKEN_BYTES_MAX)}))),
    ]
}

#[tokio::test]
async fn a_token_that_is_not_exactly_right_is_invalid() {
    let (apple, _clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    for (wrong, token) in bad_tokens() {
        assert_eq!(client.push(&token).await, no(403, "InvalidProviderToken"), "{wrong}");
    }
    let score = apple.score();
    let presented: Vec<_> = score.tokens.iter().map(|row| (row.iat, row.accepted)).collect();
    assert_eq!(presented, [(START_MS, 0)], "only the one from a far future was correctly signed");
    assert_eq!(client.push(&token(START_S)).await, ok(), "and none of them took the team's place");
}

#[tokio::test]
async fn a_request_without_a_bearer_token_is_told_that_it_is_missing() {
    let (apple, _clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let missing = no(403, "MissingProviderToken");
    let mut request = notification("x");
    request.headers_mut().remove("authorization");
    assert_eq!(client.send(request).await.unwrap().said(), missing);
    for value in ["bearer", "basic abc", &token(START_S)] {
        let mut request = notification("x");
        request.headers_mut().insert("authorization", value.parse().unwrap());
        assert_eq!(client.send(request).await.unwrap().said(), missing, "{value}");
    }
    let mut request = notification(&token(START_S));
    request.headers_mut().append("authorization", format!("bearer {}", token(START_S)).parse().unwrap());
    assert_eq!(client.send(request).await.unwrap().said(), no(403, "InvalidProviderToken"), "two of them");
}

#[tokio::test]
async fn each_other_mistake_has_apples_reason() {
    let (apple, _clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let token = token(START_S);
    let long = "a".repeat(201);
    let cases: Vec<(&str, &str, String, (u16, String))> = vec![
        ("GET", "method", format!("/3/device/{DEVICE}"), no(405, "MethodNotAllowed")),
        ("POST", "path", "/".to_owned(), no(404, "BadPath")),
        ("POST", "version", format!("/2/device/{DEVICE}"), no(404, "BadPath")),
        ("POST", "rest", format!("/3/device/{DEVICE}/x"), no(404, "BadPath")),
        ("POST", "none", "/3/device/".to_owned(), no(400, "BadDeviceToken")),
        ("POST", "short", format!("/3/device/{}", &DEVICE[1..]), no(400, "BadDeviceToken")),
        ("POST", "long", format!("/3/device/{long}"), no(400, "BadDeviceToken")),
        ("POST", "not hex", format!("/3/device/{}g", &DEVICE[1..]), no(400, "BadDeviceToken")),
        ("POST", "longest", format!("/3/device/{}", &long[1..]), ok()),
    ];
    for (method, name, path, said) in cases {
        let mut request = notification(&token);
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
        assert_eq!(client.send(request).await.unwrap().said(), said, "{name}");
    }
    let mut request = notification(&token);
    request.headers_mut().remove("apns-topic");
    assert_eq!(client.send(request).await.unwrap().said(), no(400, "MissingTopic"));
}

#[tokio::test]
async fn a_notification_has_between_1_and_4096_bytes() {
    let (apple, _clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let token = token(START_S);
    let cases = [
        (0, no(400, "PayloadEmpty")),
        (1, ok()),
        (4096, ok()),
        (4097, no(413, "PayloadTooLarge")),
        (1 << 20, no(413, "PayloadTooLarge")),
    ];
    for (size, said) in cases {
        let request = request(&token).body(Full::new(Bytes::from(vec![b'x'; size]))).unwrap();
        assert_eq!(client.send(request).await.unwrap().said(), said, "{size} bytes");
    }
    assert_eq!(client.push(&token).await, ok(), "the connection is as good as before");
}

#[tokio::test]
async fn every_answer_carries_an_apns_id_and_repeats_the_one_it_was_given() {
    let (apple, _clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let token = token(START_S);
    let mut ids = Vec::new();
    for token in [token.as_str(), token.as_str(), "bad"] {
        ids.push(client.send(notification(token)).await.unwrap().header("apns-id").to_owned());
    }
    assert!(ids.iter().all(|id| id.len() == 36), "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let mine = "123e4567-e89b-12d3-a456-42665544000a";
    for (id, said) in [(mine, ok()), ("123e4567", no(400, "BadMessageId")), ("x", no(400, "BadMessageId"))] {
        let request = request(&token).header("apns-id", id).body(Full::from("{}")).unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.said(), said);
        assert_eq!(answer.header("apns-id") == mine, id == mine);
    }
}

#[tokio::test]
async fn only_http_2_is_spoken() {
    let (apple, _clock) = apple(|_| {}).await;
    let refused = tls(&apple, &["http/1.1"]).await.unwrap_err();
    assert!(
        refused.to_string().to_lowercase().contains("alpn") || refused.to_string().contains("NoApplication"),
        "{refused}"
    );
    assert_eq!(tls(&apple, &["h2", "http/1.1"]).await.unwrap().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut silent = tls(&apple, &[]).await.unwrap();
    let mut byte = [0_u8; 1];
    let read = tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read(&mut silent, &mut byte)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "a client that offers nothing is cut off");
    until("the accepted h2 connection is counted", || apple.score().connections == 1).await;
}

#[tokio::test]
async fn headers_without_end_are_refused_and_the_next_request_is_answered() {
    let (apple, _clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let request = request(&token(START_S)).header("x", "x".repeat(17 * 1024)).body(Full::from("{}")).unwrap();
    match client.send(request).await {
        Ok(answer) => assert_eq!(answer.status, 431),
        Err(error) => assert!(error.is_user() || error.to_string().contains("http2"), "{error}"),
    }
    assert_eq!(Client::connect(&apple).await.push(&token(START_S)).await, ok());
}

#[tokio::test]
async fn a_key_is_registered_by_its_public_pem_and_nothing_else() {
    let pem = signing_key(1).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    let from_pem = Key::from_pem(TEAM, KEY, &pem).unwrap();
    let (apple, _clock) = apple(|config| config.keys = vec![from_pem]).await;
    assert_eq!(Client::connect(&apple).await.push(&token(START_S)).await, ok());
    let error = Key::from_pem(TEAM, KEY, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap_err();
    assert!(error.to_string().starts_with("not a P-256 public key in PEM: "), "{error}");
}
