//! What was minted and is not committed yet, when its driver ends: by a reload, or with its process.

use std::sync::Arc;
use std::time::Duration;

use keyreeve::core::rules::{OnDoubt, Rules};
use keyreeve::outbound::{COMMIT_MS, Outbound};
use keyreeve::port::Host as _;
use keyreeve::source::{Material, Source};

use crate::fleet::{Fleet, For, HOUR, MINUTE, Node, SECOND, StoreFault, lease};

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// As for a chain of refresh tokens: what is lost only a person can bring back.
fn chain() -> Rules {
    Rules { on_doubt: OnDoubt::Reauthorize, ..lease() }
}

/// A node that has asked its upstream when its store goes away. The answer comes half a second later.
async fn cut_off() -> Fleet {
    let fleet = Fleet::new(1, chain());
    fleet.upstream.delay_ms.store(SECOND, std::sync::atomic::Ordering::SeqCst);
    assert!(fleet.nodes[0].token_within(SECOND / 2).await.is_err());
    *fleet.nodes[0].wire.fault.lock().unwrap() = StoreFault::Away;
    fleet
}

/// The node after a reload. The driver before it is stopped, and nobody holds it any more.
fn reload(fleet: &mut Fleet, identity: Option<u8>) -> Node {
    let same = Arc::clone(&fleet.upstream);
    let source: Arc<dyn Source> = match identity {
        None => same,
        Some(identity) => Arc::new(For(same, identity)),
    };
    let after = fleet.reloaded(0, source);
    let Node { host, wire, outbound } = fleet.nodes.remove(0);
    outbound.stop();
    Node { host, wire, outbound: after }
}

fn come_back(node: &Node) {
    *node.wire.fault.lock().unwrap() = StoreFault::None;
}

fn until(node: &Node, ms: u64) -> keyreeve::core::time::Mono {
    node.host.now().mono.plus(ms)
}

/// What the store has of the credential as it was before a reload.
async fn stored(fleet: &mut Fleet) -> Option<u64> {
    let record = fleet.join().outbound.record("push").await.unwrap()?;
    record.newest().map(|newest| newest.generation)
}

#[tokio::test(start_paused = true)]
async fn what_was_minted_before_a_reload_is_committed_once_the_store_is_back() {
    // The reload comes while the mint is under way, or after its commit has failed.
    for before_ms in [100, 10 * SECOND] {
        let mut fleet = cut_off().await;
        pass(before_ms).await;
        let node = reload(&mut fleet, None);
        pass(30 * MINUTE).await;
        assert_eq!(stored(&mut fleet).await, None);
        come_back(&node);
        pass(3 * SECOND).await;
        assert_eq!(stored(&mut fleet).await, Some(1), "{before_ms}");
        assert_eq!(node.token().await.unwrap().material, Material::bearer("token-1".into()));
        assert_eq!(fleet.upstream.call_count(), 1);
    }
}

/// A reload that changes what the credential is for leaves the chain of the earlier one where it was.
#[tokio::test(start_paused = true)]
async fn what_was_minted_is_committed_to_its_own_record_whatever_the_reload_changes() {
    let mut fleet = cut_off().await;
    pass(10 * SECOND).await;
    let node = reload(&mut fleet, Some(1));
    come_back(&node);
    pass(3 * SECOND).await;
    assert_eq!(stored(&mut fleet).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_was_stopped_gives_up_in_the_end() {
    let mut fleet = cut_off().await;
    let node = reload(&mut fleet, None);
    pass(COMMIT_MS + HOUR).await;
    come_back(&node);
    pass(MINUTE).await;
    assert_eq!(stored(&mut fleet).await, None);
    assert!(node.outbound.unfinished().is_empty(), "it has been said in the log");
}

/// The drivers before a reload are part of the process that ends.
#[tokio::test(start_paused = true)]
async fn a_clean_exit_waits_for_the_store() {
    for is_reloaded in [false, true] {
        let mut fleet = cut_off().await;
        pass(10 * SECOND).await;
        let node = if is_reloaded { reload(&mut fleet, None) } else { fleet.nodes.remove(0) };
        node.outbound.stop();
        let back = async {
            pass(5 * SECOND).await;
            come_back(&node);
        };
        let began = tokio::time::Instant::now();
        futures::join!(node.outbound.drain(until(&node, 10 * SECOND)), back);
        assert!((5..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert_eq!(node.outbound.unfinished(), Vec::<String>::new());
        assert_eq!(stored(&mut fleet).await, Some(1), "{is_reloaded}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_exit_without_the_store_says_what_is_lost() {
    for is_reloaded in [false, true] {
        let mut fleet = cut_off().await;
        pass(10 * SECOND).await;
        let node = if is_reloaded { reload(&mut fleet, None) } else { fleet.nodes.remove(0) };
        node.outbound.stop();
        let began = tokio::time::Instant::now();
        node.outbound.drain(until(&node, 10 * SECOND)).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        assert_eq!(
            node.outbound.unfinished(),
            ["generation 1 of `push` was minted, and is lost: the store did not answer\nhint: what it was minted \
                with may be used up, such as a refresh token: put a new one where the configuration says, then `keyreeve credential resolve push reauthorize`"]
        );
    }
    // One that is still asking may have used it up, too.
    let fleet = cut_off().await;
    let said = |outbound: &Outbound| outbound.unfinished().pop().unwrap();
    assert!(said(&fleet.nodes[0].outbound).starts_with("generation 1 of `push` was asked for"));
}

/// Nothing to commit is nothing to wait for.
#[tokio::test(start_paused = true)]
async fn a_clean_exit_without_the_store_waits_for_nothing_when_all_is_committed() {
    let fleet = Fleet::new(1, chain());
    fleet.nodes[0].token().await.unwrap();
    *fleet.nodes[0].wire.fault.lock().unwrap() = StoreFault::Away;
    fleet.nodes[0].outbound.stop();
    let began = tokio::time::Instant::now();
    fleet.nodes[0].outbound.drain(until(&fleet.nodes[0], 10 * SECOND)).await;
    assert_eq!((began.elapsed(), fleet.nodes[0].outbound.unfinished()), (Duration::ZERO, Vec::new()));
}
