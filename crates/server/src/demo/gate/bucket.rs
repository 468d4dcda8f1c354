//! A bucket in this process: as much of S3 as a gate of artifacts uses, and faults at the turn of a switch. It checks no
//! signatures; what it is about is who stops answering when.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use keyreeve::core::crypto::Crypto as _;
use keyreeve::crypto::LocalCrypto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What all objects of the demonstration are in.
pub(super) const NAME: &str = "artifacts";
/// The largest object, in bytes.
const BYTES_MAX: usize = 1024 * 1024;

/// What is wrong with a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It takes requests and says nothing.
    Hangs,
    /// It answers with an error of this status.
    Says(StatusCode),
}

/// A running bucket, on a loopback port. It ends with this value.
pub(super) struct Bucket {
    inner: Arc<Inner>,
    addr: SocketAddr,
    task: JoinHandle<()>,
}

struct Inner {
    fault: watch::Sender<Fault>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    reads: u64,
}

#[derive(Clone)]
struct Object {
    body: Bytes,
    kind: Option<HeaderValue>,
    etag: HeaderValue,
    modified: HeaderValue,
}

impl Bucket {
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let inner = Arc::new(Inner { fault: watch::Sender::default(), state: Mutex::default() });
        let answering = Arc::clone(&inner);
        let answer = move |request: Request<Body>| {
            let inner = Arc::clone(&answering);
            async move { inner.answer(request).await }
        };
        let router = axum::Router::new().fallback(answer);
        let task = tokio::spawn(async move {
            // It ends when it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { inner, addr, task })
    }

    /// Where it is.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Breaks it, or mends it. Requests that hung get an error.
    pub(super) fn set(&self, fault: Fault) {
        self.inner.fault.send_replace(fault);
    }

    /// Puts an object there as somebody else would.
    pub(super) fn put(&self, name: &str, body: &str) {
        let object = Object::new(Bytes::copy_from_slice(body.as_bytes()), None);
        self.inner.state().objects.insert(name.to_owned(), object);
    }

    /// How often objects were asked for since the last time.
    pub(super) fn take_reads(&self) -> u64 {
        std::mem::take(&mut self.inner.state().reads)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Object {
    fn new(body: Bytes, kind: Option<HeaderValue>) -> Self {
        let hash = LocalCrypto.sha256(&[&body]);
        let mut hex = String::new();
        hash.iter().take(16).for_each(|byte| hex.push_str(&format!("{byte:02x}")));
        let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let text = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        Self { body, kind, etag: text(format!("\"{hex}\"")), modified: text(now) }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if matches!(head.method, Method::GET | Method::HEAD) {
            let mut state = self.state();
            state.reads = state.reads.saturating_add(1);
        }
        let mut fault = self.fault.subscribe();
        let now = *fault.borrow();
        match now {
            Fault::None => {}
            Fault::Says(StatusCode::FORBIDDEN) => return refused(StatusCode::FORBIDDEN, "AccessDenied"),
            Fault::Says(status) => return refused(status, "SlowDown"),
            Fault::Hangs => {
                // Whoever asked has given up long since, or has to be told something.
                let _ = fault.wait_for(|fault| *fault != Fault::Hangs).await;
                return refused(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
            }
        }
        let Some(name) = head.uri.path().strip_prefix('/').and_then(|path| path.strip_prefix(NAME)) else {
            return refused(StatusCode::NOT_FOUND, "NoSuchBucket");
        };
        let name = name.trim_start_matches('/');
        match head.method {
            Method::GET | Method::HEAD => self.read(name, &head.headers),
            Method::PUT => match to_bytes(body, BYTES_MAX).await {
                Ok(body) => self.write(name, &head.headers, body),
                Err(_) => refused(StatusCode::BAD_REQUEST, "EntityTooLarge"),
            },
            _ => refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        }
    }

    fn read(&self, name: &str, headers: &HeaderMap) -> Response<Body> {
        let Some(object) = self.state().objects.get(name).cloned() else {
            return refused(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let is_same = headers.get(IF_NONE_MATCH) == Some(&object.etag);
        let mut answer = Response::new(if is_same { Body::empty() } else { Body::from(object.body) });
        if is_same {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let told = [(ETAG, Some(object.etag)), (LAST_MODIFIED, Some(object.modified)), (CONTENT_TYPE, object.kind)];
        for (header, value) in told {
            set(&mut answer, header, value);
        }
        answer
    }

    fn write(&self, name: &str, headers: &HeaderMap, body: Bytes) -> Response<Body> {
        let mut state = self.state();
        if headers.contains_key(IF_NONE_MATCH) && state.objects.contains_key(name) {
            return refused(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let object = Object::new(body, headers.get(CONTENT_TYPE).cloned());
        let mut answer = Response::new(Body::empty());
        set(&mut answer, ETAG, Some(object.etag.clone()));
        state.objects.insert(name.to_owned(), object);
        answer
    }
}

fn set(answer: &mut Response<Body>, header: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        answer.headers_mut().insert(header, value);
    }
}

/// An error as S3 writes it.
fn refused(status: StatusCode, code: &str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    set(&mut answer, CONTENT_TYPE, Some(HeaderValue::from_static("application/xml")));
    answer
}
