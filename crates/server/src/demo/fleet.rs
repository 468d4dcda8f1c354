//! `keyreeve demo fleet`: one run for each strategy, then the comparison.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use keyreeve_picky::apns::{self, Apns};
use keyreeve_picky::clock::PickyClock;
use tokio::task::JoinSet;

use super::args::{FleetArgs, Strategy};
use super::children::Children;
use super::client::Crowd;
use super::frame::{unavailable, until_stopped};
use super::place::{CYCLE_MS, HANDOVER_MS, Place, SKEW_BOUND_MS};
use super::plan::{Plan, name_of};
use super::score::{Facts, Outcome, Report, table, words};
use super::strike::Striker;
use super::timeline::Timeline;
use super::watch::Watch;
use crate::exit::{Code, Failure, say, tell};

/// The longest wait for all nodes to hand out a token, in real time.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long clients get to end the push they are at.
const FINISH_WITHIN: Duration = Duration::from_secs(15);
/// Two takeovers before the last publication, and some time after the last switch: in simulated milliseconds.
const TAIL_MS: u64 = 14 * 60_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the demonstration. An error with code 1 where the promise was not held.
pub(crate) async fn run(args: FleetArgs) -> Result<(), Failure> {
    until_stopped(run_all(&args)).await
}

async fn run_all(args: &FleetArgs) -> Result<(), Failure> {
    let plan = Plan::draw(args.seed, usize::try_from(args.nodes).unwrap_or(usize::MAX), args.renewals);
    let print = |line: &str| if args.json { tell(line) } else { say(line) };
    for line in introduction(args, &plan) {
        print(&line);
    }
    let mut outcomes = Vec::new();
    match args.strategy {
        Some(strategy) => outcomes.push(run_one(strategy, args, &plan).await?),
        None => {
            outcomes.push(run_one(Strategy::Ours, args, &plan).await?);
            print("");
            // The others are compared with keyreeve, not with each other: they may share the machine.
            let (naive, lockfile) =
                tokio::try_join!(run_one(Strategy::Naive, args, &plan), run_one(Strategy::Lockfile, args, &plan))?;
            outcomes.extend([naive, lockfile]);
        }
    }
    // Of several, keyreeve's own is the first.
    let is_clean = outcomes.first().is_some_and(|outcome| outcome.is_clean);
    print("");
    for line in table(&outcomes).iter().chain(&words(&outcomes)) {
        print(line);
    }
    if args.json {
        let report = Report {
            demo: "fleet",
            plan: &plan,
            plan_hash: plan.hash(),
            scale: args.scale,
            renewals: args.renewals,
            is_clean,
            outcomes: &outcomes,
        };
        say(&serde_json::to_string(&report).map_err(unavailable)?);
    }
    if is_clean { Ok(()) } else { Err(Failure::quiet(Code::CheckFailed)) }
}

fn introduction(args: &FleetArgs, plan: &Plan) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{} nodes, {} clients, {} renewals, one simulated minute in {:.2} s; seed {}, plan {}",
            args.nodes,
            args.clients,
            args.renewals,
            60.0 / f64::from(args.scale),
            args.seed,
            plan.hash()
        ),
        format!(
            "  the clock of {} is {} s {}",
            name_of(plan.skewed_node),
            plan.skew_ms.abs() / 1000,
            if plan.skew_ms > 0 { "fast" } else { "slow" }
        ),
    ];
    lines.extend(plan.strikes.iter().map(|strike| format!("  renewal {}: {}", strike.renewal, strike.fault)));
    lines.push(String::new());
    lines
}

/// One strategy from start to end.
async fn run_one(strategy: Strategy, args: &FleetArgs, plan: &Plan) -> Result<Outcome, Failure> {
    let nodes = usize::try_from(args.nodes).unwrap_or(usize::MAX);
    let place = Place::new(nodes, args.scale, args.keep).map_err(unavailable)?;
    let clock = PickyClock::scaled(PickyClock::real().now_ms(), f64::from(args.scale));
    let timeline = Arc::new(Timeline::new(strategy, clock.clone(), args.json));
    let apple = start_apple(&place, &clock).await.map_err(unavailable)?;
    if args.keep {
        timeline.add("", format!("everything is in `{}`", place.folder().display()));
    }
    let children = Children::start(strategy, args, plan, &place, clock.epoch_unix_ms()).map_err(unavailable)?;
    let crowd = Crowd::new(&place, nodes, &apple, Duration::from_millis(args.rest), &timeline).map_err(unavailable)?;
    wait_until_ready(&children, &crowd, nodes, &place).await?;
    let start_ms = timeline.restart();
    let start = Instant::now();
    timeline.add("", format!("all {nodes} nodes hand out a token; {} clients start", args.clients));
    let watch = Watch::start(strategy, nodes, &place, &timeline).map_err(unavailable)?;

    let mut clients = JoinSet::new();
    for number in 0..usize::try_from(args.clients).unwrap_or(usize::MAX) {
        clients.spawn(Arc::clone(&crowd).run_client(number, args.seed));
    }
    let spent = Mutex::default();
    let striker = Striker {
        strategy,
        children: &children,
        place: &place,
        watch: &watch,
        timeline: &timeline,
        clock: &clock,
        start_ms,
        spent,
    };
    let length_ms = u64::from(args.renewals) * CYCLE_MS + HANDOVER_MS + TAIL_MS;
    let faults = tokio::select! {
        faults = striker.carry_out(plan, length_ms) => faults.map_err(unavailable)?,
        never = tell_changes(&apple, &timeline) => match never {},
    };
    crowd.finish();
    finish(&mut clients).await?;

    let mut complaints = Vec::new();
    if let Some((node, how)) = children.find_ended() {
        complaints.push(format!("{} ended by itself: {how}", name_of(node)));
    }
    match watch.seen().times_gone_back {
        0 => {}
        times => complaints.push(format!("a newer record was overwritten by an older one ({times} x)")),
    }
    let in_use = (strategy == Strategy::Ours).then(|| watch.seen().in_use(clock.now_ms()));
    let simulated_ms = u64::try_from(clock.now_ms().saturating_sub(start_ms)).unwrap_or(0);
    let real_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let upstream = apple.score();
    drop(watch);
    children.end().await;
    apple.shutdown().await;
    Ok(Outcome::of(Facts {
        strategy,
        upstream,
        clients: crowd.counts(),
        in_use,
        faults,
        complaints,
        simulated_ms,
        real_ms,
        timeline: timeline.lines(),
    }))
}

/// A strict Apple: one memory per team, one valid token, nothing let through after its time.
async fn start_apple(place: &Place, clock: &PickyClock) -> io::Result<Apns> {
    apns::start(apns::Config {
        keys: vec![place.registered_key()],
        clock: clock.clone(),
        // Changes the score only: within the declared clock error after a switch, a replaced token that turns up (and is
        // refused) is a straggler, not a second one in use.
        handover: Duration::from_millis(SKEW_BOUND_MS),
        ..apns::Config::default()
    })
    .await
}

/// Adds a line each time the fake Apple sees a token that changes things.
async fn tell_changes(apple: &Apns, timeline: &Timeline) -> Infallible {
    let mut told = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let score = apple.score();
        for change in score.changes.iter().skip(told) {
            told += 1;
            timeline.add("", format!("Apple takes token {told} ({}) as the team's new one", change.token));
        }
    }
}

/// Waits until every node hands out a token. All are asked at the same time, as clients would.
async fn wait_until_ready(
    children: &Children<'_>,
    crowd: &Arc<Crowd>,
    nodes: usize,
    place: &Place,
) -> Result<(), Failure> {
    let until = Instant::now() + READY_WITHIN;
    let wait = async |node: usize| {
        while !crowd.is_ready(node).await {
            if let Some((node, how)) = children.find_ended() {
                let text = format!("{} ended before it was ready: {how}", name_of(node));
                return Err(unavailable(text).hint(&last_line(place, node)));
            }
            if Instant::now() > until {
                let text = format!("{} does not hand out a token within {} s", name_of(node), READY_WITHIN.as_secs());
                return Err(unavailable(text).hint(&last_line(place, node)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    try_join_all((0..nodes).map(wait)).await.map(drop)
}

/// What a node said last.
fn last_line(place: &Place, node: usize) -> String {
    let log = std::fs::read_to_string(place.log(node)).unwrap_or_default();
    format!("its log ends with: {}", log.lines().last().unwrap_or("nothing"))
}

async fn finish(clients: &mut JoinSet<Result<(), reqwest::Error>>) -> Result<(), Failure> {
    let all = async {
        while let Some(ended) = clients.join_next().await {
            ended.map_err(unavailable)?.map_err(unavailable)?;
        }
        Ok(())
    };
    tokio::time::timeout(FINISH_WITHIN, all).await.map_err(|_| unavailable("a client did not end"))?
}
