//! The traits that touch the world. Each has several engines; none of them decides anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use keyreeve_core::id::WriteId;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Moment, Mono, Timestamp};

/// The longest register key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// The largest page of [`Register::list`].
pub const LIST_MAX: usize = 1000;
/// The keys whose changes [`Register::changes`] tells: others change often, and nobody waits for them.
pub const FOLLOWED: &str = "rl/";

/// A register key: printable ASCII, at most [`KEY_BYTES_MAX`] bytes, made only by this crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Takes a key; `None` where it is empty, too long, or not printable ASCII.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let is_good = !text.is_empty() && text.len() <= KEY_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        is_good.then_some(Self(text))
    }

    /// The key of a record, from the hex digest that names it.
    pub(crate) fn of_record(digest: &str) -> Self {
        Self(format!("cr/{digest}"))
    }

    /// The key of an issuer's key set.
    pub(crate) fn of_issuer(digest: &str) -> Self {
        Self(format!("is/{digest}"))
    }

    /// The key of an issuer's revoked tokens.
    pub(crate) fn of_revoked(digest: &str) -> Self {
        Self(format!("rv/{digest}"))
    }

    /// The key of an access token's record, from the digits of its id.
    pub(crate) fn of_token(id: &str) -> Self {
        Self(format!("tk/{id}"))
    }

    /// The place of an access token in the list of its target. Newer ones come first.
    pub(crate) fn of_place(target: &str, created_at: Timestamp, id: &str) -> Self {
        Self(format!("{}{:016x}{id}", Self::places(target), u64::MAX - created_at.0))
    }

    /// What the places of a target's tokens begin with, from the hex digest of the target.
    pub(crate) fn places(target: &str) -> String {
        format!("tl/{target}/")
    }

    /// The key of the key of token hashes.
    pub(crate) fn of_hash_key() -> Self {
        Self("th/1".to_owned())
    }

    /// The key of whose verdict counts in a family of access tokens.
    pub(crate) fn of_mode(family: &str) -> Self {
        Self(format!("tm/{family}"))
    }

    /// Where the keys of nodes begin.
    pub(crate) const NODES: &'static str = "nr/";

    /// The key of the log of revocations.
    pub(crate) fn of_revocations() -> Self {
        Self(crate::revocation::LOG_KEY.into())
    }

    /// The key of what a node has applied.
    pub(crate) fn of_node(name: &str) -> Option<Self> {
        Self::new(format!("{}{name}", Self::NODES))
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stored value and the write that put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The write id that the next swap has to name.
    pub op: WriteId,
    /// The value.
    pub bytes: Bytes,
}

/// The outcome of a swap that the store answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Made: the store holds the new entry.
    Done,
    /// Not made: the store held something else than was expected.
    Lost,
}

/// No outcome, or a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No answer came: a write may or may not have happened. Read again, then decide.
    #[error("the store did not answer: {0}")]
    Unknown(String),
    /// The store refused, and nothing was written. Fix the cause, or try later.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// What a store can be trusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Of several swaps that expect the same entry, one wins.
    pub is_swap_atomic: bool,
    /// An acknowledged swap survives the crash of the store's machine.
    pub is_durable: bool,
    /// A failover may forget acknowledged swaps.
    pub forgets_on_failover: bool,
    /// Other processes see the same register.
    pub is_shared: bool,
}

/// The one storage primitive: linearizable compare-and-swap per key.
///
/// Reads may be stale where an engine says so; swaps may not. Engines never retry a swap inside themselves: a retry
/// turns one's own success into a loss.
#[async_trait]
pub trait Register: Send + Sync {
    /// What this store can be trusted with.
    fn capabilities(&self) -> Capabilities;

    /// What is stored under `key`.
    ///
    /// # Errors
    /// [`StoreError`]; a store that is away is an error, never an absent entry.
    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Puts `next` under `key` if the entry there was written by `expected` (none: if there is no entry).
    ///
    /// # Errors
    /// [`StoreError::Unknown`] where the swap may or may not have been made; [`StoreError::Refused`] where it was not.
    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError>;

    /// Keys that begin with `prefix` and come after `after`, in order, at most `limit` ([`LIST_MAX`] at the most). May lag.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError>;

    /// Keys under [`FOLLOWED`] soon after somebody has changed them, where the engine can tell; `None` where it cannot.
    ///
    /// A hint that saves waiting, never the truth: it may come late, twice, or not at all, so whoever follows also reads
    /// from time to time. After every gap that the engine knows of, each key there is comes once. Ends never; whoever drops
    /// it is done.
    fn changes(&self) -> Option<BoxStream<'static, Key>> {
        None
    }
}

/// A cache that several copies of this program share. It may forget, lag, or lie: what it holds is sealed, and decides
/// nothing.
#[async_trait]
pub trait Shared: Send + Sync {
    /// The name used in logs and metrics: `cache`, `kv`, `memory`.
    fn kind(&self) -> &'static str;

    /// What is kept under `key`, if anything is.
    ///
    /// # Errors
    /// A sentence; whoever asks goes on without.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, String>;

    /// Keeps `bytes` under `key` for at most `ttl_ms` milliseconds.
    ///
    /// # Errors
    /// A sentence; whoever puts goes on without.
    async fn put(&self, key: &Key, bytes: Bytes, ttl_ms: u64) -> Result<(), String>;

    /// Forgets `key`.
    ///
    /// # Errors
    /// A sentence; the entry may live on for its time.
    async fn delete(&self, key: &Key) -> Result<(), String>;
}

/// The only door to time, chance and tasks.
#[async_trait]
pub trait Host: Send + Sync {
    /// Both clocks, now.
    fn now(&self) -> Moment;

    /// Returns when the monotonic clock has reached `until`.
    async fn sleep_until(&self, until: Mono);

    /// Fills `bytes` from the system's secure random generator.
    fn fill(&self, bytes: &mut [u8]);

    /// Runs `task` on its own: no caller that goes away cancels it.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// Sixteen fresh random bytes.
pub fn fresh_write_id(host: &dyn Host) -> WriteId {
    let mut bytes = [0; 16];
    host.fill(&mut bytes);
    WriteId(bytes)
}

/// How a request leaves, where that is not the usual way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// On a Worker: the binding whose client certificate it goes out with.
    Binding(String),
    /// Elsewhere: files in PEM. They are read for each request, so whoever replaces them need not tell anybody.
    Files {
        /// A client certificate with its chain, and its private key.
        certificate: Option<PathBuf>,
        /// The authorities to believe, instead of the system's.
        authorities: Option<PathBuf>,
    },
}

/// An outgoing HTTP request. Headers and body may hold secrets: never log one whole.
#[derive(Clone)]
pub struct HttpRequest {
    /// `GET`, `POST`, ...
    pub method: http::Method,
    /// Absolute, `https` unless the host is loopback. On a Worker also `service:NAME/path`: another Worker, by its binding.
    pub url: String,
    /// How it leaves, where that is not the usual way.
    pub via: Option<Via>,
    /// Request headers.
    pub headers: Vec<(http::HeaderName, Secret<String>)>,
    /// Request body.
    pub body: Secret<Vec<u8>>,
    /// The largest answer to accept, in bytes.
    pub answer_bytes_max: usize,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query may carry a secret.
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        write!(f, "{} {url}", self.method)
    }
}

/// An HTTP answer, body read to the end.
#[derive(Clone)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Answer headers.
    pub headers: http::HeaderMap,
    /// Answer body; may hold secrets.
    pub body: Secret<Vec<u8>>,
}

/// Why there is no HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The request certainly never reached the other side: a bad URL, no route, no connection, TLS refused.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The request may have been acted on: a deadline, a connection lost half-way.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// An answer came, and it is larger than was asked for.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// HTTP to the outside: bounded body, a deadline always, no redirects, no retries.
#[async_trait]
pub trait Http: Send + Sync {
    /// Sends a request and reads the answer, all before `deadline`.
    ///
    /// # Errors
    /// [`HttpError`] says whether the request may have been acted on.
    async fn send(&self, request: HttpRequest, deadline: Mono) -> Result<HttpAnswer, HttpError>;

    /// Finds out at start whether requests can leave by `via`, as far as that can be known without sending one.
    ///
    /// # Errors
    /// A sentence without any secret.
    fn check(&self, via: &Via) -> Result<(), String> {
        let _ = via;
        Ok(())
    }
}

/// A program to run: no shell, nothing inherited but what is named.
#[derive(Clone)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, Secret<String>>,
    /// What it reads on standard input.
    pub input: Secret<Vec<u8>>,
    /// The most it may print on standard output, in bytes. On standard error everything beyond 4 KiB is dropped.
    pub output_bytes_max: usize,
}

/// What a program did.
#[derive(Clone)]
pub struct ProgramOutput {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output; may hold secrets.
    pub output: Secret<Vec<u8>>,
    /// Standard error, lossily decoded and bounded; may hold secrets.
    pub complaint: Secret<String>,
}

/// Why a program has no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It was never started.
    #[error("not started: {0}")]
    NotStarted(String),
    /// It was still running at the deadline and was ended, with all its children. Carries its standard error so far.
    #[error("still running at the deadline")]
    Deadline(Secret<String>),
    /// It printed more than was asked for and was ended.
    #[error("it printed more than {0} bytes")]
    TooLarge(usize),
}

/// Runs programs. A Worker has no engine for this.
#[async_trait]
pub trait Programs: Send + Sync {
    /// Runs a program to its end, or ends it at `deadline`.
    ///
    /// # Errors
    /// [`ProgramError`].
    async fn run(&self, program: Program, deadline: Mono) -> Result<ProgramOutput, ProgramError>;
}

/// Finds secrets by reference.
pub trait Secrets: Send + Sync {
    /// Reads the secret, without a trailing line break.
    ///
    /// # Errors
    /// A sentence that names the reference and the cause, never the secret.
    fn read(&self, reference: &crate::config::SecretRef) -> Result<Secret<Vec<u8>>, String>;
}
