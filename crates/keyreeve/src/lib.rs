//! One credential for the whole fleet.
//!
//! This crate is what a Rust program embeds, and what the `keyreeve` binary and the Cloudflare Worker are made of. It
//! knows ports, not platforms: time, chance, tasks, processes and sockets come in through [`port`].
//!
//! - [`port`]: the traits that touch the world
//! - [`access`]: opaque access tokens: made, checked, taken back
//! - [`engine`]: stores behind the [`port::Register`]
//! - [`source`]: how credentials are minted
//! - [`inbound`]: tokens that are signed for others
//! - [`outbound`]: the driver that renews and serves
//! - [`clock`]: what time others say it is
//! - [`crypto`]: the primitives, by pure Rust and by aws-lc
//! - [`seal`]: the keys that what is stored is sealed with
//! - [`inbound`]: whose tokens are accepted, and what their holders may do
//! - [`revocation`]: what is refused before its time, on every node
//! - [`jwt`]: tokens signed and verified, for Rust programs too
//! - [`http`]: the HTTP API, on any home
//! - `artifact`: gates over objects in folders and buckets, where the feature `objects` is on
//! - `system`: the operating system behind the ports, where the feature of that name is on

pub mod access;
#[cfg(feature = "objects")]
pub mod artifact;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod engine;
pub mod error;
pub mod hex;
pub mod http;
pub mod inbound;
pub mod jwt;
pub mod outbound;
pub mod port;
pub mod revocation;
pub mod seal;
mod seen;
pub mod source;
#[cfg(feature = "system")]
pub mod system;

pub use keyreeve_core as core;
