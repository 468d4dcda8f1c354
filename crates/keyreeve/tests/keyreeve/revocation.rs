//! Revocations on several nodes: how soon, what happens without the store, and after a store that forgot.

use std::sync::atomic::Ordering;

use keyreeve::config::{OnStale, RevocationConfig};
use keyreeve::core::time::Timestamp;
use keyreeve::revocation::{Credentials, JwtId, Lifetime, Refusing, Revocation, Revocations, What};

use crate::http_world::{EPOCH_MS, HOUR, MINUTE, SECOND};
use crate::revocation_world::{DENY, Fleet, token, token_revoked};

const ISSUER: &str = "https://issuer.example";

#[tokio::test(start_paused = true)]
async fn what_is_revoked_on_one_node_is_refused_there_at_once_and_everywhere_within_the_bound() {
    let fleet = Fleet::new(&["a", "b", "c"], DENY);
    fleet.pass(10).await;
    let before = fleet.node("a").epoch();
    let receipt = fleet.revoke("a", "t7").await;
    assert!(fleet.refuses("a", "t7") && fleet.node("a").epoch() > before && receipt.epoch == fleet.node("a").epoch());
    fleet.pass(DENY.max_staleness_ms / 4 + 1).await;
    for (name, node) in fleet.nodes() {
        assert_eq!(node.epoch(), receipt.epoch, "{name}");
        assert!(fleet.refuses(name, "t7") && !fleet.refuses(name, "t8"), "{name}");
    }
    // The same again is the same receipt.
    assert_eq!(fleet.revoke("b", "t7").await, receipt);
}

#[tokio::test(start_paused = true)]
async fn a_node_reads_one_key_four_times_in_the_bound_however_much_is_revoked() {
    let fleet = Fleet::new(&["a"], DENY);
    fleet.pass(10).await;
    for n in 0..100 {
        fleet.revoke("a", &format!("t{n}")).await;
    }
    let before = fleet.store.reads.load(Ordering::SeqCst);
    fleet.pass(10 * SECOND).await;
    let reads = fleet.store.reads.load(Ordering::SeqCst) - before;
    assert!((38..=42).contains(&reads), "{reads}");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_news_denies_after_the_bound_and_not_before_and_recovers_by_itself() {
    let fleet = Fleet::new(&["a", "b"], DENY);
    assert!(!fleet.is_fresh("a"), "nothing has been read yet");
    fleet.pass(1).await;
    assert!(fleet.is_fresh("a"));
    fleet.store.is_away.store(true, Ordering::SeqCst);
    let mut last_fresh = 0;
    for ms in 0..1500 {
        if fleet.is_fresh("a") {
            last_fresh = ms;
        }
        fleet.pass(1).await;
    }
    assert!((700..=1001).contains(&last_fresh), "{last_fresh}");
    let health = fleet.node("a").health();
    assert!(health.is_stale && health.fault.as_deref().is_some_and(|fault| fault.contains("unplugged")), "{health:?}");
    let stale = fleet.node("a").fresh(fleet.host.now()).unwrap_err();
    assert!(stale.to_string().contains("more than `max_staleness` 1s"), "{stale}");
    fleet.store.is_away.store(false, Ordering::SeqCst);
    fleet.pass(251).await;
    assert!(fleet.is_fresh("a") && fleet.node("a").health().fault.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_told_to_allow_goes_on_by_what_it_knows_and_says_so() {
    let fleet = Fleet::new(&["a"], RevocationConfig { on_stale: OnStale::Allow, ..DENY });
    fleet.pass(10).await;
    fleet.revoke("a", "t1").await;
    fleet.store.is_away.store(true, Ordering::SeqCst);
    fleet.pass(10 * SECOND).await;
    assert!(fleet.is_fresh("a") && fleet.refuses("a", "t1"));
    assert!(fleet.node("a").health().is_stale);
}

/// It cannot go on by what it knows: it knows nothing.
#[tokio::test(start_paused = true)]
async fn a_node_that_starts_without_the_store_refuses_until_its_first_read_whatever_it_is_told() {
    let allow = RevocationConfig { on_stale: OnStale::Allow, ..DENY };
    let mut fleet = Fleet::new(&["a"], allow);
    fleet.pass(10).await;
    fleet.revoke("a", "t1").await;
    fleet.store.is_away.store(true, Ordering::SeqCst);
    fleet.start("b");
    fleet.pass(MINUTE).await;
    let stale = fleet.node("b").fresh(fleet.host.now()).unwrap_err();
    assert_eq!(stale.to_string(), "what is revoked has not been read yet");
    assert!(fleet.is_fresh("a"));
    fleet.store.is_away.store(false, Ordering::SeqCst);
    fleet.pass(SECOND).await;
    assert!(fleet.is_fresh("b") && fleet.refuses("b", "t1"));
    // From then on as it is told, a reload included.
    fleet.store.is_away.store(true, Ordering::SeqCst);
    fleet.pass(MINUTE).await;
    let reloaded = Revocations::start(fleet.parts("b"), allow, Some(fleet.node("b")));
    assert!(fleet.is_fresh("b") && reloaded.fresh(fleet.host.now()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn receipts_name_each_node_and_its_millisecond_and_wait_for_the_last() {
    let mut fleet = Fleet::new(&["a", "b", "c"], RevocationConfig { on_stale: OnStale::Allow, ..DENY });
    fleet.pass(SECOND).await;
    let receipt = fleet.revoke("b", "t1").await;
    let receipts = fleet.node("a").receipts(receipt.id, 2 * SECOND).await.unwrap().unwrap();
    assert!(receipts.is_complete() && receipts.nodes.len() == 3, "{receipts:?}");
    for node in &receipts.nodes {
        let Refusing::Since { after_ms, .. } = node.refusing else { panic!("{node:?}") };
        assert!(after_ms <= 251, "{node:?}");
    }
    // A node that is gone without a word holds up nobody for ever, but it is not taken for one that refuses.
    fleet.kill("c");
    let receipt = fleet.revoke("a", "t2").await;
    let receipts = fleet.node("a").receipts(receipt.id, SECOND).await.unwrap().unwrap();
    assert!(!receipts.is_complete(), "{receipts:?}");
    assert_eq!(receipts.nodes[2].refusing, Refusing::NotYet);
    fleet.pass(MINUTE).await;
    let receipts = fleet.node("a").receipts(receipt.id, 0).await.unwrap().unwrap();
    assert_eq!(receipts.nodes[2].refusing, Refusing::Silent);
    // One that said goodbye is not waited for.
    fleet.node("b").leave().await;
    let receipt = fleet.revoke("a", "t3").await;
    let receipts = fleet.node("a").receipts(receipt.id, 0).await.unwrap().unwrap();
    assert!(receipts.nodes.iter().all(|node| node.node.as_str() != "b"), "{receipts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_that_denies_without_news_counts_as_refusing_by_then() {
    let mut fleet = Fleet::new(&["a", "b"], DENY);
    fleet.pass(SECOND).await;
    fleet.kill("b");
    let receipt = fleet.revoke("a", "t1").await;
    let began = fleet.host.now().mono;
    let receipts = fleet.node("a").receipts(receipt.id, 10 * SECOND).await.unwrap().unwrap();
    assert!(receipts.is_complete(), "{receipts:?}");
    assert_eq!(receipts.nodes[1].refusing, Refusing::ByAge);
    // Not before its own news were certainly too old, by clocks that differ by `skew` at the most.
    let waited_ms = fleet.host.now().mono.since(began);
    assert!((3000..3200).contains(&waited_ms), "{waited_ms}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_knows_what_was_revoked_before_it_accepts_anything() {
    let mut fleet = Fleet::new(&["a"], DENY);
    fleet.pass(10).await;
    let epoch = fleet.revoke("a", "t1").await.epoch;
    fleet.kill("a");
    fleet.start("a");
    assert!(!fleet.is_fresh("a"));
    fleet.pass(1).await;
    assert!(fleet.is_fresh("a") && fleet.refuses("a", "t1") && fleet.node("a").epoch() == epoch);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_vanished_or_went_back_is_taught_again_by_whoever_remembers() {
    for is_empty in [true, false] {
        let mut fleet = Fleet::new(&["a", "b"], DENY);
        fleet.pass(10).await;
        fleet.revoke("a", "t1").await;
        let backup = if is_empty { Vec::new() } else { fleet.store.backup().await };
        let receipt = fleet.revoke("a", "t2").await;
        fleet.pass(300).await;
        fleet.store.restore(&backup).await;
        let epochs: Vec<u64> = (0..500).map(|_| fleet.node("b").epoch()).collect();
        fleet.pass(600).await;
        for name in ["a", "b"] {
            assert!(fleet.refuses(name, "t1") && fleet.refuses(name, "t2"), "{name}");
            let epoch = fleet.node(name).epoch();
            assert!(epoch > receipt.epoch && epoch >= *epochs.last().unwrap() && epoch < receipt.epoch + 5, "{epoch}");
            assert!(fleet.node(name).health().lost_since.is_none());
        }
        // A node that has never known finds it there.
        fleet.start("c");
        fleet.pass(1).await;
        assert!(fleet.refuses("c", "t1") && fleet.refuses("c", "t2"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_and_then_forward_on_another_way_loses_nothing() {
    let mut fleet = Fleet::new(&["a"], DENY);
    fleet.pass(10).await;
    fleet.revoke("a", "t0").await;
    let backup = fleet.store.backup().await;
    fleet.revoke("a", "t1").await;
    fleet.store.restore(&backup).await;
    // Before `a` looks again, somebody who knows nothing of `t1` writes as many times as it did.
    fleet.start("b");
    fleet.pass(1).await;
    fleet.revoke("b", "t2").await;
    fleet.pass(SECOND).await;
    for name in ["a", "b"] {
        assert!(["t0", "t1", "t2"].iter().all(|id| fleet.refuses(name, id)), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_nobody_remembers_is_said_until_somebody_answers() {
    let mut fleet = Fleet::new(&["a", "b"], DENY);
    fleet.pass(10).await;
    fleet.revoke("a", "t0").await;
    let backup = fleet.store.backup().await;
    fleet.revoke("a", "t1").await;
    fleet.pass(SECOND).await;
    // The log goes back, what the nodes have written about it does not.
    let mut mixed = fleet.store.backup().await;
    for (key, entry) in &mut mixed {
        if key.as_str() == "rl/all" {
            *entry = backup.iter().find(|(old, _)| old == key).unwrap().1.clone();
        }
    }
    fleet.kill("a");
    fleet.kill("b");
    fleet.store.restore(&mixed).await;
    fleet.start("a");
    fleet.pass(3 * SECOND).await;
    let health = fleet.node("a").health();
    assert!(health.lost_since.is_some() && health.epoch > 2, "{health:?}");
    assert!(fleet.refuses("a", "t0") && !fleet.refuses("a", "t1"));
    fleet.start("b");
    fleet.pass(SECOND).await;
    assert!(fleet.node("b").health().lost_since.is_some(), "every node says so");
    // A verdict from before the loss rests on nothing, and the token's own record decides.
    assert_eq!(fleet.node("b").again(2, &token("t1")), Err(None));
    assert!(fleet.node("b").answer_loss("ann").await.unwrap() && !fleet.node("b").answer_loss("ann").await.unwrap());
    assert!(fleet.node("b").health().lost_since.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_no_second_revocation() {
    let fleet = Fleet::new(&["a", "b"], DENY);
    fleet.pass(10).await;
    fleet.store.loses_answers.store(true, Ordering::SeqCst);
    let receipt = fleet.revoke("a", "t1").await;
    fleet.store.loses_answers.store(false, Ordering::SeqCst);
    assert_eq!(receipt.epoch, 1);
    fleet.pass(300).await;
    assert!(fleet.refuses("a", "t1") && fleet.refuses("b", "t1") && fleet.node("b").epoch() == 1);
}

#[tokio::test(start_paused = true)]
async fn many_who_revoke_at_once_all_succeed() {
    let fleet = Fleet::new(&["a", "b", "c", "d"], DENY);
    fleet.pass(10).await;
    let names = ["a", "b", "c", "d"];
    let ids: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
    let all = ids.iter().enumerate().map(|(n, id)| fleet.revoke(names[n % 4], id));
    let receipts = futures::future::join_all(all).await;
    fleet.pass(300).await;
    for name in names {
        assert!(ids.iter().all(|id| fleet.refuses(name, id)));
    }
    assert_eq!(receipts.len(), 40);
}

fn jwt<'a>(jti: &'a str, subject: &'a str, kid: &'a str, issued_at_s: u64) -> Credentials<'a> {
    Credentials::Jwt {
        issuer: ISSUER,
        token: JwtId::Id(jti),
        subject: Some(subject),
        kid: Some(kid),
        issued_at: Some(Timestamp(issued_at_s * 1000)),
    }
}

async fn revoke(node: &Revocations, what: What<'_>, issued_by: Option<Timestamp>) {
    node.revoke(Revocation { what, issued_by, lifetime: Lifetime::Kept, label: None }, "ann").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn jwts_are_refused_by_id_subject_key_and_age_and_their_neighbours_are_not() {
    let fleet = Fleet::new(&["a"], DENY);
    fleet.pass(10).await;
    let (node, now_s) = (fleet.node("a"), EPOCH_MS / 1000);
    let is = |token| node.is_revoked(&token).is_some();
    revoke(node, What::Jwt { issuer: ISSUER, token: JwtId::Id("j1") }, None).await;
    assert!(is(jwt("j1", "s", "k", now_s)) && !is(jwt("j2", "s", "k", now_s)));
    revoke(node, What::Subject { issuer: ISSUER, subject: "ann" }, None).await;
    assert!(is(jwt("j2", "ann", "k", now_s)), "issued before");
    assert!(is(jwt("j2", "ann", "k", now_s + 2)), "by a clock that is ahead");
    assert!(!is(jwt("j2", "ann", "k", now_s + 3)), "logged in again");
    revoke(node, What::Key { issuer: ISSUER, kid: "bad" }, None).await;
    assert!(is(jwt("j3", "s", "bad", now_s + 9999)) && !is(jwt("j3", "s", "good", now_s)));
    let hour = Timestamp(EPOCH_MS - HOUR);
    revoke(node, What::Issuer { issuer: ISSUER }, Some(hour)).await;
    assert!(is(jwt("j4", "s", "k", now_s - 3600)) && !is(jwt("j4", "s", "k", now_s - 3599)));
    // Another issuer's are others.
    let other = Credentials::Jwt {
        issuer: "https://other.example",
        token: JwtId::Id("j1"),
        subject: Some("ann"),
        kid: Some("bad"),
        issued_at: None,
    };
    assert!(!is(other));
    // One that does not say when it was issued may have been issued before.
    let undated = Credentials::Jwt {
        issuer: ISSUER,
        token: JwtId::Signed("h.p"),
        subject: Some("bob"),
        kid: None,
        issued_at: None,
    };
    assert!(is(undated));
}

#[tokio::test(start_paused = true)]
async fn an_open_revocation_is_there_for_the_next_node_until_it_is_settled() {
    let mut fleet = Fleet::new(&["a"], DENY);
    fleet.pass(10).await;
    let target = Revocation {
        what: What::Target { tenant: "cdn", target: "t1" },
        issued_by: None,
        lifetime: Lifetime::Settled,
        label: Some("cdn/t1"),
    };
    fleet.node("a").revoke(target, "ann").await.unwrap();
    assert!(fleet.refuses("a", "any"));
    fleet.kill("a");
    fleet.start("b");
    fleet.pass(HOUR).await;
    let open = fleet.node("b").open();
    assert_eq!(open.iter().map(|open| open.label.as_deref().unwrap()).collect::<Vec<_>>(), ["cdn/t1"]);
    fleet.node("b").settle(&open[0]).await.unwrap();
    fleet.node("b").settle(&open[0]).await.unwrap();
    assert!(fleet.node("b").open().is_empty() && fleet.refuses("b", "any"), "caches still have to hear of it");
    // Deleted again, it is open again.
    fleet.pass(MINUTE).await;
    fleet.node("b").revoke(target, "ann").await.unwrap();
    assert_eq!(fleet.node("b").open().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_records_of_tokens_say_too_makes_room_and_old_verdicts_are_void_then() {
    let fleet = Fleet::new(&["a"], DENY);
    fleet.pass(10).await;
    let node = fleet.node("a");
    let first = fleet.revoke("a", "t0").await;
    for n in 1..2500 {
        node.revoke(token_revoked(&format!("t{n}")), "ann").await.unwrap();
    }
    assert!(node.health().entries <= 1800 && node.floor() >= first.epoch);
    assert_eq!(node.again(first.epoch - 1, &token("t0")), Err(None));
    assert_eq!(node.again(node.epoch(), &token("never")), Ok(node.epoch()));
    assert!(matches!(node.again(node.floor(), &token("t2499")), Err(Some(_))));
}
