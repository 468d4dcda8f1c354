//! The counting issuer.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use serde_json::{Value, json};

use keyreeve_picky::clock::PickyClock;
use keyreeve_picky::faults::Plan;
use keyreeve_picky::upstream::{self, Config, ExpiryForm, Fault, Outcome, Score, Upstream, ViolationKind, WrongExpiry};

use crate::client::{Answer, MINUTE, START_MS, START_S, plain, until};

async fn issuer(change: impl FnOnce(&mut Config)) -> (Upstream, PickyClock) {
    let clock = PickyClock::manual(START_MS);
    let mut config = Config { clock: clock.clone(), ..Config::default() };
    change(&mut config);
    (upstream::start(config).await.unwrap(), clock)
}

async fn mint(issuer: &Upstream) -> Answer {
    plain(issuer.addr(), "POST", "/mint", &[], "{}").await.unwrap()
}

async fn mint_as(issuer: &Upstream, key: &str) -> Value {
    plain(issuer.addr(), "POST", "/mint", &[("idempotency-key", key)], "").await.unwrap().json()
}

async fn spoil(issuer: &Upstream, fault: Fault) -> Result<Answer, hyper::Error> {
    issuer.set_faults(Plan::next(1, fault)).unwrap();
    plain(issuer.addr(), "POST", "/mint", &[], "").await
}

async fn use_token(issuer: &Upstream, token: &str) -> (u16, Value) {
    let headers = [("authorization", format!("Bearer {token}"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = plain(issuer.addr(), "POST", "/use", &headers, "").await.unwrap();
    (answer.status.as_u16(), answer.json()["error"].clone())
}

#[tokio::test]
async fn each_call_is_a_new_token_with_its_end_and_is_counted_with_its_time() {
    let (issuer, clock) = issuer(|_| {}).await;
    assert_eq!(mint(&issuer).await.json(), json!({"token": "t-1", "expires_at": "2023-11-14T23:13:20Z"}));
    clock.advance(Duration::from_millis(1500));
    assert_eq!(mint(&issuer).await.json()["token"], "t-2");
    let score = issuer.score();
    assert_eq!((score.calls, score.mints, score.violations), (2, 2, 0));
    assert_eq!((score.valid_now, score.most_valid_at_once), (2, 2));
    let at: Vec<i64> = score.call_list.iter().map(|call| call.at_ms - START_MS).collect();
    assert_eq!(at, [0, 1500]);
    assert_eq!(score.minted[1].expires_at_ms, START_MS + 1500 + 3_600_000);
    clock.advance(60 * MINUTE - Duration::from_millis(1500));
    assert_eq!(issuer.score().valid_now, 1, "the first one has just ended");
}

#[tokio::test]
async fn the_end_is_written_in_the_form_that_was_asked_for() {
    for (form, body) in [
        (ExpiryForm::Rfc3339, json!({"token": "t-1", "expires_at": "2023-11-14T22:28:20Z"})),
        (ExpiryForm::UnixSeconds, json!({"token": "t-1", "expires_at": START_S + 900})),
        (ExpiryForm::ExpiresIn, json!({"token": "t-1", "expires_in": 900})),
    ] {
        let (issuer, _clock) = issuer(|config| {
            config.life = 15 * MINUTE;
            config.expiry = form;
        })
        .await;
        assert_eq!(mint(&issuer).await.json(), body);
    }
}

#[tokio::test]
async fn a_mint_before_the_interval_is_over_is_refused_with_the_wait_and_is_a_violation() {
    let (issuer, clock) = issuer(|config| config.min_interval = Some(20 * MINUTE)).await;
    assert_eq!(mint(&issuer).await.status, 200);
    clock.advance(20 * MINUTE - Duration::from_millis(1));
    let refused = mint(&issuer).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    clock.advance(Duration::from_millis(1));
    assert_eq!(mint(&issuer).await.json()["token"], "t-2");
    let score = issuer.score();
    assert_eq!((score.calls, score.mints, score.refused, score.violations), (3, 2, 1, 1));
    assert_eq!(score.violation_list[0].kind, ViolationKind::TooSoon);
    assert_eq!(score.call_list[1].outcome, Outcome::Refused);
}

#[tokio::test]
async fn with_one_valid_token_a_mint_ends_the_one_before() {
    let (issuer, clock) = issuer(|config| config.one_valid = true).await;
    mint(&issuer).await;
    assert_eq!(use_token(&issuer, "t-1").await, (204, Value::Null));
    mint(&issuer).await;
    assert_eq!(use_token(&issuer, "t-1").await, (401, json!("replaced")));
    assert_eq!(use_token(&issuer, "t-2").await, (204, Value::Null));
    assert_eq!(use_token(&issuer, "t-9").await, (401, json!("unknown")));
    assert_eq!(issuer.score().most_valid_at_once, 1);
    clock.advance(60 * MINUTE);
    assert_eq!(use_token(&issuer, "t-2").await, (401, json!("expired")));
    let uses = issuer.score().uses;
    assert_eq!((uses["ok"], uses["replaced"], uses["unknown"], uses["expired"]), (2, 1, 1, 1));
}

#[tokio::test]
async fn two_mints_in_progress_at_once_are_seen_and_with_one_valid_token_are_a_violation() {
    let (issuer, _clock) = issuer(|config| {
        config.one_valid = true;
        config.faults = Plan::next(1, Fault::Hang { minted: false });
    })
    .await;
    let mut hung = Box::pin(plain(issuer.addr(), "POST", "/mint", &[], ""));
    until("the first call is in progress", || {
        assert!(hung.as_mut().now_or_never().is_none());
        issuer.score().calls == 1
    })
    .await;
    assert_eq!(mint(&issuer).await.status, 200);
    let score = issuer.score();
    assert_eq!((score.in_flight_max, score.violations), (2, 1));
    assert_eq!(score.violation_list[0].kind, ViolationKind::Concurrent);
    drop(hung);
}

#[tokio::test]
async fn an_idempotency_key_gives_its_token_again_and_counts_once_if_it_is_honoured() {
    let (honest, _clock) = issuer(|config| {
        config.honours_idempotency = true;
        config.min_interval = Some(20 * MINUTE);
    })
    .await;
    let first = mint_as(&honest, "g1").await;
    assert_eq!(mint_as(&honest, "g1").await, first);
    let score = honest.score();
    assert_eq!((score.calls, score.mints, score.replays, score.violations), (2, 1, 1, 0));
    assert_eq!(score.call_list[1].outcome, Outcome::Replayed);
    assert_eq!(score.call_list[1].idempotency_key.as_deref(), Some("g1"));
    assert_eq!(mint_as(&honest, "g2").await["error"], "too soon");

    let (deaf, _clock) = issuer(|_| {}).await;
    assert_ne!(mint_as(&deaf, "g1").await, mint_as(&deaf, "g1").await);
    assert_eq!(deaf.score().mints, 2);
    let long = "k".repeat(257);
    let answer = plain(deaf.addr(), "POST", "/mint", &[("idempotency-key", &long)], "").await.unwrap();
    assert_eq!((answer.status.as_u16(), deaf.score().calls), (400, 2));
}

#[tokio::test]
async fn a_lost_answer_has_minted_and_can_be_asked_for_again_by_its_key() {
    let (issuer, _clock) = issuer(|config| {
        config.honours_idempotency = true;
        config.faults = Plan::next(1, Fault::DropAfterCount);
    })
    .await;
    assert!(plain(issuer.addr(), "POST", "/mint", &[("idempotency-key", "g1")], "").await.is_err());
    assert_eq!((issuer.score().mints, issuer.score().faults["drop-after-count"]), (1, 1));
    assert_eq!(mint_as(&issuer, "g1").await["token"], "t-1");
    assert_eq!(issuer.score().mints, 1);
}

#[tokio::test]
async fn faults_before_the_mint_leave_nothing_behind() {
    let (issuer, _clock) = issuer(|_| {}).await;
    let failed = spoil(&issuer, Fault::Fail { status: 503, retry_after_s: Some(7) }).await.unwrap();
    assert_eq!((failed.status.as_u16(), failed.header("retry-after")), (503, "7"));
    let failed = spoil(&issuer, Fault::Fail { status: 403, retry_after_s: None }).await.unwrap();
    assert_eq!((failed.status.as_u16(), failed.header("retry-after")), (403, ""));
    assert!(spoil(&issuer, Fault::DropBefore).await.is_err());
    let score = issuer.score();
    assert_eq!((score.calls, score.mints), (3, 0));
    assert!(score.call_list.iter().all(|call| call.outcome == Outcome::Nothing));
}

#[tokio::test]
async fn unreadable_answers_have_minted() {
    let (issuer, _clock) = issuer(|_| {}).await;
    let garbage = spoil(&issuer, Fault::Garbage).await.unwrap();
    assert!(garbage.status == 200 && serde_json::from_slice::<Value>(&garbage.body).is_err());
    assert_eq!(spoil(&issuer, Fault::Empty).await.unwrap().body.len(), 0);
    let big = spoil(&issuer, Fault::TooBig { bytes: 2 << 20 }).await.unwrap();
    assert!(big.body.len() > 2 << 20 && big.json()["token"] == "t-3");
    assert_eq!((issuer.score().mints, issuer.score().call_list[0].fault.as_deref()), (3, Some("garbage")));
}

#[tokio::test]
async fn a_cached_answer_is_the_old_token_with_the_old_end() {
    let (issuer, clock) = issuer(|_| {}).await;
    let first = mint(&issuer).await.json();
    clock.advance(50 * MINUTE);
    assert_eq!(spoil(&issuer, Fault::SameToken).await.unwrap().json(), first);
    assert_eq!((issuer.score().mints, issuer.score().call_list[1].outcome), (1, Outcome::Replayed));
    assert_ne!(mint(&issuer).await.json(), first);
}

#[tokio::test]
async fn an_end_can_be_zero_absent_past_or_nonsense() {
    let (issuer, _clock) = issuer(|_| {}).await;
    for (wrong, end) in [
        (WrongExpiry::Zero, json!(0)),
        (WrongExpiry::Absent, Value::Null),
        (WrongExpiry::Past, json!("2023-11-14T21:13:20Z")),
        (WrongExpiry::Nonsense, json!("the day after tomorrow")),
    ] {
        let body = spoil(&issuer, Fault::Expiry { wrong }).await.unwrap().json();
        assert_eq!(body.get("expires_at").cloned().unwrap_or_default(), end);
        assert!(body["token"].is_string());
    }
}

#[tokio::test]
async fn a_slow_issuer_answers_late_and_has_minted_at_once() {
    let (issuer, _clock) = issuer(|config| config.faults = Plan::slow(Duration::from_millis(40))).await;
    let begun = Instant::now();
    assert_eq!(mint(&issuer).await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn another_process_steers_it_over_http() {
    let (issuer, _clock) = issuer(|_| {}).await;
    let put = async |body: &str| plain(issuer.addr(), "PUT", "/faults", &[], body.to_owned()).await.unwrap().status;
    assert_eq!(put(r#"{"fault":{"kind":"fail","status":500},"next":1}"#).await, 204);
    assert_eq!(mint(&issuer).await.status, 500);
    assert_eq!(mint(&issuer).await.status, 200);
    assert_eq!(put(r#"{"fault":{"kind":"expiry","wrong":"absent"}}"#).await, 204);
    assert_eq!(mint(&issuer).await.json(), json!({"token": "t-2"}));
    assert_eq!(put("{}").await, 204);
    for bad in ["", "[]", r#"{"fault":{"kind":"fail"}}"#, r#"{"fault":{"kind":"fail","status":99}}"#] {
        assert_eq!(put(bad).await, 400, "{bad}");
    }
    let score = plain(issuer.addr(), "GET", "/score", &[], "").await.unwrap();
    assert_eq!(serde_json::from_slice::<Score>(&score.body).unwrap(), issuer.score());
    for (method, path, status) in [("GET", "/livez", 200), ("GET", "/mint", 405), ("GET", "/", 404)] {
        assert_eq!(plain(issuer.addr(), method, path, &[], "").await.unwrap().status.as_u16(), status);
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_counts_for_nothing() {
    let (issuer, _clock) = issuer(|_| {}).await;
    let mint_with = async |bytes: usize| plain(issuer.addr(), "POST", "/mint", &[], vec![b'x'; bytes]).await.unwrap();
    assert_eq!(mint_with(64 * 1024).await.status, 200);
    assert_eq!(mint_with(64 * 1024 + 1).await.status, 413);
    assert_eq!(issuer.score().calls, 1);
}

#[tokio::test]
async fn an_issuer_outside_loopback_is_refused() {
    let config = Config { bind: "0.0.0.0:0".parse().unwrap(), ..Config::default() };
    assert_eq!(upstream::start(config).await.err().unwrap().to_string(), "the address must be loopback: `0.0.0.0:0`");
}
