//! A whole fleet at one moment: true time, every node, the register, the upstream, and what is under way between them.

use std::sync::Arc;

use keyreeve_core::id::{Holder, NodeId, WriteId};
use keyreeve_core::lifecycle::{Context, Event, Order, Step};
use keyreeve_core::record::Record;
use keyreeve_core::rules::Mode;
use keyreeve_core::time::{Moment, Mono, Timestamp};

use super::laws::{Broken, Law, judge_write};
use super::machine::{Machine, Sight, Stage};
use super::scenario::{Calm, Compare, Faults, Scenario};
use super::search::Tally;

/// True time at the start. Large enough that nothing ever reaches back to 1970.
pub const START: u64 = 999;

/// A swap on its way.
#[derive(Clone, Debug)]
pub struct Write {
    /// What must be there.
    pub expected: Option<WriteId>,
    /// What to put there.
    pub record: Arc<Record>,
}

/// Where the answer to a swap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The register has not seen the swap yet.
    Pending,
    /// The swap was made; the answer is on its way.
    Done,
    /// The swap was not made; the answer is on its way.
    Lost,
    /// No answer will come.
    Never,
}

/// A swap that a node waits for.
#[derive(Clone, Debug)]
pub struct Flight {
    /// What was sent.
    pub write: Write,
    /// Where its answer is.
    pub reply: Reply,
    /// When it was sent, in true time.
    pub sent_at: u64,
}

/// Where a mint call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The upstream has not acted on it yet.
    Asked,
    /// Minted at this true time, with this issue and expiry time; the answer is on its way.
    Minted(u64, Timestamp, Timestamp),
    /// The upstream says that nothing was minted.
    Failed,
    /// No answer will come.
    Never,
}

/// A mint call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was asked for.
    pub order: Order,
    /// The last true time at which the upstream can act on it.
    pub until: u64,
    /// Where it is.
    pub outcome: Outcome,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node<M, V> {
    /// Its renewal machine.
    pub machine: M,
    /// What its readers are served from.
    pub view: V,
    /// Its name in this life.
    pub me: Holder,
    /// Its estimate of wall-clock time, less true time.
    pub wall_off: i64,
    /// What its wall clock says, less true time.
    pub raw_off: i64,
    /// The swap it waits for.
    pub flight: Option<Flight>,
    /// The mint call it waits for.
    pub call: Option<Call>,
    /// When it means to look again, by its monotonic clock.
    pub looks_at: Mono,
    /// The newest generation that a reader was handed here.
    pub served: u64,
    /// Crashed and not back yet.
    pub is_dead: bool,
}

impl<M, V> Node<M, V> {
    /// Whether the swap it waits for was not made.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.reply == Reply::Lost)
    }
}

/// The source of credentials.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// When it minted last, in true time.
    pub last_mint_at: Option<u64>,
    /// Which generations it has minted, for callers that ask again (replay mode).
    pub minted: Vec<(u64, Outcome)>,
    /// The newest generation it was asked for, and with which inputs.
    pub attempted: Option<(u64, Timestamp, Timestamp)>,
}

/// A whole fleet at one moment.
#[derive(Clone, Debug)]
pub struct World<M, V> {
    /// True time, and the upstream's clock.
    pub at: u64,
    /// What the register holds.
    pub register: Option<Arc<Record>>,
    /// What it held before, where that can be seen or come back.
    pub before: Option<Option<Arc<Record>>>,
    /// The nodes.
    pub nodes: Vec<Arc<Node<M, V>>>,
    /// Swaps that nobody waits for any more.
    pub orphans: Vec<Write>,
    /// Mint calls that nobody waits for any more.
    pub strays: Vec<Call>,
    /// The source.
    pub upstream: Upstream,
    /// What may still go wrong.
    pub left: Faults,
    /// Since when everything is prompt.
    pub calm_since: Option<u64>,
    /// How many write ids have been used.
    pub writes: u64,
    /// The laws that the step to this state broke.
    pub broken: Broken,
}

/// The number of a write id; the walk draws them in order.
#[must_use]
pub const fn number_of(op: WriteId) -> u64 {
    match op.0.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => 0,
    }
}

/// The write id with this number.
pub(super) fn write_id(number: u64) -> WriteId {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(number.to_be_bytes()) {
        *to = from;
    }
    WriteId(bytes)
}

fn node_name(index: usize) -> Option<NodeId> {
    NodeId::parse(["a", "b", "c", "d"].get(index)?).ok()
}

/// The place of a node in its world.
#[must_use]
pub fn index_of(node: &NodeId) -> usize {
    node.as_str().bytes().next().map_or(0, |byte| usize::from(byte.saturating_sub(b'a')))
}

impl<M: Machine, V: Sight> World<M, V> {
    /// The beginning: an empty register, and a fleet that has just started.
    #[must_use]
    pub fn first(scenario: &Scenario) -> Self {
        let nodes = scenario.offsets.iter().enumerate().filter_map(|(index, offset)| {
            Some(Arc::new(Node {
                machine: M::default(),
                view: V::default(),
                me: Holder { node: node_name(index)?, boot: 1 },
                wall_off: *offset,
                raw_off: *offset,
                flight: None,
                call: None,
                looks_at: scenario.mono(index, START),
                served: 0,
                is_dead: false,
            }))
        });
        Self {
            at: START,
            register: None,
            before: None,
            nodes: nodes.collect(),
            orphans: Vec::new(),
            strays: Vec::new(),
            // Where an empty register is no proof that nothing was minted, something was, just now.
            upstream: Upstream {
                last_mint_at: scenario.rules.first_mint_waits.then_some(START),
                ..Upstream::default()
            },
            left: scenario.faults,
            calm_since: (scenario.calm == Calm::Always).then_some(START),
            writes: 1,
            broken: Broken::default(),
        }
    }

    /// Both clocks of a node.
    #[must_use]
    pub fn moment(&self, scenario: &Scenario, index: usize) -> Moment {
        let off = |by: i64| Timestamp(self.at.saturating_add_signed(by));
        let (wall, raw) = self.nodes.get(index).map_or((0, 0), |node| (node.wall_off, node.raw_off));
        Moment { wall: off(wall), raw: off(raw), mono: scenario.mono(index, self.at) }
    }

    /// Hands a node an event, and does what it says as far as that needs nobody else.
    pub fn feed(&mut self, scenario: &Scenario, index: usize, event: Event, tally: &mut Tally) {
        let now = self.moment(scenario, index);
        let fresh = write_id(self.writes);
        let (at, attempted) = (self.at, self.upstream.attempted);
        let Some(node) = self.nodes.get_mut(index).map(Arc::make_mut) else { return };
        let published = match (&event, node.machine.memory().stage) {
            (Event::Read(found), _) => found.clone(),
            (Event::Swapped, Stage::Settling { record, .. }) => Some(Arc::clone(record)),
            _ => None,
        };
        if let Some(view) = published.and_then(|record| node.view.adopt(&record, now)) {
            node.view = view;
        }
        let me = node.me.clone();
        let step = node.machine.step(Context { rules: &scenario.rules, me: &me, now, fresh }, event);
        node.looks_at = now.mono;
        match step {
            Step::Rest { for_ms, .. } => node.looks_at = now.mono.plus(for_ms),
            Step::Read => {}
            Step::Swap { expected, record } => {
                self.writes += u64::from(record.op == fresh);
                node.flight = Some(Flight { write: Write { expected, record }, reply: Reply::Pending, sent_at: at });
            }
            Step::Mint(order) => {
                let lives = order.answer_by.since(now.mono);
                let until = if scenario.is_mint_immortal { u64::MAX } else { at.saturating_add(lives) };
                tally.mints_asked += 1;
                tally.replays += u64::from(order.is_replay);
                self.attempt(scenario, &order, attempted);
                if let Some(node) = self.nodes.get_mut(index).map(Arc::make_mut) {
                    node.call = Some(Call { order, until, outcome: Outcome::Asked });
                }
            }
        }
    }

    fn attempt(&mut self, scenario: &Scenario, order: &Order, before: Option<(u64, Timestamp, Timestamp)>) {
        let this = (order.generation, order.issued_at, order.expires_at);
        if let Some(before) = before {
            let is_repeat = scenario.rules.mode == Mode::Replay && before == this;
            if order.generation <= before.0 && !is_repeat {
                self.broken.note(Law::GenerationAttemptedOnce);
            }
        }
        if before.is_none_or(|before| before.0 <= order.generation) {
            self.upstream.attempted = Some(this);
        }
    }

    /// Whether the register would make this swap.
    #[must_use]
    pub fn would_make(&self, scenario: &Scenario, write: &Write) -> bool {
        let there = self.register.as_ref();
        match scenario.compare {
            Compare::WriteId => there.map(|record| record.op) == write.expected,
            Compare::Counter => there.map_or(0, |record| record.rev) + 1 == write.record.rev,
            Compare::Nothing => true,
        }
    }

    /// The register takes in a swap. Returns whether it was made.
    pub fn put(&mut self, scenario: &Scenario, write: &Write, tally: &mut Tally) -> bool {
        if !self.would_make(scenario, write) {
            return false;
        }
        let new = &write.record;
        judge_write(self.register.as_deref(), new, scenario.rules.min_interval_ms, &mut self.broken);
        let old_intent = self.register.as_ref().and_then(|record| record.intent.as_ref());
        if let (Some(old), Some(new)) = (old_intent, &new.intent) {
            tally.takeovers += u64::from(old.op != new.op && old.holder != new.holder);
        }
        let old = self.register.replace(Arc::clone(new));
        if scenario.has_past() {
            self.before = Some(old);
        }
        true
    }

    /// The upstream acts on an order.
    pub fn mint(&mut self, scenario: &Scenario, order: &Order, tally: &mut Tally) -> Outcome {
        let rules = &scenario.rules;
        let is_replay_mode = rules.mode == Mode::Replay;
        if is_replay_mode && let Some((_, same)) = self.upstream.minted.iter().find(|(g, _)| *g == order.generation) {
            return *same;
        }
        if rules.mode != Mode::Lease
            && self.upstream.last_mint_at.is_some_and(|last| self.at < last + rules.min_interval_ms)
        {
            self.broken.note(Law::MintsApart);
        }
        tally.minted += 1;
        self.upstream.last_mint_at = Some(self.at);
        let upstream_now = Timestamp(self.at);
        let outcome = if is_replay_mode {
            Outcome::Minted(self.at, order.issued_at, order.expires_at)
        } else {
            Outcome::Minted(self.at, upstream_now, upstream_now.plus(rules.life_ms))
        };
        if is_replay_mode {
            self.upstream.minted.push((order.generation, outcome));
        }
        outcome
    }

    /// Judges this state, and drops what can no longer matter.
    pub fn settle(&mut self, scenario: &Scenario) {
        self.judge_readers(scenario);
        self.judge_leases(scenario);
        self.tidy(scenario);
    }

    fn judge_readers(&mut self, scenario: &Scenario) {
        if !scenario.has_readers {
            return;
        }
        for index in 0..self.nodes.len() {
            let now = self.moment(scenario, index);
            let Some(node) = self.nodes.get_mut(index) else { continue };
            let Some(served) = node.view.serve(&scenario.rules, now).filter(|_| !node.is_dead) else { continue };
            if !served.is_stale && self.at >= served.expires_at.0 {
                self.broken.note(Law::NothingExpired);
            }
            if served.generation < node.served {
                self.broken.note(Law::ReaderNeverBack);
            }
            if served.generation > node.served {
                Arc::make_mut(node).served = served.generation;
            }
        }
    }

    fn judge_leases(&mut self, scenario: &Scenario) {
        let believers = self.nodes.iter().enumerate().filter(|(index, node)| {
            let mono = scenario.mono(*index, self.at);
            match node.machine.memory().stage {
                Stage::Minting { asked_at, .. } => !node.is_dead && mono < asked_at.plus(scenario.rules.lease_ms),
                _ => false,
            }
        });
        if believers.count() > 1 {
            self.broken.note(Law::OneMintPerLease);
        }
    }

    fn tidy(&mut self, scenario: &Scenario) {
        let at = self.at;
        self.strays.retain(|call| call.until >= at);
        if scenario.rules.mode == Mode::Replay && scenario.faults.failovers == 0 {
            let calls = self.nodes.iter().filter_map(|node| node.call.as_ref()).chain(&self.strays);
            let held = self.nodes.iter().filter_map(|node| match node.machine.memory().stage {
                Stage::Acquiring { record, .. } if !node.has_lost() => Some(record.generation),
                _ => None,
            });
            let there = self.register.as_ref().and_then(|record| record.intent.as_ref());
            let asked: Vec<_> = calls
                .map(|call| call.order.generation)
                .chain(held)
                .chain(there.map(|intent| intent.generation))
                .collect();
            self.upstream.minted.retain(|(generation, _)| asked.contains(generation));
        }
        if !scenario.is_fence_final() {
            return;
        }
        let there = self.register.as_ref().map(|record| record.op);
        self.orphans.retain(|write| write.expected == there);
        for node in &mut self.nodes {
            let is_doomed = node
                .flight
                .as_ref()
                .is_some_and(|flight| flight.reply == Reply::Pending && flight.write.expected != there);
            if is_doomed && let Some(flight) = Arc::make_mut(node).flight.as_mut() {
                flight.reply = Reply::Lost;
            }
        }
    }
}
