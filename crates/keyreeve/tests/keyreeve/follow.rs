//! Followers: nodes that mint nothing, behind caches that may be trusted with nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use keyreeve::config::{Keep, Plan};
use keyreeve::core::id::{CredentialName, NodeId};
use keyreeve::core::record::{FaultClass, Record};
use keyreeve::core::rules::Rules;
use keyreeve::core::seal::{KeyRing, SealKey};
use keyreeve::core::time::{Mono, Timestamp};
use keyreeve::crypto::LocalCrypto;
use keyreeve::error::{Error, ErrorKind};
use keyreeve::outbound::{Credential, Drive, Origin, Outbound, Parts, Reported, Tiers, Wish};
use keyreeve::port::{Host, Key, Shared};
use keyreeve::source::{Fields, Identity, Source};

use crate::fleet::{Behaviour, Fleet, MINUTE, Node, SECOND, TestHost, exclusive, lease};

/// What a cache does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Keeps nothing.
    Forgetful,
    /// Flips one bit of what it returns.
    Damaging,
    /// Returns the first thing that it was ever given for a key, for ever.
    Stuck,
    /// Returns what it was given for another key.
    Swapping,
    /// Never answers.
    Silent,
    /// Answers with an error.
    Broken,
}

struct TestCache {
    manner: Mutex<Manner>,
    /// What was put, and until when, oldest first.
    puts: Mutex<Vec<(Key, Bytes, u64)>>,
    host: Arc<TestHost>,
    hits: AtomicU64,
}

impl TestCache {
    fn new(host: &Arc<TestHost>) -> Arc<Self> {
        let (manner, puts, hits) = (Mutex::new(Manner::Honest), Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { manner, puts, host: Arc::clone(host), hits })
    }

    fn manner(&self) -> Manner {
        *self.manner.lock().unwrap()
    }
}

#[async_trait]
impl Shared for TestCache {
    fn kind(&self) -> &'static str {
        "test"
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, String> {
        let manner = self.manner();
        match manner {
            Manner::Silent => std::future::pending().await,
            Manner::Broken => return Err("the cache is on fire".into()),
            _ => {}
        }
        let now = self.host.now().wall.0;
        let puts = self.puts.lock().unwrap();
        let mine = |put: &&(Key, Bytes, u64)| put.0 == *key;
        let found = match manner {
            Manner::Forgetful => None,
            Manner::Stuck => puts.iter().find(mine),
            Manner::Swapping => puts.iter().find(|put| put.0 != *key),
            _ => puts.iter().rfind(mine).filter(|put| now < put.2),
        };
        let mut bytes = found.map(|put| put.1.to_vec());
        self.hits.fetch_add(u64::from(bytes.is_some()), Ordering::SeqCst);
        if let (Manner::Damaging, Some(bytes)) = (manner, &mut bytes) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Ok(bytes.map(Bytes::from))
    }

    async fn put(&self, key: &Key, bytes: Bytes, ttl_ms: u64) -> Result<(), String> {
        let until = self.host.now().wall.plus(ttl_ms).0;
        self.puts.lock().unwrap().push((key.clone(), bytes, until));
        Ok(())
    }

    async fn delete(&self, key: &Key) -> Result<(), String> {
        self.puts.lock().unwrap().retain(|put| put.0 != *key);
        Ok(())
    }
}

/// How long the way to the node that mints takes.
const WAY_MS: u64 = 20;

/// The way to the node that mints, counted.
struct Door {
    to: Outbound,
    asked: Mutex<Vec<Wish>>,
    identity: Mutex<Option<Identity>>,
}

#[async_trait]
impl Origin for Door {
    async fn record(&self, name: &CredentialName, wish: Wish, deadline: Mono) -> Result<Record, Error> {
        self.asked.lock().unwrap().push(wish);
        pass(WAY_MS).await;
        Origin::record(&self.to, name, wish, deadline).await
    }

    fn identity(&self, _: &CredentialName) -> Option<Identity> {
        *self.identity.lock().unwrap()
    }
}

/// One node that mints, and followers of it that share a cache.
struct Edge {
    fleet: Fleet,
    door: Arc<Door>,
    cache: Arc<TestCache>,
    followers: Vec<(Arc<TestHost>, Outbound)>,
}

fn ring() -> KeyRing {
    KeyRing::new(SealKey::new(&LocalCrypto, [9; 32]), Vec::new())
}

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

impl Edge {
    fn new(count: u64, rules: &Rules) -> Self {
        let fleet = Fleet::new(1, rules.clone());
        let Node { host, outbound, .. } = &fleet.nodes[0];
        let door = Arc::new(Door { to: outbound.clone(), asked: Mutex::default(), identity: Mutex::default() });
        let cache = TestCache::new(host);
        let mut edge = Self { door, cache, followers: Vec::new(), fleet };
        (0..count).for_each(|_| edge.join());
        edge
    }

    fn join(&mut self) {
        let number = self.followers.len() as u64;
        let host = TestHost::new(self.fleet.start, 100 + number);
        let tiers = Tiers {
            caches: vec![Arc::clone(&self.cache) as _],
            origin: Arc::clone(&self.door) as _,
            host: Arc::clone(&host) as _,
            crypto: Arc::new(LocalCrypto),
            keys: ArcSwap::from_pointee(ring()),
        };
        let parts = Parts {
            node: NodeId::parse(&format!("isolate-{number}")).unwrap(),
            host: Arc::clone(&host) as _,
            register: None,
            keys: Some(ring()),
            crypto: Arc::new(LocalCrypto),
            store_ms: 2000,
            drive: Drive::Follow(Arc::new(tiers)),
            tick_ms: 0,
        };
        let credential = Credential {
            name: name("push"),
            source: Arc::clone(&self.fleet.upstream) as Arc<dyn Source>,
            plan: Arc::new(Plan::Fleet(self.fleet.rules.clone())),
            keep: Keep::OnDemand { lifetimes: 3 },
        };
        self.followers.push((host, Outbound::start(parts, vec![credential], None)));
    }

    async fn ask(&self, follower: usize) -> Result<String, Error> {
        self.ask_for(follower, 0).await
    }

    async fn ask_for(&self, follower: usize, min_ttl_ms: u64) -> Result<String, Error> {
        let (host, outbound) = &self.followers[follower];
        let served = outbound.token("push", min_ttl_ms, host.now().mono.plus(3000)).await?;
        let Fields::Token(token) = &served.material.secret else { panic!("no token") };
        Ok(token.expose().clone())
    }

    fn asked(&self) -> usize {
        self.door.asked.lock().unwrap().len()
    }

    fn behave(&self, manner: Manner) {
        *self.cache.manner.lock().unwrap() = manner;
    }
}

async fn pass(ms: u64) {
    tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_callers_on_eight_followers_are_one_mint() {
    let edge = Edge::new(8, &lease());
    let answers = join_all((0..1000).map(|caller| edge.ask(caller % 8))).await;
    assert!(answers.iter().all(|answer| answer.as_deref() == Ok("token-1")), "{answers:?}");
    assert_eq!(edge.fleet.upstream.call_count(), 1);
    assert_eq!(edge.asked(), 8, "one question for each cold follower");
    // Warm: nobody is asked.
    let asked = edge.asked();
    join_all((0..1000).map(|caller| edge.ask(caller % 8))).await;
    assert_eq!((edge.asked(), edge.fleet.upstream.call_count()), (asked, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cold_follower_takes_from_the_cache_what_another_one_fetched() {
    let mut edge = Edge::new(1, &lease());
    edge.ask(0).await.unwrap();
    pass(10).await;
    for follower in 1..20 {
        edge.join();
        assert_eq!(edge.ask(follower).await.unwrap(), "token-1");
    }
    assert_eq!((edge.asked(), edge.cache.hits.load(Ordering::SeqCst)), (1, 19));
}

#[tokio::test(start_paused = true)]
async fn the_cache_holds_only_sealed_bytes_under_hashed_keys_until_the_renewal() {
    let edge = Edge::new(1, &lease());
    edge.ask(0).await.unwrap();
    pass(10).await;
    let puts = edge.cache.puts.lock().unwrap();
    let [(key, bytes, until)] = puts.as_slice() else { panic!("{} puts", puts.len()) };
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(!holds(b"token-1") && !holds(b"push") && !key.as_str().contains("push"));
    assert_eq!(key.as_str().len(), 64);
    let state = edge.followers[0].1.state("push").unwrap();
    assert_eq!(Timestamp(*until), state.refresh_at.unwrap(), "life left, less the lead");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_forgets_lies_or_hangs_costs_questions_and_nothing_else() {
    for manner in [Manner::Forgetful, Manner::Damaging, Manner::Stuck, Manner::Swapping, Manner::Silent, Manner::Broken]
    {
        let mut edge = Edge::new(1, &exclusive());
        edge.behave(manner);
        // Something of somebody else's, for the one that swaps.
        let other = Key::new("other").unwrap();
        edge.cache.put(&other, Bytes::from_static(b"theirs"), u64::MAX / 2).await.unwrap();
        let mut before = String::new();
        for round in 1..=6 {
            edge.join();
            let follower = edge.followers.len() - 1;
            let token = edge.ask(follower).await.unwrap_or_else(|error| panic!("{manner:?}, {round}: {error}"));
            let newest = format!("token-{}", edge.fleet.upstream.mint_count());
            assert_eq!(token, newest, "{manner:?}: never an old one");
            assert!(token != before, "{manner:?}: each round sees a renewal");
            before = token;
            pass(35 * MINUTE).await;
        }
        assert_eq!(edge.fleet.upstream.mint_count(), edge.fleet.upstream.call_count(), "{manner:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_a_credential_that_was_for_something_else_is_a_miss_whatever_key_it_comes_under() {
    let mut edge = Edge::new(1, &lease());
    edge.behave(Manner::Swapping);
    for (identity, asked) in [(Some(1), 1), (Some(2), 2), (None, 3), (Some(3), 4)] {
        *edge.door.identity.lock().unwrap() = identity.map(|byte| Identity([byte; 32]));
        edge.join();
        edge.ask(edge.followers.len() - 1).await.unwrap();
        pass(10).await;
        assert_eq!(edge.asked(), asked, "{identity:?}");
    }
    assert_eq!(edge.cache.puts.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_follower_looks_ahead_while_it_serves_and_nobody_waits() {
    let edge = Edge::new(3, &lease());
    let mut seen = BTreeMap::new();
    for _ in 0..3 * 60 * 60 {
        for follower in 0..3 {
            let (host, outbound) = &edge.followers[follower];
            let (is_cold, before) = (!seen.contains_key(&follower), host.now().mono);
            let token = edge.ask(follower).await.unwrap();
            let waited = host.now().mono.since(before);
            assert!(is_cold || waited == 0, "follower {follower} waited {waited} ms");
            assert!(outbound.get("push").unwrap().left_ms > 0);
            seen.insert(follower, token);
        }
        pass(SECOND).await;
    }
    let mints = edge.fleet.upstream.mint_count();
    assert!((3..=5).contains(&mints), "hourly, renewed ten minutes ahead: {mints}");
    assert!(edge.asked() <= 3 * mints * 40, "{} questions for {mints} mints", edge.asked());
    assert_eq!(seen.values().collect::<std::collections::BTreeSet<_>>().len(), 1, "{seen:?}");
}

/// The clocks of two machines are never quite the same: a question that comes before the origin finds the renewal due would
/// be answered with what is there, and be asked again seconds later.
#[tokio::test(start_paused = true)]
async fn a_follower_does_not_ask_before_an_origin_that_is_a_little_behind() {
    let rules = Rules { wake_spread_ms: 0, refresh_jitter_ms: 0, ..lease() };
    let edge = Edge::new(2, &rules);
    edge.fleet.nodes[0].host.offset_ms.store(-100, Ordering::SeqCst);
    edge.ask(0).await.unwrap();
    edge.ask(1).await.unwrap();
    let due = edge.followers[0].1.state("push").unwrap().refresh_at.unwrap();
    pass(due.since(edge.followers[0].0.now().wall) - SECOND).await;
    // A second before it is due, and two seconds after.
    for _ in 0..300 {
        edge.ask(0).await.unwrap();
        edge.ask(1).await.unwrap();
        pass(10).await;
    }
    assert_eq!((edge.ask(0).await.unwrap(), edge.ask(1).await.unwrap()), ("token-2".into(), "token-2".into()));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_is_an_error_for_the_caller_and_never_in_a_cache() {
    let edge = Edge::new(2, &lease());
    edge.fleet.upstream.set(Behaviour::Fail(FaultClass::Transient, None));
    let errors = join_all((0..100).map(|caller| edge.ask(caller % 2))).await;
    assert!(errors.iter().all(|error| error.as_ref().unwrap_err().kind == ErrorKind::UpstreamFailed), "{errors:?}");
    assert_eq!(edge.fleet.upstream.call_count(), 1, "the hold lives where the mint does");
    edge.fleet.upstream.set(Behaviour::Hang);
    pass(2 * SECOND).await;
    assert_eq!(edge.ask(0).await.unwrap_err().kind, ErrorKind::UpstreamTimeout);
    assert_eq!(edge.cache.puts.lock().unwrap().len(), 0);
    edge.fleet.upstream.set(Behaviour::Mint);
    pass(2 * MINUTE).await;
    edge.ask(0).await.unwrap();
    pass(10).await;
    assert_eq!(edge.cache.puts.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_in_the_middle_takes_nobodys_answer_with_it() {
    let edge = Edge::new(1, &lease());
    let (host, outbound) = &edge.followers[0];
    let deadline = host.now().mono.plus(3000);
    let first = outbound.token("push", 0, deadline);
    let left = tokio::time::timeout(std::time::Duration::from_millis(5), first).await;
    assert!(left.is_err(), "it is still waiting when it leaves");
    assert_eq!(edge.ask(0).await.unwrap(), "token-1");
    assert_eq!((edge.asked(), edge.fleet.upstream.call_count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn more_life_than_is_left_is_asked_for_at_the_origin_and_said_to_be_missing() {
    let edge = Edge::new(1, &lease());
    edge.ask(0).await.unwrap();
    let error = edge.ask_for(0, 2 * 60 * MINUTE).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::LifeTooShort, "{error}");
    assert_eq!(edge.fleet.upstream.call_count(), 1);
    assert_eq!(edge.ask(0).await.unwrap(), "token-1");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_upstream_is_replaced_behind_every_cache() {
    let edge = Edge::new(2, &lease());
    edge.ask(0).await.unwrap();
    edge.ask(1).await.unwrap();
    pass(MINUTE).await;
    // The mint that the report begins takes a while: whoever looks beyond what was refused waits for it.
    edge.fleet.nodes[0].outbound.report("push", 1).await.unwrap();
    // The cache still holds the first one, for another 49 minutes.
    for follower in 0..2 {
        edge.followers[follower].1.look_beyond("push", 1);
    }
    pass(SECOND).await;
    for follower in 0..2 {
        assert_eq!(edge.ask(follower).await.unwrap(), "token-2");
    }
    assert_eq!(edge.fleet.upstream.call_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_looked_for_until_the_upstream_allows_the_next() {
    let edge = Edge::new(1, &lease());
    edge.ask(0).await.unwrap();
    let reported = edge.fleet.nodes[0].outbound.report("push", 1).await.unwrap();
    assert!(matches!(reported, Reported::FloorWait(_)), "{reported:?}");
    edge.followers[0].1.look_beyond("push", 1);
    pass(SECOND).await;
    assert_eq!(edge.ask(0).await.unwrap(), "token-1", "there is no other yet");
    let mut seen = Vec::new();
    for _ in 0..60 {
        seen.push(edge.ask(0).await.unwrap());
        pass(SECOND).await;
    }
    assert_eq!(seen.last().map(String::as_str), Some("token-2"));
    assert!(edge.asked() <= 60, "{} questions in a minute", edge.asked());
    // And then there is nothing left to look for.
    let asked = edge.asked();
    for _ in 0..60 {
        edge.ask(0).await.unwrap();
        pass(SECOND).await;
    }
    assert_eq!(edge.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_turned_by_its_host_renews_ahead_without_a_timer() {
    let fleet = Fleet::new(0, lease());
    let host = TestHost::new(fleet.start, 1);
    let parts = Parts {
        node: NodeId::parse("object").unwrap(),
        host: Arc::clone(&host) as _,
        register: Some(Arc::clone(&fleet.register) as _),
        keys: Some(ring()),
        crypto: Arc::new(LocalCrypto),
        store_ms: 2000,
        drive: Drive::Turned,
        tick_ms: 0,
    };
    let credential = Credential {
        name: name("push"),
        source: Arc::clone(&fleet.upstream) as Arc<dyn Source>,
        plan: Arc::new(Plan::Fleet(fleet.rules.clone())),
        keep: Keep::Always,
    };
    let object = Outbound::start(parts, vec![credential], None);
    pass(SECOND).await;
    assert_eq!(fleet.upstream.call_count(), 1);
    for renewals in 2..5 {
        let next = object.next_turn().unwrap();
        pass(next.since(host.now().mono)).await;
        assert_eq!(fleet.upstream.call_count(), renewals - 1, "nothing turns by itself");
        object.turn();
        pass(SECOND).await;
        assert_eq!(fleet.upstream.call_count(), renewals);
        assert!(object.get("push").unwrap().left_ms > 59 * MINUTE);
    }
}
