//! One pass: reads the register and does what the core says, until there is nothing to do.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::{Either, select};
use keyreeve_core::crypto::Crypto;
use keyreeve_core::id::{CredentialName, WriteId};
use keyreeve_core::lifecycle::{Context, Event, Fault, Minted, Order, Phase, Step, Why};
use keyreeve_core::operator::status;
use keyreeve_core::record::{Credential as Published, FaultClass, Record};
use keyreeve_core::rules::{OnDoubt, Rules};
use keyreeve_core::seal::{KeyRing, SealContext, SealError};
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Moment, Mono, Span};

use super::cell::{Cell, Issued, Snapshot};
use super::{Inner, slot};
use crate::config::Plan;
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::port::{Entry, Key, Register, StoreError, Swap, fresh_write_id};
use crate::source::{Before, Identity, Kept, Material, MintError, Minting};

/// After this many unanswered calls a pass ends, and the next one begins a little later.
const FAULTS_MAX: u32 = 3;

/// Starts a pass for `cell`, or makes the one under way go round once more.
pub(super) fn ensure(inner: &Arc<Inner>, cell: &Arc<Cell>) {
    if !begin(cell) {
        return;
    }
    let (task_inner, task_cell) = (Arc::clone(inner), Arc::clone(cell));
    inner.host.spawn(Box::pin(async move { run(&task_inner, &task_cell).await }));
}

/// Begins a pass, unless one is under way.
fn begin(cell: &Cell) -> bool {
    !std::mem::replace(&mut cell.lock().is_running, true)
}

/// As [`ensure`], and a pass under way looks again before it ends.
pub(super) fn ensure_again(inner: &Arc<Inner>, cell: &Arc<Cell>) {
    cell.lock().is_asked_again = true;
    ensure(inner, cell);
}

/// One pass; and where the driver was stopped meanwhile, more of them until what this one brought is committed.
async fn run(inner: &Arc<Inner>, cell: &Arc<Cell>) {
    loop {
        run_once(inner, cell).await;
        let Some(again_at) = inner.goes_on_at(cell) else { return };
        inner.host.sleep_until(again_at).await;
        if !begin(cell) {
            return;
        }
    }
}

async fn run_once(inner: &Arc<Inner>, cell: &Arc<Cell>) {
    match cell.plan.as_ref() {
        Plan::Slot(slots) => slot::fill(inner, cell, slots).await,
        Plan::Fleet(rules) => match (&inner.register, &inner.keys) {
            (Some(register), Some(keys)) => {
                Pass { inner, cell, rules, register: register.as_ref(), keys, key: inner.record_key(cell) }.run().await;
            }
            _ => {
                let text = format!("`{}` needs `store` and `seal.keys`", cell.name);
                let now = inner.host.now();
                cell.lock().finish(now.mono, Some(Error::new(ErrorKind::ConfigInvalid, text)), true);
            }
        },
    }
}

impl Inner {
    pub(super) fn record_key(&self, cell: &Cell) -> Key {
        record_key(self.crypto.as_ref(), &cell.name, cell.source.identity())
    }

    /// Waits for a store call, but not for ever.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let until = self.host.now().mono.plus(self.store_ms);
        let result = match select(Box::pin(call), self.host.sleep_until(until)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(StoreError::Unknown(format!("no answer within {}", Span(self.store_ms)))),
        };
        match &result {
            Ok(_) => self.store_answered(),
            Err(error) => self.store_failed(&error.to_string()),
        }
        result
    }
}

struct Pass<'a> {
    inner: &'a Arc<Inner>,
    cell: &'a Arc<Cell>,
    rules: &'a Rules,
    register: &'a dyn Register,
    keys: &'a ArcSwap<KeyRing>,
    key: Key,
}

/// What a pass has learnt that the core does not need.
#[derive(Default)]
struct Learnt {
    /// What the record said about its failure or doubt.
    record: Option<Arc<Record>>,
    /// An error on this side of the protocol: the store, the seal, the stored bytes.
    error: Option<Error>,
    /// How often the store has not answered in this pass.
    faults: u32,
    /// How long the last read took, in milliseconds.
    read_ms: u64,
}

impl Pass<'_> {
    async fn run(&self) {
        let mut learnt = Learnt::default();
        let mut event = self.read(&mut learnt).await;
        loop {
            match self.step(event) {
                // A store that keeps losing answers is away: asking it in a loop would not bring it back.
                Step::Read if learnt.faults >= FAULTS_MAX => {
                    if self.rest(self.rules.poll_ms, Why::StoreAway, &mut learnt) {
                        return;
                    }
                    learnt.faults = 0;
                    event = self.read(&mut learnt).await;
                }
                Step::Read => event = self.read(&mut learnt).await,
                Step::Swap { expected, record } => {
                    let record = self.announced(record);
                    event = self.swap(expected, &record, &mut learnt).await;
                }
                Step::Mint(order) => event = self.mint(&order, learnt.record.as_deref()).await,
                Step::Rest { for_ms, why } => {
                    if self.rest(for_ms, why, &mut learnt) {
                        return;
                    }
                    event = self.read(&mut learnt).await;
                }
            }
        }
    }

    fn step(&self, event: Event) -> Step {
        let fresh = fresh_write_id(self.inner.host.as_ref());
        let now = self.inner.host.now();
        let ctx = Context { rules: self.rules, me: &self.inner.me, now, fresh };
        let is_late = matches!(&event, Event::Read(Some(record)) if self.is_late(record, now));
        let counted = self.cell.counted();
        let mut state = self.cell.lock();
        state.renewer.heed_own_clocks(is_late);
        state.renewer.heed_count(counted);
        state.renewer.step(ctx, event)
    }

    /// Whether this node holds what `record` publishes and by its own clocks cannot serve it, or not for long.
    fn is_late(&self, record: &Record, now: Moment) -> bool {
        // What this node cannot even open, another generation would not mend.
        let is_held = record.newest().is_some_and(|newest| newest.generation == self.cell.newest_generation());
        is_held && (self.cell.serve(now, 0).is_none() || self.cell.late_in(now) == Some(0))
    }

    /// Ends the pass, or returns false where somebody asked for another look meanwhile.
    fn rest(&self, for_ms: u64, why: Why, learnt: &mut Learnt) -> bool {
        let now = self.inner.host.now();
        let error = self.error_of(why, for_ms, learnt);
        if let Some(error) = &error {
            tracing::debug!(credential = %self.cell.name, kind = error.kind.as_str(), "{}", error.message);
        }
        let has = (self.cell.serve(now, 0).map(|served| served.generation), self.cell.newest_generation());
        let mut state = self.cell.lock();
        let is_news = why != Why::Held || error.is_some() || state.told != Some(has);
        if std::mem::take(&mut state.is_asked_again) {
            return false;
        }
        let for_ms = match why {
            Why::Held => state.poll_ms(learnt.read_ms).map_or(for_ms, |poll_ms| for_ms.min(poll_ms)),
            // By the clock it learnt it by, what this node holds may end before its renewal falls due.
            Why::Fresh => self.cell.late_in(now).map_or(for_ms, |late_ms| for_ms.min(late_ms)),
            _ => for_ms,
        };
        let wake_at = now.mono.plus(for_ms.max(1));
        state.why = Some(why);
        state.status = Some(status(self.rules, learnt.record.as_deref(), now));
        state.wake_at = Some(wake_at);
        state.told = Some(has);
        state.finish(now.mono, error, is_news);
        drop(state);
        if !self.inner.timer.is_stopped() {
            self.inner.timer.wake(self.cell, wake_at);
        }
        true
    }

    /// What a caller without a credential is told at the end of this pass.
    fn error_of(&self, why: Why, for_ms: u64, learnt: &mut Learnt) -> Option<Error> {
        if let Some(error) = learnt.error.take() {
            return Some(error);
        }
        let name = &self.cell.name;
        let record = learnt.record.as_deref();
        let failure = record.and_then(|record| record.failure.as_ref());
        let said = failure.map_or("no reason was recorded", |failure| failure.message.as_str());
        let has_intent = record.is_some_and(|record| record.intent.is_some());
        // Where an operator has to say, that is so from the moment of the doubt on; and a doubt is more than a failure.
        let why = match why {
            Why::InDoubt if self.rules.on_doubt == OnDoubt::Reauthorize => Why::NeedsOperator,
            Why::BackOff if has_intent => Why::InDoubt,
            why => why,
        };
        match why {
            Why::Fresh | Why::Held => None,
            Why::BackOff => {
                let kind = failure.map_or(ErrorKind::UpstreamFailed, |failure| ErrorKind::of_fault(failure.class));
                Some(Error::new(kind, format!("`{name}` could not be minted: {said}")).after(for_ms))
            }
            Why::InDoubt => {
                let text = format!(
                    "whether `{name}` was minted is in doubt: {said}\nhint: it goes on by itself; or look at its history and resolve it"
                );
                Some(Error::new(ErrorKind::InDoubt, text).after(for_ms))
            }
            Why::NeedsOperator => {
                let text = format!(
                    "whether `{name}` was minted is in doubt, and it must not be tried again: {said}\nhint: `keyreeve credential resolve {name} adopt|discard|reauthorize`"
                );
                Some(Error::new(ErrorKind::NeedsReauth, text))
            }
            Why::Floor => {
                let text = format!(
                    "the upstream of `{name}` allows one mint per `min_interval`, and the last one is too recent"
                );
                // The pass looks again sooner than that, for the fleet's sake; a caller need not.
                let last = record.and_then(|record| record.last);
                let allowed_at = last.map(|last| last.at_most.plus(self.rules.min_interval_ms));
                let now = self.inner.host.now().earliest();
                Some(
                    Error::new(ErrorKind::RenewalTooSoon, text)
                        .after(allowed_at.map_or(for_ms, |at| at.since(now).max(for_ms))),
                )
            }
            Why::StoreAway => {
                let text = format!("the store does not answer, and this node holds no valid `{name}`");
                Some(Error::new(ErrorKind::StoreUnavailable, text).after(for_ms))
            }
        }
    }

    async fn read(&self, learnt: &mut Learnt) -> Event {
        let asked = self.inner.host.now().mono;
        let read = self.inner.within(self.register.read(&self.key)).await;
        learnt.read_ms = self.inner.host.now().mono.since(asked);
        match read {
            Ok(None) => {
                learnt.record = None;
                Event::Read(None)
            }
            Ok(Some(entry)) => match Record::decode(&entry.bytes) {
                Ok(record) => {
                    let record = Arc::new(record);
                    self.learn(&record, learnt);
                    Event::Read(Some(record))
                }
                Err(error) => {
                    let text = format!("`{}`: {error}", self.cell.name);
                    tracing::error!(credential = %self.cell.name, key = %self.key, "{error}");
                    learnt.error = Some(Error::new(ErrorKind::RecordRefused, text));
                    Event::ReadFailed
                }
            },
            Err(error) => {
                self.store_is_away(&error, learnt);
                Event::ReadFailed
            }
        }
    }

    fn store_is_away(&self, error: &StoreError, learnt: &mut Learnt) {
        let text = format!("`{}` is not held by this node: {error}", self.cell.name);
        learnt.error = Some(Error::new(ErrorKind::StoreUnavailable, text).after(self.rules.poll_ms));
        learnt.faults = learnt.faults.saturating_add(1);
        self.inner.notify(&self.cell.name, 0, "store-away", error.to_string());
    }

    async fn swap(&self, expected: Option<WriteId>, record: &Arc<Record>, learnt: &mut Learnt) -> Event {
        let entry = Entry { op: record.op, bytes: record.encode().into() };
        match self.inner.within(self.register.swap(&self.key, expected, entry)).await {
            Ok(Swap::Done) => {
                self.tell(record);
                self.learn(record, learnt);
                Event::Swapped
            }
            Ok(Swap::Lost) => {
                self.tell_fenced(record);
                Event::SwapLost
            }
            Err(error @ StoreError::Unknown(_)) => {
                self.store_is_away(&error, learnt);
                Event::SwapUnknown
            }
            Err(error) => {
                self.store_is_away(&error, learnt);
                Event::SwapRefused
            }
        }
    }

    /// Says in the log that an outcome came too late to be written: somebody else has taken over.
    fn tell_fenced(&self, record: &Record) {
        // Not getting the lease is everyday; an outcome without a place to go is the fence at work.
        let is_outcome = record.intent.as_ref().is_none_or(|intent| intent.doubt.is_some());
        if is_outcome {
            let (generation, epoch) = (record.generation, record.epoch);
            tracing::warn!(credential = %self.cell.name, generation, epoch, "fenced: the record has changed since, nothing was written");
        }
    }

    /// Tells listeners and metrics about an outcome this node has just recorded.
    fn tell(&self, record: &Record) {
        let name = self.cell.name.as_str().to_owned();
        let (kind, generation, detail) = match (&record.intent, &record.failure) {
            (Some(intent), _) => match &intent.doubt {
                Some(doubt) => ("in-doubt", intent.generation, doubt.clone()),
                None => return,
            },
            (None, Some(failure)) => ("failed", record.generation, failure.message.clone()),
            (None, None) => match record.newest() {
                Some(newest) => ("minted", newest.generation, String::new()),
                None => return,
            },
        };
        metrics::counter!("keyreeve_mints_total", "credential" => name, "outcome" => kind).increment(1);
        match kind {
            "minted" => tracing::info!(credential = %self.cell.name, generation, epoch = record.epoch, "minted"),
            _ => tracing::warn!(credential = %self.cell.name, generation, epoch = record.epoch, "{kind}: {detail}"),
        }
        self.inner.notify(&self.cell.name, generation, kind, detail);
    }

    fn learn(&self, record: &Arc<Record>, learnt: &mut Learnt) {
        learnt.error = self.inner.adopt(self.cell, self.keys, record).err();
        learnt.record = Some(Arc::clone(record));
    }

    async fn mint(&self, order: &Order, record: Option<&Record>) -> Event {
        if self.inner.host.now().mono > order.send_by {
            return Event::MintFailed(Fault {
                class: FaultClass::Transient,
                retry_after_ms: None,
                message: "the lease was too old to send under".into(),
            });
        }
        let result = match self.kept(record) {
            Ok(left) => {
                let before = Before { kept: left.as_ref(), ..before(record) };
                self.ask_source(order, before).await.and_then(|(minting, kept)| {
                    let accepted = self.accept(order, minting, kept.as_ref());
                    accepted
                        .map_err(|error| MintError { left: kept.filter(|kept| left.as_ref() != Some(kept)), ..error })
                })
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(minted) => Event::Minted(minted),
            Err(error) => self.failed(order, record, error),
        }
    }

    /// What the protocol hears of a mint that brought nothing to hand out.
    fn failed(&self, order: &Order, record: Option<&Record>, error: MintError) -> Event {
        let fault = Fault { class: error.class, retry_after_ms: error.retry_after_ms, message: error.message };
        let left = error.left.map(|left| self.seal_left(order, record, &left));
        match (left, error.may_have_minted, error.is_spent) {
            (Some(Ok(sealed)), _, _) => Event::MintLeft(fault, sealed),
            (Some(Err(cause)), _, _) => {
                let message = format!("{}; but it cannot be kept: {cause}", fault.message);
                Event::MintUnknown(Fault { message, ..fault })
            }
            (None, false, _) => Event::MintFailed(fault),
            (None, true, false) => Event::MintUnknown(fault),
            (None, true, true) => Event::MintSpent(fault),
        }
    }

    /// Seals what is left for the next mint with the newest published credential, or alone where there is none.
    fn seal_left(&self, order: &Order, record: Option<&Record>, left: &Kept) -> Result<Vec<u8>, String> {
        let (material, generation) = match record.and_then(Record::newest) {
            Some(newest) => (Material::from_bytes(self.open(newest)?.expose())?, newest.generation),
            None => (Material::nothing(), order.generation),
        };
        self.seal(generation, &material, Some(left)).map_err(|error| error.to_string())
    }

    fn open(&self, published: &Published) -> Result<Secret<Vec<u8>>, String> {
        let context = SealContext { name: &self.cell.name, generation: published.generation };
        let opened = self.keys.load().open(self.inner.crypto.as_ref(), context, &published.sealed);
        opened.map_err(|error| error.to_string())
    }

    fn seal(&self, generation: u64, material: &Material, kept: Option<&Kept>) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; 24];
        self.inner.host.fill(&mut nonce);
        let context = SealContext { name: &self.cell.name, generation };
        let plain = material.to_bytes_with(kept);
        self.keys.load().seal(self.inner.crypto.as_ref(), &nonce, context, plain.expose())
    }

    /// What the newest published generation has left for this mint.
    ///
    /// INVARIANT: `record` is the one that holds this mint's intent. The swap that put the intent there compared it with
    /// what was published, so nothing newer can have been used up.
    fn kept(&self, record: Option<&Record>) -> Result<Option<Kept>, MintError> {
        let newest = record.and_then(Record::newest).filter(|_| self.cell.source.is_chained());
        let Some(newest) = newest else { return Ok(None) };
        let refuse = |text: String| MintError::nothing_minted(FaultClass::Misconfigured, text);
        Kept::from_bytes(self.open(newest).map_err(refuse)?.expose()).map_err(refuse)
    }

    /// The record to swap in place of `record`: one that announces a mint says what that mint uses up.
    fn announced(&self, record: Arc<Record>) -> Arc<Record> {
        let is_acquiring = matches!(self.cell.lock().renewer.phase(), Phase::Acquiring { .. });
        if !is_acquiring || !self.cell.source.is_chained() {
            return record;
        }
        // What cannot be opened now cannot be opened for the mint either, and that one says so.
        let Ok(kept) = self.kept(Some(&record)) else { return record };
        let uses = self.cell.source.uses(Before { kept: kept.as_ref(), ..before(Some(&record)) });
        uses.and_then(|uses| self.cell.lock().renewer.announce(uses)).unwrap_or(record)
    }

    async fn ask_source(&self, order: &Order, before: Before<'_>) -> Result<(Minting, Option<Kept>), MintError> {
        let key = self.inner.idempotency_key(self.cell, order);
        // A source that panics must not leave this node believing that its mint is still under way.
        let call = AssertUnwindSafe(self.cell.source.mint_after(order, &key, before)).catch_unwind().map(|result| {
            result.unwrap_or_else(|_| Err(MintError::in_doubt(FaultClass::Transient, "the source panicked")))
        });
        match select(Box::pin(call), self.inner.host.sleep_until(order.answer_by)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => {
                Err(MintError::in_doubt(FaultClass::Transient, "the source had not answered at its deadline"))
            }
        }
    }

    /// Checks what a source brought, and seals it.
    fn accept(&self, order: &Order, minting: Minting, kept: Option<&Kept>) -> Result<Minted, MintError> {
        if minting.expires_at <= self.inner.host.now().latest().plus(self.rules.skew_ms) {
            let text = "the upstream returned a credential that has expired already, or is about to";
            return Err(MintError::spent(FaultClass::Transient, text));
        }
        let guard = self.cell.snapshot.load();
        let newest = guard.as_ref().and_then(|snapshot| snapshot.issued(snapshot.view.newest_generation()));
        if newest.is_some_and(|newest| newest.material == minting.material) {
            let text = "the upstream returned the credential that it had returned before";
            return Err(MintError::nothing_minted(FaultClass::Transient, text));
        }
        let sealed = self
            .seal(order.generation, &minting.material, kept)
            .map_err(|error| MintError::in_doubt(FaultClass::Terminal, error.to_string()))?;
        let issued_at = minting.issued_at.unwrap_or(order.issued_at);
        Ok(Minted { sealed, issued_at, expires_at: minting.expires_at })
    }
}

/// What `record` says of a chain, but for what is sealed.
fn before(record: Option<&Record>) -> Before<'_> {
    Before {
        kept: None,
        spent: record.and_then(|record| record.spent.as_deref()),
        announced: record.and_then(|record| record.intent.as_ref()?.uses),
    }
}

impl Inner {
    /// Takes over what `record` publishes, if it is newer than what this node holds.
    pub(super) fn adopt(&self, cell: &Cell, keys: &ArcSwap<KeyRing>, record: &Record) -> Result<(), Error> {
        // A report may read the record while a pass does: whoever is second must see what the first one stored.
        let mut state = cell.lock();
        let now = self.host.now();
        state.renewer.observe(record, now);
        let held = cell.snapshot.load();
        let view = held.as_ref().map(|snapshot| snapshot.view).unwrap_or_default();
        let Some(view) = view.adopt(record, now) else { return Ok(()) };
        // What is valid came from another register, and this one has nothing valid yet.
        let is_over = record.newest().is_some_and(|newest| newest.expires_at <= now.latest());
        if is_over && held.as_ref().is_some_and(|snapshot| snapshot.view.newest_generation() == 0) {
            return Ok(());
        }
        let open = |generation: u64| -> Result<Option<Arc<Issued>>, Error> {
            if let Some(issued) = held.as_ref().and_then(|snapshot| snapshot.issued(generation)) {
                return Ok(Some(Arc::clone(issued)));
            }
            let published = [&record.current, &record.next].into_iter().flatten();
            let Some(credential) = published.into_iter().find(|published| published.generation == generation) else {
                return Ok(None);
            };
            let context = SealContext { name: &cell.name, generation };
            let refuse = |text: String| Error::new(ErrorKind::SealKeyMissing, format!("`{}`: {text}", cell.name));
            let plain = keys
                .load()
                .open(self.crypto.as_ref(), context, &credential.sealed)
                .map_err(|error| refuse(error.to_string()))?;
            let material = Material::from_bytes(plain.expose()).map_err(refuse)?;
            Ok(Some(Arc::new(Issued {
                generation,
                material,
                issued_at: credential.issued_at,
                expires_at: credential.expires_at,
                refresh_at: credential.refresh_at,
                rendered: OnceLock::new(),
            })))
        };
        let current = view.current.map(|held| open(held.generation)).transpose()?.flatten();
        let next = view.next.map(|held| open(held.generation)).transpose()?.flatten();
        drop(held);
        let generation = view.newest_generation();
        cell.snapshot.store(Some(Arc::new(Snapshot::new(&cell.plan, view, current, next))));
        self.notify(&cell.name, generation, "adopted", "");
        Ok(())
    }

    /// The same for every call that may repeat this mint, and for no other, not even after a store was wiped.
    pub(super) fn idempotency_key(&self, cell: &Cell, order: &Order) -> String {
        let digest = self.crypto.sha256(&[
            b"keyreeve idempotency v1\0",
            cell.name.as_str().as_bytes(),
            &[0],
            &order.generation.to_be_bytes(),
            &order.issued_at.0.to_be_bytes(),
        ]);
        name_of(&digest)
    }

    pub(super) fn wake(&self, cell: &Arc<Cell>, at: Mono) {
        cell.lock().wake_at = Some(at);
        if !self.timer.is_stopped() {
            self.timer.wake(cell, at);
        }
    }
}

/// The register key of a credential's record: its name, and what it is for where its source says.
#[must_use]
pub fn record_key(crypto: &dyn Crypto, name: &CredentialName, identity: Option<Identity>) -> Key {
    let name = name.as_str().as_bytes();
    let digest = match identity {
        None => crypto.sha256(&[b"keyreeve record v1\0", name]),
        // A name has no NUL in it, so the two parts cannot run into each other.
        Some(Identity(identity)) => crypto.sha256(&[b"keyreeve record v2\0", name, &[0], &identity]),
    };
    Key::of_record(&name_of(&digest))
}

/// Half of a digest is enough to tell names apart.
fn name_of(digest: &[u8; 32]) -> String {
    let [half, _] = digest.as_chunks::<16>().0 else { return String::new() };
    hex::encode(half)
}
