//! The answers that need no waiting, which are nearly all of them: a token that this isolate holds.
//!
//! A request and a response cost more on their way between workerd and wasm than all that keyreeve does with them. So the shim
//! (`tools/bindgen/src/shim.js`) asks here first, with the three texts that decide, and gets one text back. Whatever is not
//! answered here is answered by `fetch`, from the beginning.

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt as _;
use keyreeve::http::Answer;
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::{Context, wasm_bindgen, worker_sys};

use crate::front;
use crate::host::{Anchor, within_now};

/// Alone in front, because it is the only one that is always another.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Room for status and headers.
const HEAD_BYTES: usize = 256;

/// The answer to a `GET` of `url` with these headers: the 16 digits of the request's id, and then, much as HTTP/1.1 would write them,
/// the status, a line for each other header, an empty line, the body. `None` where `fetch` has to answer.
#[wasm_bindgen]
pub fn answer_now(
    context: worker_sys::Context,
    url: String,
    authorization: Option<String>,
    if_none_match: Option<String>,
) -> Option<String> {
    let headers = [(header::AUTHORIZATION, authorization), (header::IF_NONE_MATCH, if_none_match)];
    let request = request(&url, headers)?;
    #[cfg(feature = "testing")]
    crate::testing::misbehave_now(&request);
    let (head, ()) = request.into_parts();
    let anchor = Anchor::of_event(&Context::new(context));
    text(within_now(anchor, || front::answer_now(&head))?)
}

/// A `GET` of `url`.
pub(crate) fn request<const N: usize>(url: &str, headers: [(HeaderName, Option<String>); N]) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::try_from(url).ok()?;
    for (name, value) in headers {
        if let Some(value) = value {
            request.headers_mut().insert(name, HeaderValue::try_from(value).ok()?);
        }
    }
    Some(request)
}

fn text(answer: Answer) -> Option<String> {
    let (mut head, body) = answer.into_parts();
    let body = complete(body)?;
    let mut text = String::with_capacity(body.len().saturating_add(HEAD_BYTES));
    text.push_str(head.headers.remove(X_REQUEST_ID)?.to_str().ok()?);
    text.push_str(head.status.as_str());
    for (name, value) in &head.headers {
        text.push('\n');
        text.push_str(name.as_str());
        text.push_str(": ");
        text.push_str(value.to_str().ok()?);
    }
    text.push_str("\n\n");
    text.push_str(std::str::from_utf8(&body).ok()?);
    Some(text)
}

/// The body, if it is one that is there.
pub(crate) fn complete(body: axum::body::Body) -> Option<Bytes> {
    Some(body.collect().now_or_never()?.ok()?.to_bytes())
}
