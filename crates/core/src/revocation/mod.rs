//! What has been taken back before its time: one bounded log that every node follows, and what each node has applied.
//!
//! - [`what`]: the words: what is revoked, and what a token says about itself
//! - [`log`]: the log, its writes, and whether a token is in it
//! - [`follow`]: what a node does with what it has read; what it does when the store has forgotten
//! - [`node`]: what a node has applied and when: where receipts come from
//!
//! The log is a join of its entries: nodes may learn them in any order, twice, or from a store that lost some, and end up
//! with the same. Nothing that is dropped for room makes a revoked token good again. This module knows no time of its own
//! and no store.

mod follow;
mod log;
mod node;
mod what;

pub use follow::{Followed, follow};
pub use log::{ENTRIES_MAX, Entry, Full, LOG_BYTES_MAX, Log, Order, Until, revoke, settle};
pub use node::{APPLIED_MAX, Applied, NODE_BYTES_MAX, Node};
pub use what::{Credentials, JwtId, Kind, Mark, Scope, What};
