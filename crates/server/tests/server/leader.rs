//! The holder of the lease dies in the middle of a mint.

use std::fs;

use keyreeve_picky::upstream;

use crate::node::{Place, http_credential, until};

const LEASE_MS: i64 = 1000;
/// A short lease, so that a test does not take long: 1s >= send 200ms + timeout 800ms. With a written skew the wall clocks
/// may prove that it is over; without that proof it takes 1.5s.
const LIFE: &str = r#"life = { max = "1h", lead = "10m", min_interval = "1s", skew = "100ms", lease = "1s", send = "200ms", timeout = "800ms", takeover = "1500ms", poll = "100ms" }"#;

/// R4: SIGKILL while the lease is held. The successor waits for the lease to lapse, then mints under a higher epoch.
#[tokio::test(flavor = "multi_thread")]
async fn r4_leader_killed_with_sigkill_successor_has_a_higher_epoch() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    let config = place.config(&http_credential(&issuer.mint_url(), &format!("mode = \"lease\"\n{LIFE}")));
    let switches = place.switches("leader-switches");
    fs::write(switches.join("mint-delay-ms"), "700").unwrap();
    let switches = switches.to_str().unwrap().to_owned();
    let leader = place.node(&config, "leader", &[("KEYREEVE_TEST_FAULTS", &switches)]);
    let successor = place.node(&config, "successor", &[]);

    let asked = tokio::spawn(leader.request(http::Method::GET, "/v1/credentials/up/token").send());
    let (intent, epoch) = until("the leader holds the lease", async || {
        let history = successor.history("up").await;
        let intent = history["intent"].clone();
        intent.is_object().then(|| (intent, history["epoch"].as_u64().unwrap()))
    })
    .await;
    assert_eq!(intent["node"], "leader");
    leader.kill();
    assert!(asked.await.unwrap().is_err(), "its callers hear that it is gone");
    assert_eq!(issuer.score().calls, 0, "it died before its call");

    let token = until("the successor mints", async || {
        let (status, body) = successor.token("up").await;
        (status == 200).then(|| body["token"].as_str().unwrap().to_owned())
    })
    .await;
    assert_eq!(token, "t-1");
    let score = issuer.score();
    assert_eq!((score.calls, score.mints, score.most_valid_at_once), (1, 1, 1));
    let started_at: jiff::Timestamp = intent["started_at"].as_str().unwrap().parse().unwrap();
    let waited_ms = score.call_list[0].at_ms - started_at.as_millisecond();
    assert!(waited_ms >= LEASE_MS, "it minted {waited_ms} ms into a lease of {LEASE_MS} ms");
    let history = successor.history("up").await;
    assert_eq!(history["holder"], "successor");
    assert!(history["epoch"].as_u64().unwrap() > epoch, "{history}");
    assert_eq!(history["status"], "ready");
}

/// R4, the harder half: the upstream has minted, and the answer dies with the holder.
#[tokio::test(flavor = "multi_thread")]
async fn r4_a_mint_whose_holder_died_is_a_lost_generation_not_a_reused_one() {
    let issuer = upstream::start(upstream::Config {
        faults: upstream::Faults::next(1, upstream::Fault::Hang { minted: true }),
        ..Default::default()
    });
    let issuer = issuer.await.unwrap();
    let place = Place::new();
    let config = place.config(&http_credential(&issuer.mint_url(), &format!("mode = \"lease\"\n{LIFE}")));
    let leader = place.node(&config, "leader", &[]);
    let successor = place.node(&config, "successor", &[]);
    let asked = tokio::spawn(leader.request(http::Method::GET, "/v1/credentials/up/token").send());
    until("the call is out", async || (issuer.score().calls == 1).then_some(())).await;
    leader.kill();
    assert!(asked.await.unwrap().is_err());

    let token = until("the successor mints", async || {
        let (status, body) = successor.token("up").await;
        (status == 200).then(|| body["token"].as_str().unwrap().to_owned())
    })
    .await;
    assert_eq!(token, "t-2", "the first one was lost with its holder");
    let history = successor.history("up").await;
    assert_eq!((history["generation"].as_u64(), history["epoch"].as_u64()), (Some(2), Some(2)), "{history}");
    assert_eq!(issuer.score().calls, 2);
    let between = issuer.score().call_list[1].at_ms - issuer.score().call_list[0].at_ms;
    // The lease and both clocks' skew, less what the first call may have left after its lease began.
    assert!(between >= LEASE_MS, "{between} ms between the two calls");
}
