//! What one signature or one seal costs in here, so that a test can compare Rust with the runtime's own WebCrypto.

use http::Uri;
use keyreeve::config::{Algorithm, SecretRef};
use keyreeve::core::crypto::Crypto as _;
use keyreeve::core::secret::Secret;
use keyreeve::crypto::{LocalCrypto, signer};
use keyreeve::port::Secrets as _;
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
        "es256-web" => es256_by_web(times).await.map_err(|error| js::reason(&error))?,
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

/// What keyreeve does without, because these signatures are random: see [`crate::webcrypto`].
async fn es256_by_web(times: u64) -> Result<(), JsValue> {
    let scope: WorkerGlobalScope = js_sys::global().unchecked_into();
    let subtle: SubtleCrypto = scope.crypto()?.subtle();
    let algorithm = Object::new();
    for (name, value) in [("name", "ECDSA"), ("namedCurve", "P-256"), ("hash", "SHA-256")] {
        Reflect::set(&algorithm, &JsValue::from_str(name), &JsValue::from_str(value))?;
    }
    let uses = Array::of2(&JsValue::from_str("sign"), &JsValue::from_str("verify"));
    let pair = JsFuture::from(subtle.generate_key_with_object(&algorithm, false, &uses)?).await?;
    let key: CryptoKey = Reflect::get(&pair, &JsValue::from_str("privateKey"))?.unchecked_into();
    let message = Uint8Array::from(MESSAGE);
    for _ in 0..times {
        JsFuture::from(subtle.sign_with_object_and_js_u8_array(&algorithm, &key, &message)?).await?;
    }
    Ok(())
}
