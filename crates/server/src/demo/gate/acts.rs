//! What happens, one act after the other, and what each has to come to besides the laws for every answer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::args::GateArgs;
use super::super::frame::{Diary, wall_ms};
use super::super::plan::Dice;
use super::super::probe::{Probe, Seen, came, text, until};
use super::super::processes::node_name;
use super::bucket::Fault;
use super::fleet::{FRESH_MS, Fleet, LEAVING, MAX_STALENESS_MS, SUPERGRAPH};
use super::laws::{Act, SLACK_MS};
use super::traffic::Traffic;

/// Of so many equal parts of the whole time each act takes one that is not over by itself.
const PARTS: u64 = 6;
/// A token that is refused everywhere is tried for so long again.
const LINGER: Duration = Duration::from_millis(300);
/// How long receipts are waited for.
const RECEIPTS: &str = "10s";

/// What an act has measured besides the answers, by node: what it is called, and each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) nodes: BTreeMap<usize, String>,
    /// How often the primary and the mirror were read.
    pub(super) reads: (u64, u64),
}

pub(super) struct Acts<'a> {
    pub(super) args: &'a GateArgs,
    pub(super) fleet: &'a Fleet,
    pub(super) traffic: &'a Traffic,
    /// Tokens to revoke.
    pub(super) revoked: &'a [Arc<Probe>],
    /// Tokens of the target to drop.
    pub(super) dropped: &'a [Arc<Probe>],
    pub(super) diary: Diary,
    pub(super) dice: Dice,
    pub(super) complaints: Vec<String>,
    pub(super) measured: BTreeMap<Act, Measured>,
}

impl Acts<'_> {
    /// Carries out everything. An error where the demonstration itself could not go on.
    pub(super) async fn carry_out(&mut self) -> io::Result<()> {
        self.warm_up().await?;
        self.play(Act::Warm, Fault::None, Fault::None, "everything is in order");
        self.a_part().await;
        self.publish().await?;
        self.play(Act::PrimaryHangs, Fault::Hangs, Fault::None, "the primary takes requests and says nothing");
        self.a_part().await;
        self.play(Act::BothHang, Fault::Hangs, Fault::Hangs, "and so does the mirror");
        self.a_part().await;
        let says = Fault::Says(http::StatusCode::FORBIDDEN);
        self.play(Act::BothRefuse, says, says, "both answer again: 403 to everything");
        self.a_part().await;
        self.play(Act::Revoked, says, says, "they go on with that while tokens are revoked");
        for probe in self.revoked {
            self.revoke(probe).await?;
        }
        self.play(Act::Dropped, says, says, "and while a target is dropped");
        self.drop_target().await?;
        self.play(Act::Back, Fault::None, Fault::None, "both are back");
        self.a_part().await;
        self.all_is_well_again();
        self.traffic.play(None);
        self.close(Act::Back);
        Ok(())
    }

    fn play(&mut self, act: Act, primary: Fault, mirror: Fault, what: &str) {
        // Between two acts nothing is judged: what is on its way belongs to neither.
        self.traffic.play(None);
        match Act::ALL.iter().rev().find(|before| **before < act) {
            Some(before) => self.close(*before),
            // What it took to get warm belongs to no act.
            None => drop(self.fleet.take_reads()),
        }
        self.fleet.set(primary, mirror);
        self.traffic.play(Some(act));
        self.diary.tell(what);
    }

    /// Takes down how often the origins were read in an act.
    fn close(&mut self, act: Act) {
        self.measured.entry(act).or_default().reads = self.fleet.take_reads();
    }

    fn note(&mut self, act: Act, name: &'static str, node: usize, what: String) {
        let measured = self.measured.entry(act).or_default();
        measured.name = name;
        measured.nodes.insert(node, what);
    }

    fn must(&mut self, act: Act, is_held: bool, what: &str) {
        if !is_held {
            self.complaints.push(format!("{}: {what}", act.name()));
        }
    }

    async fn a_part(&self) {
        tokio::time::sleep(Duration::from_millis(self.args.seconds.saturating_mul(1000) / PARTS)).await;
    }

    fn random_node(&mut self) -> usize {
        usize::try_from(self.dice.below(self.fleet.nodes().len() as u64)).unwrap_or(0)
    }

    /// Waits until every node has everything, and takes every token.
    async fn warm_up(&self) -> io::Result<()> {
        let nodes = self.fleet.nodes();
        let all = || self.revoked.iter().chain(self.dropped);
        if until(|| self.traffic.is_shown_by_all() && all().all(|probe| probe.is_accepted_by(&nodes))).await {
            // Everybody who goes round has been everywhere by then.
            tokio::time::sleep(Duration::from_millis(FRESH_MS)).await;
            return Ok(());
        }
        Err(io::Error::other("the nodes do not hand out what was published, or do not take their tokens"))
    }

    async fn publish(&mut self) -> io::Result<()> {
        self.play(Act::Published, Fault::None, Fault::None, "still in order");
        let node = self.random_node();
        self.fleet.publish(node, SUPERGRAPH, 2).await?;
        self.traffic.note_published(2);
        self.diary.tell_of(&node_name(node), "publishes version 2");
        if !until(|| self.traffic.is_shown_by_all()).await {
            self.must(Act::Published, false, "a node does not show what is published");
        }
        self.a_part().await;
        for node in self.fleet.nodes() {
            let old_ms = self.traffic.old_for_ms(node);
            let what = format!("{} showed the old version {old_ms} ms after", node_name(node));
            self.must(Act::Published, old_ms <= FRESH_MS + SLACK_MS, &what);
            self.note(Act::Published, "old until, ms", node, old_ms.to_string());
        }
        Ok(())
    }

    async fn revoke(&mut self, probe: &Probe) -> io::Result<()> {
        let nodes = self.fleet.nodes();
        let before: Vec<Seen> = nodes.iter().map(|node| probe.seen_by(*node)).collect();
        let is_early = before.iter().any(|seen| seen.refused > 0);
        self.must(Act::Revoked, !is_early, "a token was refused before it was revoked");
        let at = self.random_node();
        let revoked = self.fleet.api(at)?.revoke(&probe.token).await;
        let revoked = revoked.ok_or_else(|| io::Error::other(format!("{} did not revoke", node_name(at))))?;
        self.diary.tell_of(&node_name(at), "is told to revoke a token");
        let is_refused = until(|| probe.is_refused_by(&nodes)).await;
        self.must(Act::Revoked, is_refused, "a revoked token is accepted on and on");
        // Whoever accepts it once more is seen.
        tokio::time::sleep(LINGER).await;
        let receipts = self.fleet.api(at)?.receipts(text(&revoked, "id"), RECEIPTS).await.unwrap_or_default();
        let is_complete = receipts.get("complete") == Some(&Value::Bool(true));
        self.must(Act::Revoked, is_complete, "not every node has a receipt");
        for (node, before) in nodes.into_iter().zip(before) {
            let (name, seen) = (node_name(node), probe.seen_by(node));
            let came = came(&receipts, &name, &seen);
            self.must(Act::Revoked, !came.is_late, &format!("{name} accepted a token after its receipt"));
            let what = format!("{name} accepted a token {} ms after", came.measured_ms);
            self.must(Act::Revoked, came.measured_ms <= MAX_STALENESS_MS, &what);
            let is_sure = seen.unsure == before.unsure;
            self.must(Act::Revoked, is_sure, &format!("{name} answered 503 instead of a refusal"));
            let receipt = came.receipt_ms.map_or_else(|| came.state.clone(), |ms| ms.to_string());
            let others = self.measured.get(&Act::Revoked).and_then(|measured| measured.nodes.get(&node)).cloned();
            let others = others.map(|others| format!("{others}, ")).unwrap_or_default();
            let what = format!("{others}{receipt} / {}", came.measured_ms);
            self.note(Act::Revoked, "refused by receipt / last taken, ms", node, what);
        }
        Ok(())
    }

    async fn drop_target(&mut self) -> io::Result<()> {
        let nodes = self.fleet.nodes();
        let all = self.dropped;
        let unsure = |node: usize| all.iter().map(|probe| probe.seen_by(node).unsure).sum::<u64>();
        let before: Vec<u64> = nodes.iter().copied().map(unsure).collect();
        let at = self.random_node();
        let dropped = self.fleet.drop_target(at, LEAVING).await?;
        let dropped_ms = wall_ms();
        let count = self.dropped.len();
        self.diary.tell_of(&node_name(at), &format!("is told to drop `{LEAVING}`, which has {count} tokens"));
        let what = format!("not all tokens of the target were taken back: {dropped}");
        self.must(Act::Dropped, dropped.get("revoked") == Some(&json!(count)), &what);
        let is_refused = until(|| self.dropped.iter().all(|probe| probe.is_refused_by(&nodes))).await;
        self.must(Act::Dropped, is_refused, "a token of the target is accepted on and on");
        tokio::time::sleep(LINGER).await;
        for (node, before) in nodes.into_iter().zip(before) {
            let last_ms = all.iter().filter_map(|probe| probe.seen_by(node).last_accepted_ms).max().unwrap_or(0);
            let last_ms = last_ms.saturating_sub(dropped_ms);
            let what = format!("{} accepted a token of the target {last_ms} ms after", node_name(node));
            self.must(Act::Dropped, last_ms <= MAX_STALENESS_MS, &what);
            let what = format!("{} answered 503 instead of a refusal", node_name(node));
            self.must(Act::Dropped, unsure(node) == before, &what);
            self.note(Act::Dropped, "last taken, ms", node, last_ms.to_string());
        }
        Ok(())
    }

    /// What could not be handed out is there at the first asking, and what was taken back stays so.
    fn all_is_well_again(&mut self) {
        let missed = self.traffic.missed();
        let what = format!("{missed} artifacts that were missed have not been asked for again");
        self.must(Act::Back, missed == 0, &what);
        let nodes = self.fleet.nodes();
        let is_refused = self.revoked.iter().chain(self.dropped).all(|probe| probe.is_refused_by(&nodes));
        self.must(Act::Back, is_refused, "a token that was taken back is accepted again");
        for node in nodes {
            let last_ms = self.traffic.row(Act::Back, node).last_stale_ms;
            self.note(Act::Back, "stale until, ms", node, last_ms.to_string());
        }
    }
}
