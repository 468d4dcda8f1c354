//! `keyreeve demo`: demonstrations with real processes that are broken on purpose.
//!
//! - `args`: the command line
//! - `plan`: which faults strike whom and when, from a seed
//! - `fleet`: one run for each strategy, then the comparison
//! - `place`, `children`: the folder and the processes of a run
//! - `client`: those who push
//! - `watch`, `strike`: who mints at this moment, and breaking it
//! - `edge`: the same for the Cloudflare Worker, by a program of the checkout
//! - `rotate`: keys rotated, leaked and retired while everybody signs and verifies
//! - `revoke`: how soon every node refuses what was revoked on one
//! - `agents`: one refresh token that is good for one use, and many processes
//! - `lake`: many cold clients and one STS, which fails and hangs
//! - `gate`: artifacts behind gates while buckets hang and refuse, and tokens are taken back
//! - `processes`, `frame`, `probe`: what all of these have in common: nodes, how a run ends, tokens that are to be refused
//! - `timeline`, `score`: what happened, and what it comes to
//! - `peer`: the strategies that keyreeve is compared with

mod agents;
mod args;
mod children;
mod client;
mod edge;
mod fleet;
mod frame;
mod gate;
mod lake;
mod peer;
mod place;
mod plan;
mod probe;
mod processes;
mod revoke;
mod rotate;
mod score;
mod strike;
mod timeline;
mod watch;

pub(crate) use args::DemoCommand;

use crate::exit::Failure;

/// Runs a demonstration.
pub(crate) async fn run(command: DemoCommand) -> Result<(), Failure> {
    match command {
        DemoCommand::Fleet(args) => fleet::run(args).await,
        DemoCommand::Edge(args) => edge::run(args).await,
        DemoCommand::Rotate(args) => rotate::run(args).await,
        DemoCommand::Revoke(args) => revoke::run(args).await,
        DemoCommand::Agents(args) => agents::run(args).await,
        DemoCommand::Lake(args) => lake::run(args).await,
        DemoCommand::Gate(args) => gate::run(args).await,
        DemoCommand::Node(args) => peer::run(args).await,
    }
}
