//! Starting, steering and stopping the fake Apple.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::ledger::Ledger;
use super::rules::{Limits, Scope};
use super::{Key, Score, answer, control};
use crate::clock::PickyClock;
use crate::faults::{Chooser, Plan};
use crate::serve::{Listening, lock};
use crate::tls;

const CONNECTIONS_MAX: usize = 1024;
const CONTROL_CONNECTIONS_MAX: usize = 64;
const STREAMS_MAX: u32 = 1000;
const HEADER_BYTES_MAX: u32 = 16 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stay without its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a silent client is asked whether it is still there, and how long it has to say so.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// The rules and the place of a fake Apple. The default has no keys, so it accepts nobody.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; the default is a free port of 127.0.0.1.
    pub bind: SocketAddr,
    /// Where to listen for `GET /score`, `PUT /faults`, `GET /clock`, `GET /ca.pem` and `GET /livez` over plain HTTP.
    /// For tests and scripts only: there is no authentication, so only loopback addresses are taken. None by default.
    pub control: Option<SocketAddr>,
    /// The registered keys.
    pub keys: Vec<Key>,
    /// Where the last token change is remembered.
    pub scope: Scope,
    /// The least time between two token changes; 20 minutes.
    pub min_interval: Duration,
    /// The greatest age of a token by its `iat`; 60 minutes.
    pub max_age: Duration,
    /// How long a replaced token is still let through; 0, which is one valid token.
    pub overlap: Duration,
    /// How long after a switch the old token counts as a straggler instead of as a second one in use; 0. It changes
    /// the score, never an answer.
    pub handover: Duration,
    /// How far in the future an `iat` may lie; 5 seconds.
    pub max_skew_future: Duration,
    /// The time that all of this is judged by.
    pub clock: PickyClock,
    /// What goes wrong from the start.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            control: None,
            keys: Vec::new(),
            scope: Scope::Team,
            min_interval: Duration::from_secs(20 * 60),
            max_age: Duration::from_secs(60 * 60),
            overlap: Duration::ZERO,
            handover: Duration::ZERO,
            max_skew_future: Duration::from_secs(5),
            clock: PickyClock::real(),
            faults: Faults::default(),
        }
    }
}

/// Which requests go wrong, and how. A spoiled request's token has been judged and counted before.
pub type Faults = Plan<Fault>;

/// What goes wrong with a request. In JSON: `{"kind":"status","status":503}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// No answer comes; the connection stays open.
    Hang,
    /// The connection is closed without an answer, with every other stream on it.
    Drop,
    /// An error of Apple's own making.
    Status {
        /// 400 to 599; 500 and 503 carry Apple's reasons.
        status: u16,
    },
    /// An answer whose body is not JSON.
    Garbage {
        /// 200 to 599.
        status: u16,
    },
}

impl Fault {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Hang => "hang",
            Self::Drop => "drop",
            Self::Status { .. } => "status",
            Self::Garbage { .. } => "garbage",
        }
    }
}

/// Refuses a plan with numbers that cannot be answered with.
pub(crate) fn check(faults: &Faults) -> Result<(), String> {
    faults.check()?;
    match &faults.fault {
        Some(Fault::Status { status }) if !(400..=599).contains(status) => {
            Err(format!("`status` must be between 400 and 599: `{status}`"))
        }
        Some(Fault::Garbage { status }) if !(200..=599).contains(status) => {
            Err(format!("`status` must be between 200 and 599: `{status}`"))
        }
        _ => Ok(()),
    }
}

/// What every connection sees.
pub(crate) struct Shared {
    pub(crate) keys: Vec<Key>,
    pub(crate) clock: PickyClock,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) ca_pem: String,
    acceptor: TlsAcceptor,
}

/// A running fake Apple; dropping it ends it.
pub struct Apns {
    apple: Listening,
    control: Option<Listening>,
    shared: Arc<Shared>,
}

/// Starts a fake Apple with a new certificate authority.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use keyreeve_picky::apns;
///
/// let apple = apns::start(apns::Config::default()).await?;
/// assert!(apple.url().starts_with("https://127.0.0.1:"));
/// assert_eq!(apple.score().requests, 0);
/// apple.shutdown().await;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
///
/// # Errors
/// When an address cannot be bound, the control address is not loopback, or the faults make no sense.
pub async fn start(config: Config) -> io::Result<Apns> {
    check(&config.faults).map_err(io::Error::other)?;
    if let Some(control) = config.control.filter(|control| !control.ip().is_loopback()) {
        let error = format!("the control address must be loopback: `{control}`");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let tls::Identity { acceptor, ca_pem } = tls::identity()?;
    let limits = Limits::new(&config);
    let ledger = Arc::new(Mutex::new(Ledger::new(limits, config.scope, config.faults)));
    let shared = Arc::new(Shared { keys: config.keys, clock: config.clock, ledger, ca_pem, acceptor });

    let for_control = Arc::clone(&shared);
    let control = match config.control {
        None => None,
        Some(addr) => Some(
            Listening::start(addr, CONTROL_CONNECTIONS_MAX, move |stream, _| {
                control::serve(Arc::clone(&for_control), stream)
            })
            .await?,
        ),
    };
    let for_apple = Arc::clone(&shared);
    let apple = Listening::start(config.bind, CONNECTIONS_MAX, move |stream, number| {
        connection(Arc::clone(&for_apple), stream, number)
    })
    .await?;
    Ok(Apns { apple, control, shared })
}

impl Apns {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.apple.addr()
    }

    /// The base URL, `https://127.0.0.1:PORT`. The certificate is also good for `localhost` and `::1`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.addr())
    }

    /// Where the control listener is, if there is one.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control.as_ref().map(Listening::addr)
    }

    /// The certificate authority that clients have to trust, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.shared.ca_pem
    }

    /// The time it judges by.
    #[must_use]
    pub fn clock(&self) -> &PickyClock {
        &self.shared.clock
    }

    /// The score so far.
    #[must_use]
    pub fn score(&self) -> Score {
        self.shared.score()
    }

    /// Replaces the faults, with a new budget and a new random sequence.
    ///
    /// # Errors
    /// A sentence about numbers that make no sense; the faults then stay as they were.
    pub fn set_faults(&self, faults: Faults) -> Result<(), String> {
        self.shared.set_faults(faults)
    }

    /// Stops listening and cuts every connection.
    pub async fn shutdown(self) {
        self.apple.shutdown().await;
        if let Some(control) = self.control {
            control.shutdown().await;
        }
    }
}

impl Shared {
    pub(crate) fn score(&self) -> Score {
        lock(&self.ledger).score(self.clock.now_ms())
    }

    pub(crate) fn set_faults(&self, faults: Faults) -> Result<(), String> {
        check(&faults)?;
        lock(&self.ledger).faults = Chooser::new(faults);
        Ok(())
    }
}

/// Forgets a connection's token when the connection ends, however it ends.
struct Connected<'a> {
    ledger: &'a Arc<Mutex<Ledger>>,
    number: u64,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        lock(self.ledger).disconnected(self.number);
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, number: u64) {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, shared.acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = handshake else { return };
    // rustls refuses a client that offers other protocols; one that offers none ends here. Apple's is HTTP/2 only.
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return;
    }
    lock(&shared.ledger).connected(number);
    let _connected = Connected { ledger: &shared.ledger, number };
    let close = Arc::new(Notify::new());
    let begun = Arc::new(Notify::new());
    let service = {
        let (shared, close, begun) = (Arc::clone(&shared), Arc::clone(&close), Arc::clone(&begun));
        service_fn(move |request| {
            begun.notify_one();
            answer::handle(Arc::clone(&shared), number, Arc::clone(&close), request)
        })
    };
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let silent = async {
        if tokio::time::timeout(FIRST_REQUEST_TIMEOUT, begun.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = served => {}
        () = close.notified() => {}
        () = silent => {}
    }
}
