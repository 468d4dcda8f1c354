//! Looks over the nodes' shoulders: who mints at this moment, and what the store says has happened.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyreeve::engine::sqlite::{Options, Sqlite};
use keyreeve::port::{Key, Register as _};
use keyreeve_core::record::{HistoryEntry, HistoryKind, Record};
use keyreeve_core::time::Timestamp;
use tokio::sync::watch;

use super::args::Strategy;
use super::place::Place;
use super::plan::name_of;
use super::timeline::Timeline;

/// How often the store, or the marker files, are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// A mint under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// The node that mints, from 0.
    pub(crate) node: usize,
    /// Tells this mint from every other.
    pub(crate) mark: String,
    /// What to call it.
    pub(crate) what: String,
}

/// What was seen last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Mints under way; one at the most, for keyreeve.
    pub(crate) minting: Vec<Sighting>,
    /// The generation in use, for keyreeve.
    current: u64,
    /// The one that takes over, and when.
    next: Option<(u64, Timestamp)>,
    /// How often the store put an older epoch or generation in the place of a newer one, for keyreeve.
    pub(crate) times_gone_back: u64,
    /// Who holds or held the lease last, and its epoch, for keyreeve.
    pub(crate) holder: String,
}

/// Looks until the run ends. Dropping it stops looking.
pub(crate) struct Watch {
    seen: watch::Receiver<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Starts looking.
    pub(crate) fn start(
        strategy: Strategy,
        nodes: usize,
        place: &Place,
        timeline: &Arc<Timeline>,
    ) -> Result<Self, String> {
        let (tell, seen) = watch::channel(Seen::default());
        let timeline = Arc::clone(timeline);
        let task = match strategy {
            Strategy::Ours => {
                let store = Sqlite::open(&place.store(), Options::default()).map_err(|error| error.to_string())?;
                tokio::spawn(watch_register(store, nodes, tell, timeline))
            }
            Strategy::Naive | Strategy::Lockfile => tokio::spawn(watch_markers(place.shared(), nodes, tell, timeline)),
        };
        Ok(Self { seen, task })
    }

    /// What was seen last.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Follows what is seen, from now on.
    pub(crate) fn follow(&self) -> Follow {
        Follow(self.seen.clone())
    }
}

/// One follower of a [`Watch`].
pub(crate) struct Follow(watch::Receiver<Seen>);

impl Follow {
    /// Waits for something new to see.
    pub(crate) async fn next(&mut self) -> Seen {
        if self.0.changed().await.is_err() {
            // The watch has ended, and with it the run: there is nothing more to wait for.
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }
}

async fn watch_register(store: Sqlite, nodes: usize, tell: watch::Sender<Seen>, timeline: Arc<Timeline>) {
    let mut key: Option<Key> = None;
    let mut known: Option<Record> = None;
    let mut times_gone_back = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if key.is_none() {
            key = store.list("cr/", None, 1).await.ok().and_then(|keys| keys.into_iter().next());
        }
        let Some(key) = &key else { continue };
        let Ok(Some(entry)) = store.read(key).await else { continue };
        let Ok(record) = Record::decode(&entry.bytes) else { continue };
        if known.as_ref().is_some_and(|known| known.op == record.op) {
            continue;
        }
        describe(known.as_ref(), &record, &timeline);
        if known.as_ref().is_some_and(|known| (record.generation, record.epoch) < (known.generation, known.epoch)) {
            times_gone_back += 1;
            timeline.add("", "the record went back: somebody overwrote a newer one");
        }
        tell.send_replace(Seen { times_gone_back, ..Seen::of(&record, nodes) });
        known = Some(record);
    }
}

impl Seen {
    /// The generation that is in use at `now_ms`.
    pub(crate) fn in_use(&self, now_ms: i64) -> u64 {
        let now = Timestamp(u64::try_from(now_ms).unwrap_or(0));
        self.next.filter(|(_, use_from)| *use_from <= now).map_or(self.current, |(generation, _)| generation)
    }

    fn of(record: &Record, nodes: usize) -> Self {
        let sighting = record.intent.as_ref().and_then(|intent| {
            let node = (0..nodes).find(|node| name_of(*node) == intent.holder.node.as_str())?;
            let what = format!("generation {} in epoch {}", intent.generation, record.epoch);
            Some(Sighting { node, mark: format!("{:?}", intent.op), what })
        });
        Self {
            minting: sighting.into_iter().collect(),
            current: record.current.as_ref().map_or(0, |current| current.generation),
            next: record.next.as_ref().map(|next| (next.generation, next.use_from)),
            times_gone_back: 0,
            holder: record
                .holder
                .as_ref()
                .map(|holder| format!("{} in epoch {}", holder.node, record.epoch))
                .unwrap_or_default(),
        }
    }
}

/// Adds a line for each entry of the history that is new, and for a new intent.
fn describe(known: Option<&Record>, record: &Record, timeline: &Timeline) {
    let is_new = |entry: &&HistoryEntry| known.is_none_or(|known| !known.history.contains(entry));
    for entry in record.history.iter().filter(is_new) {
        let (generation, epoch) = (entry.generation, entry.epoch);
        let text = match entry.kind {
            HistoryKind::Minted => format!("minted generation {generation} in epoch {epoch}"),
            HistoryKind::TakenOver => {
                format!("took over generation {generation}, {}, with epoch {epoch}", entry.detail)
            }
            kind => format!("{} generation {generation} in epoch {epoch}: {}", kind.as_str(), entry.detail),
        };
        timeline.add(entry.node.as_str(), text);
    }
    let intent_of = |record: &Record| record.intent.as_ref().map(|intent| intent.op);
    if let Some(intent) = record.intent.as_ref().filter(|intent| known.and_then(intent_of) != Some(intent.op)) {
        let text = format!("announced generation {} in epoch {}", intent.generation, record.epoch);
        timeline.add(intent.holder.node.as_str(), text);
    }
}

/// The compared strategies leave a file while they mint, and a line in a file when they have.
async fn watch_markers(shared: std::path::PathBuf, nodes: usize, tell: watch::Sender<Seen>, timeline: Arc<Timeline>) {
    let mut told = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let minting = (0..nodes).filter_map(|node| {
            let name = name_of(node);
            let mark = std::fs::read_to_string(shared.join(format!("{name}.minting"))).ok()?;
            Some(Sighting { node, what: "its token".to_owned(), mark: format!("{name} {mark}") })
        });
        let seen = Seen { minting: minting.collect(), ..Seen::default() };
        tell.send_replace(seen);
        let events = match std::fs::read_to_string(shared.join("events")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.unwrap_or_default(),
        };
        for line in events.lines().skip(told) {
            let (node, text) = line.split_once(' ').unwrap_or(("", line));
            timeline.add(node, text);
            told += 1;
        }
    }
}
