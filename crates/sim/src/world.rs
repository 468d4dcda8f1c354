//! A world of nodes under one simulated time: no threads, no sleeping, every choice from the seed.
//!
//! What is true is [`World::now`]; what a node believes comes through its [`SimHost`]. Events happen in the order of
//! their times; between two of them every task that can run does, in an order drawn from the seed. A crash drops all
//! tasks of a node and leaves what it sent on its way; a pause leaves the tasks where they are while time goes on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;
use futures::future::BoxFuture;
use keyreeve::port::Host;
use keyreeve_core::time::{Moment, Mono, Steady, Timestamp};

use crate::chance::Chance;

/// Where simulated time begins, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_800_000_000_000;
/// Most polls in a row without time going on: more is a task that spins.
const POLLS_MAX: u32 = 20_000;
/// Most violations kept of one run.
const VIOLATIONS_MAX: usize = 8;

/// A node's number.
pub type Node = usize;

type Event = Box<dyn FnOnce(&Arc<World>) + Send>;

/// Time, chance, tasks, and what happened.
pub struct World {
    state: Mutex<State>,
    tasks: Mutex<BTreeMap<u64, Task>>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

struct State {
    now_ms: u64,
    sequence: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    chance: Chance,
    nodes: Vec<NodeState>,
    last_task: u64,
    log: Log,
}

struct Scheduled {
    at_ms: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.sequence) == (other.at_ms, other.sequence)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.sequence).cmp(&(other.at_ms, other.sequence))
    }
}

#[derive(Clone, Debug, Default)]
struct NodeState {
    is_up: bool,
    life: u64,
    paused_until_ms: u64,
    /// How far its wall clock is from the truth; the jump comes on top.
    offset_ms: i64,
    jump_ms: i64,
    /// Where its monotonic clock began in this life.
    mono_ms: u64,
}

struct Task {
    node: Node,
    life: u64,
    future: BoxFuture<'static, ()>,
}

/// What happened in one run.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Every event, in words; empty unless the world records.
    pub lines: Vec<String>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// How often each kind of event happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// A hash over all events and their times: equal runs have equal hashes.
    pub hash: u64,
    is_recording: bool,
}

impl World {
    /// A world with `nodes` nodes, all of them down.
    #[must_use]
    pub fn new(chance: Chance, nodes: usize, is_recording: bool) -> Arc<Self> {
        let log = Log { is_recording, ..Log::default() };
        let state = State {
            now_ms: 0,
            sequence: 0,
            events: BinaryHeap::new(),
            chance,
            nodes: vec![NodeState::default(); nodes],
            last_task: 0,
            log,
        };
        Arc::new(Self { state: Mutex::new(state), tasks: Mutex::default(), ready: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True time, in milliseconds since the world began.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.lock().now_ms
    }

    /// Draws from the world's chance.
    pub fn draw<T>(&self, with: impl FnOnce(&mut Chance) -> T) -> T {
        with(&mut self.lock().chance)
    }

    /// Lets `event` happen at `at_ms`.
    pub fn at(&self, at_ms: u64, event: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let mut state = self.lock();
        let at_ms = at_ms.max(state.now_ms);
        state.sequence += 1;
        let sequence = state.sequence;
        state.events.push(Reverse(Scheduled { at_ms, sequence, event: Box::new(event) }));
    }

    /// Lets `event` happen in `in_ms` milliseconds.
    pub fn after(&self, in_ms: u64, event: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let now_ms = self.now();
        self.at(now_ms.saturating_add(in_ms), event);
    }

    /// Notes an event. `numbers` go into the hash; `more` is only asked for where the world records.
    pub fn note(&self, kind: &'static str, node: Node, numbers: [u64; 2], more: impl FnOnce() -> String) {
        let mut state = self.lock();
        let now_ms = state.now_ms;
        let log = &mut state.log;
        let [a, b] = numbers;
        for part in [now_ms, node as u64, a, b, kind.len() as u64].into_iter().chain(kind.bytes().map(u64::from)) {
            log.hash = (log.hash ^ part).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        *log.counts.entry(kind).or_default() += 1;
        if log.is_recording {
            let (s, ms) = (now_ms / 1000, now_ms % 1000);
            log.lines.push(format!("{s:>7}.{ms:03} node {node} {kind} {}", more()));
        }
    }

    /// Notes that something happened that must never happen.
    pub fn violated(&self, node: Node, what: impl Into<String>) {
        let what = what.into();
        self.note("VIOLATION", node, [0, 0], || what.clone());
        let mut state = self.lock();
        let text = format!("at {} s, node {node}: {what}", state.now_ms / 1000);
        if state.log.violations.len() < VIOLATIONS_MAX {
            state.log.violations.push(text);
        }
    }

    /// Whether something has happened that must never happen.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.lock().log.violations.is_empty()
    }

    /// Begins another life of a node, with a new monotonic clock. Returns the number of the life.
    pub fn boot(&self, node: Node, offset_ms: i64, jump_ms: i64) -> u64 {
        let mut state = self.lock();
        let mono_ms = state.chance.below(1 << 40);
        let Some(it) = state.nodes.get_mut(node) else { return 0 };
        *it = NodeState { is_up: true, life: it.life + 1, paused_until_ms: 0, offset_ms, jump_ms, mono_ms };
        let life = it.life;
        drop(state);
        self.note("boot", node, [life, offset_ms.unsigned_abs()], || format!("life {life}, clock {offset_ms:+} ms"));
        life
    }

    /// Ends a node's life: its memory and its tasks are gone, what it sent is not.
    pub fn crash(&self, node: Node) {
        if let Some(it) = self.lock().nodes.get_mut(node) {
            it.is_up = false;
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = tasks.extract_if(.., |_, task| task.node == node).collect();
        drop(tasks);
        // Dropped outside the lock: a task may hold the last handle of whatever locks it.
        drop(gone);
        self.note("crash", node, [0, 0], String::new);
    }

    /// Stops a node's tasks until `until_ms`; its requests and its clocks go on.
    pub fn pause(&self, node: Node, until_ms: u64) {
        if let Some(it) = self.lock().nodes.get_mut(node) {
            it.paused_until_ms = it.paused_until_ms.max(until_ms);
        }
        self.note("pause", node, [until_ms, 0], || format!("until {} s", until_ms / 1000));
        // Something must happen then, or the node's tasks would wait for somebody else's event.
        self.at(until_ms, move |world| world.note("resume", node, [0, 0], String::new));
    }

    /// Sets how far a node's wall clock has jumped, in milliseconds.
    pub fn jump(&self, node: Node, jump_ms: i64) {
        if let Some(it) = self.lock().nodes.get_mut(node) {
            it.jump_ms = jump_ms;
        }
        self.note("clock", node, [jump_ms.unsigned_abs(), u64::from(jump_ms < 0)], || format!("jumped {jump_ms:+} ms"));
    }

    /// Whether this life of the node goes on.
    #[must_use]
    pub fn is_alive(&self, node: Node, life: u64) -> bool {
        self.lock().nodes.get(node).is_some_and(|it| it.is_up && it.life == life)
    }

    /// Whether the node is up, in whatever life.
    #[must_use]
    pub fn is_up(&self, node: Node) -> bool {
        self.lock().nodes.get(node).is_some_and(|it| it.is_up)
    }

    fn spawn(&self, node: Node, life: u64, future: BoxFuture<'static, ()>) {
        if !self.is_alive(node, life) {
            return;
        }
        let id = {
            let mut state = self.lock();
            state.last_task += 1;
            state.last_task
        };
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Task { node, life, future });
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// Runs until `until_ms`, or until something has happened that must never happen.
    pub fn run(self: &Arc<Self>, until_ms: u64) {
        while !self.is_broken() {
            self.run_tasks();
            let event = {
                let mut state = self.lock();
                match state.events.peek() {
                    Some(Reverse(next)) if next.at_ms <= until_ms => {}
                    _ => {
                        state.now_ms = until_ms;
                        return;
                    }
                }
                let Some(Reverse(next)) = state.events.pop() else { return };
                state.now_ms = next.at_ms;
                next.event
            };
            event(self);
        }
    }

    fn run_tasks(self: &Arc<Self>) {
        for _ in 0..POLLS_MAX {
            let Some(id) = self.pick() else { return };
            let Some(mut task) = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) else {
                continue;
            };
            let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.ready) }));
            let poll = task.future.as_mut().poll(&mut Context::from_waker(&waker));
            if poll.is_pending() && self.is_alive(task.node, task.life) {
                self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(id, task);
            }
        }
        self.violated(0, "a task never rests");
    }

    /// One of the tasks that can run, drawn from the seed.
    fn pick(&self) -> Option<u64> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_empty() {
            return None;
        }
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        let now_ms = state.now_ms;
        ready.retain(|id| tasks.contains_key(id));
        let is_running = |node: Node| state.nodes.get(node).is_some_and(|it| it.paused_until_ms <= now_ms);
        let able: Vec<u64> =
            ready.iter().copied().filter(|id| tasks.get(id).is_some_and(|task| is_running(task.node))).collect();
        let id = state.chance.pick(&able).copied()?;
        ready.remove(&id);
        Some(id)
    }

    /// Ends the world: drops what is left, so that nothing keeps it alive, and returns what happened.
    #[must_use]
    pub fn end(&self) -> Log {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        drop(tasks);
        let events = std::mem::take(&mut self.lock().events);
        drop(events);
        self.lock().log.clone()
    }
}

struct TaskWaker {
    id: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(self.id);
    }
}

/// What one life of a node knows of time and chance.
pub struct SimHost {
    world: Arc<World>,
    node: Node,
    life: u64,
    steady: Mutex<Steady>,
}

impl SimHost {
    /// The host of one life.
    #[must_use]
    pub fn new(world: Arc<World>, node: Node, life: u64) -> Self {
        Self { world, node, life, steady: Mutex::default() }
    }

    /// How far the clock that this node goes by is from the truth, in milliseconds, at its latest reading: positive
    /// is ahead.
    #[must_use]
    pub fn error_ms(&self, reading: Timestamp) -> i64 {
        let truth = EPOCH_MS.saturating_add(self.world.now());
        i64::try_from(reading.0).unwrap_or(i64::MAX) - i64::try_from(truth).unwrap_or(i64::MAX)
    }
}

#[async_trait]
impl Host for SimHost {
    fn now(&self) -> Moment {
        let (raw, mono) = {
            let state = self.world.lock();
            let it = state.nodes.get(self.node).cloned().unwrap_or_default();
            let raw = EPOCH_MS.saturating_add(state.now_ms).saturating_add_signed(it.offset_ms + it.jump_ms);
            (Timestamp(raw), Mono(it.mono_ms + state.now_ms))
        };
        self.steady.lock().unwrap_or_else(PoisonError::into_inner).read(raw, mono)
    }

    async fn sleep_until(&self, until: Mono) {
        let at_ms = {
            let state = self.world.lock();
            until.0.saturating_sub(state.nodes.get(self.node).map_or(0, |it| it.mono_ms))
        };
        Sleep { world: &self.world, at_ms, is_set: false }.await;
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.world.draw(|chance| chance.fill(bytes));
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.world.spawn(self.node, self.life, task);
    }
}

struct Sleep<'a> {
    world: &'a World,
    at_ms: u64,
    is_set: bool,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now() >= self.at_ms {
            return Poll::Ready(());
        }
        if !self.is_set {
            self.is_set = true;
            // The task that polls first polls always: tasks own their futures.
            let waker = context.waker().clone();
            self.world.at(self.at_ms, move |_| waker.wake());
        }
        Poll::Pending
    }
}
