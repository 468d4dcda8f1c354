//! Claims in, tokens out.

use std::sync::Arc;

use keyreeve_core::json::write_text;
use keyreeve_core::jwt::{Algorithm, TOKEN_BYTES_MAX, base64url};

use crate::crypto::{SignError, Signer};

/// A private key with its id, ready to sign. The headers of its tokens are made once.
#[derive(Clone)]
pub struct SigningKey {
    signer: Arc<dyn Signer>,
    id: Option<Arc<str>>,
    /// Encoded, with the dot.
    ordinary: Arc<str>,
    access: Arc<str>,
}

impl SigningKey {
    /// A key of this id.
    #[must_use]
    pub fn new(signer: Arc<dyn Signer>, id: Option<&str>) -> Self {
        let header = |typ| header(signer.algorithm(), typ, id);
        let (ordinary, access) = (header("JWT").into(), header("at+jwt").into());
        Self { signer, id: id.map(Arc::from), ordinary, access }
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.signer.algorithm()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Signs claims, a JSON object, as a token of `typ` `JWT`.
    ///
    /// # Errors
    /// [`SignError`]: the signer failed, or the token would be larger than [`TOKEN_BYTES_MAX`].
    pub async fn sign(&self, claims: &str) -> Result<String, SignError> {
        self.finish(&self.ordinary, claims).await
    }

    /// Signs claims, a JSON object, as a token of another `typ`, such as `at+jwt` (RFC 9068).
    ///
    /// # Errors
    /// As [`sign`](Self::sign).
    pub async fn sign_as(&self, typ: &str, claims: &str) -> Result<String, SignError> {
        if typ == "at+jwt" {
            return self.finish(&self.access, claims).await;
        }
        self.finish(&header(self.algorithm(), typ, self.id()), claims).await
    }

    async fn finish(&self, header: &str, claims: &str) -> Result<String, SignError> {
        // Room for all of it: 4 characters for 3 bytes, and the longest signature (RSA, 8192 bits).
        let mut token = String::with_capacity(header.len() + claims.len() / 3 * 4 + 1400);
        token.push_str(header);
        base64url::encode_to(&mut token, claims.as_bytes());
        let signature = self.signer.sign(token.as_bytes()).await?;
        token.push('.');
        base64url::encode_to(&mut token, &signature);
        if token.len() > TOKEN_BYTES_MAX {
            let found = token.len();
            return Err(SignError(format!("a token of {found} bytes is larger than the limit of {TOKEN_BYTES_MAX}")));
        }
        Ok(token)
    }
}

fn header(algorithm: Algorithm, typ: &str, id: Option<&str>) -> String {
    let mut json = format!(r#"{{"alg":"{algorithm}","typ":"#);
    write_text(&mut json, typ);
    if let Some(id) = id {
        json.push_str(",\"kid\":");
        write_text(&mut json, id);
    }
    json.push('}');
    let mut encoded = base64url::encode(json.as_bytes());
    encoded.push('.');
    encoded
}
