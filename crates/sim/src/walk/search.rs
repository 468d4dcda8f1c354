//! Breadth first through every state, once each, and back to how one was reached.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use super::acts::Act;
use super::canon::{Print, print};
use super::laws::{Broken, Law};
use super::machine::{Machine, Sight, Stage};
use super::scenario::Scenario;
use super::world::World;

/// How often something that makes a walk worth its time was seen, over all edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Outcomes that were refused because somebody else had written meanwhile.
    pub fenced: u64,
    /// Leases taken over from another holder.
    pub takeovers: u64,
    /// Mint answers that came in after the lease had run out.
    pub late_mints: u64,
    /// Orders to mint a generation again with the same inputs.
    pub replays: u64,
    /// Orders to mint.
    pub mints_asked: u64,
    /// New credentials minted.
    pub minted: u64,
    /// Mint calls acted on after their caller had gone.
    pub stray_mints: u64,
    /// Swaps whose answer was lost.
    pub swaps_unknown: u64,
    /// Mint calls whose answer was lost.
    pub mints_unknown: u64,
    /// Writes by operators and callers.
    pub operated: u64,
}

impl Tally {
    const fn add(&mut self, other: &Self) {
        self.fenced += other.fenced;
        self.takeovers += other.takeovers;
        self.late_mints += other.late_mints;
        self.replays += other.replays;
        self.mints_asked += other.mints_asked;
        self.minted += other.minted;
        self.stray_mints += other.stray_mints;
        self.swaps_unknown += other.swaps_unknown;
        self.mints_unknown += other.mints_unknown;
        self.operated += other.operated;
    }
}

/// A broken law and the shortest way to break it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The law.
    pub law: Law,
    /// How many steps it took.
    pub steps: usize,
    /// The steps, one line each.
    pub trace: String,
}

/// What a walk found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario's name.
    pub name: &'static str,
    /// Distinct states.
    pub states: usize,
    /// Steps from state to state, repeats included.
    pub edges: u64,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// Wall time.
    pub took: Duration,
    /// Whether every reachable state was visited.
    pub is_complete: bool,
    /// What happened on the edges.
    pub tally: Tally,
    /// The broken laws, in the order of discovery, one way each.
    pub violations: Vec<Violation>,
}

impl Report {
    /// The laws that broke, first found first.
    #[must_use]
    pub fn laws(&self) -> Vec<Law> {
        self.violations.iter().map(|violation| violation.law).collect()
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{}: {} states, {} edges, depth {}, {:.1} s{}; {}",
            self.name,
            self.states,
            self.edges,
            self.depth,
            self.took.as_secs_f64(),
            if self.is_complete { "" } else { " (stopped)" },
            match self.violations.first() {
                None => format!("every law holds; {:?}", self.tally),
                Some(first) => format!("broken: {:?}, first after {} steps", self.laws(), first.steps),
            }
        )
    }
}

#[derive(Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }
}

/// Fingerprints, each with the one it was reached from. They are hashes already.
type Seen = HashMap<Print, Print, BuildHasherDefault<Already>>;

struct Found<M, V> {
    print: Print,
    parent: Print,
    world: World<M, V>,
}

const BATCH: usize = 1 << 15;

/// Walks through `scenario` until every state has been visited, or the first law breaks, or the limit is reached.
#[must_use]
pub fn walk<M: Machine, V: Sight>(scenario: &Scenario) -> Report {
    walk_showing::<M, V>(scenario, &mut |_| ())
}

/// As [`walk`], and shows each state once.
pub fn walk_showing<M: Machine, V: Sight>(scenario: &Scenario, show: &mut dyn FnMut(&World<M, V>)) -> Report {
    let started = Instant::now();
    let mut first = World::<M, V>::first(scenario);
    first.settle(scenario);
    let root = print(&first, scenario);
    let mut seen = Seen::default();
    seen.insert(root, root);
    let mut report = Report {
        name: scenario.name,
        states: 1,
        edges: 0,
        depth: 0,
        took: Duration::ZERO,
        is_complete: false,
        tally: Tally::default(),
        violations: Vec::new(),
    };
    let mut layer = vec![Found { print: root, parent: root, world: first }];
    let mut broken = Broken::default();
    while !layer.is_empty() {
        let mut next = Vec::new();
        let mut rest = layer.into_iter();
        loop {
            let batch: Vec<_> = rest.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            for found in expand(scenario, &batch, &seen, &mut report) {
                for law in found.world.broken.iter().filter(|law| !broken.has(*law)) {
                    report.violations.push(trace(scenario, &seen, root, &found, law, report.depth + 1));
                }
                found.world.broken.iter().for_each(|law| broken.note(law));
                if let std::collections::hash_map::Entry::Vacant(entry) = seen.entry(found.print) {
                    entry.insert(found.parent);
                    show(&found.world);
                    next.push(found);
                }
            }
            report.states = seen.len();
            let stops = match scenario.until {
                Some(law) => broken.has(law),
                None => !broken.is_empty() && !scenario.collects_all,
            };
            if stops || report.states > scenario.states_max {
                report.took = started.elapsed();
                return report;
            }
        }
        report.depth += usize::from(!next.is_empty());
        layer = next;
    }
    report.is_complete = true;
    report.took = started.elapsed();
    report
}

/// Every state one step away from `batch` that has not been seen in an earlier layer, and every one that breaks a law.
fn expand<M: Machine, V: Sight>(
    scenario: &Scenario,
    batch: &[Found<M, V>],
    seen: &Seen,
    report: &mut Report,
) -> Vec<Found<M, V>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4);
    let cores = if batch.len() < 2000 { 1 } else { cores };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let chunks = batch.chunks(batch.len().div_ceil(cores));
        let workers: Vec<_> = chunks.map(|chunk| scope.spawn(move || expand_part(scenario, chunk, seen))).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let mut all = Vec::new();
    for (found, edges, tally) in parts {
        all.extend(found);
        report.edges += edges;
        report.tally.add(&tally);
    }
    all
}

fn expand_part<M: Machine, V: Sight>(
    scenario: &Scenario,
    batch: &[Found<M, V>],
    seen: &Seen,
) -> (Vec<Found<M, V>>, u64, Tally) {
    let mut out = Vec::new();
    let mut edges = 0;
    let mut tally = Tally::default();
    let mut acts = Vec::new();
    for from in batch {
        from.world.acts(scenario, &mut acts);
        for act in &acts {
            let Some(world) = from.world.after(scenario, *act, &mut tally) else { continue };
            edges += 1;
            let print = print(&world, scenario);
            if !world.broken.is_empty() || !seen.contains_key(&print) {
                out.push(Found { print, parent: from.print, world });
            }
        }
    }
    (out, edges, tally)
}

fn trace<M: Machine, V: Sight>(
    scenario: &Scenario,
    seen: &Seen,
    root: Print,
    last: &Found<M, V>,
    law: Law,
    steps: usize,
) -> Violation {
    let mut path = vec![last.print];
    let mut at = last.parent;
    while at != root {
        path.push(at);
        let Some(parent) = seen.get(&at) else { break };
        at = *parent;
    }
    let mut text = String::new();
    let mut world = World::<M, V>::first(scenario);
    world.settle(scenario);
    let mut acts = Vec::new();
    while let Some(target) = path.pop() {
        let is_last = path.is_empty();
        world.acts(scenario, &mut acts);
        let step = acts.iter().find_map(|act: &Act| {
            let next = world.after(scenario, *act, &mut Tally::default())?;
            let is_it = print(&next, scenario) == target && (!is_last || next.broken.has(law));
            is_it.then_some((*act, next))
        });
        let Some((act, next)) = step else {
            text.push_str("(the way cannot be followed further)\n");
            break;
        };
        let _ = writeln!(text, "{:<16} {}", format!("{act:?}"), describe(&next));
        world = next;
    }
    Violation { law, steps, trace: text }
}

/// A state in one line: what the register holds, and where each node is.
fn describe<M: Machine, V: Sight>(world: &World<M, V>) -> String {
    let mut text = format!("t={}", world.at - super::world::START);
    match &world.register {
        None => text.push_str(" register empty"),
        Some(record) => {
            let _ = write!(text, " register #{} generation {}", record.rev, record.generation);
            if let Some(newest) = record.newest() {
                let ends = newest.expires_at.0.cast_signed() - super::world::START.cast_signed();
                let _ = write!(text, " published {} until {ends}", newest.generation);
            }
            if let Some(intent) = &record.intent {
                let replay = if intent.is_replay { " again" } else { "" };
                let _ = write!(text, " intent of {} for {}{replay}", intent.holder.node, intent.generation);
            }
        }
    }
    for node in &world.nodes {
        let stage = match node.machine.memory().stage {
            Stage::Idle => "idle",
            Stage::Acquiring { .. } => "acquiring",
            Stage::Minting { .. } => "minting",
            Stage::Settling { .. } => "settling",
        };
        let life = node.me.boot;
        let dead = if node.is_dead { " dead" } else { "" };
        let _ = write!(text, " | {}{life}{dead} {stage}", node.me.node);
        if let Some(flight) = &node.flight {
            let _ = write!(text, " swap {:?}", flight.reply);
        }
        if let Some(call) = &node.call {
            let _ = write!(text, " mint {} {:?}", call.order.generation, call.outcome);
        }
    }
    if !world.broken.is_empty() {
        let _ = write!(text, " !! {:?}", world.broken);
    }
    text
}
