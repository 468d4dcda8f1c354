//! `keyreeve demo revoke`: eight nodes under load, tokens that are revoked on one of them, and how soon each node refuses
//! them: with everything in order, without being told of changes, and cut off from the store.
//!
//! - `fleet`: the nodes and their tokens
//! - `traffic`: those who come with tokens, and what they are answered
//! - `acts`: what is revoked when, and what is broken

mod acts;
mod fleet;
mod traffic;

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use super::args::RevokeArgs;
use super::frame::{Diary, Print, all_end, conclude, printer, unavailable, until_stopped};
use crate::exit::Failure;

use acts::{Act, Acts, Cell};
use fleet::Fleet;
use traffic::Traffic;

/// Runs the demonstration. An error with code 1 where the promise was not held.
pub(crate) async fn run(args: RevokeArgs) -> Result<(), Failure> {
    until_stopped(run_all(&args)).await
}

async fn run_all(args: &RevokeArgs) -> Result<(), Failure> {
    let print = printer(args.json);
    let fleet = Arc::new(Fleet::start(args).map_err(unavailable)?);
    if args.keep {
        print(&format!("everything is in `{}`", fleet.folder().display()));
    }
    print(&format!(
        "{} nodes, {} in each act; max_staleness {} ms; on_stale = \"deny\", on {} \"allow\"",
        args.nodes,
        match args.rounds {
            1 => "1 revocation".to_owned(),
            rounds => format!("{rounds} revocations"),
        },
        fleet::MAX_STALENESS_MS,
        fleet.name(fleet.allowing())
    ));
    fleet.wait_until_ready().await?;
    let traffic = Arc::new(Traffic::new(Arc::clone(&fleet)).await.map_err(unavailable)?);
    let mut workers = JoinSet::new();
    for node in 0..args.nodes {
        workers.spawn(Arc::clone(&traffic).load(node));
        workers.spawn(Arc::clone(&traffic).probe(node));
    }
    let mut acts = Acts::new(args, &fleet, &traffic, Diary::new(&print));
    let done = acts.carry_out().await.map_err(unavailable)?;
    traffic.finish();
    all_end(workers).await?;
    report(args, &fleet, &traffic, (&done, acts.complaints), &print)
}

fn report(
    args: &RevokeArgs,
    fleet: &Fleet,
    traffic: &Traffic,
    (acts, mut complaints): (&[Act], Vec<String>),
    print: &Print,
) -> Result<(), Failure> {
    let counts = traffic.counts();
    if counts.accepted == 0 {
        complaints.push("there was no traffic to judge by".to_owned());
    }
    if counts.turned_away > 0 {
        let told = counts.strange.join("; ");
        complaints.push(format!("{} good tokens were refused: {told}", counts.turned_away));
    }
    print("");
    print("milliseconds from a revocation until a node refused for good: by its receipt, and as measured from outside");
    print(&table(args, fleet, acts));
    print("");
    print(&format!(
        "requests with good tokens: {} accepted, {} refused, {} answered 503 by nodes that were cut off",
        counts.accepted, counts.turned_away, counts.stale
    ));
    print(&format!(
        "requests with revoked tokens: {} refused, {} accepted after the node's own receipt",
        counts.refused, counts.accepted_after_receipt
    ));
    let acts = acts.iter().map(|act| {
        let cells = act.cells.iter().enumerate().map(|(node, cell)| {
            json!({ "node": fleet.name(node), "receipt_ms": cell.receipt_ms, "measured_ms": cell.measured_ms, "state": cell.state })
        });
        json!({ "act": act.name, "bound_ms": act.bound_ms, "nodes": cells.collect::<Vec<_>>() })
    });
    let result = json!({
        "demo": "revoke",
        "nodes": args.nodes,
        "acts": acts.collect::<Vec<_>>(),
        "accepted": counts.accepted,
        "turned_away": counts.turned_away,
        "stale": counts.stale,
        "refused": counts.refused,
        "accepted_after_receipt": counts.accepted_after_receipt,
    });
    conclude(
        print,
        &complaints,
        "what was revoked was refused everywhere within the bound",
        args.json.then_some(result),
    )
}

/// Nodes down, acts across.
fn table(args: &RevokeArgs, fleet: &Fleet, acts: &[Act]) -> String {
    let mut lines = vec![format!("{:<8}", "")];
    for act in acts {
        if let Some(head) = lines.first_mut() {
            head.push_str(&format!("  {:>22}", act.name));
        }
    }
    for node in 0..args.nodes {
        let mut line = format!("{:<8}", fleet.name(node));
        for act in acts {
            line.push_str(&format!("  {:>22}", act.cells.get(node).map(Cell::shown).unwrap_or_default()));
        }
        lines.push(line);
    }
    lines.join("\n")
}
