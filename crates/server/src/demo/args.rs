//! The command line of the demonstrations.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

/// `keyreeve demo`.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Start a fleet of real processes against a strict fake Apple, break it on purpose, and keep score.
    ///
    /// Exit code 1 if more than one token was valid at once, a push failed, or a token was minted in vain. Without
    /// `--strategy` the ways that people build this themselves are put through the same faults, for comparison; only
    /// keyreeve's own result decides the exit code then.
    Fleet(FleetArgs),
    /// Put the Cloudflare Worker through the same in workerd: isolates of two Workers, then Workers and native nodes together.
    ///
    /// Runs in a checkout: it needs node and what `scripts/build-worker` makes. Exit code 1 if more than one token was valid at
    /// once, a push failed, or a token was shown to Apple in vain.
    Edge(EdgeArgs),
    /// Sign and verify on four nodes while keys are rotated, retired at once, and nodes are killed in the middle of it.
    ///
    /// Exit code 1 if a valid token was refused, a retired key was accepted after the bound, or the nodes did not agree on one
    /// set of keys.
    Rotate(RotateArgs),
    /// Revoke tokens on one of several nodes under load, and measure when each node refuses them: with everything in order,
    /// without being told of changes, and cut off from the store.
    ///
    /// Exit code 1 if a token was accepted after the bound or after a node's own receipt, a good token was refused, or a node
    /// without news did not say so.
    Revoke(RevokeArgs),
    /// Let many processes act for one user, with one refresh token that is good for one use, and kill one of them between
    /// the server's answer and the commit.
    ///
    /// Exit code 1 if there was more than one refresh a window, a token was spent twice, a family of tokens was revoked, or
    /// a call of an agent failed.
    Agents(AgentsArgs),
    /// Let many cold clients ask several nodes for one role at AWS, of a fake STS that answers, fails, and hangs.
    ///
    /// Exit code 1 if STS was asked more than once where once is enough, or a client waited too long or was told something
    /// else than the others.
    Lake(LakeArgs),
    /// Hand artifacts to holders of tokens on several nodes under load, from a bucket and its mirror that hang, refuse, and come
    /// back, while tokens are revoked and a target is dropped.
    ///
    /// Exit code 1 if an answer was late, stale without a mark, or a refusal that nobody meant, a failure was kept, or a token
    /// was accepted after the bound or after a node's own receipt.
    Gate(GateArgs),
    /// One node of a strategy that keyreeve is compared with. `demo fleet` starts these.
    #[command(hide = true)]
    Node(NodeArgs),
}

/// How the nodes of a fleet come by their token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Strategy {
    /// keyreeve nodes that share one SQLite file.
    Ours,
    /// Each process signs its own token.
    Naive,
    /// The processes share a file, and a lock file with a time to live.
    Lockfile,
}

impl Strategy {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Naive => "naive",
            Self::Lockfile => "lockfile",
        }
    }
}

/// `keyreeve demo fleet`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FleetArgs {
    /// Which faults strike whom, and when. The same seed gives the same plan; how the operating system schedules the
    /// processes is not part of it.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// Run one strategy only.
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub(crate) strategy: Option<Strategy>,
    /// How many renewals to sit through after the first mint; one every 24 simulated minutes.
    #[arg(long, default_value_t = 4, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) renewals: u32,
    /// Simulated seconds per real second, for all clocks alike.
    #[arg(long, default_value_t = 90, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=180))]
    pub(crate) scale: u32,
    /// How many nodes.
    #[arg(long, default_value_t = 8, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(3..=32))]
    pub(crate) nodes: u32,
    /// How many clients push through them.
    #[arg(long, default_value_t = 64, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) clients: u32,
    /// How long a client rests between two pushes, in real milliseconds.
    #[arg(long, default_value_t = 100, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub(crate) rest: u64,
    /// Print the result as JSON on standard output, and the timeline on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the folder with keys, store, configuration and logs, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `keyreeve demo rotate`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RotateArgs {
    /// Which node is struck, and how far into a rotation. The same seed gives the same plan.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// How long to sign and verify.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(20..=3600))]
    pub(crate) seconds: u64,
    /// The algorithm of the keys.
    #[arg(long, default_value = "ES256", value_name = "ALG", value_parser = ["EdDSA", "ES256", "ES384", "ES512", "RS256", "PS256"])]
    pub(crate) alg: String,
    /// Print the result as JSON on standard output, and the timeline on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the folder with keys, store, configuration and logs, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `keyreeve demo revoke`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RevokeArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 8, value_name = "NUMBER", value_parser = fleet)]
    pub(crate) nodes: usize,
    /// How many revocations in each act.
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Print the result as JSON on standard output, and the timeline on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the folder with keys, store, configuration and logs, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `keyreeve demo agents`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AgentsArgs {
    /// Which process is asked for what. The same seed gives the same plan.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// How many processes.
    #[arg(long, default_value_t = 50, value_name = "NUMBER", value_parser = processes)]
    pub(crate) processes: usize,
    /// How many windows to sit through before anything is broken; one every 12 s.
    #[arg(long, default_value_t = 3, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) windows: u32,
    /// Print the result as JSON on standard output, and the timeline on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the folder with secrets, store, configuration and logs, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `keyreeve demo lake`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LakeArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 8, value_name = "NUMBER", value_parser = processes)]
    pub(crate) nodes: usize,
    /// How many clients ask at once.
    #[arg(long, default_value_t = 400, value_name = "NUMBER", value_parser = clients)]
    pub(crate) clients: usize,
    /// Print the result as JSON on standard output, and the timeline on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the folder with keys, store, configuration and logs, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `keyreeve demo gate`.
#[derive(Clone, Debug, Args)]
pub(crate) struct GateArgs {
    /// Which node is told to publish, to revoke, and to drop the target. The same seed gives the same plan.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// How many nodes.
    #[arg(long, default_value_t = 8, value_name = "NUMBER", value_parser = processes)]
    pub(crate) nodes: usize,
    /// How long all of it takes, nearly.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(18..=600))]
    pub(crate) seconds: u64,
    /// Print the result as JSON on standard output, and the timeline on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the folder with keys, store, configuration and logs, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
}

fn processes(text: &str) -> Result<usize, String> {
    between(text, 2, 200)
}

fn fleet(text: &str) -> Result<usize, String> {
    between(text, 3, 64)
}

fn rounds(text: &str) -> Result<usize, String> {
    between(text, 1, 1000)
}

fn clients(text: &str) -> Result<usize, String> {
    between(text, 1, 10_000)
}

fn between(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a number from {least} to {most}"))
}

/// `keyreeve demo edge`.
#[derive(Clone, Debug, Args)]
pub(crate) struct EdgeArgs {
    /// Which renewal is struck by what, and how far into the mint. The same seed gives the same plan.
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(..=u64::from(u32::MAX)))]
    pub(crate) seed: u64,
    /// The first act with its first fault only: under a minute.
    #[arg(long)]
    pub(crate) short: bool,
    /// Print the result as JSON on standard output, and the timeline on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// The checkout. Without it: the one that the working directory lies in, or this program.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) checkout: Option<PathBuf>,
}

/// `keyreeve demo node`.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// How it comes by its token.
    #[arg(long, value_enum)]
    pub(crate) strategy: Strategy,
    /// Its name.
    #[arg(long)]
    pub(crate) node: String,
    /// The Unix socket to listen on.
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// The private key (PKCS #8 PEM).
    #[arg(long)]
    pub(crate) key: PathBuf,
    /// The folder that all nodes share.
    #[arg(long)]
    pub(crate) shared: PathBuf,
    /// The folder with this node's fault switches.
    #[arg(long)]
    pub(crate) faults: PathBuf,
    /// When the clocks were right, in milliseconds since 1970.
    #[arg(long)]
    pub(crate) epoch: i64,
    /// Simulated seconds per real second.
    #[arg(long)]
    pub(crate) scale: u32,
    /// By how much this node's clock is wrong, in simulated milliseconds.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) offset: i64,
}
