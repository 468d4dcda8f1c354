//! Tokens that are signed for others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::client::Clients;
use super::issuer::Issuers;
use crate::jwt::Verifier;

/// Everything that signs, and everybody who may ask for it. Cheap to clone.
#[derive(Clone)]
pub struct Issuing {
    /// The issuers.
    pub issuers: Issuers,
    /// Their clients.
    pub clients: Arc<Clients>,
    /// Whose tokens clients may exchange, by the names in the configuration.
    pub verifiers: Arc<BTreeMap<String, Verifier>>,
}
