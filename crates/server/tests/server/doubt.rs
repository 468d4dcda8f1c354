//! A mint whose answer is lost: visible everywhere, and gone on with as the source's policy says.

use keyreeve_picky::upstream::{self, Fault, Faults, Upstream};
use serde_json::Value;

use crate::node::{Node, Place, http_credential, until};

/// Short waits: a lease of 500 ms, a floor of a second.
const LIFE: &str = r#"life = { max = "1h", lead = "10m", min_interval = "1s", skew = "50ms", lease = "600ms", send = "200ms", timeout = "400ms", takeover = "750ms", poll = "50ms", hold = "100ms", hold_max = "200ms" }"#;

/// A node whose first mint happened upstream, and whose answer was lost.
async fn in_doubt(place: &Place, policy: &str, honours_idempotency: bool) -> (Node, Upstream) {
    let faults = Faults::always(Fault::DropAfterCount);
    let issuer = upstream::start(upstream::Config { faults, honours_idempotency, ..Default::default() }).await.unwrap();
    let config = place.config(&http_credential(&issuer.mint_url(), &format!("{policy}\n{LIFE}")));
    let node = place.node(&config, "one", &[]);
    (node, issuer)
}

/// What the API, the command line and the metrics call the state, all at one time.
async fn seen_as(place: &Place, node: &Node, status: &str) {
    until(&format!("the state is `{status}` everywhere"), async || {
        let (_, state) = node.get("/v1/credentials/up").await;
        let (shown, _, code) = place.cli(node, &["credential", "show", "up"]);
        assert_eq!(code, 0);
        let gauge = format!("keyreeve_credential_state{{credential=\"up\",state=\"{status}\"}} 1");
        let is_everywhere = state["status"] == status
            && node.status("up").await == status
            && shown.lines().any(|line| line.starts_with("status:") && line.ends_with(status))
            && node.metrics().await.lines().any(|line| line == gauge);
        is_everywhere.then_some(())
    })
    .await;
}

fn kinds(history: &Value) -> Vec<&str> {
    history["history"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_an_idempotent_upstream_is_in_doubt_until_the_same_mint_is_repeated() {
    let place = Place::new();
    let (node, issuer) = in_doubt(&place, "idempotent = true", true).await;
    let asked = tokio::spawn(node.request(http::Method::GET, "/v1/credentials/up/token").send());
    seen_as(&place, &node, "in-doubt").await;
    issuer.set_faults(Faults::default()).unwrap();
    until("it is minted", async || (node.token("up").await.0 == 200).then_some(())).await;
    drop(asked.await);
    let score = issuer.score();
    assert_eq!(score.mints, 1, "every repetition asked for the same: {score:?}");
    assert!(score.replays >= 1);
    let history = node.history("up").await;
    assert_eq!((history["status"].as_str(), history["generation"].as_u64()), (Some("ready"), Some(1)), "{history}");
    assert!(kinds(&history).contains(&"in-doubt"), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_with_the_policy_to_wait_goes_on_by_itself_with_the_next_generation() {
    let place = Place::new();
    let (node, issuer) =
        in_doubt(&place, "mode = \"exclusive\"\nfirst_mint = \"now\"\non_doubt = \"wait\"", false).await;
    let asked = tokio::spawn(node.request(http::Method::GET, "/v1/credentials/up/token").send());
    seen_as(&place, &node, "in-doubt").await;
    let (_, said, code) = place.cli(&node, &["credential", "get", "up", "--timeout", "5"]);
    assert_eq!(code, 5, "{said}");
    issuer.set_faults(Faults::default()).unwrap();
    until("it is minted", async || (node.token("up").await.0 == 200).then_some(())).await;
    drop(asked.await);
    let history = node.history("up").await;
    assert_eq!(history["status"], "ready");
    assert!(history["generation"].as_u64().unwrap() >= 2, "{history}");
    let calls = issuer.score().call_list;
    for pair in calls.windows(2) {
        let apart = pair[1].at_ms - pair[0].at_ms;
        assert!(apart >= 1000, "{apart} ms between two mints that may both have happened");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_with_the_policy_to_ask_waits_for_a_verdict_which_is_recorded() {
    let place = Place::new();
    let (node, issuer) = in_doubt(&place, "mode = \"lease\"\non_doubt = \"reauth\"", false).await;
    let asked = tokio::spawn(node.request(http::Method::GET, "/v1/credentials/up/token").send());
    seen_as(&place, &node, "needs-reauth").await;
    assert_eq!(asked.await.unwrap().unwrap().status(), 503);
    issuer.set_faults(Faults::default()).unwrap();
    let (status, body) = node.token("up").await;
    assert_eq!((status, body["type"].as_str()), (503, Some("urn:keyreeve:problem:needs-reauth")), "{body}");
    assert_eq!(issuer.score().calls, 1, "it is never tried again by itself");

    let (_, said, code) = place.cli(&node, &["credential", "renew", "up"]);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("keyreeve credential resolve up"), "{said}");
    let (said, _, code) = place.cli(&node, &["credential", "resolve", "up", "reauthorize"]);
    assert_eq!((said.trim(), code), ("resolved: reauthorize", 0));
    until("it is minted", async || (node.token("up").await.0 == 200).then_some(())).await;
    assert_eq!(issuer.score().calls, 2);
    let history = node.history("up").await;
    assert_eq!(kinds(&history), ["in-doubt", "resolved", "minted"], "{history}");
    assert_eq!(history["history"][1]["detail"], "reauthorize by test");
    let (_, said, code) = place.cli(&node, &["credential", "resolve", "up", "discard"]);
    assert_eq!(code, 6, "nothing is in doubt any more: {said}");
}
