//! One connection: HTTP/1.1 or HTTP/2, limits on what arrives, and patience with a silent peer at next to no cost per
//! request.
//!
//! hyper arms its header timer for every request. A real timer each time costs more than finding the answer, so ours only
//! notes the deadline. A task per connection sleeps until the deadline it finds, looks whether it has moved, and sleeps
//! again: for a busy connection that is once per timeout.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use futures::FutureExt as _;
use futures::task::AtomicWaker;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::rt::{Sleep, Timer};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a connection may take over the head of a request, and stay idle between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest request head, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// The same for HTTP/1.1, where the buffer also holds pieces of the body; hyper takes no less than 8 KiB.
const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// The most HTTP/2 requests at once on one connection.
const STREAMS_MAX: u32 = 250;
/// How often a silent HTTP/2 peer is asked whether it is there, and how long it has to say so.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Answers what comes over `stream` until its peer has done, is silent for too long, or `stopped` says that the request
/// under way is the last.
pub(super) async fn serve<S, F>(
    stream: S,
    answer: impl Fn(Request<Body>) -> F + Send + 'static,
    stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let patience = Patience::new(HEADER_TIMEOUT);
    // Ends with this future.
    let mut watching = JoinSet::new();
    watching.spawn(Arc::clone(&patience).watch(HEADER_TIMEOUT, stopped));
    let met = Arc::clone(&patience);
    let service = service_fn(move |request: Request<Incoming>| {
        met.met();
        // Most requests have no body, which is not worth an allocation.
        let request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        answer(request).map(Ok::<_, Infallible>)
    });
    let builder = builder(HeadTimer(Arc::clone(&patience)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut is_finishing = false;
    poll_fn(|context| {
        match patience.turn(context, is_finishing) {
            Turn::Go => {}
            Turn::Finish => {
                is_finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            Turn::Drop => return Poll::Ready(()),
        }
        // A peer that ends in the middle is no event.
        connection.as_mut().poll(context).map(drop)
    })
    .await;
}

fn builder(head_timer: HeadTimer) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(head_timer)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// No request is waited for.
const NEVER: u64 = u64::MAX;

/// What a connection and the task that watches it share.
struct Patience {
    start: Instant,
    /// Milliseconds after `start` at which patience with the peer ends; [`NEVER`] while it has a request under way.
    until_ms: AtomicU64,
    is_ending: AtomicBool,
    waker: AtomicWaker,
}

/// What a connection has to do.
enum Turn {
    /// Go on.
    Go,
    /// Finish the request under way, take no other.
    Finish,
    /// Drop everything: the peer has been silent for too long.
    Drop,
}

impl Patience {
    /// The first request may be awaited for this long.
    fn new(first: Duration) -> Arc<Self> {
        let patience = Self {
            start: Instant::now(),
            until_ms: AtomicU64::new(0),
            is_ending: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        };
        patience.wait_until(patience.start + first);
        Arc::new(patience)
    }

    fn wait_until(&self, deadline: Instant) {
        let ms = deadline.saturating_duration_since(self.start).as_millis();
        self.until_ms.store(u64::try_from(ms).unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// A request has come.
    fn met(&self) {
        self.until_ms.store(NEVER, Ordering::Relaxed);
    }

    fn left(&self) -> Option<Duration> {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        let until = Duration::from_millis(until_ms);
        (until_ms != NEVER).then(|| until.saturating_sub(self.start.elapsed()))
    }

    /// Asked by the connection's task each time it runs; wakes it when the answer changes.
    fn turn(&self, context: &Context<'_>, is_finishing: bool) -> Turn {
        self.waker.register(context.waker());
        if !self.is_ending.load(Ordering::Acquire) {
            return Turn::Go;
        }
        match self.left() {
            Some(Duration::ZERO) => Turn::Drop,
            _ if is_finishing => Turn::Go,
            _ => Turn::Finish,
        }
    }

    /// Watches over the connection: tells it when `stopped` says so, and when its peer has been silent for too long.
    async fn watch(self: Arc<Self>, timeout: Duration, mut stopped: watch::Receiver<bool>) {
        let mut left = self.left();
        while left != Some(Duration::ZERO) {
            let is_told = self.is_ending.load(Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(left.unwrap_or(timeout)) => {}
                () = super::until_true(&mut stopped), if !is_told => self.end(),
            }
            left = self.left();
        }
        self.end();
    }

    fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// [`Patience`] as the timer that hyper arms before each request head and drops after it.
#[derive(Clone)]
struct HeadTimer(Arc<Patience>);

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.0.wait_until(deadline.into());
        Box::pin(Waiting(Arc::clone(&self.0)))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// Never over by itself: the connection is dropped instead.
struct Waiting(Arc<Patience>);

impl Sleep for Waiting {}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.met();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

    struct Peer {
        stream: DuplexStream,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
    }

    /// A peer of a connection whose answers take `answer_after`.
    fn peer(answer_after: Duration) -> Peer {
        let (stream, ours) = duplex(64 * 1024);
        let (stop, stopped) = watch::channel(false);
        let answer = move |_| async move {
            tokio::time::sleep(answer_after).await;
            Response::new(Body::from("yes"))
        };
        Peer { stream, stop, task: tokio::spawn(serve(ours, answer, stopped)) }
    }

    impl Peer {
        async fn ask(&mut self) {
            self.stream.write_all(REQUEST).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"yes") {
                assert!(self.stream.read_buf(&mut answer).await.unwrap() > 0, "the connection was closed");
            }
        }

        /// How long it takes until the connection is dropped.
        async fn dropped_after(mut self) -> Duration {
            let begun = Instant::now();
            let mut rest = Vec::new();
            self.stream.read_to_end(&mut rest).await.unwrap();
            self.task.await.unwrap();
            begun.elapsed()
        }
    }

    fn is_about(found: Duration, expected: Duration) -> bool {
        found >= expected.saturating_sub(Duration::from_millis(5)) && found <= expected + Duration::from_millis(5)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_or_half_a_head_is_dropped() {
        assert!(is_about(peer(Duration::ZERO).dropped_after().await, HEADER_TIMEOUT));
        let mut slow = peer(Duration::ZERO);
        slow.stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        tokio::time::sleep(HEADER_TIMEOUT / 2).await;
        slow.stream.write_all(b"st: ").await.unwrap();
        assert!(is_about(slow.dropped_after().await, HEADER_TIMEOUT / 2), "a byte now and then buys no time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_lives_on_and_ends_when_it_has_been_idle() {
        let mut busy = peer(Duration::ZERO);
        for _ in 0..10 {
            busy.ask().await;
            tokio::time::sleep(HEADER_TIMEOUT * 9 / 10).await;
        }
        assert!(is_about(busy.dropped_after().await, HEADER_TIMEOUT / 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_waited_for_and_does_not_count_as_silence() {
        let mut slow = peer(HEADER_TIMEOUT * 5);
        slow.ask().await;
        assert!(is_about(slow.dropped_after().await, HEADER_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_the_request_under_way_finish_and_no_other_begin() {
        let mut asking = peer(HEADER_TIMEOUT * 2);
        let stop = asking.stop.clone();
        let later = tokio::spawn(async move {
            tokio::time::sleep(HEADER_TIMEOUT).await;
            stop.send(true).unwrap();
        });
        asking.ask().await;
        assert_eq!(asking.dropped_after().await, Duration::ZERO);
        later.await.unwrap();
        let idle = peer(Duration::ZERO);
        idle.stop.send(true).unwrap();
        assert!(idle.dropped_after().await <= HEADER_TIMEOUT);
    }
}
