//! Whose verdict counts while tokens move here from elsewhere: one record a family in the register, which every node follows,
//! and to which each adds what came of comparing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use keyreeve_core::id::WriteId;
use keyreeve_core::token::mode::EXAMPLES_MAX;
use keyreeve_core::token::{Compared, Mode, ModeRecord, NotYet, Tally};
use metrics::Counter;

use super::held::Told;
use super::look::RETRY_MS;
use super::{Access, Ask, Denied, Family, Inner};
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::port::{Entry, Key, Swap, fresh_write_id};

/// How often the record is read, and what was counted is added to it, in milliseconds.
pub const FOLLOW_MS: u64 = 1000;
/// How often a change that somebody else was faster than is made anew.
const TRIES_MAX: usize = 8;

/// What a node knows about the mode of a family, and what it has counted.
pub(super) struct Followed {
    family: String,
    run: ArcSwapOption<Run>,
    counters: [OnceLock<Counter>; Compared::ALL.len()],
}

/// The time from one setting of the mode to the next.
pub(super) struct Run {
    pub(super) mode: Mode,
    id: WriteId,
    /// Verdicts of one run are none of another.
    pub(super) tag: String,
    counts: [AtomicU64; Compared::ALL.len()],
    examples: Mutex<BTreeMap<Compared, Vec<String>>>,
}

impl Followed {
    pub(super) fn new(family: &str) -> Self {
        Self { family: family.to_owned(), run: ArcSwapOption::empty(), counters: Default::default() }
    }

    /// What counts now; none before the record was read for the first time.
    pub(super) fn run(&self) -> Option<Arc<Run>> {
        self.run.load_full()
    }

    /// Goes by what the record says. Counts of a run that is over are nobody's any more.
    fn apply(&self, record: Option<&ModeRecord>) -> Arc<Run> {
        let (mode, id) = record.map_or((Mode::Off, WriteId([0; 16])), |record| (record.mode, record.run));
        if let Some(run) = self.run().filter(|run| run.id == id && run.mode == mode) {
            return run;
        }
        let tag = if record.is_some() { hex::encode(&id.0) } else { String::new() };
        let run = Arc::new(Run { mode, id, tag, counts: Default::default(), examples: Mutex::default() });
        self.run.store(Some(Arc::clone(&run)));
        run
    }

    /// Counts what came of comparing, for one request.
    pub(super) fn count(&self, run: &Run, told: &Told, ask: &Ask<'_>) {
        // This node knows too little to have a verdict.
        let Some((compared, id)) = told.compared.filter(|_| !matches!(told.verdict, Err(Denied::Stale))) else {
            return;
        };
        let index = compared.index();
        let (Some(own), Some(counter)) = (run.counts.get(index), self.counters.get(index)) else { return };
        own.fetch_add(1, Ordering::Relaxed);
        let counter = counter.get_or_init(|| {
            metrics::counter!("keyreeve_access_shadow_total", "family" => self.family.clone(), "outcome" => compared.as_str())
        });
        counter.increment(1);
        if !compared.is_difference() {
            return;
        }
        let mut examples = run.examples.lock().unwrap_or_else(PoisonError::into_inner);
        let examples = examples.entry(compared).or_default();
        if examples.len() < EXAMPLES_MAX {
            let example = format!("{}/{id}", ask.target);
            if !examples.contains(&example) {
                examples.push(example);
            }
        }
    }
}

impl Run {
    pub(super) fn is_shadow(&self) -> bool {
        self.mode == Mode::Shadow
    }

    /// What was counted and is in no record yet; it is counted from nothing again.
    fn take(&self) -> Vec<Tally> {
        let examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        let tallies = Compared::ALL.into_iter().zip(&self.counts).filter_map(|(compared, count)| {
            let count = count.swap(0, Ordering::Relaxed);
            let examples = examples.get(&compared).cloned().unwrap_or_default();
            (count > 0).then(|| Tally { cause: compared.as_str().to_owned(), count, examples })
        });
        tallies.collect()
    }

    /// Puts back what could not be written.
    fn put_back(&self, tallies: &[Tally]) {
        for (compared, count) in Compared::ALL.into_iter().zip(&self.counts) {
            for tally in tallies.iter().filter(|tally| tally.cause == compared.as_str()) {
                count.fetch_add(tally.count, Ordering::Relaxed);
            }
        }
    }
}

/// Goes on for as long as the driver lives.
pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let is_stopped = strong.is_stopped.load(Ordering::Relaxed);
        strong.follow_modes().await;
        if is_stopped {
            return;
        }
        let host = Arc::clone(&strong.host);
        drop(strong);
        host.sleep_until(host.now().mono.plus(FOLLOW_MS)).await;
    }
}

impl Inner {
    /// What counts for a family, read where this node does not know it yet. None where nobody else judges its tokens.
    pub(super) async fn run_of(&self, family: &Family) -> Result<Option<Arc<Run>>, Denied> {
        let Some(followed) = &family.followed else { return Ok(None) };
        if let Some(run) = followed.run() {
            return Ok(Some(run));
        }
        self.follow_mode(family).await.map_err(|error| {
            tracing::warn!(family = family.name, "nobody knows whose verdict counts: {error}");
            Denied::Unavailable { retry_ms: RETRY_MS }
        })?;
        Ok(followed.run())
    }

    /// Reads the mode of every family, and adds what was counted here.
    pub(super) async fn follow_modes(&self) {
        for family in self.families.values().filter(|family| family.followed.is_some()) {
            if let Err(error) = self.follow_mode(family).await {
                tracing::debug!(family = family.name, "the mode of a family cannot be read: {error}");
            }
        }
    }

    async fn read_mode(&self, family: &Family) -> Result<Option<ModeRecord>, Error> {
        let entry = self.read(&Key::of_mode(&family.name)).await?;
        let decode = |entry: Entry| {
            let record = ModeRecord::decode(&entry.bytes).map_err(|error| super::key::refused(&error.to_string()))?;
            if record.op == entry.op { Ok(record) } else { Err(super::key::refused("the mode belongs elsewhere")) }
        };
        entry.map(decode).transpose()
    }

    /// Reads the mode, and adds what was counted here. What the record says is answered.
    async fn follow_mode(&self, family: &Family) -> Result<Option<ModeRecord>, Error> {
        let Some(followed) = &family.followed else { return Ok(None) };
        for _ in 0..TRIES_MAX {
            let record = self.read_mode(family).await?;
            let run = followed.apply(record.as_ref());
            let counted = if run.is_shadow() { run.take() } else { Vec::new() };
            let Some(record) = record.as_ref().filter(|_| !counted.is_empty()) else { return Ok(record) };
            let mut next = record.clone();
            next.op = fresh_write_id(self.host.as_ref());
            counted.iter().cloned().for_each(|tally| next.add(tally));
            let put = self.put_mode(family, &next, Some(record.op)).await;
            if !matches!(put, Ok(true)) {
                run.put_back(&counted);
            }
            if put? {
                return Ok(Some(next));
            }
        }
        Err(Error::new(ErrorKind::StoreUnavailable, "what came of comparing changed each time it was read")
            .after(RETRY_MS))
    }

    /// False where somebody else was faster. What nobody knows the outcome of is looked up.
    async fn put_mode(&self, family: &Family, next: &ModeRecord, base: Option<WriteId>) -> Result<bool, Error> {
        let key = Key::of_mode(&family.name);
        let entry = Entry { op: next.op, bytes: next.encode().into() };
        match self.swap(&key, base, entry).await? {
            Some(swap) => Ok(swap == Swap::Done),
            None => Ok(self.read(&key).await?.is_some_and(|found| found.op == next.op)),
        }
    }
}

impl Access {
    /// Whose verdict counts, and what came of comparing so far, on every node up to a second ago. `None` where nobody has ever
    /// said whose.
    ///
    /// # Errors
    /// [`ErrorKind::Unacceptable`] where nobody else judges the tokens of this family; [`ErrorKind::StoreUnavailable`].
    pub async fn mode(&self) -> Result<Option<ModeRecord>, Error> {
        self.is_followed()?;
        self.inner.follow_mode(&self.family).await
    }

    /// Says whose verdict counts from now on; every node follows within a second or so. [`Mode::Shadow`] begins to count from
    /// nothing, also where it was set already.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] for [`Mode::Enforce`] where the verdicts were not the same, or none were compared, unless
    /// `is_forced`; as [`mode`](Self::mode).
    pub async fn set_mode(&self, mode: Mode, is_forced: bool, by: &str) -> Result<ModeRecord, Error> {
        self.is_followed()?;
        let inner = &self.inner;
        for _ in 0..TRIES_MAX {
            let was = inner.follow_mode(&self.family).await?;
            if mode == Mode::Enforce && !is_forced {
                may_enforce(&self.family.name, was.as_ref())?;
            }
            let tallies = was.as_ref().filter(|_| mode != Mode::Shadow).map(|was| was.tallies.clone());
            let next = ModeRecord {
                op: fresh_write_id(inner.host.as_ref()),
                mode,
                run: fresh_write_id(inner.host.as_ref()),
                since: inner.host.now().wall,
                by: by.to_owned(),
                tallies: tallies.unwrap_or_default(),
            };
            if inner.put_mode(&self.family, &next, was.map(|was| was.op)).await? {
                let family = &self.family;
                tracing::info!(target: "audit", who = by, what = "token.mode", family = family.name, %mode, is_forced, "token");
                if let Some(followed) = &family.followed {
                    followed.apply(Some(&next));
                }
                return Ok(next);
            }
        }
        Err(Error::new(ErrorKind::StoreUnavailable, "the mode changed each time it was read").after(RETRY_MS))
    }

    fn is_followed(&self) -> Result<(), Error> {
        if self.family.followed.is_some() {
            return Ok(());
        }
        let text = format!(
            "`token.{}` has no `hashes`, so there is nobody else's verdict\nhint: name Hive's bucket: `[objects.hive]`, and `hashes = \"hive\"`",
            self.family.name
        );
        Err(Error::new(ErrorKind::Unacceptable, text))
    }
}

/// Why ours does not count yet, and what to do about it.
fn may_enforce(family: &str, record: Option<&ModeRecord>) -> Result<(), Error> {
    let verdict = record.map_or(Err(NotYet::NotShadowing), ModeRecord::may_enforce);
    let text = match verdict {
        Ok(()) => return Ok(()),
        Err(NotYet::NotShadowing) => format!(
            "`token.{family}` is not in `shadow`, so nothing was compared\nhint: `keyreeve token mode shadow`, and let clients come by"
        ),
        Err(NotYet::NothingCompared) => {
            format!(
                "no token of `token.{family}` was seen that both accept\nhint: point clients at the gate, and ask again"
            )
        }
        Err(NotYet::Disagree(causes)) => {
            let named = causes.iter().map(|tally| {
                let examples = tally.examples.join(", ");
                format!("\n{} {}: {examples}; {}", tally.count, tally.cause, Compared::advice(&tally.cause))
            });
            format!(
                "the verdicts on `token.{family}` were not the same:{}\nhint: put it right, and count anew with `keyreeve token mode shadow`; `--force` goes on all the same",
                named.collect::<String>()
            )
        }
    };
    Err(Error::new(ErrorKind::Conflict, text))
}
