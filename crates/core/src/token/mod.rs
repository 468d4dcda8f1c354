//! Opaque access tokens: what they look like, what is known about them, and whether they are good at a moment.
//!
//! A token is worth nothing but what its record says. Nothing in here reads a record, compares times with a clock of its own,
//! or knows a secret for longer than a call.
//!
//! - [`text`]: the spellings; each token has exactly one
//! - [`record`]: what is stored of a token, never its secret
//! - [`scope`]: what a token is good for
//! - [`hash`]: the keyed hash that a record holds, and the key of it
//! - [`mode`]: whose verdict counts while tokens move here from elsewhere

pub mod hash;
pub mod mode;
pub mod record;
pub mod scope;
pub mod text;

pub use hash::{Bound, HashKey};
pub use mode::{Compared, Mode, ModeRecord, NotYet, Tally};
pub use record::{Import, Record, Revocation, Rolled, State, Used};
pub use scope::{Allowed, OutOfScope, Scope, ScopeError};
pub use text::{Format, Presented, TEXT_BYTES_MAX, TokenId, native};

/// The longest name of a target, in bytes.
pub const TARGET_BYTES_MAX: usize = 128;

/// Whether this can be the name of a target: 1 to [`TARGET_BYTES_MAX`] of `A-Z a-z 0-9 . _ -`, and not only dots, so that
/// it is one segment of any path.
#[must_use]
pub fn is_target(text: &str) -> bool {
    (1..=TARGET_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !text.bytes().all(|byte| byte == b'.')
}
