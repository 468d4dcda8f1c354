//! What several callers, on several instances, can expect of each other.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use futures::future::{join_all, poll_fn};
use keyreeve::port::{Key, Register, StoreError, Swap};
use keyreeve_core::id::WriteId;

use super::{Bench, Broken, entry, op, same};
use crate::chance::Chance;
use crate::history::{Act, Call, is_linearizable};

const RACERS: u64 = 8;
const ROUNDS: u64 = 25;
const INCREMENTS: u64 = 20;
const HISTORIES: u64 = 20;
const CALLS_PER_ACTOR: u64 = 8;
/// Most failed tries of one caller before the suite gives up on the engine.
const TRIES_MAX: u64 = 2000;

pub(super) async fn what_one_instance_wrote_the_others_read(bench: &Bench) -> Result<(), Broken> {
    let key = bench.key("seen")?;
    let mut expected = None;
    for (number, writer) in (1..).zip(&bench.instances) {
        same("swap", &writer.swap(&key, expected, entry(number, "x")).await, &Ok(Swap::Done))?;
        for reader in &bench.instances {
            same("read", &reader.read(&key).await, &Ok(Some(entry(number, "x"))))?;
        }
        expected = Some(op(number));
    }
    Ok(())
}

pub(super) async fn of_racing_swaps_exactly_one_wins(bench: &Bench) -> Result<(), Broken> {
    let key = bench.key("raced")?;
    let mut expected = None;
    for round in 1..=ROUNDS {
        let swaps = (0..RACERS).zip(bench.instances.iter().cycle()).map(|(racer, instance)| {
            let (key, next) = (key.clone(), entry(round * 100 + racer, format!("{round} {racer}")));
            async move {
                yield_some(racer * round % 3).await;
                instance.swap(&key, expected, next).await.map_err(|e| e.to_string())
            }
        });
        let outcomes = join_all(swaps).await.into_iter().collect::<Result<Vec<_>, Broken>>()?;
        let won: Vec<_> =
            (0..).zip(&outcomes).filter(|(_, swap)| **swap == Swap::Done).map(|(racer, _)| racer).collect();
        let [winner] = won.as_slice() else { return Err(format!("round {round}: racers {won:?} won")) };
        let number = round * 100 + winner;
        let found = bench.register()?.read(&key).await;
        same("the winner's entry", &found, &Ok(Some(entry(number, format!("{round} {winner}")))))?;
        expected = Some(op(number));
    }
    Ok(())
}

pub(super) async fn every_acknowledged_increment_counts(bench: &Bench) -> Result<(), Broken> {
    let key = bench.key("counter")?;
    let actors = (0..RACERS).zip(bench.instances.iter().cycle()).map(|(actor, register)| {
        let key = key.clone();
        async move {
            let mut done = 0;
            for attempt in 0..TRIES_MAX {
                let found = register.read(&key).await.map_err(|e| e.to_string())?;
                let count = found.as_ref().map_or(Ok(0), count_in)?;
                let next = entry(actor * TRIES_MAX + attempt + 1, (count + 1).to_string());
                let swap = register.swap(&key, found.map(|entry| entry.op), next).await;
                done += u64::from(swap.map_err(|e| e.to_string())? == Swap::Done);
                if done == INCREMENTS {
                    return Ok(());
                }
            }
            Err(format!("actor {actor} made {done} of {INCREMENTS} increments in {TRIES_MAX} tries"))
        }
    });
    join_all(actors).await.into_iter().collect::<Result<Vec<()>, Broken>>()?;
    let last = bench.register()?.read(&key).await.map_err(|e| e.to_string())?.ok_or("the counter is gone")?;
    same("the count", &count_in(&last)?, &(RACERS * INCREMENTS))
}

fn count_in(entry: &keyreeve::port::Entry) -> Result<u64, Broken> {
    std::str::from_utf8(&entry.bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{entry:?}"))
}

/// A swap whose future is dropped was made or not, whole; and whatever follows can find out.
pub(super) async fn a_caller_that_leaves_breaks_nothing(bench: &Bench) -> Result<(), Broken> {
    let (register, key) = (bench.register()?, bench.key("left")?);
    let mut held = None;
    let mut number = 0;
    for polls in (0..4).cycle().take(24) {
        number += 1;
        poll_then_drop(register.swap(&key, held, entry(number, number.to_string())), polls).await;
        let left = number;
        // The write that was left behind may still arrive, but only once, and not over a later one.
        let mut tries = 0;
        loop {
            let found = register.read(&key).await.map_err(|e| e.to_string())?;
            if let Some(entry) = &found {
                same("the entry's write", &entry.op, &op(count_in(entry)?))?;
            }
            let found = found.map(|entry| entry.op);
            if found != held && found != Some(op(left)) {
                return Err(format!("found {found:?}, which is neither {held:?} nor the write left behind"));
            }
            number += 1;
            let swap = register.swap(&key, found, entry(number, number.to_string())).await;
            if swap.map_err(|e| e.to_string())? == Swap::Done {
                held = Some(op(number));
                break;
            }
            tries += 1;
            same("more than one loss", &(tries > 1), &false)?;
        }
    }
    Ok(())
}

pub(super) async fn random_histories_are_linearizable(bench: &Bench) -> Result<(), Broken> {
    for history in 0..HISTORIES {
        let key = bench.key(history)?;
        let instances: Vec<&dyn Register> = bench.instances.iter().map(AsRef::as_ref).cycle().take(5).collect();
        let calls = random_history(&instances, &key, &mut bench.chance(history + 100)).await?;
        let verdict = is_linearizable(&calls).map_err(|count| format!("{count} calls are too many to check"))?;
        same(format_args!("history {history} of {calls:?}"), &verdict, &true)?;
    }
    Ok(())
}

/// Lets one actor per instance read and swap one key at random, side by side, and returns what they saw.
///
/// # Errors
/// An entry whose bytes belong to another write.
pub async fn random_history(instances: &[&dyn Register], key: &Key, chance: &mut Chance) -> Result<Vec<Call>, Broken> {
    let recorder = Recorder::default();
    let actors = (1..).zip(instances).map(|(number, register)| {
        let chance = Chance::new(chance.draw());
        Actor { number, register: *register, recorder: &recorder, seen: None, chance }.act(key)
    });
    join_all(actors).await.into_iter().collect::<Result<Vec<()>, Broken>>()?;
    Ok(recorder.into_calls())
}

/// Writes down calls with a clock that all of them share.
#[derive(Default)]
pub struct Recorder {
    clock: AtomicU64,
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, from: u64, is_answered: bool, act: Act) {
        let until = is_answered.then(|| self.tick());
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { from, until, act });
    }

    /// What was written down.
    #[must_use]
    pub fn into_calls(self) -> Vec<Call> {
        self.calls.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who reads and swaps at random.
pub struct Actor<'a> {
    /// Tells its writes from those of others.
    pub number: u64,
    /// The instance it talks to.
    pub register: &'a dyn Register,
    /// Where its calls are written down.
    pub recorder: &'a Recorder,
    /// The last write it saw.
    pub seen: Option<WriteId>,
    /// Its choices.
    pub chance: Chance,
}

impl Actor<'_> {
    /// Makes a few calls.
    ///
    /// # Errors
    /// An entry whose bytes belong to another write.
    pub async fn act(mut self, key: &Key) -> Result<(), Broken> {
        for call in 0..CALLS_PER_ACTOR {
            yield_some(self.chance.below(4)).await;
            if self.chance.happens(400) {
                self.read(key).await?;
                continue;
            }
            let number = self.number * 1000 + call;
            let expected = if self.chance.happens(100) { None } else { self.seen };
            self.swap(key, expected, number).await;
        }
        Ok(())
    }

    async fn read(&mut self, key: &Key) -> Result<(), Broken> {
        let from = self.recorder.tick();
        // A read without an answer says nothing about the register.
        let Ok(found) = self.register.read(key).await else { return Ok(()) };
        self.seen = found.as_ref().map(|entry| entry.op);
        self.recorder.note(from, true, Act::Found(self.seen));
        match found {
            Some(entry) => same("op of the entry", &op(count_in(&entry)?), &entry.op),
            None => Ok(()),
        }
    }

    async fn swap(&mut self, key: &Key, expected: Option<WriteId>, number: u64) {
        let from = self.recorder.tick();
        let next = op(number);
        match self.register.swap(key, expected, entry(number, number.to_string())).await {
            Ok(Swap::Done) => {
                self.recorder.note(from, true, Act::Swap { expected, next });
                self.seen = Some(next);
            }
            Ok(Swap::Lost) => self.recorder.note(from, true, Act::Lost { expected }),
            // Nothing was written: as if it had never been asked.
            Err(StoreError::Refused(_)) => {}
            Err(_) => self.recorder.note(from, false, Act::Swap { expected, next }),
        }
    }
}

/// Lets others run a few times.
async fn yield_some(times: u64) {
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn poll_then_drop<T>(future: impl Future<Output = T>, polls: u64) {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
