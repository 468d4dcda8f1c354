//! The primary and its mirrors: asked in turn, the next one as soon as the one before is slow.
//!
//! Only the primary can say that something is not there: a mirror may not have it yet. And whatever an origin says that is neither
//! the object nor its absence (403 of a bucket included) is a failure of ours, never of who asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt as _};
use keyreeve_core::time::{Mono, Span};

use super::objects::Objects;
use crate::port::Host;

/// After so many failures one after the other an origin is asked last.
const STRIKES: u32 = 5;
/// For how long, in milliseconds.
const OPEN_MS: u64 = 5000;
/// When whoever was refused should come again, in milliseconds.
const RETRY_MS: u64 = 1000;

/// Where a gate reads. The first is the primary.
pub struct Origins {
    all: Vec<Origin>,
    hedge_ms: u64,
    host: Arc<dyn Host>,
    gate: Arc<str>,
}

struct Origin {
    name: String,
    objects: Objects,
    strikes: AtomicU32,
    open_until: AtomicU64,
}

/// What an origin said.
#[derive(Clone, Debug)]
pub enum Told<T> {
    /// This, and which origin said so.
    Is(T, usize),
    /// The primary: there is no such object.
    Absent,
    /// It is there, in another version than was asked for.
    Changed,
}

/// No origin gave an answer.
#[derive(Clone, Debug)]
pub struct Away {
    /// What each of them said, for the operator.
    pub why: String,
    /// When to try again, in milliseconds.
    pub retry_ms: u64,
}

type Asking<'a, T> = FuturesUnordered<BoxFuture<'a, (usize, Result<T, object_store::Error>)>>;

impl Origins {
    /// These, of the gate `gate`; the next is asked when one has not answered for `hedge_ms` milliseconds.
    #[must_use]
    pub fn new(gate: &str, all: Vec<(String, Objects)>, hedge_ms: u64, host: Arc<dyn Host>) -> Self {
        let origin =
            |(name, objects)| Origin { name, objects, strikes: AtomicU32::new(0), open_until: AtomicU64::new(0) };
        Self { all: all.into_iter().map(origin).collect(), hedge_ms, host, gate: gate.into() }
    }

    /// How long one answer may take before the next origin is asked, in milliseconds.
    #[must_use]
    pub const fn hedge_ms(&self) -> u64 {
        self.hedge_ms
    }

    /// The objects of one origin, and its name.
    #[must_use]
    pub fn one(&self, at: usize) -> Option<(&str, &Objects)> {
        self.all.get(at).map(|origin| (origin.name.as_str(), &origin.objects))
    }

    /// All of them in order, the primary first.
    pub fn each(&self) -> impl Iterator<Item = (&str, &Objects)> {
        self.all.iter().map(|origin| (origin.name.as_str(), &origin.objects))
    }

    /// The first answer that one of them gives to `ask`. The others are asked no further then.
    ///
    /// # Errors
    /// None of them has answered until `deadline`.
    pub async fn first<'a, T: 'a>(
        &'a self,
        deadline: Mono,
        ask: impl Fn(Objects) -> BoxFuture<'a, Result<T, object_store::Error>>,
    ) -> Result<Told<T>, Away> {
        let mut waiting = self.order().into_iter().peekable();
        let mut asking: Asking<'a, T> = FuturesUnordered::new();
        let mut asked: Vec<(usize, Mono)> = Vec::new();
        let mut causes = Vec::new();
        let mut next_at = self.host.now().mono;
        loop {
            let now = self.host.now().mono;
            if now >= deadline {
                return Err(self.late(&asked, causes, deadline));
            }
            if asking.is_empty() || now >= next_at {
                if let Some((at, origin)) = waiting.next() {
                    let answer = ask(origin.objects.clone());
                    asking.push(Box::pin(async move { (at, answer.await) }));
                    asked.push((at, now));
                    next_at = now.plus(self.hedge_ms);
                } else if asking.is_empty() {
                    return Err(Away { why: causes.join("; "), retry_ms: RETRY_MS });
                }
            }
            let until = if waiting.peek().is_some() { next_at.min(deadline) } else { deadline };
            let sleep = std::pin::pin!(self.host.sleep_until(until));
            let (at, answer) = match select(asking.next(), sleep).await {
                Either::Left((Some(answered), _)) => answered,
                Either::Left((None, _)) | Either::Right(_) => continue,
            };
            asked.retain(|(other, _)| *other != at);
            let Some(origin) = self.all.get(at) else { continue };
            match answer {
                Ok(is) => {
                    self.answered(origin, "ok");
                    self.slower(&asked);
                    return Ok(Told::Is(is, at));
                }
                Err(error) if is_absent(&error) && at == 0 => {
                    self.answered(origin, "absent");
                    return Ok(Told::Absent);
                }
                Err(error) if is_absent(&error) => {
                    self.answered(origin, "absent");
                    causes.push(format!("the mirror `{}` has no such object", origin.name));
                }
                Err(error) => {
                    self.strike(origin, "failed");
                    causes.push(format!("`{}` ({}): {}", origin.name, origin.objects.place(), told(&error)));
                }
            }
            next_at = self.host.now().mono;
        }
    }

    /// Those that have answered lately first.
    fn order(&self) -> Vec<(usize, &Origin)> {
        let now = self.host.now().mono.0;
        let is_away = |origin: &Origin| origin.open_until.load(Ordering::Relaxed) > now;
        let mut order: Vec<_> = self.all.iter().enumerate().collect();
        order.sort_by_key(|(_, origin)| is_away(origin));
        order
    }

    fn late(&self, asked: &[(usize, Mono)], mut causes: Vec<String>, deadline: Mono) -> Away {
        for (at, since) in asked {
            if let Some(origin) = self.all.get(*at) {
                self.strike(origin, "hung");
                let waited = Span(deadline.since(*since));
                causes.push(format!("`{}` ({}): no answer within {waited}", origin.name, origin.objects.place()));
            }
        }
        Away { why: causes.join("; "), retry_ms: RETRY_MS }
    }

    /// Those that were asked long enough ago, and did not answer before another one did.
    fn slower(&self, asked: &[(usize, Mono)]) {
        let now = self.host.now().mono;
        for (at, since) in asked {
            if let Some(origin) = self.all.get(*at).filter(|_| now.since(*since) >= self.hedge_ms) {
                self.strike(origin, "slow");
            }
        }
    }

    fn answered(&self, origin: &Origin, outcome: &'static str) {
        origin.strikes.store(0, Ordering::Relaxed);
        origin.open_until.store(0, Ordering::Relaxed);
        self.count(origin, outcome);
    }

    fn strike(&self, origin: &Origin, outcome: &'static str) {
        self.count(origin, outcome);
        let strikes = origin.strikes.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if strikes >= STRIKES {
            let until = self.host.now().mono.plus(OPEN_MS).0;
            if origin.open_until.swap(until, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    gate = &*self.gate,
                    origin = origin.name,
                    "the origin is asked last: it has failed {strikes} times"
                );
            }
            // The first failure after that is enough.
            origin.strikes.store(STRIKES.saturating_sub(1), Ordering::Relaxed);
        }
    }

    fn count(&self, origin: &Origin, outcome: &'static str) {
        let (gate, name) = (self.gate.to_string(), origin.name.clone());
        metrics::counter!("keyreeve_artifact_reads_total", "gate" => gate, "origin" => name, "outcome" => outcome)
            .increment(1);
    }
}

/// Whether an answer, of [`Objects::read`], says that there is no such object.
#[must_use]
pub fn is_absent(error: &object_store::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory};

    let mut cause: Option<&(dyn std::error::Error + 'static)> = match error {
        object_store::Error::NotFound { .. } => return true,
        object_store::Error::Generic { source, .. } => Some(source.as_ref()),
        _ => None,
    };
    // In a folder, a name below a file, or a name that no file can have.
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), NotADirectory | InvalidFilename | IsADirectory);
        }
        cause = inner.source();
    }
    false
}

/// What an origin said, with what an operator needs to know about it.
fn told(error: &object_store::Error) -> String {
    let hint = match error {
        object_store::Error::PermissionDenied { .. } => {
            " (S3 says so of objects that are not there, too, unless the key may list the bucket)"
        }
        _ => "",
    };
    let text: String = error.to_string().chars().filter(|letter| !letter.is_control()).take(600).collect();
    format!("{text}{hint}")
}
