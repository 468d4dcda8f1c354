//! RS256 by the runtime's WebCrypto: RSA is the one signature that has no good code in Rust.
//!
//! PKCS #1 v1.5 draws no nonce, so these signatures too are the same bytes on every node. ES256 stays in Rust for that
//! reason: WebCrypto's are random, and then no node could repeat a mint.

use std::cell::OnceCell;
use std::sync::Arc;

use async_trait::async_trait;
use keyreeve::config::Algorithm;
use keyreeve::core::secret::Secret;
use keyreeve::crypto::{self, KeyError, SignError, Signer, rsa_pkcs8};
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
    let algorithm = Object::new();
    for (name, value) in [("name", RSA), ("hash", "SHA-256")] {
        Reflect::set(&algorithm, &JsValue::from_str(name), &JsValue::from_str(value)).map_err(refused)?;
    }
    let uses = Array::of1(&JsValue::from_str("sign"));
    let (data, is_extractable) = (Uint8Array::from(pkcs8), false);
    let promise =
        subtle()?.import_key_with_object("pkcs8", &data, &algorithm, is_extractable, &uses).map_err(refused)?;
    Ok(JsFuture::from(promise).await.map_err(refused)?.unchecked_into())
}

fn subtle() -> Result<SubtleCrypto, SignError> {
    let scope: WorkerGlobalScope = js_sys::global().unchecked_into();
    Ok(scope.crypto().map_err(failed)?.subtle())
}

fn failed(error: JsValue) -> SignError {
    SignError(format!("WebCrypto failed to sign: {}", js::reason(&error)))
}
