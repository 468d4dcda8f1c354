//! When a token may change, and how long it lives: both sides of every edge.

use std::time::Duration;

use serde_json::json;

use keyreeve_picky::apns::Scope;

use crate::client::*;

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn the_current_token_is_accepted_by_any_connection_as_often_as_it_comes() {
    let (apple, clock) = apple(|_| {}).await;
    let (one, two) = (Client::connect(&apple).await, Client::connect(&apple).await);
    let token = token(START_S);
    for _ in 0..3 {
        assert_eq!(one.push(&token).await, ok());
        assert_eq!(two.push(&token).await, ok());
        clock.advance(15 * MINUTE);
    }
}

#[tokio::test]
async fn a_new_token_is_refused_until_twenty_minutes_after_the_last_change() {
    let (apple, clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    assert_eq!(client.push(&token(START_S)).await, ok());
    clock.advance(20 * MINUTE - MS);
    assert_eq!(client.push(&token(START_S + 1)).await, no(429, "TooManyProviderTokenUpdates"));
    assert_eq!(client.push(&token(START_S)).await, ok(), "the current one still works");
    clock.advance(MS);
    assert_eq!(client.push(&token(START_S + 1)).await, ok());
}

#[tokio::test]
async fn a_refused_update_does_not_start_the_interval_again() {
    let (apple, clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    assert_eq!(client.push(&token(START_S)).await, ok());
    clock.advance(19 * MINUTE);
    assert_eq!(client.push(&token(START_S + 5)).await, no(429, "TooManyProviderTokenUpdates"));
    clock.advance(MINUTE);
    assert_eq!(client.push(&token(START_S + 5)).await, ok());
}

#[tokio::test]
async fn a_token_lives_sixty_minutes_and_not_a_millisecond_longer() {
    let (apple, clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let token = token(START_S);
    clock.advance(60 * MINUTE);
    assert_eq!(client.push(&token).await, ok());
    clock.advance(MS);
    let answer = client.send(notification(&token)).await.unwrap();
    assert_eq!(answer.said(), no(403, "ExpiredProviderToken"));
    assert_eq!(answer.json()["timestamp"], json!(clock.now_ms()));
}

#[tokio::test]
async fn a_token_from_the_future_is_invalid_beyond_the_tolerance() {
    let (apple, clock) = apple(|config| config.max_skew_future = 5 * Duration::from_secs(1)).await;
    let client = Client::connect(&apple).await;
    clock.set(START_MS - 5_001);
    assert_eq!(client.push(&token(START_S)).await, no(403, "InvalidProviderToken"));
    clock.advance(MS);
    assert_eq!(client.push(&token(START_S)).await, ok());
}

#[tokio::test]
async fn a_replaced_token_is_expired_at_once_and_for_ever() {
    let (apple, clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let (old, new) = (token(START_S), token(START_S + 1200));
    assert_eq!(client.push(&old).await, ok());
    clock.advance(20 * MINUTE);
    assert_eq!(client.push(&new).await, ok());
    assert_eq!(client.push(&old).await, no(403, "ExpiredProviderToken"));
    clock.advance(25 * MINUTE);
    assert_eq!(client.push(&old).await, no(403, "ExpiredProviderToken"), "young enough, but replaced");
    assert_eq!(client.push(&new).await, ok());
}

#[tokio::test]
async fn a_replaced_token_is_let_through_during_the_overlap_and_not_at_its_end() {
    let (apple, clock) = apple(|config| config.overlap = Duration::from_secs(10)).await;
    let client = Client::connect(&apple).await;
    let (old, new) = (token(START_S), token(START_S + 1200));
    assert_eq!(client.push(&old).await, ok());
    clock.advance(20 * MINUTE);
    assert_eq!(client.push(&new).await, ok());
    clock.advance(Duration::from_secs(10) - MS);
    assert_eq!(client.push(&old).await, ok());
    clock.advance(MS);
    assert_eq!(client.push(&old).await, no(403, "ExpiredProviderToken"));
    assert_eq!(client.push(&new).await, ok(), "the old one did not become current again");
}

#[tokio::test]
async fn an_older_token_never_replaces_a_newer_one() {
    let (apple, clock) = apple(|config| config.overlap = MINUTE).await;
    let client = Client::connect(&apple).await;
    assert_eq!(client.push(&token(START_S)).await, ok());
    assert_eq!(client.push(&token(START_S - 1)).await, no(403, "ExpiredProviderToken"), "it never was current");
    clock.advance(20 * MINUTE);
    assert_eq!(client.push(&token(START_S - 1)).await, no(403, "ExpiredProviderToken"));
}

#[tokio::test]
async fn two_tokens_of_one_second_are_two_tokens() {
    let (apple, clock) = apple(|_| {}).await;
    let client = Client::connect(&apple).await;
    let one = token(START_S);
    let two = sign(1, &json!({"alg": "ES256", "kid": KEY, "typ": "JWT"}), &json!({"iss": TEAM, "iat": START_S}));
    assert_eq!(client.push(&one).await, ok());
    assert_eq!(client.push(&two).await, no(429, "TooManyProviderTokenUpdates"));
    clock.advance(20 * MINUTE);
    assert_eq!(client.push(&two).await, ok());
    assert_eq!(client.push(&one).await, no(403, "ExpiredProviderToken"), "replaced, though not older");
}

#[tokio::test]
async fn a_team_counts_across_its_keys_and_connections() {
    let (apple, clock) = apple(|config| config.keys.push(key(TEAM, OTHER_KEY, 2))).await;
    let (one, two) = (Client::connect(&apple).await, Client::connect(&apple).await);
    let other = sign(2, &json!({"alg": "ES256", "kid": OTHER_KEY}), &json!({"iss": TEAM, "iat": START_S + 1}));
    assert_eq!(one.push(&token(START_S)).await, ok());
    clock.advance(MINUTE);
    assert_eq!(two.push(&other).await, no(429, "TooManyProviderTokenUpdates"));
}

#[tokio::test]
async fn per_connection_each_connection_has_its_own_current_token_and_its_own_interval() {
    let (apple, clock) = apple(|config| config.scope = Scope::Connection).await;
    let (one, two) = (Client::connect(&apple).await, Client::connect(&apple).await);
    clock.advance(MINUTE);
    assert_eq!(one.push(&token(START_S)).await, ok());
    assert_eq!(two.push(&token(START_S + 1)).await, ok());
    assert_eq!(one.push(&token(START_S + 1)).await, no(429, "TooManyProviderTokenUpdates"));
    assert_eq!(Client::connect(&apple).await.push(&token(START_S + 2)).await, ok(), "a new connection starts afresh");
    clock.advance(20 * MINUTE);
    assert_eq!(one.push(&token(START_S + 1)).await, ok());
}

#[tokio::test]
async fn a_connection_that_ended_is_forgotten() {
    let (apple, _clock) = apple(|config| config.scope = Scope::Connection).await;
    let (one, two) = (Client::connect(&apple).await, Client::connect(&apple).await);
    assert_eq!(one.push(&token(START_S)).await, ok());
    assert_eq!(two.push(&token(START_S)).await, ok());
    assert_eq!(apple.score().connections_open, 2);
    drop(one);
    until("the first connection is forgotten", || apple.score().connections_open == 1).await;
    assert_eq!(apple.score().connections, 2);
}

#[tokio::test]
async fn a_connection_belongs_to_the_team_of_its_first_token_and_teams_do_not_limit_each_other() {
    let (apple, _clock) = apple(|config| config.keys.push(key(OTHER_TEAM, OTHER_KEY, 2))).await;
    let other = sign(2, &json!({"alg": "ES256", "kid": OTHER_KEY}), &json!({"iss": OTHER_TEAM, "iat": START_S}));
    let (one, two) = (Client::connect(&apple).await, Client::connect(&apple).await);
    assert_eq!(one.push(&token(START_S)).await, ok());
    assert_eq!(one.push(&other).await, no(403, "InvalidProviderToken"));
    assert_eq!(two.push(&other).await, ok());
    let score = apple.score();
    assert_eq!((score.minted, score.allowed, score.most_valid_at_once), (2, 2, 1), "one at once for each team");
}
