//! The driver: one credential for a whole fleet, served from memory and renewed in the background.
//!
//! ```text
//! reader -> snapshot (no lock) -> token
//!              ^
//!              | adopts                     one pass at a time per credential, owned by the node, never by a caller
//! timer ---> pass: read -> step -> swap -> mint -> swap
//! ```
//! A reader never waits while a valid credential exists. A caller without one waits for the pass that is under way, with
//! its own deadline, and shares its error. A caller that goes away cancels nothing.

mod cell;
mod clock;
mod end;
mod follow;
mod operate;
mod pass;
mod slot;
mod tiers;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use futures::future::{Either, select};
use keyreeve_core::crypto::Crypto;
use keyreeve_core::id::{CredentialName, Holder, NodeId};
use keyreeve_core::seal::KeyRing;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use tokio::sync::broadcast;

use crate::config::{Keep, Plan};
use crate::error::{Error, ErrorKind};
use crate::port::{Host, Register};
use crate::source::Source;

pub use cell::{Issued, Served};
pub use end::COMMIT_MS;
pub use follow::{Origin, Wish};
pub use operate::{CredentialState, Reported};
pub use pass::record_key;
pub use tiers::Tiers;

pub(crate) use cell::Rendered;

use cell::Cell;
use clock::{Coarse, Timer};

/// How many notices an event stream may lag behind before it loses some.
const NOTICES_MAX: usize = 256;

/// One credential to drive.
#[derive(Clone)]
pub struct Credential {
    /// Its name.
    pub name: CredentialName,
    /// How it is minted.
    pub source: Arc<dyn Source>,
    /// How the fleet coordinates.
    pub plan: Arc<Plan>,
    /// Whether it is renewed without demand.
    pub keep: Keep,
}

/// What a driver is made of.
pub struct Parts {
    /// This node's name.
    pub node: NodeId,
    /// Time, chance, tasks.
    pub host: Arc<dyn Host>,
    /// The register; none where every credential is in slot mode.
    pub register: Option<Arc<dyn Register>>,
    /// The primitives.
    pub crypto: Arc<dyn Crypto>,
    /// The seal keys; none where every credential is in slot mode.
    pub keys: Option<KeyRing>,
    /// A store that has not answered after this long, in milliseconds, is taken not to have answered.
    pub store_ms: u64,
    /// Who turns the wheels.
    pub drive: Drive,
    /// How often the clock that [`Outbound::get`] reads is set, in milliseconds; 0 reads the host's clock each time.
    pub tick_ms: u64,
}

/// The driver that a new one takes over from.
#[derive(Clone, Copy)]
pub struct Previous<'a> {
    /// The driver.
    pub outbound: &'a Outbound,
    /// Whether its register is the new one's. Another one counts its generations by itself: what is valid is served on as
    /// generation 0 until there is something in the new one, and what this node mints there has a higher number than
    /// anything it has handed out.
    pub is_same_store: bool,
}

/// Who renews, and who says when to look.
#[derive(Clone)]
pub enum Drive {
    /// This node renews, by its own timer.
    Timer,
    /// This node renews, and the host calls [`Outbound::turn`] at [`Outbound::next_turn`]: a Durable Object and its alarm.
    Turned,
    /// This node renews nothing and fetches from there: an isolate of a Worker.
    Follow(Arc<dyn Origin>),
}

/// What happened to a credential on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When, by this node's clock.
    pub at: Timestamp,
    /// Which credential.
    pub name: CredentialName,
    /// Which generation; 0 where none is concerned.
    pub generation: u64,
    /// `adopted`, `minted`, `failed`, `in-doubt`, `store-away`, `renewal-asked`, `resolved`.
    pub kind: &'static str,
    /// More, in words; holds no secret.
    pub detail: String,
}

/// The driver of all credentials of one node. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    me: Holder,
    host: Arc<dyn Host>,
    register: Option<Arc<dyn Register>>,
    crypto: Arc<dyn Crypto>,
    keys: Option<ArcSwap<KeyRing>>,
    cells: HashMap<CredentialName, Arc<Cell>, foldhash::fast::RandomState>,
    store_ms: u64,
    drive: Drive,
    clock: Coarse,
    timer: Timer,
    notices: broadcast::Sender<Notice>,
    store_fault: Mutex<Option<(Mono, String)>>,
    /// Drivers that this one took over from, and that may still have something to commit.
    earlier: Vec<Weak<Self>>,
}

impl Outbound {
    /// Starts a driver: its timer, its clock, and a first look at every credential that is kept without demand.
    ///
    /// Credentials that `previous` holds already are taken over, so that a reload serves on without a gap.
    #[must_use]
    pub fn start(parts: Parts, credentials: Vec<Credential>, previous: Option<Previous<'_>>) -> Self {
        let mut boot = [0; 8];
        parts.host.fill(&mut boot);
        let me = Holder { node: parts.node, boot: u64::from_be_bytes(boot) };
        let is_following = matches!(parts.drive, Drive::Follow(_));
        let now = parts.host.now();
        let known = |name: &CredentialName| {
            let Previous { outbound, is_same_store } = previous?;
            let cell = outbound.inner.cells.get(name)?;
            Some(cell::Earlier { cell, is_same_store, now })
        };
        let cells = credentials
            .into_iter()
            .map(|credential| {
                let cell = Cell::new(&credential, is_following, known(&credential.name));
                (credential.name, Arc::new(cell))
            })
            .collect();
        let clock = Coarse::new(parts.host.as_ref(), parts.tick_ms);
        let inner = Arc::new(Inner {
            me,
            host: parts.host,
            register: parts.register,
            crypto: parts.crypto,
            keys: parts.keys.map(ArcSwap::from_pointee),
            cells,
            store_ms: parts.store_ms,
            drive: parts.drive,
            clock,
            timer: Timer::default(),
            notices: broadcast::channel(NOTICES_MAX).0,
            store_fault: Mutex::new(None),
            earlier: previous.map(|previous| previous.outbound.inner.with_earlier()).unwrap_or_default(),
        });
        match &inner.drive {
            Drive::Timer => clock::run_timer(&inner),
            Drive::Turned => {}
            Drive::Follow(_) => inner.timer.stop(now.mono),
        }
        clock::run(&inner);
        if matches!(inner.drive, Drive::Follow(_)) {
            return Self { inner };
        }
        for cell in inner.cells.values().filter(|cell| cell.is_kept() || cell.holds_any()) {
            pass::ensure(&inner, cell);
        }
        Self { inner }
    }

    /// Begins every look that is due. For a node that is [`Drive::Turned`].
    pub fn turn(&self) {
        self.inner.look_at_due(self.inner.host.now().mono);
    }

    /// When the next look is due; `None` where nothing is waited for. For a node that is [`Drive::Turned`].
    #[must_use]
    pub fn next_turn(&self) -> Option<Mono> {
        self.inner.timer.next()
    }

    /// Whether this node only follows the one that renews this credential. One in slot mode is nobody's but one's own.
    #[must_use]
    pub fn is_followed(&self, name: &str) -> bool {
        let is_fleets = |cell: &Arc<Cell>| matches!(cell.plan.as_ref(), Plan::Fleet(_));
        matches!(self.inner.drive, Drive::Follow(_)) && self.inner.cells.get(name).is_some_and(is_fleets)
    }

    /// Looks for what comes after `generation`, which is refused upstream, where this node only follows.
    pub fn look_beyond(&self, name: &str, generation: u64) {
        if let (Drive::Follow(origin), Some(cell)) = (&self.inner.drive, self.inner.cells.get(name)) {
            follow::look_beyond(&self.inner, origin, cell, generation);
        }
    }

    /// This node, in this life.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.inner.me
    }

    /// What happens from now on.
    #[must_use]
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.inner.notices.subscribe()
    }

    /// The names of all credentials, in no order.
    pub fn names(&self) -> impl Iterator<Item = &CredentialName> {
        self.inner.cells.keys()
    }

    /// A handle that saves looking the name up each time.
    #[must_use]
    pub fn handle(&self, name: &str) -> Option<Handle> {
        let cell = Arc::clone(self.inner.cells.get(name)?);
        Some(Handle { inner: Arc::clone(&self.inner), cell })
    }

    /// The credential, if this node holds a valid one: no waiting, no lock, no allocation.
    ///
    /// `None` means "not yet" or "no such name": [`token`](Self::token) tells, and fetches.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Served> {
        let cell = self.inner.cells.get(name)?;
        self.inner.get(cell)
    }

    /// The credential, if this node holds one with at least `min_ttl_ms` of life left at `now`: no waiting.
    ///
    /// For whoever has just read the host's clock; [`get`](Self::get) reads a cheaper and coarser one.
    #[must_use]
    pub fn held(&self, name: &str, now: Moment, min_ttl_ms: u64) -> Option<Served> {
        let cell = self.inner.cells.get(name)?;
        self.inner.serve(cell, now, min_ttl_ms)
    }

    /// The credential, with at least `min_ttl_ms` of life left. Waits until `deadline` where this node holds none.
    ///
    /// Dropping the future cancels the waiting, never the renewal.
    ///
    /// # Errors
    /// [`Error`] says what helps. An error is never remembered longer than a second.
    pub async fn token(&self, name: &str, min_ttl_ms: u64, deadline: Mono) -> Result<Served, Error> {
        let Some(cell) = self.inner.cells.get(name) else {
            return Err(Error::new(ErrorKind::NotFound, format!("no credential is named `{name}`")));
        };
        let now = self.inner.host.now();
        match self.inner.serve(cell, now, min_ttl_ms) {
            Some(served) => Ok(served),
            None => match &self.inner.drive {
                Drive::Follow(origin) => follow::fetch(&self.inner, origin, cell, min_ttl_ms, deadline).await,
                Drive::Timer | Drive::Turned => self.inner.wait_for(cell, min_ttl_ms, deadline).await,
            },
        }
    }
}

/// One credential of a driver, looked up once.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
    cell: Arc<Cell>,
}

impl Handle {
    /// As [`Outbound::get`].
    #[must_use]
    #[inline]
    pub fn get(&self) -> Option<Served> {
        self.inner.get(&self.cell)
    }
}

impl Inner {
    #[inline]
    fn get(self: &Arc<Self>, cell: &Arc<Cell>) -> Option<Served> {
        self.serve(cell, self.clock.now(self.host.as_ref()), 0)
    }

    #[inline]
    fn serve(self: &Arc<Self>, cell: &Arc<Cell>, now: Moment, min_ttl_ms: u64) -> Option<Served> {
        match &self.drive {
            Drive::Follow(origin) => follow::look_ahead(self, origin, cell, now),
            Drive::Timer | Drive::Turned => {
                if cell.mark_used(now.mono) {
                    pass::ensure(self, cell);
                }
            }
        }
        cell.serve(now, min_ttl_ms)
    }

    async fn wait_for(self: &Arc<Self>, cell: &Arc<Cell>, min_ttl_ms: u64, deadline: Mono) -> Result<Served, Error> {
        let mut flight = cell.join();
        // In this order: a pass stores what it has got before it says how it ended.
        let error = cell.held_error(self.host.now().mono);
        if let Some(served) = cell.serve(self.host.now(), min_ttl_ms) {
            return Ok(served);
        }
        if let Some(error) = error {
            return Err(error);
        }
        // Once: a pass that ends without a credential or an error has set the timer for the next look.
        pass::ensure(self, cell);
        loop {
            let now = self.host.now();
            if now.mono >= deadline {
                return Err(cell.out_of_time(now));
            }
            let sleep = self.host.sleep_until(deadline);
            let ended = matches!(select(Box::pin(flight.news()), sleep).await, Either::Left(_));
            let error = if ended { cell.outcome() } else { None };
            if let Some(served) = cell.serve(self.host.now(), min_ttl_ms) {
                return Ok(served);
            }
            if let Some(error) = error {
                return Err(error);
            }
        }
    }

    fn notify(&self, name: &CredentialName, generation: u64, kind: &'static str, detail: impl Into<String>) {
        let at = self.host.now().wall;
        // No receiver is no error.
        let _ = self.notices.send(Notice { at, name: name.clone(), generation, kind, detail: detail.into() });
    }

    fn store_answered(&self) {
        *self.store_fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn store_failed(&self, why: &str) {
        let mut fault = self.store_fault.lock().unwrap_or_else(PoisonError::into_inner);
        let since = fault.as_ref().map_or_else(|| self.host.now().mono, |(since, _)| *since);
        *fault = Some((since, why.to_owned()));
        metrics::counter!("keyreeve_store_errors_total").increment(1);
    }
}
