//! What a walk starts from, what may go wrong in it, and how often.

use keyreeve_core::rules::{Mode, OnDoubt, Rules};
use keyreeve_core::time::Mono;

use super::laws::Law;

/// What the register compares before it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The write id of what is there: the shipped protocol.
    WriteId,
    /// A counter: what a register without unguessable versions would do.
    Counter,
    /// Nothing: an engine without a compare-and-swap.
    Nothing,
}

/// Whether a node comes to believe in a step of its wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// Its clock is put right before that, at any moment.
    Never,
    /// At any moment, unless its clock is put right before.
    Sometime,
    /// As soon as it steps: nobody vouches for the clock, and nothing looks at it but the estimate.
    AtOnce,
}

/// When and how faults stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calm {
    /// Never: the network is as slow as it likes, all the way.
    Never,
    /// At any moment, for good; this many ticks later a valid credential must be published and served.
    Within(u64),
    /// From the start: everything happens promptly, but for the faults. Every live reader must always be served.
    Always,
}

/// How often something may go wrong on one path of the walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Crashes, each with a loss of memory.
    pub crashes: u8,
    /// Answers that never arrive, of the register or the upstream.
    pub lost: u8,
    /// Definite failures that the upstream reports.
    pub failures: u8,
    /// Swaps that the register refuses without making them.
    pub refusals: u8,
    /// Steps of a wall clock.
    pub jumps: u8,
    /// Losses of the last acknowledged write.
    pub failovers: u8,
    /// Writes by an operator or a caller: early renewals and verdicts.
    pub verdicts: u8,
}

impl Faults {
    /// How many are left.
    #[must_use]
    pub const fn sum(self) -> u8 {
        self.crashes + self.lost + self.failures + self.refusals + self.jumps + self.failovers + self.verdicts
    }
}

/// One bounded world to be walked through completely.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For reports.
    pub name: &'static str,
    /// The numbers under test; one tick is one millisecond.
    pub rules: Rules,
    /// Each node's wall clock, less the upstream's.
    pub offsets: Vec<i64>,
    /// A node whose monotonic clock runs at two thirds of the speed.
    pub slow: Option<usize>,
    /// What may go wrong, how often.
    pub faults: Faults,
    /// How many of them may go wrong in all.
    pub faults_max: u8,
    /// By how much a wall clock may step.
    pub jumps: &'static [i64],
    /// Whether and when a step is believed (see `keyreeve_core::time::Steady`).
    pub belief: Belief,
    /// Whether a read may return what the register held before its last write.
    pub has_stale_reads: bool,
    /// Whether readers are served at every moment.
    pub has_readers: bool,
    /// What the register compares.
    pub compare: Compare,
    /// Whether a mint request may be delayed for ever.
    pub is_mint_immortal: bool,
    /// When faults stop.
    pub calm: Calm,
    /// A swap whose answer was lost is given up after this long, in ticks, once the network is prompt.
    pub swap_timeout: u64,
    /// Whether the credential of a dead process's lease is told apart from that of another dead process.
    pub is_dead_named: bool,
    /// Whether a lease that was won too late to mint under is as good as any other such lease.
    pub forgets_late: bool,
    /// Whether to hash states as they are, with the time: for checking the reductions themselves.
    pub is_raw: bool,
    /// No path goes on past this many ticks, if it is set.
    pub ticks_max: Option<u64>,
    /// More states than this are a failure of the scenario.
    pub states_max: usize,
    /// Goes on until this law breaks, whatever else breaks before.
    pub until: Option<Law>,
    /// Whether to go on after a broken law, to collect all of them.
    pub collects_all: bool,
}

/// The least interesting numbers that contradict nothing: L = 2, S = D = 1, MIN = 2, no skew.
#[must_use]
pub const fn rules(mode: Mode) -> Rules {
    Rules {
        mode,
        on_doubt: match mode {
            Mode::Replay => OnDoubt::RetrySame,
            Mode::Lease | Mode::Exclusive => OnDoubt::Wait,
        },
        lease_ms: 2,
        takeover_ms: 2,
        send_ms: 1,
        answer_ms: 1,
        min_interval_ms: 2,
        skew_ms: 0,
        is_clock_trusted: true,
        // A replay must leave more than the lead, or it is not worth it.
        life_ms: if matches!(mode, Mode::Replay) { 8 } else { 6 },
        lead_ms: 4,
        backdate_ms: 0,
        handover_ms: 0,
        wake_spread_ms: 0,
        refresh_jitter_ms: 0,
        hold_ms: 1,
        hold_ms_max: 1,
        hard_hold_ms: 1,
        hard_hold_ms_max: 1,
        poll_ms: 1,
        stale_ms: 0,
        first_mint_waits: matches!(mode, Mode::Exclusive),
        quiet: Vec::new(),
        history_max: 0,
    }
}

impl Scenario {
    /// Two nodes with right clocks, and nothing that goes wrong but delays of any length.
    #[must_use]
    pub fn new(name: &'static str, rules: Rules) -> Self {
        Self {
            name,
            rules,
            offsets: vec![0, 0],
            slow: None,
            faults: Faults::default(),
            faults_max: u8::MAX,
            jumps: &[],
            belief: Belief::Never,
            has_stale_reads: false,
            has_readers: true,
            compare: Compare::WriteId,
            is_mint_immortal: false,
            calm: Calm::Never,
            swap_timeout: 1,
            is_dead_named: false,
            forgets_late: true,
            is_raw: false,
            ticks_max: None,
            states_max: 40_000_000,
            until: None,
            collects_all: false,
        }
    }

    /// What the monotonic clock of `node` says at true time `at`.
    #[must_use]
    pub fn mono(&self, node: usize, at: u64) -> Mono {
        if self.slow == Some(node) { Mono(at / 3 * 2 + (at % 3).min(1)) } else { Mono(at) }
    }

    /// Whether what the register held before its last write can still be seen or come back.
    #[must_use]
    pub const fn has_past(&self) -> bool {
        self.has_stale_reads || self.faults.failovers > 0
    }

    /// Whether a swap that expects something else than what is there can never be made.
    #[must_use]
    pub fn is_fence_final(&self) -> bool {
        self.compare == Compare::WriteId && self.faults.failovers == 0
    }
}
