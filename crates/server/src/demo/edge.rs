//! `keyreeve demo edge`: finds the checkout, and runs its program in node.
//!
//! The Worker runs in workerd, which comes with the checkout's npm packages, so the demonstration itself is
//! `tests/worker/demo-edge.mjs`.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::args::EdgeArgs;
use crate::exit::{Code, Failure};
use crate::signal::Signals;

/// Sets up what the tests of the Worker need, and starts the program.
const RUNNER: &str = "tests/worker/run";
const PROGRAM: &str = "tests/worker/demo-edge.mjs";
const NEEDS: &str = "it runs in a checkout of keyreeve, with node 20 or newer, after `scripts/build-worker`";

/// Runs the demonstration. An error with code 1 where the promise was not held.
pub(crate) async fn run(args: EdgeArgs) -> Result<(), Failure> {
    let unavailable = |text: String| Failure::new(Code::Unavailable, text).hint(NEEDS);
    let checkout = find(&args).ok_or_else(|| unavailable(format!("`{PROGRAM}` was not found")))?;
    let myself = std::env::current_exe().map_err(|error| unavailable(error.to_string()))?;
    let mut signals = Signals::new().map_err(|error| unavailable(error.to_string()))?;
    let mut command = Command::new(checkout.join(RUNNER));
    command.args(["--demo", "--seed", &args.seed.to_string()]).env("KEYREEVE_BIN", myself);
    for (option, is_given) in [("--json", args.json), ("--short", args.short)] {
        if is_given {
            command.arg(option);
        }
    }
    let started = command.process_group(0).kill_on_drop(true).spawn();
    let mut child = started.map_err(|error| unavailable(format!("`{RUNNER}` cannot be started: {error}")))?;
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended,
            // It ends its own processes, and then itself.
            () = signals.until_stop() => if let Some(id) = id {
                let _ = kill_process(id, Signal::TERM);
            },
        }
    };
    match ended.map(|status| status.code()) {
        Ok(Some(0)) => Ok(()),
        // It has said why.
        Ok(Some(1)) => Err(Failure::quiet(Code::CheckFailed)),
        Ok(_) => Err(Failure::quiet(Code::Unavailable)),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

/// The checkout that was named, or around the working directory, or around this program.
fn find(args: &EdgeArgs) -> Option<PathBuf> {
    let is_one = |folder: &&Path| folder.join(PROGRAM).is_file();
    if let Some(named) = &args.checkout {
        return is_one(&named.as_path()).then(|| named.clone());
    }
    let starts = [std::env::current_dir(), std::env::current_exe()];
    starts.into_iter().flatten().find_map(|start| start.ancestors().find(is_one).map(Path::to_path_buf))
}
