//! HTTP to the outside, as the [`Http`] port: the runtime's `fetch`.
//!
//! No redirects, no retries, no cache. A request leaves by one of three doors: to the internet; to the internet with a
//! client certificate (`HttpRequest::via` names its `mtls_certificates` binding); or to another Worker, for a URL of the
//! form `service:NAME/path`, where NAME is a service binding.
//!
//! The runtime does not tell a connection that was never made from one that was lost. So what fails after the request was
//! handed over counts as perhaps received.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{Either, select};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Mono;
use keyreeve::port::{Host, Http, HttpAnswer, HttpError, HttpRequest, Via};
use worker::js_sys::{self, Promise, Uint8Array};
use worker::send::SendFuture;
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::wasm_bindgen_futures::JsFuture;
use worker::{Env, Headers, worker_sys};

use crate::js::{self, Unread};

/// The host in a URL that another Worker gets. Nobody owns it (RFC 2606 2), so that nothing leaks if a binding turns out to
/// lead to the internet.
const SERVICE_HOST: &str = "https://service.invalid";
/// Sent unless the request has its own; some services refuse requests without one.
const USER_AGENT: &str = concat!("keyreeve/", env!("CARGO_PKG_VERSION"));

/// Fails where the runtime behaves as it did before requests could pass its caches by.
///
/// # Errors
/// A sentence that names the setting which says so.
pub fn check_compatibility() -> Result<(), String> {
    let init = web_sys::RequestInit::new();
    init.set_cache(web_sys::RequestCache::NoStore);
    web_sys::Request::new_with_str_and_init("https://nobody.invalid", &init).map(drop).map_err(|_| {
        "the `compatibility_date` of this Worker is before 2024-11-11: then requests cannot pass Cloudflare's caches by\nhint: deploy what `keyreeve build worker` writes, or set a newer one".to_owned()
    })
}

/// An HTTP client.
pub struct Fetch {
    env: Env,
    host: Arc<dyn Host>,
}

impl Fetch {
    /// Makes a client. Bindings are looked up in `env` when they are needed; deadlines are measured by `host`.
    #[must_use]
    pub fn new(env: Env, host: Arc<dyn Host>) -> Self {
        Self { env, host }
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpAnswer, HttpError> {
        let not_sent = |cause: &str| HttpError::NotSent(cause.to_owned());
        let no_answer = |error: JsValue| HttpError::NoAnswer(js::reason(&error));
        let door = Door::of(&self.env, &request).map_err(HttpError::NotSent)?;
        let abort = web_sys::AbortController::new().map_err(|_| not_sent("the runtime has no AbortController"))?;
        let abort = Abort(abort);
        let headers = headers_for(&request).map_err(|_| not_sent("a header has characters that none may carry"))?;
        // What the runtime says about a request that it does not take quotes the URL, which may hold a secret.
        let sent = door
            .send(&request, &headers, &abort)
            .map_err(|_| not_sent("the runtime takes no such URL, or no body with this method"))?;
        let response: web_sys::Response =
            JsFuture::from(sent).await.map_err(no_answer)?.dyn_into().map_err(no_answer)?;
        let answer_bytes_max = request.answer_bytes_max;
        let headers = headers_of(&response);
        let too_large = HttpError::TooLarge(answer_bytes_max);
        // An answer to HEAD has the length of what it leaves out.
        if request.method != Method::HEAD && announced(&headers).is_some_and(|length| length > answer_bytes_max) {
            return Err(too_large);
        }
        let body = match response.body() {
            None => Vec::new(),
            Some(stream) => js::read(&stream, answer_bytes_max).await.map_err(|unread| match unread {
                Unread::TooLarge => too_large,
                Unread::Broken(cause) => HttpError::NoAnswer(cause),
            })?,
        };
        Ok(HttpAnswer { status: response.status(), headers, body: Secret::new(body) })
    }
}

#[async_trait]
impl Http for Fetch {
    async fn send(&self, request: HttpRequest, deadline: Mono) -> Result<HttpAnswer, HttpError> {
        if self.host.now().mono >= deadline {
            return Err(HttpError::NotSent("the deadline was over".into()));
        }
        let answer = Box::pin(SendFuture::new(self.answer(request)));
        match select(answer, self.host.sleep_until(deadline)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(HttpError::NoAnswer("none came before the deadline".into())),
        }
    }
}

/// Ends the request when it is dropped: at the deadline, or when nobody waits any more. After the last byte it does nothing.
struct Abort(web_sys::AbortController);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a request leaves, and the URL it has there.
struct Door {
    /// A service or a client certificate; none for the internet.
    binding: Option<worker_sys::Fetcher>,
    url: String,
}

impl Door {
    fn of(env: &Env, request: &HttpRequest) -> Result<Self, String> {
        let url = request.url.as_str();
        let via = match &request.via {
            Some(Via::Binding(name)) => Some(name.as_str()),
            Some(Via::Files { .. }) => return Err("a Worker has no files with certificates".into()),
            None => None,
        };
        let (binding, url) = match (service(url), via) {
            (Some((name, path)), None) => (Some(name), format!("{SERVICE_HOST}{path}")),
            (Some(_), Some(_)) => return Err("a service takes no client certificate".into()),
            // The runtime finds out only after it has taken the request, and what it says then is no proof of anything.
            (None, _) if !url.starts_with("https://") && !url.starts_with("http://") => {
                return Err("the URL is neither `https` nor `http`".into());
            }
            (None, via) => (via, url.to_owned()),
        };
        let binding = binding.map(|name| js::fetcher(env, name)).transpose()?;
        Ok(Self { binding: binding.map(worker::Fetcher::into_rpc), url })
    }

    /// Hands the request to the runtime. An error means that it refused to take it.
    fn send(&self, request: &HttpRequest, headers: &Headers, abort: &Abort) -> Result<Promise, JsValue> {
        let init = web_sys::RequestInit::new();
        init.set_method(request.method.as_str());
        init.set_headers(headers.as_ref());
        init.set_redirect(web_sys::RequestRedirect::Manual);
        init.set_cache(web_sys::RequestCache::NoStore);
        let body = request.body.expose();
        if !body.is_empty() {
            init.set_body(&Uint8Array::from(body.as_slice()));
        }
        let whole = web_sys::Request::new_with_str_and_init(&self.url, &init)?;
        let init = web_sys::RequestInit::new();
        init.set_signal(Some(&abort.0.signal()));
        match &self.binding {
            Some(binding) => binding.fetch_with_init(&whole, &init),
            None => {
                let scope: web_sys::WorkerGlobalScope = js_sys::global().unchecked_into();
                Ok(scope.fetch_with_request_and_init(&whole, &init))
            }
        }
    }
}

/// The binding and the path of `service:NAME/path`; the path is at least `/`.
fn service(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("service:")?;
    Some(rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "/")))
}

fn headers_for(request: &HttpRequest) -> Result<Headers, JsValue> {
    let headers = Headers::new();
    for (name, value) in &request.headers {
        headers.append(name.as_str(), value.expose())?;
    }
    if !headers.has(header::USER_AGENT.as_str())? {
        headers.set(header::USER_AGENT.as_str(), USER_AGENT)?;
    }
    Ok(headers)
}

fn headers_of(response: &web_sys::Response) -> HeaderMap {
    let entries = Headers(response.headers()).entries();
    let parse = |(name, value): (String, String)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(&value).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in entries.filter_map(parse) {
        headers.append(name, value);
    }
    headers
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::service;

    #[test]
    fn a_service_has_a_name_and_a_path() {
        assert_eq!(service("service:MINT/v1/token?a=b"), Some(("MINT", "/v1/token?a=b")));
        assert_eq!(service("service:MINT"), Some(("MINT", "/")));
        assert_eq!(service("https://a.example/service:MINT"), None);
    }
}
