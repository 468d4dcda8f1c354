//! The agents: each takes its token from its own process, and calls with it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::super::processes::{End, node_name};

/// How long an agent rests between two calls.
const REST: Duration = Duration::from_millis(250);
const USE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most failures that are told.
const FAILURES_TOLD_MAX: usize = 5;

/// What all agents together did.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) used: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<String>,
    pub(super) tokens: usize,
}

pub(super) struct Traffic {
    ends: Vec<End>,
    http: reqwest::Client,
    use_url: String,
    counts: Mutex<Counts>,
    tokens: Mutex<BTreeSet<String>>,
}

/// The running agents.
pub(super) struct Agents(JoinSet<()>);

impl Agents {
    pub(super) async fn abort_all_and_wait(mut self) {
        self.0.shutdown().await;
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    pub(super) fn new(ends: Vec<End>, server: SocketAddr) -> Result<Self, reqwest::Error> {
        Ok(Self {
            ends,
            http: reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(USE_TIMEOUT).build()?,
            use_url: format!("http://{server}/use"),
            counts: Mutex::default(),
            tokens: Mutex::default(),
        })
    }

    pub(super) fn start(self: &Arc<Self>) -> Agents {
        let mut agents = JoinSet::new();
        for node in 0..self.ends.len() {
            agents.spawn(Arc::clone(self).act(node));
        }
        Agents(agents)
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { tokens: lock(&self.tokens).len(), ..lock(&self.counts).clone() }
    }

    /// What each process hands out now; nothing where it does not answer.
    pub(super) async fn handed_out(&self) -> Vec<Option<(u64, String)>> {
        let all = self.ends.iter().map(taken);
        futures::future::join_all(all).await.into_iter().map(|found| found.and_then(Result::ok)).collect()
    }

    async fn act(self: Arc<Self>, node: usize) {
        let Some(end) = self.ends.get(node) else { return };
        loop {
            match taken(end).await {
                // It was killed, and comes again.
                None => {}
                Some(Err(what)) => self.count(Some(format!("{} has no token: {what}", node_name(node)))),
                Some(Ok((_, token))) => {
                    let answer = self.http.post(&self.use_url).bearer_auth(&token).send().await;
                    let failure = match answer.map(|answer| answer.status().as_u16()) {
                        Ok(204) => None,
                        Ok(status) => Some(format!("{} was refused with {status}", node_name(node))),
                        Err(_) => Some(format!("{} had no answer", node_name(node))),
                    };
                    lock(&self.tokens).insert(token);
                    self.count(failure);
                }
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn count(&self, failure: Option<String>) {
        let mut counts = lock(&self.counts);
        counts.used = counts.used.saturating_add(1);
        if let Some(failure) = failure {
            counts.failed = counts.failed.saturating_add(1);
            if counts.failures.len() < FAILURES_TOLD_MAX {
                counts.failures.push(failure);
            }
        }
    }
}

/// The generation and the token that a process hands out, or why it does not; nothing where it does not answer.
async fn taken(end: &End) -> Option<Result<(u64, String), String>> {
    let (status, body) = end.get("/v1/credentials/user/token").await?;
    let generation = body.get("generation").and_then(Value::as_u64);
    let token = body.get("token").and_then(Value::as_str);
    Some(match (generation, token) {
        (Some(generation), Some(token)) => Ok((generation, token.to_owned())),
        _ => Err(format!("{status} {}", body.get("detail").and_then(Value::as_str).unwrap_or_default())),
    })
}
