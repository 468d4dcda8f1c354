//! The end of a driver: after a reload, or with its process. A mint that was made and is not committed yet is nowhere but in
//! this process, and of a chain of refresh tokens it is the only link.
//!
//! So a driver that was stopped goes on with what it has not committed, and with nothing else, until the register has it, or
//! until somebody else was faster; and for [`COMMIT_MS`] at the most.

use std::sync::{Arc, Weak};

use futures::future::{Either, select};
use keyreeve_core::lifecycle::Phase;
use keyreeve_core::rules::{Mode, OnDoubt, Rules};
use keyreeve_core::time::{Mono, Span};

use super::cell::Cell;
use super::{Inner, Outbound, pass};
use crate::config::Plan;

/// How long a driver that was stopped goes on with what it has not committed, in milliseconds: as long as a store may be away
/// and come back. One that does not come back is not asked for ever.
pub const COMMIT_MS: u64 = 24 * 3_600_000;

impl Outbound {
    /// Stops renewing. Passes under way finish, and what they bring is committed, however long the store is away
    /// ([`COMMIT_MS`]), also once this handle is dropped. What is held is still served.
    pub fn stop(&self) {
        self.inner.timer.stop(self.inner.host.now().mono);
        for cell in self.inner.cells.values() {
            // Nobody wakes it any more.
            let is_waiting = cell.lock().uncommitted().is_some();
            if is_waiting {
                pass::ensure(&self.inner, cell);
            }
        }
    }

    /// Waits until no pass is under way, and once it was [stopped](Self::stop) until everything is committed, here and by the
    /// drivers it took over from; at most until `deadline`. For a clean end of the process.
    pub async fn drain(&self, deadline: Mono) {
        for inner in self.inner.and_earlier() {
            for cell in inner.cells.values() {
                while let Some(mut changed) = cell.follow_to_the_end(inner.timer.is_stopped()) {
                    let sleep = inner.host.sleep_until(deadline);
                    match select(Box::pin(changed.changed()), sleep).await {
                        Either::Left((Ok(()), _)) => {}
                        Either::Left((Err(_), _)) => break,
                        Either::Right(_) => return,
                    }
                }
            }
        }
    }

    /// What is lost if the process ends now, here and by the drivers it took over from: a sentence and a hint for each
    /// credential concerned, without any secret.
    #[must_use]
    pub fn unfinished(&self) -> Vec<String> {
        let inners = self.inner.and_earlier();
        inners.iter().flat_map(|inner| inner.cells.values()).filter_map(|cell| unfinished(cell)).collect()
    }
}

impl Inner {
    /// This driver, and those before it that are still at something.
    fn and_earlier(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let earlier = self.earlier.iter().filter_map(Weak::upgrade);
        std::iter::once(Arc::clone(self)).chain(earlier).collect()
    }

    /// For the driver that comes after this one.
    pub(super) fn with_earlier(self: &Arc<Self>) -> Vec<Weak<Self>> {
        self.and_earlier().iter().map(Arc::downgrade).collect()
    }

    /// When a driver that was stopped tries again to commit what came of a mint; `None` where it does not.
    pub(super) fn goes_on_at(&self, cell: &Cell) -> Option<Mono> {
        let limit = self.timer.stopped_at()?.plus(COMMIT_MS);
        let again_at = {
            let state = cell.lock();
            state.uncommitted()?;
            state.wake_at.unwrap_or(limit)
        };
        if self.host.now().mono < limit {
            return Some(again_at.min(limit));
        }
        if let Some(lost) = unfinished(cell) {
            tracing::error!("given up after {}: {lost}", Span(COMMIT_MS));
        }
        None
    }
}

/// What of this credential is nowhere but in this process.
fn unfinished(cell: &Cell) -> Option<String> {
    let Plan::Fleet(rules) = cell.plan.as_ref() else { return None };
    let state = cell.lock();
    let (generation, what) = match state.renewer.phase() {
        Phase::Idle | Phase::Acquiring { .. } => return None,
        Phase::Minting { record, .. } => (record.generation, "was asked for, and no answer has come"),
        Phase::Settling { record, .. } => match (&record.intent, &record.failure) {
            (None, None) => (record.newest()?.generation, "was minted, and is lost: the store did not answer"),
            _ => (record.generation, "failed, and the store did not answer when that was to be written down"),
        },
    };
    Some(format!("generation {generation} of `{}` {what}\nhint: {}", cell.name, hint(rules, &cell.name.to_string())))
}

fn hint(rules: &Rules, name: &str) -> String {
    match (rules.on_doubt, rules.mode) {
        (OnDoubt::Reauthorize, _) => format!(
            "what it was minted with may be used up, such as a refresh token: put a new one where the configuration says, then `keyreeve credential resolve {name} reauthorize`"
        ),
        (OnDoubt::RetrySame, Mode::Replay) => "the next node mints the same again; there is nothing to do".to_owned(),
        (_, Mode::Exclusive) => format!(
            "the next node mints another one once `min_interval` {} has passed; there is nothing to do",
            Span(rules.min_interval_ms)
        ),
        (_, Mode::Lease | Mode::Replay) => "the next node mints another one; there is nothing to do".to_owned(),
    }
}
