//! A gate that adds a credential: who may use it, where requests go, and what is seen at either end.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use futures::{StreamExt as _, stream};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use keyreeve::config::{Bind, InjectConfig};
use keyreeve::core::id::CredentialName;
use keyreeve::core::record::FaultClass;
use keyreeve::http::{Answer as Sent, Inject, Passage, Site};
use keyreeve::port::HttpError;

use crate::http_world::{Answer, Behaviour, MINUTE, SECOND, World, pass};

/// What an upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer(u16),
    Hang,
    BreakOff,
    Away,
    /// Answers so many pieces, so long after one another, and then no more without an end.
    Trickle(u64, u64),
}

/// An upstream that notes what reaches it.
struct Upstream {
    does: Mutex<Does>,
    seen: Mutex<Vec<String>>,
}

#[async_trait]
impl Passage for Upstream {
    async fn send(&self, request: Request<Body>) -> Result<Sent, HttpError> {
        let (head, body) = request.into_parts();
        let does = *self.does.lock().unwrap();
        if does == Does::Away {
            return Err(HttpError::NotSent("connection refused (10.1.2.3)".into()));
        }
        let body = body.collect().await.map_err(|_| HttpError::NoAnswer("the body ended".into()))?.to_bytes();
        let mut lines: Vec<String> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        let text = String::from_utf8(body.to_vec()).unwrap();
        self.seen.lock().unwrap().push(format!("{} {}\n{}\n{text}", head.method, head.uri, lines.join("\n")));
        match does {
            Does::Answer(status) => {
                let answer = http::Response::builder()
                    .status(status)
                    .header("x-request-id", "of the upstream")
                    .header("connection", "x-own")
                    .header("x-own", "1")
                    .header("content-type", "text/plain");
                Ok(answer.body(Body::from("from the upstream")).unwrap())
            }
            Does::Hang => std::future::pending().await,
            Does::Trickle(pieces, ms) => {
                let pieces = stream::iter(0..pieces).then(move |_| async move {
                    pass(ms).await;
                    Ok::<_, Infallible>("piece ")
                });
                Ok(Sent::new(Body::from_stream(pieces.chain(stream::pending()))))
            }
            _ => Err(HttpError::NoAnswer("the connection was lost".into())),
        }
    }
}

struct Gate {
    world: World,
    upstream: Arc<Upstream>,
    site: Site,
}

impl Gate {
    fn new(credential: &str) -> Self {
        let world = World::new();
        let upstream = Arc::new(Upstream { does: Mutex::new(Does::Answer(200)), seen: Mutex::new(Vec::new()) });
        let config = InjectConfig {
            bind: Bind::Tcp("127.0.0.1:0".parse().unwrap()),
            credential: CredentialName::parse(credential).unwrap(),
            upstreams: vec!["https://api.example.org".parse().unwrap(), "https://up.example.org".parse().unwrap()],
            header: "authorization".into(),
            value: "Bearer {token}".into(),
            via: None,
            timeout_ms: 5 * SECOND,
            body_bytes_max: 100,
            requests_max: 2,
        };
        let passage: Arc<dyn Passage> = Arc::clone(&upstream) as _;
        let site = Site::inject(Arc::clone(&world.api), Inject::new(config, passage));
        Self { world, upstream, site }
    }

    fn does(&self, does: Does) {
        *self.upstream.does.lock().unwrap() = does;
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.upstream.seen.lock().unwrap())
    }

    async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_empty() { Body::empty() } else { Body::from(body.to_owned()) };
        Answer::read(self.site.answer(request.body(body).unwrap()).await).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_without_a_credential_reaches_the_upstream_with_one() {
    let gate = Gate::new("push");
    let headers = [
        ("host", "127.0.0.1:7075"),
        ("authorization", "Bearer placeholder"),
        ("proxy-authorization", "Basic eA=="),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("accept", "*/*"),
    ];
    let answer = gate.ask("POST", "/repos?per_page=2", &headers, "{\"a\":1}").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "from the upstream"));
    assert_eq!(answer.header("x-request-id"), Some("of the upstream"), "the answer is the upstream's own");
    assert!(answer.header("x-own").is_none() && answer.header("cache-control").is_none(), "{answer}");
    let expected =
        "POST https://api.example.org/repos?per_page=2\naccept: */*\nauthorization: Bearer secret-token-1\n{\"a\":1}";
    assert_eq!(gate.seen(), [expected]);
    // As a proxy, and for the second upstream.
    assert_eq!(gate.ask("GET", "http://up.example.org/x", &[("host", "up.example.org")], "").await.status, 200);
    let expected = "GET https://up.example.org/x\nauthorization: Bearer secret-token-1\n";
    assert_eq!(gate.seen(), [expected]);
}

#[tokio::test(start_paused = true)]
async fn whatever_is_not_on_the_list_is_refused_and_nothing_is_sent() {
    let gate = Gate::new("push");
    for (method, uri, header, status) in [
        ("GET", "http://elsewhere.example/", ("host", "elsewhere.example"), 403),
        ("GET", "/", ("host", "elsewhere.example"), 403),
        ("GET", "http://127.0.0.1:22/", ("host", "127.0.0.1"), 403),
        ("CONNECT", "api.example.org:443", ("host", "api.example.org:443"), 405),
        ("TRACE", "/", ("host", "localhost"), 405),
        ("GET", "/", ("origin", "https://page.example"), 403),
        ("POST", "/", ("sec-fetch-site", "cross-site"), 403),
        ("GET", "/", ("x-forwarded-for", "10.0.0.1"), 403),
        ("GET", "/objects/a/%2e%2E/b", ("host", "localhost"), 400),
        ("GET", "/objects/../b", ("host", "localhost"), 400),
        ("OPTIONS", "*", ("host", "localhost"), 400),
    ] {
        let answer = gate.ask(method, uri, &[header], "").await;
        assert_eq!(answer.status, status, "{method} {uri} {header:?}: {answer}");
        answer.problem();
    }
    assert!(gate.seen().is_empty());
    assert_eq!(gate.world.upstream("push").mints.load(std::sync::atomic::Ordering::SeqCst), 0, "nor minted");
    insta::assert_snapshot!(
        "inject_elsewhere",
        gate.ask("GET", "/", &[("host", "elsewhere.example")], "").await.to_string()
    );
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_is_a_503_that_holds_no_credential() {
    let gate = Gate::new("push");
    for (does, problem) in
        [(Does::Away, "upstream-failed"), (Does::BreakOff, "upstream-failed"), (Does::Hang, "upstream-timeout")]
    {
        gate.does(does);
        let before = tokio::time::Instant::now();
        let answer = gate.ask("GET", "/", &[], "").await;
        assert!(before.elapsed().as_millis() <= 5200, "{does:?}");
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, problem), "{does:?}");
        assert!(!answer.body.contains("secret-") && !answer.body.contains("10.1.2.3"), "{answer}");
    }
    // What the upstream itself says is passed on as it is.
    for status in [301, 403, 404, 500, 503] {
        gate.does(Does::Answer(status));
        let answer = gate.ask("GET", "/", &[], "").await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::from_u16(status).unwrap(), "from the upstream"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_reported_and_renewed_once() {
    let gate = Gate::new("acme/lake");
    assert_eq!(gate.ask("GET", "/", &[], "").await.problem(), "conflict", "keys of AWS are signed with, not sent");
    let gate = Gate::new("stretched");
    assert_eq!(gate.ask("GET", "/", &[], "").await.status, 200);
    pass(MINUTE).await;
    gate.does(Does::Answer(401));
    for _ in 0..5 {
        assert_eq!(gate.ask("GET", "/", &[], "").await.status, 401, "passed on: the program decides what to do");
    }
    gate.does(Does::Answer(200));
    gate.seen();
    pass(MINUTE).await;
    assert_eq!(gate.ask("GET", "/", &[], "").await.status, 200);
    assert!(gate.seen()[0].contains("secret-token-2"));
    assert_eq!(gate.world.upstream("stretched").mints.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn bodies_and_requests_have_their_limits() {
    let gate = Gate::new("push");
    let long = "x".repeat(101);
    let answer = gate.ask("POST", "/", &[("content-length", "101")], &long).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (413, "too-large"));
    // Without a length it is found out on the way.
    assert_eq!(gate.ask("POST", "/", &[], &long).await.status, 503);
    assert_eq!(gate.ask("POST", "/", &[], &"x".repeat(100)).await.status, 200);
    gate.does(Does::Hang);
    let waiting = [gate.ask("GET", "/", &[], ""), gate.ask("GET", "/", &[], "")];
    let waiting = futures::future::join_all(waiting);
    let third = async {
        pass(SECOND).await;
        gate.ask("GET", "/", &[], "").await
    };
    let (first, third) = futures::future::join(waiting, third).await;
    assert!(first.iter().all(|answer| answer.status == 503));
    assert_eq!((third.status.as_u16(), third.problem().as_str()), (429, "rate-limited"));
    gate.does(Does::Answer(200));
    assert_eq!(gate.ask("GET", "/", &[], "").await.status, 200, "their places are free again");
}

#[tokio::test(start_paused = true)]
async fn without_a_credential_nothing_is_sent() {
    let gate = Gate::new("push");
    gate.world.upstream("push").set(Behaviour::Fail(FaultClass::Transient, None, "away"));
    let answer = gate.ask("GET", "/", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "upstream-failed"));
    assert!(gate.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_stops_half_way_is_broken_off_and_a_slow_one_is_not() {
    let gate = Gate::new("push");
    gate.does(Does::Trickle(10, 59 * SECOND));
    let begun = tokio::time::Instant::now();
    let request = Request::get("/").body(Body::empty()).unwrap();
    let mut body = gate.site.answer(request).await.into_body();
    let (mut pieces, mut broken) = (0, None);
    while broken.is_none() {
        let frame = tokio::time::timeout(Duration::from_millis(10 * MINUTE), body.frame()).await;
        match frame.expect("it is waited for without end").unwrap() {
            Ok(_) => pieces += 1,
            Err(error) => broken = Some(error.to_string()),
        }
    }
    assert_eq!(pieces, 10);
    let took = begun.elapsed().as_millis();
    assert!((650_000..651_000).contains(&took), "{took}");
    assert_eq!(broken.unwrap(), "`api.example.org` has sent nothing for 1m");
    assert!(body.frame().await.is_none());
    // Who does not take what is there is no fault of the upstream.
    let request = Request::get("/").body(Body::empty()).unwrap();
    let mut body = gate.site.answer(request).await.into_body();
    for _ in 0..10 {
        pass(10 * MINUTE).await;
        assert!(body.frame().await.unwrap().is_ok());
    }
}
