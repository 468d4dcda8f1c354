//! The clients: each takes its token from its home node and pushes, again and again, as a push service does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use keyreeve_picky::apns::Apns;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::place::{CREDENTIAL, Place};
use super::plan::{Dice, name_of};
use super::timeline::Timeline;

/// The longest wait for a node; then the next one is asked.
const NODE_TIMEOUT: Duration = Duration::from_millis(500);
/// A node that did not answer is left alone for this long.
const NODE_REST: Duration = Duration::from_secs(1);
/// The longest wait for the fake Apple.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// A token is used without asking for this long at the most, whatever the node allows.
const CACHE_MAX: Duration = Duration::from_millis(250);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const DEVICE: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
/// This many failed pushes are told one by one.
const FAILURES_TOLD_MAX: u64 = 5;

/// What all clients together did.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Counts {
    /// Notifications to push.
    pub(crate) pushes: u64,
    /// Notifications that were not taken, not even after one retry with a token read anew.
    pub(crate) failed: u64,
    /// Notifications that needed the retry.
    pub(crate) retried: u64,
    /// The longest time for one notification, its token and its retry included, in real milliseconds.
    pub(crate) slowest_ms: u64,
    /// Times that a client had to go to another node than its own.
    pub(crate) moved: u64,
    /// Reports of a refused token.
    pub(crate) reports: u64,
    /// Refusals by the fake Apple, by status and reason.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Failed notifications, by what the retry ended with.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// What the clients share.
pub(crate) struct Crowd {
    nodes: Vec<NodeEnd>,
    apple_url: String,
    apple_ca: reqwest::Certificate,
    scale: f64,
    rest: Duration,
    timeline: Arc<Timeline>,
    counts: Mutex<Counts>,
    is_over: AtomicBool,
}

struct NodeEnd {
    http: reqwest::Client,
    /// Real milliseconds since `START` until which it is left alone.
    rests_until: AtomicU64,
}

static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

fn now_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Crowd {
    pub(crate) fn new(
        place: &Place,
        nodes: usize,
        apple: &Apns,
        rest: Duration,
        timeline: &Arc<Timeline>,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let ends = (0..nodes).map(|node| {
            let http = reqwest::Client::builder().no_proxy().unix_socket(place.socket(node)).timeout(NODE_TIMEOUT);
            Ok(NodeEnd { http: http.build()?, rests_until: AtomicU64::new(0) })
        });
        Ok(Arc::new(Self {
            nodes: ends.collect::<Result<_, reqwest::Error>>()?,
            apple_url: format!("{}/3/device/{DEVICE}", apple.url()),
            apple_ca: reqwest::Certificate::from_pem(apple.ca_pem().as_bytes())?,
            scale: apple.clock().scale(),
            rest,
            timeline: Arc::clone(timeline),
            counts: Mutex::default(),
            is_over: AtomicBool::new(false),
        }))
    }

    /// Whether a node hands out a token.
    pub(crate) async fn is_ready(&self, node: usize) -> bool {
        let Some(end) = self.nodes.get(node) else { return false };
        matches!(end.fetch(None).await, Fetched::Token(_))
    }

    /// Asks every client to stop after the push it is at.
    pub(crate) fn finish(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Client number `number`, until the end.
    pub(crate) async fn run_client(self: Arc<Self>, number: usize, seed: u64) -> Result<(), reqwest::Error> {
        // A connection of its own, as each of a fleet's processes has.
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only([self.apple_ca.clone()]);
        let apple = builder.timeout(PUSH_TIMEOUT).build()?;
        let home = number.checked_rem(self.nodes.len()).unwrap_or(0);
        let mut dice = Dice::new(seed ^ (number as u64).wrapping_mul(0x9e37_79b9));
        let rest_ms = u64::try_from(self.rest.as_millis()).unwrap_or(u64::MAX);
        let mut client = Client { crowd: &self, apple, home, held: None, newest: 0 };
        while !self.is_over.load(Ordering::Relaxed) {
            client.push().await;
            tokio::time::sleep(Duration::from_millis(rest_ms / 2 + dice.below(rest_ms))).await;
        }
        Ok(())
    }
}

/// A token as a client holds it.
#[derive(Clone)]
struct Held {
    token: String,
    generation: u64,
    /// The node's `ETag`.
    tag: Option<HeaderValue>,
    /// The node that gave it.
    node: usize,
    fresh_until: Instant,
}

struct Client<'a> {
    crowd: &'a Crowd,
    apple: reqwest::Client,
    home: usize,
    held: Option<Held>,
    /// The newest generation seen; an older one is used only where nobody has a newer.
    newest: u64,
}

#[derive(Debug)]
struct Refusal {
    status: u16,
    reason: String,
}

impl Client<'_> {
    /// Pushes one notification: a token, a push, and, if it is refused, a report, a token read anew, a second push.
    async fn push(&mut self) {
        let began = Instant::now();
        let result = self.push_with_retry().await;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.crowd.count(|counts| {
            counts.pushes += 1;
            counts.slowest_ms = counts.slowest_ms.max(took_ms);
        });
        if let Err(why) = result {
            let mut failed = 0;
            self.crowd.count(|counts| {
                counts.failed += 1;
                failed = counts.failed;
                *counts.failures.entry(why.clone()).or_default() += 1;
            });
            if failed <= FAILURES_TOLD_MAX {
                let last = if failed == FAILURES_TOLD_MAX { " (further ones are only counted)" } else { "" };
                self.crowd.timeline.add(&name_of(self.home), format!("a push of its clients failed: {why}{last}"));
            }
        }
    }

    async fn push_with_retry(&mut self) -> Result<(), String> {
        let Some(held) = self.token(None).await else { return Err("no node had a token".to_owned()) };
        let Err(refusal) = self.send(&held).await else { return Ok(()) };
        self.crowd.count(|counts| counts.retried += 1);
        self.report(&held, &refusal).await;
        let Some(again) = self.token(Some(held.generation)).await else {
            return Err("no node had a token for the retry".to_owned());
        };
        self.send(&again).await.map_err(|refusal| format!("{} {}", refusal.status, refusal.reason))
    }

    async fn send(&self, held: &Held) -> Result<(), Refusal> {
        let request = self
            .apple
            .post(&self.crowd.apple_url)
            .header("authorization", format!("bearer {}", held.token))
            .header("apns-topic", CREDENTIAL)
            .body(r#"{"aps":{"alert":"hello"}}"#);
        let refusal = match request.send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let body = answer.bytes().await.unwrap_or_default();
                let reason = serde_json::from_slice::<Reason>(&body).map_or_else(|_| String::new(), |body| body.reason);
                Refusal { status, reason }
            }
            // Whose address this is, is no secret; reqwest's message holds no header.
            Err(error) => Refusal { status: 0, reason: format!("no answer from the upstream: {error}") },
        };
        let kind = format!("{} {}", refusal.status, refusal.reason);
        self.crowd.count(|counts| *counts.refusals.entry(kind).or_default() += 1);
        Err(refusal)
    }

    /// Tells the node that gave the token that it was refused.
    async fn report(&self, held: &Held, refusal: &Refusal) {
        let Some(end) = self.crowd.nodes.get(held.node) else { return };
        self.crowd.count(|counts| counts.reports += 1);
        let body = json!({
            "generation": held.generation, "upstream_status": refusal.status, "reason": refusal.reason,
        });
        let request = end
            .http
            .post(format!("http://node/v1/credentials/{CREDENTIAL}/report"))
            .header("content-type", "application/json")
            .body(body.to_string());
        if request.send().await.is_err() {
            end.rest();
        }
    }

    /// A token: the held one while it may be used, else one from the home node, else from the next that answers.
    ///
    /// After a refusal of generation `refused` nothing held is used, and nodes are asked until one has another.
    async fn token(&mut self, refused: Option<u64>) -> Option<Held> {
        if refused.is_none()
            && let Some(held) = self.held.as_ref().filter(|held| Instant::now() < held.fresh_until)
        {
            return Some(held.clone());
        }
        let mut best: Option<Held> = None;
        // A node that rests is asked after all others.
        for may_rest in [false, true] {
            for step in 0..self.crowd.nodes.len() {
                let node = (self.home + step) % self.crowd.nodes.len();
                let Some(end) = self.crowd.nodes.get(node).filter(|end| end.is_resting() == may_rest) else { continue };
                let held = self.held.as_ref().filter(|held| refused.is_none() && held.node == node);
                let got = match end.fetch(held.and_then(|held| held.tag.clone())).await {
                    Fetched::Token(answer) => self.crowd.hold(answer, node),
                    Fetched::Same(max_age) => match held {
                        Some(held) => Held { fresh_until: self.crowd.fresh_until(max_age), ..held.clone() },
                        None => continue,
                    },
                    Fetched::Nothing => continue,
                };
                let is_good = got.generation >= self.newest && refused.is_none_or(|refused| got.generation != refused);
                if best.as_ref().is_none_or(|best| got.generation > best.generation) {
                    best = Some(got);
                }
                if is_good {
                    return self.take(best);
                }
            }
            if best.is_some() {
                break;
            }
        }
        self.take(best)
    }

    fn take(&mut self, held: Option<Held>) -> Option<Held> {
        if let Some(held) = &held {
            self.newest = self.newest.max(held.generation);
            if held.node != self.home {
                self.crowd.count(|counts| counts.moved += 1);
            }
        }
        self.held.clone_from(&held);
        held
    }
}

impl Crowd {
    fn hold(&self, answer: Answer, node: usize) -> Held {
        let fresh_until = self.fresh_until(answer.max_age);
        Held { token: answer.token, generation: answer.generation, tag: answer.tag, node, fresh_until }
    }

    /// The node's `max-age` is in its own, simulated seconds.
    fn fresh_until(&self, max_age: Duration) -> Instant {
        let real = Duration::try_from_secs_f64(max_age.as_secs_f64() / self.scale).unwrap_or(CACHE_MAX);
        Instant::now() + real.min(CACHE_MAX)
    }
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
}

/// What the clients read of a node's answer.
#[derive(Deserialize)]
struct Answer {
    generation: u64,
    token: String,
    #[serde(skip)]
    tag: Option<HeaderValue>,
    #[serde(skip)]
    max_age: Duration,
}

enum Fetched {
    Token(Answer),
    /// The same generation as before, for this much longer.
    Same(Duration),
    Nothing,
}

impl NodeEnd {
    fn is_resting(&self) -> bool {
        now_ms() < self.rests_until.load(Ordering::Relaxed)
    }

    fn rest(&self) {
        let until = now_ms().saturating_add(u64::try_from(NODE_REST.as_millis()).unwrap_or(u64::MAX));
        self.rests_until.store(until, Ordering::Relaxed);
    }

    async fn fetch(&self, held: Option<HeaderValue>) -> Fetched {
        let mut request = self.http.get(format!("http://node/v1/credentials/{CREDENTIAL}/token"));
        if let Some(tag) = held {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let Ok(answer) = request.send().await else {
            self.rest();
            return Fetched::Nothing;
        };
        let (max_age, tag) = (max_age_of(answer.headers()), answer.headers().get(ETAG).cloned());
        let (status, length) = (answer.status().as_u16(), answer.content_length().unwrap_or(0));
        if status == 304 {
            return Fetched::Same(max_age);
        }
        if status != 200 || length > ANSWER_BYTES_MAX as u64 {
            return Fetched::Nothing;
        }
        let Ok(body) = answer.bytes().await else { return Fetched::Nothing };
        match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) => Fetched::Token(Answer { tag, max_age, ..answer }),
            Err(_) => Fetched::Nothing,
        }
    }
}

/// `max-age` of `Cache-Control` (RFC 9111 5.2.2.1); zero where there is none.
fn max_age_of(headers: &http::HeaderMap) -> Duration {
    let value = headers.get("cache-control").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}
