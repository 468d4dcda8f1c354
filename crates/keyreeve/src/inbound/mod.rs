//! Tokens that come in, and those that are signed for others.
//!
//! - [`client`]: who may ask for tokens
//! - [`issuer`]: the signing keys of a fleet, and what is signed and revoked with them

pub mod client;
pub mod issuer;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::jwt::Verifier;

/// Everything that signs, and everybody who may ask for it. Cheap to clone.
#[derive(Clone)]
pub struct Issuing {
    /// The issuers.
    pub issuers: issuer::Issuers,
    /// Their clients.
    pub clients: Arc<client::Clients>,
    /// Whose tokens clients may exchange, by the names in the configuration.
    pub verifiers: Arc<BTreeMap<String, Verifier>>,
}
