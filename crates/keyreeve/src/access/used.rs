//! What goes on in the background: when tokens were last used is written down, now and then and many at once.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use super::Inner;

/// How often, in milliseconds.
const EVERY_MS: u64 = 10_000;

/// Goes on for as long as the driver lives.
pub(super) async fn follow(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        if strong.is_stopped.load(Ordering::Relaxed) {
            return;
        }
        let host = std::sync::Arc::clone(&strong.host);
        drop(strong.held.take_uses());
        drop(strong);
        host.sleep_until(host.now().mono.plus(EVERY_MS)).await;
    }
}
