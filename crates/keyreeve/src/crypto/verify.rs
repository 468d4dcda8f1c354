//! Keys that check signatures, made once and used many times.
//!
//! HMAC and EdDSA are pure Rust everywhere: it is faster than the C code on tokens. The curves of NIST and RSA are aws-lc's
//! natively; [`pure`] has the curves without it, and RSA is then the platform's ([`VerifyLater`]).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use keyreeve_core::jwt::{Algorithm, BadSignature, Curve, PublicKey, Verify};
use p256::ecdsa::signature::Verifier as _;
use sha2::{Sha256, Sha384, Sha512};

use super::key::KeyError;

/// A key whose library answers later, such as a platform's own.
#[async_trait]
pub trait VerifyLater: Send + Sync {
    /// Whether `signature`, in the form of RFC 7518 section 3, is one of `message`.
    ///
    /// # Errors
    /// A sentence where the library failed: nothing is known about the signature then.
    async fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, String>;
}

/// What computes for a key.
#[derive(Clone)]
pub enum Check {
    /// In this process, at once.
    Now(Arc<dyn Verify>),
    /// By something that answers later.
    Later(Arc<dyn VerifyLater>),
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
        })
    }
}

/// What makes a [`Check`] of a key: [`check`], or what a platform puts in front of it for the keys of its own library.
pub type MakeCheck = fn(&PublicKey, Algorithm) -> Result<Check, KeyError>;

/// Makes a key ready to verify, by the fastest code of this build.
///
/// # Errors
/// [`KeyError`]: the algorithm does not go with the key, its numbers are none of a key, or this build cannot compute with it.
pub fn check(key: &PublicKey, algorithm: Algorithm) -> Result<Check, KeyError> {
    #[cfg(feature = "native")]
    {
        let made = match key {
            PublicKey::Rsa { n, e } => super::aws::rsa_verifier(algorithm, n, e),
            PublicKey::Ec { curve, x, y } if key.goes_with(algorithm) => {
                Some(super::aws::ec_verifier(*curve, &point_of(x, y)))
            }
            _ => None,
        };
        if let Some(made) = made {
            return made.map(Check::Now).map_err(|cause| KeyError::Refused { expected: PUBLIC_EXPECTED, cause });
        }
    }
    pure(key, algorithm)
}

const PUBLIC_EXPECTED: &str = "a public key";

/// Makes a key ready to verify, in pure Rust: everything but RSA.
///
/// # Errors
/// As [`check`]; [`KeyError::Platform`] for RSA.
pub fn pure(key: &PublicKey, algorithm: Algorithm) -> Result<Check, KeyError> {
    if !key.goes_with(algorithm) {
        let found = format!("a key for another algorithm than {algorithm}");
        return Err(KeyError::Wrong { expected: PUBLIC_EXPECTED, found });
    }
    let refused = |cause: &str| KeyError::Refused { expected: PUBLIC_EXPECTED, cause: cause.to_owned() };
    let off_curve = || refused("the point is not on the curve");
    let verify: Arc<dyn Verify> = match key {
        PublicKey::Rsa { .. } => return Err(KeyError::Platform(algorithm.as_str())),
        PublicKey::Ec { curve: Curve::P256, x, y } => {
            Arc::new(P256(p256::ecdsa::VerifyingKey::from_sec1_bytes(&point_of(x, y)).map_err(|_| off_curve())?))
        }
        PublicKey::Ec { curve: Curve::P384, x, y } => {
            Arc::new(P384(p384::ecdsa::VerifyingKey::from_sec1_bytes(&point_of(x, y)).map_err(|_| off_curve())?))
        }
        PublicKey::Ec { curve: Curve::P521, x, y } => {
            Arc::new(P521(p521::ecdsa::VerifyingKey::from_sec1_bytes(&point_of(x, y)).map_err(|_| off_curve())?))
        }
        PublicKey::Ed25519(x) => {
            let key = ed25519_dalek::VerifyingKey::from_bytes(x).map_err(|_| off_curve())?;
            if key.is_weak() {
                return Err(refused("a point of small order, whose signatures fit many messages"));
            }
            Arc::new(Ed25519(key))
        }
        PublicKey::Secret(secret) => {
            let (found, limit) = (secret.expose().len(), algorithm.secret_bytes_min());
            if found < limit {
                return Err(KeyError::Short { algorithm: algorithm.as_str(), found: found * 8, limit: limit * 8 });
            }
            match algorithm {
                Algorithm::Hs384 => Arc::new(Secret::<Hmac<Sha384>>::new(secret.expose())),
                Algorithm::Hs512 => Arc::new(Secret::<Hmac<Sha512>>::new(secret.expose())),
                _ => Arc::new(Secret::<Hmac<Sha256>>::new(secret.expose())),
            }
        }
    };
    Ok(Check::Now(verify))
}

/// SEC 1 2.3.3: an uncompressed point.
fn point_of(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[4], x, y].concat()
}

struct Ed25519(ed25519_dalek::VerifyingKey);

impl Verify for Ed25519 {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| BadSignature)?;
        self.0.verify_strict(message, &signature).map_err(|_| BadSignature)
    }
}

macro_rules! ec_verifier {
    ($name:ident, $curve:ident) => {
        struct $name($curve::ecdsa::VerifyingKey);

        impl Verify for $name {
            fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
                // Refuses r = 0, s = 0 and numbers beyond the order.
                let signature = $curve::ecdsa::Signature::from_slice(signature).map_err(|_| BadSignature)?;
                self.0.verify(message, &signature).map_err(|_| BadSignature)
            }
        }
    };
}

ec_verifier!(P256, p256);
ec_verifier!(P384, p384);
ec_verifier!(P521, p521);

/// An HMAC that has taken its key already.
struct Secret<M>(M);

impl<M: Mac + KeyInit> Secret<M> {
    fn new(secret: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "RFC 2104: HMAC takes keys of any length")]
        Self(<M as KeyInit>::new_from_slice(secret).expect("a key of any length"))
    }
}

impl<M: Mac + Clone + Send + Sync> Verify for Secret<M> {
    /// Constant time in both MACs; the whole length must be there.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.verify_slice(signature).map_err(|_| BadSignature)
    }
}
