//! What happens to the keys and the nodes, and when.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::args::RotateArgs;
use super::super::frame::Diary;
use super::super::plan::Dice;
use super::super::processes::node_name;
use super::fleet::{Fleet, NODES, Silence};
use super::traffic::Traffic;

/// How long a key takes from being made to being published, on a node that is to die in between: real milliseconds.
const KEY_DELAY_MS: u64 = 600;
/// How long a node is cut off from the store; it signs and verifies on.
const CUT: Duration = Duration::from_secs(2);
/// How long the nodes get to agree: much more than the bound, for a busy machine.
const AGREE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Acts<'a> {
    pub(super) args: &'a RotateArgs,
    pub(super) fleet: &'a Fleet,
    pub(super) traffic: &'a Traffic,
    pub(super) diary: Diary,
}

impl Acts<'_> {
    /// Carries out everything, and returns what was not as it has to be.
    pub(super) async fn carry_out(&self) -> io::Result<Vec<String>> {
        let start = Instant::now();
        let mut dice = Dice::new(self.args.seed);
        let mut draw = |end: u64| usize::try_from(dice.below(end)).unwrap_or(0);
        let mut complaints = Vec::new();
        let at = |share: u64| Duration::from_millis(self.args.seconds * 10 * share);
        // Of the whole time, in percent.
        self.until(start, at(12)).await;
        let node = draw(NODES as u64);
        self.rotate(node).await;
        self.until(start, at(25)).await;
        let node = draw(NODES as u64);
        let after_ms = draw(KEY_DELAY_MS);
        self.kill_in_the_middle(node, after_ms as u64, &mut complaints).await?;
        self.until(start, at(42)).await;
        let node = draw(NODES as u64);
        self.cut_off(node).await?;
        self.until(start, at(58)).await;
        let node = draw(NODES as u64);
        self.retire(node, &mut complaints).await;
        self.until(start, at(78)).await;
        let node = draw(NODES as u64);
        let after_ms = KEY_DELAY_MS + draw(KEY_DELAY_MS) as u64;
        self.kill_in_the_middle(node, after_ms, &mut complaints).await?;
        self.until(start, at(100)).await;
        self.agree("at the end", &mut complaints).await;
        Ok(complaints)
    }

    async fn until(&self, start: Instant, at: Duration) {
        tokio::time::sleep(at.saturating_sub(start.elapsed())).await;
    }

    async fn rotate(&self, node: usize) {
        let Some(end) = self.traffic.ends.get(node) else { return };
        let what = match end.rotate().await {
            Ok(state) => format!("is told to rotate: {}", keys_of(&state)),
            Err(Silence::Strange(_)) => "is told to rotate, and a rotation is under way already".to_owned(),
            Err(_) => "does not answer".to_owned(),
        };
        self.diary.tell_of(&node_name(node), &what);
    }

    /// Tells a node to rotate and kills it while it does.
    async fn kill_in_the_middle(&self, node: usize, after_ms: u64, complaints: &mut Vec<String>) -> io::Result<()> {
        self.fleet.processes.switch(node, "key-delay-ms", Some(&KEY_DELAY_MS.to_string()))?;
        let Some(end) = self.traffic.ends.get(node).cloned() else { return Ok(()) };
        // The middle of a rotation is before the next key is there.
        let until = Instant::now() + Duration::from_secs(self.fleet.rotate_s);
        while end.state().await.is_ok_and(|state| phases(&state).any(|(_, phase)| phase == "next"))
            && Instant::now() < until
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let rotation = tokio::spawn(async move { end.rotate().await });
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        self.fleet.processes.kill(node).await?;
        let word = match rotation.await {
            Ok(Ok(_)) => "after it had answered",
            Ok(Err(Silence::Strange(_))) => "after another node had been faster",
            _ => "before it answered",
        };
        self.diary.tell_of(&node_name(node), &format!("is told to rotate, and killed {after_ms} ms later, {word}"));
        self.fleet.processes.switch(node, "key-delay-ms", None)?;
        self.fleet.processes.spawn(node)?;
        self.agree("after the kill", complaints).await;
        Ok(())
    }

    async fn cut_off(&self, node: usize) -> io::Result<()> {
        self.diary
            .tell_of(&node_name(node), &format!("is cut off from the store for {} s, and signs on", CUT.as_secs()));
        self.fleet.processes.switch(node, "store-cut", Some(""))?;
        tokio::time::sleep(CUT).await;
        self.fleet.processes.switch(node, "store-cut", None)
    }

    /// Retires the key that signs, as after a leak, and waits until nobody may accept it any more.
    async fn retire(&self, node: usize, complaints: &mut Vec<String>) {
        let Some(end) = self.traffic.ends.get(node) else { return };
        let Ok(state) = end.state().await else {
            return complaints.push(format!("{} does not say which key signs", node_name(node)));
        };
        let bound_ms = state.get("bound_ms").and_then(Value::as_u64).unwrap_or_default();
        let Some(kid) = active_of(&state) else {
            return complaints.push(format!("{} has no one active key", node_name(node)));
        };
        self.traffic.begin_retirement(&kid, Duration::from_millis(bound_ms));
        let Ok(state) = end.retire(&kid).await else {
            return complaints.push(format!("{} did not retire `{kid}`", node_name(node)));
        };
        self.traffic.end_retirement(&kid);
        let what = format!("retires `{kid}` at once: {}; refused everywhere within {bound_ms} ms", keys_of(&state));
        self.diary.tell_of(&node_name(node), &what);
        tokio::time::sleep(Duration::from_millis(bound_ms)).await;
        for (node, end) in self.traffic.ends.iter().enumerate() {
            match end.keys().await {
                Ok(keys) if !keys.contains(&kid) => {}
                _ => complaints.push(format!("{} still publishes the retired key", node_name(node))),
            }
        }
    }

    /// Waits until all nodes say the same, with one active key.
    async fn agree(&self, when: &str, complaints: &mut Vec<String>) {
        let until = Instant::now() + AGREE_WITHIN;
        loop {
            let mut seen = BTreeSet::new();
            let mut said = String::new();
            for end in &self.traffic.ends {
                let state = end.state().await.ok();
                let active = state.as_ref().and_then(active_of);
                said = state.as_ref().map(keys_of).unwrap_or_default();
                seen.insert((state.as_ref().and_then(|state| state.get("rev")?.as_u64()), said.clone(), active));
            }
            let is_one = seen.len() == 1 && seen.iter().all(|(rev, _, active)| rev.is_some() && active.is_some());
            if is_one {
                return self.diary.tell_of("", &format!("{when} all nodes have the same keys: {said}"));
            }
            if Instant::now() > until {
                return complaints.push(format!("{when} the nodes do not agree: {seen:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn phases(state: &Value) -> impl Iterator<Item = (&str, &str)> {
    let keys = state.get("keys").and_then(Value::as_array).into_iter().flatten();
    keys.filter_map(|key| Some((key.get("kid")?.as_str()?, key.get("phase")?.as_str()?)))
}

/// The key that signs, if it is one.
fn active_of(state: &Value) -> Option<String> {
    let mut active = phases(state).filter(|(_, phase)| *phase == "active").map(|(kid, _)| kid);
    let kid = active.next()?;
    active.next().is_none().then(|| kid.to_owned())
}

fn keys_of(state: &Value) -> String {
    phases(state).map(|(kid, phase)| format!("{kid} {phase}")).collect::<Vec<_>>().join(", ")
}
