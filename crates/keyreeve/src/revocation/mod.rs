//! Tokens that are refused before their time, on every node within a bound.
//!
//! ```text
//! revoke -> one swap of the log -> this node at once
//!                               -> every other node: pushed where the store can, else at its next read of one key
//! ```
//! Each node reads the one key of the log every quarter of `max_staleness`, however many tokens there are. A node whose last
//! good read is older than `max_staleness` does what `on_stale` says. What a node goes by never says less than before: a
//! store that forgot is taught again.
//!
//! - `follow`: the reads
//! - `write`: revocations
//! - `receipts`: which node goes by what since when
//!
//! What the log says and how it is put together is decided in [`core::revocation`](keyreeve_core::revocation).

mod follow;
mod receipts;
mod state;
mod write;

use std::sync::Arc;

use keyreeve_core::crypto::Crypto;
use keyreeve_core::id::{Holder, NodeId};
use keyreeve_core::time::{Moment, Span};

pub use keyreeve_core::revocation::{Credentials, JwtId, Kind, Mark, What};

use crate::config::{OnStale, RevocationConfig};
use crate::port::{Host, Register};

pub use receipts::{NodeReceipt, Receipts, Refusing};
pub use write::{Lifetime, Open, Receipt, Revocation};

use state::State;

/// The register key of the log.
pub const LOG_KEY: &str = "rl/all";

/// What a follower is made of.
pub struct Parts {
    /// This node's name.
    pub node: NodeId,
    /// Time, chance, tasks.
    pub host: Arc<dyn Host>,
    /// The register.
    pub register: Arc<dyn Register>,
    /// Hashes names.
    pub crypto: Arc<dyn Crypto>,
    /// A store that has not answered after this long, in milliseconds, is taken not to have answered.
    pub store_ms: u64,
}

/// What is revoked, as one node knows it. Cheap to clone.
#[derive(Clone)]
pub struct Revocations {
    inner: Arc<Inner>,
}

struct Inner {
    me: Holder,
    host: Arc<dyn Host>,
    register: Arc<dyn Register>,
    crypto: Arc<dyn Crypto>,
    store_ms: u64,
    config: RevocationConfig,
    /// Outlives a reload: whoever holds an earlier handle goes by the same.
    state: Arc<State>,
    stop: tokio::sync::watch::Sender<bool>,
    /// Whose turn it is to change the log.
    turn: futures::lock::Mutex<()>,
}

/// What is revoked has not been read for too long, and `on_stale` says `deny`; or has not been read at all. A matter of ours, not of who sent a token:
/// never a reason for 401 or 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match age_ms {
    Some(age_ms) => format!("what is revoked was last read {} ago, more than `max_staleness` {}", Span(*age_ms), Span(*max_ms)),
    None => "what is revoked has not been read yet".to_owned(),
})]
pub struct Stale {
    /// How old what is known is, in milliseconds; none where nothing is.
    pub age_ms: Option<u64>,
    /// How old it may be, in milliseconds.
    pub max_ms: u64,
}

/// What somebody may want to know about this node's follower.
#[derive(Clone, Debug)]
pub struct Health {
    /// The epoch it goes by.
    pub epoch: u64,
    /// How many revocations are in force.
    pub entries: usize,
    /// How old what it knows is, in milliseconds; none where it has read nothing yet.
    pub age_ms: Option<u64>,
    /// Whether that is too old.
    pub is_stale: bool,
    /// What it does then.
    pub on_stale: OnStale,
    /// Why reads fail, where they do.
    pub fault: Option<String>,
    /// Since when revocations are missing that the store forgot and no node remembers, until an operator answers.
    pub lost_since: Option<keyreeve_core::time::Timestamp>,
}

impl Revocations {
    /// Starts to follow. What `previous` knows is known here too, and whoever holds `previous` goes on with this.
    #[must_use]
    pub fn start(parts: Parts, config: RevocationConfig, previous: Option<&Self>) -> Self {
        let mut boot = [0; 8];
        parts.host.fill(&mut boot);
        let me = Holder { node: parts.node, boot: u64::from_be_bytes(boot) };
        let inner = Arc::new(Inner {
            me: previous.map_or(me, |previous| previous.inner.me.clone()),
            host: parts.host,
            register: parts.register,
            crypto: parts.crypto,
            store_ms: parts.store_ms,
            config,
            state: previous.map(|previous| Arc::clone(&previous.inner.state)).unwrap_or_default(),
            stop: tokio::sync::watch::Sender::new(false),
            turn: futures::lock::Mutex::new(()),
        });
        inner.host.spawn(Box::pin(follow::run(Arc::downgrade(&inner))));
        inner.host.spawn(Box::pin(follow::listen(Arc::downgrade(&inner))));
        Self { inner }
    }

    /// Ends the reads. What is known is soon too old then, unless somebody started from this.
    pub fn stop(&self) {
        self.inner.stop.send_replace(true);
    }

    /// Ends the reads, and says in the store that this node has ended on purpose, so that nobody waits for its receipts.
    pub async fn leave(&self) {
        self.stop();
        receipts::leave(&self.inner).await;
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &RevocationConfig {
        &self.inner.config
    }

    /// The epoch of what this node goes by. Grows with every change of it; 0 before anything was revoked.
    ///
    /// Whoever keeps a verdict keeps the epoch with it that was there *before* the token was looked at. As long as the two
    /// are the same the verdict holds; else it is asked for again by [`is_revoked`](Self::is_revoked).
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.state.epoch()
    }

    /// A kept verdict on an opaque token from an epoch below this says nothing: what it should have heard since may have been
    /// dropped from the log, and only the token's own record says it now.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.inner.state.floor()
    }

    /// Whether what this node knows is fresh enough to accept anything by it. Costs a few loads.
    ///
    /// # Errors
    /// [`Stale`], with `on_stale = "deny"`; and before the first good read of this process, whatever that says: to go on by what
    /// one knows, one has to know something, and a node that has just started knows of no revocation at all.
    pub fn fresh(&self, now: Moment) -> Result<(), Stale> {
        let (age_ms, max_ms) = (self.inner.state.age_ms(now), self.inner.config.max_staleness_ms);
        let is_good = |age_ms| age_ms <= max_ms || self.inner.config.on_stale == OnStale::Allow;
        if age_ms.is_some_and(is_good) { Ok(()) } else { Err(Stale { age_ms, max_ms }) }
    }

    /// Whether this token has been taken back, and in which epoch. Asked once for a verdict, and again for a kept one after
    /// the epoch has changed.
    #[must_use]
    pub fn is_revoked(&self, token: &Credentials<'_>) -> Option<u64> {
        self.inner.state.held().log.as_ref()?.finds(self.inner.crypto.as_ref(), token)
    }

    /// Both clocks of this node.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.inner.host.now()
    }

    /// How the follower is.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = &self.inner.state;
        let (held, age_ms) = (state.held(), state.age_ms(self.inner.host.now()));
        Health {
            epoch: state.epoch(),
            entries: held.log.as_ref().map_or(0, |log| log.entries().len()),
            age_ms,
            is_stale: age_ms.is_none_or(|age_ms| age_ms > self.inner.config.max_staleness_ms),
            on_stale: self.inner.config.on_stale,
            fault: state.fault(),
            lost_since: held.log.as_ref().and_then(|log| log.lost_since()),
        }
    }
}
