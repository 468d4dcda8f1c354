//! What must never happen, whatever else does. Sees every committed record, every mint and every answer to a reader,
//! and knows the true time; the nodes know nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyreeve::port::Entry;
use keyreeve_core::record::{Credential, Record};
use keyreeve_core::time::Timestamp;

use crate::plan::{Issuer, Plan};
use crate::world::{EPOCH_MS, Node, World};

/// What has been seen of one credential.
#[derive(Default)]
pub struct Oracle {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    announced: BTreeSet<u64>,
    published: BTreeMap<u64, Vec<u8>>,
    last_published: Option<(u64, u64)>,
    mints: Vec<Mint>,
}

/// One token that the upstream made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mint {
    /// The token.
    pub token: String,
    /// What the order called it.
    pub generation: u64,
    /// When, in true milliseconds.
    pub at_ms: u64,
    /// When it dies, by the upstream's clock.
    pub expires_at: Timestamp,
}

/// An answer to a reader.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The generation it was given.
    pub generation: u64,
    /// The token it was given.
    pub token: String,
    /// Whether it was told that the token is past its expiry.
    pub is_stale: bool,
    /// How far the clock that the node went by is behind the truth, in milliseconds.
    pub behind_ms: u64,
    /// The generation that this life of the node had handed out before.
    pub before: u64,
}

impl Oracle {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tokens the upstream has made.
    #[must_use]
    pub fn mints(&self) -> u64 {
        self.seen().mints.len() as u64
    }

    /// How many generations were published.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.seen().published.len() as u64
    }

    /// When the last token was made, in true milliseconds.
    #[must_use]
    pub fn last_mint(&self) -> Option<Mint> {
        self.seen().mints.last().cloned()
    }

    /// The register has made a write of `node`.
    pub fn committed(&self, world: &World, plan: &Plan, node: Node, before: Option<&Entry>, next: &Entry) {
        let decode = |entry: &Entry| Record::decode(&entry.bytes).ok();
        let (before, Some(next)) = (before.and_then(decode), decode(next)) else {
            world.violated(node, "a record that cannot be read was written");
            return;
        };
        let newest = next.newest().map_or(0, |newest| newest.generation);
        if let Some(before) = &before {
            let goes_back = |what: &str, from: u64, to: u64| {
                if to < from {
                    world.violated(node, format!("the {what} went back from {from} to {to}"));
                }
            };
            goes_back("published generation", before.newest().map_or(0, |newest| newest.generation), newest);
            goes_back("attempted generation", before.generation, next.generation);
            goes_back("epoch", before.epoch, next.epoch);
            if next.rev != before.rev + 1 {
                world.violated(node, format!("revision {} was written over {}", next.rev, before.rev));
            }
        }
        let mut seen = self.seen();
        if let Some(intent) = &next.intent {
            let is_new =
                before.as_ref().and_then(|before| before.intent.as_ref()).is_none_or(|was| was.op != intent.op);
            if is_new && !intent.is_replay && !seen.announced.insert(intent.generation) {
                world.violated(node, format!("generation {} was announced twice", intent.generation));
            }
        }
        for credential in [&next.current, &next.next].into_iter().flatten() {
            let was = before.as_ref().and_then(Record::newest);
            seen.publish(world, plan, node, credential, was);
        }
    }

    /// The upstream is about to make a token for `generation`; `is_again` where it has made this very one before.
    pub fn asked(&self, world: &World, plan: &Plan, node: Node, generation: u64, is_again: bool) {
        let seen = self.seen();
        if !seen.announced.contains(&generation) {
            world.violated(node, format!("generation {generation} is minted and was never announced"));
        }
        if is_again {
            return;
        }
        if seen.mints.iter().any(|mint| mint.generation == generation) {
            world.violated(node, format!("generation {generation} is minted twice"));
        }
        let Some(last) = seen.mints.last() else { return };
        let since_ms = world.now() - last.at_ms;
        let floor_ms = plan.upstream_interval_ms;
        if matches!(plan.issuer, Issuer::Exclusive | Issuer::Idempotent) && since_ms < floor_ms {
            let text = format!(
                "generation {generation} is minted {since_ms} ms after {}, and {floor_ms} ms is the least",
                last.generation
            );
            world.violated(node, text);
        }
    }

    /// The upstream has made a token.
    pub fn minted(&self, mint: Mint) {
        self.seen().mints.push(mint);
    }

    /// A reader was answered.
    pub fn answered(&self, world: &World, plan: &Plan, node: Node, answer: &Answer) {
        let seen = self.seen();
        let Answer { generation, token, is_stale, behind_ms, before } = answer;
        if generation < before {
            world.violated(node, format!("generation {generation} was handed out after {before}"));
        }
        if !seen.published.contains_key(generation) {
            world.violated(node, format!("generation {generation} was handed out and never published"));
        }
        let Some(mint) = seen.mints.iter().rev().find(|mint| mint.token == *token) else {
            world.violated(node, format!("generation {generation} was handed out with a token that nobody made"));
            return;
        };
        let upstream = Timestamp(EPOCH_MS + world.now()).0.saturating_add_signed(plan.upstream_offset_ms);
        let is_dead = *is_stale || upstream >= mint.expires_at.0;
        // Without a bound on clocks nobody can know that a token has expired; with one, nobody may be wrong about it.
        let is_excused = *behind_ms > plan.rules.skew_ms / 2 && plan.faults.jumps_last;
        if is_dead && !is_excused {
            let late_ms = upstream.saturating_sub(mint.expires_at.0);
            world.violated(node, format!("generation {generation} was handed out {late_ms} ms after it expired"));
        }
    }
}

impl Seen {
    fn publish(&mut self, world: &World, plan: &Plan, node: Node, credential: &Credential, was: Option<&Credential>) {
        let generation = credential.generation;
        match self.published.get(&generation) {
            Some(sealed) if *sealed == credential.sealed => return,
            Some(_) => {
                world.violated(node, format!("generation {generation} was published twice, with two contents"));
                return;
            }
            None => {}
        }
        self.published.insert(generation, credential.sealed.clone());
        let floor_ms = plan.rules.min_interval_ms;
        if plan.issuer == Issuer::Signer
            && let Some(was) = was
            && credential.issued_at < was.issued_at.plus(floor_ms)
        {
            let apart_ms = credential.issued_at.since(was.issued_at);
            world.violated(node, format!("generation {generation} says it was issued {apart_ms} ms after the last"));
        }
        let minted_ms = self.mints.iter().rev().find(|mint| mint.generation == generation).map(|mint| mint.at_ms);
        if plan.issuer == Issuer::Opaque
            && let (Some(at_ms), Some((last, last_ms))) = (minted_ms, self.last_published)
            && at_ms.saturating_sub(last_ms) < floor_ms
        {
            let apart_ms = at_ms.saturating_sub(last_ms);
            world.violated(node, format!("generations {last} and {generation} were minted {apart_ms} ms apart"));
        }
        self.last_published = minted_ms.map(|at_ms| (generation, at_ms)).or(self.last_published);
        world.note("publish", node, [generation, 0], || format!("generation {generation}"));
    }
}
