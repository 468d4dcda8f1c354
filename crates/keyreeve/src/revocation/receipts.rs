//! Which node goes by what since when: one small record a node, written when it has applied something, and now and then as
//! a sign of life.

use std::sync::{Arc, Weak};

use futures::future::select;
use futures::stream::{self, StreamExt as _};
use keyreeve_core::id::{NodeId, WriteId};
use keyreeve_core::revocation::{Entry as LogEntry, Kind, Mark, Node};
use keyreeve_core::time::{Moment, Timestamp};

use super::follow::away;
use super::{Inner, Revocations};
use crate::config::OnStale;
use crate::error::{Error, ErrorKind};
use crate::port::{Entry, Key, LIST_MAX, Swap, fresh_write_id};

/// A node gives a sign of life this often, in milliseconds.
const EVERY_MS: u64 = 5000;
/// After a failed write the next one comes this much later, in milliseconds.
const AGAIN_MS: u64 = 500;
/// A node that has been silent for this long, in milliseconds, is not listed any more, and another one may write where it
/// wrote: stores keep keys for ever.
const GONE_MS: u64 = 3_600_000;
/// So many records are read at once.
const AT_ONCE: usize = 16;
/// Who waits for receipts looks this often, in milliseconds.
const LOOK_MS: u64 = 25;

/// What became of a revocation, node by node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// What it is known by.
    pub id: Mark,
    /// Its kind.
    pub kind: Kind,
    /// Every node refuses it from this epoch on.
    pub epoch: u64,
    /// When it was written, by the writer's clock.
    pub at: Timestamp,
    /// The nodes, by name.
    pub nodes: Vec<NodeReceipt>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReceipt {
    /// Its name.
    pub node: NodeId,
    /// Whether it refuses.
    pub refusing: Refusing,
}

/// Whether a node refuses what was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusing {
    /// Since this moment of its clock, which was so many milliseconds after the revocation was written. What it answered
    /// before may still be on its way.
    Since {
        /// When.
        at: Timestamp,
        /// How long that took, in milliseconds.
        after_ms: u64,
    },
    /// It has not said so. It refuses everything where it has had no news, so it refuses this too by now.
    ByAge,
    /// It has not said so yet.
    NotYet,
    /// It has not said anything for a while. It accepts tokens without news, so if it lives it may accept this one.
    Silent,
}

impl Refusing {
    /// The name used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Since { .. } => "applied",
            Self::ByAge => "stale",
            Self::NotYet => "pending",
            Self::Silent => "silent",
        }
    }
}

impl Receipts {
    /// Whether no node accepts it any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.refusing, Refusing::Since { .. } | Refusing::ByAge))
    }
}

impl Revocations {
    /// Which nodes refuse what was revoked under `id`. Waits until all do, but no longer than `wait_ms`. None where there is no
    /// such revocation, or no longer.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`].
    pub async fn receipts(&self, id: Mark, wait_ms: u64) -> Result<Option<Receipts>, Error> {
        let inner = &self.inner;
        let until = inner.host.now().mono.plus(wait_ms);
        // The same subject may have been revoked again, and elsewhere, a moment ago.
        self.catch_up().await?;
        loop {
            let entry = inner.state.held().log.as_ref().and_then(|log| log.marked(id).cloned());
            let Some(entry) = entry else { return Ok(None) };
            let receipts = inner.receipts(&entry).await?;
            let now = inner.host.now().mono;
            if receipts.is_complete() || now >= until {
                return Ok(Some(receipts));
            }
            // However many nodes there are, one who waits reads one record a millisecond at the most.
            let pause_ms = LOOK_MS.max(receipts.nodes.len() as u64);
            inner.host.sleep_until(until.min(now.plus(pause_ms))).await;
        }
    }
}

/// Where this node writes.
struct Seat {
    key: Key,
    op: Option<WriteId>,
}

/// Says what this node has applied, for as long as the follower lives.
pub(super) async fn run(weak: Weak<Inner>) {
    let Some(inner) = weak.upgrade() else { return };
    let (mut stop, mut applied) = (inner.stop.subscribe(), inner.state.applied.subscribe());
    let mut node = inner.sign_of_life();
    let mut seat = None;
    drop(inner);
    loop {
        let Some(inner) = weak.upgrade() else { return };
        if *stop.borrow() {
            return;
        }
        if let Some(applied) = *applied.borrow_and_update() {
            node.note(applied.epoch, applied.at);
        }
        let pause_ms = match inner.say(&mut seat, &mut node).await {
            Ok(true) => EVERY_MS,
            // Another process has the same name.
            Ok(false) => AGAIN_MS,
            Err(error) => {
                tracing::debug!("receipts are not written: {error}");
                AGAIN_MS
            }
        };
        let host = Arc::clone(&inner.host);
        let until = host.now().mono.plus(pause_ms);
        drop(inner);
        let stopped = Box::pin(stop.wait_for(|is| *is));
        let changed = Box::pin(applied.changed());
        // Whichever comes first; the loop looks what it was.
        let _ = select(stopped, select(changed, host.sleep_until(until))).await;
    }
}

/// Says that this node has ended on purpose.
pub(super) async fn leave(inner: &Inner) {
    let Ok(nodes) = nodes(inner).await else { return };
    for (key, mut node) in nodes.into_iter().filter(|(_, node)| node.holder == inner.me) {
        node.is_stopped = true;
        let mut seat = Some(Seat { key, op: Some(node.op) });
        let _ = inner.say(&mut seat, &mut node).await;
    }
}

/// Every node that has ever written, by its key.
pub(super) async fn nodes(inner: &Inner) -> Result<Vec<(Key, Node)>, Error> {
    let keys = inner.register.list(Key::NODES, None, LIST_MAX);
    let keys = inner.within(inner.store_ms, keys).await.map_err(|error| away(&error))?;
    let reads = stream::iter(keys).map(|key| async move {
        let entry = inner.within(inner.store_ms, inner.register.read(&key)).await;
        entry.map(|entry| Some((key, Node::decode(&entry?.bytes).ok()?)))
    });
    let mut reads = reads.buffer_unordered(AT_ONCE);
    let mut nodes = Vec::new();
    while let Some(read) = reads.next().await {
        // What a newer keyreeve wrote says nothing here, and is left alone.
        nodes.extend(read.map_err(|error| away(&error))?);
    }
    Ok(nodes)
}

impl Inner {
    fn sign_of_life(&self) -> Node {
        let refuses_after_ms = match self.config.on_stale {
            OnStale::Deny => self.config.max_staleness_ms,
            OnStale::Allow => 0,
        };
        Node::new(self.me.clone(), WriteId([0; 16]), EVERY_MS, refuses_after_ms)
    }

    /// Writes the record of this node. False where the place is somebody else's now.
    async fn say(&self, seat: &mut Option<Seat>, node: &mut Node) -> Result<bool, Error> {
        let at = match seat.as_mut() {
            Some(at) => at,
            None => seat.insert(self.seat(node).await?),
        };
        node.op = fresh_write_id(self.host.as_ref());
        node.seen_at = self.host.now().wall;
        let entry = Entry { op: node.op, bytes: node.encode().into() };
        let swap = self.within(self.store_ms, self.register.swap(&at.key, at.op, entry)).await;
        match swap {
            Ok(Swap::Done) => {
                at.op = Some(node.op);
                Ok(true)
            }
            Ok(Swap::Lost) => {
                *seat = None;
                Ok(false)
            }
            Err(error) => {
                // It may have been written: the next time looks first.
                *seat = None;
                Err(away(&error))
            }
        }
    }

    /// Finds a place to write: its own of before, or one that nobody needs any more, or a new one.
    async fn seat(&self, node: &mut Node) -> Result<Seat, Error> {
        let nodes = nodes(self).await?;
        let now = self.host.now();
        let seat = |(key, node): &(Key, Node)| Seat { key: key.clone(), op: Some(node.op) };
        if let Some(own) = nodes.iter().find(|(_, other)| other.holder == self.me) {
            // After a reload, too: what was applied stays applied.
            node.note_earlier(&own.1);
            return Ok(seat(own));
        }
        let is_free = |other: &Node| {
            let is_earlier_life = other.holder.node == self.me.node && other.is_silent(now.wall);
            other.is_stopped || is_earlier_life || now.wall.since(other.seen_at) > GONE_MS
        };
        let is_mine = |other: &Node| other.holder.node == self.me.node;
        if let Some(free) = nodes.iter().find(|(_, other)| is_mine(other) && is_free(other)) {
            return Ok(seat(free));
        }
        if let Some(free) = nodes.iter().find(|(_, other)| is_free(other)) {
            return Ok(seat(free));
        }
        let name = self.me.node.as_str();
        let key = Key::of_node(name).filter(|key| nodes.iter().all(|(other, _)| other != key));
        let key = key.or_else(|| Key::of_node(&format!("{name}.{:016x}", self.me.boot)));
        let key = key.ok_or_else(|| Error::new(ErrorKind::Conflict, "the name of this node fits no key"))?;
        Ok(Seat { key, op: None })
    }

    async fn receipts(&self, entry: &LogEntry) -> Result<Receipts, Error> {
        let now = self.host.now();
        let mut nodes = nodes(self).await?;
        nodes.retain(|(_, node)| !node.is_stopped && now.wall.since(node.seen_at) <= GONE_MS);
        // Of several lives of a node the last one counts.
        nodes.sort_by(|(_, a), (_, b)| (&a.holder.node, b.seen_at).cmp(&(&b.holder.node, a.seen_at)));
        nodes.dedup_by(|(_, later), (_, first)| later.holder.node == first.holder.node && later.is_silent(now.wall));
        let receipt = |(_, node): &(Key, Node)| NodeReceipt {
            node: node.holder.node.clone(),
            refusing: self.refusing(node, entry, now),
        };
        let nodes = nodes.iter().map(receipt).collect();
        Ok(Receipts { id: entry.mark, kind: entry.kind, epoch: entry.epoch, at: entry.at, nodes })
    }

    fn refusing(&self, node: &Node, entry: &LogEntry, now: Moment) -> Refusing {
        if let Some(at) = node.applied_at(entry.epoch) {
            return Refusing::Since { at, after_ms: at.since(entry.at) };
        }
        // Whoever has read since then goes by it, and whoever has not is too old by now.
        let bound_ms = node.refuses_after_ms.saturating_add(self.config.skew_ms);
        if node.refuses_after_ms > 0 && now.earliest() > entry.at.plus(bound_ms) {
            return Refusing::ByAge;
        }
        if node.refuses_after_ms == 0 && node.is_silent(now.wall) { Refusing::Silent } else { Refusing::NotYet }
    }
}
