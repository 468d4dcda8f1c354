//! Tokens that come in, and those that are signed for others.
//!
//! - [`issuer`]: the signing keys of a fleet, and what is signed and revoked with them

pub mod issuer;
