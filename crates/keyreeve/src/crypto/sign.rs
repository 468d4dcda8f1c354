//! Signatures, and which of them are the same bytes each time.
//!
//! [`signer`] offers only such: they let any node repeat a mint, and let nodes without a store agree on a token.
//! [`any_signer`] is for tokens that are made once: every algorithm, by the fastest code of this build.

use std::sync::Arc;

use async_trait::async_trait;
use ed25519_dalek::Signer as _;
use hmac::{Hmac, Mac as _};
use keyreeve_core::jwt::Algorithm;
use keyreeve_core::secret::Secret;
use sha2::{Sha256, Sha384, Sha512};

use super::key::{self, KeyError};

/// A signature could not be made. The text holds no key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignError(pub String);

/// One private key, ready to sign. Asynchronous because a platform's own key store may answer later.
#[async_trait]
pub trait Signer: Send + Sync {
    /// The algorithm, as in a JOSE header.
    fn algorithm(&self) -> Algorithm;

    /// Signs `message`, in the form of RFC 7518 section 3. One of [`signer`] gives the same signature for the same message.
    ///
    /// # Errors
    /// [`SignError`] where the library or the key store failed; never for a particular message.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// What makes signers of keys: [`signer`], or what a platform puts in front of it for the keys of its own library.
pub type MakeSigner = fn(Algorithm, &Secret<Vec<u8>>) -> Result<Arc<dyn Signer>, KeyError>;

/// Reads a private key (PEM or JWK; an HMAC secret may be plain bytes) for `algorithm`, to sign the same bytes the same way
/// each time.
///
/// # Errors
/// [`KeyError`] says what was expected and what was found, without any of the key; [`KeyError::Random`] for PS256, PS384 and
/// PS512.
pub fn signer(algorithm: Algorithm, material: &Secret<Vec<u8>>) -> Result<Arc<dyn Signer>, KeyError> {
    let bytes = material.expose();
    let secret = || key::hmac(bytes, algorithm, algorithm.secret_bytes_min());
    Ok(match algorithm {
        Algorithm::Es256 => Arc::new(Es256(key::p256(bytes)?)),
        Algorithm::Es384 => Arc::new(Es384(key::p384(bytes)?)),
        Algorithm::Es512 => Arc::new(Es512(key::p521(bytes)?)),
        Algorithm::EdDsa => Arc::new(EdDsa(key::ed25519(bytes)?)),
        Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => rsa(algorithm, bytes)?,
        Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => return Err(KeyError::Random(algorithm.as_str())),
        Algorithm::Hs256 => Arc::new(Hs256(mac(&secret()?))),
        Algorithm::Hs384 => Arc::new(Hs384(mac(&secret()?))),
        Algorithm::Hs512 => Arc::new(Hs512(mac(&secret()?))),
    })
}

/// Reads a private key as [`signer`] does, for tokens that nobody has to be able to make again.
///
/// # Errors
/// [`KeyError`].
pub fn any_signer(algorithm: Algorithm, material: &Secret<Vec<u8>>) -> Result<Arc<dyn Signer>, KeyError> {
    match algorithm {
        #[cfg(feature = "native")]
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 => super::aws::ec_signer(algorithm, material.expose()),
        #[cfg(feature = "native")]
        Algorithm::EdDsa => super::aws::ed25519_signer(material.expose()),
        Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => rsa(algorithm, material.expose()),
        other => signer(other, material),
    }
}

#[cfg(feature = "native")]
fn rsa(algorithm: Algorithm, bytes: &[u8]) -> Result<Arc<dyn Signer>, KeyError> {
    Ok(Arc::new(super::aws::Rsa::new(algorithm, bytes)?))
}

#[cfg(not(feature = "native"))]
fn rsa(algorithm: Algorithm, _: &[u8]) -> Result<Arc<dyn Signer>, KeyError> {
    Err(KeyError::Platform(algorithm.as_str()))
}

macro_rules! ec_signer {
    ($name:ident, $curve:ident) => {
        struct $name($curve::ecdsa::SigningKey);

        #[async_trait]
        impl Signer for $name {
            fn algorithm(&self) -> Algorithm {
                Algorithm::$name
            }

            /// The nonce is derived from key and message (RFC 6979). `s` is not normalized to its lower half: JOSE does not
            /// ask for it, and the vectors of RFC 6979 then hold.
            async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
                let signature: $curve::ecdsa::Signature = self
                    .0
                    .try_sign(message)
                    .map_err(|cause| SignError(format!("{} failed: {cause}", Algorithm::$name)))?;
                Ok(signature.to_bytes().to_vec())
            }
        }
    };
}

ec_signer!(Es256, p256);
ec_signer!(Es384, p384);
ec_signer!(Es512, p521);

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
