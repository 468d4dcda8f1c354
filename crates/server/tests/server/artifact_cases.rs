//! keyreeve's own way to hand out artifacts, as a table of requests against the binary. That of Hive's CDN is in `artifacts.rs`.

use std::fs;

use http::HeaderMap;
use serde_json::json;

use crate::access::{config, create};
use crate::node::Place;

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

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_our_own_table_is_answered_by_the_binary() {
    let place = Place::new();
    let folder = place.path("objects");
    for (name, text) in
        [("sdl", SDL), ("services", "[]"), ("contracts/mobile/supergraph", "x"), (&format!("version/{V}/sdl"), SDL)]
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
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let good = || vec![bearer(&token)];
    let and = |name, value: &str| vec![bearer(&token), (name, value.to_owned())];
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let (url, a) = (node.urls()[1].clone(), format!("/artifacts/v1/{T}"));
    let ask = async |method: &str, path: &str, sent: &[(&str, String)]| {
        let mut request = client.request(method.parse().unwrap(), format!("{url}{path}"));
        for (name, value) in sent {
            request = request.header(*name, value);
        }
        let got = request.send().await.unwrap();
        (got.status().as_u16(), got.headers().clone(), got.text().await.unwrap())
    };
    let sdl = format!("{a}/sdl");
    let etag = ask("GET", &sdl, &good()).await.1["etag"].to_str().unwrap().to_owned();
    let problem = ("content-type", "application/problem+json");
    let origin = ("origin", "https://console.example.org".to_owned());
    let fixed = format!("{a}/version/{V}/sdl");
    let at = |rest: &str| format!("{a}{rest}");
    let (services, contract, absent, slash) =
        (at("/services"), at("/contracts/mobile/supergraph"), at("/supergraph"), at("/sdl/"));
    let (dots, double, nul, encoded) = (at("/%2e%2e/sdl"), at("//sdl"), at("/sdl%00"), at("/version%2f1/sdl"));
    let other = format!("/artifacts/v1/{V}/sdl");
    let cases = [
        Case("GET", "/livez", vec![], 200, &[], ""),
        Case("GET", &sdl, good(), 200, &[("content-type", "text/plain"), ("etag", "\"")], SDL),
        Case("GET", &sdl, vec![("x-hive-cdn-key", token.clone())], 200, &[("cache-control", "private")], SDL),
        Case("GET", &services, good(), 200, &[("content-type", "application/json")], "[]"),
        Case("GET", &contract, good(), 200, &[], "x"),
        Case("GET", &fixed, good(), 200, &[("cache-control", "private, max-age=31536000, immutable")], SDL),
        Case("HEAD", &sdl, good(), 200, &[("content-length", "26"), ("etag", &etag)], ""),
        Case("GET", &sdl, and("if-none-match", &etag), 304, &[("etag", &etag)], ""),
        Case("GET", &sdl, and("if-none-match", "\"other\""), 200, &[], SDL),
        Case("GET", &sdl, and("range", "bytes=0-3"), 206, &[("content-range", "bytes 0-3/26")], "type"),
        Case("GET", &sdl, and("range", "bytes=-1"), 206, &[("content-range", "bytes 25-25/26")], "}"),
        Case("GET", &sdl, and("range", "bytes=26-"), 416, &[("content-range", "bytes */26")], ""),
        Case("GET", &sdl, vec![], 401, &[problem, ("www-authenticate", "Bearer")], "unauthenticated"),
        Case(
            "GET",
            &sdl,
            vec![bearer("nonsense")],
            401,
            &[("www-authenticate", "Bearer error=\"invalid_token\"")],
            "not valid",
        ),
        Case("GET", &other, good(), 401, &[problem], "not for this target"),
        Case(
            "GET",
            &sdl,
            [good(), good()].concat(),
            401,
            &[("www-authenticate", "Bearer error=\"invalid_request\"")],
            "more than one",
        ),
        Case("GET", &sdl, vec![("authorization", format!("Basic {token}"))], 401, &[problem], "this needs a token"),
        Case(
            "GET",
            &sdl,
            vec![bearer(&narrow)],
            403,
            &[("www-authenticate", "Bearer error=\"insufficient_scope\"")],
            "forbidden",
        ),
        Case("GET", &absent, good(), 404, &[problem], "no such artifact"),
        Case("GET", &absent, vec![], 401, &[problem], "unauthenticated"),
        Case("GET", "/", good(), 404, &[problem], "nothing at this path"),
        Case("GET", &slash, good(), 404, &[problem], "nothing at this path"),
        Case("GET", &dots, good(), 404, &[problem], "nothing at this path"),
        Case("GET", &double, good(), 404, &[problem], "nothing at this path"),
        Case("GET", &nul, good(), 404, &[problem], "nothing at this path"),
        Case("GET", &encoded, good(), 404, &[problem], "nothing at this path"),
        Case("POST", &sdl, good(), 405, &[("allow", "GET, HEAD, OPTIONS")], "method"),
        Case(
            "OPTIONS",
            &sdl,
            vec![origin.clone(), ("access-control-request-method", "GET".into())],
            200,
            &[
                ("access-control-allow-methods", "OPTIONS, GET, HEAD"),
                ("access-control-allow-origin", "https://console"),
            ],
            "",
        ),
        Case(
            "GET",
            &sdl,
            [good(), vec![origin]].concat(),
            200,
            &[("access-control-allow-origin", "https://console")],
            SDL,
        ),
    ];
    for case in &cases {
        let (status, headers, body) = ask(case.0, case.1, &case.2).await;
        if case.1 == "/livez" {
            assert_eq!(status, 200);
            continue;
        }
        check(case, status, &headers, &body);
    }
    let stranger = vec![bearer(&token), ("origin", "https://elsewhere.example.org".to_owned())];
    assert!(ask("GET", &sdl, &stranger).await.1.get("access-control-allow-origin").is_none());
}
