//! One node with its HTTP surface inside a test: a memory register that can be unplugged, upstreams that do as they
//! are told, and tokio's paused clock, so that an hour passes at once and every answer is the same each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use keyreeve::access::{self, FamilyConfig, Tokens};
use keyreeve::config::{Action, CallerConfig, Keep, Limits, OnStale, Plan, Proof, RevocationConfig, Surface};
use keyreeve::core::id::{CredentialName, NodeId, WriteId};
use keyreeve::core::lifecycle::Order;
use keyreeve::core::record::FaultClass;
use keyreeve::core::rules::{Mode, OnDoubt, Rules};
use keyreeve::core::schedule::Slots;
use keyreeve::core::seal::{KeyRing, SealKey};
use keyreeve::core::secret::Secret;
use keyreeve::core::time::{Moment, Mono, Timestamp};
use keyreeve::core::token::Format;
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::http::{Api, Live, Parts, Peer, router};
use keyreeve::inbound::Inbound;
use keyreeve::outbound::{Credential, Outbound, Parts as OutboundParts, Previous};
use keyreeve::port::{Capabilities, Entry, Host, Key, Register, StoreError, Swap};
use keyreeve::revocation::{self, Revocations};
use keyreeve::source::{Fields, Material, MintError, Minting, Nature, Source};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tower::ServiceExt as _;

pub(crate) const SECOND: u64 = 1000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
/// 2026-11-22T00:00:00Z.
pub(crate) const EPOCH_MS: u64 = 1_795_305_600_000;

pub(crate) struct TestHost {
    start: Instant,
    drawn: AtomicU64,
}

impl TestHost {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), drawn: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Host for TestHost {
    fn now(&self) -> Moment {
        let mono = self.start.elapsed().as_millis() as u64;
        Moment::new(Timestamp(EPOCH_MS + mono), Mono(mono))
    }

    async fn sleep_until(&self, until: Mono) {
        tokio::time::sleep_until(self.start + Duration::from_millis(until.0)).await;
    }

    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let n = self.drawn.fetch_add(1, Ordering::SeqCst);
            *byte = keyreeve::core::schedule::spread(n, 255) as u8;
        }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// What an upstream does when it is called.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    Mint,
    Fail(FaultClass, Option<u64>, &'static str),
    Hang,
    LoseAnswer,
}

/// An upstream of one credential; counts its mints.
pub(crate) struct Upstream {
    host: Arc<TestHost>,
    makes_fields: bool,
    behaviour: Mutex<Behaviour>,
    pub(crate) mints: AtomicU64,
}

impl Upstream {
    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
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
        tokio::time::sleep(Duration::from_millis(200)).await;
        let behaviour = self.behaviour.lock().unwrap().clone();
        match behaviour {
            Behaviour::Hang => std::future::pending().await,
            Behaviour::LoseAnswer => Err(MintError::in_doubt(FaultClass::Transient, "the connection was lost")),
            Behaviour::Fail(class, retry_after_ms, message) => {
                Err(MintError { retry_after_ms, ..MintError::nothing_minted(class, message) })
            }
            Behaviour::Mint => {
                let number = self.mints.fetch_add(1, Ordering::SeqCst) + 1;
                let secret = |name: &str| Secret::new(format!("secret-{name}-{number}"));
                let material = if self.makes_fields {
                    let fields = ["AccessKeyId", "SecretAccessKey", "SessionToken"];
                    let named = fields.map(|name| (name.to_owned(), secret(name)));
                    Material { secret: Fields::Named(named.into()), kind: Material::AWS.into() }
                } else {
                    Material::bearer(secret("token").expose().clone())
                };
                Ok(Minting { material, issued_at: None, expires_at: self.host.now().wall.plus(HOUR) })
            }
        }
    }
}

/// A register that can be unplugged.
#[derive(Default)]
pub(crate) struct Wire {
    to: Memory,
    pub(crate) is_away: AtomicBool,
    pub(crate) reads: AtomicU64,
}

impl Wire {
    /// Cuts every stored record short.
    pub(crate) async fn damage_everything(&self) {
        for key in self.to.list("", None, 100).await.unwrap() {
            let entry = self.to.read(&key).await.unwrap().unwrap();
            let cut = Entry { op: entry.op, bytes: entry.bytes.slice(..entry.bytes.len() / 2) };
            self.to.swap(&key, Some(entry.op), cut).await.unwrap();
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let away = self.is_away.load(Ordering::SeqCst);
        if away { Err(StoreError::Refused("/var/lib/keyreeve/state.db: unplugged".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Register for Wire {
    fn capabilities(&self) -> Capabilities {
        self.to.capabilities()
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        self.to.read(key).await
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        self.check()?;
        self.to.swap(key, expected, next).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.check()?;
        self.to.list(prefix, after, limit).await
    }
}

fn exclusive() -> Rules {
    Rules {
        mode: Mode::Exclusive,
        on_doubt: OnDoubt::Wait,
        lease_ms: 20 * SECOND,
        takeover_ms: 25 * SECOND,
        send_ms: 5 * SECOND,
        answer_ms: 10 * SECOND,
        min_interval_ms: 20 * MINUTE,
        skew_ms: 2 * SECOND,
        is_clock_trusted: false,
        life_ms: HOUR,
        lead_ms: 30 * MINUTE,
        backdate_ms: 0,
        handover_ms: 0,
        wake_spread_ms: 0,
        refresh_jitter_ms: 0,
        hold_ms: 2 * SECOND,
        hold_ms_max: 5 * MINUTE,
        hard_hold_ms: MINUTE,
        hard_hold_ms_max: 15 * MINUTE,
        poll_ms: 2 * SECOND,
        stale_ms: 0,
        first_mint_waits: false,
        quiet: Vec::new(),
        history_max: 20,
    }
}

fn lease() -> Rules {
    Rules { mode: Mode::Lease, min_interval_ms: 10 * SECOND, lead_ms: 10 * MINUTE, ..exclusive() }
}

fn plans() -> Vec<(&'static str, Plan)> {
    let slots = Slots {
        period_ms: 25 * MINUTE,
        backdate_ms: 2 * MINUTE,
        life_ms: HOUR,
        skew_ms: MINUTE,
        upstream_skew_ms: MINUTE,
        flight_ms: 10 * SECOND,
        min_interval_ms: 20 * MINUTE,
    };
    vec![
        ("push", Plan::Fleet(exclusive())),
        ("push-handover", Plan::Fleet(Rules { handover_ms: 5 * MINUTE, ..exclusive() })),
        ("refresh", Plan::Fleet(Rules { on_doubt: OnDoubt::Reauthorize, ..exclusive() })),
        ("stretched", Plan::Fleet(Rules { stale_ms: HOUR, ..lease() })),
        ("slotted", Plan::Slot(slots)),
        ("acme/lake", Plan::Fleet(lease())),
    ]
}

pub(crate) const ALL_ACTIONS: [Action; 17] = [
    Action::List,
    Action::Token,
    Action::Report,
    Action::Renew,
    Action::Resolve,
    Action::History,
    Action::Events,
    Action::Metrics,
    Action::Verify,
    Action::Keys,
    Action::Rotate,
    Action::Retire,
    Action::Tokens,
    Action::Grant,
    Action::Revoke,
    Action::Artifacts,
    Action::Publish,
];

/// The uid of the caller `local`.
pub(crate) const LOCAL_UID: u32 = 1001;

fn caller(proof: Proof, can: impl IntoIterator<Item = Action>, credentials: &[&str]) -> CallerConfig {
    let credentials: Vec<String> = credentials.iter().map(|&name| name.to_owned()).collect();
    CallerConfig {
        proof,
        can: can.into_iter().collect(),
        issuers: credentials.clone(),
        tokens: credentials.clone(),
        credentials,
    }
}

/// Callers: `ops` may do everything, `worker` takes and reports `push` and everything of tenant `acme`, `elsewhere` may
/// do everything with other credentials, `idle` may do nothing, and `local` is a uid. Each key is `key-NAME`.
pub(crate) fn callers() -> BTreeMap<String, CallerConfig> {
    let key = |name: &str| Proof::KeySha256(Sha256::digest(format!("key-{name}")).into());
    let worker = [Action::List, Action::Token, Action::Report];
    BTreeMap::from([
        ("ops".to_owned(), caller(key("ops"), ALL_ACTIONS, &["*"])),
        ("worker".to_owned(), caller(key("worker"), worker, &["push", "acme/*"])),
        ("elsewhere".to_owned(), caller(key("elsewhere"), ALL_ACTIONS, &["else*", "pus"])),
        ("idle".to_owned(), caller(key("idle"), [], &["*"])),
        ("local".to_owned(), caller(Proof::Uid(LOCAL_UID), worker, &["push"])),
    ])
}

pub(crate) const LIMITS: Limits =
    Limits { body_bytes_max: 1024, request_ms_max: 10 * SECOND, connections_max: 10, event_streams_max: 2 };

/// A gate named `orders`, and nobody whose tokens are accepted.
fn closed_gate() -> Arc<Inbound> {
    let config = "store.url = \"memory:\"\n[gate.orders]\nkind = \"auth\"\n";
    let config =
        keyreeve::config::Config::read(config, "gate.toml", &BTreeMap::new(), Default::default()).unwrap().config;
    Inbound::new(Vec::new(), &config.gates, config.policy, [7; 32])
}

/// What a node is made of.
pub(crate) struct Node {
    pub(crate) host: Arc<TestHost>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) upstreams: BTreeMap<&'static str, Arc<Upstream>>,
}

impl Node {
    /// What a configuration with this seal key gives.
    pub(crate) fn live(&self, keep: Keep, seal_key: [u8; 32], previous: Option<&Outbound>) -> Live {
        let previous = previous.map(|outbound| Previous { outbound, is_same_store: true });
        let outbound = Outbound::start(self.parts(seal_key), self.credentials(keep), previous);
        let waits = BTreeMap::from([(CredentialName::parse("push").unwrap(), 3 * SECOND)]);
        Live {
            outbound,
            callers: callers(),
            limits: LIMITS,
            waits,
            forward: None,
            inbound: closed_gate(),
            issuing: None,
            artifacts: Default::default(),
            tokens: None,
        }
    }

    fn revocations(&self) -> Revocations {
        let parts = revocation::Parts {
            node: NodeId::parse("node-1").unwrap(),
            host: Arc::<TestHost>::clone(&self.host),
            register: Arc::<Wire>::clone(&self.wire),
            crypto: Arc::new(LocalCrypto),
            store_ms: 2 * SECOND,
        };
        let config =
            RevocationConfig { max_staleness_ms: SECOND, on_stale: OnStale::Deny, keep_ms: 24 * HOUR, skew_ms: MINUTE };
        Revocations::start(parts, config, None)
    }

    /// Access tokens: one family, `cdn`.
    pub(crate) fn tokens(&self) -> Tokens {
        let parts = access::Parts {
            node: NodeId::parse("node-1").unwrap(),
            host: Arc::<TestHost>::clone(&self.host),
            register: Arc::<Wire>::clone(&self.wire),
            crypto: Arc::new(LocalCrypto),
            keys: KeyRing::new(SealKey::new(&LocalCrypto, [7; 32]), Vec::new()),
            revocations: self.revocations(),
            bcrypt: Arc::new(keyreeve::system::bcrypt::Blocking::new()),
            imported: BTreeMap::new(),
            legacy_keys: BTreeMap::new(),
            store_ms: 2 * SECOND,
        };
        let cdn =
            FamilyConfig { format: Format::Native, life_ms: None, grace_ms: HOUR, hashes: None, legacy_key: None };
        Tokens::start(parts, &BTreeMap::from([("cdn".to_owned(), cdn)]), None)
    }

    pub(crate) fn credentials(&self, keep: Keep) -> Vec<Credential> {
        let credentials = plans().into_iter().map(|(name, plan)| Credential {
            name: CredentialName::parse(name).unwrap(),
            source: Arc::<Upstream>::clone(&self.upstreams[name]),
            plan: Arc::new(plan),
            keep,
        });
        credentials.collect()
    }

    pub(crate) fn parts(&self, seal_key: [u8; 32]) -> OutboundParts {
        OutboundParts {
            node: NodeId::parse("node-1").unwrap(),
            host: Arc::<TestHost>::clone(&self.host),
            register: Some(Arc::<Wire>::clone(&self.wire)),
            crypto: Arc::new(LocalCrypto),
            keys: Some(KeyRing::new(SealKey::new(&LocalCrypto, seal_key), Vec::new())),
            store_ms: 2 * SECOND,
            drive: keyreeve::outbound::Drive::Timer,
            tick_ms: 0,
        }
    }
}

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) outbound: Outbound,
    pub(crate) api: Arc<Api>,
    pub(crate) router: Router,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Arc::default())
    }

    /// A node on this register.
    pub(crate) fn on(wire: Arc<Wire>) -> Self {
        let host = Arc::new(TestHost::new());
        let upstreams = plans().into_iter().map(|(name, _)| {
            let upstream = Upstream {
                host: Arc::clone(&host),
                makes_fields: name == "acme/lake",
                behaviour: Mutex::new(Behaviour::Mint),
                mints: AtomicU64::new(0),
            };
            (name, Arc::new(upstream))
        });
        let node = Node { upstreams: upstreams.collect(), host: Arc::clone(&host), wire };
        let live = node.live(Keep::OnDemand { lifetimes: 3 }, [7; 32], None);
        let outbound = live.outbound.clone();
        let metrics: keyreeve::http::MetricsPage = Arc::new(|| "# the page of the recorder\n".to_owned());
        let parts = Parts { host, metrics: Some(metrics), has_streams: true, version: "0.0.0-test".into() };
        let api = Api::new(live, parts);
        let router = router(Arc::clone(&api), &BTreeSet::from([Surface::Api, Surface::Metrics, Surface::Gate]));
        Self { node, outbound, api, router }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// Status and headers only, of an answer that does not end.
    pub(crate) async fn head_of(&self, request: Request<Body>) -> Answer {
        let (head, _) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        Answer { status: head.status, headers: head.headers, body: String::new() }
    }

    pub(crate) async fn get(&self, path: &str, who: &str) -> Answer {
        self.send(request("GET", path, who).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, who: &str, body: &str) -> Answer {
        let request = request("POST", path, who).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(crate) fn upstream(&self, name: &str) -> &Upstream {
        &self.node.upstreams[name]
    }

    pub(crate) fn unplug_store(&self) {
        self.node.wire.is_away.store(true, Ordering::SeqCst);
    }

    pub(crate) fn plug_store(&self) {
        self.node.wire.is_away.store(false, Ordering::SeqCst);
    }
}

/// A request by the caller with the key `key-WHO`, or by nobody.
pub(crate) fn request(method: &str, path: &str, who: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    if who.is_empty() { request } else { request.header("authorization", format!("Bearer key-{who}")) }
}

/// A request over a Unix socket.
pub(crate) fn local_request(method: &str, path: &str, uid: u32) -> http::request::Builder {
    Request::builder().method(method).uri(path).extension(Peer { uid: Some(uid) })
}

/// Lets time pass, and everything happen that falls due in it.
pub(crate) async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn read(answer: http::Response<Body>) -> Self {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// `urn:keyreeve:problem:NAME` without what all of them have.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self}");
        let body = self.json();
        assert_eq!(body["status"].as_u64(), Some(u64::from(self.status.as_u16())));
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"));
        body["type"].as_str().unwrap().strip_prefix("urn:keyreeve:problem:").unwrap().to_owned()
    }
}

/// Status, headers and body, with the request id, which is another each time, written as `ID`.
impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = format!("{}\n", self.status);
        let mut headers: Vec<_> = self.headers.iter().collect();
        headers.sort_by_key(|(name, _)| name.as_str());
        for (name, value) in headers {
            writeln!(text, "{name}: {}", value.to_str().unwrap())?;
        }
        match serde_json::from_str::<serde_json::Value>(&self.body) {
            Ok(body) => write!(text, "\n{body:#}")?,
            Err(_) => write!(text, "\n{}", self.body)?,
        }
        let id = self.header("x-request-id").unwrap_or("no id");
        f.write_str(&text.replace(id, "ID"))
    }
}
