//! What is revoked when, what is broken, and what has to come of it.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::args::RevokeArgs;
use super::super::frame::Diary;
use super::super::probe::{LOOK_EVERY, Probe, SETTLE_WITHIN, came, moment_ms, text, until};
use super::fleet::{Fleet, MAX_STALENESS_MS};
use super::traffic::Traffic;

/// A revoked token is still tried for so long after the last node refused it.
const LINGER: Duration = Duration::from_millis(300);
/// How long receipts are waited for.
const WAIT: &str = "10s";

/// One column of the table.
pub(super) struct Act {
    pub(super) name: &'static str,
    pub(super) bound_ms: u64,
    pub(super) cells: Vec<Cell>,
}

/// The worst of one node in one act.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    /// From the writing to the node's receipt, in milliseconds.
    pub(super) receipt_ms: Option<u64>,
    /// From the writing to the last request that was accepted, in milliseconds; 0 where none was.
    pub(super) measured_ms: Option<u64>,
    /// What the receipts call it.
    pub(super) state: String,
}

impl Cell {
    pub(super) fn shown(&self) -> String {
        let text = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        match self.state.as_str() {
            "applied" => format!("{} / {}", text(self.receipt_ms), text(self.measured_ms)),
            "" => String::new(),
            other => format!("{other} / {}", text(self.measured_ms)),
        }
    }
}

pub(super) struct Acts<'a> {
    args: &'a RevokeArgs,
    fleet: &'a Fleet,
    traffic: &'a Traffic,
    diary: Diary,
    pub(super) complaints: Vec<String>,
}

impl<'a> Acts<'a> {
    pub(super) fn new(args: &'a RevokeArgs, fleet: &'a Fleet, traffic: &'a Traffic, diary: Diary) -> Self {
        Self { args, fleet, traffic, diary, complaints: Vec::new() }
    }

    fn all(&self) -> Vec<usize> {
        (0..self.fleet.count()).collect()
    }

    /// Carries out everything.
    pub(super) async fn carry_out(&mut self) -> io::Result<Vec<Act>> {
        self.diary.tell("everything is in order");
        let pushed = self.act("in order", self.all()).await?;
        self.diary.tell("no node is told of changes any more: each finds out by itself");
        for node in self.all() {
            self.fleet.switch(node, "push-cut", true)?;
        }
        let polled = self.act("not told of changes", self.all()).await?;
        for node in self.all() {
            self.fleet.switch(node, "push-cut", false)?;
        }
        let cut = self.cut_off().await?;
        Ok(vec![pushed, polled, cut])
    }

    /// Several revocations, each on another node, with all of `nodes` able to hear of them.
    async fn act(&mut self, name: &'static str, nodes: Vec<usize>) -> io::Result<Act> {
        let mut act = Act { name, bound_ms: MAX_STALENESS_MS, cells: vec![Cell::default(); self.fleet.count()] };
        for round in 0..self.args.rounds {
            let at = nodes.get(round % nodes.len()).copied().unwrap_or(0);
            // JWTs and access tokens take turns.
            let token = match round % 2 {
                0 => self.fleet.jwt("leaver").await?,
                _ => self.fleet.opaque(at, "leaver").await?,
            };
            self.revoke_once(&mut act, at, &nodes, &token).await?;
        }
        Ok(act)
    }

    async fn revoke_once(&mut self, act: &mut Act, at: usize, nodes: &[usize], token: &str) -> io::Result<()> {
        let probe = self.traffic.probe_with(token);
        if !until(|| probe.is_accepted_by(nodes)).await {
            self.complaints.push(format!("{}: a good token was not accepted everywhere", act.name));
            return Ok(());
        }
        let Some(revoked) = self.fleet.revoke(at, token).await else {
            self.complaints.push(format!("{}: {} did not revoke", act.name, self.fleet.name(at)));
            return Ok(());
        };
        if !until(|| probe.is_refused_by(nodes)).await {
            self.complaints.push(format!("{}: a revoked token is accepted on and on", act.name));
        }
        // Whoever accepts it once more is seen.
        tokio::time::sleep(LINGER).await;
        let receipts = self.fleet.receipts(at, text(&revoked, "id"), WAIT).await.unwrap_or_default();
        if receipts.get("complete") != Some(&Value::Bool(true)) {
            self.complaints.push(format!("{}: not every node has a receipt", act.name));
        }
        self.judge(act, &probe, &receipts, nodes);
        Ok(())
    }

    /// Takes down what a revocation came to, and complains.
    fn judge(&mut self, act: &mut Act, probe: &Probe, receipts: &Value, nodes: &[usize]) {
        for node in nodes {
            let name = self.fleet.name(*node);
            let came = came(receipts, &name, &probe.seen_by(*node));
            if came.is_late {
                self.traffic.count(|counts| counts.accepted_after_receipt += 1);
                self.complaints.push(format!("{}: {name} accepted a token after its receipt", act.name));
            }
            if came.measured_ms > act.bound_ms {
                self.complaints.push(format!("{}: {name} accepted a token {} ms after", act.name, came.measured_ms));
            }
            if let Some(cell) = act.cells.get_mut(*node) {
                cell.receipt_ms = cell.receipt_ms.max(came.receipt_ms);
                cell.measured_ms = cell.measured_ms.max(Some(came.measured_ms));
                cell.state = came.state;
            }
        }
    }

    /// Two nodes without the store: one denies, the other one goes on, and both say so.
    async fn cut_off(&mut self) -> io::Result<Act> {
        let (denying, allowing) = (self.fleet.denying(), self.fleet.allowing());
        let names = (self.fleet.name(denying), self.fleet.name(allowing));
        let mut act = Act {
            name: "two without the store",
            bound_ms: MAX_STALENESS_MS,
            cells: vec![Cell::default(); self.fleet.count()],
        };
        let token = self.fleet.jwt("leaver").await?;
        let probe = self.traffic.probe_with(&token);
        let all = self.all();
        until(|| probe.is_accepted_by(&all)).await;
        self.diary.tell(&format!("{} and {} cannot reach the store", names.0, names.1));
        for node in [denying, allowing] {
            self.fleet.switch(node, "store-cut", true)?;
        }
        let revoked = self.fleet.revoke(0, &token).await.unwrap_or_default();
        let hearing: Vec<usize> = all.iter().copied().filter(|node| *node != allowing).collect();
        if !until(|| probe.is_refused_by(&hearing)).await {
            self.complaints.push("a revoked token is accepted on and on without the store".to_owned());
        }
        if !until(|| probe.seen_by(denying).unsure > 0).await {
            self.complaints.push(format!("{} never said that it cannot tell", names.0));
        }
        self.visible(denying, "deny").await;
        self.visible(allowing, "allow").await;
        let still = probe.seen_by(allowing).last_accepted_ms.unwrap_or(0);
        if still <= moment_ms(text(&revoked, "at")) {
            self.complaints.push(format!("{} did not go on without news, as it is set to", names.1));
        }
        let receipts = self.fleet.receipts(0, text(&revoked, "id"), "5s").await.unwrap_or_default();
        self.judge(&mut act, &probe, &receipts, &hearing);
        if let Some(cell) = act.cells.get_mut(allowing) {
            cell.state = "goes on, as set".to_owned();
            cell.measured_ms = None;
        }
        if receipts.get("complete") == Some(&Value::Bool(true)) {
            self.complaints.push(format!("receipts are complete without {}", names.1));
        }
        self.diary.tell("they can again");
        for node in [denying, allowing] {
            self.fleet.switch(node, "store-cut", false)?;
        }
        if !until(|| probe.is_refused_by(&[allowing])).await {
            self.complaints.push(format!("{} accepts a revoked token although it reads again", names.1));
        }
        let receipts = self.fleet.receipts(0, text(&revoked, "id"), WAIT).await.unwrap_or_default();
        if receipts.get("complete") != Some(&Value::Bool(true)) {
            self.complaints.push("not every node has a receipt after the store came back".to_owned());
        }
        Ok(act)
    }

    /// Whether a node says in `/readyz` and in its metrics that it has no news.
    async fn visible(&mut self, node: usize, on_stale: &str) {
        let name = self.fleet.name(node);
        let until = Instant::now() + SETTLE_WITHIN;
        loop {
            let ready = self.fleet.ready(node).await.unwrap_or_default();
            let said = ready.get("revocation").cloned().unwrap_or_default();
            let is_said = text(&ready, "status") == "degraded"
                && said.get("stale") == Some(&Value::Bool(true))
                && text(&said, "on_stale") == on_stale;
            if is_said && self.fleet.has_metric(node, "keyreeve_revocation_stale 1").await {
                self.diary.tell(&format!("{name} says so: degraded, without news, on_stale = \"{on_stale}\""));
                return;
            }
            if Instant::now() > until {
                self.complaints.push(format!("{name} does not say that it has no news: {ready}"));
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
