//! The numbers of one credential, and which of them contradict each other.
//!
//! Every field is in milliseconds unless its name says otherwise. A [`Rules`] that [`check`](Rules::check) has nothing
//! to say about keeps the promises of the renewal protocol; each contradiction names the numbers and their sum.

use crate::quiet::{self, Quiet};
use crate::schedule;
use crate::time::Span;

/// How a credential is coordinated. What it costs when an answer is lost decides which one fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The mint is deterministic or idempotent: anybody may finish an intent, and gets the same credential.
    Replay,
    /// Each mint makes a new credential, and several may be valid at once.
    Lease,
    /// Each mint makes a new credential, at least `min_interval` after the last one that may have happened.
    Exclusive,
}

impl Mode {
    /// The name used in the configuration and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Lease => "lease",
            Self::Exclusive => "exclusive",
        }
    }
}

/// What happens to an intent without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDoubt {
    /// Ask again for the same generation with the same inputs. Only sound in [`Mode::Replay`].
    RetrySame,
    /// Wait until a mint that may have happened is far enough back, then mint the next generation.
    Wait,
    /// Wait for an operator: the mint may have spent something that cannot be spent twice.
    Reauthorize,
}

/// The timing of one credential's renewal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// How the fleet coordinates.
    pub mode: Mode,
    /// What happens after a lost answer.
    pub on_doubt: OnDoubt,
    /// A holder believes in its lease this long, counted from before it asked for it (L).
    pub lease_ms: u64,
    /// A challenger waits this long from when it first saw the intent (Lw); longer than the lease by the clock-rate
    /// error that is to be tolerated.
    pub takeover_ms: u64,
    /// No mint request leaves later than this after the lease was asked for (S).
    pub send_ms: u64,
    /// A mint request is cut off this long after it was sent (D).
    pub answer_ms: u64,
    /// Least time between two mints; in lease mode the rate floor (MIN).
    pub min_interval_ms: u64,
    /// Bound on the difference between any two wall clocks, the upstream's included (d).
    pub skew_ms: u64,
    /// Whether the operator vouches for `skew_ms`: then wall clocks may prove that a wait is over.
    pub is_clock_trusted: bool,
    /// Life of a credential from its issue.
    pub life_ms: u64,
    /// Renewal starts this long before expiry.
    pub lead_ms: u64,
    /// Self-signed credentials say they were issued this much earlier, so that no verifier's clock finds them early.
    pub backdate_ms: u64,
    /// A new credential is published this long before the switch to it; 0 switches at once.
    pub handover_ms: u64,
    /// Nodes other than the last holder look for a renewal spread over this long.
    pub wake_spread_ms: u64,
    /// A renewal falls due up to this much before `lead_ms` would have it, drawn anew for each generation.
    pub refresh_jitter_ms: u64,
    /// First hold after a transient failure; doubles with each.
    pub hold_ms: u64,
    /// Longest hold after a transient failure, its random half aside.
    pub hold_ms_max: u64,
    /// First hold after a failure that will not pass by itself; doubles with each.
    pub hard_hold_ms: u64,
    /// Longest hold after such a failure, its random half aside.
    pub hard_hold_ms_max: u64,
    /// How soon to look again while somebody else renews, or while the store is away.
    pub poll_ms: u64,
    /// How far past expiry a credential may still be served while it cannot be renewed; 0 is never.
    pub stale_ms: u64,
    /// An empty register is no proof that nothing was minted: wait `min_interval` before the first mint.
    pub first_mint_waits: bool,
    /// Windows in which no renewal falls due by itself; it comes before them instead.
    pub quiet: Vec<Quiet>,
    /// How many history entries the record keeps.
    pub history_max: usize,
}

/// Two or more settings that cannot both hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The setting to look at first, by its configuration name.
    pub field: &'static str,
    /// The sum, spelt out.
    pub sum: String,
    /// What to change.
    pub hint: String,
}

impl Rules {
    /// How long a lost answer or a crashed holder can keep a credential from being renewed (W).
    #[must_use]
    pub const fn fault_ms(&self) -> u64 {
        match self.mode {
            Mode::Exclusive => self.mint_window_ms().saturating_add(self.min_interval_ms),
            Mode::Replay | Mode::Lease => self.takeover_ms,
        }
    }

    /// How many crashes or lost answers in a row the lead absorbs before a reader is left without a credential (F).
    #[must_use]
    pub const fn faults_absorbed(&self) -> u64 {
        let usable = self.lead_ms.saturating_sub(self.skew_ms);
        match usable.checked_div(self.fault_ms()) {
            Some(faults) => faults,
            None => 0,
        }
    }

    /// From asking for the lease to the last moment at which its mint can happen (S + D).
    #[must_use]
    pub const fn mint_window_ms(&self) -> u64 {
        self.send_ms.saturating_add(self.answer_ms)
    }

    /// A renewal that falls due is over this much later, unless something fails: the others have looked, and one of
    /// them has minted.
    #[must_use]
    pub const fn settled_ms(&self) -> u64 {
        schedule::AFFINITY_MS.saturating_add(self.wake_spread_ms).saturating_add(self.mint_window_ms())
    }

    /// Every contradiction between these numbers; empty where they can all hold.
    #[must_use]
    pub fn check(&self) -> Vec<Contradiction> {
        let mut found = Vec::new();
        self.check_lease(&mut found);
        self.check_life(&mut found);
        if self.on_doubt == OnDoubt::RetrySame && self.mode != Mode::Replay {
            found.push(Contradiction {
                field: "on_doubt",
                sum: "`retry-same` asks the upstream again for a mint that may have happened".into(),
                hint: "use `mode = \"replay\"` if the source is deterministic or idempotent, or `on_doubt = \"wait\"`"
                    .into(),
            });
        }
        if self.stale_ms > 0 && self.mode == Mode::Exclusive {
            found.push(Contradiction {
                field: "stale",
                sum: format!("stale {} keeps a second credential in use in exclusive mode", Span(self.stale_ms)),
                hint: "remove `stale`".into(),
            });
        }
        found
    }

    fn check_lease(&self, found: &mut Vec<Contradiction>) {
        let mut less = |field, left: (&str, u64), right: (&str, u64), hint: &str| {
            found.push(Contradiction {
                field,
                sum: format!("{} {} is less than {} {}", left.0, Span(left.1), right.0, Span(right.1)),
                hint: hint.into(),
            });
        };
        if self.lease_ms < self.mint_window_ms() {
            less(
                "lease",
                ("lease", self.lease_ms),
                (&format!("send {} + timeout {} =", Span(self.send_ms), Span(self.answer_ms)), self.mint_window_ms()),
                "a request could outlive the lease it was sent under: lengthen `lease` or shorten `timeout`",
            );
        }
        let least_takeover = self.lease_ms.saturating_add(self.lease_ms / 5);
        if self.takeover_ms < least_takeover {
            less(
                "takeover",
                ("takeover", self.takeover_ms),
                (&format!("lease {} x 1.2 =", Span(self.lease_ms)), least_takeover),
                "a slow clock would still believe in its lease: lengthen `takeover`",
            );
        }
        if self.send_ms == 0 || self.answer_ms == 0 {
            less("timeout", ("timeout", self.answer_ms.min(self.send_ms)), ("the least,", 1), "give it at least 1ms");
        }
        if self.min_interval_ms == 0 {
            less(
                "min_interval",
                ("min_interval", 0),
                ("the least,", 1),
                "without a floor one node with a fast clock mints in a loop",
            );
        }
    }

    fn check_life(&self, found: &mut Vec<Contradiction>) {
        if self.lead_ms >= self.life_ms {
            found.push(Contradiction {
                field: "lead",
                sum: format!("lead {} is not shorter than max {}", Span(self.lead_ms), Span(self.life_ms)),
                hint: "a credential would be due for renewal as soon as it is minted: a fifth of the life is usual"
                    .into(),
            });
            return;
        }
        let age = self.life_ms - self.lead_ms;
        if age < self.min_interval_ms {
            found.push(Contradiction {
                field: "min_interval",
                sum: format!(
                    "max {} - lead {} = {} is less than min_interval {}",
                    Span(self.life_ms),
                    Span(self.lead_ms),
                    Span(age),
                    Span(self.min_interval_ms)
                ),
                hint: "the renewal would fall due before the upstream allows it: shorten `lead`".into(),
            });
        }
        if self.faults_absorbed() == 0 {
            let needed = self.fault_ms().saturating_add(self.skew_ms);
            found.push(Contradiction {
                field: "lead",
                sum: format!(
                    "lead {} is less than one fault {} + skew {} = {}",
                    Span(self.lead_ms),
                    Span(self.fault_ms()),
                    Span(self.skew_ms),
                    Span(needed)
                ),
                hint: "one lost answer would leave readers without a credential: lengthen `lead`".into(),
            });
        }
        if self.handover_ms.saturating_add(self.skew_ms) >= self.lead_ms {
            found.push(Contradiction {
                field: "handover",
                sum: format!(
                    "handover {} + skew {} is not shorter than lead {}",
                    Span(self.handover_ms),
                    Span(self.skew_ms),
                    Span(self.lead_ms)
                ),
                hint: "the switch would come after expiry: shorten `handover`, half of `lead` is usual".into(),
            });
        }
        self.check_quiet(found);
        if self.backdate_ms.saturating_add(self.lead_ms) >= self.life_ms {
            found.push(Contradiction {
                field: "backdate",
                sum: format!(
                    "backdate {} + lead {} is not shorter than max {}",
                    Span(self.backdate_ms),
                    Span(self.lead_ms),
                    Span(self.life_ms)
                ),
                hint: "a new credential would be due for renewal at once: shorten `backdate` or `lead`".into(),
            });
        }
    }

    /// A credential that does not live through a window has to be renewed in it.
    fn check_quiet(&self, found: &mut Vec<Contradiction>) {
        let around_ms = self.settled_ms().saturating_add(self.refresh_jitter_ms);
        let quiet_ms = quiet::longest_ms(&self.quiet, around_ms);
        let needed = quiet_ms.saturating_add(around_ms).saturating_add(self.lead_ms);
        if quiet_ms == 0 || needed <= self.life_ms {
            return;
        }
        let longest = if quiet_ms > quiet::WEEK_MS { "never ends".to_owned() } else { Span(quiet_ms).to_string() };
        found.push(Contradiction {
            field: "quiet",
            sum: format!(
                "quiet {longest} + jitter {} + time to renew {} + lead {} is more than max {}",
                Span(self.refresh_jitter_ms),
                Span(self.settled_ms()),
                Span(self.lead_ms),
                Span(self.life_ms)
            ),
            hint: "a credential would not live through the window: shorten the window, `lead`, `jitter` or `spread`, \
                   or lengthen `max` if the upstream allows it"
                .into(),
        });
    }
}
