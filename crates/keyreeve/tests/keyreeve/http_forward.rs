//! A node that follows answers tokens itself, and sends the rest on to the node that renews.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use keyreeve::config::{Keep, Surface};
use keyreeve::core::id::CredentialName;
use keyreeve::http::{Answer as Sent, Api, Forward, Live, Parts, router};
use keyreeve::outbound::{Drive, Outbound};
use tower::ServiceExt as _;

use crate::http_world::{Answer, LIMITS, World, callers, request};

/// The way to the node that renews.
struct Way {
    to: Router,
    sent: Mutex<Vec<String>>,
    is_broken: AtomicBool,
    hangs: AtomicBool,
    count: AtomicUsize,
}

#[async_trait]
impl Forward for Way {
    async fn forward(&self, name: &CredentialName, request: Request<Bytes>) -> Result<Sent, String> {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.sent.lock().unwrap().push(format!("{name}: {} {}", request.method(), request.uri()));
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_broken.load(Ordering::SeqCst) {
            return Err("secret-address: connection reset".into());
        }
        Ok(self.to.clone().oneshot(request.map(Body::from)).await.unwrap())
    }
}

struct Pair {
    origin: World,
    front: World,
    way: Arc<Way>,
}

impl Pair {
    fn new() -> Self {
        let (origin, mut front) = (World::new(), World::new());
        let way = Arc::new(Way {
            to: origin.router.clone(),
            sent: Mutex::default(),
            is_broken: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            count: AtomicUsize::new(0),
        });
        let live = front.node.live(Keep::OnDemand { lifetimes: 3 }, [7; 32], None);
        let credentials = front.node.credentials(Keep::OnDemand { lifetimes: 3 });
        let parts = front.node.parts([7; 32]);
        let drive = Drive::Follow(Arc::new(origin.outbound.clone()));
        let outbound = Outbound::start(keyreeve::outbound::Parts { register: None, drive, ..parts }, credentials, None);
        let live = Live { outbound: outbound.clone(), forward: Some(Arc::clone(&way) as _), ..live };
        let host = Arc::clone(&front.node.host);
        let api = Api::new(live, Parts { host, metrics: None, has_streams: false, version: "0.0.0-test".into() });
        front.router = router(Arc::clone(&api), &BTreeSet::from([Surface::Api]));
        (front.outbound, front.api) = (outbound, api);
        assert_eq!(callers().len(), 5);
        Self { origin, front, way }
    }

    fn forwarded(&self) -> usize {
        self.way.count.load(Ordering::SeqCst)
    }
}

/// Without what differs between two requests.
fn told(answer: &Answer) -> String {
    answer.to_string()
}

#[tokio::test(start_paused = true)]
async fn tokens_are_answered_here_and_the_rest_as_by_the_node_that_renews() {
    let pair = Pair::new();
    let token = pair.front.get("/v1/credentials/push/token", "worker").await;
    assert_eq!(told(&token), told(&pair.origin.get("/v1/credentials/push/token", "worker").await));
    assert_eq!((token.status.as_u16(), pair.forwarded()), (200, 0));
    for path in ["/v1/credentials/push", "/v1/credentials/push/history", "/v1/credentials/acme/lake/history"] {
        let here = pair.front.get(path, "ops").await;
        assert_eq!(told(&here), told(&pair.origin.get(path, "ops").await), "{path}");
    }
    let report = r#"{"generation":1,"upstream_status":403}"#;
    let reported = pair.front.post("/v1/credentials/push/report", "worker", report).await;
    assert_eq!((reported.status.as_u16(), reported.json()["result"].as_str()), (202, Some("floor-wait")));
    let renewed = pair.front.post("/v1/credentials/push/renew", "ops", "{}").await;
    assert_eq!(renewed.problem(), "renewal-too-soon");
    let resolved = pair.front.post("/v1/credentials/push/resolve", "ops", r#"{"decision":"adopt"}"#).await;
    assert_eq!(resolved.problem(), "conflict");
    assert_eq!(pair.forwarded(), 6);
    assert_eq!(pair.way.sent.lock().unwrap()[3], "push: POST /v1/credentials/push/report");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_here_is_not_sent_on() {
    let pair = Pair::new();
    for (method, path, who, status) in [
        ("GET", "/v1/credentials/push/history", "", 401),
        ("GET", "/v1/credentials/push/history", "worker", 403),
        ("GET", "/v1/credentials/push/history", "elsewhere", 404),
        ("GET", "/v1/credentials/nothing", "ops", 404),
        ("POST", "/v1/credentials/push/renew", "worker", 403),
        ("POST", "/v1/credentials/push/resolve", "nobody", 401),
        ("DELETE", "/v1/credentials/push", "ops", 405),
    ] {
        let answer = pair.front.send(request(method, path, who).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} by `{who}`: {answer}");
    }
    let large = "x".repeat(LIMITS.body_bytes_max + 1);
    assert_eq!(pair.front.post("/v1/credentials/push/report", "worker", &large).await.problem(), "too-large");
    assert_eq!(pair.forwarded(), 0);
    // A credential in slot mode is nobody's but one's own.
    assert_eq!(pair.front.get("/v1/credentials/slotted", "ops").await.status.as_u16(), 200);
    assert_eq!(pair.front.get("/v1/credentials/slotted/token", "ops").await.status.as_u16(), 200);
    assert_eq!(pair.forwarded(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_way_that_is_broken_or_hangs_is_a_503_in_time_that_gives_nothing_away() {
    let pair = Pair::new();
    pair.way.is_broken.store(true, Ordering::SeqCst);
    let broken = pair.front.get("/v1/credentials/push", "ops").await;
    assert_eq!((broken.problem().as_str(), broken.body.contains("secret-address")), ("store-unavailable", false));
    pair.way.is_broken.store(false, Ordering::SeqCst);
    pair.way.hangs.store(true, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    let hung = pair.front.get("/v1/credentials/push", "ops").await;
    assert_eq!(hung.problem(), "store-unavailable");
    assert_eq!(begun.elapsed().as_millis() as u64, LIMITS.request_ms_max);
}

#[tokio::test(start_paused = true)]
async fn a_list_tells_where_credentials_stand_at_the_nodes_that_renew_them() {
    let pair = Pair::new();
    pair.origin.get("/v1/credentials/push/token", "worker").await;
    pair.origin.get("/v1/credentials/slotted/token", "ops").await;
    pair.front.get("/v1/credentials/slotted/token", "ops").await;
    for (path, who, asked) in [
        ("/v1/credentials", "ops", 5),
        ("/v1/credentials", "worker", 2),
        ("/v1/credentials?limit=1", "worker", 1),
        ("/v1/credentials?limit=2&after=push", "ops", 2),
        ("/v1/credentials", "elsewhere", 0),
    ] {
        let before = pair.forwarded();
        let here = pair.front.get(path, who).await.json();
        // The one in slot mode is nobody's but one's own.
        let others = |list: serde_json::Value| {
            let rows = list["credentials"].as_array().unwrap().iter().filter(|one| one["name"] != "slotted");
            (rows.cloned().collect::<Vec<_>>(), list["next_after"].clone())
        };
        assert_eq!(others(here), others(pair.origin.get(path, who).await.json()), "{path} by `{who}`");
        assert_eq!(pair.forwarded() - before, asked, "{path} by `{who}`");
    }
    assert_eq!(pair.way.sent.lock().unwrap()[0], "acme/lake: GET /v1/credentials/acme%2Flake");
}

#[tokio::test(start_paused = true)]
async fn a_list_says_whose_node_was_not_heard_and_comes_in_time_all_the_same() {
    let pair = Pair::new();
    pair.front.get("/v1/credentials/push/token", "worker").await;
    pair.way.is_broken.store(true, Ordering::SeqCst);
    let broken = pair.front.get("/v1/credentials", "worker").await;
    assert!(!broken.body.contains("secret-address"), "{broken}");
    pair.way.is_broken.store(false, Ordering::SeqCst);
    pair.way.hangs.store(true, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    let hung = pair.front.get("/v1/credentials", "ops").await;
    assert_eq!(begun.elapsed().as_secs(), 5, "sooner than whoever reads it gives up");
    for (answer, name) in [(&broken, "push"), (&hung, "push"), (&hung, "refresh")] {
        let list = answer.json();
        let one = list["credentials"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        assert_eq!(
            (&one["status"], &one["error"]["kind"]),
            (&serde_json::Value::Null, &"upstream-timeout".into()),
            "{one}"
        );
        // What this node serves is known here.
        assert_eq!(one["generation"].as_u64(), (name == "push").then_some(1));
    }
    assert_eq!(hung.json()["credentials"].as_array().unwrap().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_home_without_streams_says_where_to_look_instead() {
    let pair = Pair::new();
    assert_eq!(pair.front.get("/v1/events", "").await.status.as_u16(), 401);
    assert_eq!(pair.front.get("/v1/events", "worker").await.status.as_u16(), 403);
    let answer = pair.front.get("/v1/events", "ops").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (501, "not-implemented"));
    assert!(answer.json()["hint"].as_str().unwrap().contains("/history"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_report_makes_the_node_that_was_told_look_for_the_next_one() {
    let pair = Pair::new();
    let path = "/v1/credentials/acme/lake/token";
    assert_eq!(pair.front.get(path, "worker").await.json()["generation"], 1);
    crate::http_world::pass(60_000).await;
    let report = r#"{"generation":1,"upstream_status":401}"#;
    let reported = pair.front.post("/v1/credentials/acme/lake/report", "worker", report).await;
    assert_eq!(reported.json()["result"], "renewing");
    crate::http_world::pass(8000).await;
    // By way of the node that renews, with nothing else asking.
    pair.front.outbound.look_beyond("acme/lake", 1);
    crate::http_world::pass(1000).await;
    assert_eq!(pair.front.get(path, "worker").await.json()["generation"], 2);
}
