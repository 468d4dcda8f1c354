//! The register behind a bad network: the shipped memory engine, and everything that can happen on the way to it.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::channel::oneshot;
use keyreeve::engine::memory::Memory;
use keyreeve::port::{Capabilities, Entry, Key, Register, StoreError, Swap};
use keyreeve_core::id::WriteId;
use keyreeve_core::record::{Credential, Record};
use keyreeve_core::time::Timestamp;

use crate::fleet::Life;
use crate::plan::{LATE_MS, Sabotage};
use crate::world::{EPOCH_MS, Node, World};

/// The store, as it is: what was written, and from when to when nobody reaches it.
#[derive(Default)]
pub struct Store {
    memory: Memory,
    /// Every entry ever kept, oldest first, for reads that lag.
    past: Mutex<Vec<(Key, Entry)>>,
    away: Mutex<Away>,
}

#[derive(Default)]
struct Away {
    /// Nobody reaches the store before this.
    all_until_ms: u64,
    /// These nodes do not reach it before this.
    cut_until_ms: Vec<(Node, u64)>,
}

impl Store {
    /// Nobody reaches the store until `until_ms`.
    pub fn go_away(&self, world: &World, until_ms: u64) {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).all_until_ms = until_ms;
        world.note("outage", 0, [until_ms, 0], || format!("of the store until {} s", until_ms / 1000));
    }

    /// `node` does not reach the store until `until_ms`.
    pub fn cut(&self, world: &World, node: Node, until_ms: u64) {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).cut_until_ms.push((node, until_ms));
        world.note("cut", node, [until_ms, 0], || format!("off the store until {} s", until_ms / 1000));
    }

    fn is_away(&self, node: Node, now_ms: u64) -> bool {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        now_ms < away.all_until_ms || away.cut_until_ms.iter().any(|(cut, until)| *cut == node && now_ms < *until)
    }

    fn find(&self, key: &Key) -> Option<Entry> {
        // The memory engine answers at once.
        self.memory.read(key).now_or_never().and_then(Result::ok).flatten()
    }

    /// An entry that was there a few writes ago.
    fn find_older(&self, key: &Key, writes_ago: usize) -> Option<Entry> {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.iter().rev().filter(|(at, _)| at == key).nth(writes_ago).map(|(_, entry)| entry.clone())
    }

    fn apply(&self, life: &Life, key: &Key, expected: Option<WriteId>, next: &Entry) -> Result<Swap, StoreError> {
        let (world, plan) = (&life.fleet.world, &life.fleet.plan);
        let held = self.find(key);
        let expected = match plan.sabotage {
            Some(Sabotage::RegisterIsBlind) => held.as_ref().map(|entry| entry.op),
            Some(Sabotage::RegisterForgets) if world.draw(|chance| chance.happens(50)) => return Ok(Swap::Done),
            _ => expected,
        };
        let swap = self.memory.swap(key, expected, next.clone()).now_or_never();
        let swap = swap.unwrap_or_else(|| Err(StoreError::Unknown("the memory engine waits".into())))?;
        let made = u64::from(swap == Swap::Done);
        world.note("swap", life.node, [made, short(next.op)], || format!("{swap:?} {}", describe(Some(next))));
        if swap == Swap::Done {
            self.past.lock().unwrap_or_else(PoisonError::into_inner).push((key.clone(), next.clone()));
            life.fleet.oracle.committed(world, plan, life.node, held.as_ref(), next);
        }
        Ok(swap)
    }
}

/// What a stored entry says, in a line.
fn describe(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else { return "nothing".into() };
    let Ok(record) = Record::decode(&entry.bytes) else { return "no record".into() };
    let part = |credential: &Credential| format!("{} until {}", credential.generation, seconds(credential.expires_at));
    let parts = [&record.current, &record.next].map(|published| published.as_ref().map_or("-".into(), part));
    let intent = record.intent.as_ref().map_or_else(String::new, |intent| {
        format!(", intent {} of {} at {} s", intent.generation, intent.holder.node, seconds(intent.started_at))
    });
    let failure = record.failure.as_ref().map_or_else(String::new, |failure| {
        format!(", failure {} holds {} ms: {}", failure.count, failure.hold_ms, failure.message)
    });
    let renew = record.renew.map_or_else(String::new, |generation| format!(", renew {generation}"));
    let (op, rev, [current, next]) = (short(entry.op), record.rev, parts);
    format!("{op:x} rev {rev}: current {current}, next {next}{intent}{failure}{renew}")
}

fn seconds(at: Timestamp) -> u64 {
    at.since(Timestamp(EPOCH_MS)) / 1000
}

fn short(op: WriteId) -> u64 {
    op.0.iter().take(4).fold(0, |short, byte| short << 8 | u64::from(*byte))
}

/// The register as one life of a node reaches it.
pub struct FaultyRegister {
    /// Whose it is.
    pub life: Arc<Life>,
}

/// What happens to one call on its way.
struct Way {
    is_lost: bool,
    there_ms: u64,
    /// The request arrives again, this much later; the answer to this one may be the one that is delivered.
    again: Option<(u64, bool)>,
    /// None where it is lost.
    back_ms: Option<u64>,
}

impl FaultyRegister {
    fn way(&self) -> Way {
        let (faults, world) = (self.life.faults(), &self.life.fleet.world);
        let way = world.draw(|chance| {
            let late = chance.happens(faults.store_late);
            let again = chance.happens(faults.store_twice);
            Way {
                is_lost: chance.happens(faults.store_request_lost),
                there_ms: if late { chance.below(LATE_MS) } else { chance.between(1, 30) },
                again: again.then(|| (chance.below(LATE_MS / 4), chance.happens(500))),
                back_ms: (!chance.happens(faults.store_answer_lost)).then(|| chance.between(1, 30)),
            }
        });
        let told = [
            ("request-lost", way.is_lost),
            ("answer-lost", way.back_ms.is_none()),
            ("late", way.there_ms > 1000),
            ("twice", way.again.is_some()),
        ];
        for (kind, _) in told.into_iter().filter(|(_, happens)| *happens) {
            world.note(kind, self.life.node, [way.there_ms, 0], || format!("there in {} ms", way.there_ms));
        }
        way
    }

    /// Answers a call that reaches nobody: now, or never.
    async fn away<T>(&self, answer: Option<T>) -> Result<T, StoreError> {
        let world = &self.life.fleet.world;
        world.note("store-away", self.life.node, [0, 0], String::new);
        match (world.draw(|chance| chance.below(3)), answer) {
            (_, Some(answer)) => Ok(answer),
            (0, None) => Err(StoreError::Refused("no route to the store".into())),
            (1, None) => Err(StoreError::Unknown("the connection was lost".into())),
            _ => pending().await,
        }
    }

    fn lie(&self) -> Option<Swap> {
        (self.life.fleet.plan.sabotage == Some(Sabotage::UnknownIsDone)).then_some(Swap::Done)
    }
}

#[async_trait]
impl Register for FaultyRegister {
    fn capabilities(&self) -> Capabilities {
        Capabilities { is_swap_atomic: true, is_durable: true, forgets_on_failover: false, is_shared: true }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let life = &self.life;
        life.step().await;
        let (fleet, way) = (&life.fleet, self.way());
        if way.is_lost || fleet.store.is_away(life.node, fleet.world.now()) {
            return self.away(None).await;
        }
        let (tell, answer) = oneshot::channel();
        let (at, key) = (Arc::clone(life), key.clone());
        fleet.world.after(way.there_ms, move |world| {
            let stale = at.faults().store_stale;
            let ago = world.draw(|chance| if chance.happens(stale) { chance.between(1, 4) } else { 0 });
            let found = match ago {
                0 => at.fleet.store.find(&key),
                ago => at.fleet.store.find_older(&key, usize::try_from(ago).unwrap_or(0)),
            };
            let op = found.as_ref().map_or(0, |entry| short(entry.op));
            if ago > 0 {
                world.note("stale", at.node, [ago, 0], || format!("{ago} writes old"));
            }
            world.note("read", at.node, [op, ago], || describe(found.as_ref()));
            if let Some(back_ms) = way.back_ms {
                world.after(back_ms, move |_| drop(tell.send(found)));
            }
        });
        let Ok(found) = answer.await else { return self.away(None).await };
        life.step().await;
        Ok(found)
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        let life = &self.life;
        life.step().await;
        let (fleet, way) = (&life.fleet, self.way());
        if fleet.store.is_away(life.node, fleet.world.now()) {
            // Nothing was written, and whoever says "unknown" has to say so too.
            return self.away(None).await;
        }
        if way.is_lost {
            return self.away(self.lie()).await;
        }
        let (tell, answer) = oneshot::channel();
        let (at, key) = (Arc::clone(life), key.clone());
        fleet.world.after(way.there_ms, move |world| {
            let first = at.fleet.store.apply(&at, &key, expected, &next);
            let Some((again_ms, second_answers)) = way.again else { return back(world, way.back_ms, tell, first) };
            let (now, then) = if second_answers { (None, Some(tell)) } else { (Some(tell), None) };
            if let Some(tell) = now {
                back(world, way.back_ms, tell, first);
            }
            world.after(again_ms, move |world| {
                let second = at.fleet.store.apply(&at, &key, expected, &next);
                if let Some(tell) = then {
                    back(world, way.back_ms, tell, second);
                }
            });
        });
        // Sent, and not answered yet: the place where a crash hurts most.
        life.step().await;
        let Ok(outcome) = answer.await else { return self.away(self.lie()).await };
        life.step().await;
        outcome
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.life.fleet.store.memory.list(prefix, after, limit).await
    }
}

type Outcome = Result<Swap, StoreError>;

fn back(world: &World, back_ms: Option<u64>, tell: oneshot::Sender<Outcome>, outcome: Outcome) {
    if let Some(back_ms) = back_ms {
        world.after(back_ms, move |_| drop(tell.send(outcome)));
    }
}
