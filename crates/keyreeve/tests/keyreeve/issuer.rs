//! The driver of issuers: four nodes, one register, and the time of a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use keyreeve::config::Config;
use keyreeve::core::id::WriteId;
use keyreeve::core::issuer::Phase;
use keyreeve::core::seal::{KeyRing, SealKey, key_of};
use keyreeve::core::time::Timestamp;
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::error::ErrorKind;
use keyreeve::inbound::issuer::Issuers;
use keyreeve::jwt::VerifyError;
use keyreeve::port::{Capabilities, Entry, Host, Key, Register, StoreError, Swap};

use crate::http_world::{HOUR, MINUTE, SECOND, TestHost, pass};
use crate::issuer_world::{ISSUER, config, sign, start, start_sealed, verifier};

/// A register of one node: the shared one, unless it is unplugged, or loses the answers of swaps.
struct Line {
    to: Arc<dyn Register>,
    is_away: AtomicBool,
    loses_answers: AtomicBool,
    reads: AtomicU64,
}

#[async_trait]
impl Register for Line {
    fn capabilities(&self) -> Capabilities {
        self.to.capabilities()
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::Refused("unplugged".into()));
        }
        self.to.read(key).await
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::Refused("unplugged".into()));
        }
        let result = self.to.swap(key, expected, next).await;
        if self.loses_answers.load(Ordering::SeqCst) { Err(StoreError::Unknown("lost".into())) } else { result }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.to.list(prefix, after, limit).await
    }
}

struct Fleet {
    host: Arc<dyn Host>,
    shared: Arc<dyn Register>,
    config: Config,
    nodes: Vec<(Issuers, Arc<Line>)>,
}

impl Fleet {
    fn new(count: usize, text: &str) -> Self {
        let host: Arc<dyn Host> = Arc::new(TestHost::new());
        let mut fleet = Self { host, shared: Arc::new(Memory::new()), config: config(text), nodes: Vec::new() };
        (0..count).for_each(|_| fleet.join());
        fleet
    }

    fn join(&mut self) {
        let line = Arc::new(Line {
            to: Arc::clone(&self.shared),
            is_away: AtomicBool::new(false),
            loses_answers: AtomicBool::new(false),
            reads: AtomicU64::new(0),
        });
        let register: Arc<dyn Register> = Arc::clone(&line) as _;
        let name = format!("n{}", self.nodes.len());
        self.nodes.push((start(&self.config, (&name, &self.host), &register, None), line));
    }

    fn node(&self, n: usize) -> &Issuers {
        &self.nodes[n].0
    }

    fn unplug(&self, n: usize, is_away: bool) {
        self.nodes[n].1.is_away.store(is_away, Ordering::SeqCst);
    }

    fn now(&self) -> Timestamp {
        self.host.now().wall
    }

    fn kids(&self, n: usize, phase: Phase) -> Vec<String> {
        let keys = self.node(n).state("push").unwrap().keys;
        keys.into_iter().filter(|key| key.phase == phase).map(|key| key.kid).collect()
    }

    async fn verify(&self, n: usize, token: &str) -> Result<(), VerifyError> {
        verifier(self.node(n), "push").verify(token, self.now()).await.map(drop)
    }

    /// Every node signs, and every node verifies what every node signed.
    async fn cross_check(&self, kept: &mut Vec<(String, Timestamp)>) {
        for n in 0..self.nodes.len() {
            let token = sign(self.node(n), "push", "t").await.unwrap();
            kept.push((token, self.now().plus(15 * MINUTE - SECOND)));
        }
        kept.retain(|(_, good_until)| *good_until > self.now());
        for (token, _) in kept.iter() {
            for n in 0..self.nodes.len() {
                if let Err(error) = self.verify(n, token).await {
                    panic!("n{n} at {:?}: {error}", self.now());
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_starts_together_has_one_first_key() {
    let fleet = Fleet::new(4, ISSUER);
    let mut kids = Vec::new();
    for n in 0..4 {
        sign(fleet.node(n), "push", "t").await.unwrap();
        kids.push(fleet.kids(n, Phase::Active));
    }
    assert!(kids.iter().all(|kid| *kid == kids[0] && kid.len() == 1), "{kids:?}");
    assert_eq!(fleet.node(0).state("push").unwrap().rev, 1, "the others wrote nothing");
}

#[tokio::test(start_paused = true)]
async fn a_day_and_a_half_of_rotation_fails_no_valid_token() {
    let fleet = Fleet::new(4, ISSUER);
    let mut kept = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..(36 * 12) {
        fleet.cross_check(&mut kept).await;
        seen.extend(fleet.kids(0, Phase::Active));
        pass(5 * MINUTE).await;
    }
    assert_eq!(seen.len(), 2, "one rotation in a day and a half: {seen:?}");
    let state = fleet.node(3).state("push").unwrap();
    assert_eq!(state.keys.len(), 1, "the first key has left");
    assert!(state.rev <= 6, "a handful of writes by four nodes: {}", state.rev);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_by_command_publishes_at_once_and_signs_an_overlap_later() {
    let fleet = Fleet::new(2, ISSUER);
    sign(fleet.node(0), "push", "t").await.unwrap();
    let first = fleet.kids(0, Phase::Active);
    let state = fleet.node(0).rotate("push", "ops").await.unwrap();
    assert_eq!(state.keys.len(), 2);
    let refused = fleet.node(0).rotate("push", "ops").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    pass(SECOND + 100).await;
    assert_eq!(fleet.kids(1, Phase::Next), fleet.kids(0, Phase::Next), "the other node has it after a poll");
    assert_eq!(fleet.kids(1, Phase::Next).len(), 1);
    let (jwks, keep_ms) = fleet.node(1).jwks("push").await.unwrap();
    assert!(jwks.contains(&fleet.kids(0, Phase::Next)[0]));
    assert_eq!(keep_ms, 5 * MINUTE);
    pass(HOUR).await;
    assert_eq!(fleet.kids(1, Phase::Active), first);
    pass(MINUTE).await;
    assert_eq!(fleet.kids(1, Phase::Retiring), first);
}

#[tokio::test(start_paused = true)]
async fn a_retired_key_is_refused_everywhere_within_the_bound_and_the_new_one_is_known_at_once() {
    let fleet = Fleet::new(4, ISSUER);
    let leaked = sign(fleet.node(1), "push", "t").await.unwrap();
    let kid = fleet.kids(1, Phase::Active)[0].clone();
    pass(10 * SECOND + 300).await;
    for n in 0..4 {
        fleet.verify(n, &leaked).await.unwrap();
    }
    let epoch = verifier(fleet.node(3), "push").keys().epoch();
    let state = fleet.node(0).retire("push", &kid, "ops").await.unwrap();
    // Whoever reads the key set of any node for an unknown key finds it.
    let (jwks, _) = fleet.node(2).jwks("push").await.unwrap();
    assert!(jwks.contains(&fleet.kids(0, Phase::Active)[0]) && !jwks.contains(&kid));
    assert!(fleet.verify(0, &leaked).await.is_err(), "here at once");
    // A key that is milliseconds old: whoever does not know it looks.
    let fresh = sign(fleet.node(0), "push", "t").await.unwrap();
    for n in 0..4 {
        fleet.verify(n, &fresh).await.unwrap();
    }
    pass(state.bound_ms).await;
    for n in 0..4 {
        let refused = fleet.verify(n, &leaked).await.unwrap_err();
        assert!(matches!(refused, VerifyError::Refused(keyreeve::core::jwt::Refusal::UnknownKey { .. })), "{refused}");
        assert!(!fleet.node(n).jwks("push").await.unwrap().0.contains(&kid));
        let token = sign(fleet.node(n), "push", "t").await.unwrap();
        fleet.verify(3 - n, &token).await.unwrap();
    }
    assert!(verifier(fleet.node(3), "push").keys().epoch() > epoch, "kept verdicts are void");
    assert_eq!(fleet.node(0).retire("push", &kid, "ops").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_node_signs_and_verifies_for_as_long_as_it_says_and_no_longer() {
    let fleet = Fleet::new(2, ISSUER);
    sign(fleet.node(0), "push", "t").await.unwrap();
    pass(MINUTE).await;
    let keys = fleet.node(0).keys("push").unwrap();
    let epoch = keys.epoch();
    fleet.unplug(0, true);
    pass(59 * MINUTE).await;
    assert_eq!(keys.epoch(), epoch);
    let token = sign(fleet.node(0), "push", "t").await.unwrap();
    fleet.verify(0, &token).await.unwrap();
    fleet.verify(1, &token).await.unwrap();
    // Caches are not to keep longer than this node can answer for; and nobody waits for a store that is known to be away.
    let asked_at = fleet.now();
    assert!(fleet.node(0).jwks("push").await.unwrap().1 < 2 * MINUTE);
    assert_eq!(fleet.now(), asked_at);
    pass(MINUTE).await;
    let refused = sign(fleet.node(0), "push", "t").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::StoreUnavailable);
    assert!(refused.message.contains("unplugged"), "{refused}");
    let unknown = fleet.verify(0, &token).await.unwrap_err();
    assert!(matches!(unknown, VerifyError::Unavailable(_)), "never a refusal: {unknown}");
    assert_eq!(fleet.node(0).jwks("push").await.unwrap_err().kind, ErrorKind::StoreUnavailable);
    assert_ne!(keys.epoch(), epoch, "nor does a kept verdict hold");
    fleet.unplug(0, false);
    pass(SECOND + 100).await;
    let token = sign(fleet.node(0), "push", "t").await.unwrap();
    fleet.verify(1, &token).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_never_signs_with_a_key_whose_successor_has_taken_over() {
    let fleet = Fleet::new(2, ISSUER);
    sign(fleet.node(0), "push", "t").await.unwrap();
    pass(MINUTE).await;
    fleet.unplug(0, true);
    fleet.node(1).rotate("push", "ops").await.unwrap();
    let next = fleet.kids(1, Phase::Next)[0].clone();
    loop {
        let by_cut_off = sign(fleet.node(0), "push", "t").await;
        let is_taken_over = fleet.kids(1, Phase::Active)[0] == next;
        if is_taken_over {
            by_cut_off.unwrap_err();
            break;
        }
        if let Ok(token) = by_cut_off {
            fleet.verify(1, &token).await.unwrap();
        }
        pass(10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_with_unknown_keys_cause_few_reads_and_wait_a_moment() {
    let fleet = Fleet::new(1, ISSUER);
    let token = sign(fleet.node(0), "push", "t").await.unwrap();
    pass(10 * SECOND).await;
    let kid = fleet.kids(0, Phase::Active)[0].clone();
    let (_, payload) = token.split_once('.').unwrap();
    let reads = || fleet.nodes[0].1.reads.load(Ordering::SeqCst);
    let before = reads();
    let began = fleet.now();
    let tokens: Vec<String> = (0..1000)
        .map(|n| {
            let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"k9-{n:012x}"}}"#);
            format!("{}.{payload}", keyreeve::core::jwt::base64url::encode(header.as_bytes()))
        })
        .collect();
    // All of them share looks that begin at least a tenth of a second apart.
    let answers = futures::future::join_all(tokens.iter().map(|token| fleet.verify(0, token))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(VerifyError::Refused(_)))));
    assert!(fleet.now().since(began) <= 300, "{}", fleet.now().since(began));
    assert!(reads() - before <= 8, "{} reads for 1,000 strangers", reads() - before);
    assert_eq!(fleet.kids(0, Phase::Active)[0], kid);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_neither_a_success_nor_a_second_key() {
    let fleet = Fleet::new(2, ISSUER);
    sign(fleet.node(0), "push", "t").await.unwrap();
    fleet.nodes[0].1.loses_answers.store(true, Ordering::SeqCst);
    let state = fleet.node(0).rotate("push", "ops").await.unwrap();
    assert_eq!(state.keys.len(), 2, "the record tells that it was written");
    let active = fleet.kids(0, Phase::Active)[0].clone();
    fleet.node(0).retire("push", &active, "ops").await.unwrap();
    fleet.node(0).revoke("push", "some-jti", fleet.now().plus(HOUR)).await.unwrap();
    pass(SECOND + 100).await;
    assert!(fleet.node(1).is_revoked("push", "some-jti") && !fleet.node(1).is_revoked("push", "another"));
    assert_eq!(fleet.node(1).state("push").unwrap().keys.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_in_the_middle_leaves_one_consistent_set() {
    // A maker that never comes back is a process that was killed between generating a key and publishing it.
    struct Never;
    #[async_trait]
    impl keyreeve::inbound::issuer::KeyMaker for Never {
        async fn make(&self, _: keyreeve::core::jwt::Algorithm) -> Result<keyreeve::inbound::issuer::KeyPair, String> {
            std::future::pending().await
        }
    }
    let fleet = Fleet::new(3, ISSUER);
    sign(fleet.node(0), "push", "t").await.unwrap();
    let dying = Issuers::start(
        keyreeve::inbound::issuer::Parts {
            node: keyreeve::core::id::NodeId::parse("dying").unwrap(),
            host: Arc::clone(&fleet.host),
            register: Arc::clone(&fleet.shared),
            crypto: Arc::new(LocalCrypto),
            keys: KeyRing::new(SealKey::new(&LocalCrypto, [7; 32]), Vec::new()),
            maker: Arc::new(Never),
            store_ms: 2 * SECOND,
        },
        &fleet.config.issuers,
        None,
    );
    let rotation = tokio::spawn(async move { dying.rotate("push", "ops").await.map(drop) });
    pass(MINUTE).await;
    rotation.abort();
    assert_eq!(fleet.node(1).state("push").unwrap().keys.len(), 1, "nothing was begun");
    let mut kept = Vec::new();
    fleet.cross_check(&mut kept).await;
    fleet.node(2).rotate("push", "ops").await.unwrap();
    fleet.cross_check(&mut kept).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_sealed_and_sealed_anew_and_a_node_without_the_seal_key_says_so() {
    let fleet = Fleet::new(1, ISSUER);
    sign(fleet.node(0), "push", "t").await.unwrap();
    let stored = async || {
        let key = fleet.shared.list("is/", None, 10).await.unwrap().remove(0);
        keyreeve::core::issuer::KeySet::decode(&fleet.shared.read(&key).await.unwrap().unwrap().bytes).unwrap()
    };
    let (old, new) = (SealKey::new(&LocalCrypto, [7; 32]), SealKey::new(&LocalCrypto, [8; 32]));
    let sealed = stored().await.keys[0].sealed.clone().unwrap();
    assert_eq!(key_of(&sealed), Some(old.id()));
    let stranger = start_sealed(
        &fleet.config,
        ("stranger", &fleet.host),
        &fleet.shared,
        KeyRing::new(new.clone(), Vec::new()),
        None,
    );
    assert_eq!(sign(&stranger, "push", "t").await.unwrap_err().kind, ErrorKind::SealKeyMissing);
    // It can still verify: public keys are public.
    let token = sign(fleet.node(0), "push", "t").await.unwrap();
    verifier(&stranger, "push").verify(&token, fleet.now()).await.unwrap();
    stranger.stop();
    // A reload brings the key, and nobody has to write for that.
    let ring = KeyRing::new(old.clone(), vec![new.clone()]);
    let again = start_sealed(&fleet.config, ("stranger", &fleet.host), &fleet.shared, ring, Some(&stranger));
    pass(SECOND / 10).await;
    sign(&again, "push", "t").await.unwrap();
    assert_eq!(stored().await.rev, 1);
    let ring = KeyRing::new(new.clone(), vec![old]);
    let both = start_sealed(&fleet.config, ("both", &fleet.host), &fleet.shared, ring, None);
    sign(&both, "push", "t").await.unwrap();
    pass(SECOND + 100).await;
    assert_eq!(key_of(&stored().await.keys[0].sealed.clone().unwrap()), Some(new.id()));
    assert_eq!(stored().await.keys.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_algorithm_signs_and_verifies() {
    for algorithm in ["EdDSA", "ES256", "ES384", "ES512", "RS256", "PS256"] {
        let text = ISSUER.replace("keys = {", &format!("keys = {{ alg = \"{algorithm}\","));
        let fleet = Fleet::new(2, &text);
        let token = sign(fleet.node(0), "push", "t").await.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        fleet.verify(1, &token).await.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_signs_on_without_a_gap() {
    let fleet = Fleet::new(1, ISSUER);
    let token = sign(fleet.node(0), "push", "t").await.unwrap();
    fleet.unplug(0, true);
    let line: Arc<dyn Register> = Arc::clone(&fleet.nodes[0].1) as _;
    let after = start(&fleet.config, ("n0", &fleet.host), &line, Some(fleet.node(0)));
    sign(&after, "push", "t").await.unwrap();
    verifier(&after, "push").verify_at_once(&token, fleet.now()).unwrap();
}
