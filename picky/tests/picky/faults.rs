//! What goes wrong on demand: counted first, then spoiled.

use std::time::{Duration, Instant};

use futures::FutureExt as _;

use keyreeve_picky::apns::{Fault, Faults};
use keyreeve_picky::faults::{DELAY_MS_MAX, Plan};

use crate::client::*;

#[tokio::test]
async fn a_hung_request_gets_no_answer_while_others_on_its_connection_do() {
    let (apple, _clock) = apple(|config| config.faults = Plan::next(1, Fault::Hang)).await;
    let client = Client::connect(&apple).await;
    let token = token(START_S);
    let mut hung = Box::pin(client.send(notification(&token)));
    assert!(hung.as_mut().now_or_never().is_none());
    until("the first request has arrived", || {
        assert!(hung.as_mut().now_or_never().is_none());
        apple.score().requests == 1
    })
    .await;
    assert_eq!(client.push(&token).await, ok());
    assert!(hung.as_mut().now_or_never().is_none());
    let score = apple.score();
    assert_eq!((score.requests, score.ok, score.faults["hang"]), (2, 1, 1));
    assert_eq!(score.tokens[0].presentations, 2, "the hung one counts too");
}

#[tokio::test]
async fn a_dropped_connection_answers_nobody_and_has_counted_the_token() {
    let (apple, _clock) = apple(|config| config.faults = Plan::next(1, Fault::Drop)).await;
    let client = Client::connect(&apple).await;
    assert!(client.send(notification(&token(START_S))).await.is_err());
    assert!(client.send(notification(&token(START_S))).await.is_err(), "the connection is gone, not only the stream");
    let score = apple.score();
    assert_eq!((score.requests, score.ok, score.faults["drop"]), (1, 0, 1));
    assert_eq!(score.tokens[0].accepted, 1);
    let again = Client::connect(&apple).await;
    assert_eq!(
        again.push(&token(START_S + 1)).await,
        no(429, "TooManyProviderTokenUpdates"),
        "the lost one is current"
    );
}

#[tokio::test]
async fn an_error_or_garbage_replaces_the_answer_as_often_as_planned() {
    let (apple, _clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let token = token(START_S);
    let cases = [
        (Fault::Status { status: 500 }, no(500, "InternalServerError")),
        (Fault::Status { status: 503 }, no(503, "ServiceUnavailable")),
        (Fault::Status { status: 429 }, no(429, "TooManyRequests")),
        (Fault::Garbage { status: 403 }, no(403, "")),
    ];
    for (fault, said) in cases {
        apple.set_faults(Plan::next(2, fault)).unwrap();
        for said in [said.clone(), said, ok()] {
            assert_eq!(client.push(&token).await, said);
        }
    }
    let score = apple.score();
    assert_eq!((score.requests, score.ok), (12, 4));
    assert_eq!((score.faults["status"], score.faults["garbage"], score.by_reason["garbage"]), (6, 2, 2));
    assert_eq!(score.tokens[0].accepted, 12);
}

#[tokio::test]
async fn a_slow_answer_is_a_correct_one_that_takes_its_time() {
    let (apple, _clock) = apple(|config| config.faults = Plan::slow(Duration::from_millis(40))).await;
    let client = Client::connect(&apple).await;
    let begun = Instant::now();
    assert_eq!(client.push(&token(START_S)).await, ok());
    assert!(begun.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn faults_end_when_they_are_cleared_and_senseless_ones_change_nothing() {
    let (apple, _clock) = apple(|config| config.faults = Plan::always(Fault::Status { status: 500 })).await;
    let client = Client::connect(&apple).await;
    let token = token(START_S);
    let senseless = [
        Plan { probability: -0.1, ..Faults::default() },
        Plan { delay_ms: DELAY_MS_MAX + 1, ..Faults::default() },
        Plan::always(Fault::Status { status: 200 }),
        Plan::always(Fault::Status { status: 600 }),
        Plan::always(Fault::Garbage { status: 199 }),
    ];
    for faults in senseless {
        assert!(apple.set_faults(faults).is_err());
        assert_eq!(client.push(&token).await, no(500, "InternalServerError"));
    }
    apple.set_faults(Faults::default()).unwrap();
    assert_eq!(client.push(&token).await, ok());
}
