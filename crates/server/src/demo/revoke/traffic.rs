//! Those who come with tokens, good ones and one that is to be revoked, and what each node answers them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::frame::wall_ms;
use super::super::probe::Probe;
use super::fleet::Fleet;

/// Good tokens in circulation.
const TOKENS: usize = 50;
/// How long somebody rests between two requests.
const REST: Duration = Duration::from_millis(2);
/// How long a node is left alone that does not answer.
const PAUSE: Duration = Duration::from_millis(50);
/// The most strange answers that are told.
const STRANGE_MAX: usize = 5;

/// What all together were answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Good tokens that were accepted.
    pub(super) accepted: u64,
    /// Good tokens that were refused.
    pub(super) turned_away: u64,
    pub(super) strange: Vec<String>,
    /// Good tokens for which a node without news said that it cannot tell.
    pub(super) stale: u64,
    /// Revoked tokens that were refused.
    pub(super) refused: u64,
    /// Revoked tokens that a node accepted after it had said that it refuses them.
    pub(super) accepted_after_receipt: u64,
}

pub(super) struct Traffic {
    fleet: Arc<Fleet>,
    tokens: Vec<String>,
    probe: Mutex<Option<Arc<Probe>>>,
    counts: Mutex<Counts>,
    is_over: AtomicBool,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    pub(super) async fn new(fleet: Arc<Fleet>) -> io::Result<Self> {
        let mut tokens = Vec::with_capacity(TOKENS);
        for n in 0..TOKENS {
            let name = format!("good-{n}");
            tokens.push(if n % 2 == 0 {
                fleet.jwt(&name).await?
            } else {
                fleet.opaque(n % fleet.count(), &name).await?
            });
        }
        Ok(Self { fleet, tokens, probe: Mutex::default(), counts: Mutex::default(), is_over: AtomicBool::new(false) })
    }

    pub(super) fn finish(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
    }

    /// Probes with this token from now on.
    pub(super) fn probe_with(&self, token: &str) -> Arc<Probe> {
        let probe = Arc::new(Probe::new(token.to_owned()));
        *lock(&self.probe) = Some(Arc::clone(&probe));
        probe
    }

    /// Comes to one node with good tokens, all the time.
    pub(super) async fn load(self: Arc<Self>, node: usize) {
        let mut turns = self.tokens.iter().cycle().skip(node.wrapping_mul(7));
        while !self.is_over() {
            let Some(token) = turns.next() else { return };
            match self.fleet.pass(node, token).await {
                Some(200) => self.count(|counts| counts.accepted += 1),
                Some(503) => self.count(|counts| counts.stale += 1),
                Some(status) => self.count(|counts| {
                    counts.turned_away += 1;
                    if counts.strange.len() < STRANGE_MAX {
                        counts.strange.push(format!("{} answered {status}", self.fleet.name(node)));
                    }
                }),
                None => tokio::time::sleep(PAUSE).await,
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Comes to one node with the token that is to be revoked, all the time.
    pub(super) async fn probe(self: Arc<Self>, node: usize) {
        while !self.is_over() {
            let probe = lock(&self.probe).clone();
            if let Some(probe) = probe {
                let sent_ms = wall_ms();
                let status = self.fleet.pass(node, &probe.token).await;
                probe.note(node, sent_ms, status);
                self.count(|counts| counts.refused += u64::from(status == Some(401)));
            }
            tokio::time::sleep(REST).await;
        }
    }
}
