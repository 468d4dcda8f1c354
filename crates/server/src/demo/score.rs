//! What a run comes to: a verdict, a row of the table, a JSON object.

use keyreeve_picky::apns::Score;
use serde::Serialize;

use super::args::Strategy;
use super::client::Counts;
use super::plan::Plan;
use super::strike::Struck;
use super::timeline::Line;

/// The result of one strategy.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// Which.
    pub(crate) strategy: Strategy,
    /// Whether it held what keyreeve promises.
    pub(crate) is_clean: bool,
    /// What it did not hold, in words.
    pub(crate) problems: Vec<String>,
    /// Distinct tokens that the fake Apple was shown.
    pub(crate) minted: u64,
    /// Those of them that were a rightful change of the team's token.
    pub(crate) allowed: u64,
    /// The most tokens in use at the same time, stragglers of a switch aside.
    pub(crate) most_valid_at_once: u64,
    /// Uses of the last-but-one token within the declared skew after a switch. Each was refused and healed by a retry.
    pub(crate) stragglers: u64,
    /// Refusals with 429, `TooManyProviderTokenUpdates`.
    pub(crate) refused_429: u64,
    /// Refusals with 403, `ExpiredProviderToken` or `InvalidProviderToken`.
    pub(crate) refused_403: u64,
    /// The generation in use at the end; for keyreeve only.
    pub(crate) in_use: Option<u64>,
    /// What the clients did.
    pub(crate) clients: Counts,
    /// What became of the faults.
    pub(crate) faults: Vec<Struck>,
    /// How long it took, in simulated and in real milliseconds.
    pub(crate) simulated_ms: u64,
    /// See above.
    pub(crate) real_ms: u64,
    /// The fake Apple's own score.
    pub(crate) upstream: Score,
    /// Everything that happened.
    pub(crate) timeline: Vec<Line>,
}

/// What is known at the end of a run.
pub(crate) struct Facts {
    pub(crate) strategy: Strategy,
    pub(crate) upstream: Score,
    pub(crate) clients: Counts,
    pub(crate) in_use: Option<u64>,
    pub(crate) faults: Vec<Struck>,
    /// What the orchestrator found wrong by itself.
    pub(crate) complaints: Vec<String>,
    pub(crate) simulated_ms: u64,
    pub(crate) real_ms: u64,
    pub(crate) timeline: Vec<Line>,
}

impl Outcome {
    pub(crate) fn of(facts: Facts) -> Self {
        let problems = facts.problems();
        let Facts { strategy, upstream, clients, in_use, faults, simulated_ms, real_ms, timeline, .. } = facts;
        let refused = |status: &str| {
            let of_status = clients.refusals.iter().filter(|(kind, _)| kind.starts_with(status));
            of_status.map(|(_, count)| *count).sum()
        };
        Self {
            strategy,
            is_clean: problems.is_empty(),
            problems,
            minted: upstream.minted,
            allowed: upstream.allowed,
            most_valid_at_once: upstream.most_valid_at_once,
            stragglers: upstream.stragglers,
            refused_429: refused("429"),
            refused_403: refused("403"),
            in_use,
            clients,
            faults,
            simulated_ms,
            real_ms,
            upstream,
            timeline,
        }
    }

    /// The row of the table.
    fn row(&self) -> [String; 10] {
        [
            self.strategy.as_str().to_owned(),
            self.minted.to_string(),
            self.allowed.to_string(),
            self.most_valid_at_once.to_string(),
            self.clients.pushes.to_string(),
            self.clients.failed.to_string(),
            self.clients.retried.to_string(),
            self.refused_429.to_string(),
            self.refused_403.to_string(),
            self.clients.moved.to_string(),
        ]
    }
}

impl Facts {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let upstream = &self.upstream;
        if upstream.most_valid_at_once > 1 {
            problems.push(format!("{} tokens were in use at once", upstream.most_valid_at_once));
        }
        if upstream.minted != upstream.allowed {
            problems.push(format!("{} tokens were minted, {} were allowed", upstream.minted, upstream.allowed));
        }
        if self.clients.failed > 0 {
            problems.push(format!("{} of {} pushes failed", self.clients.failed, self.clients.pushes));
        }
        if upstream.ok == 0 {
            problems.push("not one push came through".to_owned());
        }
        // A generation that was announced may never be minted (its holder woke up too late to send), so numbers may run
        // ahead of tokens. More tokens than generations would be a mint that no record knows of.
        if let Some(in_use) = self.in_use.filter(|in_use| *in_use < upstream.minted) {
            problems.push(format!("Apple has seen {} tokens, but generation {in_use} is in use", upstream.minted));
        }
        let missed = self.faults.iter().filter(|struck| struck.node.is_none()).count();
        if missed > 0 && self.strategy == Strategy::Ours {
            problems.push(format!("{missed} of the planned faults found no mint to strike, so this run proves less"));
        }
        problems.extend(self.complaints.iter().cloned());
        problems
    }
}

const HEAD: [&str; 10] =
    ["strategy", "minted", "allowed", "at once", "pushes", "failed", "retried", "429", "403", "moved"];

/// The comparison, one line a strategy.
pub(crate) fn table(outcomes: &[Outcome]) -> Vec<String> {
    let rows: Vec<[String; 10]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(outcomes.iter().map(Outcome::row)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

/// What the columns mean, and what was found.
pub(crate) fn words(outcomes: &[Outcome]) -> Vec<String> {
    let mut lines = vec![
        "minted: distinct tokens shown to Apple. allowed: rightful changes among them. at once: tokens in use at the same"
            .to_owned(),
        "time. failed: pushes not taken after one retry with a token read anew. moved: answers by another node than one's own."
            .to_owned(),
    ];
    for outcome in outcomes {
        let strategy = outcome.strategy.as_str();
        if outcome.is_clean {
            lines.push(format!(
                "{strategy}: one token at a time, {} of {} allowed ones, no push failed; the slowest took {} ms",
                outcome.minted, outcome.allowed, outcome.clients.slowest_ms
            ));
            lines.push(format!(
                "{strategy}: at the switches {} uses of the replaced token were refused, and healed by one retry each",
                outcome.stragglers
            ));
        } else {
            lines.extend(outcome.problems.iter().map(|problem| format!("{strategy}: {problem}")));
        }
    }
    lines
}

/// The machine form of the whole demonstration.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    /// Which demonstration.
    pub(crate) demo: &'static str,
    /// The faults, as planned.
    pub(crate) plan: &'a Plan,
    /// Equal for equal plans.
    pub(crate) plan_hash: String,
    /// Simulated seconds per real second.
    pub(crate) scale: u32,
    /// Renewals after the first mint.
    pub(crate) renewals: u32,
    /// What decides the exit code.
    pub(crate) is_clean: bool,
    /// One entry a strategy.
    pub(crate) outcomes: &'a [Outcome],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let upstream = Score { minted: 5, allowed: 5, most_valid_at_once: 1, ok: 100, ..Score::default() };
        let clients = Counts { pushes: 100, ..Counts::default() };
        Facts {
            strategy: Strategy::Ours,
            upstream,
            clients,
            in_use: Some(5),
            faults: Vec::new(),
            complaints: Vec::new(),
            simulated_ms: 0,
            real_ms: 0,
            timeline: Vec::new(),
        }
    }

    #[test]
    fn each_broken_promise_is_a_problem_of_its_own() {
        assert!(Outcome::of(facts()).is_clean);
        type Break = fn(&mut Facts);
        let breaks: [(&str, Break); 6] = [
            ("2 tokens were in use at once", |facts| facts.upstream.most_valid_at_once = 2),
            ("6 tokens were minted, 5 were allowed", |facts| {
                facts.upstream.minted = 6;
                facts.in_use = None;
            }),
            ("1 of 100 pushes failed", |facts| facts.clients.failed = 1),
            ("not one push came through", |facts| facts.upstream.ok = 0),
            ("Apple has seen 5 tokens, but generation 4 is in use", |facts| facts.in_use = Some(4)),
            ("node-1 ended by itself", |facts| facts.complaints.push("node-1 ended by itself".into())),
        ];
        for (problem, break_it) in breaks {
            let mut broken = facts();
            break_it(&mut broken);
            let outcome = Outcome::of(broken);
            assert_eq!(outcome.problems, [problem]);
            assert!(!outcome.is_clean);
        }
    }

    #[test]
    fn the_table_lines_up_and_sums_refusals_by_status() {
        let mut noisy = facts();
        noisy.strategy = Strategy::Lockfile;
        noisy.clients.refusals =
            [("403 ExpiredProviderToken", 7), ("403 InvalidProviderToken", 5), ("429 TooManyProviderTokenUpdates", 11)]
                .map(|(kind, count)| (kind.to_owned(), count))
                .into();
        let outcomes = [Outcome::of(facts()), Outcome::of(noisy)];
        assert_eq!(
            table(&outcomes),
            [
                "strategy  minted  allowed  at once  pushes  failed  retried  429  403  moved",
                "ours           5        5        1     100       0        0    0    0      0",
                "lockfile       5        5        1     100       0        0   11   12      0",
            ]
        );
    }
}
