//! The way from an isolate to the Durable Object of a credential, and the words they use between them.
//!
//! ```text
//! GET  https://object.invalid/record?min_ttl=MS&newer_than=N&wait=MS   keyreeve-credential: NAME
//!      200 application/cbor: the stored form of a record              else an error as JSON
//! any  https://object.invalid/v1/...                                  a request of the API, as it came
//! ```
//! Nobody outside reaches an object: only this Worker makes such requests, and both ends are of one deployment.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use keyreeve::config::Config;
use keyreeve::core::crypto::Crypto;
use keyreeve::core::id::CredentialName;
use keyreeve::core::record::{RECORD_BYTES_MAX, Record};
use keyreeve::core::time::Mono;
use keyreeve::error::{Error, ErrorKind};
use keyreeve::http::{Answer, Forward};
use keyreeve::outbound::{Origin, Wish, record_key};
use keyreeve::port::{Host, Key};
use keyreeve::source::Identity;
use serde::{Deserialize, Serialize};
use worker::send::SendFuture;
use worker::{Env, HttpResponse};

use crate::js;

/// The host in the URL of an object. Nobody owns it (RFC 2606 2).
pub(crate) const OBJECT: &str = "https://object.invalid";
/// Which credential an object is asked about.
pub(crate) const CREDENTIAL: HeaderName = HeaderName::from_static("keyreeve-credential");
/// The object gives up this much sooner than the isolate, in milliseconds, so that its reason still arrives.
const WAY_MS: u64 = 250;
/// The largest answer of an object to a request of the API, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// An error as an object says it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Refusal {
    kind: String,
    message: String,
    retry_after_ms: Option<u64>,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let (kind, message) = (error.kind.as_str().to_owned(), error.message.clone());
        Self { kind, message, retry_after_ms: error.retry_after_ms }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let known = ErrorKind::ALL.into_iter().find(|kind| kind.as_str() == refusal.kind);
        let kind = known.unwrap_or(ErrorKind::StoreUnavailable);
        Self { kind, message: refusal.message, retry_after_ms: refusal.retry_after_ms }
    }
}

/// What a `/record` request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) wish: Wish,
    pub(crate) wait_ms: u64,
}

impl Asked {
    fn query(&self) -> String {
        let Wish { min_ttl_ms, newer_than } = self.wish;
        format!("min_ttl={min_ttl_ms}&newer_than={newer_than}&wait={}", self.wait_ms)
    }

    /// Reads the query of a `/record` request; what is missing is 0.
    pub(crate) fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let number = |wanted: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(name, _)| *name == wanted).find_map(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        let wish = Wish { min_ttl_ms: number("min_ttl"), newer_than: number("newer_than") };
        Self { wish, wait_ms: number("wait") }
    }
}

/// The objects of one namespace.
pub(crate) struct Objects {
    pub(crate) env: Env,
    /// The name of the namespace's binding.
    pub(crate) binding: String,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) crypto: Arc<dyn Crypto>,
    pub(crate) config: Arc<Config>,
}

impl Objects {
    /// What the object of a credential is named after.
    pub(crate) fn key(&self, name: &CredentialName) -> Key {
        record_key(self.crypto.as_ref(), name, self.identity(name))
    }

    /// Sends a request to the object named `key`.
    pub(crate) async fn send(&self, key: &str, request: Request<Full<Bytes>>) -> Result<HttpResponse, String> {
        js::binding_with(&self.env, &self.binding, "idFromName", "Durable Object namespace")?;
        let said = |error: worker::Error| js::line(&error.to_string());
        let namespace = self.env.durable_object(&self.binding).map_err(said)?;
        let stub = namespace.id_from_name(key).and_then(|id| id.get_stub()).map_err(said)?;
        let request = worker::Request::try_from(request).map_err(said)?;
        let response = stub.fetch_with_request(request).await.map_err(said)?;
        HttpResponse::try_from(response).map_err(said)
    }

    async fn ask(&self, name: &CredentialName, request: Request<Full<Bytes>>) -> Result<HttpResponse, String> {
        let key = self.key(name);
        let mut request = request;
        let value = HeaderValue::from_str(name.as_str()).map_err(|_| "the name is no header value".to_owned())?;
        request.headers_mut().insert(CREDENTIAL, value);
        self.send(key.as_str(), request).await
    }

    async fn fetch_record(&self, name: &CredentialName, asked: Asked) -> Result<Record, Error> {
        let away = |why: String| {
            tracing::warn!(credential = %name, "the Durable Object did not answer: {why}");
            Error::new(ErrorKind::StoreUnavailable, format!("`{name}`: its Durable Object did not answer")).after(1000)
        };
        let request = Request::get(format!("{OBJECT}/record?{}", asked.query())).body(Full::default());
        let request = request.map_err(|error| away(error.to_string()))?;
        let (head, body) = self.ask(name, request).await.map_err(away)?.into_parts();
        let body = Limited::new(body, RECORD_BYTES_MAX).collect().await.map_err(|error| away(error.to_string()))?;
        let body = body.to_bytes();
        if head.status.is_success() {
            return Record::decode(&body)
                .map_err(|error| Error::new(ErrorKind::RecordRefused, format!("`{name}`: {error}")));
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => Err(refusal.into()),
            Err(_) => Err(away(format!("it answered {}", head.status))),
        }
    }
}

#[async_trait]
impl Origin for Objects {
    async fn record(&self, name: &CredentialName, wish: Wish, deadline: Mono) -> Result<Record, Error> {
        let left_ms = deadline.since(self.host.now().mono);
        let asked = Asked { wish, wait_ms: left_ms.saturating_sub(WAY_MS).max(1) };
        SendFuture::new(self.fetch_record(name, asked)).await
    }

    fn identity(&self, name: &CredentialName) -> Option<Identity> {
        self.config.credentials.get(name).and_then(Identity::of)
    }
}

#[async_trait]
impl Forward for Objects {
    async fn forward(&self, name: &CredentialName, request: Request<Bytes>) -> Result<Answer, String> {
        SendFuture::new(async {
            let (head, body) = request.into_parts();
            let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
            let mut sent = Request::builder().method(head.method).uri(format!("{OBJECT}{path}"));
            if let Some(headers) = sent.headers_mut() {
                *headers = head.headers;
            }
            let sent = sent.body(Full::new(body)).map_err(|error| error.to_string())?;
            let (head, body) = self.ask(name, sent).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
            Ok(Answer::from_parts(head, body.to_bytes().into()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_comes_through_the_query() {
        let asked = Asked { wish: Wish { min_ttl_ms: 60_000, newer_than: 7 }, wait_ms: 1500 };
        let uri: Uri = format!("{OBJECT}/record?{}", asked.query()).parse().unwrap();
        assert_eq!(Asked::of(&uri), asked);
        let nothing = Asked { wish: Wish { min_ttl_ms: 0, newer_than: 0 }, wait_ms: 0 };
        assert_eq!(Asked::of(&Uri::from_static("https://object.invalid/record?wait=x")), nothing);
    }

    #[test]
    fn every_error_comes_through_as_it_was() {
        for kind in ErrorKind::ALL {
            let error = Error::new(kind, "`a` is away").after(7);
            let text = serde_json::to_string(&Refusal::from(&error)).unwrap();
            assert_eq!(Error::from(serde_json::from_str::<Refusal>(&text).unwrap()), error);
        }
    }
}
