//! The requirements, one test each, on the shipped driver. Those that need real processes are in
//! `crates/server/tests/server/`.

use std::sync::Arc;
use std::time::Duration;

use keyreeve::core::lifecycle::Why;
use keyreeve::core::operator::Status;
use keyreeve::core::quiet::Quiet;
use keyreeve::core::record::FaultClass;
use keyreeve::core::rules::Rules;
use keyreeve::engine::memory::Memory;
use keyreeve::error::ErrorKind;
use keyreeve::port::Host as _;
use keyreeve::source::{Fields, Source};

use crate::fleet::{Behaviour, Fleet, For, HOUR, MINUTE, SECOND, StoreFault, exclusive, lease};

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Asks every node once a second for `ms`; returns the answers that were no token.
async fn ask_for(fleet: &Fleet, ms: u64) -> usize {
    let mut refused = 0;
    for _ in 0..ms / SECOND {
        for node in &fleet.nodes {
            refused += usize::from(node.token().await.is_err());
        }
        pass(SECOND).await;
    }
    refused
}

fn gaps(times: &[u64]) -> Vec<u64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn r2_a_failing_upstream_is_called_ever_less_often_by_the_whole_fleet() {
    for (behaviour, most) in [
        (Behaviour::Fail(FaultClass::Transient, None), 20),
        (Behaviour::Fail(FaultClass::Terminal, None), 6),
        (Behaviour::Fail(FaultClass::Throttled, Some(4 * MINUTE)), 4),
        (Behaviour::Hang, 20),
    ] {
        let fleet = Fleet::new(3, lease());
        fleet.upstream.set(behaviour.clone());
        assert!(ask_for(&fleet, 10 * MINUTE).await > 0);
        let calls = fleet.upstream.calls.lock().unwrap().clone();
        assert!((2..=most).contains(&calls.len()), "{behaviour:?}: {calls:?}");
        let gaps = gaps(&calls);
        let is_told = gaps.iter().all(|gap| *gap >= 4 * MINUTE);
        assert!(is_told || gaps.last() > gaps.first(), "{behaviour:?}: the gaps do not grow: {gaps:?}");
        // Success clears.
        fleet.upstream.set(Behaviour::Mint);
        pass(20 * MINUTE).await;
        let _ = fleet.nodes[0].token().await;
        pass(SECOND).await;
        assert!(fleet.nodes[0].token().await.is_ok(), "{behaviour:?}");
        assert_eq!(fleet.nodes[0].record().await.failure, None);
    }
}

#[tokio::test(start_paused = true)]
async fn r3_a_thousand_waiters_share_one_call_and_its_error() {
    let fleet = Fleet::new(1, lease());
    fleet.upstream.set(Behaviour::Fail(FaultClass::Transient, None));
    let started = tokio::time::Instant::now();
    let calls = (0..1000).map(|_| fleet.nodes[0].token());
    let errors: Vec<_> = futures::future::join_all(calls).await.into_iter().map(Result::unwrap_err).collect();
    assert!(started.elapsed() < Duration::from_millis(200 + 50), "{:?}", started.elapsed());
    assert_eq!(fleet.upstream.call_count(), 1);
    assert!(errors.iter().all(|error| error == &errors[0]));
    assert_eq!(errors[0].kind, ErrorKind::UpstreamFailed);
    assert!(errors[0].message.contains("the upstream answered 500"), "{}", errors[0].message);
}

#[tokio::test(start_paused = true)]
async fn r4_a_caller_that_goes_away_cancels_nothing() {
    let fleet = Fleet::new(1, lease());
    let first = tokio::time::timeout(Duration::from_millis(5), fleet.nodes[0].token());
    let others = (0..999).map(|_| fleet.nodes[0].token());
    let (first, others) = futures::future::join(first, futures::future::join_all(others)).await;
    assert!(first.is_err(), "the first caller should have given up after 5 ms");
    assert!(others.iter().all(Result::is_ok));
    assert_eq!(fleet.upstream.call_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn r5_a_reader_never_waits_while_a_valid_credential_exists() {
    let fleet = Fleet::new(1, lease());
    let node = &fleet.nodes[0];
    node.token().await.unwrap();
    fleet.upstream.set(Behaviour::Hang);
    // Into the lead, where the renewal hangs, up to a second before the end.
    for until in [52 * MINUTE, 58 * MINUTE, HOUR - 4 * SECOND] {
        pass(until - fleet.start.elapsed().as_millis() as u64).await;
        let before = tokio::time::Instant::now();
        assert_eq!(node.token().await.unwrap().generation, 1);
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    assert!(fleet.upstream.call_count() > 1, "the renewal should have been tried");
}

#[tokio::test(start_paused = true)]
async fn r6_an_outage_of_the_upstream_is_not_ours() {
    let rules = keyreeve::core::rules::Rules { lead_ms: 15 * MINUTE, ..lease() };
    let mut fleet = Fleet::new(2, rules);
    assert_eq!(ask_for(&fleet, 40 * MINUTE).await, 0);
    // Away from before the renewal falls due until well after.
    fleet.upstream.set(Behaviour::Fail(FaultClass::Transient, None));
    assert_eq!(ask_for(&fleet, 10 * MINUTE).await, 0);
    // A node that starts during the outage restores from the sealed record.
    assert_eq!(fleet.join().token().await.unwrap().generation, 1);
    fleet.upstream.set(Behaviour::Mint);
    assert_eq!(ask_for(&fleet, 20 * MINUTE).await, 0);
    assert!(fleet.nodes[2].token().await.unwrap().generation >= 2);
}

#[tokio::test(start_paused = true)]
async fn r7_an_expired_credential_is_refused_unless_its_policy_allows_it_and_then_it_is_marked() {
    for (stale_ms, is_served) in [(0, false), (HOUR, true)] {
        let fleet = Fleet::new(1, keyreeve::core::rules::Rules { stale_ms, ..lease() });
        let node = &fleet.nodes[0];
        node.token().await.unwrap();
        fleet.upstream.set(Behaviour::Fail(FaultClass::Transient, None));
        // The margin of one skew before expiry counts as expired.
        pass(HOUR + 200 - 2 * SECOND - 1 - fleet.start.elapsed().as_millis() as u64).await;
        assert!(!node.token().await.unwrap().is_stale);
        pass(3 * SECOND).await;
        let answer = node.token().await;
        assert_eq!(answer.is_ok(), is_served, "{answer:?}");
        if let Ok(served) = answer {
            assert!(served.is_stale);
            assert_eq!(served.left_ms, 0);
        }
        pass(HOUR + MINUTE).await;
        assert!(node.token().await.is_err(), "the policy is bounded");
    }
}

#[tokio::test(start_paused = true)]
async fn r8_the_moment_of_renewal_is_shown_and_lies_in_its_window() {
    let fleet = Fleet::new(1, lease());
    let node = &fleet.nodes[0];
    node.token().await.unwrap();
    pass(10).await;
    let state = node.outbound.state("push").unwrap();
    let left = state.expires_at.unwrap().since(state.refresh_at.unwrap());
    assert!((10 * MINUTE..=12 * MINUTE).contains(&left), "lead 10m and a jitter of at most 2m, not {left}");
    assert_eq!(state.status, Some(Status::Ready));
    assert_eq!(state.faults_absorbed, Some(23));
    let now = keyreeve::port::Host::now(node.host.as_ref()).wall;
    assert_eq!(state.why, Some(Why::Fresh), "and why it waits");
    assert_eq!(state.looks_at, state.refresh_at, "it looks when the renewal falls due");
    assert_eq!(state.renew_by, state.expires_at.map(|at| at.minus(lease().skew_ms)));
    assert!(now < state.looks_at.unwrap() && state.refresh_at < state.renew_by);
    let due_in = state.refresh_at.unwrap().since(keyreeve::port::Host::now(node.host.as_ref()).wall);
    pass(due_in - SECOND).await;
    assert_eq!(fleet.upstream.call_count(), 1);
    pass(2 * SECOND).await;
    assert_eq!(fleet.upstream.call_count(), 2, "the renewal starts when it was announced");
}

/// The test begins on a Sunday, 2026-11-22T00:00:00Z.
#[tokio::test(start_paused = true)]
async fn r8_a_maintenance_window_is_never_renewed_in_and_costs_no_life() {
    let hours = |from: u64, until: u64| Quiet { from_ms: 6 * 24 * HOUR + from * HOUR, for_ms: (until - from) * HOUR };
    let quiet = vec![hours(2, 5), hours(9, 13), hours(14, 16)];
    let rules = Rules { life_ms: 6 * HOUR, lead_ms: HOUR, quiet, ..lease() };
    assert_eq!(rules.check(), []);
    let fleet = Fleet::new(3, rules.clone());
    for node in &fleet.nodes {
        node.token().await.unwrap();
    }
    let state = fleet.nodes[0].outbound.state("push").unwrap();
    let start = keyreeve::port::Host::now(fleet.nodes[0].host.as_ref()).wall;
    assert_eq!(state.quiet.map(|(from, until)| (from.since(start) / HOUR, until.since(from))), Some((1, 3 * HOUR)));
    assert_eq!(ask_for(&fleet, 20 * HOUR).await, 0, "nobody is ever without");
    let mints = fleet.upstream.mints.lock().unwrap().clone();
    assert!(mints.len() >= 4, "{mints:?}");
    for at in &mints {
        let is_quiet = [(2, 5), (9, 13), (14, 16)].iter().any(|(from, until)| (from * HOUR..until * HOUR).contains(at));
        assert!(!is_quiet, "minted {} minutes after midnight", at / MINUTE);
    }
}

/// R1: those who wait for another node's mint are woken by its result, not by each look for it.
#[tokio::test(start_paused = true)]
async fn r1_a_caller_of_another_node_is_woken_for_news_only() {
    let fleet = Fleet::new(2, lease());
    fleet.upstream.delay_ms.store(SECOND, std::sync::atomic::Ordering::SeqCst);
    let minting = fleet.nodes[0].token();
    let polls = std::cell::Cell::new(0);
    let waiting = async {
        pass(5).await;
        let mut token = std::pin::pin!(fleet.nodes[1].token());
        std::future::poll_fn(|context| {
            polls.set(polls.get() + 1);
            token.as_mut().poll(context)
        })
        .await
    };
    let started = tokio::time::Instant::now();
    let (minted, waited) = futures::future::join(minting, waiting).await;
    assert_eq!((minted.unwrap().generation, waited.unwrap().generation), (1, 1));
    assert!(started.elapsed() < Duration::from_millis(SECOND + 20), "it looks every 10 ms: {:?}", started.elapsed());
    // The two futures are polled together: once at first, once for each of the two results, and for the pause above.
    assert!(polls.get() <= 4, "polled {} times", polls.get());
}

/// R1: nor for a credential that it has seen, where it waits for one that lives longer.
#[tokio::test(start_paused = true)]
async fn r1_a_caller_that_wants_more_life_is_woken_for_news_only() {
    let fleet = Fleet::new(2, lease());
    for node in &fleet.nodes {
        assert_eq!(node.token().await.unwrap().generation, 1);
    }
    // Valid for a while yet, and being renewed by the first.
    pass(40 * MINUTE).await;
    fleet.upstream.delay_ms.store(2 * SECOND, std::sync::atomic::Ordering::SeqCst);
    fleet.nodes[0].outbound.report("push", 1).await.unwrap();
    pass(100).await;
    assert_eq!(fleet.upstream.call_count(), 2);
    let (node, polls) = (&fleet.nodes[1], std::cell::Cell::new(0));
    let mut asking = std::pin::pin!(node.outbound.token("push", 50 * MINUTE, node.host.now().mono.plus(4 * SECOND)));
    let waiting = std::future::poll_fn(|context| {
        polls.set(polls.get() + 1);
        asking.as_mut().poll(context)
    });
    assert_eq!(waiting.await.unwrap().generation, 2);
    assert!(polls.get() <= 5, "polled {} times", polls.get());
}

/// R1: of a slow store less is asked, but one read that was held up does not keep its node's callers waiting.
#[tokio::test(start_paused = true)]
async fn r1_a_read_that_was_held_up_delays_no_caller() {
    for held_up_at in [0, SECOND * 8 / 10] {
        let fleet = Fleet::new(2, lease());
        fleet.upstream.delay_ms.store(SECOND, std::sync::atomic::Ordering::SeqCst);
        let minting = fleet.nodes[0].token();
        let waiting = async {
            pass(5).await;
            fleet.nodes[1].token().await
        };
        let holding_up = async {
            pass(held_up_at).await;
            *fleet.nodes[1].wire.fault.lock().unwrap() = StoreFault::Stall(SECOND / 10);
            pass(15).await;
            *fleet.nodes[1].wire.fault.lock().unwrap() = StoreFault::None;
        };
        let started = tokio::time::Instant::now();
        let (minted, waited, ()) = futures::future::join3(minting, waiting, holding_up).await;
        assert_eq!((minted.unwrap().generation, waited.unwrap().generation), (1, 1));
        assert!(started.elapsed() < Duration::from_millis(SECOND + 20), "{held_up_at}: {:?}", started.elapsed());
    }
}

/// What was minted for something else is not served after a reload, however many generations of it there were.
#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_what_a_credential_is_for_starts_anew() {
    let fleet = Fleet::new(1, lease());
    assert_eq!(ask_for(&fleet, 3 * HOUR).await, 0);
    let before = fleet.nodes[0].token().await.unwrap();
    assert!(before.generation > 3);
    let same = fleet.reloaded(0, Arc::clone(&fleet.upstream) as Arc<dyn Source>);
    let now = fleet.nodes[0].host.now();
    assert_eq!(same.held("push", now, 0).map(|served| served.generation), Some(before.generation), "no gap");
    let other = fleet.reloaded(0, Arc::new(For(Arc::clone(&fleet.upstream), 1)));
    let served = other.token("push", 0, now.mono.plus(1500)).await.unwrap();
    // No number is given twice: a client may hold the `ETag` of the earlier one.
    assert_eq!(served.generation, before.generation + 1);
    assert_eq!(other.held("push", now, 0).map(|served| served.generation), Some(before.generation + 1));
}

/// After a reload to another store what is valid is served until that store has something, without a number of its own; and
/// no number means two credentials.
#[tokio::test(start_paused = true)]
async fn a_reload_to_another_store_leaves_no_gap_and_gives_no_number_twice() {
    for is_reached in [true, false] {
        let fleet = Fleet::new(1, exclusive());
        assert_eq!(ask_for(&fleet, 3 * HOUR).await, 0);
        let before = fleet.nodes[0].token().await.unwrap();
        let moved = fleet.moved(0, &Arc::new(Memory::new()));
        fleet.nodes[0].outbound.stop();
        let held = || moved.outbound.held("push", moved.host.now(), 0);
        *moved.wire.fault.lock().unwrap() = if is_reached { StoreFault::None } else { StoreFault::Away };
        let served = held().unwrap();
        assert_eq!((served.generation, &served.material), (0, &before.material), "no gap");
        drop(served);
        if !is_reached {
            pass(10 * MINUTE).await;
            assert_eq!(held().unwrap().generation, 0, "the new store is away");
            *moved.wire.fault.lock().unwrap() = StoreFault::None;
        }
        for _ in 0..15 {
            assert!(held().is_some());
            pass(MINUTE).await;
        }
        let after = held().unwrap();
        assert_eq!(after.generation, before.generation + 1, "{is_reached}: counted on");
        assert_ne!(after.material, before.material);
        assert_eq!(moved.record().await.newest().map(|newest| newest.generation), Some(before.generation + 1));
    }
}

/// What another fleet has in the new store is taken over at once, however far the old store had counted.
#[tokio::test(start_paused = true)]
async fn a_reload_to_a_store_that_is_in_use_takes_over_what_is_there() {
    let (fleet, there) = (Fleet::new(1, lease()), Fleet::new(1, lease()));
    assert_eq!(ask_for(&fleet, 3 * HOUR).await, 0);
    let before = fleet.nodes[0].token().await.unwrap().generation;
    let theirs = there.nodes[0].token().await.unwrap();
    assert!(theirs.generation < before);
    let moved = fleet.moved(0, &there.register);
    pass(SECOND).await;
    let now = moved.host.now();
    let served = moved.outbound.held("push", now, 0).unwrap();
    assert_eq!((served.generation, &served.material), (theirs.generation, &theirs.material));
    assert_eq!(moved.token().await.unwrap().generation, theirs.generation);
}

#[tokio::test(start_paused = true)]
async fn r11_clocks_that_jump_an_hour_never_make_two_exclusive_tokens() {
    for jump in [HOUR as i64, -(HOUR as i64)] {
        let fleet = Fleet::new(3, exclusive());
        for round in 0..360 {
            // One node's clock is off for four minutes out of ten; another one in its turn is cut off.
            let node = &fleet.nodes[(round / 10) % 3];
            node.host.offset_ms.store(if round % 10 < 4 { jump } else { 0 }, std::sync::atomic::Ordering::SeqCst);
            let other = &fleet.nodes[(round / 10 + 1) % 3];
            *other.wire.fault.lock().unwrap() = if round % 10 > 6 { StoreFault::Away } else { StoreFault::None };
            for node in &fleet.nodes {
                let _ = node.token().await;
            }
            pass(MINUTE).await;
        }
        let mints = fleet.upstream.mints.lock().unwrap().clone();
        assert!(mints.len() >= 8, "six hours of half-hourly renewals: {mints:?}");
        assert!(gaps(&mints).iter().all(|gap| *gap >= 20 * MINUTE), "{:?}", gaps(&mints));
    }
}

#[tokio::test(start_paused = true)]
async fn r12_a_slow_store_changes_no_hands_and_stops_no_serving() {
    let fleet = Fleet::new(3, lease());
    assert_eq!(ask_for(&fleet, MINUTE).await, 0);
    let epoch = fleet.nodes[0].record().await.epoch;
    for node in &fleet.nodes {
        *node.wire.fault.lock().unwrap() = StoreFault::Stall(5 * SECOND);
    }
    assert_eq!(ask_for(&fleet, 5 * SECOND).await, 0);
    for node in &fleet.nodes {
        *node.wire.fault.lock().unwrap() = StoreFault::None;
    }
    assert_eq!(ask_for(&fleet, MINUTE).await, 0);
    assert_eq!(fleet.nodes[0].record().await.epoch, epoch);
    assert_eq!(fleet.upstream.call_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn r13_a_write_whose_answer_was_lost_is_read_again() {
    for fault in [StoreFault::LoseAnswer, StoreFault::LoseRequest] {
        // The write that takes the lease, and the one that publishes.
        for at_ms in [0, 100] {
            let fleet = Fleet::new(2, exclusive_at_once());
            let lose = async {
                pass(at_ms).await;
                *fleet.nodes[0].wire.fault.lock().unwrap() = fault;
            };
            let (first, ()) = futures::future::join(fleet.nodes[0].token(), lose).await;
            assert!(first.is_ok(), "{fault:?} at {at_ms}: {first:?}");
            assert_eq!(*fleet.nodes[0].wire.fault.lock().unwrap(), StoreFault::None, "the fault should have struck");
            assert!(fleet.nodes[1].token().await.is_ok(), "{fault:?} at {at_ms}");
            assert_eq!(fleet.upstream.mint_count(), 1, "{fault:?} at {at_ms}");
        }
    }
}

fn exclusive_at_once() -> keyreeve::core::rules::Rules {
    keyreeve::core::rules::Rules { first_mint_waits: false, ..exclusive() }
}

#[tokio::test(start_paused = true)]
async fn r14_a_holder_that_lost_its_lease_without_knowing_changes_nothing() {
    let fleet = Fleet::new(2, lease());
    // The publication of the first holder is on its way for a minute.
    let slow = fleet.nodes[0].token();
    let stall = async {
        pass(100).await;
        *fleet.nodes[0].wire.fault.lock().unwrap() = StoreFault::Stall(MINUTE);
    };
    let (slow, ()) = futures::future::join(slow, stall).await;
    assert!(slow.is_err(), "its own deadline has passed");
    while fleet.nodes[1].token().await.is_err() {
        pass(SECOND).await;
    }
    let (before, by) = (fleet.nodes[1].record().await, "node-1");
    assert_eq!(before.holder.as_ref().unwrap().node.as_str(), by);
    assert!(before.epoch >= 2);
    let token = fleet.nodes[1].token().await.unwrap().material.clone();
    *fleet.nodes[0].wire.fault.lock().unwrap() = StoreFault::None;
    pass(3 * MINUTE).await;
    let after = fleet.nodes[1].record().await;
    assert_eq!(after.current.as_ref().unwrap().generation, before.current.as_ref().unwrap().generation);
    assert_eq!(fleet.nodes[0].token().await.unwrap().material, token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_no_reader_ever_sees_half_of_two_generations() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let stop = Arc::new(AtomicBool::new(false));
    let mut rules = lease();
    (rules.min_interval_ms, rules.skew_ms) = (1, 0);
    let fleet = Arc::new(Fleet::new(1, rules));
    fleet.upstream.delay_ms.store(0, Ordering::SeqCst);
    fleet.nodes[0].token().await.unwrap();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (fleet, stop) = (Arc::clone(&fleet), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut seen, mut reads) = (0, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    let served = fleet.nodes[0].outbound.get("push").unwrap();
                    let Fields::Token(token) = &served.material.secret else { panic!("a token") };
                    // The upstream numbers its tokens, the register its generations: one credential, one number.
                    assert_eq!(token.expose(), &format!("token-{}", served.generation));
                    assert!(served.generation >= seen, "a generation went back");
                    (seen, reads) = (served.generation, reads + 1);
                }
                (seen, reads)
            })
        })
        .collect();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while fleet.nodes[0].outbound.get("push").unwrap().generation < 200 {
        assert!(std::time::Instant::now() < deadline, "200 renewals should not take 20 s");
        let _ = fleet.nodes[0].outbound.renew("push").await;
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let (seen, reads) = reader.join().unwrap();
        assert!(seen > 1 && reads > 1000, "{seen} {reads}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_in_doubt_and_goes_on_by_its_policy() {
    use keyreeve::core::operator::Verdict;
    use keyreeve::core::record::HistoryKind;
    use keyreeve::core::rules::{OnDoubt, Rules};
    for (on_doubt, status, kind) in [
        (OnDoubt::Wait, Status::InDoubt, ErrorKind::InDoubt),
        (OnDoubt::Reauthorize, Status::NeedsReauth, ErrorKind::NeedsReauth),
    ] {
        let fleet = Fleet::new(2, Rules { on_doubt, ..exclusive_at_once() });
        fleet.upstream.set(Behaviour::LoseAnswer);
        let error = fleet.nodes[0].token().await.unwrap_err();
        assert_eq!(error.kind, kind);
        fleet.upstream.set(Behaviour::Mint);
        let record = fleet.nodes[1].record().await;
        assert_eq!(fleet.nodes[1].outbound.status_of("push", Some(&record)), Some(status));
        assert_eq!(record.history.last().unwrap().kind, HistoryKind::InDoubt);
        assert!(record.history.last().unwrap().detail.contains("the connection was lost"));

        // Nothing is minted for as long as the first mint may have been less than `min_interval` ago.
        for _ in 0..20 {
            pass(MINUTE).await;
            assert!(fleet.nodes[1].token().await.is_err());
        }
        assert_eq!(fleet.upstream.mint_count(), 1);
        pass(2 * MINUTE).await;
        let answer = fleet.nodes[1].token().await;
        if on_doubt == OnDoubt::Wait {
            pass(MINUTE).await;
            assert_eq!(fleet.nodes[1].token().await.unwrap().generation, 2, "{answer:?}");
            continue;
        }
        assert_eq!(answer.unwrap_err().kind, kind);
        pass(10 * HOUR).await;
        assert_eq!(fleet.upstream.mint_count(), 1, "only an operator may go on");
        fleet.nodes[0].outbound.resolve("push", Verdict::Reauthorize, "alice").await.unwrap();
        pass(MINUTE).await;
        assert_eq!(fleet.nodes[1].token().await.unwrap().generation, 2);
        let history = fleet.nodes[1].record().await.history;
        let resolved = history.iter().find(|entry| entry.kind == HistoryKind::Resolved).unwrap();
        assert_eq!((resolved.generation, resolved.detail.as_str()), (1, "reauthorize by alice"));
        let again = fleet.nodes[0].outbound.resolve("push", Verdict::Discard, "bob").await.unwrap_err();
        assert_eq!(again.kind, ErrorKind::Conflict);
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_renews_once_for_the_fleet_and_not_before_the_floor() {
    use keyreeve::outbound::Reported;
    let fleet = Fleet::new(2, exclusive_at_once());
    for node in &fleet.nodes {
        node.token().await.unwrap();
    }
    // Too soon for the upstream: the wish is kept, and a second report adds nothing.
    for node in &fleet.nodes {
        assert!(matches!(node.outbound.report("push", 1).await, Ok(Reported::FloorWait(ms)) if ms > 19 * MINUTE));
    }
    pass(19 * MINUTE).await;
    assert_eq!(fleet.upstream.mint_count(), 1);
    pass(2 * MINUTE).await;
    assert_eq!(fleet.upstream.mint_count(), 2);
    for node in &fleet.nodes {
        assert_eq!(node.token().await.unwrap().generation, 2, "whoever reported looks for what came of it");
    }
    assert_eq!(fleet.nodes[1].outbound.report("push", 1).await, Ok(Reported::IgnoredStale));
    pass(HOUR / 4).await;
    assert_eq!(fleet.upstream.mint_count(), 2);
    assert_eq!(fleet.nodes[1].token().await.unwrap().generation, 2);
    // An operator is told how long to wait instead.
    let error = fleet.nodes[0].outbound.renew("push").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RenewalTooSoon);
    assert!(error.retry_after_ms.is_some_and(|ms| ms < 10 * MINUTE), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_and_nothing_is_renewed() {
    let fleet = Fleet::new(1, lease());
    fleet.nodes[0].token().await.unwrap();
    pass(12 * HOUR).await;
    let calls = fleet.upstream.call_count();
    assert!((3..=5).contains(&calls), "three lifetimes after the last use, then nothing: {calls}");
    // The first caller after that waits for one mint.
    assert!(fleet.nodes[0].token().await.is_ok());
    assert_eq!(fleet.upstream.call_count(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn the_next_credential_is_there_before_the_switch_and_a_switch_is_never_undone() {
    use keyreeve::core::rules::{Mode, OnDoubt, Rules};
    let rules = Rules { mode: Mode::Replay, on_doubt: OnDoubt::RetrySame, handover_ms: 5 * MINUTE, ..lease() };
    let fleet = Fleet::new(2, rules);
    for node in &fleet.nodes {
        assert_eq!(node.token().await.unwrap().generation, 1);
    }
    while fleet.upstream.mint_count() < 2 {
        pass(SECOND).await;
        for node in &fleet.nodes {
            assert_eq!(node.token().await.unwrap().generation, 1);
        }
    }
    // Published now, used five minutes later, by every node at the same second.
    for second in 0..=5 * 60 + 1 {
        let generations: Vec<u64> =
            futures::future::join_all(fleet.nodes.iter().map(|node| async { node.token().await.unwrap().generation }))
                .await;
        assert_eq!(generations[0], generations[1], "at second {second}");
        pass(SECOND).await;
    }
    assert_eq!(fleet.nodes[0].token().await.unwrap().generation, 2);
    fleet.nodes[0].host.offset_ms.store(-(HOUR as i64), std::sync::atomic::Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(fleet.nodes[0].token().await.unwrap().generation, 2);
        pass(30 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_a_mint_in_doubt_and_not_the_end_of_renewals() {
    let fleet = Fleet::new(1, lease());
    fleet.upstream.set(Behaviour::Panic);
    let error = fleet.nodes[0].token().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InDoubt, "{error}");
    assert!(error.message.contains("the source panicked"), "{error}");
    fleet.upstream.set(Behaviour::Mint);
    pass(2 * MINUTE).await;
    assert_eq!(fleet.nodes[0].token().await.unwrap().generation, 2);
}
