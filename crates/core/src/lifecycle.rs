//! The renewal protocol: one node's part in renewing one credential, as a state machine without I/O.
//!
//! A node calls [`Renewer::step`] with what happened and does what the returned [`Step`] says. Two compare-and-swaps
//! make a renewal: the first takes the lease and announces the mint in one write, the second publishes. Between
//! renewals nothing is written; there is no leader and no heartbeat.
//!
//! What holds, whatever crashes, pauses, or gets lost:
//! - no mint without a written intent, and none sooner than `min_interval` after one that may have happened;
//! - a publication is compared with the write id of its own intent, so a holder that was away too long changes
//!   nothing;
//! - a write whose answer was lost is neither done nor undone until a read tells.
//!
//! Every wait has two independent proofs that it is over, and either is enough: *observed*, by this node's monotonic
//! clock since it first saw the thing it waits for; *walled*, by the wall clock less the skew that the operator
//! vouches for. This module does not decide what readers are served: that is [`view`](crate::view).

use std::sync::Arc;

use crate::id::{Holder, WriteId};
use crate::record::{Credential, Failure, FaultClass, HistoryKind, Intent, LastMint, OneUse, Record, bounded};
use crate::rules::{Mode, OnDoubt, Rules};
use crate::schedule;
use crate::time::{Moment, Mono, Timestamp};

/// What does not change during one step.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The credential's numbers.
    pub rules: &'a Rules,
    /// This node, in this life.
    pub me: &'a Holder,
    /// Both clocks, read after the event came in.
    pub now: Moment,
    /// Sixteen fresh random bytes, in case the step writes.
    pub fresh: WriteId,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The register answered a read. A stale answer costs time, never correctness.
    Read(Option<Arc<Record>>),
    /// The register did not answer a read.
    ReadFailed,
    /// The register made the swap.
    Swapped,
    /// The register holds something else than was expected.
    SwapLost,
    /// No answer: the swap may or may not have been made.
    SwapUnknown,
    /// The register refused: the swap was not made, and not because of what it holds.
    SwapRefused,
    /// The source answered with a credential, sealed by now.
    Minted(Minted),
    /// The source says that nothing was minted.
    MintFailed(Fault),
    /// The source cannot say whether something was minted.
    MintUnknown(Fault),
    /// The source brought something that nobody can use, and asking again in the same way would bring the same.
    MintSpent(Fault),
    /// The source brought something that nobody can use, and with it what the next mint needs. That is sealed together with
    /// the newest published credential, in place of what that one had left; alone, where nothing is published.
    MintLeft(Fault, Vec<u8>),
}

/// A freshly minted credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// The seal envelope.
    pub sealed: Vec<u8>,
    /// Issue time.
    pub issued_at: Timestamp,
    /// Expiry.
    pub expires_at: Timestamp,
}

/// A failed mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What helps against it.
    pub class: FaultClass,
    /// The upstream's wish, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// For callers and the history; holds no secret.
    pub message: String,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for this long; then read.
    Rest {
        /// How long, in milliseconds.
        for_ms: u64,
        /// Why.
        why: Why,
    },
    /// Read the register.
    Read,
    /// Swap the record whose write id is `expected` (none: no record) for this one.
    Swap {
        /// What must be there.
        expected: Option<WriteId>,
        /// What to put there.
        record: Arc<Record>,
    },
    /// Ask the source for a credential.
    Mint(Order),
}

/// Why there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The published credential is not due.
    Fresh,
    /// Somebody else holds the lease.
    Held,
    /// An intent has no outcome, and it is too early to act on it.
    InDoubt,
    /// An intent has no outcome, and only an operator may act on it.
    NeedsOperator,
    /// The upstream does not allow the next mint yet.
    Floor,
    /// The fleet holds back after a failure.
    BackOff,
    /// The register does not answer.
    StoreAway,
}

impl Why {
    /// Every reason.
    pub const ALL: [Self; 7] =
        [Self::Fresh, Self::Held, Self::InDoubt, Self::NeedsOperator, Self::Floor, Self::BackOff, Self::StoreAway];

    /// The name used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Held => "held",
            Self::InDoubt => "in-doubt",
            Self::NeedsOperator => "needs-operator",
            Self::Floor => "floor",
            Self::BackOff => "back-off",
            Self::StoreAway => "store-away",
        }
    }
}

/// Permission for one mint. It ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// The generation to mint.
    pub generation: u64,
    /// The epoch it is minted in.
    pub epoch: u64,
    /// Issue time to sign.
    pub issued_at: Timestamp,
    /// Expiry to sign or ask for.
    pub expires_at: Timestamp,
    /// Whether it may have been minted before with the same inputs.
    pub is_replay: bool,
    /// The request must leave before this; else it must not leave at all.
    pub send_by: Mono,
    /// The request must be cut off at this.
    pub answer_by: Mono,
}

/// Where this node is in a renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not renewing.
    #[default]
    Idle,
    /// Waiting for the swap that takes the lease.
    Acquiring {
        /// Before the swap was sent.
        asked_at: Mono,
        /// What was sent.
        record: Arc<Record>,
    },
    /// Waiting for the source.
    Minting {
        /// Before the lease was asked for.
        asked_at: Mono,
        /// The record with the intent.
        record: Arc<Record>,
    },
    /// Waiting for the swap that records an outcome: a publication, a failure, a doubt, or the first record.
    Settling {
        /// The write it replaces; none for the first record.
        base: Option<WriteId>,
        /// What was sent.
        record: Arc<Record>,
    },
}

/// One node's memory of one credential's renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Renewer {
    phase: Phase,
    /// The intent last seen, and since when.
    intent_seen: Option<(WriteId, Mono)>,
    /// The last mint last seen, and since when.
    last_seen: Option<(LastMint, Mono)>,
    /// The failure last seen (count and time), and since when.
    failure_seen: Option<(u32, Timestamp, Mono)>,
    /// The intent under which a mint left this process and is not known to have failed.
    sent: Option<WriteId>,
    /// What is published is late by this node's own clocks, whatever they say about when it falls due.
    is_late: bool,
    /// This node has handed out generations up to this one.
    counted: u64,
}

impl Renewer {
    /// Where this node is in a renewal.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Says whether what is published is late by this node's own clocks ([`View::late_in`](crate::view::View::late_in)),
    /// or over. Then a renewal is due at once: either the clock by which this node learnt it was ahead, or the clock by
    /// which it falls due is behind. Whichever it is, the next generation ends it, and the floor bounds what it costs.
    pub const fn heed_own_clocks(&mut self, is_late: bool) {
        self.is_late = is_late;
    }

    /// Says up to which generation this node has handed out any. What it mints gets a higher number, also in a register that
    /// has counted less far: one that lost its records, or another one.
    pub const fn heed_count(&mut self, counted: u64) {
        self.counted = counted;
    }

    /// Takes in an event and says what to do. Events that the phase does not wait for are ignored.
    pub fn step(&mut self, ctx: Context<'_>, event: Event) -> Step {
        match (std::mem::take(&mut self.phase), event) {
            (Phase::Idle, Event::Read(record)) => self.look(ctx, record.as_deref()),
            (Phase::Settling { base, record }, Event::Read(found)) => self.settle(ctx, base, record, found.as_deref()),
            (Phase::Acquiring { asked_at, record }, Event::Swapped) => self.begin_mint(ctx, asked_at, record),
            (Phase::Minting { record, .. }, Event::Minted(minted)) => {
                let outcome = published(ctx, &record, minted);
                self.swap(&record, outcome)
            }
            (Phase::Minting { record, .. }, Event::MintFailed(fault)) => {
                self.sent = None;
                let outcome = failed(ctx, &record, &fault);
                self.swap(&record, outcome)
            }
            (Phase::Minting { record, .. }, Event::MintLeft(fault, sealed)) => {
                self.sent = None;
                let outcome = left_over(ctx, &record, &fault, sealed);
                self.swap(&record, outcome)
            }
            (Phase::Minting { record, .. }, Event::MintUnknown(fault)) => {
                let outcome = doubted(ctx, &record, &fault);
                self.swap(&record, outcome)
            }
            (Phase::Minting { record, .. }, Event::MintSpent(fault)) => {
                let mut outcome = doubted(ctx, &record, &fault);
                outcome.intent.iter_mut().for_each(|intent| intent.is_spent = true);
                self.swap(&record, outcome)
            }
            // The record now holds what was sent: look at it as anybody would.
            (Phase::Settling { record, .. }, Event::Swapped) => self.look(ctx, Some(&record)),
            // Lost or unknown while acquiring: assume neither. If our intent is there, the next look finds it.
            (Phase::Acquiring { .. }, Event::SwapLost | Event::SwapUnknown) => Step::Read,
            (Phase::Settling { .. }, Event::SwapLost) => Step::Read,
            (settling @ Phase::Settling { .. }, Event::SwapUnknown) => {
                self.phase = settling;
                Step::Read
            }
            (settling @ Phase::Settling { .. }, Event::SwapRefused | Event::ReadFailed) => {
                self.phase = settling;
                store_away(ctx)
            }
            (Phase::Idle | Phase::Acquiring { .. }, Event::SwapRefused | Event::ReadFailed) => store_away(ctx),
            (phase, _) => {
                self.phase = phase;
                store_away(ctx)
            }
        }
    }

    /// Says what the mint uses up that is about to be announced. Returns the record to swap in place of the one that
    /// [`step`](Self::step) has just returned; `None` where that does not announce a mint.
    pub fn announce(&mut self, uses: OneUse) -> Option<Arc<Record>> {
        let Phase::Acquiring { record, .. } = &mut self.phase else { return None };
        Arc::make_mut(record).intent.as_mut()?.uses = Some(uses);
        Some(Arc::clone(record))
    }

    fn swap(&mut self, base: &Record, record: Record) -> Step {
        self.swap_from(Some(base.op), record)
    }

    fn swap_from(&mut self, base: Option<WriteId>, record: Record) -> Step {
        let record = Arc::new(record);
        self.phase = Phase::Settling { base, record: Arc::clone(&record) };
        Step::Swap { expected: base, record }
    }

    /// A read after a settling write whose answer was lost: the register says whether it was made.
    fn settle(&mut self, ctx: Context<'_>, base: Option<WriteId>, sent: Arc<Record>, found: Option<&Record>) -> Step {
        let is_unchanged = found.map(|record| record.op) == base;
        let is_older = found.is_some_and(|record| record.rev < sent.rev);
        if is_unchanged || is_older {
            // Not made, or the read is stale. Sending the same swap again is safe: it is compared.
            self.phase = Phase::Settling { base, record: Arc::clone(&sent) };
            return Step::Swap { expected: base, record: sent };
        }
        self.look(ctx, found)
    }

    /// A read while idle: is there something to do?
    fn look(&mut self, ctx: Context<'_>, record: Option<&Record>) -> Step {
        let Some(record) = record else { return self.look_at_nothing(ctx) };
        self.observe(record, ctx.now);
        if let Some(for_ms) = due_in(ctx, record).filter(|_| !self.is_late) {
            return Step::Rest { for_ms, why: Why::Fresh };
        }
        let Some(intent) = &record.intent else {
            if let Some(rest) = self.must_hold(ctx, record) {
                return rest;
            }
            return self.acquire(ctx, Some(record), None);
        };
        if intent.holder == *ctx.me && !intent.is_replay && self.sent != Some(intent.op) {
            // Mine, and I know that no mint left under it. (Under a replay, an earlier holder's may have.)
            if let Some(rest) = self.must_hold(ctx, record) {
                return rest;
            }
            return self.acquire(ctx, Some(record), None);
        }
        self.look_at_intent(ctx, record, intent)
    }

    fn look_at_nothing(&mut self, ctx: Context<'_>) -> Step {
        if !ctx.rules.first_mint_waits {
            return self.acquire(ctx, None, None);
        }
        // An empty register is no proof that nothing was minted: it may have been wiped.
        let mut record = Record::following(None, ctx.fresh, ctx.now);
        record.last = Some(LastMint { generation: 0, at_most: ctx.now.latest().plus(ctx.rules.skew_ms) });
        self.swap_from(None, record)
    }

    /// Somebody's mint may be under way, or may have happened.
    fn look_at_intent(&mut self, ctx: Context<'_>, record: &Record, intent: &Intent) -> Step {
        let rules = ctx.rules;
        let lease_left = self.lease_left(ctx, intent);
        if lease_left > 0 {
            let why = if intent.doubt.is_some() { Why::InDoubt } else { Why::Held };
            return Step::Rest { for_ms: lease_left.min(rules.poll_ms), why };
        }
        if rules.on_doubt == OnDoubt::Reauthorize {
            return Step::Rest { for_ms: rules.poll_ms, why: Why::NeedsOperator };
        }
        let can_replay = rules.mode == Mode::Replay
            && rules.on_doubt == OnDoubt::RetrySame
            && !intent.is_spent
            && ctx.now.wall < intent.expires_at.minus(rules.lead_ms);
        let spacing_left = if can_replay || rules.mode == Mode::Lease { 0 } else { self.spacing_left(ctx, intent) };
        if spacing_left > 0 {
            return Step::Rest { for_ms: spacing_left.min(rules.takeover_ms), why: Why::InDoubt };
        }
        if let Some(hold_ms) = self.hold_left(ctx, record) {
            return Step::Rest { for_ms: hold_ms, why: Why::BackOff };
        }
        self.acquire(ctx, Some(record), Some((intent, can_replay)))
    }

    /// What keeps this node from minting although a renewal is due: the fleet's back-off, or the upstream's floor.
    fn must_hold(&self, ctx: Context<'_>, record: &Record) -> Option<Step> {
        if let Some(for_ms) = self.hold_left(ctx, record) {
            return Some(Step::Rest { for_ms, why: Why::BackOff });
        }
        let for_ms = self.interval_left(ctx, record);
        // Whoever does not have to wait as long may take the lease and die: be there in time to see since when.
        (for_ms > 0).then_some(Step::Rest { for_ms: for_ms.min(ctx.rules.takeover_ms), why: Why::Floor })
    }

    /// Remembers since when this node has seen what is there now. Every read of the record counts, whoever made it.
    pub fn observe(&mut self, record: &Record, now: Moment) {
        let mono = now.mono;
        let intent = record.intent.as_ref().map(|intent| intent.op);
        if self.intent_seen.map(|(op, _)| op) != intent {
            self.intent_seen = intent.map(|op| (op, mono));
        }
        if self.last_seen.map(|(last, _)| last) != record.last {
            self.last_seen = record.last.map(|last| (last, mono));
        }
        let failure = record.failure.as_ref().map(|failure| (failure.count, failure.at));
        if self.failure_seen.map(|(count, at, _)| (count, at)) != failure {
            self.failure_seen = failure.map(|(count, at)| (count, at, mono));
        }
    }

    /// Milliseconds until the holder of `intent` certainly no longer believes in its lease. One that has written a doubt does
    /// not: its call is over. Only what it sent may still arrive upstream, which matters wherever mints have to be apart.
    fn lease_left(&self, ctx: Context<'_>, intent: &Intent) -> u64 {
        let rules = ctx.rules;
        if intent.doubt.is_some() && rules.mode == Mode::Lease {
            return 0;
        }
        let observed = self.seen_for(ctx, intent, rules.takeover_ms);
        observed.min(walled_left(ctx, intent.started_at.plus(rules.skew_ms).plus(rules.lease_ms)))
    }

    /// Milliseconds until a mint under `intent`, if there was one, is `min_interval` back.
    fn spacing_left(&self, ctx: Context<'_>, intent: &Intent) -> u64 {
        let rules = ctx.rules;
        let window_ms = rules.mint_window_ms().saturating_add(rules.min_interval_ms);
        let observed = self.seen_for(ctx, intent, window_ms);
        observed.min(walled_left(ctx, latest_mint(rules, intent).plus(rules.min_interval_ms)))
    }

    fn seen_for(&self, ctx: Context<'_>, intent: &Intent, wait_ms: u64) -> u64 {
        match self.intent_seen {
            Some((op, since)) if op == intent.op => wait_ms.saturating_sub(ctx.now.mono.since(since)),
            _ => wait_ms,
        }
    }

    /// Milliseconds until the last mint that may have happened is `min_interval` back.
    fn interval_left(&self, ctx: Context<'_>, record: &Record) -> u64 {
        let Some(last) = record.last else { return 0 };
        let wait_ms = ctx.rules.min_interval_ms;
        let observed = match self.last_seen {
            Some((seen, since)) if seen == last => wait_ms.saturating_sub(ctx.now.mono.since(since)),
            _ => wait_ms,
        };
        observed.min(walled_left(ctx, last.at_most.plus(wait_ms)))
    }

    /// Milliseconds for which the fleet still holds back after a failure.
    fn hold_left(&self, ctx: Context<'_>, record: &Record) -> Option<u64> {
        let failure = record.failure.as_ref()?;
        let observed = match self.failure_seen {
            Some((count, at, since)) if (count, at) == (failure.count, failure.at) => {
                failure.hold_ms.saturating_sub(ctx.now.mono.since(since))
            }
            _ => failure.hold_ms,
        };
        let left = observed.min(walled_left(ctx, failure.at.plus(failure.hold_ms)));
        (left > 0).then_some(left)
    }

    /// Takes the lease and announces the mint, in one write. `over` is the intent that is taken over, and whether its
    /// generation is to be minted again with the same inputs.
    fn acquire(&mut self, ctx: Context<'_>, base: Option<&Record>, over: Option<(&Intent, bool)>) -> Step {
        let rules = ctx.rules;
        let mut record = Record::following(base, ctx.fresh, ctx.now);
        let (issued_at, expires_at, is_replay) = match over {
            Some((intent, true)) => (intent.issued_at, intent.expires_at, true),
            _ => {
                let earliest =
                    record.newest().map_or(Timestamp(0), |newest| newest.issued_at.plus(rules.min_interval_ms));
                let issued_at = ctx.now.wall.minus(rules.backdate_ms).max(earliest);
                record.generation = record.generation.max(self.counted).saturating_add(1);
                (issued_at, issued_at.plus(rules.life_ms), false)
            }
        };
        if record.holder.as_ref() != Some(ctx.me) {
            record.epoch = record.epoch.saturating_add(1);
        }
        if let Some((intent, same)) = over {
            if !same {
                record.last = Some(LastMint { generation: intent.generation, at_most: latest_mint(rules, intent) });
            }
            let from = format!("from {} in epoch {}", intent.holder.node, base.map_or(0, |base| base.epoch));
            record.note(rules.history_max, HistoryKind::TakenOver, record.generation, &ctx.me.node, &from);
        }
        record.holder = Some(ctx.me.clone());
        record.intent = Some(Intent {
            generation: record.generation,
            op: ctx.fresh,
            holder: ctx.me.clone(),
            started_at: ctx.now.wall,
            is_replay,
            issued_at,
            expires_at,
            doubt: None,
            is_spent: false,
            uses: None,
        });
        let record = Arc::new(record);
        self.phase = Phase::Acquiring { asked_at: ctx.now.mono, record: Arc::clone(&record) };
        Step::Swap { expected: base.map(|base| base.op), record }
    }

    /// The lease is ours. Is there still time to send a mint under it?
    fn begin_mint(&mut self, ctx: Context<'_>, asked_at: Mono, record: Arc<Record>) -> Step {
        let rules = ctx.rules;
        let Some(intent) = &record.intent else { return Step::Read };
        let send_by = asked_at.plus(rules.send_ms);
        if ctx.now.mono > send_by {
            return Step::Read;
        }
        self.sent = Some(intent.op);
        // Should no answer come, this node need not wait longer than one that saw the intent at once.
        self.intent_seen = Some((intent.op, asked_at));
        let order = Order {
            generation: intent.generation,
            epoch: record.epoch,
            issued_at: intent.issued_at,
            expires_at: intent.expires_at,
            is_replay: intent.is_replay,
            send_by,
            answer_by: send_by.plus(rules.answer_ms),
        };
        self.phase = Phase::Minting { asked_at, record };
        Step::Mint(order)
    }
}

/// The latest moment, by any clock within the skew, at which a mint under `intent` can have happened.
#[must_use]
pub const fn latest_mint(rules: &Rules, intent: &Intent) -> Timestamp {
    intent.started_at.plus(rules.skew_ms).plus(rules.mint_window_ms())
}

/// Milliseconds until the wall clock proves that `moment` has passed everywhere; never, if it is not vouched for.
fn walled_left(ctx: Context<'_>, moment: Timestamp) -> u64 {
    if ctx.rules.is_clock_trusted { moment.plus(ctx.rules.skew_ms).since(ctx.now.earliest()) } else { u64::MAX }
}

/// Milliseconds until this node should look for a renewal; `None` is now.
fn due_in(ctx: Context<'_>, record: &Record) -> Option<u64> {
    let newest = record.newest()?;
    if record.renew == Some(newest.generation) {
        return None;
    }
    let wait_ms = schedule::wake_at(ctx.rules, record, newest, ctx.me).since(ctx.now.wall);
    (wait_ms > 0).then_some(wait_ms)
}

const fn store_away(ctx: Context<'_>) -> Step {
    Step::Rest { for_ms: ctx.rules.poll_ms, why: Why::StoreAway }
}

/// The record that publishes a minted credential.
fn published(ctx: Context<'_>, base: &Record, minted: Minted) -> Record {
    let rules = ctx.rules;
    let now = ctx.now.wall;
    let mut record = Record::following(Some(base), ctx.fresh, ctx.now);
    let generation = record.intent.take().map_or(record.generation, |intent| intent.generation);
    let is_forced = base.newest().is_some_and(|newest| base.renew == Some(newest.generation));
    if record.next.as_ref().is_some_and(|next| next.use_from <= now) {
        record.current = record.next.take();
    }
    let mut credential = Credential {
        generation,
        refresh_at: schedule::refresh_at(rules, minted.issued_at, now, minted.expires_at, ctx.fresh),
        sealed: minted.sealed,
        issued_at: minted.issued_at,
        expires_at: minted.expires_at,
        use_from: now,
    };
    match &record.current {
        Some(current) if !is_forced && rules.handover_ms > 0 && now < current.expires_at.minus(rules.skew_ms) => {
            let apart = current.use_from.plus(rules.min_interval_ms);
            let planned = now.plus(rules.handover_ms).max(apart);
            credential.use_from = planned.min(current.expires_at.minus(rules.skew_ms.saturating_mul(2))).max(now);
            record.next = Some(credential);
        }
        _ => {
            record.current = Some(credential);
            record.next = None;
        }
    }
    record.last = Some(LastMint { generation, at_most: ctx.now.latest().plus(rules.skew_ms) });
    record.failure = None;
    record.renew = None;
    record.spent = None;
    record.note(rules.history_max, HistoryKind::Minted, generation, &ctx.me.node, "");
    record
}

/// The record that says that nothing was minted.
fn failed(ctx: Context<'_>, base: &Record, fault: &Fault) -> Record {
    let mut record = Record::following(Some(base), ctx.fresh, ctx.now);
    let intent = record.intent.take();
    let generation = intent.as_ref().map_or(record.generation, |intent| intent.generation);
    if let Some(intent) = intent.filter(|intent| intent.is_replay) {
        // This attempt failed, but an earlier holder may have minted the same generation.
        record.last = Some(LastMint { generation, at_most: latest_mint(ctx.rules, &intent) });
    }
    count_failure(ctx, &mut record, fault);
    record.note(ctx.rules.history_max, HistoryKind::Failed, generation, &ctx.me.node, &fault.message);
    record
}

/// The record after a mint that brought nothing but what the next one needs. It is a failure that counts as a mint.
fn left_over(ctx: Context<'_>, base: &Record, fault: &Fault, sealed: Vec<u8>) -> Record {
    let mut record = failed(ctx, base, fault);
    let generation = base.intent.as_ref().map_or(base.generation, |intent| intent.generation);
    record.last = Some(LastMint { generation, at_most: ctx.now.latest().plus(ctx.rules.skew_ms) });
    record.spent = None;
    match record.next.as_mut().or(record.current.as_mut()) {
        Some(newest) => newest.sealed = sealed,
        None => {
            // Over since ever, so that nobody is handed it, however stale a credential may be.
            let never = Timestamp(0);
            let (issued_at, expires_at, refresh_at, use_from) = (never, never, never, never);
            record.current = Some(Credential { generation, sealed, issued_at, expires_at, refresh_at, use_from });
        }
    }
    record
}

/// The record that says that nobody knows. The intent stays.
fn doubted(ctx: Context<'_>, base: &Record, fault: &Fault) -> Record {
    let mut record = Record::following(Some(base), ctx.fresh, ctx.now);
    let generation = record.generation;
    if let Some(intent) = &mut record.intent {
        intent.doubt = Some(bounded(&fault.message));
    }
    count_failure(ctx, &mut record, fault);
    record.note(ctx.rules.history_max, HistoryKind::InDoubt, generation, &ctx.me.node, &fault.message);
    record
}

fn count_failure(ctx: Context<'_>, record: &mut Record, fault: &Fault) {
    let count = record.failure.as_ref().map_or(0, |failure| failure.count).saturating_add(1);
    record.failure = Some(Failure {
        count,
        class: fault.class,
        hold_ms: schedule::hold_ms(ctx.rules, fault.class, count, fault.retry_after_ms, ctx.fresh),
        at: record.written_at,
        message: bounded(&fault.message),
    });
}
