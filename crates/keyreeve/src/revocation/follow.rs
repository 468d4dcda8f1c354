//! The reads: one key every quarter of `max_staleness`, and at once when somebody says that it changed.

use std::sync::{Arc, Weak};

use futures::StreamExt as _;
use futures::future::{Either, select};
use keyreeve_core::id::WriteId;
use keyreeve_core::revocation::{Log, Node};
use keyreeve_core::time::{Mono, Span};

use super::Inner;
use super::receipts;
use crate::config::OnStale;
use crate::error::{Error, ErrorKind};
use crate::port::{Entry, Key, StoreError, Swap, fresh_write_id};

/// However often somebody says that the log changed, reads are this far apart, in milliseconds.
const GAP_MS: u64 = 10;
/// A read is cut off after half of `max_staleness`, so that there is time for another one, but not before this, in
/// milliseconds.
const READ_MS_MIN: u64 = 50;

/// Reads for as long as the follower lives.
pub(super) async fn run(weak: Weak<Inner>) {
    let mut is_first = true;
    loop {
        let Some(inner) = weak.upgrade() else { return };
        let mut stop = inner.stop.subscribe();
        if *stop.borrow() {
            return;
        }
        let began = inner.host.now().mono;
        let result = inner.look(is_first).await;
        if is_first && result.is_ok() {
            is_first = false;
            // Not before: it may take over the place of a node that has gone by an epoch which the store has lost.
            inner.host.spawn(Box::pin(receipts::run(Arc::downgrade(&inner))));
        }
        inner.note(result.err());
        let (host, state) = (Arc::clone(&inner.host), Arc::clone(&inner.state));
        let every_ms = (inner.config.max_staleness_ms / 4).max(1);
        drop(inner);
        let wished = Box::pin(async {
            let stopped = Box::pin(stop.wait_for(|is| *is));
            let _ = select(Box::pin(state.wish.notified()), stopped).await;
        });
        if let Either::Left(_) = select(wished, host.sleep_until(began.plus(every_ms))).await {
            host.sleep_until(began.plus(every_ms.min(GAP_MS))).await;
        }
    }
}

/// Wishes for a read whenever the store says that the log changed, where it can say that.
pub(super) async fn listen(weak: Weak<Inner>) {
    let Some(inner) = weak.upgrade() else { return };
    let Some(mut changes) = inner.register.changes() else { return };
    let (mut stop, state, key) = (inner.stop.subscribe(), Arc::clone(&inner.state), Inner::key());
    drop(inner);
    let mut stopped = Box::pin(stop.wait_for(|is| *is));
    loop {
        match select(changes.next(), stopped).await {
            Either::Left((Some(changed), still)) => {
                if changed == key {
                    state.wish.notify_one();
                }
                stopped = still;
            }
            Either::Left((None, _)) | Either::Right(_) => return,
        }
    }
}

impl Inner {
    pub(super) fn key() -> Key {
        Key::of_revocations()
    }

    /// One read, and what follows from it.
    async fn look(&self, is_first: bool) -> Result<(), Error> {
        let read_ms = self.store_ms.min((self.config.max_staleness_ms / 2).max(READ_MS_MIN));
        self.read(read_ms).await?;
        if is_first {
            self.check_loss().await?;
        }
        let log = self.state.held().log.clone();
        let now = self.host.now();
        if let Some(log) = log.filter(|log| log.is_worth_compacting(now)) {
            let next = log.compacted(fresh_write_id(self.host.as_ref()), now);
            // Somebody else may have been faster, or will be.
            let _ = self.write(Some(log.op), next).await;
        }
        Ok(())
    }

    /// Reads the log, goes by it, and teaches the store what it has forgotten. Returns the write that the store holds.
    pub(super) async fn read(&self, within_ms: u64) -> Result<Option<WriteId>, Error> {
        let asked = self.state.asking(self.host.now());
        let entry = self.within(within_ms, self.register.read(&Self::key())).await.map_err(|error| away(&error))?;
        // The same as last time, as nearly always: not even read.
        if let Some(entry) = &entry
            && self.state.is_confirmed(entry.op, asked)
        {
            return Ok(Some(entry.op));
        }
        let found = entry.map(|entry| decode(&entry)).transpose()?;
        let op = found.as_ref().map(|found| found.op);
        let teach = self.state.found(found, asked, fresh_write_id(self.host.as_ref()), || self.host.now());
        let Some(teach) = teach else { return Ok(op) };
        let next = teach.log.op;
        if self.write(teach.expected, Log::clone(&teach.log)).await? {
            tracing::error!(
                epoch = teach.log.epoch,
                "the store had forgotten revocations; this node has written them down again"
            );
            return Ok(Some(next));
        }
        Ok(op)
    }

    /// Writes the log and goes by it. False where somebody was faster.
    pub(super) async fn write(&self, expected: Option<WriteId>, next: Log) -> Result<bool, Error> {
        let entry = Entry { op: next.op, bytes: next.encode().into() };
        let asked = self.host.now();
        match self.within(self.store_ms, self.register.swap(&Self::key(), expected, entry)).await {
            Ok(Swap::Done) => {
                self.state.wrote(Arc::new(next), asked, || self.host.now());
                Ok(true)
            }
            Ok(Swap::Lost) => Ok(false),
            Err(error) => Err(away(&error)),
        }
    }

    /// Whether nodes have gone by an epoch that the store does not have any more. Only a node that has just started asks:
    /// every other one remembers.
    async fn check_loss(&self) -> Result<(), Error> {
        let epoch = self.state.epoch();
        let nodes = receipts::nodes(self).await?;
        let seen = nodes.iter().map(|(_, node)| Node::epoch(node)).max().unwrap_or(0);
        if seen <= epoch {
            return Ok(());
        }
        // Whoever remembers teaches the store at its next read.
        let until = self.host.now().mono.plus(self.config.max_staleness_ms.saturating_mul(2));
        while self.host.now().mono < until {
            self.host.sleep_until(Mono(until.0.min(self.host.now().mono.0.saturating_add(GAP_MS * 5)))).await;
            self.read(self.store_ms).await?;
            if self.state.epoch() >= seen {
                return Ok(());
            }
        }
        let log = self.state.held().log.clone();
        let next = Log::lost(log.as_deref(), seen, fresh_write_id(self.host.as_ref()), self.host.now());
        if self.write(log.map(|log| log.op), next).await? {
            tracing::error!(
                seen,
                epoch,
                "the store has forgotten revocations that no node remembers: revoke again what may be concerned, then `keyreeve revoke --answer-loss`"
            );
        }
        Ok(())
    }

    /// Says once that reads fail, and once that they do no longer.
    fn note(&self, fault: Option<Error>) {
        let said = fault.as_ref().map(|error| error.message.clone());
        match (self.state.note(said), fault) {
            (Some(_), Some(error)) => {
                let max = Span(self.config.max_staleness_ms);
                let then = match self.config.on_stale {
                    _ if self.state.age_ms(self.host.now()).is_none() => {
                        "until it has been read tokens are refused".into()
                    }
                    OnStale::Deny => format!("after {max} without news tokens are refused"),
                    OnStale::Allow => format!("after {max} without news tokens are accepted all the same"),
                };
                tracing::warn!("what is revoked cannot be read; {then}: {error}");
            }
            (Some(_), None) => tracing::info!("what is revoked is read again"),
            (None, _) => {}
        }
    }

    /// Waits for a store call, but not for ever.
    pub(super) async fn within<T>(
        &self,
        ms: u64,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let until = self.host.now().mono.plus(ms);
        match select(Box::pin(call), self.host.sleep_until(until)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(StoreError::Unknown(format!("no answer within {}", Span(ms)))),
        }
    }
}

fn decode(entry: &Entry) -> Result<Log, Error> {
    let refused =
        |why: &dyn std::fmt::Display| Error::new(ErrorKind::RecordRefused, format!("the log of revocations: {why}"));
    let log = Log::decode(&entry.bytes).map_err(|error| refused(&error))?;
    if log.op == entry.op { Ok(log) } else { Err(refused(&"it belongs elsewhere")) }
}

pub(super) fn away(error: &StoreError) -> Error {
    Error::new(ErrorKind::StoreUnavailable, format!("revocations: {error}")).after(1000)
}
