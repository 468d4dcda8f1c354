//! RSA and the curves of NIST by aws-lc: the C code that a Worker does without. Keys are parsed once.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as aws, EcdsaKeyPair, Ed25519KeyPair, ParsedPublicKey, RsaKeyPair, RsaPublicKeyComponents,
};
use keyreeve_core::jwt::{Algorithm, BadSignature, Curve, Verify};
use keyreeve_core::secret::Secret;

use super::key::{self, KeyError};
use super::sign::{SignError, Signer};

pub(super) struct Rsa {
    algorithm: Algorithm,
    padding: &'static dyn aws::RsaEncoding,
    pair: RsaKeyPair,
}

impl Rsa {
    pub(super) fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        let padding: &'static dyn aws::RsaEncoding = match algorithm {
            Algorithm::Rs256 => &aws::RSA_PKCS1_SHA256,
            Algorithm::Rs384 => &aws::RSA_PKCS1_SHA384,
            Algorithm::Rs512 => &aws::RSA_PKCS1_SHA512,
            Algorithm::Ps256 => &aws::RSA_PSS_SHA256,
            Algorithm::Ps384 => &aws::RSA_PSS_SHA384,
            Algorithm::Ps512 => &aws::RSA_PSS_SHA512,
            other => return Err(KeyError::Platform(other.as_str())),
        };
        let pair = RsaKeyPair::from_pkcs8(key::rsa_pkcs8(bytes, algorithm)?.expose());
        // The library's reasons are words such as `TooSmall` or `InvalidEncoding`, never key material.
        let pair = pair.map_err(|cause| KeyError::Refused { expected: key::RSA_EXPECTED, cause: cause.to_string() })?;
        Ok(Self { algorithm, padding, pair })
    }
}

#[async_trait]
impl Signer for Rsa {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// PKCS #1 v1.5 draws no nonce; the generator only blinds the computation. PSS draws its salt from it.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(self.padding, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| SignError(format!("{} failed inside the library", self.algorithm)))?;
        Ok(signature)
    }
}

/// The numbers of a new key, as [`key::rsa_numbers`] has them.
pub(crate) fn new_rsa_numbers() -> Result<Vec<Secret<Vec<u8>>>, KeyError> {
    let failed = |cause: &str| KeyError::Refused { expected: key::RSA_EXPECTED, cause: cause.to_owned() };
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| failed("the library could not draw one"))?;
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| failed("the library could not write it"))?;
    key::rsa_numbers(der.as_ref()).ok_or_else(|| failed("the library wrote something else"))
}

struct Ec {
    algorithm: Algorithm,
    pair: EcdsaKeyPair,
}

/// A signer that draws a nonce for each signature, three times as fast as one that derives it.
pub(super) fn ec_signer(algorithm: Algorithm, bytes: &[u8]) -> Result<Arc<dyn Signer>, KeyError> {
    let (how, secret, point) = match algorithm {
        Algorithm::Es256 => {
            let key = key::p256(bytes)?;
            let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
            (&aws::ECDSA_P256_SHA256_FIXED_SIGNING, Secret::new(key.to_bytes().to_vec()), point)
        }
        Algorithm::Es384 => {
            let key = key::p384(bytes)?;
            let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
            (&aws::ECDSA_P384_SHA384_FIXED_SIGNING, Secret::new(key.to_bytes().to_vec()), point)
        }
        Algorithm::Es512 => {
            let key = key::p521(bytes)?;
            let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
            (&aws::ECDSA_P521_SHA512_FIXED_SIGNING, Secret::new(key.to_bytes().to_vec()), point)
        }
        other => return Err(KeyError::Platform(other.as_str())),
    };
    let pair = EcdsaKeyPair::from_private_key_and_public_key(how, secret.expose(), &point);
    let pair = pair.map_err(|cause| KeyError::Refused { expected: "an EC private key", cause: cause.to_string() })?;
    Ok(Arc::new(Ec { algorithm, pair }))
}

#[async_trait]
impl Signer for Ec {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        let signature = signature.map_err(|_| SignError(format!("{} failed inside the library", self.algorithm)))?;
        Ok(signature.as_ref().to_vec())
    }
}

struct EdDsa(Ed25519KeyPair);

/// The same bytes as those of pure Rust (RFC 8032), in half the time.
pub(super) fn ed25519_signer(bytes: &[u8]) -> Result<Arc<dyn Signer>, KeyError> {
    let key = key::ed25519(bytes)?;
    let pair = Ed25519KeyPair::from_seed_and_public_key(key.as_bytes(), key.verifying_key().as_bytes());
    let pair = pair.map_err(|cause| KeyError::Refused { expected: "an Ed25519 key", cause: cause.to_string() })?;
    Ok(Arc::new(EdDsa(pair)))
}

#[async_trait]
impl Signer for EdDsa {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

struct Public(ParsedPublicKey);

impl Verify for Public {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.0.verify_sig(message, signature).map_err(|_| BadSignature)
    }
}

/// A verifier by an RSA key; `None` for an algorithm of another kind.
pub(super) fn rsa_verifier(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Option<Result<Arc<dyn Verify>, String>> {
    let how = match algorithm {
        Algorithm::Rs256 => &aws::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &aws::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &aws::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &aws::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &aws::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &aws::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    };
    Some(made(RsaPublicKeyComponents { n, e }.to_parsed_public_key(how)))
}

/// A verifier by a point of a curve, which is checked to be on it.
pub(super) fn ec_verifier(curve: Curve, point: &[u8]) -> Result<Arc<dyn Verify>, String> {
    made(match curve {
        Curve::P256 => ParsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point),
        Curve::P384 => ParsedPublicKey::new(&aws::ECDSA_P384_SHA384_FIXED, point),
        Curve::P521 => ParsedPublicKey::new(&aws::ECDSA_P521_SHA512_FIXED, point),
    })
}

fn made(key: Result<ParsedPublicKey, aws_lc_rs::error::KeyRejected>) -> Result<Arc<dyn Verify>, String> {
    let key = key.map_err(|cause| cause.to_string())?;
    Ok(Arc::new(Public(key)))
}
