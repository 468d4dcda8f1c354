//! What is at rest, and what is written anywhere: never a secret. Seal keys change and get lost.

use std::fs;

use keyreeve_picky::upstream;
use serde_json::Value;

use crate::node::{Node, Place, http_credential, random_hex, until};

fn apns(place: &Place) -> String {
    format!(
        "[credential.apns]\nsource = \"apns\"\nkey = \"file:{}\"\nparams = {{ team_id = \"DEVTEAM001\", key_id = \"DEVKEY0001\" }}\n",
        place.path("apns.p8").display()
    )
}

fn seal_keys(place: &Place, names: &[&str]) -> String {
    let keys: Vec<_> = names.iter().map(|name| format!("\"file:{}\"", place.path(name).display())).collect();
    format!("[{}]", keys.join(", "))
}

fn sqlite(place: &Place) -> String {
    format!("sqlite:{}", place.path("state.db").display())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_no_key_is_in_the_database_its_log_the_logs_or_the_metrics() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    let config = place.config(&(apns(&place) + &http_credential(&issuer.mint_url(), "")));
    let nodes = [place.node(&config, "one", &[]), place.node(&config, "two", &[])];
    let mut tokens = Vec::new();
    for node in &nodes {
        for name in ["apns", "up"] {
            tokens.push(node.token_text(name).await);
            node.history(name).await;
        }
        assert_eq!(node.get("/v1/credentials/nope/token").await.0, 404);
        let refused = node.request(http::Method::GET, "/v1/credentials").bearer_auth("kr_wrong").send().await.unwrap();
        assert_eq!(refused.status(), 401);
    }
    let (status, _) = node_report(&nodes[0]).await;
    assert_eq!(status, 202);

    let mut places = Vec::new();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        places.push((name.to_owned(), fs::read(place.path(name)).unwrap()));
    }
    for node in &nodes {
        places.push(("metrics".into(), node.metrics().await.into_bytes()));
        places.push(("log".into(), node.log_text().into_bytes()));
    }
    let pem = fs::read_to_string(place.path("apns.p8")).unwrap();
    let seal_key = fs::read_to_string(place.path("seal.key")).unwrap();
    let mut secrets: Vec<Vec<u8>> = tokens.iter().map(|token| token.clone().into_bytes()).collect();
    // The part of a JWT that proves something.
    secrets.extend(tokens.iter().filter_map(|token| Some(token.rsplit_once('.')?.1.to_owned().into_bytes())));
    secrets.extend(pem.lines().filter(|line| !line.starts_with("-----")).map(|line| line.as_bytes().to_vec()));
    secrets.extend([seal_key.clone().into_bytes(), bytes_of(&seal_key), place.api_key.clone().into_bytes()]);
    // The search finds what is there: a name is no secret.
    assert!(places.iter().any(|(_, bytes)| contains(bytes, b"apns")));
    for (name, bytes) in &places {
        assert!(!bytes.is_empty(), "{name} is empty, so nothing was searched");
        for secret in secrets.iter().filter(|secret| secret.len() > 4 || name != "log") {
            assert!(!contains(bytes, secret), "a secret of {} bytes is in {name}", secret.len());
        }
    }
}

/// A report of a refusal with what some libraries put there by mistake.
async fn node_report(node: &Node) -> (u16, Value) {
    let body = serde_json::json!({ "generation": 1, "upstream_status": 403, "reason": "ExpiredProviderToken" });
    node.post("/v1/credentials/apns/report", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn seal_keys_rotate_while_nodes_run_and_what_was_stored_is_sealed_anew() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    place.secret("new.key", &random_hex());
    let credentials = http_credential(&issuer.mint_url(), "");
    let config = place.config(&credentials);
    let node = place.node(&config, "one", &[]);
    assert_eq!(node.token_text("up").await, "t-1");

    place.config_with(&sqlite(&place), &seal_keys(&place, &["new.key", "seal.key"]), &credentials);
    node.signal("HUP");
    until("it is sealed anew", async || {
        let history = node.history("up").await;
        history["history"].as_array().unwrap().iter().any(|entry| entry["kind"] == "resealed").then_some(())
    })
    .await;
    assert_eq!(node.token_text("up").await, "t-1", "no reader noticed");
    drop(node);

    // The old key is not needed any more.
    place.config_with(&sqlite(&place), &seal_keys(&place, &["new.key"]), &credentials);
    let node = place.node(&config, "two", &[]);
    assert_eq!(node.token_text("up").await, "t-1");
    assert_eq!(issuer.score().calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_seal_key_is_a_clear_error_and_nothing_stored_is_touched() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    place.secret("other.key", &random_hex());
    let life = "life = { min_interval = \"100ms\", skew = \"10ms\" }";
    let credentials = http_credential(&issuer.mint_url(), life);
    let config = place.config(&credentials);
    let node = place.node(&config, "one", &[]);
    node.token_text("up").await;
    drop(node);

    place.config_with(&sqlite(&place), &seal_keys(&place, &["other.key"]), &credentials);
    let node = place.node(&config, "two", &[]);
    let (status, body) = node.token("up").await;
    assert_eq!((status, body["type"].as_str()), (503, Some("urn:keyreeve:problem:seal-key-missing")), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("`up`"), "{body}");
    assert_eq!(issuer.score().calls, 1, "what cannot be opened is not replaced behind the operator's back");
    let (said, _, code) = place.cli(&node, &["doctor", "-c", config.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.lines().any(|line| line.starts_with("FAIL  up: ")), "{said}");
    drop(node);

    place.config_with(&sqlite(&place), &seal_keys(&place, &["seal.key"]), &credentials);
    let node = place.node(&config, "three", &[]);
    assert_eq!(node.token_text("up").await, "t-1", "the key is back, and so is the credential");
    drop(node);

    // Where it is gone for good, an operator's renewal makes a new credential under a key that is there.
    place.config_with(&sqlite(&place), &seal_keys(&place, &["other.key"]), &credentials);
    let node = place.node(&config, "four", &[]);
    until("the upstream allows it", async || (place.cli(&node, &["credential", "renew", "up"]).2 == 0).then_some(()))
        .await;
    until("a new one is served", async || (node.token("up").await.0 == 200).then_some(())).await;
    assert_eq!(node.token_text("up").await, "t-2");
}
