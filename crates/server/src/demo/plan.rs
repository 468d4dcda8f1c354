//! What is done to the fleet, and when: a pure function of the seed.

use std::fmt;

use serde::Serialize;

/// By how much the clock of one node is wrong, in simulated milliseconds.
pub(crate) const SKEW_MS: i64 = 90_000;
const MINUTE_MS: u64 = 60_000;

/// A permille of the time that a mint takes: how far into it a fault strikes.
type Permille = u64;

/// One fault. Times are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// SIGKILL for the node that mints, in the middle of it; started again later.
    Kill {
        /// How far into the mint.
        into: Permille,
        /// How long it stays dead.
        for_ms: u64,
    },
    /// SIGSTOP for the node that mints, in the middle of it, until long after its lease; then SIGCONT.
    Freeze {
        /// How far into the mint.
        into: Permille,
        /// How long it stands still.
        for_ms: u64,
    },
    /// The node that mints loses its store in the middle of it.
    CutHolder {
        /// How far into the mint.
        into: Permille,
        /// How long the store stays away.
        for_ms: u64,
    },
    /// A node loses its store before the renewal begins, and gets it back after it.
    CutNode {
        /// Which node, from 0.
        node: usize,
        /// How long the store stays away.
        for_ms: u64,
    },
}

/// A fault and the renewal it is for, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Strike {
    /// Which renewal.
    pub(crate) renewal: u32,
    /// What happens to it.
    #[serde(flatten)]
    pub(crate) fault: Fault,
}

/// Everything that goes wrong in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// What it was made from.
    pub(crate) seed: u64,
    /// The node with the wrong clock, from 0.
    pub(crate) skewed_node: usize,
    /// How wrong it is, in simulated milliseconds; positive is fast.
    pub(crate) skew_ms: i64,
    /// The faults, in order.
    pub(crate) strikes: Vec<Strike>,
}

impl Plan {
    /// Draws a plan for a fleet of `nodes` over `renewals`.
    pub(crate) fn draw(seed: u64, nodes: usize, renewals: u32) -> Self {
        let mut dice = Dice::new(seed);
        let skewed_node = dice.index(nodes);
        let skew_ms = if dice.below(2) == 0 { SKEW_MS } else { -SKEW_MS };
        // Early enough to be in the middle of it on a busy machine too.
        let into = |dice: &mut Dice| 100 + dice.below(350);
        let kill = Fault::Kill { into: into(&mut dice), for_ms: dice.minutes(3, 10) };
        // Longer than the 4 minutes after which others take over.
        let freeze = Fault::Freeze { into: into(&mut dice), for_ms: dice.minutes(6, 9) };
        let cut = if dice.below(2) == 0 {
            Fault::CutHolder { into: into(&mut dice), for_ms: dice.minutes(6, 9) }
        } else {
            Fault::CutNode { node: dice.index(nodes), for_ms: dice.minutes(10, 24) }
        };
        let mut faults = [kill, freeze, cut];
        dice.shuffle(&mut faults);
        let mut numbers: Vec<u32> = (1..=renewals.max(1)).collect();
        dice.shuffle(&mut numbers);
        let strike = |(fault, renewal): (&Fault, &u32)| Strike { renewal: *renewal, fault: *fault };
        let mut strikes: Vec<Strike> = faults.iter().zip(numbers.iter().cycle()).map(strike).collect();
        strikes.sort_by_key(|strike| strike.renewal);
        Self { seed, skewed_node, skew_ms, strikes }
    }

    /// Names the plan: equal for equal plans, whatever the machine. FNV-1a over its JSON; no secret depends on it.
    pub(crate) fn hash(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let hash = json.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = |ms: &u64| ms / MINUTE_MS;
        match self {
            Self::Kill { for_ms, .. } => {
                write!(f, "SIGKILL for the node that mints, in the middle of it; back after {}m", minutes(for_ms))
            }
            Self::Freeze { for_ms, .. } => {
                write!(f, "SIGSTOP for the node that mints, in the middle of it; SIGCONT after {}m", minutes(for_ms))
            }
            Self::CutHolder { for_ms, .. } => {
                write!(f, "the node that mints loses its store in the middle of it, for {}m", minutes(for_ms))
            }
            Self::CutNode { node, for_ms } => {
                write!(f, "{} loses its store before the renewal, for {}m", name_of(*node), minutes(for_ms))
            }
        }
    }
}

/// What a node is called, from its number.
pub(crate) fn name_of(node: usize) -> String {
    format!("node-{}", node.saturating_add(1))
}

/// A random sequence that depends on its seed and nothing else (splitmix64: Steele, Lea, Flood 2014).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`; 0 where there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    /// A whole number of minutes, both ends included, in milliseconds.
    fn minutes(&mut self, from: u64, to: u64) -> u64 {
        from.saturating_add(self.below(to.saturating_sub(from).saturating_add(1))).saturating_mul(MINUTE_MS)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.index(end.saturating_add(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_other_seeds_give_others() {
        assert_eq!(Plan::draw(7, 8, 4), Plan::draw(7, 8, 4));
        let hashes: std::collections::BTreeSet<String> = (0..100).map(|seed| Plan::draw(seed, 8, 4).hash()).collect();
        assert_eq!(hashes.len(), 100);
    }

    #[test]
    fn every_plan_kills_freezes_cuts_and_skews_whatever_the_number_of_renewals() {
        for seed in 0..200 {
            for renewals in 1..=5 {
                let plan = Plan::draw(seed, 8, renewals);
                let has = |test: fn(&Fault) -> bool| plan.strikes.iter().filter(|s| test(&s.fault)).count();
                assert_eq!(has(|f| matches!(f, Fault::Kill { .. })), 1);
                assert_eq!(has(|f| matches!(f, Fault::Freeze { .. })), 1);
                assert_eq!(has(|f| matches!(f, Fault::CutHolder { .. } | Fault::CutNode { .. })), 1);
                assert!(plan.skewed_node < 8 && plan.skew_ms.abs() == SKEW_MS);
                assert!(plan.strikes.iter().all(|s| (1..=renewals).contains(&s.renewal)));
            }
        }
    }

    #[test]
    fn the_hash_of_a_plan_is_the_same_on_every_machine() {
        assert_eq!(Plan::draw(1, 8, 4).hash(), "edae7c05a34df36d");
    }
}
