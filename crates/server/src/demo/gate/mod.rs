//! `keyreeve demo gate`: eight nodes hand artifacts to holders of tokens, under load, from a bucket and its mirror that hang,
//! refuse and come back, while a version is published, tokens are revoked and a target is dropped.
//!
//! - `bucket`: a bucket in this process, with faults
//! - `fleet`: the nodes, and what is asked of them
//! - `traffic`: those who come all the time, and what they are answered
//! - `laws`: what an answer may be
//! - `acts`: what happens when

mod acts;
mod bucket;
mod fleet;
mod laws;
mod traffic;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use super::args::GateArgs;
use super::frame::{Diary, Print, all_end, conclude, printer, unavailable, until_stopped};
use super::plan::Dice;
use super::probe::Probe;
use super::processes::node_name;
use crate::exit::Failure;

use acts::{Acts, Measured};
use fleet::{Fleet, KNOWN, LEAVING, TARGET};
use laws::Act;
use traffic::{Row, Traffic};

/// How many good tokens are in circulation.
const TOKENS: usize = 8;
/// How many are revoked one by one.
const REVOKED: usize = 2;
/// How many the target has that is dropped.
const DROPPED: usize = 8;

/// Runs the demonstration. An error with code 1 where a law was broken.
pub(crate) async fn run(args: GateArgs) -> Result<(), Failure> {
    until_stopped(run_all(&args)).await
}

async fn run_all(args: &GateArgs) -> Result<(), Failure> {
    let print = printer(args.json);
    let fleet = Arc::new(Fleet::start(args).await.map_err(unavailable)?);
    if args.keep {
        print(&format!("everything is in `{}`", fleet.folder().display()));
    }
    print(&format!(
        "{} nodes, a bucket and its mirror; hedge_after {} ms, deadline {} ms, fresh {} ms, max_staleness {} ms; seed {}",
        args.nodes,
        fleet::HEDGE_MS,
        fleet::DEADLINE_MS,
        fleet::FRESH_MS,
        fleet::MAX_STALENESS_MS,
        args.seed
    ));
    fleet.wait_until_ready().await?;
    for name in KNOWN {
        fleet.publish(0, name, 1).await.map_err(unavailable)?;
    }
    let good = tokens(&fleet, TARGET, TOKENS).await.map_err(unavailable)?;
    let probes = |tokens: Vec<String>| tokens.into_iter().map(|token| Arc::new(Probe::new(token))).collect::<Vec<_>>();
    let revoked = probes(tokens(&fleet, TARGET, REVOKED).await.map_err(unavailable)?);
    let dropped = probes(tokens(&fleet, LEAVING, DROPPED).await.map_err(unavailable)?);
    let of = |probes: &[Arc<Probe>], target| probes.iter().cloned().map(|probe| (probe, target)).collect::<Vec<_>>();
    let shown = [of(&revoked, TARGET), of(&dropped, LEAVING)].concat();
    let traffic = Arc::new(Traffic::new(Arc::clone(&fleet), good, shown));
    traffic.note_published(1);
    let workers = traffic.start();
    let mut acts = Acts {
        args,
        fleet: &fleet,
        traffic: &traffic,
        revoked: &revoked,
        dropped: &dropped,
        diary: Diary::new(&print),
        dice: Dice::new(args.seed),
        complaints: Vec::new(),
        measured: BTreeMap::new(),
    };
    acts.carry_out().await.map_err(unavailable)?;
    let (complaints, measured) = (acts.complaints, acts.measured);
    traffic.finish();
    all_end(workers).await?;
    report(args, &fleet, &traffic, (complaints, &measured), &print)
}

/// New tokens of a target, each made by another node.
async fn tokens(fleet: &Fleet, target: &str, count: usize) -> io::Result<Vec<String>> {
    let mut made = Vec::with_capacity(count);
    for (number, node) in fleet.nodes().into_iter().cycle().take(count).enumerate() {
        made.push(fleet.api(node)?.new_token(target, &format!("{target}-{number}")).await?);
    }
    Ok(made)
}

fn report(
    args: &GateArgs,
    fleet: &Fleet,
    traffic: &Traffic,
    (mut complaints, measured): (Vec<String>, &BTreeMap<Act, Measured>),
    print: &Print,
) -> Result<(), Failure> {
    complaints.extend(traffic.broken());
    let nothing = Measured::default();
    let mut results = Vec::new();
    for act in Act::ALL {
        let measured = measured.get(&act).unwrap_or(&nothing);
        let rows: Vec<(usize, Row)> = fleet.nodes().into_iter().map(|node| (node, traffic.row(act, node))).collect();
        if rows.iter().any(|(_, row)| !is_enough(act, row)) {
            complaints.push(format!("{}: there was not enough traffic to judge by", act.name()));
        }
        print("");
        print(&table(act, &rows, measured));
        results.push(result(act, &rows, measured));
    }
    print("");
    let result = json!({
        "demo": "gate",
        "seed": args.seed,
        "nodes": args.nodes,
        "seconds": args.seconds,
        "acts": results,
    });
    let held = "a mirror in time, stale where it says so, 503 and no refusal, nothing for a token that was taken back";
    conclude(print, &complaints, held, args.json.then_some(result))
}

/// Whether a node has been asked for everything that the act is about.
fn is_enough(act: Act, row: &Row) -> bool {
    match act {
        _ if act.is_dark() => row.stale > 0 && (row.away > 0 || act == Act::Revoked || act == Act::Dropped),
        Act::PrimaryHangs => row.whole > 0 && row.same > 0 && row.away > 0,
        _ => row.whole > 0 && row.same > 0 && row.absent > 0,
    }
}

/// Nodes down, answers across.
fn table(act: Act, rows: &[(usize, Row)], measured: &Measured) -> String {
    let mut head = format!(
        "{:<20} {:>6} {:>6} {:>6} {:>5} {:>5} {:>8} {:>6} {:>9} {:>7}",
        act.name(),
        "200",
        "304",
        "stale",
        "404",
        "503",
        "401, 403",
        "other",
        "worst, ms",
        "503, ms"
    );
    if !measured.name.is_empty() {
        head.push_str(&format!("  {}", measured.name));
    }
    let mut lines = vec![head];
    for (node, row) in rows {
        let mut line = format!(
            "{:<20} {:>6} {:>6} {:>6} {:>5} {:>5} {:>8} {:>6} {:>9} {:>7}",
            node_name(*node),
            row.whole,
            row.same,
            row.stale,
            row.absent,
            row.away,
            row.denied,
            row.other,
            row.worst_ms,
            row.worst_away_ms
        );
        if let Some(more) = measured.nodes.get(node) {
            line.push_str(&format!("  {more}"));
        }
        lines.push(line);
    }
    lines.push(format!("reads of the primary: {}, of the mirror: {}", measured.reads.0, measured.reads.1));
    lines.join("\n")
}

fn result(act: Act, rows: &[(usize, Row)], measured: &Measured) -> Value {
    let nodes = rows.iter().map(|(node, row)| {
        json!({
            "node": node_name(*node),
            "whole": row.whole,
            "same": row.same,
            "stale": row.stale,
            "absent": row.absent,
            "away": row.away,
            "denied": row.denied,
            "other": row.other,
            "worst_ms": row.worst_ms,
            "worst_away_ms": row.worst_away_ms,
            "measured": measured.nodes.get(node),
        })
    });
    json!({
        "act": act.name(),
        "nodes": nodes.collect::<Vec<_>>(),
        "measured": measured.name,
        "reads": { "primary": measured.reads.0, "mirror": measured.reads.1 },
    })
}
