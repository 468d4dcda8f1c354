//! RS256 by aws-lc: the one signer that needs C code.

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};

use super::key::{self, KeyError};
use super::sign::{SignError, Signer};
use crate::config::Algorithm;

pub(super) struct Rs256(RsaKeyPair);

impl Rs256 {
    pub(super) fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        let pair = RsaKeyPair::from_pkcs8(key::rsa_pkcs8(bytes)?.expose());
        // The library's reasons are words such as `TooSmall` or `InvalidEncoding`, never key material.
        let pair = pair.map_err(|cause| KeyError::Refused { expected: key::RSA_EXPECTED, cause: cause.to_string() })?;
        Ok(Self(pair))
    }
}

#[async_trait]
impl Signer for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::Rs256
    }

    /// PKCS #1 v1.5 draws no nonce; the generator only blinds the computation.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| SignError("RS256 failed inside the library".into()))?;
        Ok(signature)
    }
}
