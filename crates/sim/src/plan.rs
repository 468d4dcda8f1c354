//! What a seed means: the numbers of a credential, the size of its fleet, and which faults may happen how often.
//!
//! Each kind of fault is on in some seeds and off in others (swarm testing): a fault that is always there hides the
//! ones that need peace to show.

use keyreeve_core::rules::{Mode, OnDoubt, Rules};

use crate::chance::Chance;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

/// What the upstream is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// A new token each time, at least `min_interval` apart, and one valid at a time.
    Exclusive,
    /// The same token for the same idempotency key, at least `min_interval` apart otherwise.
    Idempotent,
    /// A new token each time; several are valid.
    Opaque,
    /// No upstream at all: the node signs, and equal inputs give equal bytes.
    Signer,
}

/// What is broken on purpose, to show that the simulation would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The upstream's true interval is twice the one it documents.
    UpstreamIsSlower,
    /// The register ignores what a swap expects.
    RegisterIsBlind,
    /// The register acknowledges a write now and then without keeping it.
    RegisterForgets,
    /// A lost answer of the register is reported as success.
    UnknownIsDone,
    /// Nodes do not know the upstream's interval.
    NodesAreHasty,
    /// The source sends whenever it gets to run, however late.
    SourceSendsLate,
    /// Clocks are further apart than was declared, and trusted.
    ClocksAreWorse,
    /// The upstream's tokens live half as long as it says.
    TokensDieEarly,
    /// The source never asks the upstream.
    NobodyIsAsked,
}

/// One simulated run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The credential's numbers.
    pub rules: Rules,
    /// The upstream.
    pub issuer: Issuer,
    /// How many nodes.
    pub nodes: usize,
    /// Renewed without demand.
    pub is_kept: bool,
    /// A store call that has taken this long is given up, in milliseconds.
    pub store_ms: u64,
    /// Most time between two readers of one node, in milliseconds.
    pub read_every_ms: u64,
    /// The least time between two mints that the upstream allows, in milliseconds.
    pub upstream_interval_ms: u64,
    /// How long the upstream's tokens live, in milliseconds.
    pub upstream_life_ms: u64,
    /// How far the upstream's clock is from the truth, in milliseconds.
    pub upstream_offset_ms: i64,
    /// How far each node's clock is from the truth, in milliseconds.
    pub offsets_ms: Vec<i64>,
    /// Chances of faults.
    pub faults: Faults,
    /// Faults happen until then, in milliseconds from the start.
    pub faults_until_ms: u64,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
}

/// Chances of faults, in permille of the occasions unless the name says otherwise; 0 is off.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A request to the store is lost.
    pub store_request_lost: u64,
    /// The store's answer is lost.
    pub store_answer_lost: u64,
    /// A request to the store is on its way for up to two minutes.
    pub store_late: u64,
    /// A request arrives twice; the second answer may be the one that is delivered.
    pub store_twice: u64,
    /// A read finds an older entry.
    pub store_stale: u64,
    /// A node crashes at a step: before or after a request leaves, an answer arrives.
    pub crash_at_step: u64,
    /// A node is paused at a step.
    pub pause_at_step: u64,
    /// A mint request is lost.
    pub mint_request_lost: u64,
    /// A mint happens and its answer is lost.
    pub mint_answer_lost: u64,
    /// A mint takes as long as it may, or longer.
    pub mint_slow: u64,
    /// A mint fails, certainly.
    pub mint_fails: u64,
    /// The upstream asks for fewer calls.
    pub mint_throttled: u64,
    /// Crashes per hour and node.
    pub crashes_per_hour: u64,
    /// Pauses per hour and node.
    pub pauses_per_hour: u64,
    /// Clock jumps per hour and node.
    pub jumps_per_hour: u64,
    /// Clock jumps may last longer than a node rides over, and nodes may start in the middle of one.
    pub jumps_last: bool,
    /// Store outages per ten hours, up to a quarter of an hour each.
    pub outages_per_10h: u64,
    /// Times per ten hours that a node is cut off from the store.
    pub cuts_per_10h: u64,
    /// Readers that report or renew, per mille of reads.
    pub meddling: u64,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self::with(seed, None)
    }

    /// The plan of a seed, with something broken on purpose.
    #[must_use]
    pub fn with(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut chance = Chance::new(seed ^ 0x70_6c61_6e00);
        let issuer = match chance.below(8) {
            0..4 => Issuer::Exclusive,
            4..6 => Issuer::Idempotent,
            6 => Issuer::Opaque,
            _ => Issuer::Signer,
        };
        let issuer = sabotage.map_or(issuer, |_| Issuer::Exclusive);
        let mut rules = rules(&mut chance, issuer);
        let mut faults = faults(&mut chance);
        if rules.is_clock_trusted {
            // Who vouches for the clocks has clocks that are never wrong for long.
            faults.jumps_last = false;
        }
        if sabotage == Some(Sabotage::ClocksAreWorse) {
            rules.is_clock_trusted = true;
            faults.jumps_per_hour = 0;
        }
        let nodes = usize::try_from(chance.between(1, 5)).unwrap_or(1);
        let mut upstream_interval_ms = rules.min_interval_ms;
        let mut upstream_life_ms = rules.life_ms;
        match sabotage {
            Some(Sabotage::UpstreamIsSlower) => upstream_interval_ms *= 2,
            Some(Sabotage::NodesAreHasty) => rules.min_interval_ms = 1,
            Some(Sabotage::TokensDieEarly) => upstream_life_ms /= 2,
            _ => {}
        }
        let worse = if sabotage == Some(Sabotage::ClocksAreWorse) { rules.lease_ms + rules.min_interval_ms } else { 0 };
        let half = rules.skew_ms / 2 + worse;
        let mut offset = || i64::try_from(chance.between(0, 2 * half)).unwrap_or(0) - i64::try_from(half).unwrap_or(0);
        let offsets_ms = (0..nodes).map(|_| offset()).collect();
        let upstream_offset_ms = if worse > 0 { 0 } else { offset() };
        Self {
            seed,
            issuer,
            nodes,
            is_kept: chance.happens(700),
            store_ms: chance.between(SECOND, 5 * SECOND),
            read_every_ms: chance.between(5 * SECOND, 2 * MINUTE),
            upstream_interval_ms,
            upstream_life_ms,
            upstream_offset_ms,
            offsets_ms,
            faults_until_ms: rules.life_ms * chance.between(2, 5),
            rules,
            faults,
            sabotage,
        }
    }

    /// When every node must hold a valid credential again after the last fault, in milliseconds after it: clocks are
    /// believed again, late messages have arrived, back-offs are over, and one more lost mint has been waited for.
    #[must_use]
    pub fn recovery_ms(&self) -> u64 {
        let rules = &self.rules;
        let holds = 2 * rules.hold_ms_max.max(rules.hard_hold_ms_max).max(RETRY_AFTER_MS);
        let waits = 2 * rules.fault_ms() + rules.min_interval_ms + 2 * rules.takeover_ms + 4 * rules.skew_ms;
        keyreeve_core::time::Steady::STEP_BELIEVED_MS + LATE_MS + holds + waits + 2 * MINUTE
    }
}

/// The upstream asks for at most this long a pause, in milliseconds.
pub const RETRY_AFTER_MS: u64 = 2 * MINUTE;
/// A late message is on its way for at most this long, in milliseconds.
pub const LATE_MS: u64 = 2 * MINUTE;

/// Numbers that contradict each other in nothing, drawn anew until they do not.
fn rules(chance: &mut Chance, issuer: Issuer) -> Rules {
    loop {
        let rules = draw_rules(chance, issuer);
        if rules.check().is_empty() {
            return rules;
        }
    }
}

fn draw_rules(chance: &mut Chance, issuer: Issuer) -> Rules {
    let (mode, on_doubt) = match issuer {
        Issuer::Exclusive => (Mode::Exclusive, OnDoubt::Wait),
        Issuer::Idempotent | Issuer::Signer if chance.happens(850) => (Mode::Replay, OnDoubt::RetrySame),
        Issuer::Idempotent | Issuer::Signer => (Mode::Replay, OnDoubt::Wait),
        Issuer::Opaque => (Mode::Lease, OnDoubt::Wait),
    };
    let skew_ms = [0, 500, 2 * SECOND, 10 * SECOND].get(usize::try_from(chance.below(4)).unwrap_or(0)).copied();
    let skew_ms = skew_ms.unwrap_or(0);
    let (send_ms, answer_ms) = (chance.between(SECOND, 6 * SECOND), chance.between(2 * SECOND, 15 * SECOND));
    let lease_ms = send_ms + answer_ms + chance.below(10 * SECOND);
    let takeover_ms = lease_ms + lease_ms / 5 + chance.between(1, 5 * SECOND);
    let min_interval_ms = match mode {
        Mode::Lease => chance.between(10 * SECOND, 2 * MINUTE),
        _ => chance.between(MINUTE, 20 * MINUTE),
    };
    let fault_ms = match mode {
        Mode::Exclusive => send_ms + answer_ms + min_interval_ms,
        _ => takeover_ms,
    };
    let lead_ms = (chance.between(1, 3) * fault_ms + skew_ms + chance.below(5 * MINUTE)).max(2 * skew_ms + MINUTE);
    let life_ms = lead_ms + min_interval_ms + 2 * skew_ms + chance.between(MINUTE, 40 * MINUTE);
    let backdate_ms = if issuer == Issuer::Signer { 2 * skew_ms + SECOND } else { 0 };
    Rules {
        mode,
        on_doubt,
        lease_ms,
        takeover_ms,
        send_ms,
        answer_ms,
        min_interval_ms,
        skew_ms,
        is_clock_trusted: chance.happens(500),
        life_ms,
        lead_ms,
        backdate_ms,
        handover_ms: if chance.happens(500) { lead_ms / chance.between(2, 6) } else { 0 },
        wake_spread_ms: if chance.happens(700) { chance.below(lead_ms / 2) } else { 0 },
        refresh_jitter_ms: chance.below(lead_ms / 4 + 1),
        hold_ms: chance.between(500, 5 * SECOND),
        hold_ms_max: chance.between(10 * SECOND, 2 * MINUTE),
        hard_hold_ms: chance.between(5 * SECOND, 30 * SECOND),
        hard_hold_ms_max: chance.between(MINUTE, 5 * MINUTE),
        poll_ms: chance.between(SECOND, 10 * SECOND),
        stale_ms: 0,
        first_mint_waits: chance.happens(200),
        quiet: Vec::new(),
        history_max: 20,
    }
}

fn faults(chance: &mut Chance) -> Faults {
    // One seed in sixteen is peaceful: then nothing excuses a reader without a credential.
    if chance.happens(60) {
        return Faults::default();
    }
    let mut often = |is_on: u64, most: u64| if chance.happens(is_on) { chance.between(1, most) } else { 0 };
    Faults {
        store_request_lost: often(500, 150),
        store_answer_lost: often(500, 150),
        store_late: often(400, 100),
        store_twice: often(400, 150),
        store_stale: often(400, 200),
        crash_at_step: often(500, 40),
        pause_at_step: often(500, 40),
        mint_request_lost: often(500, 200),
        mint_answer_lost: often(500, 300),
        mint_slow: often(500, 300),
        mint_fails: often(500, 300),
        mint_throttled: often(300, 200),
        crashes_per_hour: often(500, 6),
        pauses_per_hour: often(500, 6),
        jumps_per_hour: often(500, 3),
        jumps_last: often(500, 1) == 1,
        outages_per_10h: often(400, 12),
        cuts_per_10h: often(400, 12),
        meddling: often(400, 20),
    }
}
