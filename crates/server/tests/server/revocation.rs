//! Revocations with real processes: by the command line, over a restart, a reload and an end on purpose.

use std::fs;
use std::path::PathBuf;

use futures::FutureExt as _;
use keyreeve::core::jwt::Algorithm;
use keyreeve::core::secret::Secret;
use keyreeve::crypto;
use keyreeve::jwt::{SigningKey, generate};
use serde_json::{Value, json};

use crate::node::{Node, Place, until};
use crate::tokens::run;

const URL: &str = "https://issuer.example";

/// A place whose nodes take the tokens of this key.
fn place() -> (Place, PathBuf, SigningKey) {
    let place = Place::new();
    let pair = generate::generate(Algorithm::EdDsa, "k1", &mut |bytes| getrandom::fill(bytes).unwrap()).unwrap();
    let public = place.secret("public.jwk", &json!(pair.public).to_string());
    let private = Secret::new(pair.private.expose().as_bytes().to_vec());
    let key = SigningKey::new(crypto::any_signer(Algorithm::EdDsa, &private).unwrap(), Some("k1"));
    let rules = format!(
        "[verifier.outside]\nissuer = \"{URL}\"\naudience = \"orders\"\nkeys = [\"file:{}\"]\n[revocation]\n",
        public.display()
    );
    let config = place.config(&rules);
    let text = fs::read_to_string(&config).unwrap().replace("\"metrics\"]", "\"metrics\", \"verify\", \"revoke\"]");
    fs::write(&config, text).unwrap();
    (place, config, key)
}

fn token(key: &SigningKey, jti: &str) -> String {
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "iss": URL, "aud": "orders", "sub": "ann", "jti": jti, "iat": now_s, "exp": now_s + 3600 });
    key.sign(&claims.to_string()).now_or_never().unwrap().unwrap()
}

/// What a node says of a token, as soon as it can tell.
async fn verdict(node: &Node, token: &str) -> Value {
    until("the node can tell", async || {
        let (status, answer) = node.post("/v1/verify", json!({ "token": token })).await;
        assert!(status == 200 || status == 503, "{status}: {answer}");
        (status == 200).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reads_what_is_revoked_before_it_says_that_it_listens_and_is_not_ready_until_it_has() {
    let (place, config, key) = place();
    let switches = place.switches("switches");
    let cut = switches.join("store-cut");
    let spawn = |name: &str| {
        fs::write(&cut, "").unwrap();
        place.spawn(&config, name, &[("KEYREEVE_TEST_FAULTS", switches.to_str().unwrap())])
    };
    let token = json!({ "token": token(&key, "j1") });
    // The store comes while the node starts.
    let mut node = spawn("a");
    until("it has asked", async || node.log_text().contains("what is revoked cannot be read").then_some(())).await;
    fs::remove_file(&cut).unwrap();
    node.wait_until_listening();
    assert_eq!(node.post("/v1/verify", token.clone()).await.0, 200);
    assert_eq!(node.get("/readyz").await.0, 200);
    // It comes later than a start waits for.
    let mut node = spawn("b");
    node.wait_until_listening();
    let (status, ready) = node.get("/readyz").await;
    assert_eq!((status, ready["detail"].as_str()), (503, Some("what is revoked has not been read yet")), "{ready}");
    assert_eq!(node.post("/v1/verify", token.clone()).await.0, 503);
    fs::remove_file(&cut).unwrap();
    until("it is ready", async || (node.get("/readyz").await.0 == 200).then_some(())).await;
    assert_eq!(node.post("/v1/verify", token).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_revoked_by_a_command_stays_so_over_restart_and_reload_and_a_node_that_left_is_not_waited_for() {
    let (place, config, key) = place();
    let (a, b) = (place.node(&config, "a", &[]), place.node(&config, "b", &[]));
    let (one, two) = (token(&key, "j1"), token(&key, "j2"));
    for node in [&a, &b] {
        assert_eq!(verdict(node, &one).await["valid"], true);
    }
    let file = place.secret("token.txt", &one);
    let (out, err, code) = place.cli(&a, &["revoke", "--token-file", file.to_str().unwrap(), "--wait", "10"]);
    assert_eq!(code, 0, "{out}{err}");
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        (rows[0][0], rows[1][..2].to_vec(), rows[2][..2].to_vec()),
        ("NODE", vec!["a", "applied"], vec!["b", "applied"])
    );
    assert!(!out.contains(&one) && !a.log_text().contains(&one), "a token is in no output");
    for node in [&a, &b] {
        assert_eq!(verdict(node, &one).await["code"], "revoked");
        assert_eq!(verdict(node, &two).await["valid"], true);
    }
    // Killed and started anew, the node knows it before it accepts anything.
    a.kill();
    let a = place.node(&config, "a", &[]);
    assert_eq!(verdict(&a, &one).await["code"], "revoked");
    a.signal("HUP");
    until("the reload is done", async || a.log_text().contains("the configuration was read again").then_some(())).await;
    assert_eq!(
        (verdict(&a, &one).await["code"].clone(), verdict(&a, &two).await["valid"].clone()),
        ("revoked".into(), true.into())
    );
    let mut b = b;
    b.signal("TERM");
    b.ended().await;
    let (out, err, code) = place.cli(&a, &["revoke", "--jti", "j2", "--json", "--wait", "10"]);
    assert_eq!(code, 0, "{out}{err}");
    let receipts: Value = serde_json::from_str(&out).unwrap();
    let nodes = receipts["nodes"].as_array().unwrap();
    assert!(nodes.iter().all(|node| node["node"] == "a"), "{receipts}");
    assert_eq!(verdict(&a, &two).await["code"], "revoked");
    let (_, err, code) = place.cli(&a, &["revoke", "--subject", "ann", "--issuer", "issuer:nobody"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("one of `verifier:outside`, or its `iss`"), "{err}");
}

#[test]
fn a_command_that_does_not_say_what_is_to_be_revoked_is_refused_before_anybody_is_asked() {
    for args in [&["revoke"][..], &["revoke", "--issuer", "issuer:a"], &["revoke", "--kid", "a", "--jti", "b"]] {
        let (out, err, code) = run(args, &[], "");
        assert_eq!((out.as_str(), code), ("", 2), "{err}");
    }
}
