//! Signatures that are the same bytes each time.
//!
//! Only such algorithms are offered: they let any node repeat a mint, and let nodes without a store agree on a token.

use std::sync::Arc;

use async_trait::async_trait;
use ed25519_dalek::Signer as _;
use hmac::{Hmac, Mac as _};
use keyreeve_core::secret::Secret;
use sha2::{Sha256, Sha384, Sha512};

use super::key::{self, KeyError};
use crate::config::Algorithm;

/// A signature could not be made. The text holds no key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignError(pub String);

/// One private key, ready to sign. Asynchronous because a platform's own key store may answer later.
#[async_trait]
pub trait Signer: Send + Sync {
    /// The algorithm, as in a JOSE header.
    fn algorithm(&self) -> Algorithm;

    /// Signs `message`. The same message gives the same signature, in the form of RFC 7518 section 3.
    ///
    /// # Errors
    /// [`SignError`] where the library or the key store failed; never for a particular message.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

impl Algorithm {
    /// The name in a JOSE header (RFC 7518 3.1, RFC 8037 3.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }
}

/// What makes signers of keys: [`signer`], or what a platform puts in front of it for the keys of its own library.
pub type MakeSigner = fn(Algorithm, &Secret<Vec<u8>>) -> Result<Arc<dyn Signer>, KeyError>;

/// Reads a private key (PEM or JWK; an HMAC secret may be plain bytes) for `algorithm`.
///
/// # Errors
/// [`KeyError`] says what was expected and what was found, without any of the key.
pub fn signer(algorithm: Algorithm, material: &Secret<Vec<u8>>) -> Result<Arc<dyn Signer>, KeyError> {
    let bytes = material.expose();
    Ok(match algorithm {
        Algorithm::Es256 => Arc::new(Es256(key::p256(bytes)?)),
        Algorithm::EdDsa => Arc::new(EdDsa(key::ed25519(bytes)?)),
        Algorithm::Rs256 => rs256(bytes)?,
        Algorithm::Hs256 => Arc::new(Hs256(mac(&key::hmac(bytes, algorithm, 32)?))),
        Algorithm::Hs384 => Arc::new(Hs384(mac(&key::hmac(bytes, algorithm, 48)?))),
        Algorithm::Hs512 => Arc::new(Hs512(mac(&key::hmac(bytes, algorithm, 64)?))),
    })
}

#[cfg(feature = "native")]
fn rs256(bytes: &[u8]) -> Result<Arc<dyn Signer>, KeyError> {
    Ok(Arc::new(super::rsa::Rs256::new(bytes)?))
}

#[cfg(not(feature = "native"))]
fn rs256(_: &[u8]) -> Result<Arc<dyn Signer>, KeyError> {
    Err(KeyError::Platform("RS256"))
}

struct Es256(p256::ecdsa::SigningKey);

#[async_trait]
impl Signer for Es256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::Es256
    }

    /// The nonce is derived from key and message (RFC 6979 with HMAC-SHA-256). `s` is not normalized to its lower half:
    /// JOSE does not ask for it, and the vectors of RFC 6979 then hold.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature: p256::ecdsa::Signature =
            self.0.try_sign(message).map_err(|cause| SignError(format!("ES256 failed: {cause}")))?;
        Ok(signature.to_bytes().to_vec())
    }
}

struct EdDsa(ed25519_dalek::SigningKey);

#[async_trait]
impl Signer for EdDsa {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.0.try_sign(message).map_err(|cause| SignError(format!("EdDSA failed: {cause}")))?;
        Ok(signature.to_bytes().to_vec())
    }
}

fn mac<M: hmac::digest::KeyInit>(secret: &Secret<Vec<u8>>) -> M {
    #[expect(clippy::expect_used, reason = "RFC 2104: HMAC takes keys of any length")]
    M::new_from_slice(secret.expose()).expect("a key of any length")
}

macro_rules! hmac_signer {
    ($name:ident, $hash:ty) => {
        struct $name(Hmac<$hash>);

        #[async_trait]
        impl Signer for $name {
            fn algorithm(&self) -> Algorithm {
                Algorithm::$name
            }

            async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
                let mut mac = self.0.clone();
                mac.update(message);
                Ok(mac.finalize().into_bytes().to_vec())
            }
        }
    };
}

hmac_signer!(Hs256, Sha256);
hmac_signer!(Hs384, Sha384);
hmac_signer!(Hs512, Sha512);
