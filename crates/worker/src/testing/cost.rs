//! What one signature or one seal costs in here, so that a test can compare Rust with the runtime's own WebCrypto.

use ed25519_dalek::Signer as _;
use http::Uri;
use keyreeve::config::{Algorithm, SecretRef};
use keyreeve::core::crypto::Crypto as _;
use keyreeve::core::secret::Secret;
use keyreeve::crypto::{LocalCrypto, signer};
use keyreeve::port::Secrets as _;
use p256::ecdsa::signature::Verifier as _;
use web_sys::{CryptoKey, SubtleCrypto, WorkerGlobalScope};
use worker::js_sys::{self, Array, Object, Reflect, Uint8Array};
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::wasm_bindgen_futures::JsFuture;
use worker::{Env, HttpRequest, Response};

use super::leaves::{Query, said};
use crate::{js, secrets, webcrypto};

const MESSAGE: &[u8] = &[b'm'; 256];
const PLAIN: &[u8] = &[7; 1024];
const DEFAULT_TIMES: u64 = 100;

/// Answers `/testing/cost/WHAT?times=N`: does WHAT so many times and says how often it did.
pub(super) async fn answer(request: &HttpRequest, env: &Env) -> Option<worker::Result<Response>> {
    let what = request.uri().path().strip_prefix("/testing/cost/")?;
    Some(said(run(what, env, request.uri()).await))
}

async fn run(what: &str, env: &Env, uri: &Uri) -> Result<String, String> {
    let times = Query::of(uri).number("times").unwrap_or(DEFAULT_TIMES);
    let bound = secrets::BoundSecrets::new(env.clone());
    let secret = |name: &str| bound.read(&SecretRef::Binding(name.to_owned()));
    match what {
        "nothing" => {}
        "es256-rust" => sign(Algorithm::Es256, &secret("EC")?, times).await?,
        "eddsa-rust" => sign(Algorithm::EdDsa, &secret("ED25519")?, times).await?,
        "hs256-rust" => sign(Algorithm::Hs256, &Secret::new(vec![7; 64]), times).await?,
        "rs256-web" => sign(Algorithm::Rs256, &secret("PKCS8")?, times).await?,
        "es256-web" => es256_by_web(times, 0).await.map_err(|error| js::reason(&error))?,
        "es256-verify-web" => es256_by_web(1, times).await.map_err(|error| js::reason(&error))?,
        "es256-verify-rust" => {
            let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).map_err(|error| error.to_string())?;
            let signature: p256::ecdsa::Signature = key.sign(MESSAGE);
            verify(times, || key.verifying_key().verify(MESSAGE, &signature).is_ok())?;
        }
        "eddsa-verify-rust" => {
            let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
            let signature = key.sign(MESSAGE);
            verify(times, || key.verifying_key().verify_strict(MESSAGE, &signature).is_ok())?;
        }
        "seal-rust" => (0..times).for_each(|_| drop(LocalCrypto.seal(&[7; 32], &[1; 24], b"context", PLAIN))),
        "open-rust" => {
            let sealed = LocalCrypto.seal(&[7; 32], &[1; 24], b"context", PLAIN);
            for _ in 0..times {
                LocalCrypto.open(&[7; 32], &[1; 24], b"context", &sealed).map_err(|_| "it does not open")?;
            }
        }
        _ => return Err("nothing like that is measured".into()),
    }
    Ok(times.to_string())
}

async fn sign(algorithm: Algorithm, key: &Secret<Vec<u8>>, times: u64) -> Result<(), String> {
    let signer = match algorithm {
        Algorithm::Rs256 => webcrypto::signer(algorithm, key),
        _ => signer(algorithm, key),
    };
    let signer = signer.map_err(|error| error.to_string())?;
    for _ in 0..times {
        signer.sign(MESSAGE).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn verify(times: u64, is_good: impl Fn() -> bool) -> Result<(), String> {
    if (0..times).all(|_| is_good()) { Ok(()) } else { Err("a good signature was refused".into()) }
}

/// What keyreeve does without when it signs, because these signatures are random: see [`crate::webcrypto`].
async fn es256_by_web(signed: u64, verified: u64) -> Result<(), JsValue> {
    let scope: WorkerGlobalScope = js_sys::global().unchecked_into();
    let subtle: SubtleCrypto = scope.crypto()?.subtle();
    let algorithm = Object::new();
    for (name, value) in [("name", "ECDSA"), ("namedCurve", "P-256"), ("hash", "SHA-256")] {
        Reflect::set(&algorithm, &JsValue::from_str(name), &JsValue::from_str(value))?;
    }
    let uses = Array::of2(&JsValue::from_str("sign"), &JsValue::from_str("verify"));
    let pair = JsFuture::from(subtle.generate_key_with_object(&algorithm, false, &uses)?).await?;
    let key: CryptoKey = Reflect::get(&pair, &JsValue::from_str("privateKey"))?.unchecked_into();
    let public: CryptoKey = Reflect::get(&pair, &JsValue::from_str("publicKey"))?.unchecked_into();
    let message = Uint8Array::from(MESSAGE);
    let mut signature = JsValue::NULL;
    for _ in 0..signed {
        signature = JsFuture::from(subtle.sign_with_object_and_js_u8_array(&algorithm, &key, &message)?).await?;
    }
    let signature = Uint8Array::new(&signature);
    for _ in 0..verified {
        let verified =
            subtle.verify_with_object_and_js_u8_array_and_js_u8_array(&algorithm, &public, &signature, &message)?;
        if !JsFuture::from(verified).await?.is_truthy() {
            return Err(JsValue::from_str("a good signature was refused"));
        }
    }
    Ok(())
}
