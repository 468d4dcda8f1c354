//! The processes of one run: started, signalled by their id, and never left behind.

use std::fs::OpenOptions;
use std::io;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::args::{FleetArgs, Strategy};
use super::place::Place;
use super::plan::{Plan, name_of};

/// All nodes of one run. Dropping it kills them.
pub(crate) struct Children<'a> {
    strategy: Strategy,
    args: &'a FleetArgs,
    plan: &'a Plan,
    place: &'a Place,
    epoch_ms: i64,
    children: Vec<Mutex<Option<Child>>>,
}

impl<'a> Children<'a> {
    /// Starts all nodes.
    pub(crate) fn start(
        strategy: Strategy,
        args: &'a FleetArgs,
        plan: &'a Plan,
        place: &'a Place,
        epoch_ms: i64,
    ) -> io::Result<Self> {
        let children = (0..args.nodes).map(|_| Mutex::new(None)).collect();
        let fleet = Self { strategy, args, plan, place, epoch_ms, children };
        for node in 0..fleet.children.len() {
            fleet.spawn(node)?;
        }
        Ok(fleet)
    }

    /// Starts one node, in a new life.
    pub(crate) fn spawn(&self, node: usize) -> io::Result<()> {
        let offset_ms = if node == self.plan.skewed_node { self.plan.skew_ms } else { 0 };
        let log = OpenOptions::new().append(true).create(true).open(self.place.log(node))?;
        // A dead node's socket file would keep its successor from listening.
        match std::fs::remove_file(self.place.socket(node)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut command = Command::new(std::env::current_exe()?);
        match self.strategy {
            Strategy::Ours => {
                let clock = format!("epoch={},scale={},offset={offset_ms}", self.epoch_ms, self.args.scale);
                command.arg("serve").arg("--config").arg(self.place.config(node)).arg("--node").arg(name_of(node));
                command.env("KEYREEVE_TEST_CLOCK", clock).env("KEYREEVE_TEST_FAULTS", self.place.faults(node));
            }
            Strategy::Naive | Strategy::Lockfile => {
                command.args(["demo", "node", "--strategy", self.strategy.as_str(), "--node", &name_of(node)]);
                command.arg("--socket").arg(self.place.socket(node)).arg("--key").arg(self.place.key());
                command.arg("--shared").arg(self.place.shared()).arg("--faults").arg(self.place.faults(node));
                command.arg("--epoch").arg(self.epoch_ms.to_string());
                command.arg("--scale").arg(self.args.scale.to_string()).arg("--offset").arg(offset_ms.to_string());
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C in the terminal goes to the whole group; the nodes are ended in their own order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(slot) = self.children.get(node) {
            *lock(slot) = Some(child);
        }
        Ok(())
    }

    /// Sends a signal to a node; nothing happens where it is not running.
    pub(crate) fn signal(&self, node: usize, signal: Signal) -> io::Result<()> {
        let id = self.children.get(node).and_then(|slot| lock(slot).as_ref()?.id());
        match id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            Some(id) => kill_process(id, signal).map_err(io::Error::from),
            None => Ok(()),
        }
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    pub(crate) async fn kill(&self, node: usize) -> io::Result<()> {
        let child = self.children.get(node).and_then(|slot| lock(slot).take());
        match child {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// A node that has ended by itself, and how.
    pub(crate) fn find_ended(&self) -> Option<(usize, String)> {
        self.children.iter().enumerate().find_map(|(node, slot)| {
            let mut slot = lock(slot);
            let status = slot.as_mut()?.try_wait().ok()??;
            *slot = None;
            Some((node, status.to_string()))
        })
    }

    /// Ends all nodes and waits until they are gone.
    pub(crate) async fn end(self) {
        for node in 0..self.children.len() {
            // What cannot be killed now is killed when it is dropped.
            let _ = self.kill(node).await;
        }
    }
}

fn lock(slot: &Mutex<Option<Child>>) -> MutexGuard<'_, Option<Child>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
