//! A state's fingerprint: equal for states that cannot be told apart by anything that may still happen.
//!
//! Times count from now, and an age beyond every threshold is as good as any other; write ids are numbered in the
//! order in which they turn up; generations count from the newest; nodes are put in an order of their own; what no
//! later step can read is left out. `Scenario::is_raw` turns all of that off, which is how it is checked.

use keyreeve_core::id::{Holder, WriteId};
use keyreeve_core::record::{Credential, Record};
use keyreeve_core::rules::{Mode, Rules};
use keyreeve_core::time::{Mono, Timestamp};

use super::laws::minted_at;
use super::machine::{HeldFacts, Machine, Sight, Stage};
use super::scenario::{Calm, Scenario};
use super::world::{Node, Outcome, Reply, World, Write, index_of, number_of};

/// A fingerprint of 64 bits.
pub type Print = u64;

const K0: u64 = 0xa076_1d64_78bd_642f;
const K1: u64 = 0xe703_7ed1_a0b4_28db;

#[derive(Clone, Copy)]
struct Ink(u64);

impl Ink {
    #[expect(clippy::cast_possible_truncation, reason = "both halves of the product are wanted")]
    const fn put(&mut self, word: u64) {
        // wyhash's mixing step: a full 64 x 64 bit product, folded.
        let product = (self.0 ^ word ^ K0) as u128 * (self.0.rotate_left(32) ^ K1) as u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ word.rotate_left(23);
    }

    fn put_all(&mut self, words: &[u64]) {
        for word in words {
            self.put(*word);
        }
    }
}

const NONE: u64 = u64::MAX;

struct Canon<'a, M, V> {
    world: &'a World<M, V>,
    scenario: &'a Scenario,
    ink: Ink,
    /// Write ids in the order of their turning up.
    names: Vec<WriteId>,
    /// Nodes in canonical order.
    order: Vec<usize>,
    attempted: u64,
    published: u64,
    /// How far behind true time any wall clock is, or can come to be.
    slowest: u64,
}

/// The fingerprint of `world`.
#[must_use]
pub fn print<M: Machine, V: Sight>(world: &World<M, V>, scenario: &Scenario) -> Print {
    let register = world.register.as_ref();
    let mut canon = Canon {
        world,
        scenario,
        ink: Ink(K1),
        names: Vec::with_capacity(16),
        order: (0..world.nodes.len()).collect(),
        attempted: if scenario.is_raw { 0 } else { register.map_or(0, |record| record.generation) },
        slowest: slowest(world, scenario),
        published: if scenario.is_raw {
            0
        } else {
            register.and_then(|record| record.newest()).map_or(0, |newest| newest.generation)
        },
    };
    canon.world();
    canon.ink.0
}

fn slowest<M, V>(world: &World<M, V>, scenario: &Scenario) -> u64 {
    let now = world.nodes.iter().map(|node| node.wall_off.min(node.raw_off));
    let jump = if world.left.jumps > 0 { scenario.jumps.iter().copied().min().unwrap_or(0) } else { 0 };
    let then = scenario.offsets.iter().map(|offset| offset + jump.min(0));
    now.chain(then).min().unwrap_or(0).min(0).unsigned_abs()
}

impl<M: Machine, V: Sight> Canon<'_, M, V> {
    fn world(&mut self) {
        let world = self.world;
        let left = world.left;
        let calm = world.calm_since.map_or(NONE, |since| match self.scenario.calm {
            Calm::Within(_) => world.at - since,
            _ => 0,
        });
        self.ink.put_all(&[
            u64::from_le_bytes([
                left.crashes,
                left.lost,
                left.failures,
                left.refusals,
                left.jumps,
                left.failovers,
                left.verdicts,
                0,
            ]),
            calm,
            if self.scenario.is_raw || self.scenario.ticks_max.is_some() { world.at } else { 0 },
            // A slow clock's ticks come round every three.
            if self.scenario.slow.is_some() { world.at % 3 } else { 0 },
        ]);
        if !self.scenario.is_raw {
            let mut order = std::mem::take(&mut self.order);
            order.sort_by_cached_key(|index| self.rough(*index));
            self.order = order;
        }
        self.maybe_record(world.register.as_deref());
        match &world.before {
            Some(before) => self.maybe_record(before.as_deref()),
            None => self.ink.put(NONE - 1),
        }
        for place in 0..self.order.len() {
            let index = self.order.get(place).copied().unwrap_or_default();
            if let Some(node) = world.nodes.get(index) {
                self.node(index, node);
            }
        }
        self.under_way();
        self.upstream();
    }

    /// A key to order nodes by, without any reference to other nodes.
    fn rough(&self, index: usize) -> (u64, u64, u64, u64) {
        let Some(node) = self.world.nodes.get(index) else { return (0, 0, 0, 0) };
        let memory = node.machine.memory();
        let (stage, age) = match memory.stage {
            Stage::Idle => (0, 0),
            Stage::Acquiring { asked_at, .. } => (1, self.age(index, asked_at, self.rules().send_ms + 1)),
            Stage::Minting { asked_at, .. } => (2, self.age(index, asked_at, self.rules().lease_ms)),
            Stage::Settling { .. } => (3, 0),
        };
        let seen = memory.intent_seen.map_or(NONE, |(_, since)| self.age(index, since, self.patience()));
        let last = memory.last_seen.map_or(NONE, |(_, since)| self.age(index, since, self.rules().min_interval_ms));
        let reply = node.flight.as_ref().map_or(9, |flight| flight.reply as u64);
        let [current, next] = node.view.held().map(|held| held.map_or(NONE, |held| self.generation(held.generation)));
        let clocks = node.wall_off.cast_unsigned().rotate_left(16) ^ node.raw_off.cast_unsigned();
        let held = (current ^ next.rotate_left(20)).wrapping_mul(K0);
        (clocks, stage * 1000 + age * 10 + reply, seen, last ^ held)
    }

    const fn rules(&self) -> &Rules {
        &self.scenario.rules
    }

    /// The longest wait that is measured from when an intent was seen.
    const fn patience(&self) -> u64 {
        let rules = self.rules();
        match rules.mode {
            Mode::Lease => rules.takeover_ms,
            _ => {
                let spacing = rules.mint_window_ms() + rules.min_interval_ms;
                if spacing > rules.takeover_ms { spacing } else { rules.takeover_ms }
            }
        }
    }

    /// How long ago, as far as it matters up to `most`.
    fn age(&self, index: usize, since: Mono, most: u64) -> u64 {
        if self.scenario.is_raw { since.0 } else { self.scenario.mono(index, self.world.at).since(since).min(most) }
    }

    /// When, counted from now, if it is not further back than `back` by every clock.
    fn when(&self, at: Timestamp, back: u64) -> u64 {
        if self.scenario.is_raw {
            return at.0;
        }
        let floor = self.world.at.saturating_sub(back + self.slowest);
        at.0.max(floor).wrapping_sub(self.world.at)
    }

    fn name(&mut self, op: WriteId) -> u64 {
        if self.scenario.is_raw {
            return number_of(op);
        }
        if let Some(place) = self.names.iter().position(|name| *name == op) {
            return place as u64;
        }
        self.names.push(op);
        self.names.len() as u64 - 1
    }

    fn is_known(&self, op: WriteId) -> bool {
        self.scenario.is_raw || self.names.contains(&op)
    }

    /// Attempts count back from the newest one, published generations from the newest of theirs.
    fn generation(&self, generation: u64) -> u64 {
        if self.scenario.is_raw {
            generation
        } else if generation > self.published {
            self.attempted.wrapping_sub(generation).wrapping_add(1000).max(995)
        } else {
            (self.published - generation).min(3)
        }
    }

    fn attempt(&self, generation: u64) -> u64 {
        if self.scenario.is_raw {
            generation
        } else {
            self.attempted.wrapping_sub(generation).wrapping_add(1000).min(1004)
        }
    }

    fn holder(&self, holder: &Holder) -> u64 {
        let index = index_of(&holder.node);
        if self.scenario.is_raw {
            return index as u64 * 1000 + holder.boot;
        }
        let is_alive = self.world.nodes.get(index).is_some_and(|node| node.me == *holder);
        if !is_alive && !self.scenario.is_dead_named {
            return 100;
        }
        let place = self.order.iter().position(|at| *at == index).unwrap_or(99) as u64;
        place + if is_alive { 200 } else { 300 }
    }

    fn maybe_record(&mut self, record: Option<&Record>) {
        match record {
            Some(record) => self.record(record),
            None => self.ink.put(NONE),
        }
    }

    fn record(&mut self, record: &Record) {
        let is_known = self.is_known(record.op) && !self.scenario.is_raw;
        let name = self.name(record.op);
        self.ink.put(name);
        if is_known {
            // A write id stands for the bytes it was written with.
            self.ink.put(NONE - 2);
        }
        let needs_wall = self.rules().is_clock_trusted;
        let generation = self.attempt(record.generation);
        let faults = self.scenario.faults;
        // Only a failure takes its time from here.
        let has_failures = faults.failures > 0 || faults.lost > 0;
        let written_at = if needs_wall && has_failures { self.when(record.written_at, 0) } else { 0 };
        self.ink.put_all(&[generation, written_at]);
        if self.scenario.has_past() || self.scenario.is_raw {
            let there = self.world.register.as_ref().map_or(0, |r| r.rev);
            // A read is at most one write behind, so more than that makes no difference.
            let rev = if self.scenario.is_raw { record.rev } else { (record.rev + 3).saturating_sub(there) };
            self.ink.put(rev);
        }
        self.maybe_credential(record.current.as_ref());
        self.maybe_credential(record.next.as_ref());
        self.intent(record);
        match record.last {
            Some(last) => {
                let window = self.rules().min_interval_ms + 2 * self.rules().skew_ms;
                let at_most = if needs_wall { self.when(last.at_most, window) } else { 0 };
                self.ink.put(at_most);
            }
            None => self.ink.put(NONE),
        }
        match &record.failure {
            Some(failure) => {
                let window = failure.hold_ms + 2 * self.rules().skew_ms;
                let at = if needs_wall { self.when(failure.at, window) } else { 0 };
                self.ink.put_all(&[failure.hold_ms, at]);
            }
            None => self.ink.put(NONE),
        }
        let is_forced = record.newest().is_some_and(|newest| record.renew == Some(newest.generation));
        self.ink.put(u64::from(is_forced));
        if self.scenario.is_raw {
            self.ink.put(record.renew.unwrap_or(NONE));
        }
    }

    fn intent(&mut self, record: &Record) {
        let Some(intent) = &record.intent else {
            self.ink.put(NONE);
            return;
        };
        let rules = self.rules();
        let reach = rules.lease_ms.max(rules.mint_window_ms() + rules.min_interval_ms) + 2 * rules.skew_ms;
        let needs_start = rules.is_clock_trusted || self.scenario.faults.verdicts > 0;
        let started_at = if needs_start { self.when(intent.started_at, reach) } else { 0 };
        let inputs = if rules.mode == Mode::Replay {
            let reach = rules.min_interval_ms + rules.backdate_ms;
            [self.when(intent.issued_at, reach), self.when(intent.expires_at, 0)]
        } else {
            [0, 0]
        };
        let reads_doubt = self.scenario.faults.verdicts > 0 || rules.mode == Mode::Lease;
        let op = self.name(intent.op);
        let holder = self.holder(&intent.holder);
        let has_doubt = reads_doubt && intent.doubt.is_some();
        let flags = u64::from(intent.is_replay) + 2 * u64::from(has_doubt) + 4 * u64::from(intent.is_spent);
        self.ink.put_all(&[op, self.attempt(intent.generation), holder, started_at, flags, inputs[0], inputs[1]]);
    }

    fn maybe_credential(&mut self, credential: Option<&Credential>) {
        let Some(credential) = credential else {
            self.ink.put(NONE);
            return;
        };
        let rules = self.rules();
        let minted = self.when(Timestamp(minted_at(credential)), rules.min_interval_ms);
        let issued = if rules.mode == Mode::Replay {
            self.when(credential.issued_at, rules.min_interval_ms + rules.backdate_ms)
        } else {
            0
        };
        let use_from = if rules.handover_ms > 0 { self.when(credential.use_from, rules.min_interval_ms) } else { 0 };
        let words = [
            self.generation(credential.generation),
            minted,
            issued,
            if self.reads_expiry() { self.when(credential.expires_at, 0) } else { 0 },
            self.when(credential.refresh_at, 0),
            use_from,
        ];
        self.ink.put_all(&words);
    }

    /// Whether anything looks at when a published credential expires.
    const fn reads_expiry(&self) -> bool {
        self.scenario.has_readers || self.rules().handover_ms > 0 || !matches!(self.scenario.calm, Calm::Never)
    }

    fn node(&mut self, index: usize, node: &Node<M, V>) {
        let memory = node.machine.memory();
        let looks_at = if self.scenario.calm == Calm::Never && !self.scenario.is_raw {
            0
        } else {
            node.looks_at.since(self.scenario.mono(index, self.world.at))
        };
        let served = if node.served == 0 { NONE } else { self.generation(node.served) };
        self.ink.put_all(&[
            node.wall_off.cast_unsigned(),
            node.raw_off.cast_unsigned(),
            u64::from(node.is_dead),
            looks_at,
            if self.scenario.has_readers { served } else { 0 },
        ]);
        self.stage(index, node);
        self.waits(index, node);
        let there = self.world.register.as_deref();
        let past = self.world.before.as_ref().and_then(|before| before.as_deref());
        let (seen, since) = match memory.intent_seen {
            // Where the intent is gone, the next read replaces what was seen.
            Some((op, since)) if self.is_known(op) => (self.name(op), self.age(index, since, self.patience())),
            _ => (NONE, 0),
        };
        self.ink.put_all(&[seen, since]);
        let sent = memory.sent.filter(|op| self.is_known(*op)).map_or(NONE, |op| self.name(op));
        self.ink.put(sent);
        let last = memory.last_seen.and_then(|(last, since)| {
            let which = [there, past].iter().position(|r| r.is_some_and(|r| r.last == Some(last)))?;
            Some([which as u64, self.age(index, since, self.rules().min_interval_ms)])
        });
        self.ink.put_all(&last.unwrap_or([NONE, 0]));
        let failure = memory.failure_seen.and_then(|(count, at, since)| {
            let is_it = |r: &Record| r.failure.as_ref().is_some_and(|f| (f.count, f.at) == (count, at));
            let which = [there, past].iter().position(|r| r.is_some_and(is_it))?;
            Some([which as u64, self.age(index, since, self.rules().hold_ms_max)])
        });
        self.ink.put_all(&failure.unwrap_or([NONE, 0]));
        if self.scenario.has_readers {
            for held in node.view.held() {
                self.held(index, held);
            }
        }
    }

    fn held(&mut self, index: usize, held: Option<HeldFacts>) {
        let Some(held) = held else {
            self.ink.put(NONE);
            return;
        };
        let ahead = |mono: Mono| {
            if self.scenario.is_raw { mono.0 } else { mono.since(self.scenario.mono(index, self.world.at)) }
        };
        let (use_wall, use_mono) = if self.rules().handover_ms > 0 {
            (self.when(held.use_from, 0), ahead(held.use_from_mono))
        } else {
            (0, 0)
        };
        let words = [
            self.generation(held.generation),
            self.when(held.expires_at, 0),
            ahead(held.expires_mono),
            use_wall,
            use_mono,
        ];
        self.ink.put_all(&words);
    }

    /// Whether a publication over `op` can still be made.
    fn is_over(&self, op: Option<WriteId>) -> bool {
        !self.scenario.is_raw
            && self.scenario.is_fence_final()
            && self.world.register.as_ref().map(|record| record.op) != op
    }

    fn stage(&mut self, index: usize, node: &Node<M, V>) {
        match node.machine.memory().stage {
            Stage::Idle => self.ink.put(1),
            Stage::Acquiring { asked_at, record } => {
                let is_lost = node.flight.as_ref().is_some_and(|flight| flight.reply == Reply::Lost);
                self.ink.put(2);
                if is_lost && !self.scenario.is_raw && self.scenario.calm == Calm::Never {
                    return;
                }
                let age = self.age(index, asked_at, self.rules().send_ms + 1);
                self.ink.put(age);
                let is_made = node.flight.as_ref().is_some_and(|flight| flight.reply == Reply::Done);
                let is_late = is_made && age > self.rules().send_ms && self.scenario.calm == Calm::Never;
                if is_late && self.scenario.forgets_late && !self.scenario.is_raw {
                    return;
                }
                self.record(record);
            }
            Stage::Minting { asked_at, record } => {
                let age = self.age(index, asked_at, self.rules().lease_ms);
                self.ink.put_all(&[3, age]);
                if self.is_over(Some(record.op)) {
                    self.ink.put(NONE);
                } else {
                    self.record(record);
                }
            }
            Stage::Settling { base, record } => {
                self.ink.put(4);
                let is_made = node.flight.as_ref().is_some_and(|flight| flight.reply == Reply::Done);
                let is_there = self.world.register.as_ref().map(|r| r.op) == Some(record.op);
                if self.is_over(base) && !is_there && !is_made {
                    let rev = self.world.register.as_ref().map_or(0, |there| there.rev);
                    let behind = if self.scenario.has_past() { rev.wrapping_sub(record.rev).min(3) } else { 0 };
                    self.ink.put_all(&[NONE, behind]);
                } else {
                    let base = base.map_or(NONE, |op| self.name(op));
                    self.ink.put(base);
                    self.record(record);
                }
            }
        }
    }

    fn waits(&mut self, index: usize, node: &Node<M, V>) {
        match &node.flight {
            Some(flight) => {
                let sent = if self.scenario.calm == Calm::Never {
                    0
                } else {
                    (self.world.at - flight.sent_at).min(self.scenario.swap_timeout)
                };
                self.ink.put_all(&[5 + flight.reply as u64, sent]);
                if flight.reply == Reply::Pending || self.scenario.is_raw {
                    let expected = flight.write.expected.map_or(NONE, |op| self.name(op));
                    self.ink.put(expected);
                }
            }
            None => self.ink.put(NONE),
        }
        let Some(call) = &node.call else {
            self.ink.put(NONE);
            return;
        };
        let answer_by = call.order.answer_by.since(self.scenario.mono(index, self.world.at));
        let answer_by = if self.scenario.calm == Calm::Never { 0 } else { answer_by };
        let is_late = match node.machine.memory().stage {
            Stage::Minting { record, .. } => self.is_over(Some(record.op)),
            _ => false,
        };
        match call.outcome {
            // Whatever it is, it cannot be published.
            Outcome::Minted(..) if is_late => self.ink.put(5),
            outcome => self.call(&call.order, call.until, outcome),
        }
        self.ink.put(answer_by);
    }

    fn call(&mut self, order: &keyreeve_core::lifecycle::Order, until: u64, outcome: Outcome) {
        let generation = self.attempt(order.generation);
        let inputs = if self.rules().mode == Mode::Replay {
            let reach = self.rules().min_interval_ms + self.rules().backdate_ms;
            [self.when(order.issued_at, reach), self.when(order.expires_at, 0)]
        } else {
            [0, 0]
        };
        let is_absolute = self.scenario.is_raw || until == u64::MAX;
        let ahead = if is_absolute { until } else { until.wrapping_sub(self.world.at) };
        match outcome {
            Outcome::Asked => self.ink.put_all(&[1, generation, ahead, inputs[0], inputs[1]]),
            _ => self.outcome(outcome),
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Asked => self.ink.put(1),
            Outcome::Minted(at, issued_at, expires_at) => {
                let words = [
                    2,
                    self.when(Timestamp(at), self.rules().min_interval_ms),
                    self.when(issued_at, self.rules().min_interval_ms),
                    self.when(expires_at, 0),
                ];
                self.ink.put_all(&words);
            }
            Outcome::Failed => self.ink.put(3),
            Outcome::Never => self.ink.put(4),
        }
    }

    fn under_way(&mut self) {
        let start = self.ink;
        // In any order: each is hashed by itself, and the hashes are added up.
        let mut sum = 0_u64;
        for Write { expected, record } in &self.world.orphans {
            self.ink = Ink(K0);
            let expected = expected.map_or(NONE, |op| self.name(op));
            self.ink.put(expected);
            let names = self.names.len();
            self.record(record);
            if self.scenario.is_fence_final() {
                // Nothing else can refer to what only this swap would write.
                self.names.truncate(names);
            }
            sum = sum.wrapping_add(self.ink.0);
        }
        let mut calls = 0_u64;
        for call in &self.world.strays {
            self.ink = Ink(K1);
            self.call(&call.order, call.until, call.outcome);
            calls = calls.wrapping_add(self.ink.0);
        }
        self.ink = start;
        self.ink.put_all(&[sum, calls, self.world.orphans.len() as u64]);
    }

    fn upstream(&mut self) {
        let upstream = &self.world.upstream;
        let last = upstream.last_mint_at.map_or(NONE, |at| self.when(Timestamp(at), self.rules().min_interval_ms));
        let needs_last = self.rules().mode != Mode::Lease || self.scenario.is_raw;
        self.ink.put(if needs_last { last } else { 0 });
        match upstream.attempted {
            Some(attempted) if self.scenario.is_raw => self.ink.put_all(&[attempted.0, attempted.1.0, attempted.2.0]),
            Some(attempted) => {
                let intent = self.world.register.as_ref().and_then(|record| record.intent.as_ref());
                let is_same = intent.is_some_and(|i| (i.generation, i.issued_at, i.expires_at) == attempted);
                // What is older than anything that may still be sent is as good as any other.
                let floor = self.oldest_unsent().saturating_sub(1);
                let behind = self.attempted.wrapping_sub(attempted.0.max(floor)).min(4);
                self.ink.put_all(&[u64::from(is_same), behind]);
            }
            None => self.ink.put(NONE),
        }
        for (generation, outcome) in &upstream.minted {
            let generation = self.attempt(*generation);
            self.ink.put(generation);
            self.outcome(*outcome);
        }
    }

    /// The oldest generation that some node may still ask the upstream for.
    fn oldest_unsent(&self) -> u64 {
        let nodes = self.world.nodes.iter().enumerate();
        let asking = nodes.filter_map(|(index, node)| match node.machine.memory().stage {
            Stage::Acquiring { asked_at, record }
                if !self.scenario.forgets_late || self.age(index, asked_at, 99) <= self.rules().send_ms =>
            {
                Some(record.generation)
            }
            _ => None,
        });
        asking.min().unwrap_or(self.attempted).min(self.attempted)
    }
}
