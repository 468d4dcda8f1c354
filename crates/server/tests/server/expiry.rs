//! Answers of an upstream that must not be believed, and settings that must not be started with.

use std::process::Command;
use std::time::Duration;

use keyreeve_picky::upstream::{self, Fault, Faults, WrongExpiry};

use crate::node::{PROGRAM, Place, http_credential, until};

/// R15: a request could outlive the lease it was sent under.
#[test]
fn r15_a_lease_shorter_than_what_it_protects_is_refused_at_start_with_the_sum() {
    let place = Place::new();
    let life = "life = { lease = \"10s\", send = \"5s\", timeout = \"10s\" }";
    let config = place.config(&http_credential("http://127.0.0.1:1/mint", life));
    for command in [&["serve", "-c"][..], &["config", "check", "-c"]] {
        let output = Command::new(PROGRAM).args(command).arg(&config).output().unwrap();
        let code = if command[0] == "serve" { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(code));
        assert!(output.stdout.is_empty(), "nothing listens, nothing is in order");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("lease 10s is less than send 5s + timeout 10s = 15s"), "{said}");
        assert!(said.contains("hint: "), "{said}");
    }
}

/// R19: no, a zero, a past or a nonsensical end of life is an error with a name, and no token.
#[tokio::test(flavor = "multi_thread")]
async fn r19_an_upstream_that_names_no_sensible_expiry_is_an_error_and_no_credential() {
    for (wrong, said) in [
        (WrongExpiry::Zero, "0"),
        (WrongExpiry::Absent, "expires_at"),
        (WrongExpiry::Past, "past"),
        (WrongExpiry::Nonsense, "expires_at"),
    ] {
        let faults = Faults::always(Fault::Expiry { wrong });
        let issuer = upstream::start(upstream::Config { faults, ..Default::default() }).await.unwrap();
        let place = Place::new();
        let config = place.config(&http_credential(&issuer.mint_url(), ""));
        let node = place.node(&config, "one", &[]);
        let (status, body) = node.token("up").await;
        assert_eq!(status, 503, "{wrong:?}: {body}");
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains("`up`") && detail.contains(said), "{wrong:?}: {detail}");
        assert!(!body.to_string().contains("t-1"), "{body}");
        let (_, state) = node.get("/v1/credentials/up").await;
        assert!(state["generation"].is_null() && state["expires_at"].is_null(), "{state}");
        assert_eq!(issuer.score().calls, 1, "{wrong:?}: an error is no reason to ask again at once");
    }
}

/// R20: the upstream gives its old token again, as from a cache.
#[tokio::test(flavor = "multi_thread")]
async fn r20_the_same_token_again_is_no_renewal_and_no_loop() {
    let issuer = upstream::Config { life: Duration::from_secs(60), ..Default::default() };
    let issuer = upstream::start(issuer).await.unwrap();
    let place = Place::new();
    // Due for renewal a second after it was minted.
    let life = "keep = \"always\"\nlife = { max = \"60s\", lead = \"59s\", min_interval = \"100ms\", skew = \"100ms\", jitter = \"0s\", spread = \"0s\", hold = \"400ms\" }";
    let config = place.config(&http_credential(&issuer.mint_url(), life));
    let node = place.node(&config, "one", &[]);
    assert_eq!(node.token_text("up").await, "t-1");
    issuer.set_faults(Faults::always(Fault::SameToken)).unwrap();
    until("three renewals brought nothing new", async || (issuer.score().calls >= 4).then_some(())).await;
    assert_eq!(node.token_text("up").await, "t-1", "it is still good, and still served");
    let history = node.history("up").await;
    assert_eq!(history["current"]["generation"], 1, "{history}");
    assert!(history["failure"]["message"].as_str().unwrap().contains("before"), "{history}");
    let calls = issuer.score().call_list;
    let pauses: Vec<_> = calls.windows(2).skip(1).map(|pair| pair[1].real_ms - pair[0].real_ms).collect();
    assert!(pauses.iter().all(|pause| *pause >= 390), "not a loop: {pauses:?}");
    assert!(pauses[1] > pauses[0] + 150, "the pauses grow: {pauses:?}");
    issuer.set_faults(Faults::default()).unwrap();
    until("something new comes", async || (node.token_text("up").await == "t-2").then_some(())).await;
}
