//! One gate's artifacts: memory, disk and origins together.
//!
//! - What an origin vouched for a moment ago is answered from memory, and what never changes for as long as it is kept.
//! - Of many requests for one object at once, one goes to an origin, and goes on when its callers hang up.
//! - When no origin answers, what is kept is answered, marked as stale, for as long as the configuration says; after a failure
//!   nobody waits for the origins again for a second. A failure itself is never kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Shared, join_all, select};
use futures::stream::StreamExt as _;
use http::HeaderValue;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectMeta, PutMode, PutOptions};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::disk::Disk;
use super::kept::{Kept, Memory};
use super::name::{Asked, stored};
use super::objects::Objects;
use super::origins::{Away, Origins, Told, is_absent};
use super::read::{self, Read, Stream, Wanted};
use super::shape::{Shape, Shaping};
use crate::config::ArtifactConfig;
use crate::port::Host;

/// How long nobody waits for origins again for an object after none has answered, in milliseconds.
const HOLD_MS: u64 = 1000;
/// Where there is something stale to answer, the origins have so much longer than it takes to ask all of them, in milliseconds.
const STALE_WAIT_MS: u64 = 250;
/// Between two pieces of an object this long may pass, in milliseconds.
const IDLE_MS: u64 = 30_000;
/// How long a signed URL is good for, in milliseconds.
const LINK_MS: u64 = 60_000;
/// So many artifacts of the largest size can be published at once, and the more of smaller ones: what arrives is held in memory.
const PUBLISHED_AT_ONCE: usize = 4;

/// The artifacts of one gate.
pub struct Artifacts {
    name: Box<str>,
    config: ArtifactConfig,
    origins: Origins,
    memory: Arc<Memory>,
    disk: Option<Arc<Disk>>,
    flights: Mutex<HashMap<String, Flight>>,
    room: Arc<Semaphore>,
    /// What may be published at once, in KiB.
    publishing: Arc<Semaphore>,
    host: Arc<dyn Host>,
}

type Flight = Shared<BoxFuture<'static, Result<Found, Away>>>;

/// What is known of an object.
#[derive(Clone, Debug)]
pub enum Found {
    /// An origin vouched for it a moment ago.
    Fresh(Arc<Kept>),
    /// No origin answers; one vouched for it so many milliseconds ago.
    Stale(Arc<Kept>, u64),
    /// It is there, and too large to be kept; an origin vouched for this, which is all but its bytes, a moment ago.
    Large(Arc<Kept>),
    /// There is no such object.
    Absent,
}

/// What became of an artifact that was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// Whether it was there already, with these bytes.
    pub is_unchanged: bool,
    /// Its SHA-256.
    pub digest: [u8; 32],
    /// The mirrors that do not have it, and why.
    pub missing: Vec<(String, String)>,
}

/// Why an artifact was not published.
#[derive(Clone, Debug)]
pub enum Refused {
    /// It never changes, and is there with other bytes.
    Fixed,
    /// The primary did not take it, as far as is known.
    Away(Away),
}

/// A part of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The artifacts, by their paths.
    pub artifacts: Vec<Listed>,
    /// Names of objects below the target that are no names of artifacts: nobody can read them here.
    pub strange: Vec<String>,
    /// The last of all these names, where there are more.
    pub next: Option<String>,
}

/// One artifact of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The artifact below its target.
    pub path: String,
    /// Its size, in bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Timestamp,
    /// Its entity tag as its store says it.
    pub etag: Option<String>,
}

impl Artifacts {
    /// The artifacts of the gate `name`, whose origins are `objects`, the primary first. After a reload it goes on with what the
    /// gates `before` it keep: in memory where this one had the same origins, and in its folder, whosever that was.
    ///
    /// # Errors
    /// A sentence: the folder for times without origins cannot be used.
    pub fn open(
        name: &str,
        config: &ArtifactConfig,
        objects: Vec<(String, Objects)>,
        host: Arc<dyn Host>,
        before: &[Arc<Self>],
    ) -> Result<Arc<Self>, String> {
        let disk = match &config.cache {
            Some(folder) if config.stale_ms > 0 => {
                let open = before.iter().find_map(|before| before.disk.as_ref().filter(|disk| disk.folder() == folder));
                Some(match open {
                    // Two that each know half of what is in a folder would not keep it small.
                    Some(disk) => Arc::clone(disk),
                    None => {
                        let disk = Disk::open(folder)?;
                        disk.make_room(config.cache_bytes_max);
                        Arc::new(disk)
                    }
                })
            }
            _ => None,
        };
        let is_same = |before: &&Arc<Self>| {
            let places = before.origins.each().map(|(_, objects)| objects.place());
            *before.name == *name && places.eq(objects.iter().map(|(_, objects)| objects.place()))
        };
        let memory = before.iter().find(is_same).map(|before| Arc::clone(&before.memory)).unwrap_or_default();
        Ok(Arc::new(Self {
            name: name.into(),
            memory,
            disk,
            origins: Origins::new(name, objects, config.hedge_ms, Arc::clone(&host)),
            flights: Mutex::default(),
            room: Arc::new(Semaphore::new(config.requests_max)),
            publishing: Arc::new(Semaphore::new(kib(config.publish_bytes_max).saturating_mul(PUBLISHED_AT_ONCE))),
            config: config.clone(),
            host,
        }))
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &ArtifactConfig {
        &self.config
    }

    /// Whether anything is kept of an object.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.memory.find(name).is_some() || self.disk.as_ref().is_some_and(|disk| disk.has(name))
    }

    /// What can be answered without waiting.
    #[must_use]
    pub fn held(&self, asked: &Asked<'_>, now: Moment) -> Option<Found> {
        let kept = self.memory.find(&asked.object)?;
        if kept.is_fresh(self.config.fresh_ms, now.mono) || (asked.is_fixed && kept.is_checked()) {
            return Some(if kept.body.is_some() { Found::Fresh(kept) } else { Found::Large(kept) });
        }
        let age_ms = self.usable(&kept, now)?;
        kept.is_held(now.mono).then_some(Found::Stale(kept, age_ms))
    }

    /// What there is, asking the origins where that has to be.
    ///
    /// # Errors
    /// No origin has answered until `deadline`, and nothing is kept that could stand in.
    pub async fn look(self: &Arc<Self>, asked: &Asked<'_>, deadline: Mono) -> Result<Found, Away> {
        let now = self.host.now();
        if let Some(found) = self.held(asked, now) {
            return Ok(found);
        }
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(&asked.object) {
                Some(flight) => flight.clone(),
                None => match self.begin(asked.object.clone()) {
                    Ok(flight) => {
                        flights.insert(asked.object.clone(), flight.clone());
                        flight
                    }
                    // What is kept waits for nobody who asks for something else.
                    Err(away) => return self.stand_in(&asked.object).ok_or(away),
                },
            }
        };
        // Whoever can be told something older waits less; the read goes on, so that the next one is told what it brings.
        let origins = u64::try_from(self.origins.each().count()).unwrap_or(u64::MAX);
        let soon = now.mono.plus(self.config.hedge_ms.saturating_mul(origins)).plus(STALE_WAIT_MS).min(deadline);
        let flight = match select(flight, self.host.sleep_until(soon)).await {
            Either::Left((found, _)) => return found,
            Either::Right((_, flight)) => flight,
        };
        if let Some(stale) = self.stand_in(&asked.object) {
            return Ok(stale);
        }
        match select(flight, self.host.sleep_until(deadline)).await {
            Either::Left((found, _)) => found,
            Either::Right(_) => {
                Err(Away { why: "no origin has answered within the deadline".into(), retry_ms: HOLD_MS })
            }
        }
    }

    /// What is kept and may stand in for an origin.
    fn stand_in(&self, name: &str) -> Option<Found> {
        let now = self.host.now();
        let kept = self.memory.find(name)?;
        let age_ms = self.usable(&kept, now)?;
        kept.hold(now.mono.plus(HOLD_MS));
        Some(Found::Stale(kept, age_ms))
    }

    /// A read that goes on by itself, and that everybody may wait for.
    fn begin(self: &Arc<Self>, name: String) -> Result<Flight, Away> {
        let permit = self.permit()?;
        // Its own, and not that of whoever asked first and has waited for something else before.
        let deadline = self.host.now().mono.plus(self.config.deadline_ms);
        let this = Arc::clone(self);
        let flight = async move {
            let found = this.read(&name, deadline).await;
            this.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            drop(permit);
            found
        };
        let flight = flight.boxed().shared();
        self.host.spawn(flight.clone().map(drop).boxed());
        Ok(flight)
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Away> {
        let refused = |_| {
            let why = format!("more than {} requests wait for the origins of this gate", self.config.requests_max);
            Away { why, retry_ms: HOLD_MS }
        };
        Arc::clone(&self.room).try_acquire_owned().map_err(refused)
    }

    async fn read(self: &Arc<Self>, name: &str, deadline: Mono) -> Result<Found, Away> {
        let path = path_of(name)?;
        let bytes_max = self.config.kept_bytes_max;
        // What was too large may be kept since a reload.
        let is_large = |kept: &Kept| usize::try_from(kept.about.size).unwrap_or(usize::MAX) > bytes_max;
        let known = match self.memory.find(name).filter(|kept| kept.body.is_some() || is_large(kept)) {
            Some(kept) => Some(kept),
            None => self.read_kept(name).await,
        };
        let now = self.host.now();
        let stand_in = known.clone().filter(|kept| self.usable(kept, now).is_some());
        let tag = known.as_ref().and_then(|kept| kept.about.store_etag.clone());
        let told = self
            .origins
            .first(deadline, |objects| read::whole(objects, path.clone(), tag.clone(), bytes_max).boxed())
            .await;
        let now = self.host.now();
        match (told, known, stand_in) {
            (Ok(Told::Is(Read::Same, _)), Some(kept), _) => {
                kept.vouch(now);
                if kept.body.is_none() {
                    return Ok(Found::Large(kept));
                }
                self.keep(&kept, now);
                Ok(Found::Fresh(kept))
            }
            // "Not modified" without a condition: a store that answers so is none.
            (Ok(Told::Is(Read::Same, _) | Told::Changed), ..) => {
                Err(Away { why: "an origin answers 304 to a request without a condition".into(), retry_ms: HOLD_MS })
            }
            (Ok(Told::Is(Read::Whole(body, about), _)), ..) => {
                let digest = Sha256::digest(&body).into();
                let kept = Arc::new(Kept::new(name, Some(body), digest, about, now));
                self.insert(&kept);
                self.keep(&kept, now);
                Ok(Found::Fresh(kept))
            }
            (Ok(Told::Is(Read::Large(about), _)), ..) => {
                self.forget(name);
                let kept = Arc::new(Kept::new(name, None, [0; 32], about, now));
                self.insert(&kept);
                Ok(Found::Large(kept))
            }
            (Ok(Told::Absent), ..) => {
                self.forget(name);
                Ok(Found::Absent)
            }
            (Err(away), _, Some(kept)) => {
                tracing::warn!(object = name, "answered from what is kept: {}", away.why);
                kept.hold(now.mono.plus(HOLD_MS));
                let age_ms = kept.age_ms(now.wall);
                Ok(Found::Stale(kept, age_ms))
            }
            (Err(away), ..) => Err(away),
        }
    }

    /// How old what is kept is, unless it is too old to stand in for an origin.
    fn usable(&self, kept: &Kept, now: Moment) -> Option<u64> {
        let age_ms = kept.age_ms(now.wall);
        (kept.body.is_some() && age_ms < self.config.stale_ms).then_some(age_ms)
    }

    async fn read_kept(&self, name: &str) -> Option<Arc<Kept>> {
        let disk = self.disk.as_ref().filter(|disk| disk.has(name)).map(Arc::clone)?;
        let name = name.to_owned();
        let bytes_max = self.config.kept_bytes_max;
        let kept = tokio::task::spawn_blocking(move || disk.read(&name, bytes_max)).await.ok().flatten()?;
        let kept = Arc::new(kept);
        self.insert(&kept);
        Some(kept)
    }

    fn insert(&self, kept: &Arc<Kept>) {
        self.memory.insert(Arc::clone(kept), self.config.memory_bytes_max);
    }

    /// Writes down what an origin has just vouched for. Nobody waits for that.
    fn keep(&self, kept: &Arc<Kept>, now: Moment) {
        if let Some(disk) = self.disk.as_ref().filter(|disk| !disk.is_kept(kept, now.wall)) {
            let (disk, kept, bytes_max) = (Arc::clone(disk), Arc::clone(kept), self.config.cache_bytes_max);
            drop(tokio::task::spawn_blocking(move || disk.keep(&kept, now.wall, bytes_max)));
        }
    }

    /// Forgets what is known of an object: it has changed.
    pub fn forget(&self, name: &str) {
        self.memory.remove(name);
        if let Some(disk) = self.disk.as_ref().filter(|disk| disk.has(name)) {
            let (disk, name) = (Arc::clone(disk), name.to_owned());
            drop(tokio::task::spawn_blocking(move || disk.remove(&name)));
        }
    }

    /// An object as it comes, or what is wanted of it.
    ///
    /// # Errors
    /// No origin has begun an answer until `deadline`.
    pub async fn stream(&self, name: &str, wanted: Wanted, deadline: Mono) -> Result<Told<Stream>, Away> {
        let path = path_of(name)?;
        let _permit = self.permit()?;
        let told =
            self.origins.first(deadline, |objects| read::stream(objects, path.clone(), wanted.clone()).boxed()).await?;
        Ok(match told {
            Told::Is(Some(stream), at) => Told::Is(stream.pausing_at_most(IDLE_MS, &self.host), at),
            Told::Is(None, _) | Told::Changed => Told::Changed,
            Told::Absent => Told::Absent,
        })
    }

    /// What Hive makes of an object that is too large to be kept, for which all of it is read once. `None` where it is no longer
    /// there, or another one.
    ///
    /// # Errors
    /// It was not read until `deadline`.
    pub async fn shape(&self, asked: &Asked<'_>, kept: &Kept, deadline: Mono) -> Result<Option<Shape>, Away> {
        let read = || async {
            let wanted = Wanted { version: kept.about.version(), ..Wanted::default() };
            let Told::Is(stream, _) = self.stream(&asked.object, wanted, deadline).await.map_err(Some)? else {
                return Err(None);
            };
            let failed = |why: String| Some(Away { why, retry_ms: HOLD_MS });
            let mut shaping = Shaping::new(asked.target, asked.kind);
            let mut body = stream.body;
            loop {
                match select(body.next(), self.host.sleep_until(deadline)).await {
                    Either::Left((None, _)) => return Ok(shaping.done()),
                    Either::Left((Some(piece), _)) => shaping.take(&piece.map_err(|error| failed(error.to_string()))?),
                    Either::Right(_) => return Err(failed("the object was not read within the deadline".into())),
                }
            }
        };
        // Of many who want to know at once, one reads.
        match kept.shape.get_or_try_init(read).await {
            Ok(shape) => Ok(Some(shape.clone())),
            Err(None) => Ok(None),
            Err(Some(away)) => Err(away),
        }
    }

    /// A URL at which the object can be read for a minute, at an origin that has it, and what is known of the object.
    ///
    /// # Errors
    /// No origin has answered until `deadline`, or the URL cannot be signed.
    pub async fn link(&self, name: &str, deadline: Mono) -> Result<Told<(Secret<String>, super::kept::About)>, Away> {
        let path = path_of(name)?;
        let failed = |why: String| Away { why, retry_ms: HOLD_MS };
        let wanted = Wanted { is_head: true, ..Wanted::default() };
        let (about, at) = match self.stream(name, wanted, deadline).await? {
            Told::Is(stream, at) => (stream.about, at),
            Told::Absent => return Ok(Told::Absent),
            Told::Changed => return Err(failed("the object has only just appeared".into())),
        };
        let (_, objects) = self.origins.one(at).ok_or_else(|| failed("the origin is gone".into()))?;
        // A key that a cloud has to sign with is asked for over the network.
        let signed = Box::pin(objects.signed_url(&path, LINK_MS));
        let url = match select(signed, self.host.sleep_until(deadline)).await {
            Either::Left((url, _)) => url.map_err(failed)?,
            Either::Right(_) => return Err(failed("a URL was not signed within the deadline".into())),
        };
        Ok(Told::Is((url, about), at))
    }

    /// Room for an artifact of so many bytes that is to be published, until it is dropped.
    ///
    /// # Errors
    /// As much as may be at once is being published already.
    pub fn room_to_publish(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Away> {
        let refused = |_| Away { why: "too much is published at once by this gate".into(), retry_ms: HOLD_MS };
        let count = u32::try_from(kib(bytes)).unwrap_or(u32::MAX);
        Arc::clone(&self.publishing).try_acquire_many_owned(count).map_err(refused)
    }

    /// Puts an artifact into the primary, and then into the mirrors. One that never changes is only ever put once.
    ///
    /// # Errors
    /// [`Refused`] says whether it can have been written.
    pub async fn publish(
        &self,
        asked: &Asked<'_>,
        body: Bytes,
        content_type: Option<&HeaderValue>,
        deadline: Mono,
    ) -> Result<Published, Refused> {
        let away = |why: String| Refused::Away(Away { why, retry_ms: HOLD_MS });
        let path = path_of(&asked.object).map_err(Refused::Away)?;
        let digest: [u8; 32] = Sha256::digest(&body).into();
        let is_fixed = asked.is_fixed;
        let mut origins = self.origins.each();
        let (name, primary) = origins.next().ok_or_else(|| away("there is no origin".into()))?;
        let first = self.within(put(primary, &path, &body, is_fixed, content_type), deadline).await;
        // Also where nobody knows whether it was written.
        self.forget(&asked.object);
        let is_unchanged = match first {
            Ok(Put::New) => false,
            Ok(Put::Same) => true,
            Ok(Put::Other) => return Err(Refused::Fixed),
            Err(why) => return Err(away(format!("`{name}`: {why}"))),
        };
        let puts = origins.map(|(name, objects)| {
            let put = self.within(put(objects, &path, &body, is_fixed, content_type), deadline);
            put.map(|put| match put {
                Ok(Put::New | Put::Same) => None,
                Ok(Put::Other) => Some((name.to_owned(), "it has other bytes under this name".to_owned())),
                Err(why) => Some((name.to_owned(), why)),
            })
        });
        let missing = join_all(puts).await.into_iter().flatten().collect();
        Ok(Published { is_unchanged, digest, missing })
    }

    async fn within<T>(
        &self,
        asked: impl Future<Output = Result<T, object_store::Error>>,
        deadline: Mono,
    ) -> Result<T, String> {
        let (asked, sleep) = (std::pin::pin!(asked), std::pin::pin!(self.host.sleep_until(deadline)));
        match select(asked, sleep).await {
            Either::Left((told, _)) => told.map_err(|error| error.to_string()),
            Either::Right(_) => Err("no answer within the deadline".into()),
        }
    }

    /// What there is below a target in the order of the names, after `after`, at most `count` names. Which origin does not matter:
    /// the primary is asked first.
    ///
    /// # Errors
    /// No origin has answered until `deadline`.
    pub async fn list(&self, target: &str, after: &str, count: usize, deadline: Mono) -> Result<Page, Away> {
        let start = format!("artifact/{target}/");
        let prefix = path_of(start.trim_end_matches('/'))?;
        let _permit = self.permit()?;
        let after = if after.is_empty() { None } else { Some(path_of(&format!("{start}{after}"))?) };
        let told = self
            .origins
            .first(deadline, |objects| listed(objects, prefix.clone(), after.clone(), count.saturating_add(1)).boxed())
            .await?;
        let Told::Is(all, _) = told else { return Ok(Page::default()) };
        let is_more = all.len() > count;
        let mut page = Page::default();
        for (location, meta) in all.into_iter().take(count) {
            let Some(path) = location.as_ref().strip_prefix(&start) else { continue };
            if is_more {
                page.next = Some(path.to_owned());
            }
            if stored(target, path).is_none() {
                page.strange.push(path.to_owned());
                continue;
            }
            let modified = Timestamp(u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or_default());
            page.artifacts.push(Listed { path: path.to_owned(), size: meta.size, modified, etag: meta.e_tag });
        }
        Ok(page)
    }
}

/// The first `count` names after `after`. A folder has no order, so all of it is looked through; what is held is as little.
async fn listed(
    objects: Objects,
    prefix: Path,
    after: Option<Path>,
    count: usize,
) -> Result<BTreeMap<Path, ObjectMeta>, object_store::Error> {
    let mut names = match &after {
        Some(after) => objects.store.list_with_offset(Some(&prefix), after),
        None => objects.store.list(Some(&prefix)),
    };
    let mut first = BTreeMap::new();
    while let Some(name) = names.next().await {
        let name = name?;
        if after.as_ref().is_some_and(|after| name.location <= *after) {
            continue;
        }
        first.insert(name.location.clone(), name);
        if first.len() >= count && objects.is_sorted() {
            break;
        }
        if first.len() > count {
            first.pop_last();
        }
    }
    if first.is_empty() {
        objects.is_there().await?;
    }
    Ok(first)
}

/// What became of a put.
enum Put {
    /// It was written.
    New,
    /// It was there.
    Same,
    /// Something else is there.
    Other,
}

/// Puts an artifact into one place.
async fn put(
    objects: &Objects,
    path: &Path,
    body: &Bytes,
    is_fixed: bool,
    content_type: Option<&HeaderValue>,
) -> Result<Put, object_store::Error> {
    objects.make_ready(path).await?;
    if !is_fixed {
        return write(objects, path, body, PutMode::Overwrite, content_type).await.map(|()| Put::New);
    }
    // Some that speak S3 do not heed "only if there is none": it is looked for before, and again after, since of two who publish
    // at once to such a bucket the later one wins.
    if let Some(there) = there(objects, path, body).await? {
        return Ok(there);
    }
    let is_new = match write(objects, path, body, PutMode::Create, content_type).await {
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => false,
        written => written.map(|()| true)?,
    };
    match there(objects, path, body).await? {
        Some(Put::Same) if is_new => Ok(Put::New),
        Some(there) => Ok(there),
        None => Err(object_store::Error::Generic { store: "objects", source: "it was put, and is not there".into() }),
    }
}

/// Whether an object has these bytes. `None` where there is none.
async fn there(objects: &Objects, path: &Path, body: &Bytes) -> Result<Option<Put>, object_store::Error> {
    match read::whole(objects.clone(), path.clone(), None, body.len()).await {
        Ok(Read::Whole(there, _)) if there == *body => Ok(Some(Put::Same)),
        Ok(_) => Ok(Some(Put::Other)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn write(
    objects: &Objects,
    path: &Path,
    body: &Bytes,
    mode: PutMode,
    content_type: Option<&HeaderValue>,
) -> Result<(), object_store::Error> {
    let mut attributes = Attributes::new();
    if let Some(text) = content_type.and_then(|value| value.to_str().ok()) {
        attributes.insert(Attribute::ContentType, text.to_owned().into());
    }
    let options = PutOptions { mode: mode.clone(), attributes, ..PutOptions::default() };
    let is_typed = !options.attributes.is_empty();
    match objects.store.put_opts(path, body.clone().into(), options).await {
        // A folder has nowhere to write a media type: that of a file is known by its name.
        Err(object_store::Error::NotImplemented { .. }) if is_typed => {
            let options = PutOptions { mode, ..PutOptions::default() };
            objects.store.put_opts(path, body.clone().into(), options).await.map(drop)
        }
        put => put.map(drop),
    }
}

/// Bytes in KiB, of which even nothing takes one.
fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}

/// The name as the library has it: it has been checked, and is the same.
fn path_of(name: &str) -> Result<Path, Away> {
    Path::parse(name).map_err(|error| Away { why: error.to_string(), retry_ms: HOLD_MS })
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::super::name;
    use super::*;
    use crate::config::{Bind, Compat, Deliver};
    use crate::system::host::OsHost;

    fn config(cache: Option<std::path::PathBuf>) -> ArtifactConfig {
        ArtifactConfig {
            bind: Bind::Tcp(([127, 0, 0, 1], 0).into()),
            tls: None,
            compat: Compat::Own,
            tokens: "cdn".into(),
            origins: vec!["primary".into()],
            hedge_ms: 150,
            deadline_ms: 5000,
            deliver: Deliver::Stream,
            fresh_ms: 0,
            stale_ms: 60_000,
            cache,
            cache_bytes_max: 1 << 20,
            memory_bytes_max: 1 << 20,
            kept_bytes_max: 4096,
            publish_bytes_max: 8192,
            requests_max: 64,
            cors: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_reload_goes_on_with_what_is_kept_where_that_is_the_same() {
        let host: Arc<dyn Host> = Arc::new(OsHost::new());
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("artifact/acme/sdl"), "x".into()).await.unwrap();
        let open = |name: &str, place: &str, cache: &str, before: &[Arc<Artifacts>]| {
            let objects = vec![("primary".to_owned(), Objects::new(Arc::clone(&store) as _, place))];
            let config = config(Some(folder.path().join(cache)));
            Artifacts::open(name, &config, objects, Arc::clone(&host), before).unwrap()
        };
        let asked = name::stored("acme", "sdl").unwrap();
        let first = open("cdn", "s3://one", "a", &[]);
        assert!(matches!(first.look(&asked, Mono(u64::MAX)).await, Ok(Found::Fresh(_))));
        for (name, place, cache, keeps_memory, keeps_disk) in [
            ("cdn", "s3://one", "a", true, true),
            ("cdn", "s3://one", "b", true, false),
            ("cdn", "s3://two", "a", false, true),
            ("renamed", "s3://one", "a", false, true),
        ] {
            let next = open(name, place, cache, std::slice::from_ref(&first));
            assert_eq!(next.memory.find(&asked.object).is_some(), keeps_memory, "{name} {place} {cache}");
            let [before, now] = [&first, &next].map(|one| one.disk.as_ref().map(Arc::as_ptr));
            assert_eq!(before == now, keeps_disk, "{name} {place} {cache}");
        }
    }

    /// Has a key that it has to ask somebody for, who does not answer.
    #[derive(Debug)]
    struct Mute;

    #[async_trait::async_trait]
    impl object_store::signer::Signer for Mute {
        async fn signed_url(
            &self,
            _: http::Method,
            _: &Path,
            _: std::time::Duration,
        ) -> object_store::Result<reqwest::Url> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_url_that_is_not_signed_in_time_is_a_failure() {
        let host: Arc<dyn Host> = Arc::new(OsHost::new());
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("artifact/acme/sdl"), "x".into()).await.unwrap();
        let objects = Objects::new(store, "s3://one").signed_by(Arc::new(Mute));
        let gate = Artifacts::open("cdn", &config(None), vec![("primary".into(), objects)], Arc::clone(&host), &[]);
        let deadline = host.now().mono.plus(50);
        let link = Box::pin(gate.as_ref().unwrap().link("artifact/acme/sdl", deadline));
        let Either::Left((link, _)) = select(link, host.sleep_until(deadline.plus(20_000))).await else {
            panic!("it waits for ever")
        };
        assert!(link.is_err_and(|away| away.why.contains("not signed within the deadline")));
    }
}
