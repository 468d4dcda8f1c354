//! Every kind of problem, from its real cause, as a caller sees it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use insta::assert_snapshot;
use keyreeve::config::Keep;
use keyreeve::core::record::FaultClass;
use keyreeve::http::PROBLEMS;

use crate::http_world::{Behaviour, MINUTE, SECOND, Wire, World, pass, request};

const TOKEN: &str = "/v1/credentials/push/token";

#[tokio::test(start_paused = true)]
async fn strangers_and_callers_without_rights_are_told_little() {
    let world = World::new();
    assert_snapshot!("unauthenticated", world.get(TOKEN, "").await);
    assert_snapshot!("forbidden", world.post("/v1/credentials/push/renew", "worker", "{}").await);
    assert_snapshot!("not_found", world.get("/v1/credentials/unheard-of/token", "ops").await);
    assert_snapshot!("no_such_path", world.get("/v1/tokenz", "").await);
    assert_snapshot!("no_such_method", world.send(request("PUT", TOKEN, "").body(Body::empty()).unwrap()).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_a_503_and_its_cause_stays_inside() {
    let world = World::new();
    world.unplug_store();
    let token = world.get(TOKEN, "ops").await;
    assert!(!token.to_string().contains("/var/lib"), "{token}");
    assert_snapshot!("store_unavailable_token", token);
    for action in ["renew", "report", "resolve"] {
        let body = match action {
            "renew" => "",
            "report" => r#"{"generation":1,"upstream_status":403}"#,
            _ => r#"{"decision":"adopt"}"#,
        };
        let answer = world.post(&format!("/v1/credentials/push/{action}"), "ops", body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "store-unavailable"));
        assert!(!answer.body.contains("/var/lib"), "{answer}");
    }
    assert_snapshot!("store_unavailable_history", world.get("/v1/credentials/push/history", "ops").await);
    // A stranger learns nothing of it.
    assert_eq!(world.get(TOKEN, "").await.status, 401);
    world.plug_store();
    pass(5 * SECOND).await;
    assert_eq!(world.get(TOKEN, "ops").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_is_a_503_of_its_class() {
    for (name, class, retry_after_ms, message) in [
        ("upstream_failed", FaultClass::Transient, None, "the upstream answered 500"),
        ("upstream_throttled", FaultClass::Throttled, Some(90_500), "the upstream answered 429"),
        ("upstream_rejected", FaultClass::Terminal, None, "the upstream answered 403: InvalidProviderToken"),
        ("config_invalid", FaultClass::Misconfigured, None, "the key is no P-256 key"),
    ] {
        let world = World::new();
        world.upstream("push").set(Behaviour::Fail(class, retry_after_ms, message));
        let answer = world.get(TOKEN, "worker").await;
        assert_eq!(answer.problem(), name.replace('_', "-"));
        assert_snapshot!(name, answer);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_hangs_is_a_503_when_the_callers_time_is_over() {
    let world = World::new();
    world.upstream("push").set(Behaviour::Hang);
    let before = tokio::time::Instant::now();
    assert_snapshot!("upstream_timeout", world.get(TOKEN, "worker").await);
    // `push` lets its callers wait for three seconds.
    assert_eq!(before.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn doubt_is_a_503_to_callers_and_a_conflict_to_operators() {
    let world = World::new();
    for name in ["push", "refresh"] {
        world.upstream(name).set(Behaviour::LoseAnswer);
    }
    assert_snapshot!("in_doubt_token", world.get(TOKEN, "worker").await);
    assert_snapshot!("in_doubt_renew", world.post("/v1/credentials/push/renew", "ops", "{}").await);
    assert_snapshot!("needs_reauth", world.get("/v1/credentials/refresh/token", "ops").await);
    let verdict = r#"{"decision":"discard"}"#;
    world.upstream("push").set(Behaviour::Mint);
    assert_eq!(world.post("/v1/credentials/push/resolve", "ops", verdict).await.status, 202);
    pass(MINUTE).await;
    let nothing = world.post("/v1/credentials/push/resolve", "ops", verdict).await;
    assert_snapshot!("conflict", nothing);
}

#[tokio::test(start_paused = true)]
async fn too_soon_and_too_short_say_when() {
    let world = World::new();
    world.get(TOKEN, "worker").await;
    assert_snapshot!("renewal_too_soon", world.post("/v1/credentials/push/renew", "ops", "{}").await);
    assert_snapshot!("life_too_short", world.get(&format!("{TOKEN}?min_ttl=2h"), "worker").await);
    assert_snapshot!("slots_are_not_renewed", world.post("/v1/credentials/slotted/renew", "ops", "{}").await);
}

/// A record sealed with a key that this node does not have, and one that is damaged.
#[tokio::test(start_paused = true)]
async fn a_lost_seal_key_and_a_damaged_record_are_named() {
    let wire = Arc::<Wire>::default();
    World::on(Arc::clone(&wire)).get(TOKEN, "worker").await;
    let world = World::on(Arc::clone(&wire));
    world.api.reload(world.node.live(Keep::OnDemand { lifetimes: 3 }, [8; 32], None));
    let answer = world.get(TOKEN, "worker").await;
    assert_eq!(answer.status, 503);
    assert_snapshot!("seal_key_missing", answer);
    wire.damage_everything().await;
    let world = World::on(wire);
    assert_snapshot!("record_refused", world.get(TOKEN, "worker").await);
    assert_eq!(world.get("/v1/credentials/push/history", "ops").await.problem(), "record-refused");
}

#[test]
fn an_upstreams_or_a_stores_failure_is_never_a_client_error() {
    let names: BTreeSet<_> = PROBLEMS.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), PROBLEMS.len(), "two kinds share a name");
    for kind in PROBLEMS {
        let is_ours =
            ["store-", "upstream-", "seal-", "record-", "config-"].iter().any(|part| kind.name.starts_with(part));
        assert!(!is_ours || kind.status == 503, "{}", kind.name);
        assert!(!kind.is_safe_to_retry || kind.status != 401);
    }
}
