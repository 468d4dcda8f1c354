//! Runs seeds, many or one, and writes down those that fail.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::chance::Chance;
use crate::fleet::Fleet;
use crate::plan::{Issuer, Plan};
use crate::world::{Log, World};

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub log: Log,
    /// Tokens that the upstream made.
    pub mints: u64,
    /// Generations that were published.
    pub published: u64,
}

/// Runs a plan: faults, recovery, and two lifetimes of peace in which every reader must be served.
#[must_use]
pub fn run(plan: Plan, is_recording: bool) -> Outcome {
    let seed = plan.seed;
    let world = World::new(Chance::new(seed), plan.nodes, is_recording);
    let calm_at_ms = plan.faults_until_ms + plan.recovery_ms();
    let end_ms = calm_at_ms + 2 * plan.rules.life_ms;
    // What was signed by a clock that was hours ahead lives for hours more.
    let may_rest = plan.issuer == Issuer::Signer && plan.faults.jumps_last;
    let fleet = Fleet::new(Arc::clone(&world), plan);
    world.run(calm_at_ms);
    fleet.calm_down();
    let before = fleet.oracle.published();
    world.run(end_ms);
    if !may_rest && !world.is_broken() && fleet.oracle.published() <= before {
        world.violated(0, "nothing was published in two lifetimes of peace");
    }
    let (mints, published) = (fleet.oracle.mints(), fleet.oracle.published());
    Outcome { seed, log: world.end(), mints, published }
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many seeds ran.
    pub seeds: u64,
    /// Those in which something happened that must never happen, with the first such thing.
    pub failed: BTreeMap<u64, String>,
    /// Those that came out differently when they ran again.
    pub unsteady: Vec<u64>,
    /// How often each kind of event happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// Tokens made.
    pub mints: u64,
    /// Generations published.
    pub published: u64,
}

/// How many seeds pass between two lines of progress.
const PROGRESS: u64 = 1000;

/// Runs `count` seeds from `first` on over `threads` threads, each of them twice. Failing seeds are written to `folder`;
/// every [`PROGRESS`] seeds a line on standard error says how far it has come.
///
/// # Errors
/// The folder cannot be written to.
pub fn run_many(
    first: u64,
    count: u64,
    threads: u64,
    folder: &Path,
    plan: impl Fn(u64) -> Plan + Sync,
) -> io::Result<Summary> {
    let next = AtomicU64::new(first);
    let summary = Mutex::new(Summary::default());
    let work = || -> io::Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first.saturating_add(count) {
                return Ok(());
            }
            let (outcome, again) = (run(plan(seed), false), run(plan(seed), false));
            if !outcome.log.violations.is_empty() {
                save(folder, &run(plan(seed), true), &plan(seed))?;
            }
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.add(&outcome, outcome.log.hash == again.log.hash);
            summary.report(count);
        }
    };
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for result in results {
        result.map_err(|_| io::Error::other("a thread of the simulation panicked"))??;
    }
    Ok(summary.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Summary {
    #[expect(clippy::print_stderr, reason = "the progress of a run that takes an hour, for whoever started it")]
    fn report(&self, count: u64) {
        if self.seeds.is_multiple_of(PROGRESS) {
            let (failed, unsteady) = (self.failed.len(), self.unsteady.len());
            eprintln!("{} of {count} seeds, {failed} failed, {unsteady} did not repeat", self.seeds);
        }
    }

    fn add(&mut self, outcome: &Outcome, is_steady: bool) {
        self.seeds += 1;
        self.mints += outcome.mints;
        self.published += outcome.published;
        if let Some(first) = outcome.log.violations.first() {
            self.failed.insert(outcome.seed, first.clone());
        }
        if !is_steady {
            self.unsteady.push(outcome.seed);
        }
        for (kind, count) in &outcome.log.counts {
            *self.counts.entry(kind).or_default() += count;
        }
    }
}

/// Writes a run down, step by step, and returns the file.
///
/// # Errors
/// The folder cannot be written to.
pub fn save(folder: &Path, outcome: &Outcome, plan: &Plan) -> io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join(format!("{}.txt", outcome.seed));
    let violations = outcome.log.violations.join("\n");
    let seed = outcome.seed;
    let head = format!(
        "seed {seed}\nreplay: KEYREEVE_SIM_SEED={seed} cargo test -p keyreeve-sim --test simulation -- --nocapture\n\n\
         {violations}\n\n{plan:#?}\n\n"
    );
    std::fs::write(&file, head + &outcome.log.lines.join("\n") + "\n")?;
    Ok(file)
}
