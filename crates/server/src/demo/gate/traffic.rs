//! Those who come to the gates all the time, and what they are answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{AGE, AUTHORIZATION, ETAG, IF_NONE_MATCH, RETRY_AFTER, WARNING};
use http::{HeaderValue, Method};
use tokio::task::JoinSet;

use super::super::frame::wall_ms;
use super::super::probe::Probe;
use super::super::processes::node_name;
use super::fleet::{BUILDS, Fleet, KNOWN, SUPERGRAPH, TARGET, version_of};
use super::laws::{Act, Got, Kind, broken};

/// How many ask each node for what it knows, at once.
const CROWD: usize = 2;
/// How long each of them rests between two requests.
const REST: Duration = Duration::from_millis(8);
/// How long those rest who ask for something new, and for something that is not there.
const LONG_REST: Duration = Duration::from_millis(100);
/// How long those rest who show tokens that are about to be revoked.
const PROBE_REST: Duration = Duration::from_millis(2);

/// What one node has answered to good tokens in one act.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// 200, vouched for by an origin a moment ago.
    pub(super) whole: u64,
    /// 304, likewise.
    pub(super) same: u64,
    /// 200 or 304, marked as stale.
    pub(super) stale: u64,
    /// 404.
    pub(super) absent: u64,
    /// 503.
    pub(super) away: u64,
    /// 401 or 403.
    pub(super) denied: u64,
    /// Anything else, and no answer.
    pub(super) other: u64,
    /// The slowest artifact, in milliseconds.
    pub(super) worst_ms: u64,
    /// The slowest 503, in milliseconds.
    pub(super) worst_away_ms: u64,
    /// How long after the act began the last stale artifact was asked for, in milliseconds.
    pub(super) last_stale_ms: u64,
}

/// What is published, and which versions a node has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    newest: u64,
    /// When the newest had been shown for the first time, in milliseconds since 1970.
    since_ms: u64,
    /// The last request that was answered with something older than what is published.
    last_old_ms: Option<u64>,
}

/// What is being played, with a number that grows with each change.
#[derive(Clone, Copy)]
struct Turn {
    number: u64,
    act: Option<Act>,
    since: Instant,
}

/// A request on its way.
struct Sent {
    turn: Turn,
    at: Instant,
    at_ms: u64,
}

pub(super) struct Traffic {
    fleet: Arc<Fleet>,
    tokens: Vec<String>,
    /// Tokens that are taken back in the end, and the target of each.
    probes: Vec<(Arc<Probe>, &'static str)>,
    turn: Mutex<Turn>,
    rows: Mutex<BTreeMap<(Act, usize), Row>>,
    shown: Mutex<BTreeMap<usize, Shown>>,
    /// The version that is published, and since when, in milliseconds since 1970.
    published: Mutex<(u64, u64)>,
    /// What each node could not hand out while nobody answered.
    missed: Mutex<BTreeMap<usize, VecDeque<usize>>>,
    broken: Mutex<BTreeMap<String, u64>>,
    is_over: AtomicBool,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    pub(super) fn new(fleet: Arc<Fleet>, tokens: Vec<String>, probes: Vec<(Arc<Probe>, &'static str)>) -> Self {
        Self {
            fleet,
            tokens,
            probes,
            turn: Mutex::new(Turn { number: 0, act: None, since: Instant::now() }),
            rows: Mutex::default(),
            shown: Mutex::default(),
            published: Mutex::default(),
            missed: Mutex::default(),
            broken: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// Sends everybody on their way.
    pub(super) fn start(self: &Arc<Self>) -> JoinSet<()> {
        let mut workers = JoinSet::new();
        for node in self.fleet.nodes() {
            for number in 0..CROWD {
                workers.spawn(Arc::clone(self).read(node, number));
            }
            workers.spawn(Arc::clone(self).read_new(node));
            workers.spawn(Arc::clone(self).read_absent(node));
            workers.spawn(Arc::clone(self).probe(node));
        }
        workers
    }

    pub(super) fn finish(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Judges by the laws of an act from now on, or by none. What is under way counts for nothing.
    pub(super) fn play(&self, act: Option<Act>) {
        let mut turn = lock(&self.turn);
        *turn = Turn { number: turn.number.saturating_add(1), act, since: Instant::now() };
    }

    /// What a node has answered in an act.
    pub(super) fn row(&self, act: Act, node: usize) -> Row {
        lock(&self.rows).get(&(act, node)).cloned().unwrap_or_default()
    }

    /// Which laws were broken, and how often.
    pub(super) fn broken(&self) -> Vec<String> {
        let times =
            |(what, count): (&String, &u64)| if *count > 1 { format!("{what} ({count} times)") } else { what.clone() };
        lock(&self.broken).iter().map(times).collect()
    }

    fn complain(&self, act: Act, node: usize, what: &str) {
        let text = format!("{}: {} {what}", act.name(), node_name(node));
        *lock(&self.broken).entry(text).or_default() += 1;
    }

    /// A version of [`SUPERGRAPH`] is published by now.
    pub(super) fn note_published(&self, version: u64) {
        *lock(&self.published) = (version, wall_ms());
    }

    /// Whether every node has shown what is published.
    pub(super) fn is_shown_by_all(&self) -> bool {
        let (version, _) = *lock(&self.published);
        let shown = lock(&self.shown);
        self.fleet.nodes().iter().all(|node| shown.get(node).is_some_and(|shown| shown.newest >= version))
    }

    /// Until how long after the publication a node was asked and showed something older, in milliseconds.
    pub(super) fn old_for_ms(&self, node: usize) -> u64 {
        let (_, since_ms) = *lock(&self.published);
        let last_ms = lock(&self.shown).get(&node).and_then(|shown| shown.last_old_ms).unwrap_or(0);
        last_ms.saturating_sub(since_ms)
    }

    /// What is still missed, of everything that could not be handed out.
    pub(super) fn missed(&self) -> usize {
        lock(&self.missed).values().map(VecDeque::len).sum()
    }

    fn send(&self) -> Sent {
        Sent { turn: *lock(&self.turn), at: Instant::now(), at_ms: wall_ms() }
    }

    /// Asks a gate; with an answer comes its entity tag.
    async fn ask(
        &self,
        node: usize,
        (target, name): (&str, &str),
        token: &str,
        known: Option<&HeaderValue>,
    ) -> Option<(Got, Option<HeaderValue>)> {
        let started = Instant::now();
        let path = format!("/artifacts/v1/{target}/{name}");
        let mut request =
            self.fleet.gate(node)?.request(Method::GET, &path).header(AUTHORIZATION, format!("Bearer {token}"));
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known);
        }
        let answer = request.send().await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.ok()?;
        let got = Got {
            status,
            is_marked: headers.contains_key(AGE)
                && headers.get(WARNING).is_some_and(|text| text.as_bytes().starts_with(b"111 ")),
            says_when: headers.contains_key(RETRY_AFTER),
            version: if status == 200 { version_of(&body) } else { None },
            ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        Some((got, headers.get(ETAG).cloned()))
    }

    /// Takes down an answer, and complains. What came while something else was played is not judged.
    fn take(&self, node: usize, kind: Kind, sent: &Sent, got: Option<&Got>) -> Option<Act> {
        let act = sent.turn.act.filter(|_| lock(&self.turn).number == sent.turn.number)?;
        let into_ms = u64::try_from(sent.at.duration_since(sent.turn.since).as_millis()).unwrap_or(u64::MAX);
        let mut rows = lock(&self.rows);
        let row = rows.entry((act, node)).or_default();
        match got.map(|got| (got.status, got)) {
            Some((200 | 304, got)) => {
                row.worst_ms = row.worst_ms.max(got.ms);
                match (got.is_marked, got.status) {
                    (true, _) => {
                        row.stale += 1;
                        row.last_stale_ms = row.last_stale_ms.max(into_ms);
                    }
                    (false, 200) => row.whole += 1,
                    (false, _) => row.same += 1,
                }
            }
            Some((404, _)) => row.absent += 1,
            Some((503, got)) => {
                row.away += 1;
                row.worst_away_ms = row.worst_away_ms.max(got.ms);
            }
            Some((401 | 403, _)) => row.denied += 1,
            _ => row.other += 1,
        }
        drop(rows);
        if let Some(law) = broken(act, kind, got, into_ms) {
            self.complain(act, node, law);
        }
        Some(act)
    }

    /// Which version a node has shown: never an older one after a newer one.
    fn show(&self, node: usize, sent: &Sent, version: u64) {
        let (published, published_ms) = *lock(&self.published);
        let mut all = lock(&self.shown);
        let shown = all.entry(node).or_default();
        if version < published && sent.at_ms > published_ms {
            shown.last_old_ms = shown.last_old_ms.max(Some(sent.at_ms));
        }
        let is_back = version < shown.newest && sent.at_ms > shown.since_ms;
        if version > shown.newest {
            (shown.newest, shown.since_ms) = (version, wall_ms());
        }
        drop(all);
        if let Some(act) = sent.turn.act.filter(|_| is_back) {
            self.complain(act, node, "went back to an older version");
        }
    }

    /// Asks a node for what it knows, all the time, mostly with the tag of what was there.
    async fn read(self: Arc<Self>, node: usize, number: usize) {
        let mut kept: BTreeMap<&str, (HeaderValue, Option<u64>)> = BTreeMap::new();
        let mut tokens = self.tokens.iter().cycle().skip(node.wrapping_add(number));
        for turn in 0_usize.. {
            let Some(token) = tokens.next().filter(|_| !self.is_over()) else { return };
            let Some(name) = KNOWN.get(turn % KNOWN.len()).copied() else { return };
            let known = kept.get(name).filter(|_| turn % 3 != 0).cloned();
            let sent = self.send();
            let answer = self.ask(node, (TARGET, name), token, known.as_ref().map(|(tag, _)| tag)).await;
            let got = answer.as_ref().map(|(got, _)| got);
            self.take(node, Kind::Known, &sent, got);
            if let Some((got, tag)) = answer {
                let version = if got.status == 304 { known.and_then(|(_, version)| version) } else { got.version };
                if let Some(version) = version.filter(|_| name == SUPERGRAPH) {
                    self.show(node, &sent, version);
                }
                if let (200, Some(tag)) = (got.status, tag) {
                    kept.insert(name, (tag, version));
                }
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Asks a node for one artifact after the other that it has not read yet; when the origins are back, first for those that
    /// it could not hand out.
    async fn read_new(self: Arc<Self>, node: usize) {
        let Some(token) = self.tokens.first() else { return };
        for build in 0..BUILDS {
            if self.is_over() {
                return;
            }
            let sent = self.send();
            let again = if sent.turn.act == Some(Act::Back) {
                lock(&self.missed).get_mut(&node).and_then(VecDeque::pop_front)
            } else {
                None
            };
            let name = format!("builds/{}", again.unwrap_or(build));
            let answer = self.ask(node, (TARGET, &name), token, None).await;
            let got = answer.map(|(got, _)| got);
            let act = self.take(node, Kind::New, &sent, got.as_ref());
            if act.is_some_and(Act::is_dark) && got.is_some_and(|got| got.status == 503) {
                lock(&self.missed).entry(node).or_default().push_back(build);
            }
            tokio::time::sleep(if again.is_some() { REST } else { LONG_REST }).await;
        }
    }

    /// Asks a node for what is not there, all the time.
    async fn read_absent(self: Arc<Self>, node: usize) {
        let Some(token) = self.tokens.first() else { return };
        for number in 0_usize.. {
            if self.is_over() {
                return;
            }
            let sent = self.send();
            let answer = self.ask(node, (TARGET, &format!("gone/{number}")), token, None).await;
            self.take(node, Kind::Absent, &sent, answer.map(|(got, _)| got).as_ref());
            tokio::time::sleep(LONG_REST).await;
        }
    }

    /// Shows a node the tokens that are taken back in the end, all the time.
    async fn probe(self: Arc<Self>, node: usize) {
        while !self.is_over() {
            for (probe, target) in &self.probes {
                let sent_ms = wall_ms();
                let answer = self.ask(node, (target, SUPERGRAPH), &probe.token, None).await;
                probe.note(node, sent_ms, answer.map(|(got, _)| got.status));
                tokio::time::sleep(PROBE_REST).await;
            }
        }
    }
}
