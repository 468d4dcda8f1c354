//! Who may do what: every route against everybody. A route without an expectation fails.

use std::collections::BTreeMap;

use axum::body::Body;
use http::Request;
use keyreeve::config::Surface;
use keyreeve::http::{Access, ROUTES, Route, openapi};

use crate::http_world::{Answer, World, request};
use crate::issuer_world::{self, ISSUER};

/// What a route answers to whom.
struct Expected {
    /// A body that would do.
    body: &'static str,
    no_key: u16,
    wrong_key: u16,
    /// A known key that may do nothing.
    no_action: u16,
    /// A key that may do everything, but not with this credential.
    other_credential: u16,
    /// A key that may.
    allowed: u16,
}

const REPORT: &str = r#"{"generation":1,"upstream_status":403}"#;
const VERIFY: &str = r#"{"token":"x"}"#;
const RETIRE: &str = r#"{"kid":"k9-000000000000"}"#;
const REVOKE: &str = r#"{"jti":"x"}"#;
const TOKEN: &str = r#"{"target":"t","alias":"a"}"#;
const MODE: &str = r#"{"mode":"shadow"}"#;
const DROP: &str = r#"{"target":"t"}"#;
const CHECK: &str = r#"{"target":"t","token":"x"}"#;
const DECISION: &str = r#"{"decision":"adopt"}"#;

fn expectations() -> BTreeMap<(&'static str, &'static str), Expected> {
    let refused = |body, other_credential, allowed| Expected {
        body,
        no_key: 401,
        wrong_key: 401,
        no_action: 403,
        other_credential,
        allowed,
    };
    let open =
        || Expected { body: "", no_key: 200, wrong_key: 200, no_action: 200, other_credential: 200, allowed: 200 };
    // An API key is no token: it opens nothing here, whoever has it.
    let gate =
        || Expected { body: "", no_key: 401, wrong_key: 401, no_action: 401, other_credential: 401, allowed: 401 };
    // Nor is it the secret of a client; who may do what as a client is in `http_oauth2`.
    let client = || Expected {
        body: "grant_type=client_credentials&token=x",
        no_key: 401,
        wrong_key: 401,
        no_action: 401,
        other_credential: 401,
        allowed: 401,
    };
    BTreeMap::from([
        (("GET", "/v1/credentials"), refused("", 200, 200)),
        (("GET", "/v1/credentials/{name}"), refused("", 404, 200)),
        (("GET", "/v1/credentials/{name}/token"), refused("", 404, 200)),
        // `push` is no AWS credential; what is one is in `http_hand_out`.
        (("GET", "/v1/credentials/{name}/aws"), refused("", 404, 409)),
        (("GET", "/v1/credentials/{name}/history"), refused("", 404, 200)),
        (("POST", "/v1/credentials/{name}/report"), refused(REPORT, 404, 202)),
        (("POST", "/v1/credentials/{name}/renew"), refused("{}", 404, 409)),
        (("POST", "/v1/credentials/{name}/resolve"), refused(DECISION, 404, 409)),
        (("GET", "/v1/events"), refused("", 200, 200)),
        (("GET", "/metrics"), refused("", 200, 200)),
        (("POST", "/v1/verify"), refused(VERIFY, 200, 200)),
        (("GET", "/auth/{gate}"), gate()),
        (("GET", "/v1/issuers"), refused("", 200, 200)),
        (("GET", "/v1/issuers/{name}"), refused("", 404, 200)),
        (("POST", "/v1/issuers/{name}/rotate"), refused("{}", 404, 202)),
        (("POST", "/v1/issuers/{name}/retire"), refused(RETIRE, 404, 404)),
        // Nothing follows revocations in this world.
        (("POST", "/v1/revocations"), refused(REVOKE, 404, 404)),
        (("GET", "/v1/revocations/{id}"), refused("", 404, 404)),
        // There is no token `push`; whose tokens are whose is in `http_tokens`.
        (("POST", "/v1/tokens"), refused(TOKEN, 404, 201)),
        (("GET", "/v1/tokens"), refused("", 400, 400)),
        (("POST", "/v1/tokens/drop-target"), refused(DROP, 404, 200)),
        (("POST", "/v1/tokens/{name}/roll"), refused("{}", 404, 404)),
        (("POST", "/v1/tokens/{name}/duplicate"), refused("{}", 404, 404)),
        (("POST", "/v1/tokens/verify"), refused(CHECK, 404, 200)),
        // Nobody else judges the tokens of this world.
        (("GET", "/v1/tokens/mode"), refused("", 404, 422)),
        (("POST", "/v1/tokens/mode"), refused(MODE, 404, 422)),
        (("GET", "/v1/tokens/{name}"), refused("", 404, 404)),
        (("POST", "/v1/tokens/{name}/revoke"), refused("{}", 404, 404)),
        // Nothing has been published yet; whose artifacts are whose is in `http_artifacts`.
        (("GET", "/v1/artifacts/{artifact}"), refused("", 404, 404)),
        (("PUT", "/v1/artifacts/{artifact}"), refused("x", 404, 201)),
        (("GET", "/.well-known/jwks.json"), open()),
        (("GET", "/.well-known/openid-configuration"), open()),
        (("GET", "/.well-known/oauth-authorization-server"), open()),
        (("GET", "/issuer/{name}/.well-known/jwks.json"), open()),
        (("GET", "/issuer/{name}/.well-known/openid-configuration"), open()),
        (("GET", "/.well-known/oauth-authorization-server/issuer/{name}"), open()),
        (("POST", "/oauth2/token"), client()),
        (("POST", "/oauth2/introspect"), client()),
        (("POST", "/oauth2/revoke"), client()),
        (("POST", "/issuer/{name}/oauth2/token"), client()),
        (("POST", "/issuer/{name}/oauth2/introspect"), client()),
        (("POST", "/issuer/{name}/oauth2/revoke"), client()),
        (("GET", "/livez"), open()),
        (("GET", "/readyz"), open()),
    ])
}

async fn ask(world: &World, method: &str, path: &str, who: &str, body: &'static str) -> Answer {
    let kind = if path.contains("/oauth2/") { "application/x-www-form-urlencoded" } else { "application/json" };
    let mut request = request(method, path, who).header("content-type", kind);
    if path.starts_with("/auth/") {
        request = request.header("x-original-method", "GET").header("x-original-uri", "/");
    }
    let request = request.body(Body::from(body)).unwrap();
    if path == "/v1/events" { world.head_of(request).await } else { world.send(request).await }
}

#[tokio::test(start_paused = true)]
async fn every_route_refuses_whoever_may_not_use_it() {
    let expectations = expectations();
    // What is for whoever can connect has listeners of its own, and so have artifacts: `http_hand_out`, `http_inject` and
    // `http_artifacts` have their expectations.
    let is_here = |route: &&Route| route.access != Access::Local && route.surface != Some(Surface::Artifact);
    for route in ROUTES.iter().filter(is_here) {
        let (method, path) = (route.method.as_str(), route.path);
        let expected = expectations.get(&(method, path));
        let expected = expected.unwrap_or_else(|| panic!("no expectation for {method} {path}: say who may use it"));
        let path = path.replace("{name}", "push").replace("{gate}", "orders");
        let path = path.replace("{artifact}", "cdn/acme/sdl");
        let world = issuer_world::world(&format!("{ISSUER}{}", issuer_world::clients()));
        assert_eq!(world.get("/v1/credentials/push/token", "ops").await.status, 200);
        for (who, status) in [
            ("", expected.no_key),
            ("nobody", expected.wrong_key),
            ("idle", expected.no_action),
            ("elsewhere", expected.other_credential),
            ("ops", expected.allowed),
        ] {
            let answer = ask(&world, method, &path, who, expected.body).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {path} as `{who}`: {answer}");
            assert!(!answer.body.contains("secret-") || (who == "ops" && path.ends_with("/token")), "{answer}");
        }
    }
    let rows = ROUTES.iter().filter(is_here).count();
    assert_eq!(expectations.len(), rows, "an expectation has no route");
}

#[test]
fn the_document_lists_the_same_routes_with_the_same_rights() {
    let document = openapi("x");
    let mut documented = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if method != "parameters" {
                documented.insert((method.to_uppercase(), path.clone()), operation.clone());
            }
        }
    }
    for route in ROUTES {
        let operation = documented.remove(&(route.method.to_string(), route.path.to_owned()));
        let operation = operation.unwrap_or_else(|| panic!("{} {} is not documented", route.method, route.path));
        let is_secured = operation["security"] != serde_json::json!([]);
        let wanted = match route.access {
            Access::Callers(_) => serde_json::json!([{ "key": [] }]),
            Access::Tokens => serde_json::json!([{ "token": [] }]),
            Access::Clients => serde_json::json!([{ "client_secret": [] }, {}]),
            Access::Anybody | Access::AnybodyForAWord | Access::Local => serde_json::json!([]),
        };
        assert_eq!(operation["security"], wanted, "{}", route.path);
        assert_eq!(operation["responses"]["401"].is_object(), is_secured, "{}", route.path);
    }
    assert!(documented.is_empty(), "documented, but not there: {documented:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_say_whether_the_key_or_the_name_exists() {
    let world = World::new();
    let path = "/v1/credentials/push/token";
    // No key, wrong keys, keys that are no keys: one answer, with the id as its only difference.
    let nothing = world.get(path, "").await;
    for value in [
        "Bearer wrong",
        "Bearer ",
        "Bearer",
        "Basic a2V5LW9wcw==",
        "key-ops",
        "Bearer key-ops extra",
        "bearer\tkey-ops",
    ] {
        let request = Request::get(path).header("authorization", value).body(Body::empty()).unwrap();
        assert_eq!(world.send(request).await.to_string(), nothing.to_string(), "{value}");
    }
    let long = format!("Bearer {}", "k".repeat(8000));
    let request = Request::get(path).header("authorization", long).body(Body::empty()).unwrap();
    assert_eq!(world.send(request).await.to_string(), nothing.to_string());
    let twice = request_twice(path);
    assert_eq!(world.send(twice).await.to_string(), nothing.to_string());
    assert_eq!(nothing.header("www-authenticate"), Some("Bearer"));
    // A stranger does not learn which names or routes with names there are.
    assert_eq!(world.get("/v1/credentials/unheard-of/token", "").await.to_string(), nothing.to_string());
    // Unknown and out of reach are one answer, but for the name that was asked for.
    let unknown = world.get("/v1/credentials/else/token", "elsewhere").await.to_string();
    let hidden = world.get(path, "elsewhere").await.to_string();
    assert_eq!(unknown.replace("`else`", "`push`"), hidden);
    // Who may do nothing learns nothing about names either.
    let known = world.get(path, "idle").await.to_string();
    assert_eq!(world.get("/v1/credentials/unheard-of/token", "idle").await.to_string(), known);
}

fn request_twice(path: &str) -> Request<Body> {
    let request =
        Request::get(path).header("authorization", "Bearer key-ops").header("authorization", "Bearer key-ops");
    request.body(Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_scheme_is_read_in_any_case_and_patterns_reach_their_prefix_only() {
    let world = World::new();
    for value in ["Bearer key-worker", "bearer key-worker", "BEARER  key-worker"] {
        let request = Request::get("/v1/credentials/push/token").header("authorization", value);
        assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.status, 200, "{value}");
    }
    // `pus` is no pattern, `push` does not reach `push-handover`, `acme/*` reaches the tenant.
    assert_eq!(world.get("/v1/credentials/push/token", "elsewhere").await.status, 404);
    assert_eq!(world.get("/v1/credentials/push-handover/token", "worker").await.status, 404);
    assert_eq!(world.get("/v1/credentials/acme/lake/token", "worker").await.status, 200);
}
