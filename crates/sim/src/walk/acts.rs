//! What can happen next in a world, and what it leads to.

use std::sync::Arc;

use keyreeve_core::id::Holder;
use keyreeve_core::lifecycle::{Context, Event, Fault, Minted};
use keyreeve_core::operator::{Ask, Asker, Verdict, ask_renewal, resolve};
use keyreeve_core::record::{FaultClass, Record};

use super::laws::Law;
use super::machine::{Machine, Sight, Stage};
use super::scenario::{Belief, Calm, Faults, Scenario};
use super::search::Tally;
use super::world::{Call, Node, Outcome, Reply, World, Write, write_id};

/// One thing that happens. Numbers are places of nodes, orphans or strays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A node reads the register.
    Read(usize),
    /// A node reads what the register held before its last write.
    ReadStale(usize),
    /// A node's swap reaches the register.
    Swap(usize),
    /// The answer to a node's swap reaches it.
    Answer(usize),
    /// The register refuses a node's swap without making it.
    Refuse(usize),
    /// A node's swap, or the answer to it, is lost; the swap may still be made later.
    LoseSwap(usize),
    /// A node stops waiting for an answer that will never come.
    GiveUpSwap(usize),
    /// The upstream mints for a node.
    Mint(usize),
    /// The upstream tells a node that nothing was minted.
    FailMint(usize),
    /// The answer of the upstream reaches a node.
    AnswerMint(usize),
    /// A node's mint call, or the answer to it, is lost; the upstream may still act on it.
    LoseMint(usize),
    /// A node stops waiting for a mint that will never be answered.
    GiveUpMint(usize),
    /// A node loses its memory.
    Crash(usize),
    /// A dead node comes back.
    Restart(usize),
    /// A node's wall clock steps by this much.
    Jump(usize, i64),
    /// A node's wall clock is put right before its step was believed.
    PutRight(usize),
    /// A node believes in the step of its wall clock.
    Believe(usize),
    /// A swap that nobody waits for reaches the register.
    SwapOrphan(usize),
    /// A swap that nobody waits for never reaches the register.
    DropOrphan(usize),
    /// The upstream acts on a mint call that nobody waits for.
    MintStray(usize),
    /// The upstream never acts on a mint call that nobody waits for.
    DropStray(usize),
    /// The register loses its last acknowledged write.
    FailOver,
    /// Somebody asks this node for an early renewal.
    AskRenewal(usize),
    /// An operator tells this node to count a mint in doubt.
    Adopt(usize),
    /// Faults stop for good.
    Calm,
    /// Time passes.
    Tick,
}

fn fault() -> Fault {
    Fault { class: FaultClass::Transient, retry_after_ms: None, message: String::new() }
}

impl<M: Machine, V: Sight> World<M, V> {
    /// Everything that can happen next.
    pub fn acts(&self, scenario: &Scenario, acts: &mut Vec<Act>) {
        acts.clear();
        let is_calm = self.calm_since.is_some();
        let has_faults = !is_calm || scenario.calm == Calm::Always;
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.is_dead) {
            self.node_acts(scenario, index, node, acts);
        }
        for (index, write) in self.orphans.iter().enumerate() {
            if self.would_make(scenario, write) {
                acts.push(Act::SwapOrphan(index));
            }
            if is_calm {
                acts.push(Act::DropOrphan(index));
            }
        }
        for index in 0..self.strays.len() {
            acts.push(Act::MintStray(index));
            if is_calm {
                acts.push(Act::DropStray(index));
            }
        }
        // Once things are prompt, all that can happen does so before time goes on.
        let is_still = acts.is_empty();
        if has_faults {
            self.fault_acts(scenario, acts);
        }
        if !is_calm || is_still {
            acts.push(Act::Tick);
        }
    }

    fn node_acts(&self, scenario: &Scenario, index: usize, node: &Node<M, V>, acts: &mut Vec<Act>) {
        let is_calm = self.calm_since.is_some();
        let mono = scenario.mono(index, self.at);
        if let Some(flight) = &node.flight {
            match flight.reply {
                Reply::Pending => acts.push(Act::Swap(index)),
                Reply::Done | Reply::Lost => acts.push(Act::Answer(index)),
                Reply::Never if !is_calm || self.at >= flight.sent_at + scenario.swap_timeout => {
                    acts.push(Act::GiveUpSwap(index));
                }
                Reply::Never => {}
            }
        } else if let Some(call) = &node.call {
            match call.outcome {
                Outcome::Asked => acts.push(Act::Mint(index)),
                Outcome::Minted(..) | Outcome::Failed => acts.push(Act::AnswerMint(index)),
                Outcome::Never if !is_calm || mono >= call.order.answer_by => acts.push(Act::GiveUpMint(index)),
                Outcome::Never => {}
            }
        } else if scenario.calm == Calm::Never || mono >= node.looks_at {
            acts.push(Act::Read(index));
            if scenario.has_stale_reads && self.before.is_some() {
                acts.push(Act::ReadStale(index));
            }
        }
    }

    fn fault_acts(&self, scenario: &Scenario, acts: &mut Vec<Act>) {
        let left = self.left;
        for (index, node) in self.nodes.iter().enumerate() {
            if node.is_dead {
                acts.push(Act::Restart(index));
                continue;
            }
            if let Some(flight) = node.flight.as_ref().filter(|flight| flight.reply != Reply::Never) {
                if left.lost > 0 {
                    acts.push(Act::LoseSwap(index));
                }
                if left.refusals > 0 && flight.reply == Reply::Pending {
                    acts.push(Act::Refuse(index));
                }
            }
            if let Some(call) = node.call.as_ref().filter(|call| call.outcome != Outcome::Never) {
                if left.lost > 0 {
                    acts.push(Act::LoseMint(index));
                }
                if left.failures > 0 && call.outcome == Outcome::Asked {
                    acts.push(Act::FailMint(index));
                }
            }
            if left.crashes > 0 {
                acts.push(Act::Crash(index));
            }
            if node.raw_off != node.wall_off {
                acts.push(Act::PutRight(index));
                if scenario.belief == Belief::Sometime {
                    acts.push(Act::Believe(index));
                }
            } else if left.jumps > 0 {
                acts.extend(scenario.jumps.iter().map(|by| Act::Jump(index, *by)));
            }
            if left.verdicts > 0 && self.register.is_some() {
                acts.push(Act::AskRenewal(index));
                acts.push(Act::Adopt(index));
            }
        }
        if left.failovers > 0 && self.before.is_some() {
            acts.push(Act::FailOver);
        }
        if matches!(scenario.calm, Calm::Within(_)) && self.nodes.iter().any(|node| !node.is_dead) {
            acts.push(Act::Calm);
        }
    }

    /// The world after `act`; `None` where it cannot happen after all.
    #[must_use]
    pub fn after(&self, scenario: &Scenario, act: Act, tally: &mut Tally) -> Option<Self> {
        let mut world = self.clone();
        world.broken = super::laws::Broken::default();
        match act {
            Act::Read(index) => world.feed(scenario, index, Event::Read(self.register.clone()), tally),
            Act::ReadStale(index) => world.feed(scenario, index, Event::Read(self.before.clone()?), tally),
            Act::Swap(_) | Act::Answer(_) | Act::Refuse(_) | Act::LoseSwap(_) | Act::GiveUpSwap(_) => {
                world.swap_act(scenario, act, tally)?;
            }
            Act::Mint(_) | Act::FailMint(_) | Act::AnswerMint(_) | Act::LoseMint(_) | Act::GiveUpMint(_) => {
                world.mint_act(scenario, act, tally)?;
            }
            Act::Crash(index) => world.crash(scenario, index)?,
            Act::Restart(index) => world.node(index)?.is_dead = false,
            Act::Jump(index, by) => {
                world.left.jumps -= 1;
                let right = *scenario.offsets.get(index)?;
                let node = world.node(index)?;
                node.raw_off = right + by;
                if scenario.belief == Belief::AtOnce {
                    node.wall_off = node.raw_off;
                }
            }
            Act::PutRight(index) => {
                let node = world.node(index)?;
                node.raw_off = node.wall_off;
            }
            Act::Believe(index) => {
                let node = world.node(index)?;
                node.wall_off = node.raw_off;
            }
            Act::SwapOrphan(index) => {
                let write = world.orphans.remove(index);
                world.put(scenario, &write, tally);
            }
            Act::DropOrphan(index) => drop(world.orphans.remove(index)),
            Act::MintStray(index) => {
                let call = world.strays.remove(index);
                world.mint(scenario, &call.order, tally);
                tally.stray_mints += 1;
            }
            Act::DropStray(index) => drop(world.strays.remove(index)),
            Act::FailOver => {
                world.left.failovers -= 1;
                world.register = world.before.take()?;
            }
            Act::AskRenewal(index) | Act::Adopt(index) => world.operate(scenario, index, act, tally)?,
            Act::Calm => world.calm_since = Some(self.at),
            Act::Tick => world.tick(scenario)?,
        }
        if scenario.faults.sum() - world.left.sum() >= scenario.faults_max {
            world.left = Faults::default();
        }
        world.settle(scenario);
        Some(world)
    }

    fn node(&mut self, index: usize) -> Option<&mut Node<M, V>> {
        self.nodes.get_mut(index).map(Arc::make_mut)
    }

    fn swap_act(&mut self, scenario: &Scenario, act: Act, tally: &mut Tally) -> Option<()> {
        match act {
            Act::Swap(index) => {
                let write = self.node(index)?.flight.as_ref()?.write.clone();
                let reply = if self.put(scenario, &write, tally) { Reply::Done } else { Reply::Lost };
                self.node(index)?.flight.as_mut()?.reply = reply;
            }
            Act::Answer(index) => {
                let node = self.node(index)?;
                let flight = node.flight.take()?;
                let is_settling = matches!(node.machine.memory().stage, Stage::Settling { .. });
                let event = if flight.reply == Reply::Done { Event::Swapped } else { Event::SwapLost };
                tally.fenced += u64::from(is_settling && event == Event::SwapLost);
                self.feed(scenario, index, event, tally);
            }
            Act::Refuse(index) => {
                self.left.refusals -= 1;
                self.node(index)?.flight = None;
                self.feed(scenario, index, Event::SwapRefused, tally);
            }
            Act::LoseSwap(index) => {
                self.left.lost -= 1;
                let node = self.node(index)?;
                let flight = node.flight.as_mut()?;
                let orphan = (flight.reply == Reply::Pending).then(|| flight.write.clone());
                flight.reply = Reply::Never;
                self.orphans.extend(orphan);
                if scenario.calm == Calm::Never {
                    self.swap_act(scenario, Act::GiveUpSwap(index), tally)?;
                }
            }
            Act::GiveUpSwap(index) => {
                self.node(index)?.flight = None;
                tally.swaps_unknown += 1;
                self.feed(scenario, index, Event::SwapUnknown, tally);
            }
            _ => return None,
        }
        Some(())
    }

    fn mint_act(&mut self, scenario: &Scenario, act: Act, tally: &mut Tally) -> Option<()> {
        match act {
            Act::Mint(index) => {
                let order = self.node(index)?.call.as_ref()?.order.clone();
                let outcome = self.mint(scenario, &order, tally);
                self.node(index)?.call.as_mut()?.outcome = outcome;
            }
            Act::FailMint(index) => {
                self.left.failures -= 1;
                self.node(index)?.call.as_mut()?.outcome = Outcome::Failed;
            }
            Act::AnswerMint(index) => {
                let mono = scenario.mono(index, self.at);
                let node = self.node(index)?;
                let event = match node.call.take()?.outcome {
                    Outcome::Minted(at, issued_at, expires_at) => {
                        Event::Minted(Minted { sealed: at.to_le_bytes().to_vec(), issued_at, expires_at })
                    }
                    _ => Event::MintFailed(fault()),
                };
                if let Stage::Minting { asked_at, .. } = node.machine.memory().stage {
                    tally.late_mints += u64::from(mono >= asked_at.plus(scenario.rules.lease_ms));
                }
                self.feed(scenario, index, event, tally);
            }
            Act::LoseMint(index) => {
                self.left.lost -= 1;
                let call = self.node(index)?.call.as_mut()?;
                let stray = (call.outcome == Outcome::Asked).then(|| call.clone());
                call.outcome = Outcome::Never;
                self.strays.extend(stray);
                if scenario.calm == Calm::Never {
                    self.mint_act(scenario, Act::GiveUpMint(index), tally)?;
                }
            }
            Act::GiveUpMint(index) => {
                self.node(index)?.call = None;
                tally.mints_unknown += 1;
                self.feed(scenario, index, Event::MintUnknown(fault()), tally);
            }
            _ => return None,
        }
        Some(())
    }

    /// The node loses its memory. What it sent stays under way.
    fn crash(&mut self, scenario: &Scenario, index: usize) -> Option<()> {
        self.left.crashes -= 1;
        let mono = scenario.mono(index, self.at);
        let node = self.node(index)?;
        let flight = node.flight.take().filter(|flight| flight.reply == Reply::Pending);
        let call = node.call.take().filter(|call| call.outcome == Outcome::Asked);
        // A process that starts believes its clock at once; one that starts with a wrong clock is outside the skew
        // that the operator vouches for.
        let off = if scenario.belief == Belief::Never { node.wall_off } else { node.raw_off };
        *node = Node {
            machine: M::default(),
            view: V::default(),
            me: Holder { node: node.me.node.clone(), boot: node.me.boot + 1 },
            wall_off: off,
            raw_off: off,
            flight: None,
            call: None,
            looks_at: mono,
            served: 0,
            is_dead: scenario.calm != Calm::Never,
        };
        self.orphans.extend(flight.map(|flight| flight.write));
        self.strays.extend(call);
        Some(())
    }

    /// An operator or a caller writes to the register through a node, by the shipped rules for that.
    fn operate(&mut self, scenario: &Scenario, index: usize, act: Act, tally: &mut Tally) -> Option<()> {
        self.left.verdicts -= 1;
        let now = self.moment(scenario, index);
        let me = self.nodes.get(index)?.me.clone();
        let ctx = Context { rules: &scenario.rules, me: &me, now, fresh: write_id(self.writes) };
        self.writes += 1;
        let old = self.register.clone()?;
        let record: Record = if matches!(act, Act::Adopt(_)) {
            resolve(ctx, &old, Verdict::Adopt, "").ok()?
        } else {
            match ask_renewal(ctx, &old, old.newest()?.generation, Asker::Report) {
                Ask::Write { record, .. } => *record,
                _ => return None,
            }
        };
        tally.operated += 1;
        self.put(scenario, &Write { expected: Some(old.op), record: Arc::new(record) }, tally).then_some(())
    }

    fn tick(&mut self, scenario: &Scenario) -> Option<()> {
        if scenario.ticks_max.is_some_and(|max| self.at >= super::world::START + max) {
            return None;
        }
        match (scenario.calm, self.calm_since) {
            (Calm::Within(bound), Some(since)) if self.at == since + bound => {
                let newest = self.register.as_ref().and_then(|record| record.newest());
                let is_published = newest.is_some_and(|newest| newest.expires_at.0 > self.at);
                if is_published {
                    return None;
                }
                self.broken.note(Law::PublishedInTime);
                return Some(());
            }
            (Calm::Always, _) if !self.is_served(scenario) => self.broken.note(Law::AlwaysServed),
            _ => {}
        }
        self.at += 1;
        for index in 0..self.nodes.len() {
            let at = self.at;
            let is_over = |call: &&Call| call.outcome == Outcome::Asked && call.until < at;
            if self.nodes.get(index)?.call.as_ref().filter(is_over).is_some() {
                // Nothing came back in time: that counts as a lost answer.
                self.left.lost = self.left.lost.checked_sub(1)?;
                self.node(index)?.call.as_mut()?.outcome = Outcome::Never;
            }
        }
        Some(())
    }

    /// Whether every live node that has ever served a credential can, after one more read at most: whoever has nothing
    /// to serve is asked for it, and looks.
    fn is_served(&self, scenario: &Scenario) -> bool {
        self.nodes.iter().enumerate().all(|(index, node)| {
            let now = self.moment(scenario, index);
            let read = self.register.as_ref().and_then(|record| node.view.adopt(record, now));
            let view = read.as_ref().unwrap_or(&node.view);
            node.is_dead || node.served == 0 || view.serve(&scenario.rules, now).is_some()
        })
    }
}
