//! Requests that must not be: each is refused with a status below 500 and a sentence, and changes nothing.

use std::fmt::Write as _;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use insta::assert_snapshot;

use crate::http_world::{Answer, World, request};

const REPORT: &str = "/v1/credentials/push/report";
const RESOLVE: &str = "/v1/credentials/push/resolve";
const TOKEN: &str = "/v1/credentials/push/token";

fn told(answer: &Answer) -> String {
    let problem = answer.problem();
    let body = answer.json();
    let hint = body["hint"].as_str().map(|hint| format!(" | {hint}")).unwrap_or_default();
    format!("{} {problem}: {}{hint}", answer.status.as_u16(), body["detail"].as_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn malformed_bodies_are_refused_by_name() {
    let world = World::new();
    world.get(TOKEN, "ops").await;
    let deep = format!("{}{}", "[".repeat(400), "]".repeat(400));
    let long_word = format!(r#"{{"{}":1}}"#, "w".repeat(300));
    let bodies = [
        (REPORT, ""),
        (REPORT, "{"),
        (REPORT, "null"),
        (REPORT, "[]"),
        (REPORT, "7"),
        (REPORT, "{}"),
        (REPORT, "{} {}"),
        (REPORT, "{'generation':1}"),
        (REPORT, "\u{feff}{}"),
        (REPORT, &deep),
        (REPORT, &long_word),
        (REPORT, r#"{"generation":1}"#),
        (REPORT, r#"{"upstream_status":403}"#),
        (REPORT, r#"{"genration":1,"upstream_status":403}"#),
        (REPORT, r#"{"generation":1,"upstream_status":403,"token":"eyJhbGciOi"}"#),
        (REPORT, r#"{"generation":1,"generation":2,"upstream_status":403}"#),
        (REPORT, r#"{"generation":"1","upstream_status":403}"#),
        (REPORT, r#"{"generation":-1,"upstream_status":403}"#),
        (REPORT, r#"{"generation":1.5,"upstream_status":403}"#),
        (REPORT, r#"{"generation":99999999999999999999,"upstream_status":403}"#),
        (REPORT, r#"{"generation":null,"upstream_status":403}"#),
        (REPORT, r#"{"generation":1,"upstream_status":"403"}"#),
        (REPORT, r#"{"generation":1,"upstream_status":404}"#),
        (REPORT, r#"{"generation":1,"upstream_status":429}"#),
        (REPORT, r#"{"generation":1,"upstream_status":500}"#),
        (REPORT, r#"{"generation":1,"upstream_status":200}"#),
        (REPORT, r#"{"generation":1,"upstream_status":0}"#),
        (REPORT, r#"{"generation":1,"upstream_status":403,"reason":7}"#),
        (REPORT, r#"{"generation":1,"upstream_status":403,"reason":"line\nbreak"}"#),
        (
            REPORT,
            r#"{"generation":1,"upstream_status":403,"reason":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#,
        ),
        (RESOLVE, "{}"),
        (RESOLVE, r#"{"decision":"Adopt"}"#),
        (RESOLVE, r#"{"decision":["adopt"]}"#),
        (RESOLVE, r#"{"decision":"adopt","force":true}"#),
        ("/v1/credentials/push/renew", r#"{"now":true}"#),
        ("/v1/credentials/push/renew", "now"),
    ];
    let mut said = String::new();
    for (path, body) in bodies {
        let answer = world.post(path, "ops", body).await;
        assert!(answer.status.is_client_error(), "{body}: {answer}");
        let shown: String = body.chars().take(70).collect();
        writeln!(said, "{} {shown}\n  {}", path.rsplit('/').next().unwrap(), told(&answer)).unwrap();
    }
    assert_snapshot!(said);
    let history = world.get("/v1/credentials/push/history", "ops").await.json();
    assert_eq!(history["history"].as_array().unwrap().len(), 1, "only the mint: {history}");
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_are_refused_by_name() {
    let world = World::new();
    world.get(TOKEN, "ops").await;
    let paths = [
        "/",
        "/v1",
        "/v2/credentials",
        "/v1/credentials/",
        "/v1/credentials//token",
        "/v1/credentials/push/token/",
        "/v1/credentials/a/b/c/token",
        "/v1/credentials/a%2Fb%2Fc/token",
        "/v1/credentials/Push/token",
        "/v1/credentials/..%2Fetc/token",
        "/v1/credentials/%00/token",
        "/v1/credentials/%/token",
        "/v1/credentials/%zz/token",
        "/v1/credentials/%ff/token",
        "/v1/credentials/push%252Ftoken/token",
        "/v1/credentials/push/token?ttl=1s",
        "/v1/credentials/push/token?min_ttl=1s&min_ttl=2s",
        "/v1/credentials/push/token?min_ttl",
        "/v1/credentials/push/token?min_ttl=",
        "/v1/credentials/push/token?min_ttl=60",
        "/v1/credentials/push/token?min_ttl=-1s",
        "/v1/credentials/push/token?min_ttl=1.5s",
        "/v1/credentials/push/token?min_ttl=s",
        "/v1/credentials/push/token?min_ttl=25h",
        "/v1/credentials/push/token?min_ttl=99999999999999999999h",
        "/v1/credentials/push/token?min_ttl=1s%",
        "/v1/credentials/push/token?%ff=1",
        "/v1/credentials/push?all=1",
        "/v1/credentials/push/history?all=1",
        "/v1/credentials?limit=0",
        "/v1/credentials?limit=1001",
        "/v1/credentials?limit=ten",
        "/v1/events?since=1",
    ];
    let mut said = String::new();
    for path in paths {
        let answer = world.get(path, "ops").await;
        assert!(answer.status.is_client_error(), "{path}: {answer}");
        writeln!(said, "{path}\n  {}", told(&answer)).unwrap();
    }
    assert_snapshot!(said);
}

#[tokio::test(start_paused = true)]
async fn sizes_types_and_methods_are_refused_by_name() {
    let world = World::new();
    let mut said = String::new();
    let mut note = |what: &str, answer: &Answer| writeln!(said, "{what}\n  {}", told(answer)).unwrap();

    note("a long path", &world.get(&format!("/v1/credentials/{}/token", "a".repeat(2049)), "ops").await);
    note("a long query", &world.get(&format!("{TOKEN}?min_ttl={}", "1".repeat(2049)), "").await);
    let mut many = request("GET", TOKEN, "ops");
    for n in 0..64 {
        many = many.header(format!("x-{n}"), "1");
    }
    note("65 headers", &world.send(many.body(Body::empty()).unwrap()).await);
    let wide = request("GET", TOKEN, "ops").header("x-wide", "w".repeat(16 * 1024));
    note("a wide header", &world.send(wide.body(Body::empty()).unwrap()).await);

    for (what, kind) in [
        ("a form", "application/x-www-form-urlencoded"),
        ("plain text", "text/plain"),
        ("another charset", "application/json; charset=latin1"),
        ("nearly JSON", "application/jsonp"),
        ("no type at all", ""),
    ] {
        let mut request = request("POST", REPORT, "ops");
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        note(what, &world.send(request.body(Body::from("{}")).unwrap()).await);
    }
    let bare = request("POST", "/v1/credentials/push/renew", "ops").body(Body::from("{}")).unwrap();
    note("a body without a type", &world.send(bare).await);

    let too_large = " ".repeat(1025);
    note("a body over the limit", &world.post(REPORT, "ops", &too_large).await);
    let chunks = futures::stream::iter(0..1025).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b" ")));
    let chunked = request("POST", REPORT, "ops").header("content-type", "application/json");
    note("the same in pieces", &world.send(chunked.body(Body::from_stream(chunks)).unwrap()).await);
    let claimed = request("POST", REPORT, "ops").header("content-type", "application/json");
    let claimed = claimed.header("content-length", "18446744073709551615").body(Body::from("{}")).unwrap();
    note("a length over the limit", &world.send(claimed).await);
    let broken = futures::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
    let broken_request = request("POST", REPORT, "ops").header("content-type", "application/json");
    note("a body that breaks off", &world.send(broken_request.body(Body::from_stream(broken)).unwrap()).await);
    let endless = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let slow = request("POST", REPORT, "ops").header("content-type", "application/json");
    note("a body that never comes", &world.send(slow.body(Body::from_stream(endless)).unwrap()).await);

    for (method, path) in [
        ("POST", TOKEN),
        ("DELETE", "/v1/credentials/push"),
        ("PUT", REPORT),
        ("GET", REPORT),
        ("HEAD", "/v1/credentials/push/renew"),
        ("OPTIONS", "/v1/credentials"),
        ("POST", "/livez"),
        ("AVERYLONGMETHODNAMEINDEED", "/readyz"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let answer = world.send(request).await;
        assert_eq!(answer.status, 405);
        let allow = answer.header("allow").unwrap().to_owned();
        if method == "HEAD" {
            continue;
        }
        note(&format!("{method} {path} (allow: {allow})"), &answer);
    }
    assert_snapshot!(said);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_exactly_the_limit_is_read() {
    let world = World::new();
    world.get(TOKEN, "ops").await;
    let report = r#"{"generation":9,"upstream_status":401}"#;
    let padded = format!("{report}{}", " ".repeat(1024 - report.len()));
    assert_eq!(world.post(REPORT, "ops", &padded).await.status, 202);
    let typed = request("POST", REPORT, "ops").header("content-type", "Application/JSON; charset=\"UTF-8\"");
    assert_eq!(world.send(typed.body(Body::from(report)).unwrap()).await.status, 202);
}
