//! RS256 by the runtime's WebCrypto: RSA is the one signature that has no good code in Rust. And the checking of
//! signatures by RSA and the curves of NIST, which takes a tenth of the time there.
//!
//! PKCS #1 v1.5 draws no nonce, so these signatures too are the same bytes on every node. ES256 stays in Rust for that
//! reason: WebCrypto's are random, and then no node could repeat a mint.

use std::cell::OnceCell;
use std::sync::Arc;

use async_trait::async_trait;
use keyreeve::config::Algorithm;
use keyreeve::core::jwt::{Family, PublicKey, base64url};
use keyreeve::core::secret::Secret;
use keyreeve::crypto::{self, Check, KeyError, SignError, Signer, VerifyLater, rsa_pkcs8};
use web_sys::{CryptoKey, SubtleCrypto, WorkerGlobalScope};
use worker::js_sys::{self, Array, Object, Reflect, Uint8Array};
use worker::send::{SendFuture, SendWrapper};
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::wasm_bindgen_futures::JsFuture;

use crate::js;

/// WebCrypto's name of what JOSE calls RS256.
const RSA: &str = "RSASSA-PKCS1-v1_5";

/// Reads a private key for `algorithm`, as [`keyreeve::crypto::signer`] does; RSA keys go to the runtime.
///
/// # Errors
/// [`KeyError`]. What only the runtime can see, such as RSA numbers that do not belong together, fails at the first signature.
pub fn signer(algorithm: Algorithm, key: &Secret<Vec<u8>>) -> Result<Arc<dyn Signer>, KeyError> {
    match algorithm {
        Algorithm::Rs256 => {
            Ok(Arc::new(Rs256 { pkcs8: rsa_pkcs8(key.expose(), algorithm)?, key: SendWrapper::new(OnceCell::new()) }))
        }
        other => crypto::signer(other, key),
    }
}

struct Rs256 {
    pkcs8: Secret<Vec<u8>>,
    /// Imported once an isolate. A key is no connection: every request may use it.
    key: SendWrapper<OnceCell<CryptoKey>>,
}

impl Rs256 {
    /// Two requests may import it at the same time; either result will do.
    async fn key(&self) -> Result<&CryptoKey, SignError> {
        match self.key.get() {
            Some(key) => Ok(key),
            None => {
                let key = import(self.pkcs8.expose()).await?;
                Ok(self.key.get_or_init(|| key))
            }
        }
    }
}

#[async_trait]
impl Signer for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::Rs256
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        SendFuture::new(async {
            let key = self.key().await?;
            let message = Uint8Array::from(message);
            let promise = subtle()?.sign_with_str_and_js_u8_array(RSA, key, &message).map_err(failed)?;
            let signature = JsFuture::from(promise).await.map_err(failed)?;
            Ok(Uint8Array::new(&signature).to_vec())
        })
        .await
    }
}

async fn import(pkcs8: &[u8]) -> Result<CryptoKey, SignError> {
    let refused = |error: JsValue| SignError(format!("WebCrypto refused the RSA key: {}", js::reason(&error)));
    let algorithm = object(&[("name", RSA), ("hash", "SHA-256")]).map_err(refused)?;
    let uses = Array::of1(&JsValue::from_str("sign"));
    let (data, is_extractable) = (Uint8Array::from(pkcs8), false);
    let promise =
        subtle()?.import_key_with_object("pkcs8", &data, &algorithm, is_extractable, &uses).map_err(refused)?;
    Ok(JsFuture::from(promise).await.map_err(refused)?.unchecked_into())
}

fn subtle() -> Result<SubtleCrypto, SignError> {
    scope_subtle().map_err(failed)
}

fn failed(error: JsValue) -> SignError {
    SignError(format!("WebCrypto failed to sign: {}", js::reason(&error)))
}

/// Makes a key ready to verify, as [`keyreeve::crypto::check`] does; keys of RSA and of the curves of NIST go to the runtime.
///
/// # Errors
/// [`KeyError`]. What only the runtime can see, such as a point that is not on its curve, fails at the first token.
pub fn check(key: &PublicKey, algorithm: Algorithm) -> Result<Check, KeyError> {
    let members = match key {
        _ if !key.goes_with(algorithm) => return crypto::check(key, algorithm),
        PublicKey::Rsa { n, e } => vec![("kty", "RSA".to_owned()), ("n", text(n)), ("e", text(e))],
        PublicKey::Ec { curve, x, y } => {
            vec![("kty", "EC".to_owned()), ("crv", curve.as_str().to_owned()), ("x", text(x)), ("y", text(y))]
        }
        PublicKey::Ed25519(_) | PublicKey::Secret(_) => return crypto::check(key, algorithm),
    };
    Ok(Check::Later(Arc::new(Public { members, algorithm, key: SendWrapper::new(OnceCell::new()) })))
}

fn text(bytes: &[u8]) -> String {
    base64url::encode(bytes)
}

struct Public {
    /// The members of its JWK.
    members: Vec<(&'static str, String)>,
    algorithm: Algorithm,
    /// Imported once an isolate.
    key: SendWrapper<OnceCell<CryptoKey>>,
}

impl Public {
    async fn key(&self) -> Result<&CryptoKey, JsValue> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let members: Vec<_> = self.members.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let uses = Array::of1(&JsValue::from_str("verify"));
        let subtle = scope_subtle()?;
        let promise = subtle.import_key_with_object(
            "jwk",
            &object(&members)?,
            &object(&self.algorithm_members())?,
            false,
            &uses,
        )?;
        let key: CryptoKey = JsFuture::from(promise).await?.unchecked_into();
        Ok(self.key.get_or_init(|| key))
    }

    /// What WebCrypto calls the algorithm (W3C Web Cryptography, 20 to 24), for importing and for verifying.
    fn algorithm_members(&self) -> Vec<(&'static str, &str)> {
        let hash = match self.algorithm.as_str().get(2..) {
            Some("256") => "SHA-256",
            Some("384") => "SHA-384",
            _ => "SHA-512",
        };
        match self.algorithm.family() {
            Family::Ec(curve) => vec![("name", "ECDSA"), ("namedCurve", curve.as_str()), ("hash", hash)],
            _ if self.algorithm.as_str().starts_with('P') => vec![("name", "RSA-PSS"), ("hash", hash)],
            _ => vec![("name", RSA), ("hash", hash)],
        }
    }

    async fn ask(&self, message: &[u8], signature: &[u8]) -> Result<bool, JsValue> {
        let key = self.key().await?;
        let algorithm = object(&self.algorithm_members())?;
        // RFC 7518 3.5: the salt is as long as the hash.
        let salt_bytes = match self.algorithm {
            Algorithm::Ps256 => 32,
            Algorithm::Ps384 => 48,
            _ => 64,
        };
        Reflect::set(&algorithm, &JsValue::from_str("saltLength"), &JsValue::from_f64(f64::from(salt_bytes)))?;
        let (signature, message) = (Uint8Array::from(signature), Uint8Array::from(message));
        let promise = scope_subtle()?
            .verify_with_object_and_js_u8_array_and_js_u8_array(&algorithm, key, &signature, &message)?;
        Ok(JsFuture::from(promise).await?.is_truthy())
    }
}

#[async_trait]
impl VerifyLater for Public {
    async fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, String> {
        let asked = SendFuture::new(self.ask(message, signature));
        asked.await.map_err(|error| format!("WebCrypto cannot verify {}: {}", self.algorithm, js::reason(&error)))
    }
}

fn object(members: &[(&str, &str)]) -> Result<Object, JsValue> {
    let object = Object::new();
    for (name, value) in members {
        Reflect::set(&object, &JsValue::from_str(name), &JsValue::from_str(value))?;
    }
    Ok(object)
}

fn scope_subtle() -> Result<SubtleCrypto, JsValue> {
    let scope: WorkerGlobalScope = js_sys::global().unchecked_into();
    Ok(scope.crypto()?.subtle())
}
