//! Credentials in the forms that clients of clouds ask for: who gets them, what they look like, and what is said instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use keyreeve::config::MetadataKind;
use keyreeve::core::id::CredentialName;
use keyreeve::core::record::FaultClass;
use keyreeve::http::{Access, ROUTES, Site};

use crate::http_world::{Answer, Behaviour, HOUR, MINUTE, SECOND, World, pass, request};

const LAKE: &str = "/v1/credentials/acme/lake/aws";
const SESSION: &str = "/latest/api/token";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
const ACCOUNT: &str = "/computeMetadata/v1/instance/service-accounts/default";
const AZURE: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
const AZURE_APP: &str = "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net%2F";

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

fn aws(credential: &str) -> MetadataKind {
    MetadataKind::Aws { credential: name(credential), role: "lake".into() }
}

fn gce(credential: &str) -> MetadataKind {
    MetadataKind::Gce {
        credential: name(credential),
        project: Some("acme-prod".into()),
        email: "batch@acme-prod.iam.gserviceaccount.com".into(),
        scopes: vec!["https://www.googleapis.com/auth/cloud-platform".into()],
        audiences: BTreeMap::from([("https://orders.example".to_owned(), name("refresh"))]),
    }
}

fn azure(credential: &str) -> MetadataKind {
    MetadataKind::Azure { resources: BTreeMap::from([("https://vault.azure.net".to_owned(), name(credential))]) }
}

/// A node, and the listener of a metadata service on it.
fn service(kind: MetadataKind) -> (World, Site) {
    let world = World::new();
    let site = Site::metadata(Arc::clone(&world.api), kind);
    (world, site)
}

async fn ask(site: &Site, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(site.answer(request.body(Body::empty()).unwrap()).await).await
}

async fn session(site: &Site, ttl: &str) -> String {
    let answer = ask(site, "PUT", SESSION, &[("x-aws-ec2-metadata-token-ttl-seconds", ttl)]).await;
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(answer.header("x-aws-ec2-metadata-token-ttl-seconds"), Some(ttl));
    answer.body
}

// --- AWS container credentials ----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn aws_clients_get_keys_with_the_key_as_it_is_or_behind_its_scheme() {
    let world = World::new();
    for value in ["key-worker", "Bearer key-worker", "bearer key-worker"] {
        let request = Request::get(LAKE).header("authorization", value).header("host", "127.0.0.1:7070");
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200, "{value}: {answer}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let expected = serde_json::json!({
            "AccessKeyId": "secret-AccessKeyId-1",
            "SecretAccessKey": "secret-SecretAccessKey-1",
            "Token": "secret-SessionToken-1",
            "Expiration": "2026-11-22T01:00:00.2Z",
        });
        assert_eq!(answer.json(), expected);
    }
    // Elsewhere a key without its scheme is none.
    let bare = Request::get("/v1/credentials/push/token").header("authorization", "key-worker");
    assert_eq!(world.send(bare.body(Body::empty()).unwrap()).await.status, 401);
    for value in ["", "key-nobody", "Bearer", "key-worker key-worker", "Basic key-worker"] {
        let request = Request::get(LAKE).header("authorization", value);
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"), "{value}");
        assert_eq!(answer.json()["Code"], "unauthenticated");
        assert!(answer.json()["Message"].as_str().unwrap().starts_with("this needs an API key"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_aws_client_shows_its_user_when_there_are_no_keys() {
    let world = World::new();
    world.upstream("acme/lake").set(Behaviour::Fail(FaultClass::Transient, None, "the vendor is on holiday"));
    insta::assert_snapshot!("aws_without_keys", world.get(LAKE, "worker").await.to_string());
    insta::assert_snapshot!("aws_of_a_token", world.get("/v1/credentials/push/aws", "worker").await.to_string());
    insta::assert_snapshot!("aws_with_a_query", world.get(&format!("{LAKE}?min_ttl=5s"), "worker").await.to_string());
}

#[tokio::test(start_paused = true)]
async fn an_aws_client_hears_within_two_seconds_whatever_happens() {
    let world = World::new();
    world.upstream("acme/lake").set(Behaviour::Hang);
    let before = tokio::time::Instant::now();
    let answer = world.get(LAKE, "worker").await;
    assert_eq!(before.elapsed().as_millis(), 1800);
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "upstream-timeout"));
    // Not kept: as soon as the upstream answers, so do we.
    world.upstream("acme/lake").set(Behaviour::Mint);
    pass(MINUTE).await;
    assert_eq!(world.get(LAKE, "worker").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn keys_with_little_life_left_are_handed_out_at_once_with_their_real_end() {
    let world = World::new();
    assert_eq!(world.get(LAKE, "worker").await.status, 200);
    world.upstream("acme/lake").set(Behaviour::Fail(FaultClass::Transient, None, "away"));
    pass(HOUR - 5 * MINUTE).await;
    let before = tokio::time::Instant::now();
    let answer = world.get(LAKE, "worker").await;
    assert_eq!(before.elapsed().as_millis(), 0, "nobody waits while a valid one exists");
    assert_eq!(answer.json()["Expiration"], "2026-11-22T01:00:00.2Z");
    // An end that has passed makes boto3 fail, so it is never told.
    pass(6 * MINUTE).await;
    assert_eq!(world.get(LAKE, "worker").await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn container_credentials_are_for_programs_on_this_machine() {
    let world = World::new();
    for (header, value) in [
        ("host", "rebound.example"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("origin", "https://page.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let request = request("GET", LAKE, "worker").header(header, value);
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "forbidden"), "{header}");
        assert_eq!(answer.json()["Code"], "forbidden");
    }
    assert_eq!(world.upstream("acme/lake").mints.load(std::sync::atomic::Ordering::SeqCst), 0);
}

// --- Metadata services ------------------------------------------------------------------------------------------

/// Every route of every metadata service, against whoever does not ask as the cloud's own clients do.
#[tokio::test(start_paused = true)]
async fn every_metadata_route_refuses_who_does_not_ask_as_its_clients_do() {
    let mut tried = 0;
    for kind in [aws("acme/lake"), gce("push"), azure("push")] {
        let (_world, site) = service(kind.clone());
        let token = match kind {
            MetadataKind::Aws { .. } => session(&site, "60").await,
            _ => String::new(),
        };
        let start = match kind {
            MetadataKind::Aws { .. } => "/latest/",
            MetadataKind::Gce { .. } => "/computeMetadata/",
            MetadataKind::Azure { .. } => "/m",
        };
        let is_its = |path: &str| path.starts_with(start) || (path == "/" && matches!(kind, MetadataKind::Gce { .. }));
        for route in ROUTES.iter().filter(|route| route.access == Access::Local && is_its(route.path)) {
            tried += 1;
            let path = match route.path {
                "/metadata/identity/oauth2/token" => AZURE.to_owned(),
                "/msi/token" => AZURE_APP.to_owned(),
                path if path.ends_with("identity") => {
                    format!("{}?audience=https%3A%2F%2Forders.example", path.replace("{name}", "default"))
                }
                path if path.starts_with("/latest") => path.replace("{name}", "lake"),
                path => path.replace("{name}", "default"),
            };
            let right: &[(&str, &str)] = match route.path {
                "/latest/api/token" => &[("x-aws-ec2-metadata-token-ttl-seconds", "60")],
                "/metadata/identity/oauth2/token" => &[("metadata", "true")],
                "/msi/token" => &[("x-identity-header", "key-worker")],
                path if path.starts_with("/latest") => &[("x-aws-ec2-metadata-token", &token)],
                _ => &[("metadata-flavor", "Google")],
            };
            let method = route.method.as_str();
            let answer = ask(&site, method, &path, right).await;
            assert_eq!(answer.status, 200, "{method} {path}: {answer}");
            let without = ask(&site, method, &path, &[]).await;
            let wanted: &[u16] = if route.path == "/latest/api/token" { &[400] } else { &[401, 403] };
            assert!(wanted.contains(&without.status.as_u16()), "{method} {path}: {without}");
            assert!(!without.body.contains("secret-"), "{without}");
            for wrong in [("host", "rebound.example"), ("x-forwarded-for", "10.0.0.1"), ("origin", "http://a.example")]
            {
                let answer = ask(&site, method, &path, &[right, &[wrong]].concat()).await;
                assert_eq!(answer.status, 403, "{method} {path} with {wrong:?}: {answer}");
                assert!(!answer.body.contains("secret-"), "{answer}");
            }
        }
        // Nothing else is there, with whatever key.
        for path in ["/v1/credentials/push/token", "/metrics", "/auth/orders"] {
            assert_eq!(ask(&site, "GET", path, &[("authorization", "Bearer key-ops")]).await.status, 404, "{path}");
        }
    }
    let all = ROUTES.iter().filter(|route| route.access == Access::Local && route.path != "/{upstream}").count();
    assert_eq!(tried, all);
}

#[tokio::test(start_paused = true)]
async fn imds_hands_out_keys_for_a_session_and_as_long_as_it_lasts() {
    let (_world, site) = service(aws("acme/lake"));
    let token = session(&site, "60").await;
    let with = |token: &str| [("x-aws-ec2-metadata-token".to_owned(), token.to_owned())];
    let get = async |path: &str, token: &str| {
        let headers = with(token);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        ask(&site, "GET", path, &headers).await
    };
    assert_eq!(get(ROLES, &token).await.body, "lake");
    let keys = get(&format!("{ROLES}lake"), &token).await.json();
    let expected = serde_json::json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-11-22T00:00:00Z",
        "AccessKeyId": "secret-AccessKeyId-1", "SecretAccessKey": "secret-SecretAccessKey-1",
        "Token": "secret-SessionToken-1", "Expiration": "2026-11-22T01:00:00.2Z",
    });
    assert_eq!(keys, expected);
    assert_eq!(get(&format!("{ROLES}admin"), &token).await.status, 404);
    // A token that was changed, cut, or over.
    let mut changed = token.clone().into_bytes();
    changed[3] ^= 1;
    for wrong in
        [String::from_utf8(changed).unwrap(), String::new(), "x".repeat(5000), token.chars().take(20).collect()]
    {
        assert_eq!(get(ROLES, &wrong).await.status, 401);
    }
    pass(60 * SECOND).await;
    let over = get(ROLES, &token).await;
    assert_eq!((over.status.as_u16(), over.json()["Code"].as_str()), (401, Some("unauthenticated")));
    for ttl in ["0", "21601", "-1", "", "soon", "60 "] {
        let answer = ask(&site, "PUT", SESSION, &[("x-aws-ec2-metadata-token-ttl-seconds", ttl)]).await;
        assert_eq!(answer.status, 400, "{ttl}");
    }
}

#[tokio::test(start_paused = true)]
async fn google_clients_find_project_account_and_tokens() {
    let (_world, site) = service(gce("push"));
    let get = async |path: &str| {
        let answer = ask(&site, "GET", path, &[("metadata-flavor", "Google")]).await;
        if answer.status == 200 {
            assert_eq!(answer.header("metadata-flavor"), Some("Google"), "{path}: {answer}");
        }
        answer
    };
    assert_eq!(get("/computeMetadata/v1/project/project-id").await.body, "acme-prod");
    assert_eq!(get("/computeMetadata/v1/universe/universe-domain").await.body, "googleapis.com");
    let account = get(&format!("{ACCOUNT}/?recursive=true")).await.json();
    assert_eq!(account["email"], "batch@acme-prod.iam.gserviceaccount.com");
    assert_eq!(account["aliases"], serde_json::json!(["default"]));
    let token = get(&format!("{ACCOUNT}/token?scopes=a,b")).await.json();
    assert_eq!(
        token,
        serde_json::json!({ "access_token": "secret-token-1", "expires_in": 3600, "token_type": "Bearer" })
    );
    pass(10 * MINUTE).await;
    let by_email = ACCOUNT.replace("default", "batch@acme-prod.iam.gserviceaccount.com");
    assert_eq!(get(&format!("{by_email}/token")).await.json()["expires_in"], 3000, "less by what has passed");
    let identity = get(&format!("{ACCOUNT}/identity?audience=https%3A%2F%2Forders.example&format=full")).await;
    assert_eq!(identity.body, "secret-token-1");
    for (path, status) in [
        (format!("{ACCOUNT}/identity?audience=https%3A%2F%2Felsewhere.example"), 400),
        (format!("{ACCOUNT}/identity"), 400),
        ("/computeMetadata/v1/instance/service-accounts/other/token".to_owned(), 404),
        ("/computeMetadata/v1/instance/attributes/ssh-keys".to_owned(), 404),
    ] {
        assert_eq!(get(&path).await.status, status, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn azure_clients_get_the_token_of_a_resource_and_no_other() {
    let (_world, site) = service(azure("push"));
    let machine = ask(&site, "GET", AZURE, &[("metadata", "true")]).await.json();
    let expected = serde_json::json!({
        "access_token": "secret-token-1", "expires_in": "3600", "expires_on": "1795309200",
        "resource": "https://vault.azure.net", "token_type": "Bearer",
    });
    assert_eq!(machine, expected);
    let app = async |key: &str| ask(&site, "GET", AZURE_APP, &[("x-identity-header", key)]).await;
    assert_eq!(app("key-worker").await.json()["access_token"], "secret-token-1");
    for (key, status) in [("key-nobody", 401), ("", 401), ("key-idle", 403), ("key-elsewhere", 403)] {
        let answer = app(key).await;
        assert_eq!(answer.status, status, "{key}: {answer}");
        assert!(answer.json()["error"].is_string() && answer.json()["error_description"].is_string(), "{answer}");
    }
    for resource in ["https%3A%2F%2Fstorage.azure.com", "", "https%3A%2F%2Fvault.azure.net.evil.example"] {
        let path = format!("/metadata/identity/oauth2/token?resource={resource}");
        assert_eq!(ask(&site, "GET", &path, &[("metadata", "true")]).await.status, 400, "{resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_metadata_service_of_the_wrong_credential_says_so() {
    let (_world, site) = service(aws("push"));
    let token = session(&site, "60").await;
    let answer = ask(&site, "GET", &format!("{ROLES}lake"), &[("x-aws-ec2-metadata-token", &token)]).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (409, "conflict"));
    let (_world, site) = service(gce("acme/lake"));
    let answer = ask(&site, "GET", &format!("{ACCOUNT}/token"), &[("metadata-flavor", "Google")]).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (409, "conflict"));
    assert!(!answer.body.contains("secret-"), "{answer}");
}
