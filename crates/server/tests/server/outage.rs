//! The upstream or the store is away: what is held goes on being served, and nothing else happens.

use std::fs;
use std::time::{Duration, Instant};

use keyreeve_picky::clock::PickyClock;
use keyreeve_picky::upstream::{self, Fault, Faults, Upstream};

use crate::node::{Node, Place, http_credential, unix_ms, until};

/// R5: the renewal hangs at the upstream, and readers on a Unix socket do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn r5_a_reader_on_a_unix_socket_does_not_wait_for_an_upstream_that_hangs() {
    let issuer = upstream::Config { life: Duration::from_secs(120), ..Default::default() };
    let issuer = upstream::start(issuer).await.unwrap();
    let place = Place::new();
    let socket = place.path("keyreeve.sock");
    let uid = fs::metadata(place.path("seal.key")).map(|file| std::os::unix::fs::MetadataExt::uid(&file)).unwrap();
    let local = format!(
        "[[listener]]\nbind = \"unix:{}\"\n[caller.local]\nuid = {uid}\ncan = [\"token\"]\ncredentials = [\"up\"]\n",
        socket.display()
    );
    // Due for renewal a second after it was minted.
    let life = "life = { max = \"120s\", lead = \"119s\", min_interval = \"100ms\", skew = \"100ms\", jitter = \"0s\", spread = \"0s\" }";
    let config = place.config(&(local + &http_credential(&issuer.mint_url(), life)));
    let node = place.node(&config, "one", &[]);
    node.token_text("up").await;
    issuer.set_faults(Faults::always(Fault::Hang { minted: false })).unwrap();
    until("the renewal hangs", async || (issuer.score().calls == 2).then_some(())).await;

    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([]).unix_socket(socket.as_path()).build().unwrap();
    let mut took = Vec::new();
    for _ in 0..2000 {
        let started = Instant::now();
        let answer = client.get("http://localhost/v1/credentials/up/token").send().await.unwrap();
        assert_eq!(answer.status(), 200, "no key is needed: the kernel says who asks");
        answer.bytes().await.unwrap();
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let (p50, p999) = (took[took.len() / 2], took[took.len() * 999 / 1000]);
    eprintln!("over a Unix socket while the upstream hangs: p50 {p50:?}, p99.9 {p999:?}");
    assert!(p50 < Duration::from_millis(5), "p50 {p50:?}");
    assert!(p999 < Duration::from_millis(500), "p99.9 {p999:?}: somebody waited for more than the processor");
    assert_eq!(issuer.score().calls, 2);
}

/// R6: the upstream is away when the renewal falls due; readers get what is held, a node that starts meanwhile too.
#[tokio::test(flavor = "multi_thread")]
async fn r6_an_outage_of_the_upstream_is_no_outage_of_ours() {
    let issuer = upstream::Config { life: Duration::from_secs(20), ..Default::default() };
    let issuer = upstream::start(issuer).await.unwrap();
    let place = Place::new();
    let life = "keep = \"always\"\nlife = { max = \"20s\", lead = \"19s\", min_interval = \"100ms\", skew = \"100ms\", jitter = \"0s\", spread = \"0s\", hold = \"200ms\", hold_max = \"1s\", lease = \"3s\", send = \"1s\", timeout = \"2s\", takeover = \"4s\" }";
    let config = place.config(&http_credential(&issuer.mint_url(), life));
    let mut node = place.node(&config, "before", &[]);
    assert_eq!(node.token_text("up").await, "t-1");
    let minted = Instant::now();
    issuer.set_faults(Faults::always(Fault::Fail { status: 503, retry_after_s: None })).unwrap();

    let mut gets = 0;
    while minted.elapsed() < Duration::from_secs(5) {
        // In the middle of the outage the node dies, and another one takes its place.
        if gets == 100 {
            node.kill();
            node = place.node(&config, "after", &[]);
        }
        assert_eq!(node.token_text("up").await, "t-1");
        gets += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(gets > 100, "the restart happened within {gets} gets");
    let failed = issuer.score().calls - 1;
    assert!((1..=12).contains(&failed), "{failed} calls in an outage of about four seconds");
    let (_, state) = node.get("/v1/credentials/up").await;
    assert_eq!(state["status"], "backing-off", "{state}");

    issuer.set_faults(Faults::default()).unwrap();
    until("the renewal succeeds", async || (node.token_text("up").await == "t-2").then_some(())).await;
    assert_eq!(node.status("up").await, "ready");
}

/// Where ten simulated minutes are six seconds. The numbers leave real milliseconds for what takes real time.
const SCALE: f64 = 100.0;

async fn simulated_issuer(epoch_ms: u64) -> Upstream {
    let clock = PickyClock::scaled(i64::try_from(epoch_ms).unwrap(), SCALE);
    let life = Duration::from_secs(60 * 60);
    upstream::start(upstream::Config { clock, life, ..Default::default() }).await.unwrap()
}

fn three_credentials(issuer: &Upstream, place: &Place) -> String {
    let key = place.path("apns.p8");
    let timing = "send = \"60s\", timeout = \"120s\", lease = \"180s\", takeover = \"225s\", poll = \"20s\", hold = \"20s\", skew = \"10s\", jitter = \"0s\", spread = \"0s\"";
    let up = format!("keep = \"always\"\nlife = {{ max = \"60m\", lead = \"55m\", min_interval = \"1m\", {timing} }}");
    let apns = format!(
        r#"
[credential.apns]
source = "apns"
key = "file:{key}"
params = {{ team_id = "DEVTEAM001", key_id = "DEVKEY0001" }}
keep = "always"
life = {{ {timing}, handover = "2m" }}
[credential.slot]
source = "jwt"
key = "file:{key}"
mode = "slot"
keep = "always"
wait = "30s"
params = {{ alg = "ES256", claims = {{ iss = "me", iat = "{{iat}}", exp = "{{exp}}" }} }}
life = {{ max = "60m", slot = "3m", skew = "10s" }}
"#,
        key = key.display()
    );
    http_credential(&issuer.mint_url(), &up) + &apns
}

/// The store is cut off for ten minutes, in which a renewal falls due.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_ten_minutes_stops_mints_and_no_reader() {
    let epoch = unix_ms();
    let clock = format!("epoch={epoch},scale={SCALE}");
    let issuer = simulated_issuer(epoch).await;
    let place = Place::new();
    let switches = place.switches("switches");
    let config = place.config(&three_credentials(&issuer, &place));
    let environment = [("KEYREEVE_TEST_CLOCK", clock.as_str()), ("KEYREEVE_TEST_FAULTS", switches.to_str().unwrap())];
    let node = place.node(&config, "one", &environment);
    let first = until("all three are there", async || held(&node).await).await;
    until("the node is ready", async || ready(&node).await.filter(|word| word == "ready")).await;

    fs::write(switches.join("store-cut"), "").unwrap();
    let ten_minutes = Duration::from_secs_f64(600.0 / SCALE);
    let cut = Instant::now();
    let mut slots = std::collections::BTreeSet::new();
    let mut was_degraded = false;
    while cut.elapsed() < ten_minutes {
        let now = held(&node).await.expect("what is held is served without the store");
        assert_eq!((&now.up, &now.apns), (&first.up, &first.apns));
        slots.insert(now.slot);
        was_degraded |= ready(&node).await.is_some_and(|word| word == "degraded");
    }
    assert!(was_degraded, "`/readyz` says so");
    assert!(slots.len() >= 3, "slot tokens need no store: {} of them in ten minutes", slots.len());
    assert_eq!(issuer.score().calls, 1, "a renewal fell due, and nobody may mint without the register");
    let (status, body) = node.post("/v1/credentials/up/renew", serde_json::Value::Null).await;
    assert_eq!((status, body["type"].as_str()), (503, Some("urn:keyreeve:problem:store-unavailable")), "{body}");

    fs::remove_file(switches.join("store-cut")).unwrap();
    until("the renewal happens by itself", async || (issuer.score().mints == 2).then_some(())).await;
    until("it is served", async || held(&node).await.filter(|now| now.up == "t-2").map(drop)).await;
    until("the node is ready again", async || ready(&node).await.filter(|word| word == "ready")).await;
    assert_eq!(issuer.score().calls, 2);
}

struct Held {
    up: String,
    apns: String,
    slot: String,
}

/// What the node serves of each; `None` where one is missing.
async fn held(node: &Node) -> Option<Held> {
    let mut texts = Vec::new();
    for name in ["up", "apns", "slot"] {
        let (status, body) = node.token(name).await;
        texts.push((status == 200).then(|| body["token"].as_str().unwrap().to_owned())?);
    }
    let slot = texts.pop()?;
    let apns = texts.pop()?;
    Some(Held { up: texts.pop()?, apns, slot })
}

async fn ready(node: &Node) -> Option<String> {
    let (status, body) = node.get("/readyz").await;
    (status == 200).then(|| body["status"].as_str().unwrap().to_owned())
}

/// A node that starts while the store is away serves slot tokens, says what it lacks, and recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_its_store_serves_slot_tokens_and_waits_for_the_rest() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    let switches = place.switches("switches");
    fs::write(switches.join("store-cut"), "").unwrap();
    let slot = format!(
        "[credential.slot]\nsource = \"jwt\"\nkey = \"file:{}\"\nmode = \"slot\"\nparams = {{ alg = \"ES256\", claims = {{ iat = \"{{iat}}\" }} }}\nlife = {{ skew = \"2s\" }}\n",
        place.path("apns.p8").display()
    );
    let config =
        place.config(&(http_credential(&issuer.mint_url(), "keep = \"always\"\nlife = { poll = \"100ms\" }") + &slot));
    let node = place.node(&config, "one", &[("KEYREEVE_TEST_FAULTS", switches.to_str().unwrap())]);
    assert!(!node.token_text("slot").await.is_empty());
    let (status, body) = node.get("/v1/credentials/up/token?min_ttl=1s").await;
    assert_eq!((status, body["type"].as_str()), (503, Some("urn:keyreeve:problem:store-unavailable")), "{body}");
    assert_eq!(node.get("/readyz").await.0, 503, "a credential that is wanted cannot be served");
    assert_eq!(issuer.score().calls, 0);
    fs::remove_file(switches.join("store-cut")).unwrap();
    until("it recovers", async || (node.token("up").await.0 == 200).then_some(())).await;
}
