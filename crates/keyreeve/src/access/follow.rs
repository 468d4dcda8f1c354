//! What goes on in the background: uses are written down, many at once, and targets whose dropping was cut short are dropped.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures::stream::{self, StreamExt as _};
use keyreeve_core::time::Timestamp;
use keyreeve_core::token::{Record, TokenId, Used};

use super::Inner;
use crate::error::Error;
use crate::port::{Entry, Key, fresh_write_id};

/// How often uses are written, and dropped targets looked for, in milliseconds.
const EVERY_MS: u64 = 10_000;
/// A use is not written where one is that is younger than this, in milliseconds: a token that is used all the time costs the
/// fleet a write in five minutes.
const USED_EVERY_MS: u64 = 5 * 60_000;
/// The most records that are written at once.
const AT_ONCE: usize = 8;

/// Goes on for as long as the driver lives.
pub(super) async fn run(inner: Weak<Inner>) {
    // At first, what a node that ended left undone: as soon as this one has read what is revoked.
    let mut pause_ms = 100;
    loop {
        let Some(strong) = inner.upgrade() else { return };
        if strong.is_stopped.load(Ordering::Relaxed) {
            strong.write_uses().await;
            return;
        }
        strong.write_uses().await;
        strong.finish_dropping().await;
        if strong.revocations.fresh(strong.host.now()).is_ok() {
            pause_ms = EVERY_MS;
        }
        let host = Arc::clone(&strong.host);
        drop(strong);
        host.sleep_until(host.now().mono.plus(pause_ms)).await;
    }
}

impl Inner {
    /// Writes down when tokens were used. What cannot be written is forgotten: the next use is noted again.
    pub(super) async fn write_uses(&self) {
        let uses = stream::iter(self.held.take_uses()).map(|(id, at)| self.write_use(id, at));
        let mut failed = uses.buffer_unordered(AT_ONCE).filter_map(async |result| result.err()).boxed();
        if let Some(error) = failed.next().await {
            tracing::warn!("when tokens were used cannot be written down: {error}");
        }
        // The others are tried all the same.
        while failed.next().await.is_some() {}
    }

    async fn write_use(&self, id: TokenId, at: Timestamp) -> Result<(), Error> {
        let Some(record) = self.record(id).await? else { return Ok(()) };
        if record.used.as_ref().is_some_and(|used| at.since(used.at) < USED_EVERY_MS && used.at <= at) {
            return Ok(());
        }
        let mut next: Record = record.following(fresh_write_id(self.host.as_ref()), self.host.now());
        next.used = Some(Used { at, node: self.node.clone() });
        let entry = Entry { op: next.op, bytes: next.encode().into() };
        // Somebody who was faster had something more important to write.
        self.swap(&Key::of_token(&id.digits()), Some(record.op), entry).await.map(drop)
    }
}
