//! What the router answers from: swapped as a whole when the configuration is read again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};
use keyreeve_core::id::CredentialName;
use keyreeve_core::time::{Mono, Timestamp};
use tokio::sync::{Mutex, watch};

use super::auth::Callers;
use super::counts::Counts;
use super::forward::Forward;
use crate::access::Tokens;
use crate::config::{CallerConfig, Limits};
use crate::inbound::{Inbound, Issuing};
use crate::outbound::Outbound;
use crate::port::Host;

/// Renders the metrics of this process in the Prometheus text format.
pub type MetricsPage = Arc<dyn Fn() -> String + Send + Sync>;

/// What a change of the configuration replaces.
pub struct Live {
    /// The driver.
    pub outbound: Outbound,
    /// Who may call, by name.
    pub callers: BTreeMap<String, CallerConfig>,
    /// The limits of this surface.
    pub limits: Limits,
    /// How long a caller without a valid credential waits for one, in milliseconds. The limit of the request where a
    /// credential is not named here, and never longer than that.
    pub waits: BTreeMap<CredentialName, u64>,
    /// Where requests go that only the node which renews can answer; none where this node renews.
    pub forward: Option<Arc<dyn Forward>>,
    /// What signs tokens; none where nothing does.
    pub issuing: Option<Issuing>,
    /// Access tokens; none where there are none.
    pub tokens: Option<Tokens>,
    /// Whose tokens are accepted, and what their holders may do.
    pub inbound: Arc<Inbound>,
    /// What hands out artifacts, by name.
    pub artifacts: ArtifactGates,
}

/// Gates of artifacts, by name.
#[cfg(feature = "objects")]
pub type ArtifactGates = BTreeMap<String, Arc<super::artifacts::ArtifactGate>>;
/// No gates of artifacts: this is built without them.
#[cfg(not(feature = "objects"))]
pub type ArtifactGates = ();

/// What stays while the process lives.
pub struct Parts {
    /// Time, chance, tasks.
    pub host: Arc<dyn Host>,
    /// Where `/metrics` comes from; without it that route is not there.
    pub metrics: Option<MetricsPage>,
    /// Whether an answer may go on without an end, as that of `/v1/events` does.
    pub has_streams: bool,
    /// The version that operators are told.
    pub version: String,
}

/// The state of the HTTP surface.
pub struct Api {
    live: ArcSwap<Answering>,
    pub(super) host: Arc<dyn Host>,
    pub(super) metrics: Option<MetricsPage>,
    pub(super) has_streams: bool,
    pub(super) version: String,
    pub(super) counts: Counts,
    pub(super) event_streams: AtomicUsize,
    /// The last answer of the store to a readiness probe, and when it was given.
    pub(super) probe: Mutex<Option<(Mono, Option<StoreAway>)>>,
    /// Counts changes of [`Self::live`]; `None` once the surface closes.
    changes: watch::Sender<Option<u64>>,
    id_seed: u64,
    id_count: AtomicU64,
}

/// Since when the store is away, and why.
#[derive(Clone, Debug)]
pub(super) struct StoreAway {
    pub(super) since: Timestamp,
    pub(super) cause: String,
}

pub(super) struct Answering {
    pub(super) outbound: Outbound,
    pub(super) callers: Callers,
    pub(super) limits: Limits,
    waits: HashMap<CredentialName, u64, foldhash::fast::RandomState>,
    pub(super) forward: Option<Arc<dyn Forward>>,
    pub(super) issuing: Option<Issuing>,
    pub(super) tokens: Option<Tokens>,
    pub(super) inbound: Arc<Inbound>,
    #[cfg(feature = "objects")]
    pub(super) artifacts: ArtifactGates,
}

impl From<Live> for Answering {
    fn from(live: Live) -> Self {
        Self {
            outbound: live.outbound,
            callers: Callers::new(&live.callers),
            limits: live.limits,
            waits: live.waits.into_iter().collect(),
            forward: live.forward,
            issuing: live.issuing,
            tokens: live.tokens,
            inbound: live.inbound,
            #[cfg(feature = "objects")]
            artifacts: live.artifacts,
        }
    }
}

impl Answering {
    pub(super) fn wait_ms(&self, name: &str) -> u64 {
        let most = self.limits.request_ms_max;
        self.waits.get(name).map_or(most, |wait_ms| most.min(*wait_ms))
    }
}

impl Api {
    /// The surface over a running driver. A recorder for metrics has to be installed before the first request.
    #[must_use]
    pub fn new(live: Live, parts: Parts) -> Arc<Self> {
        let mut seed = [0; 8];
        parts.host.fill(&mut seed);
        Arc::new(Self {
            live: ArcSwap::from_pointee(live.into()),
            host: parts.host,
            metrics: parts.metrics,
            has_streams: parts.has_streams,
            version: parts.version,
            counts: Counts::default(),
            event_streams: AtomicUsize::new(0),
            probe: Mutex::new(None),
            changes: watch::Sender::new(Some(0)),
            id_seed: u64::from_be_bytes(seed),
            id_count: AtomicU64::new(0),
        })
    }

    /// Takes over a new configuration. Requests under way finish with the old one; event streams go on with the new one
    /// where their caller still may.
    pub fn reload(&self, live: Live) {
        let answering: Answering = live.into();
        let old = self.live.swap(Arc::new(answering));
        super::health::forget_credentials(&old.outbound, &self.live.load().outbound);
        self.changes.send_modify(|changes| *changes = changes.map(|count| count.wrapping_add(1)));
    }

    /// Ends all event streams, which would hold up a clean end of the process.
    pub fn close(&self) {
        self.changes.send_replace(None);
    }

    pub(super) fn live(&self) -> Guard<Arc<Answering>> {
        self.live.load()
    }

    pub(super) fn live_full(&self) -> Arc<Answering> {
        self.live.load_full()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Option<u64>> {
        self.changes.subscribe()
    }

    /// A number that no other request of this process has. It is no secret.
    pub(super) fn next_request_id(&self) -> RequestId {
        let count = self.id_count.fetch_add(1, Ordering::Relaxed);
        // splitmix64 (Steele, Lea, Flood 2014): a bijection, so ids do not repeat.
        let mut x = self.id_seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        RequestId(x ^ (x >> 31))
    }
}

/// The id of one request. It finds the cause of a problem in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId(u64);

impl RequestId {
    /// Sixteen hexadecimal digits.
    pub(super) fn digits(self) -> [u8; 16] {
        let mut digits = [0; 16];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            let low = (rest & 15) as u8;
            *digit = if low < 10 { b'0' + low } else { b'a' + (low - 10) };
            rest >>= 4;
        }
        digits
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
