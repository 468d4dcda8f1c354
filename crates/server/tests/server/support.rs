//! Orders in real time, sockets that say what they are told, and patience with a limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyreeve::core::lifecycle::Order;
use keyreeve::port::Host as _;
use keyreeve::source::{Fields, Minting};
use keyreeve_server::host::OsHost;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

pub(crate) fn host() -> Arc<OsHost> {
    Arc::new(OsHost::new())
}

/// An order for an hour, to be answered within `answer_ms`.
pub(crate) fn order(host: &OsHost, answer_ms: u64) -> Order {
    let now = host.now();
    Order {
        generation: 7,
        epoch: 9,
        issued_at: now.wall,
        expires_at: now.wall.plus(3_600_000),
        is_replay: false,
        send_by: now.mono.plus(answer_ms),
        answer_by: now.mono.plus(answer_ms),
    }
}

pub(crate) fn token(minting: &Minting) -> &str {
    match &minting.material.secret {
        Fields::Token(token) => token.expose(),
        Fields::Named(_) => panic!("not a token"),
    }
}

/// Waits for `is_true`, ten seconds at the most.
pub(crate) async fn until(what: &str, is_true: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Answers every connection with the same bytes, counts them, and ends with the test.
pub(crate) struct Parrot {
    pub(crate) addr: SocketAddr,
    heard: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Parrot {
    /// `answer` is given the request's head.
    pub(crate) async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heard = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                reply(stream, &answer).await;
            }
        });
        Self { addr, heard, task }
    }

    pub(crate) fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/mint", self.addr)
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a request's head and writes an answer; a peer that goes away is no failure.
pub(crate) async fn reply(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl Fn(&str) -> Vec<u8>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    drop(stream.write_all(&answer(&String::from_utf8_lossy(&head))).await);
    drop(stream.shutdown().await);
}

/// An answer with this status line, headers and body.
pub(crate) fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}
