//! `keyreeve demo rotate`: four nodes sign and verify while their keys are rotated, leak and are retired, and while nodes are
//! killed in the middle of it.
//!
//! - `fleet`: the nodes, and what is asked of them
//! - `traffic`: those who sign and those who verify
//! - `acts`: what happens when

mod acts;
mod fleet;
mod traffic;

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use super::args::RotateArgs;
use super::frame::{Diary, Print, all_end, conclude, printer, unavailable, until_stopped};
use crate::exit::Failure;

use acts::Acts;
use fleet::{Fleet, NODES};
use traffic::Traffic;

/// Runs the demonstration. An error with code 1 where the promise was not held.
pub(crate) async fn run(args: RotateArgs) -> Result<(), Failure> {
    until_stopped(run_all(&args)).await
}

async fn run_all(args: &RotateArgs) -> Result<(), Failure> {
    let print = printer(args.json);
    let fleet = Fleet::start(args).map_err(unavailable)?;
    if args.keep {
        print(&format!("everything is in `{}`", fleet.processes.folder().display()));
    }
    print(&format!(
        "{NODES} nodes, {} s, {}; a key signs for {} s, is published {} s before, tokens live {} s; seed {}",
        args.seconds,
        args.alg,
        fleet.rotate_s,
        fleet.overlap_s,
        fleet::TTL_S,
        args.seed
    ));
    fleet.wait_until_ready().await?;
    let traffic = Arc::new(Traffic::new(fleet.ends()));
    let mut workers = JoinSet::new();
    for node in 0..NODES {
        workers.spawn(Arc::clone(&traffic).sign(node));
        workers.spawn(Arc::clone(&traffic).verify(node, args.seed));
        workers.spawn(Arc::clone(&traffic).verify_outside(node, args.seed));
    }
    let acts = Acts { args, fleet: &fleet, traffic: &traffic, diary: Diary::new(&print) };
    let complaints = acts.carry_out().await.map_err(unavailable)?;
    traffic.finish();
    all_end(workers).await?;
    report(args, &traffic, complaints, &print)
}

fn report(args: &RotateArgs, traffic: &Traffic, mut complaints: Vec<String>, print: &Print) -> Result<(), Failure> {
    let counts = traffic.counts();
    if counts.failed > 0 {
        complaints.push(format!(
            "{} verifications of valid tokens failed: {}",
            counts.failed,
            counts.failures.join("; ")
        ));
    }
    if counts.accepted_late > 0 {
        complaints.push(format!("{} tokens of a retired key were accepted after the bound", counts.accepted_late));
    }
    if counts.signed == 0 || counts.verified == 0 || counts.verified_outside == 0 || counts.refused_retired == 0 {
        complaints.push("there was no traffic to judge by".to_owned());
    }
    print("");
    print(&format!(
        "signed {}, verified {} by nodes and {} by readers of the key set; failed {}; {} keys signed",
        counts.signed,
        counts.verified,
        counts.verified_outside,
        counts.failed,
        counts.kids.len()
    ));
    print(&format!(
        "tokens of a retired key: refused {} times, last accepted {} ms after the retirement",
        counts.refused_retired, counts.last_accepted_ms
    ));
    print(&format!(
        "requests that found no node: {}; answers `try again`: {} (killed and cut-off nodes)",
        counts.unreachable, counts.unavailable
    ));
    let result = json!({
        "demo": "rotate",
        "seed": args.seed,
        "seconds": args.seconds,
        "alg": args.alg,
        "signed": counts.signed,
        "verified": counts.verified,
        "verified_outside": counts.verified_outside,
        "failed": counts.failed,
        "keys": counts.kids.len(),
        "refused_retired": counts.refused_retired,
        "accepted_late": counts.accepted_late,
        "last_accepted_ms": counts.last_accepted_ms,
        "unreachable": counts.unreachable,
        "unavailable": counts.unavailable,
    });
    conclude(print, &complaints, "no valid token was refused, and no retired key accepted", args.json.then_some(result))
}
