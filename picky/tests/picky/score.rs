//! The score tells an orderly fleet from one in which every process mints for itself.

use std::time::Duration;

use serde_json::json;

use keyreeve_picky::apns::{Scope, Score};

use crate::client::*;

#[tokio::test]
async fn eight_nodes_with_one_token_that_changes_in_order_are_clean() {
    let (apple, clock) = apple(|_| {}).await;
    let mut nodes = Vec::new();
    for _ in 0..8 {
        nodes.push(Client::connect(&apple).await);
    }
    for generation in 0..4 {
        let token = token(START_S + generation * 1800);
        let pushes = nodes.iter().flat_map(|node| (0..8).map(|_| node.push(&token)));
        assert!(futures::future::join_all(pushes).await.iter().all(|said| *said == ok()));
        clock.advance(30 * MINUTE);
    }
    let score = apple.score();
    assert!(score.is_clean());
    assert_eq!((score.requests, score.ok, score.connections), (256, 256, 8));
    assert_eq!((score.minted, score.accepted_tokens, score.allowed), (4, 4, 4));
    assert_eq!((score.most_valid_at_once, score.most_valid_at_once_strict, score.stragglers), (1, 1, 0));
    assert_eq!(score.observed_ms, 90 * 60_000);
    assert_eq!((score.allowed_max, score.needed_min), (5, 2), "90 minutes: 1 + 4 full intervals; two lives of 60");
    let changed_at: Vec<i64> = score.changes.iter().map(|change| change.at_ms - START_MS).collect();
    assert_eq!(changed_at, [0, 1_800_000, 3_600_000, 5_400_000]);
    assert_eq!(score.changes[0].token, score.tokens[0].token);
}

#[tokio::test]
async fn eight_nodes_with_a_token_each_are_eight_at_once() {
    for scope in [Scope::Team, Scope::Connection] {
        let (apple, clock) = apple(|config| config.scope = scope).await;
        let mut nodes = Vec::new();
        for number in 0..8 {
            nodes.push((Client::connect(&apple).await, token(START_S + number)));
        }
        clock.advance(MINUTE);
        let mut said = Vec::new();
        for _ in 0..2 {
            for (node, token) in &nodes {
                said.push(node.push(token).await);
            }
        }
        let score = apple.score();
        assert!(!score.is_clean());
        assert_eq!((score.minted, score.allowed, score.most_valid_at_once), (8, 1, 8), "{scope:?}");
        let accepted = said.iter().filter(|said| **said == ok()).count();
        assert_eq!(accepted, if scope == Scope::Team { 2 } else { 16 });
        assert_eq!(score.accepted_tokens, if scope == Scope::Team { 1 } else { 8 });
        assert_eq!(score.changes.len() as u64, score.accepted_tokens);
        let refused = score.by_reason.get("TooManyProviderTokenUpdates").copied().unwrap_or_default();
        assert_eq!(refused, if scope == Scope::Team { 14 } else { 0 });
    }
}

/// A, then B twenty minutes later, then A again `late` after B, then B.
async fn late_by(late: Duration, handover: Duration) -> Score {
    let (apple, clock) = apple(|config| config.handover = handover).await;
    let client = Client::connect(&apple).await;
    let (old, new) = (token(START_S), token(START_S + 1200));
    assert_eq!(client.push(&old).await, ok());
    clock.advance(20 * MINUTE);
    assert_eq!(client.push(&new).await, ok());
    clock.advance(late);
    assert_eq!(client.push(&old).await, no(403, "ExpiredProviderToken"), "the window changes no answer");
    assert_eq!(client.push(&new).await, ok());
    apple.score()
}

#[tokio::test]
async fn an_old_token_after_its_successor_is_a_second_one_in_use() {
    let score = late_by(Duration::ZERO, Duration::ZERO).await;
    assert_eq!((score.most_valid_at_once, score.most_valid_at_once_strict, score.stragglers), (2, 2, 0));
    assert!(!score.is_clean());
}

#[tokio::test]
async fn within_the_handover_window_it_is_a_straggler_and_at_its_end_it_is_not() {
    let window = Duration::from_secs(5);
    let score = late_by(window - Duration::from_millis(1), window).await;
    assert_eq!((score.most_valid_at_once, score.most_valid_at_once_strict, score.stragglers), (1, 2, 1));
    assert_eq!((score.minted, score.allowed, score.tokens[0].stragglers), (2, 2, 1));
    assert!(score.is_clean());
    let score = late_by(window, window).await;
    assert_eq!((score.most_valid_at_once, score.stragglers), (2, 0));
}

#[tokio::test]
async fn a_handover_window_does_not_hide_a_third_token() {
    let (apple, clock) = apple(|config| config.handover = MINUTE).await;
    let client = Client::connect(&apple).await;
    clock.advance(MINUTE);
    for _ in 0..2 {
        for number in 0..3 {
            client.push(&token(START_S + number)).await;
        }
    }
    let score = apple.score();
    assert!(score.most_valid_at_once >= 2, "{score:?}");
    assert_eq!(score.most_valid_at_once_strict, 3);
}

#[tokio::test]
async fn a_token_minted_too_early_spoils_the_score_even_when_it_is_used_once() {
    let (apple, clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    assert_eq!(client.push(&token(START_S)).await, ok());
    clock.advance(MINUTE);
    assert_eq!(client.push(&token(START_S + 60)).await, no(429, "TooManyProviderTokenUpdates"));
    let score = apple.score();
    assert_eq!((score.minted, score.allowed, score.most_valid_at_once), (2, 1, 1));
    assert!(!score.is_clean());
}

#[tokio::test]
async fn a_token_used_past_its_life_or_before_its_time_is_not_valid_at_once_with_another() {
    let (apple, clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let (old, new) = (token(START_S), token(START_S + 3601));
    assert_eq!(client.push(&old).await, ok());
    assert_eq!(client.push(&new).await, no(403, "InvalidProviderToken"));
    clock.advance(Duration::from_secs(3601));
    assert_eq!(client.push(&new).await, ok());
    assert_eq!(client.push(&old).await, no(403, "ExpiredProviderToken"));
    let score = apple.score();
    assert_eq!((score.most_valid_at_once_strict, score.minted, score.allowed), (1, 2, 2));
    let rows: Vec<_> = score.tokens.iter().map(|row| (row.presentations, row.accepted, row.rejected)).collect();
    assert_eq!(rows, [(2, 1, 1), (2, 1, 1)]);
}

#[tokio::test]
async fn the_score_never_holds_a_token_and_survives_json() {
    let (apple, _clock) = apple(|_| {}).await;
    let token = token(START_S);
    assert_eq!(Client::connect(&apple).await.push(&token).await, ok());
    let score = apple.score();
    let text = serde_json::to_string(&score).unwrap();
    for part in token.split('.') {
        assert!(!text.contains(part));
    }
    assert_eq!(serde_json::from_str::<Score>(&text).unwrap(), score);
    assert_eq!(score.tokens[0].token.len(), 12);
    assert_eq!((score.tokens[0].key_id.as_str(), score.tokens[0].iat), (KEY, START_S));
    let typed = sign(1, &json!({"alg": "ES256", "kid": KEY, "typ": "JWT"}), &json!({"iss": TEAM, "iat": START_S}));
    Client::connect(&apple).await.push(&typed).await;
    assert_ne!(apple.score().tokens[1].token, score.tokens[0].token, "one second, two tokens, two names");
}

#[tokio::test]
async fn an_untouched_fake_has_an_empty_and_clean_score() {
    let (apple, _clock) = apple(|_| {}).await;
    let score = apple.score();
    assert_eq!(score, Score { now_ms: START_MS, ..Score::default() });
    assert!(score.is_clean());
}
