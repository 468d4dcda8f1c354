//! keyreeve's own way to hand out artifacts, as a table of requests against the binary. That of Hive's CDN is in `artifacts.rs`.

use std::fs;

use http::HeaderMap;
use serde_json::json;

use crate::access::{config, create};
use crate::node::{Node, Place};

const T: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
const V: &str = "0f1b7f2e-7dec-11d0-a765-00a0c91e6bf6";
const SDL: &str = "type Query { ok: Boolean }";

/// A request: method, path, and headers besides; and its answer: status, headers with what they begin with, and what the body
/// has in it. `""` is a body without a byte.
struct Case<'a>(&'a str, &'a str, Vec<(&'a str, String)>, u16, &'a [(&'a str, &'a str)], &'a str);

fn check(case: &Case<'_>, status: u16, headers: &HeaderMap, body: &str) {
    let Case(method, path, sent, expected, named, said) = case;
    let shown = format!("{method} {path} {sent:?}: {status} {headers:?} {body}");
    assert_eq!(status, *expected, "{shown}");
    for (name, start) in *named {
        let value = headers.get(*name).map(|value| value.to_str().unwrap());
        assert!(value.is_some_and(|value| value.starts_with(start)), "{name}: {start}: {shown}");
    }
    assert!(if said.is_empty() { body.is_empty() } else { body.contains(said) }, "{said}: {shown}");
    if status == 200 && *method == "GET" && !said.is_empty() {
        assert_eq!(body, *said, "{shown}");
    }
}

/// A gate over a folder, in front of real tokens.
struct World {
    _place: Place,
    _node: Node,
    url: String,
    token: String,
    client: reqwest::Client,
    /// A token for another type.
    narrow: String,
}

impl World {
    async fn new() -> Self {
        let place = Place::new();
        let folder = place.path("objects");
        let fixed = format!("version/{V}/sdl");
        for (name, text) in
            [("sdl", SDL), ("services", "[]"), ("contracts/mobile/supergraph", "x"), (fixed.as_str(), SDL)]
        {
            let path = folder.join("artifact").join(T).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let gate = "[gate.own]\nkind = \"artifact\"\nbind = \"127.0.0.1:0\"\norigins = [\"disk\"]\ncors = [\"https://console.example.org\"]\n";
        let config = config(&place, &format!("[objects.disk]\nurl = \"file:{}\"\n{gate}", folder.display()));
        let mut node = place.node(&config, "one", &[]);
        node.wait_until_listening();
        let (token, _) = create(&node, T).await;
        let narrow = json!({ "target": T, "alias": "narrow", "scope": { "types": ["supergraph"] } });
        let narrow = node.post("/v1/tokens", narrow).await.1["token"].as_str().unwrap().to_owned();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { url: node.urls()[1].clone(), _place: place, _node: node, token, client, narrow }
    }

    async fn ask(&self, method: &str, path: &str, sent: &[(&str, String)]) -> (u16, HeaderMap, String) {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/artifacts/v1/{T}/{path}") };
        let mut request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        for (name, value) in sent {
            request = request.header(*name, value);
        }
        let got = request.send().await.unwrap();
        (got.status().as_u16(), got.headers().clone(), got.text().await.unwrap())
    }

    async fn check(&self, cases: &[Case<'_>]) {
        for case in cases {
            let (status, headers, body) = self.ask(case.0, case.1, &case.2).await;
            check(case, status, &headers, &body);
        }
    }

    /// The token, and another header.
    fn and<'a>(&self, name: &'a str, value: &str) -> Vec<(&'a str, String)> {
        vec![bearer(&self.token), (name, value.to_owned())]
    }
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_our_own_table_that_hands_out_is_answered_by_the_binary() {
    let world = World::new().await;
    let good = || vec![bearer(&world.token)];
    let etag = world.ask("GET", "sdl", &good()).await.1["etag"].to_str().unwrap().to_owned();
    let (origin, preflight) = (("origin", "https://console.example.org".to_owned()), "access-control-request-method");
    let fixed = format!("version/{V}/sdl");
    let allowed = ("access-control-allow-origin", "https://console.example.org");
    world
        .check(&[
            Case("GET", "sdl", good(), 200, &[("content-type", "text/plain"), ("etag", "\"")], SDL),
            Case(
                "GET",
                "sdl",
                vec![("x-hive-cdn-key", world.token.clone())],
                200,
                &[("cache-control", "private")],
                SDL,
            ),
            Case("GET", "services", good(), 200, &[("content-type", "application/json")], "[]"),
            Case("GET", "contracts/mobile/supergraph", good(), 200, &[], "x"),
            Case("GET", &fixed, good(), 200, &[("cache-control", "private, max-age=31536000, immutable")], SDL),
            Case("HEAD", "sdl", good(), 200, &[("content-length", "26"), ("etag", &etag)], ""),
            Case("GET", "sdl", world.and("if-none-match", &etag), 304, &[("etag", &etag)], ""),
            Case("GET", "sdl", world.and("if-none-match", "\"other\""), 200, &[], SDL),
            Case("GET", "sdl", world.and("range", "bytes=0-3"), 206, &[("content-range", "bytes 0-3/26")], "type"),
            Case("GET", "sdl", world.and("range", "bytes=-1"), 206, &[("content-range", "bytes 25-25/26")], "}"),
            Case("GET", "sdl", world.and("range", "bytes=26-"), 416, &[("content-range", "bytes */26")], ""),
            Case("GET", "sdl", [good(), vec![origin.clone()]].concat(), 200, &[allowed], SDL),
            Case(
                "OPTIONS",
                "sdl",
                vec![origin, (preflight, "GET".into())],
                200,
                &[("access-control-allow-methods", "OPTIONS, GET, HEAD"), allowed],
                "",
            ),
        ])
        .await;
    assert_eq!(world.ask("GET", "/livez", &[]).await.0, 200);
    let stranger = world.and("origin", "https://elsewhere.example.org");
    assert!(world.ask("GET", "sdl", &stranger).await.1.get(allowed.0).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_our_own_table_that_refuses_is_answered_by_the_binary() {
    let world = World::new().await;
    let good = || vec![bearer(&world.token)];
    let problem = ("content-type", "application/problem+json");
    let (plain, no_token) = ([problem], [problem, ("www-authenticate", "Bearer")]);
    let why = |error: &'static str| [problem, ("www-authenticate", error)];
    let (wrong, two, narrow) = (
        why("Bearer error=\"invalid_token\""),
        why("Bearer error=\"invalid_request\""),
        why("Bearer error=\"insufficient_scope\""),
    );
    let basic = vec![("authorization", format!("Basic {}", world.token))];
    let other = format!("/artifacts/v1/{V}/sdl");
    let mut cases = vec![
        Case("GET", "sdl", vec![], 401, &no_token, "unauthenticated"),
        Case("GET", "sdl", vec![bearer("nonsense")], 401, &wrong, "not valid"),
        Case("GET", &other, good(), 401, &wrong, "not for this target"),
        Case("GET", "sdl", [good(), good()].concat(), 401, &two, "more than one"),
        Case("GET", "sdl", world.and("x-hive-cdn-key", &world.token), 401, &two, "more than one"),
        Case("GET", "sdl", basic, 401, &plain, "this needs a token"),
        Case("GET", "sdl", vec![bearer(&world.narrow)], 403, &narrow, "forbidden"),
        Case("GET", "supergraph", good(), 404, &plain, "no such artifact"),
        Case("GET", "supergraph", vec![], 401, &plain, "unauthenticated"),
        Case("POST", "sdl", good(), 405, &[("allow", "GET, HEAD, OPTIONS")], "method"),
    ];
    for path in ["/", "sdl/", "%2e%2e/sdl", "/artifacts/v1//sdl", "sdl%00", "version%2f1/sdl"] {
        cases.push(Case("GET", path, good(), 404, &plain, "nothing at this path"));
    }
    world.check(&cases).await;
}
