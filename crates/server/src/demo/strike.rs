//! Carries out a plan: waits for the moment, and breaks things.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use keyreeve_picky::clock::PickyClock;
use rustix::process::Signal;
use serde::Serialize;

use super::args::Strategy;
use super::children::Children;
use super::place::{CYCLE_MS, MINT_MS, Place};
use super::plan::{Fault, Plan, Strike, name_of};
use super::timeline::Timeline;
use super::watch::{Sighting, Watch};

/// How long a node that was woken up gets to do what it was about to do, in real time.
const AFTERMATH: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What became of one fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Struck {
    /// What was planned.
    #[serde(flatten)]
    pub(crate) strike: Strike,
    /// Whom it hit; none where no mint came along in time.
    pub(crate) node: Option<String>,
}

/// What the faults need to reach.
pub(crate) struct Striker<'a> {
    pub(crate) strategy: Strategy,
    pub(crate) children: &'a Children<'a>,
    pub(crate) place: &'a Place,
    pub(crate) watch: &'a Watch,
    pub(crate) timeline: &'a Arc<Timeline>,
    pub(crate) clock: &'a PickyClock,
    /// The simulated time at which the fleet was ready.
    pub(crate) start_ms: i64,
    /// Mints that a fault has been spent on.
    pub(crate) spent: Mutex<BTreeSet<String>>,
}

impl Striker<'_> {
    /// Carries out the whole plan, and returns this many simulated milliseconds after the start, or later.
    pub(crate) async fn carry_out(&self, plan: &Plan, length_ms: u64) -> io::Result<Vec<Struck>> {
        let strikes = join_all(plan.strikes.iter().map(|strike| self.strike(*strike)));
        let (struck, ()) = join(strikes, self.until(length_ms)).await;
        struck.into_iter().collect()
    }

    async fn strike(&self, strike: Strike) -> io::Result<Struck> {
        let at =
            |tenths: u64| u64::from(strike.renewal).saturating_mul(CYCLE_MS).saturating_add(tenths * CYCLE_MS / 10);
        // A renewal is due at a multiple of the cycle, give or take the takeovers of earlier ones.
        self.until(at(0).saturating_sub(CYCLE_MS / 5)).await;
        let node = match strike.fault {
            Fault::CutNode { node, for_ms } => {
                self.cut(node, "before the renewal", for_ms).await?;
                Some(node)
            }
            Fault::Kill { into, for_ms } => match self.next_mint(into, at(7)).await {
                Some(sighting) => Some(self.kill(&sighting, for_ms).await?),
                None => None,
            },
            Fault::Freeze { into, for_ms } => match self.next_mint(into, at(7)).await {
                Some(sighting) => Some(self.freeze(&sighting, for_ms).await?),
                None => None,
            },
            Fault::CutHolder { into, for_ms } => match self.next_mint(into, at(7)).await {
                Some(sighting) => {
                    let when = format!("in the middle of minting {}", sighting.what);
                    self.cut(sighting.node, &when, for_ms).await?;
                    Some(sighting.node)
                }
                None => None,
            },
        };
        if node.is_none() {
            self.timeline.add("", format!("no mint came along for the fault of renewal {}", strike.renewal));
        }
        Ok(Struck { strike, node: node.map(name_of) })
    }

    /// Waits until this many simulated milliseconds after the start.
    async fn until(&self, ms: u64) {
        let at_ms = self.start_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX));
        let left_ms = u64::try_from(at_ms.saturating_sub(self.clock.now_ms())).unwrap_or(0);
        self.rest(left_ms).await;
    }

    /// Rests for this many simulated milliseconds.
    async fn rest(&self, ms: u64) {
        tokio::time::sleep(self.clock.real_for(Duration::from_millis(ms)).unwrap_or_default()).await;
    }

    /// The next mint under way that no fault has been spent on, `into` permille of its time later.
    async fn next_mint(&self, into: u64, until_ms: u64) -> Option<Sighting> {
        let mut watch = self.watch.follow();
        let search = async {
            loop {
                let Some(sighting) = watch.next().await.minting.into_iter().find(|mint| self.spend(mint)) else {
                    continue;
                };
                tokio::time::sleep(Duration::from_millis(MINT_MS.saturating_mul(into) / 1000)).await;
                if self.watch.seen().minting.contains(&sighting) {
                    return sighting;
                }
            }
        };
        tokio::select! {
            sighting = search => Some(sighting),
            () = self.until(until_ms) => None,
        }
    }

    /// Claims a mint for one fault; false where another fault has it.
    fn spend(&self, sighting: &Sighting) -> bool {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner).insert(sighting.mark.clone())
    }

    async fn kill(&self, sighting: &Sighting, for_ms: u64) -> io::Result<usize> {
        let node = sighting.node;
        self.children.kill(node).await?;
        self.timeline.add(&name_of(node), format!("SIGKILL in the middle of minting {}", sighting.what));
        self.rest(for_ms).await;
        self.children.spawn(node)?;
        self.timeline.add(&name_of(node), "started again");
        Ok(node)
    }

    async fn freeze(&self, sighting: &Sighting, for_ms: u64) -> io::Result<usize> {
        let node = sighting.node;
        self.children.signal(node, Signal::STOP)?;
        self.timeline.add(&name_of(node), format!("SIGSTOP in the middle of minting {}", sighting.what));
        self.rest(for_ms).await;
        self.children.signal(node, Signal::CONT)?;
        let text = format!("SIGCONT after {}m, with that mint still in its hands", for_ms / 60_000);
        self.timeline.add(&name_of(node), text);
        if self.strategy == Strategy::Ours {
            self.tell_aftermath(node).await;
        }
        Ok(node)
    }

    /// What a node that was woken up did with its late mint, by its own log.
    async fn tell_aftermath(&self, node: usize) {
        let until = Instant::now() + AFTERMATH;
        let is_fenced = loop {
            let log = std::fs::read_to_string(self.place.log(node)).unwrap_or_default();
            if log.contains("fenced: ") || Instant::now() > until {
                break log.contains("fenced: ");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let holder = self.watch.seen().holder;
        let text = match is_fenced {
            true => format!("its late publish was refused by the store: the record is that of {holder}"),
            false => format!("it has published nothing since it woke up; the record is that of {holder}"),
        };
        self.timeline.add(&name_of(node), text);
    }

    async fn cut(&self, node: usize, when: &str, for_ms: u64) -> io::Result<()> {
        let switch = self.place.faults(node).join("store-cut");
        std::fs::write(&switch, "")?;
        self.timeline.add(&name_of(node), format!("cut off from the store {when}"));
        self.rest(for_ms).await;
        std::fs::remove_file(&switch)?;
        self.timeline.add(&name_of(node), format!("has its store back after {}m", for_ms / 60_000));
        Ok(())
    }
}
