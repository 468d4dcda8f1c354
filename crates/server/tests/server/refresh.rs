//! R16: refresh tokens that are good for one use, with crashes between any two steps.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use keyreeve::core::id::{CredentialName, NodeId, WriteId};
use keyreeve::core::operator::{Status, Verdict};
use keyreeve::core::record::{FaultClass, HistoryKind, Record};
use keyreeve::core::seal::{KeyRing, SealKey};
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::error::ErrorKind;
use keyreeve::outbound::{Credential, Drive, Outbound, Parts, record_key};
use keyreeve::port::{Capabilities, Entry, Host as _, Key, Register, StoreError, Swap};
use keyreeve::source::{Before, Fields, Kept, build};
use keyreeve_picky::issuers::oauth::{self, Client, Rotation, Server};
use keyreeve_picky::issuers::{Fault, Faults, WrongExpiry};
use keyreeve_server::host::OsHost;
use keyreeve_server::secrets::OsSecrets;

use crate::issuers::{Asking, config, tools};
use crate::support::order;

/// Where a node dies: at its swap of this number, before or after the register has made it.
#[derive(Clone, Copy, Debug)]
struct Death {
    at: usize,
    is_made: bool,
}

/// A register that one node reaches until it dies.
struct Wire {
    register: Arc<Memory>,
    death: Option<Death>,
    swaps: AtomicUsize,
}

#[async_trait]
impl Register for Wire {
    fn capabilities(&self) -> Capabilities {
        self.register.capabilities()
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.alive().await;
        self.register.read(key).await
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        self.alive().await;
        let number = self.swaps.fetch_add(1, Ordering::SeqCst) + 1;
        match self.death.filter(|death| death.at == number) {
            Some(death) => {
                if death.is_made {
                    let _ = self.register.swap(key, expected, next).await;
                }
                std::future::pending().await
            }
            None => self.register.swap(key, expected, next).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.register.list(prefix, after, limit).await
    }
}

impl Wire {
    fn is_dead(&self) -> bool {
        self.death.is_some_and(|death| self.swaps.load(Ordering::SeqCst) >= death.at)
    }

    /// A node that is dead does nothing any more.
    async fn alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

struct World {
    server: Server,
    register: Arc<Memory>,
    folder: tempfile::TempDir,
    rotates: bool,
    skew: &'static str,
}

async fn server(rotation: Rotation, life: Duration) -> Server {
    let client = |id: &str| Client { id: id.into(), secret: Some("client-secret".into()), keys: Vec::new() };
    let clients = vec![client("agent"), client("other")];
    oauth::start(oauth::Config { clients, rotation, life, ..Default::default() }).await.unwrap()
}

impl World {
    async fn new(rotation: Rotation) -> Self {
        Self::living(rotation, Duration::from_secs(3600)).await
    }

    /// One whose access tokens live this long.
    async fn living(rotation: Rotation, life: Duration) -> Self {
        let server = server(rotation, life).await;
        let folder = tempfile::tempdir().unwrap();
        let rotates = rotation == Rotation::Strict;
        let world = Self { server, register: Arc::new(Memory::new()), folder, rotates, skew: "0s" };
        world.consent();
        world
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("refresh")
    }

    /// A user agrees, and an operator puts the refresh token where it is read from.
    fn consent(&self) {
        self.put(&self.server.consent());
    }

    fn put(&self, token: &str) {
        std::fs::write(self.file(), token).unwrap();
        std::fs::set_permissions(self.file(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn node(&self, number: usize) -> Outbound {
        self.node_on(number, None).0
    }

    fn node_on(&self, number: usize, death: Option<Death>) -> (Outbound, Arc<Wire>) {
        self.node_at(number, &self.server.token_url(), "agent", death)
    }

    fn node_at(&self, number: usize, url: &str, client: &str, death: Option<Death>) -> (Outbound, Arc<Wire>) {
        let host = Arc::new(OsHost::new());
        let config = config(&format!(
            "[credential.c]\nsource = \"oauth2-refresh\"\nkeep = \"always\"\n[credential.c.params]\ntoken_url = \"{url}\"\nclient_id = \"{client}\"\nclient_secret = \"client-secret\"\nrefresh_token = \"file:{}\"\nrotates = {}\n[credential.c.life]\nmin_interval = \"1ms\"\nsend = \"300ms\"\ntimeout = \"400ms\"\nlease = \"700ms\"\ntakeover = \"900ms\"\npoll = \"50ms\"\nhold = \"20ms\"\nhard_hold = \"20ms\"\nskew = \"{}\"\n",
            self.file().display(),
            self.rotates,
            self.skew
        ));
        let name = CredentialName::parse("c").unwrap();
        let source = build(&config, &name, &OsSecrets, &tools(&host)).unwrap();
        let wire = Arc::new(Wire { register: Arc::clone(&self.register), death, swaps: AtomicUsize::new(0) });
        let parts = Parts {
            node: NodeId::parse(&format!("node-{number}")).unwrap(),
            host,
            register: Some(Arc::clone(&wire) as Arc<dyn Register>),
            crypto: Arc::new(LocalCrypto),
            keys: Some(KeyRing::new(SealKey::new(&LocalCrypto, [7; 32]), Vec::new())),
            store_ms: 60_000,
            drive: Drive::Timer,
            tick_ms: 0,
        };
        let credential = Credential { name, source, plan: Arc::new(config.plan), keep: config.keep };
        (Outbound::start(parts, vec![credential], None), wire)
    }

    async fn record(&self) -> Option<Record> {
        let key = record_key(&LocalCrypto, &CredentialName::parse("c").unwrap(), None);
        let entry = self.register.read(&key).await.unwrap()?;
        Some(Record::decode(&entry.bytes).unwrap())
    }

    /// Waits until `node` serves, or until it says that an operator has to act; ten seconds at the most.
    async fn outcome(&self, node: &Outbound) -> Outcome {
        let started = Instant::now();
        loop {
            match node.token("c", 0, far(node)).await {
                Ok(served) => {
                    let Fields::Token(token) = &served.material.secret else { panic!("a token") };
                    return Outcome::Recovered(token.expose().clone());
                }
                Err(error) if error.kind == ErrorKind::NeedsReauth => return Outcome::NeedsReauth(error.message),
                Err(error) => assert!(started.elapsed() < Duration::from_secs(10), "neither: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A deadline that every wait in these tests ends before.
fn far(_: &Outbound) -> keyreeve::core::time::Mono {
    OsHost::new().now().mono.plus(500)
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Recovered(String),
    NeedsReauth(String),
}

/// Spoils the next refresh that is made, and waits until an operator is needed.
async fn spoiled(world: &World, node: &Outbound, fault: Fault) {
    world.server.set_faults(Faults::next(1, fault)).unwrap();
    let started = Instant::now();
    while node.status_of("c", world.record().await.as_ref()) != Some(Status::NeedsReauth) {
        assert!(started.elapsed() < Duration::from_secs(10));
        let _ = node.renew("c").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An operator's verdict, once the mint in doubt is over.
async fn resolved(node: &Outbound, verdict: Verdict) {
    let started = Instant::now();
    while let Err(error) = node.resolve("c", verdict, "test").await {
        assert!(started.elapsed() < Duration::from_secs(10), "{error:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks for renewals until the credential has this generation.
async fn renewed(node: &Outbound, generation: u64) {
    let started = Instant::now();
    while node.get("c").is_none_or(|served| served.generation < generation) {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "generation {generation} never came: {:?}",
            node.state("c").unwrap()
        );
        let _ = node.renew("c").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_refreshes_uses_each_token_once_on_whichever_node() {
    let world = World::new(Rotation::Strict).await;
    let nodes = [world.node(1), world.node(2), world.node(3)];
    for generation in 1..=9_u64 {
        renewed(&nodes[usize::try_from(generation).unwrap() % 3], generation).await;
    }
    let score = world.server.score();
    assert_eq!((score.reuses, score.families_revoked), (0, 0));
    assert!(score.refreshes >= 9 && score.refreshes == score.issued, "{score:?}");
    // The refresh token is in no answer, and in no readable form in the store.
    let record = world.record().await.unwrap();
    let text = String::from_utf8_lossy(&record.encode()).into_owned();
    assert!(!text.contains("refresh-") && record.history.iter().all(|entry| !entry.detail.contains("refresh-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_ends_recovered_or_with_an_operator_and_never_spends_twice() {
    // The swaps of one mint: 1 takes the lease, 2 publishes. 3 asks for another one, whose swaps are 4 and 5.
    for at in 1..=5 {
        for is_made in [false, true] {
            let world = World::new(Rotation::Strict).await;
            let death = Death { at, is_made };
            let (first, wire) = world.node_on(1, Some(death));
            // Nobody is handed what is not committed: its refresh token would be lost with the node.
            let handed = first.token("c", 0, far(&first)).await.map(|served| served.generation).ok();
            assert_eq!(handed, (at > 2).then_some(1), "{death:?}");
            if at > 2 {
                assert!(first.get("c").is_some(), "{death:?}");
                let started = Instant::now();
                while !wire.is_dead() {
                    assert!(started.elapsed() < Duration::from_secs(10), "{death:?}");
                    // Whoever asks a node that is dead hears nothing.
                    let _ = tokio::time::timeout(Duration::from_millis(50), first.renew("c")).await;
                }
            }
            crate::support::until("the node is dead", || wire.is_dead()).await;
            assert_eq!(first.get("c").map(|served| served.generation), (at > 2).then_some(1), "{death:?}");
            first.stop();
            let second = world.node(2);
            let outcome = world.outcome(&second).await;
            let score = world.server.score();
            assert_eq!((score.reuses, score.families_revoked), (0, 0), "{death:?}: {score:?}");
            // Where the intent was written and its outcome was not, a refresh may have left this process.
            let record = world.record().await.unwrap();
            let is_open = matches!((at, is_made), (1 | 4, true) | (2 | 5, false));
            let is_intent_left = record.intent.is_some_and(|intent| intent.holder.node.as_str() == "node-1");
            assert_eq!(is_intent_left, is_open, "{death:?}");
            // A credential that is still valid is served on meanwhile.
            assert_eq!(matches!(outcome, Outcome::NeedsReauth(_)), is_open && at <= 2, "{death:?}: {outcome:?}");
            if is_open {
                let calls = score.calls;
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert_eq!(world.server.score().calls, calls, "{death:?}: no loop");
                world.consent();
                resolved(&second, Verdict::Reauthorize).await;
                renewed(&second, record.generation + 1).await;
                assert!(matches!(world.outcome(&second).await, Outcome::Recovered(_)));
            }
            assert_eq!(world.server.score().families_revoked, 0, "{death:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_waits_for_an_operator_and_a_new_consent_ends_it() {
    let world = World::new(Rotation::Strict).await;
    let node = world.node(1);
    renewed(&node, 1).await;
    spoiled(&world, &node, Fault::DropAfterIssue).await;
    // What is valid is served on.
    let before = node.get("c").unwrap().generation;
    let calls = world.server.score().calls;
    world.consent();
    resolved(&node, Verdict::Reauthorize).await;
    renewed(&node, before + 1).await;
    let score = world.server.score();
    assert!(
        score.calls > calls && score.call_list[usize::try_from(calls).unwrap() - 1].fault.is_some(),
        "not tried meanwhile"
    );
    let score = world.server.score();
    assert_eq!((score.reuses, score.families_revoked), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_sure_is_tried_again_and_a_503_of_a_gateway_is_not() {
    let world = World::new(Rotation::Strict).await;
    let node = world.node(1);
    let fail = |status, code: &str| Fault::Fail { status, code: code.into(), retry_after_s: None };
    for fault in [fail(503, "temporarily_unavailable"), fail(429, "slow_down")] {
        world.server.set_faults(Faults::next(1, fault)).unwrap();
        let before = node.get("c").map_or(0, |served| served.generation);
        renewed(&node, before + 1).await;
    }
    // Nor is one with words of a gateway's own, also where it says when to come back.
    let gateway = Fault::Fail { status: 503, code: "backend_fetch_failed".into(), retry_after_s: Some(1) };
    for fault in [Fault::Plain { status: 503 }, gateway] {
        spoiled(&world, &node, fault).await;
        // The operator knows that it was the gateway: then the same token is used.
        resolved(&node, Verdict::Discard).await;
        let before = node.get("c").unwrap().generation;
        renewed(&node, before + 1).await;
    }
    assert_eq!(world.server.score().families_revoked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_refresh_token_is_kept_whatever_the_access_token_looks_like() {
    let world = World::new(Rotation::Strict).await;
    let node = world.node(1);
    let mut generation = 0;
    for wrong in [WrongExpiry::Absent, WrongExpiry::Zero, WrongExpiry::Absurd, WrongExpiry::Nonsense] {
        world.server.set_faults(Faults::next(1, Fault::Expiry { wrong })).unwrap();
        generation += 1;
        renewed(&node, generation).await;
        generation = node.get("c").unwrap().generation;
    }
    world.server.set_faults(Faults::default()).unwrap();
    renewed(&node, generation + 1).await;
    assert_eq!(world.server.score().reuses, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_refresh_token_is_kept_also_where_the_access_token_is_over_when_it_comes() {
    let mut world = World::living(Rotation::Strict, Duration::from_secs(2)).await;
    // Two clocks may be further apart than its access tokens live: no caller gets one, and the chain goes on.
    world.skew = "3s";
    let node = world.node(1);
    let started = Instant::now();
    while world.server.score().refreshes < 3 {
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", world.server.score());
        assert!(node.token("c", 0, far(&node)).await.is_err());
    }
    let score = world.server.score();
    assert_eq!((score.reuses, score.families_revoked), (0, 0), "{score:?}");
    assert_ne!(node.status_of("c", world.record().await.as_ref()), Some(Status::NeedsReauth));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_consent_is_told_and_not_tried_in_a_loop() {
    let world = World::new(Rotation::Strict).await;
    std::fs::write(world.file(), "no-such-refresh-token").unwrap();
    let node = world.node(1);
    let Outcome::NeedsReauth(message) = world.outcome(&node).await else { panic!("recovered") };
    assert!(message.contains("invalid_grant") && message.contains("reauthorize"), "{message}");
    assert!(!message.contains("no-such-refresh-token"), "{message}");
    assert_eq!(world.server.score().calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_rotate_is_asked_again_with_the_same_token() {
    let world = World::new(Rotation::None).await;
    let node = world.node(1);
    renewed(&node, 1).await;
    world.server.set_faults(Faults::next(1, Fault::DropAfterIssue)).unwrap();
    renewed(&node, 3).await;
    assert_eq!(world.server.score().families_revoked, 0);
}

/// Waits until `node` says that somebody has to change something, with this in the sentence.
async fn misconfigured(world: &World, node: &Outbound, what: &str) {
    let started = Instant::now();
    loop {
        let failure = world.record().await.and_then(|record| record.failure);
        if failure.is_some_and(|failure| failure.class == FaultClass::Misconfigured && failure.message.contains(what)) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", world.record().await);
        let _ = node.renew("c").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// After a verdict that the token in doubt is used up, nothing is sent until there is a new one, and then it goes on.
async fn is_not_spent_again(world: &World, node: &Outbound, verdict: Verdict) {
    let calls = world.server.score().calls;
    resolved(node, verdict).await;
    misconfigured(world, node, "put a new one").await;
    assert_eq!(world.server.score().calls, calls, "nothing was sent");
    let generation = world.record().await.unwrap().generation;
    world.consent();
    renewed(node, generation + 1).await;
    let generation = node.get("c").unwrap().generation;
    renewed(node, generation + 1).await;
    let score = world.server.score();
    assert_eq!((score.reuses, score.families_revoked), (0, 0), "{score:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_the_token_is_used_up_keeps_nodes_with_the_old_file_from_using_it_again() {
    for verdict in [Verdict::Reauthorize, Verdict::Adopt] {
        let world = World::new(Rotation::Strict).await;
        let node = world.node(1);
        renewed(&node, 2).await;
        spoiled(&world, &node, Fault::DropAfterIssue).await;
        is_not_spent_again(&world, &node, verdict).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_token_in_doubt_is_not_used_again_either_after_an_answer_was_lost_or_a_node() {
    let world = World::new(Rotation::Strict).await;
    world.server.set_faults(Faults::next(1, Fault::DropAfterIssue)).unwrap();
    let node = world.node(1);
    assert!(matches!(world.outcome(&node).await, Outcome::NeedsReauth(_)));
    is_not_spent_again(&world, &node, Verdict::Reauthorize).await;

    // This node dies between the answer and its commit, and leaves nothing but its intent.
    let world = World::new(Rotation::Strict).await;
    let (first, wire) = world.node_on(1, Some(Death { at: 2, is_made: false }));
    crate::support::until("the node is dead", || wire.is_dead()).await;
    first.stop();
    let second = world.node(2);
    assert!(matches!(world.outcome(&second).await, Outcome::NeedsReauth(_)));
    is_not_spent_again(&world, &second, Verdict::Reauthorize).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_that_was_in_doubt_is_not_used_again_and_neither_is_the_chain_before_it() {
    let world = World::new(Rotation::Strict).await;
    let first_file = std::fs::read_to_string(world.file()).unwrap();
    let node = world.node(1);
    renewed(&node, 1).await;
    world.consent();
    spoiled(&world, &node, Fault::DropAfterIssue).await;
    let second_file = std::fs::read_to_string(world.file()).unwrap();
    is_not_spent_again(&world, &node, Verdict::Reauthorize).await;
    // And once the chain has gone on, none of the old files does any harm.
    for old in [first_file, second_file] {
        world.put(&old);
        let generation = node.get("c").unwrap().generation;
        renewed(&node, generation + 1).await;
        assert_eq!(world.server.score().reuses, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_shown_to_the_server_and_by_the_client_that_it_came_from_and_to_nobody_else() {
    for rotation in [Rotation::Strict, Rotation::None] {
        let world = World::new(rotation).await;
        let other = server(rotation, Duration::from_secs(3600)).await;
        let node = world.node(1);
        renewed(&node, 1).await;
        node.stop();
        let calls = world.server.score().calls;
        for (url, client) in [(other.token_url(), "agent"), (world.server.token_url(), "other")] {
            let (changed, _) = world.node_at(2, &url, client, None);
            misconfigured(&world, &changed, "another `token_url` or `client_id`").await;
            assert_eq!((other.score().calls, world.server.score().calls), (0, calls), "{client} at {url}");
            changed.stop();
        }
        // Back to what it was, and on.
        let node = world.node(3);
        renewed(&node, 2).await;
        node.stop();
        // With a consent of its own the other server is asked.
        let calls = world.server.score().calls;
        // Both servers count from one; this token is of this server alone.
        let new = (0..20).fold(String::new(), |_, _| other.consent());
        world.put(&new);
        let (changed, _) = world.node_at(4, &other.token_url(), "agent", None);
        renewed(&changed, world.record().await.unwrap().generation + 1).await;
        renewed(&changed, world.record().await.unwrap().generation + 1).await;
        assert_eq!((other.score().reuses, world.server.score().calls), (0, calls));
        assert!(other.score().refreshes >= 2);
    }
}

/// A source by itself, in whose turn it is to mint.
struct Alone {
    asking: Asking,
    left: Option<Kept>,
}

impl Alone {
    fn new(world: &World) -> Self {
        let text = "[credential.c]\nsource = \"oauth2-refresh\"\n[credential.c.params]\n";
        let asking = Asking::new(&format!(
            "{text}token_url = \"{}\"\nclient_id = \"agent\"\nclient_secret = \"client-secret\"\nrefresh_token = \"file:{}\"\nrotates = {}\n",
            world.server.token_url(),
            world.file().display(),
            world.rotates,
        ));
        Self { asking, left: None }
    }

    /// Mints after what the mint before has left. Returns the refresh token that the next one would use.
    async fn mint(&mut self) -> String {
        let source = &self.asking.source;
        let before = Before { kept: self.left.as_ref(), ..Before::default() };
        let before = Before { announced: source.uses(before), ..before };
        let (_, kept) = source.mint_after(&order(&self.asking.host, 20_000), "k", before).await.unwrap();
        self.left = kept;
        self.left.as_ref().unwrap().0["refresh_token"].expose().clone()
    }
}

#[tokio::test]
async fn a_chain_that_an_older_keyreeve_has_left_goes_on() {
    let world = World::new(Rotation::Strict).await;
    let mut alone = Alone::new(&world);
    for _ in 0..3 {
        alone.mint().await;
        // It did not write down whose the chain is.
        let kept = &mut alone.left.as_mut().unwrap().0;
        assert!(kept.remove("of").is_some());
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["refresh_token", "seeds"]);
    }
    assert_eq!((world.server.score().refreshes, world.server.score().reuses), (3, 0));
}

#[tokio::test]
async fn where_nothing_rotates_the_token_in_the_file_is_used_also_an_earlier_one() {
    let world = World::new(Rotation::None).await;
    let mut alone = Alone::new(&world);
    let first = std::fs::read_to_string(world.file()).unwrap();
    assert_eq!(alone.mint().await, first);
    world.consent();
    let second = std::fs::read_to_string(world.file()).unwrap();
    assert_eq!((alone.mint().await, alone.mint().await), (second.clone(), second));
    world.put(&first);
    assert_eq!((alone.mint().await, alone.mint().await), (first.clone(), first), "an operator took the change back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_refresh_token_is_kept_also_where_nobody_can_use_its_access_token() {
    for generation in [0, 1] {
        let world = World::new(Rotation::Strict).await;
        if generation > 0 {
            let node = world.node(0);
            renewed(&node, 1).await;
            node.stop();
        }
        world.server.set_faults(Faults::next(3, Fault::BadToken)).unwrap();
        let node = world.node(1);
        let started = Instant::now();
        while world.server.score().refreshes < 3 + generation {
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", world.record().await);
            // What is valid is served on, and what came is handed to nobody.
            let served = node.token("c", 0, far(&node)).await.map(|served| served.generation).ok();
            assert!(served == (generation > 0).then_some(1) || world.server.score().refreshes > 3 + generation);
            let _ = node.renew("c").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        renewed(&node, generation + 4).await;
        renewed(&node, generation + 5).await;
        let (score, record) = (world.server.score(), world.record().await.unwrap());
        assert_eq!((score.reuses, score.families_revoked), (0, 0), "{score:?}");
        let failed: Vec<_> = record.history.iter().filter(|entry| entry.kind == HistoryKind::Failed).collect();
        assert_eq!(failed.len(), 3, "{record:?}");
        assert!(failed.iter().all(|entry| entry.detail.contains("no header") && entry.detail.contains("is kept")));
        assert_ne!(node.status_of("c", Some(&record)), Some(Status::NeedsReauth));
    }
}
