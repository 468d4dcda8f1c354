//! The issuers of a node, from the parts of its configuration.

use std::sync::Arc;

use async_trait::async_trait;
use keyreeve::access::Tokens;
use keyreeve::core::id::NodeId;
use keyreeve::core::jwt::{Algorithm, Expected};
use keyreeve::core::policy::Source;
use keyreeve::core::seal::KeyRing;
use keyreeve::core::secret::Secret;
use keyreeve::crypto::LocalCrypto;
use keyreeve::http::ArtifactGates;
use keyreeve::inbound::client::Clients;
use keyreeve::inbound::issuer::{Issuers, KeyMaker, KeyPair, Parts};
use keyreeve::inbound::{Issuing, Trusted};
use keyreeve::jwt::{Verifier, generate};
use keyreeve::port::Host;
use keyreeve::revocation::Revocations;

use crate::exit::{Code, Failure};
use crate::load::{Ground, Store};

/// Who starts what goes on in the background, and what it had before.
pub(crate) struct Signs<'a> {
    pub(crate) node: &'a NodeId,
    pub(crate) previous: Option<&'a Issuers>,
    pub(crate) tokens: Option<&'a Tokens>,
    /// What it follows already.
    pub(crate) followed: Option<&'a Revocations>,
    /// What it hands out already.
    pub(crate) artifacts: &'a ArtifactGates,
}

/// Generates keys on a thread of their own: an RSA key takes a fraction of a second.
struct Maker {
    host: Arc<dyn Host>,
}

#[async_trait]
impl KeyMaker for Maker {
    async fn make(&self, algorithm: Algorithm) -> Result<KeyPair, String> {
        let host = Arc::clone(&self.host);
        let made = tokio::task::spawn_blocking(move || {
            // The id comes later, from the public half.
            generate::generate(algorithm, "new", &mut |bytes| host.fill(bytes))
        });
        let made = made.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let private = Secret::new(made.private.expose().as_bytes().to_vec());
        Ok(KeyPair { public: made.jwk.key, private })
    }
}

/// Starts the issuers of a configuration; none where it has none.
///
/// # Errors
/// Where there is nothing to seal their keys with, or nowhere to keep them.
pub(crate) fn start(
    config: &keyreeve::config::Config,
    (clients, trusted): (Clients, &mut Vec<Trusted>),
    ground: &Ground,
    signs: &Signs<'_>,
    (store, keys): (Option<&Store>, Option<&KeyRing>),
) -> Result<Option<Issuing>, Failure> {
    if config.issuers.is_empty() {
        return Ok(None);
    }
    let (Some(store), Some(keys)) = (store, keys) else {
        return Err(Failure::new(Code::Usage, "issuers need `store` and `seal.keys`"));
    };
    let parts = Parts {
        node: signs.node.clone(),
        host: Arc::clone(&ground.host),
        register: Arc::clone(&store.register),
        crypto: Arc::new(LocalCrypto),
        keys: keys.clone(),
        maker: ground.faults.around_maker(Arc::new(Maker { host: Arc::clone(&ground.host) }), &ground.host),
        store_ms: ground.host_ms(config.store_ms),
    };
    let verifiers = trusted.iter().filter_map(|one| match &one.source {
        Source::Verifier(name) => Some((name.clone(), one.verifier.clone())),
        Source::Issuer(_) => None,
    });
    let verifiers = Arc::new(verifiers.collect());
    let issuers = Issuers::start(parts, &config.issuers, signs.previous);
    trusted.extend(config.issuers.keys().filter_map(|name| own(&issuers, name.as_str())));
    Ok(Some(Issuing { issuers, clients: Arc::new(clients), verifiers }))
}

/// An issuer of this node as one whose tokens gates and rules accept.
fn own(issuers: &Issuers, name: &str) -> Option<Trusted> {
    let config = issuers.config(name)?;
    let expected = Expected::new([config.url.clone()], config.audience.iter().cloned()).ok()?;
    let (held, issuer) = (issuers.clone(), name.to_owned());
    let revoked =
        move |claims: &keyreeve::core::jwt::Claims| claims.token_id().is_some_and(|jti| held.is_revoked(&issuer, jti));
    Some(Trusted {
        source: Source::Issuer(name.to_owned()),
        verifier: Verifier::new(expected, issuers.keys(name)?),
        revoked: Some(Arc::new(revoked)),
    })
}
