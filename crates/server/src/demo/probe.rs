//! A token that is to be refused from some moment on: what each node answers to it, and what its own receipt says.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the nodes get to take a fresh token, and to be done with a revoked one: much more than the bound, for a busy
/// machine.
pub(super) const SETTLE_WITHIN: Duration = Duration::from_secs(30);
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether it is so within [`SETTLE_WITHIN`].
pub(super) async fn until(is_so: impl Fn() -> bool) -> bool {
    let until = Instant::now() + SETTLE_WITHIN;
    while !is_so() {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}

/// A token, and what the nodes have answered to it so far.
#[derive(Default)]
pub(super) struct Probe {
    pub(super) token: String,
    seen: Mutex<BTreeMap<usize, Seen>>,
}

/// What one node has answered, by the moments at which the requests were sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The last request that was accepted, in milliseconds since 1970.
    pub(super) last_accepted_ms: Option<u64>,
    /// The first request that was not, after that one.
    pub(super) first_refused_ms: Option<u64>,
    /// How many were refused as a stranger's.
    pub(super) refused: u64,
    /// How many were answered with 503.
    pub(super) unsure: u64,
}

/// What a revocation came to at one node.
pub(super) struct Came {
    /// What the node's receipt calls it, or `missing`.
    pub(super) state: String,
    /// From the writing to the node's receipt, in milliseconds.
    pub(super) receipt_ms: Option<u64>,
    /// From the writing to the last request that was accepted, in milliseconds; 0 where none was.
    pub(super) measured_ms: u64,
    /// Whether a request was accepted that was sent after the node had said that it refuses.
    pub(super) is_late: bool,
}

impl Probe {
    pub(super) fn new(token: String) -> Self {
        Self { token, ..Self::default() }
    }

    /// Takes down an answer to a request that was sent at `sent_ms`.
    pub(super) fn note(&self, node: usize, sent_ms: u64, status: Option<u16>) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(node).or_default();
        match status {
            Some(200 | 304) => {
                seen.last_accepted_ms = seen.last_accepted_ms.max(Some(sent_ms));
                seen.first_refused_ms = None;
            }
            Some(401 | 503) => {
                seen.first_refused_ms = seen.first_refused_ms.or(Some(sent_ms));
                seen.refused += u64::from(status == Some(401));
                seen.unsure += u64::from(status == Some(503));
            }
            _ => {}
        }
    }

    /// What a node has answered so far.
    pub(super) fn seen_by(&self, node: usize) -> Seen {
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&node).copied().unwrap_or_default()
    }

    /// Whether each of `nodes` has accepted it.
    pub(super) fn is_accepted_by(&self, nodes: &[usize]) -> bool {
        nodes.iter().all(|node| self.seen_by(*node).last_accepted_ms.is_some())
    }

    /// Whether each of `nodes` refuses it by now.
    pub(super) fn is_refused_by(&self, nodes: &[usize]) -> bool {
        nodes.iter().all(|node| self.seen_by(*node).first_refused_ms.is_some())
    }
}

/// What the receipts of a revocation, and what was seen of it from outside, come to at the node of this name.
pub(super) fn came(receipts: &Value, name: &str, seen: &Seen) -> Came {
    let written_ms = moment_ms(text(receipts, "at"));
    let of_node = receipts.get("nodes").and_then(Value::as_array).into_iter().flatten();
    let receipt = of_node.into_iter().find(|receipt| text(receipt, "node") == name);
    let last_ms = seen.last_accepted_ms;
    let state = receipt.map_or("missing", |receipt| text(receipt, "state")).to_owned();
    // Both are moments of one machine's clock, in whole milliseconds.
    let applied_ms = receipt.filter(|_| state == "applied").map(|receipt| moment_ms(text(receipt, "at")));
    Came {
        receipt_ms: receipt.and_then(|receipt| receipt.get("after_ms")?.as_u64()),
        measured_ms: last_ms.unwrap_or(0).saturating_sub(written_ms),
        is_late: applied_ms.is_some_and(|applied_ms| last_ms.is_some_and(|last_ms| last_ms > applied_ms)),
        state,
    }
}

/// A text of an answer, or nothing.
pub(super) fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A moment of an answer, in milliseconds since 1970.
pub(super) fn moment_ms(text: &str) -> u64 {
    let at = text.parse::<jiff::Timestamp>().map(|at| at.as_millisecond()).unwrap_or_default();
    u64::try_from(at).unwrap_or(0)
}
