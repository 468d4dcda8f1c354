//! Many callers, many processes, one mint.

use std::time::{Duration, Instant};

use keyreeve_picky::upstream::{self, Fault, Faults};

use crate::node::{Place, client, http_credential};

const LATENCY: Duration = Duration::from_millis(200);

/// R1: processes that start together with nothing stored, and callers who all ask at once.
#[tokio::test(flavor = "multi_thread")]
async fn r1_fifty_processes_times_hundred_cold_callers_mint_once() {
    const PROCESSES: usize = 50;
    const CALLERS: usize = 100;
    let issuer = upstream::start(upstream::Config { faults: Faults::slow(LATENCY), ..Default::default() });
    let issuer = issuer.await.unwrap();
    let place = Place::new();
    let config = place.config(&http_credential(&issuer.mint_url(), ""));
    let mut nodes: Vec<_> = (0..PROCESSES).map(|n| place.spawn(&config, &format!("n{n}"), &[])).collect();
    nodes.iter_mut().for_each(super::node::Node::wait_until_listening);

    let mut callers = Vec::new();
    for node in &nodes {
        for _ in 0..CALLERS {
            let request = node.request(http::Method::GET, "/v1/credentials/up/token");
            callers.push(tokio::spawn(async move {
                let started = Instant::now();
                let (status, body) = super::node::answer(request).await;
                (status, body["token"].as_str().map(str::to_owned), started.elapsed())
            }));
        }
    }
    let mut waited = Vec::new();
    for caller in callers {
        let (status, token, took) = caller.await.unwrap();
        assert_eq!((status, token.as_deref()), (200, Some("t-1")));
        waited.push(took);
    }
    waited.sort_unstable();
    let p99 = waited[waited.len() * 99 / 100];
    eprintln!(
        "{} callers: p50 {:?}, p99 {p99:?}, upstream latency {LATENCY:?}",
        waited.len(),
        waited[waited.len() / 2]
    );
    let score = issuer.score();
    assert_eq!((score.calls, score.mints), (1, 1), "{score:?}");
}

/// R4: the caller whose request began the mint goes away, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn r4_a_caller_that_hangs_up_cancels_nothing() {
    let issuer = upstream::start(upstream::Config { faults: Faults::slow(LATENCY), ..Default::default() });
    let issuer = issuer.await.unwrap();
    let place = Place::new();
    let config = place.config(&http_credential(&issuer.mint_url(), ""));
    let node = place.node(&config, "one", &[]);

    // A connection of its own, which goes with the request.
    let url = format!("{}/v1/credentials/up/token", node.url());
    let first = client().get(url).bearer_auth(&place.api_key).send();
    assert!(tokio::time::timeout(Duration::from_millis(5), first).await.is_err(), "the mint takes longer than that");
    super::node::until("the mint is under way", async || (issuer.score().in_flight_max > 0).then_some(())).await;

    let callers: Vec<_> = (1..1000)
        .map(|_| {
            let request = node.request(http::Method::GET, "/v1/credentials/up/token");
            tokio::spawn(super::node::answer(request))
        })
        .collect();
    for caller in callers {
        let (status, body) = caller.await.unwrap();
        assert_eq!((status, body["token"].as_str()), (200, Some("t-1")), "{body}");
    }
    assert_eq!(issuer.score().calls, 1);
}

/// R3: nobody minted anything, and everybody hears the same.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_thousand_callers_of_a_failing_upstream_are_one_call_and_one_error() {
    let fail = Fault::Fail { status: 503, retry_after_s: None };
    let faults = Faults { fault: Some(fail), delay_ms: 100, ..Faults::default() };
    let issuer = upstream::start(upstream::Config { faults, ..Default::default() }).await.unwrap();
    let place = Place::new();
    let config = place.config(&http_credential(&issuer.mint_url(), ""));
    let node = place.node(&config, "one", &[]);
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let request = node.request(http::Method::GET, "/v1/credentials/up/token");
            tokio::spawn(super::node::answer(request))
        })
        .collect();
    for caller in callers {
        let (status, body) = caller.await.unwrap();
        let kind = body["type"].as_str();
        assert_eq!((status, kind), (503, Some("urn:keyreeve:problem:upstream-failed")), "{body}");
        assert_eq!(body["safe_to_retry"], true);
    }
    assert_eq!(issuer.score().calls, 1, "one flight, and its error is held back by the fleet");
}
