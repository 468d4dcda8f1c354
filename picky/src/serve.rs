//! Accepting connections within limits, and answering small HTTP/1.1 requests.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long a client may take for its headers, and then again for its body.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one hung request is kept before its connection is closed.
pub(crate) const HANG_MAX: Duration = Duration::from_secs(300);

/// A listener and its connections; dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Listening {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Binds `addr` and hands each connection, with its number, to `serve`. At most `connections_max` are open at
    /// once; further ones wait in the system's queue.
    pub(crate) async fn start<S, F>(addr: SocketAddr, connections_max: usize, serve: S) -> io::Result<Self>
    where
        S: Fn(TcpStream, u64) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, connections_max, serve, stopped));
        Ok(Self { addr, stop, task })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting and cuts every connection.
    pub(crate) async fn shutdown(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

async fn accept<S, F>(listener: TcpListener, connections_max: usize, serve: S, mut stopped: watch::Receiver<bool>)
where
    S: Fn(TcpStream, u64) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut number = 0_u64;
    loop {
        tokio::select! {
            // The sender being gone means the same as a stop.
            _ = stopped.changed() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < connections_max => match accepted {
                Ok((stream, _)) => {
                    number = number.saturating_add(1);
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream, number));
                }
                // Out of file handles, most likely: give connections a moment to end instead of spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// What a small HTTP service does with a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Response<Full<Bytes>>),
    /// An answer whose body never ends.
    Stall(Response<Full<Bytes>>),
    Close,
}

/// Serves HTTP/1.1 on one connection until either side ends it.
pub(crate) async fn http1<T, S, F>(stream: T, handle: S)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Reply>,
{
    let service = service_fn(move |request| {
        let reply = handle(request);
        async move {
            match reply.await {
                Reply::Answer(answer) => Ok(answer.map(|whole| Sent { whole, is_stalled: false })),
                Reply::Stall(answer) => Ok(answer.map(|whole| Sent { whole, is_stalled: true })),
                // hyper closes an HTTP/1.1 connection whose service fails, without a byte of an answer.
                Reply::Close => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            }
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A body that ends, or does not.
struct Sent {
    whole: Full<Bytes>,
    is_stalled: bool,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        match Pin::new(&mut self.whole).poll_frame(context) {
            // Nobody is woken: the caller goes when it has had enough.
            Poll::Ready(None) if self.is_stalled => Poll::Pending,
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.is_stalled && self.whole.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        if self.is_stalled { hyper::body::SizeHint::new() } else { self.whole.size_hint() }
    }
}

/// Why a request's body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge,
    Broken,
}

/// Reads a body of at most `bytes_max` bytes within [`READ_TIMEOUT`].
pub(crate) async fn body(incoming: Incoming, bytes_max: usize) -> Result<Bytes, BodyError> {
    let collected = tokio::time::timeout(READ_TIMEOUT, Limited::new(incoming, bytes_max).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) | Err(_) => Err(BodyError::Broken),
    }
}

/// An answer with a type and a body.
pub(crate) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// A JSON answer; 500 with an empty object when the value cannot be written.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => answer(status, "application/json", body),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", "{}"),
    }
}

/// Reads a JSON object. serde would also take a list of the fields' values for a struct; nobody means that.
pub(crate) fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err("not a JSON object".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// A refusal with one sentence.
pub(crate) fn refusal(status: StatusCode, error: &str) -> Reply {
    Reply::Answer(json(status, &serde_json::json!({ "error": error })))
}

/// Never answers; gives up after [`HANG_MAX`].
pub(crate) async fn hang() {
    tokio::time::sleep(HANG_MAX).await;
}

/// Locks a mutex whose holders never leave it half changed, so poison says nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
