//! `keyreeve demo agents`: many processes act for one user, with one refresh token that is good for one use.
//!
//! - `acts`: what happens to them, one after the other
//! - `traffic`: the agents, each of which takes its token from its own process and uses it
//! - `watch`: what the store says

mod acts;
mod traffic;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use keyreeve_picky::issuers::Score;
use keyreeve_picky::issuers::oauth::{self, Client, Server};
use serde_json::json;

use super::args::AgentsArgs;
use super::frame::{Diary, Print, conclude, printer, unavailable, until_stopped};
use super::processes::Processes;
use crate::exit::Failure;

use acts::Acts;
use traffic::Traffic;
use watch::Watch;

/// How long an access token lives, in seconds.
const LIFE_S: u64 = 24;
/// How long before its end it is renewed, in seconds: the rest is a window.
const LEAD_S: u64 = 12;
/// The longest wait for a node.
const NODE_TIMEOUT: Duration = Duration::from_secs(25);
/// The file that the first refresh token lies in.
const REFRESH: &str = "refresh";

const CONFIG: &str = r#"# Written by `keyreeve demo agents`.
seal.keys = ["file:@FOLDER@/seal.key"]

[store]
url = "sqlite:@FOLDER@/state.db"
timeout = "5s"

[caller.agents]
uid = @UID@
can = ["list", "token", "report", "renew", "resolve", "history"]
credentials = ["*"]

[credential.user]
source = "oauth2-refresh"
keep = "always"
wait = "20s"

[credential.user.params]
token_url = "@URL@"
client_id = "agent"
client_secret = "file:@FOLDER@/client.secret"
refresh_token = "file:@FOLDER@/refresh"

[credential.user.life]
max = "@LIFE@s"
lead = "@LEAD@s"
min_interval = "500ms"
jitter = "0s"
spread = "1s"
send = "2s"
timeout = "2s"
lease = "4s"
takeover = "5s"
skew = "500ms"
poll = "250ms"
hold = "500ms"
"#;

/// Runs the demonstration. An error with code 1 where the promise was not held.
pub(crate) async fn run(args: AgentsArgs) -> Result<(), Failure> {
    until_stopped(run_all(&args)).await
}

async fn run_all(args: &AgentsArgs) -> Result<(), Failure> {
    let print = printer(args.json);
    let clients = vec![Client { id: "agent".into(), secret: Some("client-secret".into()), keys: Vec::new() }];
    let life = Duration::from_secs(LIFE_S);
    let server = oauth::start(oauth::Config { clients, life, ..Default::default() }).await.map_err(unavailable)?;
    let processes = Processes::new(args.processes, NODE_TIMEOUT, args.keep).map_err(unavailable)?;
    write(&processes, &server).map_err(unavailable)?;
    if args.keep {
        print(&format!("everything is in `{}`", processes.folder().display()));
    }
    print(&format!(
        "{} processes, one refresh token that is good for one use; access tokens live {LIFE_S} s and are renewed {LEAD_S} s before; seed {}",
        args.processes, args.seed
    ));
    processes.wait_for_all().await?;
    let traffic = Arc::new(Traffic::new(processes.ends().to_vec(), server.addr()).map_err(unavailable)?);
    let watch = Watch::open(&processes.folder().join("state.db")).map_err(unavailable)?;
    let agents = traffic.start();
    let mut acts = Acts::new(args, &processes, &server, &watch, &traffic, Diary::new(&print));
    let result = acts.carry_out().await;
    let (expected, complaints) = (acts.expected, std::mem::take(&mut acts.complaints));
    agents.abort_all_and_wait().await;
    result.map_err(unavailable)?;
    report(args, &server.score(), expected, &traffic, complaints, &print)
}

fn write(processes: &Processes, server: &Server) -> std::io::Result<()> {
    processes.write_private("client.secret", b"client-secret")?;
    processes.write_private(REFRESH, server.consent().as_bytes())?;
    let words = [("@URL@", server.token_url()), ("@LIFE@", LIFE_S.to_string()), ("@LEAD@", LEAD_S.to_string())];
    let words: Vec<_> = words.iter().map(|(word, meaning)| (*word, meaning.as_str())).collect();
    processes.start(&processes.config(CONFIG, &words)?, &["api"])
}

fn report(
    args: &AgentsArgs,
    score: &Score,
    expected: u64,
    traffic: &Traffic,
    mut complaints: Vec<String>,
    print: &Print,
) -> Result<(), Failure> {
    let uses = traffic.counts();
    if score.refreshes != expected {
        complaints.push(format!("{} refreshes, and there were {expected} windows", score.refreshes));
    }
    if score.reuses > 0 || score.families_revoked > 0 {
        complaints.push(format!("{} tokens spent twice, {} families revoked", score.reuses, score.families_revoked));
    }
    if score.in_flight_max > 1 {
        complaints.push(format!("{} refreshes at once", score.in_flight_max));
    }
    if uses.failed > 0 || uses.used == 0 {
        complaints.push(format!(
            "{} of {} calls of agents failed: {}",
            uses.failed,
            uses.used,
            uses.failures.join("; ")
        ));
    }
    print("");
    print(&format!(
        "refreshes {} for {expected} windows, {} at once at the most; spent twice {}, families revoked {}",
        score.refreshes, score.in_flight_max, score.reuses, score.families_revoked
    ));
    print(&format!("calls of agents: {}, failed {}; {} different tokens", uses.used, uses.failed, uses.tokens));
    let result = json!({
        "demo": "agents",
        "seed": args.seed,
        "processes": args.processes,
        "windows": expected,
        "refreshes": score.refreshes,
        "reuses": score.reuses,
        "families_revoked": score.families_revoked,
        "in_flight_max": score.in_flight_max,
        "calls": uses.used,
        "failed": uses.failed,
    });
    conclude(
        print,
        &complaints,
        "one refresh a window, no token spent twice, no family revoked",
        args.json.then_some(result),
    )
}
