//! What a gate answers a proxy, in the words of nginx, Traefik, Caddy and Envoy; and `POST /v1/verify`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use keyreeve::config::{Config, ReadOptions, Surface};
use keyreeve::core::policy::Source;
use keyreeve::http::{Api, Live, Parts, router};
use keyreeve::inbound::{Inbound, Trusted};
use serde_json::json;
use tower::ServiceExt as _;

use crate::http_world::{Answer, MINUTE, SECOND, World, pass, request};
use crate::inbound_world::{Says, TestKey, Web, claims, jwks, parts, verifier};

const CONFIG: &str = r#"
store.url = "memory:"
[verifier.outside]
issuer = "https://issuer.example"
audience = "orders"
[gate.orders]
kind = "auth"
[gate.nginx]
kind = "auth"
proxy = "nginx"
method_header = "x-method"
uri_header = "x-uri"
identity = { x-user = "sub", x-groups = "realm.roles", X-Note = "note" }
[gate.envoy]
kind = "auth"
proxy = "envoy"
[gate.traefik]
kind = "auth"
proxy = "traefik"
[[policy]]
who = "verifier:outside[permissions has 'orders:write']"
can = ["POST /orders/*"]
on = ["gate:orders", "gate:nginx", "gate:envoy", "gate:traefik"]
[[policy]]
who = "verifier:outside"
can = "GET /orders/**"
on = ["gate:orders", "gate:nginx", "gate:envoy", "gate:traefik"]
"#;

/// A node with gates, and the issuer whose tokens it takes.
pub(crate) struct Gates {
    pub(crate) world: World,
    pub(crate) key: TestKey,
    pub(crate) web: Arc<Web>,
    router: Router,
}

impl Gates {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let key = TestKey::new("k1", 1);
        let web = Web::new(&world.node.host, Says::Body(jwks(&[&key])));
        let config = Config::read(CONFIG, "gate.toml", &BTreeMap::new(), ReadOptions::default());
        let config = config.unwrap_or_else(|problems| panic!("{problems}")).config;
        let trusted = Trusted {
            source: Source::Verifier("outside".into()),
            verifier: verifier(parts(&world.node.host, &web)),
            revoked: None,
        };
        let inbound = Inbound::new(vec![trusted], &config.gates, config.policy, [7; 32]);
        let live = world.node.live(keyreeve::config::Keep::Always, [7; 32], Some(&world.outbound));
        let live = Live { inbound, ..live };
        let host = Arc::clone(&world.node.host);
        let api = Api::new(live, Parts { host, metrics: None, has_streams: true, version: "0.0.0-test".into() });
        let router = router(api, &BTreeSet::from([Surface::Api, Surface::Gate]));
        Self { world, key, web, router }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Asks in the words of a proxy.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], token: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn nginx(&self, method: &str, uri: &str, token: &str) -> Answer {
        self.ask("GET", "/auth/orders", &[("x-original-method", method), ("x-original-uri", uri)], token).await
    }

    fn reader(&self) -> String {
        self.key.token(json!({ "permissions": ["orders:read"] }))
    }

    fn writer(&self) -> String {
        self.key.token(json!({ "permissions": ["orders:read", "orders:write"], "scope": "a b", "roles": ["x", "y,z"] }))
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_passes_with_an_identity_that_replaces_whatever_was_sent() {
    let gates = Gates::new();
    let writer = gates.writer();
    for round in 0..2 {
        let answer = gates.nginx("POST", "/orders/7?draft=1", &writer).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""), "{round}: {answer}");
        for (name, value) in [
            ("x-auth-subject", "ann"),
            ("x-auth-issuer", "https://issuer.example"),
            ("x-auth-scope", "a b"),
            ("x-auth-permissions", "orders:read,orders:write"),
            ("x-auth-roles", "x,y%2Cz"),
            // Nobody acts for her: the header is there all the same.
            ("x-auth-actor", ""),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }
    // A gate with names of its own; and the first gate's headers are not answered there.
    let headers = [("x-method", "GET"), ("x-uri", "/orders/7")];
    let token = gates.key.token(json!({ "realm": { "roles": ["ops"] }, "note": "é\r\nx-user: root" }));
    for _ in 0..2 {
        let answer = gates.ask("GET", "/auth/nginx", &headers, &token).await;
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.header("x-user"), Some("ann"));
        assert_eq!(answer.header("x-groups"), Some("ops"));
        assert_eq!(answer.header("x-note"), Some("%C3%A9%0D%0Ax-user: root"));
        assert_eq!(answer.header("x-auth-subject"), None);
        let other = gates.nginx("GET", "/orders/7", &token).await;
        assert_eq!((other.header("x-auth-subject"), other.header("x-user")), (Some("ann"), None));
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_and_a_bad_one_are_401_with_a_challenge_and_little_else() {
    let gates = Gates::new();
    let none = gates.nginx("GET", "/orders/7", "").await;
    insta::assert_snapshot!("no_token", none);
    for bad in [
        "x".to_owned(),
        "a.b.c".to_owned(),
        gates.key.token(json!({ "aud": "other" })),
        gates.key.token(json!({ "iss": "https://evil.example" })),
        TestKey::new("k1", 9).token(json!({})),
        gates.key.signed_as("k9", &claims(json!({}))),
        "y".repeat(9000),
        // Bound to a key (RFC 9449 6.1): whoever brings it alone may have stolen it.
        gates.key.token(json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } })),
        gates.key.token(json!({ "cnf": { "jkt": 7 } })),
        gates.key.token(json!({ "cnf": { "x5t#S256": "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU" } })),
    ] {
        let answer = gates.nginx("GET", "/orders/7", &bad).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"), "{answer}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer error=\"invalid_token\", error_description=\"the token is "),
            "{challenge}"
        );
        for secret in ["k1", "k9", "other", "evil", "issuer.example", "orders"] {
            assert!(!answer.body.contains(secret), "{answer}");
        }
    }
    let expired = gates.key.token(json!({ "exp": 1 }));
    insta::assert_snapshot!("expired_token", gates.nginx("GET", "/orders/7", &expired).await);
    let reader = gates.reader();
    let basic = Request::get("/auth/orders").header("x-original-method", "GET").header("x-original-uri", "/orders/7");
    let basic = basic.header("authorization", "Basic YTpi").body(Body::empty()).unwrap();
    assert_eq!(gates.send(basic).await.to_string(), none.to_string());
    let twice = Request::get("/auth/orders").header("x-original-method", "GET").header("x-original-uri", "/orders/7");
    let twice = twice.header("authorization", format!("Bearer {reader}")).header("authorization", "Bearer x");
    let twice = gates.send(twice.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (twice.status.as_u16(), twice.header("www-authenticate")),
        (401, Some("Bearer error=\"invalid_request\""))
    );
}

#[tokio::test(start_paused = true)]
async fn a_good_token_that_does_not_allow_it_is_403() {
    let gates = Gates::new();
    let reader = gates.reader();
    assert_eq!(gates.nginx("GET", "/orders/7", &reader).await.status, 200);
    assert_eq!(gates.nginx("HEAD", "/orders/7/items", &reader).await.status, 200);
    insta::assert_snapshot!("a_denial", gates.nginx("POST", "/orders/7", &reader).await);
    let text = gates.key.token(json!({ "permissions": "orders:write" }));
    for (method, uri, token) in [
        ("POST", "/orders/7", &text),
        ("post", "/orders/7", &gates.writer()),
        ("GET", "/admin", &gates.writer()),
        ("GET", "/orders/../admin", &gates.writer()),
        ("GET", "/orders/%2e%2e/admin", &gates.writer()),
        ("GET", "//orders/7", &gates.writer()),
        ("GET", "orders/7", &gates.writer()),
        ("GET", "", &gates.writer()),
        ("GET", "http://elsewhere.example/orders/7", &gates.writer()),
        ("GET", &format!("/orders/{}", "a".repeat(9000)), &gates.writer()),
    ] {
        let answer = gates.nginx(method, uri, token).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "forbidden"), "{method} {uri}: {answer}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"insufficient_scope\""));
        assert!(!answer.body.contains("rule") && !answer.body.contains("orders:"), "{answer}");
    }
    let wide = gates.key.token(json!({ "roles": vec!["r".repeat(90); 50] }));
    assert_eq!(
        gates.nginx("GET", "/orders/7", &wide).await.status,
        403,
        "a claim too long for a header is no identity"
    );
}

#[tokio::test(start_paused = true)]
async fn each_proxy_is_understood_in_its_own_words_and_in_no_others() {
    let gates = Gates::new();
    let writer = gates.writer();
    let original = [("x-original-method", "POST"), ("x-original-uri", "/orders/7")];
    let forwarded = [("x-forwarded-method", "POST"), ("x-forwarded-uri", "/orders/7")];
    let own = [("x-method", "POST"), ("x-uri", "/orders/7")];
    for (method, path, headers, status) in [
        // The gate for any proxy.
        ("GET", "/auth/orders", &original[..], 200),
        ("GET", "/auth/orders", &forwarded[..], 200),
        ("POST", "/auth/orders/orders/7", &[][..], 200),
        ("POST", "/auth/orders/orders/7?a=/../x", &[][..], 200),
        ("DELETE", "/auth/orders/orders/7", &[][..], 403),
        ("POST", "/auth/orders/", &[][..], 403),
        ("POST", "/auth/orders", &[][..], 400),
        // What a client adds for another proxy opens nothing.
        ("DELETE", "/auth/orders/admin", &original[..], 400),
        ("DELETE", "/auth/orders/admin", &forwarded[..], 400),
        ("GET", "/auth/orders", &[original[0], original[1], forwarded[0], forwarded[1]][..], 400),
        ("GET", "/auth/orders", &original[..1], 400),
        ("GET", "/auth/orders", &original[1..], 400),
        ("GET", "/auth/orders", &[original[0], original[1], original[1]][..], 400),
        // Gates for one proxy look nowhere else.
        ("GET", "/auth/nginx", &own[..], 200),
        ("GET", "/auth/nginx", &original[..], 400),
        ("GET", "/auth/nginx", &[own[0], own[1], forwarded[0], ("x-forwarded-uri", "/x")][..], 200),
        ("GET", "/auth/traefik", &forwarded[..], 200),
        ("GET", "/auth/traefik", &original[..], 400),
        ("GET", "/auth/traefik", &[forwarded[0], forwarded[1], ("x-original-uri", "/x")][..], 200),
        ("POST", "/auth/envoy/orders/7", &forwarded[..], 200),
        ("DELETE", "/auth/envoy/admin", &forwarded[..], 403),
        ("GET", "/auth/envoy", &original[..], 400),
        ("GET", "/auth/unknown", &original[..], 404),
        ("GET", "/auth/", &original[..], 404),
        ("GET", "/auth", &original[..], 404),
        ("PURGE", "/auth/orders", &original[..], 200),
    ] {
        let answer = gates.ask(method, path, headers, &writer).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} {headers:?}: {answer}");
    }
}

/// Requests as each proxy sends them; see the guide for the settings that they were recorded with.
#[tokio::test(start_paused = true)]
async fn recorded_requests_of_envoy_traefik_and_caddy_are_understood() {
    let gates = Gates::new();
    let writer = gates.writer();
    let recorded = [
        // Envoy 1.3x `ext_authz` with `http_service` and `path_prefix: /auth/envoy`: the method, path and query of the request
        // itself, `content-length: 0`, and of the headers those that are allowed besides `host`.
        "POST /auth/envoy/orders/7?draft=1 HTTP/1.1\nhost: orders.example\ncontent-length: 0\nx-envoy-internal: true\nx-forwarded-for: 10.0.0.9\nx-envoy-expected-rq-timeout-ms: 200\nauthorization: Bearer TOKEN",
        // Traefik v3 `forwardAuth` with `address: http://keyreeve:7070/auth/traefik`: GET, all headers of the client, its own
        // `X-Forwarded-*` in place of theirs.
        "GET /auth/traefik HTTP/1.1\nhost: keyreeve:7070\nuser-agent: curl/8\ncontent-type: application/json\naccept-encoding: gzip\nx-forwarded-for: 10.0.0.9\nx-forwarded-host: orders.example\nx-forwarded-method: POST\nx-forwarded-proto: https\nx-forwarded-port: 443\nx-forwarded-server: edge-1\nx-forwarded-uri: /orders/7?draft=1\nauthorization: Bearer TOKEN",
        // Caddy 2 `forward_auth keyreeve:7070 { uri /auth/orders }`: the same by another name.
        "GET /auth/orders HTTP/1.1\nhost: orders.example\nuser-agent: curl/8\ncontent-type: application/json\nx-forwarded-for: 10.0.0.9\nx-forwarded-host: orders.example\nx-forwarded-method: POST\nx-forwarded-proto: https\nx-forwarded-uri: /orders/7?draft=1\nvia: 1.1 Caddy\nauthorization: Bearer TOKEN",
    ];
    for text in recorded {
        for (token, status) in [(writer.as_str(), 200), ("nonsense", 401), (&gates.reader(), 403)] {
            let mut lines = text.lines();
            let mut first = lines.next().unwrap().split(' ');
            let mut request = Request::builder().method(first.next().unwrap()).uri(first.next().unwrap());
            for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
                request = request.header(name, value.replace("TOKEN", token));
            }
            let answer = gates.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status.as_u16(), status, "{text}: {answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_away_are_a_503_and_never_a_401() {
    let gates = Gates::new();
    gates.web.says(Says::Status(500));
    let away = gates.nginx("GET", "/orders/7", &gates.reader()).await;
    insta::assert_snapshot!("keys_away", away);
    let verify = request("POST", "/v1/verify", "ops").header("content-type", "application/json");
    let verify = verify.body(Body::from(json!({ "token": gates.reader() }).to_string())).unwrap();
    assert_eq!(gates.send(verify).await.status, 503);
    // What is no token needs no keys to be refused.
    assert_eq!(gates.nginx("GET", "/orders/7", "nonsense").await.status, 401);
    gates.web.says(Says::Body(jwks(&[&gates.key])));
    pass(2 * SECOND).await;
    assert_eq!(gates.nginx("GET", "/orders/7", &gates.reader()).await.status, 200);
    // The store has no part in it.
    gates.world.unplug_store();
    assert_eq!(gates.nginx("GET", "/orders/7", &gates.reader()).await.status, 200);
    gates.web.says(Says::Hang);
    pass(6 * MINUTE).await;
    assert_eq!(gates.nginx("GET", "/orders/7", &gates.reader()).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn verify_tells_its_callers_the_whole_reason() {
    let gates = Gates::new();
    let ask = async |body: serde_json::Value| {
        let request = request("POST", "/v1/verify", "ops").header("content-type", "application/json");
        gates.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    insta::assert_snapshot!("verified", ask(json!({ "token": gates.writer() })).await);
    let question = |token: String, method: &str| json!({ "token": token, "on": "gate:orders", "method": method, "path": "/orders/7" });
    let allowed = ask(question(gates.writer(), "POST")).await.json();
    assert_eq!(allowed["decision"], json!({ "allowed": true, "rule": 1 }));
    let denied = ask(question(gates.reader(), "POST")).await.json();
    assert_eq!(denied["decision"]["reason"], "no rule allows it: rule 1 would if `permissions` had 'orders:write'");
    for (token, code, reason) in [
        (gates.key.token(json!({ "exp": 1_795_305_500 })), "expired", "expired 1m 40s ago"),
        (gates.key.token(json!({ "aud": "x" })), "wrong_audience", "audience `x`, wanted `orders`"),
        (gates.key.signed_as("k9", &claims(json!({}))), "unknown_key", "unknown key id `k9`"),
        ("x".into(), "not_a_token", "not a signed token: 1 parts instead of 3"),
    ] {
        let answer = ask(json!({ "token": token })).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), json!({ "valid": false, "code": code, "reason": reason }));
    }
    for body in
        [json!({}), json!({ "token": 5 }), json!({ "token": "x", "on": "gate:orders" }), json!({ "tokne": "x" })]
    {
        assert_eq!(ask(body).await.status, 400);
    }
}
