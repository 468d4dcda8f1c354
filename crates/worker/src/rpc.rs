//! What other Workers call over a service binding: an object instead of a response, for a little less CPU than a `fetch`.
//!
//! ```js
//! const { token, expires_at } = await env.KEYREEVE.token(env.KEYREEVE_KEY, "push", "5m");
//! ```
//! The same checks, the same answer, the same key as over HTTP: a binding makes nobody a caller.

use std::panic::AssertUnwindSafe;

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt as _;
use keyreeve::core::id::CredentialName;
use worker::js_sys::{self, JSON};
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{self, JsValue};
use worker::wasm_bindgen_futures;
use worker::{Context, Env, worker_sys};

use crate::host::{Anchor, within, within_now};
use crate::{front, now};

/// `GET /v1/credentials/{name}/token`: resolves to the body as an object. `min_ttl` is a duration such as `5m`; without one,
/// any life that is left will do. Rejects with an `Error` whose message is the last part of the problem's type, a colon,
/// and its detail: `not-found: ..`.
///
/// What is held here comes at once, the rest by a promise. (A promise by hand: that of an `async fn` would have to prove that a
/// panic leaves the environment whole.)
#[wasm_bindgen]
pub fn rpc_token(
    env: Env,
    context: worker_sys::Context,
    key: String,
    name: String,
    min_ttl: Option<String>,
) -> Result<JsValue, JsValue> {
    crate::log::install();
    let anchor = Anchor::of_event(&Context::new(context));
    let (head, ()) = request(&key, &name, min_ttl.as_deref())?.into_parts();
    if let Some(answer) = within_now(anchor.clone(), || front::answer_now(&head)) {
        let body = now::complete(answer.into_body()).unwrap_or_default();
        return JSON::parse(&String::from_utf8_lossy(&body));
    }
    let work = async move { within(anchor, token(env, Request::from_parts(head, Body::empty()))).await };
    // What a panic can leave behind is replaced in single steps everywhere.
    Ok(wasm_bindgen_futures::future_to_promise(AssertUnwindSafe(work)).into())
}

fn request(key: &str, name: &str, min_ttl: Option<&str>) -> Result<Request<()>, JsValue> {
    let plain = |text: Option<&str>| text.is_none_or(|text| text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if CredentialName::parse(name).is_err() || !plain(min_ttl) {
        return Err(failure("malformed-request", "`token(key, name, min_ttl)`: that is no name, or no duration"));
    }
    let query = min_ttl.map(|min_ttl| format!("?min_ttl={min_ttl}")).unwrap_or_default();
    let request = now::request(
        &format!("/v1/credentials/{name}/token{query}"),
        [(header::AUTHORIZATION, Some(format!("Bearer {key}")))],
    );
    request.ok_or_else(|| failure("unauthenticated", "`token(key, name, min_ttl)`: that is no key"))
}

async fn token(env: Env, request: Request<Body>) -> Result<JsValue, JsValue> {
    let answer = front::of_site(request, env).await.map_err(|sentence| failure("config-invalid", &sentence))?;
    let is_good = answer.status().is_success();
    let body = answer.into_body().collect().await.map_err(|error| failure("internal-error", &error.to_string()))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    if is_good {
        return JSON::parse(&text);
    }
    let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let member = |name: &str| problem.get(name).and_then(serde_json::Value::as_str).unwrap_or("something went wrong");
    Err(failure(member("type").rsplit(':').next().unwrap_or_default(), member("detail")))
}

fn failure(kind: &str, detail: &str) -> JsValue {
    js_sys::Error::new(&format!("{kind}: {detail}")).into()
}
