//! Access tokens on real nodes: made, checked, taken back.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use crate::node::{Node, PROGRAM, Place, until};

/// A node with a family `cdn`, and a caller who may do everything with its tokens.
pub(crate) fn config(place: &Place, more: &str) -> PathBuf {
    let path = place.config(&format!("[token.cdn]\n{more}"));
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("\"metrics\"]", "\"metrics\", \"tokens\", \"grant\"]\ntokens = [\"cdn/*\"]");
    std::fs::write(&path, text).unwrap();
    path
}

/// Makes a token: its text and its id.
pub(crate) async fn create(node: &Node, target: &str) -> (String, String) {
    let (status, made) = node.post("/v1/tokens", json!({ "target": target, "alias": "ci" })).await;
    assert_eq!(status, 201, "{made}\n{}", node.log_text());
    (made["token"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
}

/// What a node says about a token: `good`, or the code of its refusal.
pub(crate) async fn verdict(node: &Node, target: &str, token: &str) -> String {
    let (status, said) = node.post("/v1/tokens/verify", json!({ "token": token, "target": target })).await;
    match status {
        200 if said["valid"] == true => "good".to_owned(),
        200 => said["code"].as_str().unwrap().to_owned(),
        _ => format!("{status}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_accepted_and_refused_when_it_was_taken_back() {
    let place = Place::new();
    let config = config(&place, "");
    let node = place.node(&config, "one", &[]);
    let (token, id) = create(&node, "acme").await;
    assert!(token.starts_with("krt_") && token.len() == 110, "{token}");
    let secret = token.split('_').nth(2).unwrap();
    assert_eq!(verdict(&node, "acme", &token).await, "good");
    assert_eq!(verdict(&node, "other", &token).await, "unknown", "a token is for its target");
    let (status, shown) = node.get(&format!("/v1/tokens/{id}")).await;
    assert_eq!((status, shown["state"].as_str(), shown["alias"].as_str()), (200, Some("active"), Some("ci")));
    assert!(!shown.to_string().contains(secret), "the secret is shown once: {shown}");
    let (status, revoked) = node.post(&format!("/v1/tokens/{id}/revoke"), Value::Null).await;
    assert_eq!(
        (status, revoked["state"].as_str(), revoked["revoked_by"].as_str()),
        (200, Some("revoked"), Some("test"))
    );
    assert_eq!(verdict(&node, "acme", &token).await, "revoked");
    // Another node on the same store, which has never heard of it.
    let other = place.node(&config, "two", &[]);
    assert_eq!(verdict(&other, "acme", &token).await, "revoked");
    let log = node.log_text() + &other.log_text();
    assert!(log.contains("token.create") && log.contains("token.revoke"), "{log}");
    assert!(!log.contains(secret), "no log has a secret in it");
    let store = std::fs::read(place.path("state.db")).unwrap();
    assert!(!store.windows(secret.len()).any(|window| window == secret.as_bytes()), "nor has the store");
}

#[test]
fn the_commands_print_the_secret_alone_and_take_it_from_standard_input() {
    let place = Place::new();
    let node = place.node(&config(&place, ""), "one", &[]);
    let (token, said, code) = place.cli(&node, &["token", "create", "acme", "--alias", "ci", "--type", "sdl"]);
    assert_eq!(code, 0, "{said}");
    let token = token.trim_end();
    let id = said.split_whitespace().nth(1).unwrap().trim_end_matches(';').to_owned();
    assert!(token.starts_with("krt_") && token.contains(&id.replace('-', "")), "{token} {said}");
    let verify = |kind: &str| {
        let mut child = Command::new(PROGRAM)
            .args(["token", "verify", "acme", "--type", kind])
            .env("KEYREEVE_URL", node.url())
            .env("KEYREEVE_API_KEY", &place.api_key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(verify("sdl").0, 0);
    let (code, said) = verify("supergraph");
    assert!(code == 1 && said.contains("out-of-scope"), "{code} {said}");
    let (shown, _, code) = place.cli(&node, &["token", "show", &id]);
    assert!(code == 0 && shown.contains("active") && !shown.contains(token), "{shown}");
    assert_eq!(place.cli(&node, &["token", "revoke", &id]).2, 0);
    assert_eq!(verify("sdl").0, 1);
    assert_eq!(place.cli(&node, &["token", "show", "7"]).2, 2);
    assert_eq!(place.cli(&node, &["token", "show", "00000000-0000-4000-8000-000000000000"]).2, 3);
}

/// How many tokens of a target are revoked, and how many there are.
async fn revoked(node: &Node, target: &str) -> (usize, usize) {
    let (mut revoked, mut all, mut cursor) = (0, 0, String::new());
    loop {
        let (status, page) = node.get(&format!("/v1/tokens?target={target}&limit=100{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let tokens = page["tokens"].as_array().unwrap();
        all += tokens.len();
        revoked += tokens.iter().filter(|token| token["state"] == "revoked").count();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (revoked, all),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_it_drops_a_target_leaves_the_rest_to_the_next_one() {
    const COUNT: usize = 300;
    let place = Place::new();
    let config = config(&place, "");
    let one = place.node(&config, "one", &[]);
    let made = stream::iter(0..COUNT).map(|_| create(&one, "acme")).buffer_unordered(20);
    let tokens: Vec<String> = made.map(|(token, _)| token).collect().await;
    let (other, _) = create(&one, "other").await;
    let request = one.request(http::Method::POST, "/v1/tokens/drop-target").header("content-type", "application/json");
    let dropping = tokio::spawn(request.body(json!({ "target": "acme" }).to_string()).send());
    until("the first is taken back", async || {
        let (_, page) = one.get("/v1/tokens?target=acme&limit=1").await;
        (page["tokens"][0]["state"] == "revoked").then_some(())
    })
    .await;
    one.kill();
    assert!(dropping.await.unwrap().is_err(), "nobody was told that it is done");

    let two = place.node(&config, "two", &[]);
    // It refuses all of them before it has written anything, as soon as it knows what is revoked.
    until("the log is read", async || (verdict(&two, "acme", &tokens[0]).await != "503").then_some(())).await;
    for token in &tokens {
        assert_eq!(verdict(&two, "acme", token).await, "revoked");
    }
    until("it is finished", async || (revoked(&two, "acme").await == (COUNT, COUNT)).then_some(())).await;
    until("it says so", async || two.log_text().contains("a dropped target was finished").then_some(())).await;
    assert_eq!(verdict(&two, "other", &other).await, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn hive_keys_are_made_in_their_form_and_a_revocation_reaches_the_other_node_within_a_second() {
    let place = Place::new();
    let config = config(&place, "format = \"hv2\"\nlife = \"90d\"");
    let (one, two) = (place.node(&config, "one", &[]), place.node(&config, "two", &[]));
    let (token, id) = create(&one, "818d5bb7-5e46-4a8c-a0a5-a8e2ae08f3ae").await;
    assert!(token.starts_with("hv2"), "{token}");
    let target = "818d5bb7-5e46-4a8c-a0a5-a8e2ae08f3ae";
    assert_eq!(verdict(&two, target, &token).await, "good");
    let (_, shown) = two.get(&format!("/v1/tokens/{id}")).await;
    assert!(shown["format"] == "hv2" && shown["expires_at"].is_string(), "{shown}");
    one.post(&format!("/v1/tokens/{id}/revoke"), Value::Null).await;
    let asked = Instant::now();
    assert_eq!(verdict(&one, target, &token).await, "revoked", "here at once");
    until("the other node hears of it", async || (verdict(&two, target, &token).await == "revoked").then_some(()))
        .await;
    // A busy machine may be late; `demo revoke` measures.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
