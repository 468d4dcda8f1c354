//! Listening sockets: TCP and Unix, a bound on connections, a clean end.

mod connection;
mod tls;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::Body;
use http::Request;
use keyreeve::config::Bind;
use keyreeve::http::{Peer, Site};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use tls::Shown;
pub(crate) use tls::Tls;

/// After a failed `accept` (out of file descriptors, mostly) this long passes before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers; a reload puts another one in its place.
pub(crate) type Answerer = Arc<ArcSwap<Site>>;

/// A bound socket that does not accept yet.
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file when it goes.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A listener that accepts. Dropping it closes the socket; its connections go on until [`stop`](Self::stop).
pub(crate) struct Listening {
    bind: Bind,
    name: String,
    answerer: Answerer,
    tls: Arc<ArcSwapOption<Tls>>,
    stop: watch::Sender<bool>,
    open: Arc<Semaphore>,
    connections_max: usize,
    task: tokio::task::JoinHandle<()>,
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{at}`: {cause}")]
pub(crate) struct BindError {
    at: String,
    pub(crate) cause: io::Error,
}

impl Bound {
    /// Binds the socket. A Unix socket's file gets mode 0660; one that nobody listens on any more is replaced.
    pub(crate) async fn new(bind: &Bind) -> Result<Self, BindError> {
        match bind {
            Bind::Tcp(address) => {
                let bound = TcpListener::bind(address).await;
                bound.map(Self::Tcp).map_err(|cause| BindError { at: address.to_string(), cause })
            }
            Bind::Unix(path) => bind_unix(path)
                .await
                .map(|listener| Self::Unix(listener, SocketFile(path.clone())))
                .map_err(|cause| BindError { at: format!("unix:{}", path.display()), cause }),
        }
    }
}

impl Bound {
    /// Lets no packet go further than one hop, so that no router hands on what is answered here.
    pub(crate) fn stay_near(&self) {
        if let Self::Tcp(listener) = self
            && let Err(error) = listener.set_ttl(1)
        {
            // An address of IPv6 has no such option, and a link-local one goes no further anyway.
            tracing::debug!("hops are not limited: {error}");
        }
    }

    /// The address with the port that port 0 became; `None` for a Unix socket.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

impl fmt::Display for Bound {
    /// The URL, with the port that port 0 became.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(error) => write!(f, "http://?: {error}"),
            },
            Self::Unix(_, file) => write!(f, "unix:{}", file.0.display()),
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

impl Listening {
    /// Accepts from now on.
    pub(crate) fn start(
        bind: Bind,
        bound: Bound,
        answerer: Answerer,
        tls: Option<Tls>,
        connections_max: usize,
    ) -> Self {
        let name = bound.to_string();
        let name = if tls.is_some() { name.replacen("http:", "https:", 1) } else { name };
        let tls = Arc::new(ArcSwapOption::from_pointee(tls));
        let open = Arc::new(Semaphore::new(connections_max));
        let (stop, stopped) = watch::channel(false);
        let (answers, speaks) = (Arc::clone(&answerer), Arc::clone(&tls));
        let accepting = Accepting { answerer: answers, tls: speaks, open: Arc::clone(&open), stopped };
        let task = match bound {
            Bound::Tcp(listener) => tokio::spawn(accepting.accept_tcp(listener)),
            Bound::Unix(listener, file) => tokio::spawn(accepting.accept_unix(listener, file)),
        };
        Self { bind, name, answerer, tls, stop, open, connections_max, task }
    }

    /// The address it was asked for.
    pub(crate) const fn bind(&self) -> &Bind {
        &self.bind
    }

    /// Its URL.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Answers by `router` from the next request on.
    pub(crate) fn answer_by(&self, site: Site) {
        self.answerer.store(Arc::new(site));
    }

    /// Speaks TLS so, or none at all, with whoever connects from now on.
    pub(crate) fn speak(&self, tls: Option<Tls>) {
        self.tls.store(tls.map(Arc::new));
    }

    /// Stops accepting, lets every connection finish the request it is at, and returns when all have ended.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
        // Every connection holds a permit until it has ended.
        let all = u32::try_from(self.connections_max).unwrap_or(u32::MAX);
        let _ = self.open.acquire_many(all).await;
    }
}

/// What the accepting task and its connections share.
#[derive(Clone)]
struct Accepting {
    answerer: Answerer,
    tls: Arc<ArcSwapOption<Tls>>,
    open: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Accepting {
    async fn accept_tcp(mut self, listener: TcpListener) {
        loop {
            let Some(permit) = self.room().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = until_true(&mut self.stopped) => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let address = Some(address.ip());
                    // Answers are small and complete: waiting for more to send only costs time.
                    let _ = stream.set_nodelay(true);
                    match self.tls.load_full() {
                        None => self.clone().serve(stream, Who::Unknown, address, permit),
                        Some(tls) => self.clone().shake_hands(tls, stream, address, permit),
                    }
                }
                Err(error) => self.refused(&error).await,
            }
        }
    }

    async fn accept_unix(mut self, listener: UnixListener, file: SocketFile) {
        loop {
            let Some(permit) = self.room().await else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = until_true(&mut self.stopped) => break,
            };
            match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream))) {
                Ok((peer, stream)) => {
                    self.clone().serve(stream, Who::Local(Peer { uid: Some(peer.uid()) }), None, permit)
                }
                Err(error) => self.refused(&error).await,
            }
        }
        drop(file);
    }

    /// A place for one more connection; `None` when it is time to stop.
    async fn room(&mut self) -> Option<OwnedSemaphorePermit> {
        let open = Arc::clone(&self.open);
        tokio::select! {
            permit = open.acquire_owned() => permit.ok(),
            () = until_true(&mut self.stopped) => None,
        }
    }

    async fn refused(&self, error: &io::Error) {
        tracing::warn!("a connection could not be accepted: {error}");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn serve<S>(self, stream: S, who: Who, address: Option<IpAddr>, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tokio::spawn(self.serving(stream, who, address, permit));
    }

    async fn serving<S>(self, stream: S, who: Who, address: Option<IpAddr>, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { answerer, tls, stopped, .. } = self;
        let answer = move |mut request: Request<Body>| {
            // Most peers are nobody yet, which is not worth an allocation.
            match &who {
                Who::Unknown => None,
                Who::Local(peer) => request.extensions_mut().insert(*peer).map(drop),
                Who::Certified(shown) => {
                    request.extensions_mut().insert(shown.certificate(tls.load().as_ref())).map(drop)
                }
            };
            answerer.load().answer_from(request, address)
        };
        connection::serve(stream, answer, stopped).await;
        drop(permit);
    }

    fn shake_hands(mut self, tls: Arc<Tls>, stream: TcpStream, address: Option<IpAddr>, permit: OwnedSemaphorePermit) {
        tokio::spawn(async move {
            let accepted = tokio::select! {
                accepted = tls.accept(stream) => accepted,
                () = until_true(&mut self.stopped) => return,
            };
            match accepted {
                Ok((stream, shown)) => {
                    let who = shown.map_or(Who::Unknown, Who::Certified);
                    self.serving(stream, who, address, permit).await;
                }
                // Anybody can begin one and break it off.
                Err(error) => tracing::debug!("a handshake failed: {error}"),
            }
        });
    }
}

/// What is known of the other end of a connection.
enum Who {
    Unknown,
    /// On this machine.
    Local(Peer),
    /// By its certificate.
    Certified(Shown),
}

async fn until_true(flag: &mut watch::Receiver<bool>) {
    // The sender going away means the same.
    let _ = flag.wait_for(|is_true| *is_true).await;
}

/// Whether binding failed because somebody else has the address.
pub(crate) fn is_taken(error: &BindError) -> bool {
    error.cause.kind() == io::ErrorKind::AddrInUse
}
