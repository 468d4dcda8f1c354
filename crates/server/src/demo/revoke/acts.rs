//! What is revoked when, what is broken, and what has to come of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::args::RevokeArgs;
use super::fleet::{Fleet, MAX_STALENESS_MS};
use super::traffic::{Seen, Traffic};

/// How long the nodes get to take a fresh token, and to be done with a revoked one: much more than the bound, for a busy
/// machine.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);
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
    print: Arc<dyn Fn(&str) + Send + Sync>,
    start: Instant,
    pub(super) complaints: Vec<String>,
}

impl<'a> Acts<'a> {
    pub(super) fn new(
        args: &'a RevokeArgs,
        fleet: &'a Fleet,
        traffic: &'a Traffic,
        print: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        Self { args, fleet, traffic, print, start: Instant::now(), complaints: Vec::new() }
    }

    fn tell(&self, what: &str) {
        (self.print)(&format!("{:>7.1}s  {what}", self.start.elapsed().as_secs_f64()));
    }

    fn all(&self) -> Vec<usize> {
        (0..self.fleet.count()).collect()
    }

    /// Carries out everything.
    pub(super) async fn carry_out(&mut self) -> io::Result<Vec<Act>> {
        self.tell("everything is in order");
        let pushed = self.act("in order", self.all()).await?;
        self.tell("no node is told of changes any more: each finds out by itself");
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
        self.traffic.probe_with(token);
        let all_accept = |seen: &BTreeMap<usize, Seen>| {
            nodes.iter().all(|node| seen.get(node).is_some_and(|seen| seen.last_accepted_ms.is_some()))
        };
        if !self.until(all_accept).await {
            self.complaints.push(format!("{}: a good token was not accepted everywhere", act.name));
            return Ok(());
        }
        let Some(revoked) = self.fleet.revoke(at, token).await else {
            self.complaints.push(format!("{}: {} did not revoke", act.name, self.fleet.name(at)));
            return Ok(());
        };
        let all_refuse = |seen: &BTreeMap<usize, Seen>| {
            nodes.iter().all(|node| seen.get(node).is_some_and(|seen| seen.first_refused_ms.is_some()))
        };
        if !self.until(all_refuse).await {
            self.complaints.push(format!("{}: a revoked token is accepted on and on", act.name));
        }
        // Whoever accepts it once more is seen.
        tokio::time::sleep(LINGER).await;
        let receipts = self.fleet.receipts(at, text(&revoked, "id"), WAIT).await.unwrap_or_default();
        if receipts.get("complete") != Some(&Value::Bool(true)) {
            self.complaints.push(format!("{}: not every node has a receipt", act.name));
        }
        self.judge(act, &receipts, nodes);
        Ok(())
    }

    /// Takes down what a revocation came to, and complains.
    fn judge(&mut self, act: &mut Act, receipts: &Value, nodes: &[usize]) {
        let written_ms = moment_ms(text(receipts, "at"));
        let seen = self.traffic.seen();
        for node in nodes {
            let name = self.fleet.name(*node);
            let of_node = receipts.get("nodes").and_then(Value::as_array).into_iter().flatten();
            let receipt = of_node.into_iter().find(|receipt| text(receipt, "node") == name);
            let last_ms = seen.get(node).and_then(|seen| seen.last_accepted_ms);
            let measured_ms = last_ms.unwrap_or(0).saturating_sub(written_ms);
            let receipt_ms = receipt.and_then(|receipt| receipt.get("after_ms")?.as_u64());
            let state = receipt.map_or("missing", |receipt| text(receipt, "state")).to_owned();
            // Both are moments of one machine's clock, in whole milliseconds.
            let applied_ms = receipt.filter(|_| state == "applied").map(|receipt| moment_ms(text(receipt, "at")));
            if applied_ms.is_some_and(|applied_ms| last_ms.is_some_and(|last_ms| last_ms > applied_ms)) {
                self.traffic.count(|counts| counts.accepted_after_receipt += 1);
                self.complaints.push(format!("{}: {name} accepted a token after its receipt", act.name));
            }
            if measured_ms > act.bound_ms {
                self.complaints.push(format!("{}: {name} accepted a token {measured_ms} ms after", act.name));
            }
            if let Some(cell) = act.cells.get_mut(*node) {
                cell.receipt_ms = cell.receipt_ms.max(receipt_ms);
                cell.measured_ms = cell.measured_ms.max(Some(measured_ms));
                cell.state = state;
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
        self.traffic.probe_with(&token);
        let all = self.all();
        self.until(|seen| all.iter().all(|node| seen.get(node).is_some_and(|seen| seen.last_accepted_ms.is_some())))
            .await;
        self.tell(&format!("{} and {} cannot reach the store", names.0, names.1));
        for node in [denying, allowing] {
            self.fleet.switch(node, "store-cut", true)?;
        }
        let revoked = self.fleet.revoke(0, &token).await.unwrap_or_default();
        let hearing: Vec<usize> = all.iter().copied().filter(|node| *node != allowing).collect();
        let refuse = |seen: &BTreeMap<usize, Seen>| {
            hearing.iter().all(|node| seen.get(node).is_some_and(|seen| seen.first_refused_ms.is_some()))
        };
        if !self.until(refuse).await {
            self.complaints.push("a revoked token is accepted on and on without the store".to_owned());
        }
        let unsure = |seen: &BTreeMap<usize, Seen>| seen.get(&denying).is_some_and(|seen| seen.unsure > 0);
        if !self.until(unsure).await {
            self.complaints.push(format!("{} never said that it cannot tell", names.0));
        }
        self.visible(denying, "deny").await;
        self.visible(allowing, "allow").await;
        let still = self.traffic.seen().get(&allowing).and_then(|seen| seen.last_accepted_ms).unwrap_or(0);
        if still <= moment_ms(text(&revoked, "at")) {
            self.complaints.push(format!("{} did not go on without news, as it is set to", names.1));
        }
        let receipts = self.fleet.receipts(0, text(&revoked, "id"), "5s").await.unwrap_or_default();
        self.judge(&mut act, &receipts, &hearing);
        if let Some(cell) = act.cells.get_mut(allowing) {
            cell.state = "goes on, as set".to_owned();
            cell.measured_ms = None;
        }
        if receipts.get("complete") == Some(&Value::Bool(true)) {
            self.complaints.push(format!("receipts are complete without {}", names.1));
        }
        self.tell("they can again");
        for node in [denying, allowing] {
            self.fleet.switch(node, "store-cut", false)?;
        }
        let back =
            |seen: &BTreeMap<usize, Seen>| seen.get(&allowing).is_some_and(|seen| seen.first_refused_ms.is_some());
        if !self.until(back).await {
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
                self.tell(&format!("{name} says so: degraded, without news, on_stale = \"{on_stale}\""));
                return;
            }
            if Instant::now() > until {
                self.complaints.push(format!("{name} does not say that it has no news: {ready}"));
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn until(&self, is_so: impl Fn(&BTreeMap<usize, Seen>) -> bool) -> bool {
        let until = Instant::now() + SETTLE_WITHIN;
        while !is_so(&self.traffic.seen()) {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A moment of an answer, in milliseconds since 1970.
fn moment_ms(text: &str) -> u64 {
    let at = text.parse::<jiff::Timestamp>().map(|at| at.as_millisecond()).unwrap_or_default();
    u64::try_from(at).unwrap_or(0)
}
