//! The decisions of keyreeve.
//!
//! Nothing here waits, reads a clock, draws a random number, touches a file or a socket, or logs. Time and entropy are
//! arguments; the result is a value that says what to do. That is what lets one piece of code run in a native
//! process, in a Cloudflare isolate, in an exhaustive walk and in a seeded simulation without a line of difference.
//!
//! - [`lifecycle`]: the renewal protocol, `step(event, now) -> what to do`
//! - [`record`]: the register value that a fleet shares, and its stored form
//! - [`operator`]: what people may write into a record
//! - [`rules`]: the numbers of one credential, and which of them contradict each other
//! - [`view`]: which generation a node serves at a moment
//! - [`schedule`]: when to renew, and the slots of store-less mode
//! - [`policy`]: who may do what, and what would have to be different
//! - [`cache`]: a bounded map whose entries expire
//! - [`quiet`]: windows in which no renewal falls due
//! - [`clock`]: how wrong a clock is, and whether to correct it
//! - [`issuer`]: the signing keys of an issuer, their phases and who changes them
//! - [`jwt`]: tokens and keys, parsed and judged; only verification makes a `Verified<Claims>`
//! - [`json`]: JSON from strangers, read once and strictly
//! - [`revocation`]: what has been taken back before its time, and what each node has applied
//! - [`revoked`]: which tokens of an issuer are refused before their time
//! - [`token`]: opaque access tokens: their text, their record, what they are good for
//! - [`seal`]: the envelope that secrets travel in
//! - [`secret`], [`crypto`], [`id`], [`time`]: the words the others use

#[macro_use]
mod bytes;

pub mod cache;
pub mod clock;
pub mod crypto;
pub mod id;
pub mod issuer;
pub mod json;
pub mod jwt;
pub mod lifecycle;
pub mod operator;
pub mod policy;
pub mod quiet;
pub mod record;
pub mod revocation;
pub mod revoked;
pub mod rules;
pub mod schedule;
pub mod seal;
pub mod secret;
pub mod time;
pub mod token;
pub mod view;
