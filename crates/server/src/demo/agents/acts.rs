//! What happens to the agents, one act after the other.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use keyreeve_picky::issuers::oauth::Server;
use keyreeve_picky::issuers::{Fault, Faults};
use serde_json::{Value, json};

use super::super::args::AgentsArgs;
use super::super::frame::Diary;
use super::super::plan::Dice;
use super::super::processes::{End, Processes, node_name};
use super::traffic::Traffic;
use super::watch::Watch;
use super::{LIFE_S, REFRESH};

/// Between the answer of the server and the commit, at the node that is to die there: real milliseconds.
const COMMIT_DELAY_MS: u64 = 1500;
/// How long after the server has rotated the node is killed: its answer is there, and nothing is written.
const KILL_AFTER: Duration = Duration::from_millis(400);
/// How long the fleet is watched not to try again.
const QUIET: Duration = Duration::from_secs(2);
/// How long anything may take: much more than it needs, for a busy machine.
const WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Acts<'a> {
    args: &'a AgentsArgs,
    processes: &'a Processes,
    server: &'a Server,
    watch: &'a Watch,
    traffic: &'a Traffic,
    diary: Diary,
    dice: Dice,
    /// Refreshes that there had to be so far.
    pub(super) expected: u64,
    pub(super) complaints: Vec<String>,
}

impl<'a> Acts<'a> {
    pub(super) fn new(
        args: &'a AgentsArgs,
        processes: &'a Processes,
        server: &'a Server,
        watch: &'a Watch,
        traffic: &'a Traffic,
        diary: Diary,
    ) -> Self {
        let dice = Dice::new(args.seed);
        Self { args, processes, server, watch, traffic, diary, dice, expected: 0, complaints: Vec::new() }
    }

    /// Carries out everything. An error where the demonstration itself could not go on.
    pub(super) async fn carry_out(&mut self) -> io::Result<()> {
        self.agree("at the start", 1).await?;
        for _ in 0..self.args.windows {
            let published = self.watch.published().await;
            self.agree("a window later", published + 1).await?;
        }
        self.refused_for_all().await?;
        self.killed_before_the_commit().await?;
        self.answer_lost().await
    }

    fn random_node(&mut self) -> usize {
        usize::try_from(self.dice.below(self.processes.count() as u64)).unwrap_or(0)
    }

    fn end(&self, node: usize) -> io::Result<&'a End> {
        self.processes.ends().get(node).ok_or_else(|| io::Error::other("no such node"))
    }

    /// Waits until a generation, or a later one, is with every process, and counts the refresh that brought it.
    async fn agree(&mut self, when: &str, generation: u64) -> io::Result<()> {
        self.expected += 1;
        let until = Instant::now() + WITHIN;
        loop {
            let found = self.traffic.handed_out().await;
            let tokens: BTreeSet<_> = found.iter().flatten().map(|(_, token)| token.as_str()).collect();
            let is_there = found.iter().all(|found| found.as_ref().is_some_and(|(found, _)| *found >= generation));
            if is_there && tokens.len() == 1 {
                break;
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{when} the processes do not agree on generation {generation}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let score = self.server.score();
        let (count, refreshes, expected) = (self.processes.count(), score.refreshes, self.expected);
        self.diary.tell_of(
            "",
            &format!("{when} all {count} processes have one token; {refreshes} refreshes for {expected} windows"),
        );
        if refreshes != expected {
            self.complaints.push(format!("{when} there were {refreshes} refreshes for {expected} windows"));
        }
        Ok(())
    }

    /// Everybody's token is refused, and everybody says so.
    async fn refused_for_all(&mut self) -> io::Result<()> {
        let generation = self.watch.published().await;
        let report = json!({ "generation": generation, "upstream_status": 401 });
        let ends = self.processes.ends();
        let reports = ends.iter().map(|end| end.post("/v1/credentials/user/report", &report));
        let answers = futures::future::join_all(reports).await;
        let heard = answers.iter().flatten().filter(|(status, _)| *status < 300).count();
        self.diary.tell_of("", &format!("{heard} processes report that the token is refused"));
        self.agree("after the reports", generation + 1).await
    }

    /// Asks a process for a renewal before its time, as soon as the floor allows one.
    async fn renew(&self, node: usize) -> io::Result<()> {
        let end = self.end(node)?;
        self.found("a renewal to be taken", async |_| {
            let answer = end.post("/v1/credentials/user/renew", &json!({})).await;
            answer.is_some_and(|(status, _)| status < 300).then_some(())
        })
        .await
    }

    /// SIGKILL between the answer of the server and the commit.
    async fn killed_before_the_commit(&mut self) -> io::Result<()> {
        for node in 0..self.processes.count() {
            self.processes.switch(node, "commit-delay-ms", Some(&COMMIT_DELAY_MS.to_string()))?;
        }
        let refreshes = self.server.score().refreshes;
        let node = self.random_node();
        self.renew(node).await?;
        let victim = self
            .found("a refresh", async |acts| {
                let holder = acts.watch.minting().await?;
                (acts.server.score().refreshes > refreshes).then_some(holder)
            })
            .await?;
        let victim = (0..self.processes.count()).find(|node| node_name(*node) == victim).unwrap_or(node);
        tokio::time::sleep(KILL_AFTER).await;
        self.processes.kill(victim).await?;
        let is_open = self.watch.minting().await.is_some();
        let when = if is_open { "between the answer and the commit" } else { "too late: it had committed" };
        self.diary.tell_of(&node_name(victim), &format!("is killed {when}"));
        if !is_open {
            self.complaints.push("the node was killed too late, so this run proves less".to_owned());
        }
        self.expected += 1;
        for node in 0..self.processes.count() {
            self.processes.switch(node, "commit-delay-ms", None)?;
        }
        self.processes.spawn(victim)?;
        self.operator("after the kill").await
    }

    /// The server rotates, and its answer is lost.
    async fn answer_lost(&mut self) -> io::Result<()> {
        self.server.set_faults(Faults::next(1, Fault::DropAfterIssue)).map_err(io::Error::other)?;
        let refreshes = self.server.score().refreshes;
        let node = self.random_node();
        self.renew(node).await?;
        self.found("a refresh", async |acts| (acts.server.score().refreshes > refreshes).then_some(())).await?;
        self.expected += 1;
        self.diary.tell_of("", "the server has rotated, and its answer is lost");
        self.operator("after the loss").await
    }

    /// Nobody tries again; what is valid is served on; an operator sees it, and a new consent ends it.
    async fn operator(&mut self, when: &str) -> io::Result<()> {
        let asked = Instant::now();
        let node = self.random_node();
        let end = self.end(node)?;
        self.found("`needs-reauth`", async |_| {
            let (_, body) = end.get("/v1/credentials/user/history").await?;
            (body.get("status").and_then(Value::as_str) == Some("needs-reauth")).then_some(())
        })
        .await?;
        let calls = self.server.score().calls;
        let what = format!("says `needs-reauth`, {:.1} s later", asked.elapsed().as_secs_f64());
        self.diary.tell_of(&node_name(node), &what);
        tokio::time::sleep(QUIET).await;
        let tried = self.server.score().calls.saturating_sub(calls);
        if tried > 0 {
            self.complaints.push(format!("{when} the server was asked {tried} times more, and nobody had said so"));
        }
        let published = self.watch.published().await;
        self.processes.write_private(REFRESH, self.server.consent().as_bytes())?;
        self.found("the operator's word to be taken", async |_| {
            let answer = end.post("/v1/credentials/user/resolve", &json!({ "decision": "reauthorize" })).await;
            answer.is_some_and(|(status, _)| status < 300).then_some(())
        })
        .await?;
        self.diary.tell_of("", "the user consents again, and the operator says `reauthorize`");
        self.renew(node).await?;
        self.agree(when, published + 1).await
    }

    async fn found<T>(&self, what: &str, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> io::Result<T> {
        let until = Instant::now() + WITHIN.min(Duration::from_secs(LIFE_S * 4));
        loop {
            if let Some(found) = look(self).await {
                return Ok(found);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{what} did not come within {} s", WITHIN.as_secs())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
