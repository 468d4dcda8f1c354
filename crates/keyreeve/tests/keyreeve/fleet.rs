//! A small fleet inside one test: shared register, strict upstream, and a clock that the test drives.
//!
//! Time is tokio's paused clock: it moves to the next timer when every task waits, so ten minutes pass at once, and
//! nothing sleeps.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use keyreeve::config::{Keep, Plan};
use keyreeve::core::id::{CredentialName, NodeId, WriteId};
use keyreeve::core::lifecycle::Order;
use keyreeve::core::record::FaultClass;
use keyreeve::core::rules::{Mode, OnDoubt, Rules};
use keyreeve::core::seal::{KeyRing, SealKey};
use keyreeve::core::time::{Moment, Mono, Steady, Timestamp};
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::error::Error;
use keyreeve::outbound::{Credential, Outbound, Parts, Previous, Served};
use keyreeve::port::{Capabilities, Entry, Host, Key, Register, StoreError, Swap};
use keyreeve::source::{Identity, Material, MintError, Minting, Nature, Source};
use tokio::time::Instant;

pub(crate) const SECOND: u64 = 1000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
/// 2026-11-22T00:00:00Z.
const EPOCH_MS: u64 = 1_795_305_600_000;

/// One node's clocks: true time, off by `offset_ms`.
pub(crate) struct TestHost {
    start: Instant,
    pub(crate) offset_ms: AtomicI64,
    steady: Mutex<Steady>,
    drawn: AtomicU64,
    seed: u64,
}

impl TestHost {
    pub(crate) fn new(start: Instant, seed: u64) -> Arc<Self> {
        let (offset_ms, steady, drawn) = (AtomicI64::new(0), Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { start, offset_ms, steady, drawn, seed })
    }
}

#[async_trait]
impl Host for TestHost {
    fn now(&self) -> Moment {
        let mono = self.start.elapsed().as_millis() as u64;
        let raw = (EPOCH_MS + mono).saturating_add_signed(self.offset_ms.load(Ordering::SeqCst));
        self.steady.lock().unwrap().read(Timestamp(raw), Mono(mono))
    }

    async fn sleep_until(&self, until: Mono) {
        tokio::time::sleep_until(self.start + Duration::from_millis(until.0)).await;
    }

    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let n = self.drawn.fetch_add(1, Ordering::SeqCst);
            *byte = keyreeve::core::schedule::spread(n ^ (self.seed << 32), 255) as u8;
        }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// What the upstream does when it is called.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    Mint,
    Fail(FaultClass, Option<u64>),
    /// Never answers.
    Hang,
    /// Mints, and the answer is lost.
    LoseAnswer,
    Panic,
}

/// An upstream that remembers when it was called.
pub(crate) struct Upstream {
    start: Instant,
    pub(crate) life_ms: u64,
    pub(crate) delay_ms: AtomicU64,
    pub(crate) behaviour: Mutex<Behaviour>,
    /// Milliseconds of true time of every call.
    pub(crate) calls: Mutex<Vec<u64>>,
    /// Milliseconds of true time of every mint.
    pub(crate) mints: Mutex<Vec<u64>>,
}

impl Upstream {
    pub(crate) fn new(start: Instant, life_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            start,
            life_ms,
            delay_ms: AtomicU64::new(200),
            behaviour: Mutex::new(Behaviour::Mint),
            calls: Mutex::default(),
            mints: Mutex::default(),
        })
    }

    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn call_count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    pub(crate) fn mint_count(&self) -> usize {
        self.mints.lock().unwrap().len()
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

#[async_trait]
impl Source for Upstream {
    fn kind(&self) -> &'static str {
        "test"
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, _: &Order, _: &str) -> Result<Minting, MintError> {
        self.calls.lock().unwrap().push(self.now_ms());
        tokio::time::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst))).await;
        let behaviour = self.behaviour.lock().unwrap().clone();
        match behaviour {
            Behaviour::Fail(class, retry_after_ms) => {
                Err(MintError { retry_after_ms, ..MintError::nothing_minted(class, "the upstream answered 500") })
            }
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Panic => panic!("a source that panics, on purpose"),
            Behaviour::Mint | Behaviour::LoseAnswer => {
                let now = self.now_ms();
                self.mints.lock().unwrap().push(now);
                let number = self.mint_count();
                if matches!(behaviour, Behaviour::LoseAnswer) {
                    return Err(MintError::in_doubt(FaultClass::Transient, "the connection was lost"));
                }
                let material = Material::bearer(format!("token-{number}"));
                Ok(Minting { material, issued_at: None, expires_at: Timestamp(EPOCH_MS + now + self.life_ms) })
            }
        }
    }
}

/// The same upstream, asked for something else by each number.
pub(crate) struct For(pub(crate) Arc<Upstream>, pub(crate) u8);

#[async_trait]
impl Source for For {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn nature(&self) -> Nature {
        self.0.nature()
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity([self.1; 32]))
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        self.0.mint(order, idempotency_key).await
    }
}

/// What happens to calls of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreFault {
    None,
    /// Refused at once.
    Away,
    /// Answered after this many milliseconds.
    Stall(u64),
    /// The next swap is made, and its answer lost.
    LoseAnswer,
    /// The next swap is not made, and looks the same.
    LoseRequest,
}

/// One node's way to the shared register.
pub(crate) struct Wire {
    pub(crate) to: Arc<Memory>,
    pub(crate) fault: Mutex<StoreFault>,
}

impl Wire {
    async fn fault(&self) -> Result<StoreFault, StoreError> {
        let fault = *self.fault.lock().unwrap();
        match fault {
            StoreFault::Away => return Err(StoreError::Refused("unplugged".into())),
            StoreFault::Stall(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            _ => (),
        }
        Ok(fault)
    }
}

#[async_trait]
impl Register for Wire {
    fn capabilities(&self) -> Capabilities {
        self.to.capabilities()
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.fault().await?;
        self.to.read(key).await
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        let fault = self.fault().await?;
        if matches!(fault, StoreFault::LoseRequest | StoreFault::LoseAnswer) {
            *self.fault.lock().unwrap() = StoreFault::None;
        }
        match fault {
            StoreFault::LoseRequest => Err(StoreError::Unknown("the request was lost".into())),
            StoreFault::LoseAnswer => {
                self.to.swap(key, expected, next).await?;
                Err(StoreError::Unknown("the answer was lost".into()))
            }
            _ => self.to.swap(key, expected, next).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.to.list(prefix, after, limit).await
    }
}

pub(crate) struct Node {
    pub(crate) host: Arc<TestHost>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) outbound: Outbound,
}

impl Node {
    pub(crate) async fn token(&self) -> Result<Served, Error> {
        self.token_within(1500).await
    }

    pub(crate) async fn token_within(&self, ms: u64) -> Result<Served, Error> {
        let deadline = self.host.now().mono.plus(ms);
        self.outbound.token("push", 0, deadline).await
    }

    pub(crate) async fn record(&self) -> keyreeve::core::record::Record {
        self.outbound.record("push").await.unwrap().unwrap()
    }
}

/// A fleet that shares one credential named `push`.
pub(crate) struct Fleet {
    pub(crate) start: Instant,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) register: Arc<Memory>,
    pub(crate) rules: Rules,
    pub(crate) nodes: Vec<Node>,
}

impl Fleet {
    pub(crate) fn new(count: usize, rules: Rules) -> Self {
        let start = Instant::now();
        let upstream = Upstream::new(start, rules.life_ms);
        let mut fleet = Self { start, upstream, register: Arc::new(Memory::new()), rules, nodes: Vec::new() };
        for _ in 0..count {
            fleet.join();
        }
        fleet
    }

    /// Starts one more node.
    pub(crate) fn join(&mut self) -> &Node {
        let number = self.nodes.len();
        let host = TestHost::new(self.start, number as u64 + 1);
        let wire = Arc::new(Wire { to: Arc::clone(&self.register), fault: Mutex::new(StoreFault::None) });
        let source = Arc::clone(&self.upstream) as Arc<dyn Source>;
        let outbound = self.outbound(number, (&host, &wire), source, None);
        self.nodes.push(Node { host, wire, outbound });
        self.nodes.last().unwrap()
    }

    /// A node's driver after a reload, by which its credential comes from `source`.
    pub(crate) fn reloaded(&self, number: usize, source: Arc<dyn Source>) -> Outbound {
        let Node { host, wire, outbound } = &self.nodes[number];
        self.outbound(number, (host, wire), source, Some(Previous { outbound, is_same_store: true }))
    }

    /// A node after a reload, by which its store is another one.
    pub(crate) fn moved(&self, number: usize, register: &Arc<Memory>) -> Node {
        let Node { host, outbound, .. } = &self.nodes[number];
        let wire = Arc::new(Wire { to: Arc::clone(register), fault: Mutex::new(StoreFault::None) });
        let source = Arc::clone(&self.upstream) as Arc<dyn Source>;
        let previous = Previous { outbound, is_same_store: false };
        let moved = self.outbound(number, (host, &wire), source, Some(previous));
        Node { host: Arc::clone(host), wire, outbound: moved }
    }

    fn outbound(
        &self,
        number: usize,
        (host, wire): (&Arc<TestHost>, &Arc<Wire>),
        source: Arc<dyn Source>,
        previous: Option<Previous<'_>>,
    ) -> Outbound {
        let crypto = Arc::new(LocalCrypto);
        let parts = Parts {
            node: NodeId::parse(&format!("node-{number}")).unwrap(),
            host: Arc::clone(host) as Arc<dyn Host>,
            register: Some(Arc::clone(wire) as Arc<dyn Register>),
            keys: Some(KeyRing::new(SealKey::new(crypto.as_ref(), [9; 32]), Vec::new())),
            crypto,
            store_ms: 2000,
            drive: keyreeve::outbound::Drive::Timer,
            tick_ms: 0,
        };
        let credential = Credential {
            name: CredentialName::parse("push").unwrap(),
            source,
            plan: Arc::new(Plan::Fleet(self.rules.clone())),
            keep: Keep::OnDemand { lifetimes: 3 },
        };
        Outbound::start(parts, vec![credential], previous)
    }
}

/// An hourly credential of which several may be valid at once.
pub(crate) fn lease() -> Rules {
    Rules {
        mode: Mode::Lease,
        on_doubt: OnDoubt::Wait,
        lease_ms: 20 * SECOND,
        takeover_ms: 25 * SECOND,
        send_ms: 5 * SECOND,
        answer_ms: 10 * SECOND,
        min_interval_ms: 30 * SECOND,
        skew_ms: 2 * SECOND,
        is_clock_trusted: false,
        life_ms: HOUR,
        lead_ms: 10 * MINUTE,
        backdate_ms: 0,
        handover_ms: 0,
        wake_spread_ms: 2 * MINUTE,
        refresh_jitter_ms: 2 * MINUTE,
        hold_ms: SECOND,
        hold_ms_max: MINUTE,
        hard_hold_ms: 30 * SECOND,
        hard_hold_ms_max: 15 * MINUTE,
        poll_ms: SECOND,
        stale_ms: 0,
        first_mint_waits: false,
        quiet: Vec::new(),
        history_max: 16,
    }
}

/// An hourly credential of which one may be minted in twenty minutes.
pub(crate) fn exclusive() -> Rules {
    Rules {
        mode: Mode::Exclusive,
        min_interval_ms: 20 * MINUTE,
        lead_ms: 30 * MINUTE,
        wake_spread_ms: 2 * SECOND,
        ..lease()
    }
}
