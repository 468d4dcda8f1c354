//! What people and callers ask of a credential besides its token: states, reports, renewals, verdicts, new seals.

use std::sync::Arc;

use arc_swap::ArcSwap;
use keyreeve_core::id::CredentialName;
use keyreeve_core::lifecycle::{Context, Why};
use keyreeve_core::operator::{self, Ask, Asker, Status, Verdict};
use keyreeve_core::quiet;
use keyreeve_core::record::{Credential as Published, Record};
use keyreeve_core::rules::Rules;
use keyreeve_core::seal::{KeyRing, SealContext, key_of};
use keyreeve_core::time::Timestamp;

use super::cell::{Cell, Snapshot};
use super::{Inner, Outbound, pass};
use crate::config::Plan;
use crate::error::{Error, ErrorKind};
use crate::port::{Entry, Key, Register, StoreError, Swap, fresh_write_id};

/// How often a change is tried when others change the same record.
const TRIES: usize = 4;

/// Where a credential stands on this node.
#[derive(Clone, Debug)]
pub struct CredentialState {
    /// Its name.
    pub name: CredentialName,
    /// Its source's name.
    pub source: &'static str,
    /// `slot`, `replay`, `lease` or `exclusive`.
    pub mode: &'static str,
    /// Where it stands; `None` where this node has not looked yet.
    pub status: Option<Status>,
    /// The generation this node serves.
    pub generation: Option<u64>,
    /// When that expires.
    pub expires_at: Option<Timestamp>,
    /// When its renewal falls due.
    pub refresh_at: Option<Timestamp>,
    /// Until when it must have been renewed, so that every node is served without a gap: its expiry, less the skew.
    pub renew_by: Option<Timestamp>,
    /// The maintenance window that is on, or else the next one: its start and its end. Renewals come before it.
    pub quiet: Option<(Timestamp, Timestamp)>,
    /// When this node looks again; `None` while it is looking, and where nobody wants the credential.
    pub looks_at: Option<Timestamp>,
    /// Why it does nothing until then; `None` where it has not looked yet, and in slot mode.
    pub why: Option<Why>,
    /// The generation that is to take over, and when.
    pub next: Option<(u64, Timestamp)>,
    /// Whether this node renews it at the moment.
    pub is_wanted: bool,
    /// What the last look ended with.
    pub last_error: Option<Error>,
    /// How many crashes or lost answers its lead absorbs; `None` in slot mode.
    pub faults_absorbed: Option<u64>,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// A renewal is under way, or has been asked for.
    Renewing,
    /// It is about a generation that has been replaced already.
    IgnoredStale,
    /// A renewal has been asked for and starts when the upstream allows, in this many milliseconds.
    FloorWait(u64),
}

struct Fleet<'a> {
    inner: &'a Arc<Inner>,
    cell: &'a Arc<Cell>,
    rules: &'a Rules,
    register: &'a dyn Register,
    keys: &'a ArcSwap<KeyRing>,
    key: Key,
}

impl Outbound {
    /// Where every credential stands on this node, by name. Asks no store.
    #[must_use]
    pub fn states(&self) -> Vec<CredentialState> {
        let mut states: Vec<_> = self.inner.cells.values().map(|cell| self.inner.state_of(cell)).collect();
        states.sort_by(|a, b| a.name.cmp(&b.name));
        states
    }

    /// Where one credential stands on this node.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<CredentialState> {
        self.inner.cells.get(name).map(|cell| self.inner.state_of(cell))
    }

    /// Reports that `generation` was refused upstream. Renews once for the whole fleet; a report about a generation that
    /// has been replaced changes nothing but this node's choice.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::StoreUnavailable`], [`ErrorKind::InDoubt`], [`ErrorKind::RecordRefused`].
    pub async fn report(&self, name: &str, generation: u64) -> Result<Reported, Error> {
        let cell = self.inner.cell(name)?;
        let Plan::Fleet(_) = cell.plan.as_ref() else { return Ok(self.inner.report_slot(cell, generation)) };
        let fleet = self.inner.fleet(cell)?;
        for _ in 0..TRIES {
            let record = fleet.read().await?;
            let ctx = fleet.context();
            let Some(record) = record else { return Ok(Reported::IgnoredStale) };
            match operator::ask_renewal(ctx, &record, generation, Asker::Report) {
                Ask::Stale => {
                    fleet.inner.switch(cell, generation);
                    return Ok(Reported::IgnoredStale);
                }
                // Somebody else renews, or will: what comes of it has to be looked for here too, not only when this
                // node's own look falls due.
                Ask::Renewing => {
                    pass::ensure_again(&self.inner, cell);
                    return Ok(Reported::Renewing);
                }
                Ask::InDoubt => return Err(fleet.in_doubt()),
                Ask::TooSoon { wait_ms } => {
                    pass::ensure_again(&self.inner, cell);
                    return Ok(Reported::FloorWait(wait_ms));
                }
                Ask::Write { record: next, wait_ms } => {
                    if fleet.write(&record, *next).await? {
                        self.inner.notify(&cell.name, generation, "renewal-asked", "reported as refused upstream");
                        pass::ensure_again(&self.inner, cell);
                        return Ok(if wait_ms > 0 { Reported::FloorWait(wait_ms) } else { Reported::Renewing });
                    }
                }
            }
        }
        Err(fleet.busy())
    }

    /// Renews before its time, for an operator. Lifts a back-off.
    ///
    /// # Errors
    /// [`ErrorKind::RenewalTooSoon`] with the time to wait, [`ErrorKind::InDoubt`], [`ErrorKind::NotFound`],
    /// [`ErrorKind::StoreUnavailable`], [`ErrorKind::ConfigInvalid`] in slot mode.
    pub async fn renew(&self, name: &str) -> Result<(), Error> {
        let cell = self.inner.cell(name)?;
        let fleet = self.inner.fleet(cell)?;
        // Asked for by a person: that is demand.
        cell.mark_used(self.inner.host.now().mono);
        for _ in 0..TRIES {
            let Some(record) = fleet.read().await? else {
                pass::ensure_again(&self.inner, cell);
                return Ok(());
            };
            let generation = record.newest().map_or(0, |newest| newest.generation);
            match operator::ask_renewal(fleet.context(), &record, generation, Asker::Operator) {
                Ask::Stale | Ask::Renewing => return Ok(()),
                Ask::InDoubt => return Err(fleet.in_doubt()),
                Ask::TooSoon { wait_ms } => {
                    let text = format!(
                        "`{name}` was minted too recently: its upstream allows one mint per {}",
                        keyreeve_core::time::Span(fleet.rules.min_interval_ms)
                    );
                    return Err(Error::new(ErrorKind::RenewalTooSoon, text).after(wait_ms));
                }
                Ask::Write { record: next, .. } => {
                    if fleet.write(&record, *next).await? {
                        self.inner.notify(&cell.name, generation, "renewal-asked", "asked for by an operator");
                        pass::ensure_again(&self.inner, cell);
                        return Ok(());
                    }
                }
            }
        }
        Err(fleet.busy())
    }

    /// Decides what to believe about a mint in doubt. `who` goes into the history.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where no mint is in doubt; [`ErrorKind::NotFound`]; [`ErrorKind::StoreUnavailable`].
    pub async fn resolve(&self, name: &str, verdict: Verdict, who: &str) -> Result<(), Error> {
        let cell = self.inner.cell(name)?;
        let fleet = self.inner.fleet(cell)?;
        for _ in 0..TRIES {
            let nothing = || Error::new(ErrorKind::Conflict, format!("no mint of `{name}` is in doubt"));
            let record = fleet.read().await?.ok_or_else(nothing)?;
            let next = operator::resolve(fleet.context(), &record, verdict, who).map_err(|error| match error {
                operator::ResolveError::TooSoon { wait_ms } => {
                    Error::new(ErrorKind::Conflict, format!("`{name}`: {error}")).after(wait_ms)
                }
                _ => nothing(),
            })?;
            let generation = next.generation;
            if fleet.write(&record, next).await? {
                self.inner.notify(&cell.name, generation, "resolved", verdict.as_str());
                pass::ensure_again(&self.inner, cell);
                return Ok(());
            }
        }
        Err(fleet.busy())
    }

    /// The stored record: states and history, for operators. Its secrets are sealed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::StoreUnavailable`], [`ErrorKind::RecordRefused`].
    pub async fn record(&self, name: &str) -> Result<Option<Record>, Error> {
        let cell = self.inner.cell(name)?;
        if matches!(cell.plan.as_ref(), Plan::Slot(_)) {
            return Ok(None);
        }
        self.inner.fleet(cell)?.read().await
    }

    /// Takes over what the register holds of a credential of which this node knows nothing yet, so that it can say where it
    /// stands. Renews nothing. For a node that is gone whenever nobody asks: a Durable Object.
    ///
    /// # Errors
    /// As [`record`](Self::record), and [`ErrorKind::SealKeyMissing`].
    pub async fn recall(&self, name: &str) -> Result<(), Error> {
        let cell = self.inner.cell(name)?;
        if cell.holds_any() || matches!(cell.plan.as_ref(), Plan::Slot(_)) {
            return Ok(());
        }
        let fleet = self.inner.fleet(cell)?;
        let Some(record) = fleet.read().await? else { return Ok(()) };
        let status = operator::status(fleet.rules, Some(&record), self.inner.host.now());
        cell.lock().status.get_or_insert(status);
        self.inner.adopt(cell, fleet.keys, &record)
    }

    /// The status of a credential by its stored record and this node's clock.
    #[must_use]
    pub fn status_of(&self, name: &str, record: Option<&Record>) -> Option<Status> {
        match self.inner.cells.get(name)?.plan.as_ref() {
            Plan::Fleet(rules) => Some(operator::status(rules, record, self.inner.host.now())),
            Plan::Slot(_) => self.inner.cells.get(name)?.lock().status,
        }
    }

    /// Seals every stored secret that was sealed with an older key anew with the first one. Returns how many were.
    ///
    /// # Errors
    /// The first error; what was sealed before it stays sealed anew. Running it again is safe.
    pub async fn reseal(&self) -> Result<usize, Error> {
        let mut count = 0;
        for cell in self.inner.cells.values().filter(|cell| matches!(cell.plan.as_ref(), Plan::Fleet(_))) {
            let fleet = self.inner.fleet(cell)?;
            if let Some(record) = fleet.read().await?
                && let Some(next) = fleet.resealed(&record)?
                && fleet.write(&record, next).await?
            {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Why the store does not answer, and since how many milliseconds; `None` where it did when last asked. Asks it now
    /// where nothing else has for a while.
    pub async fn store_fault(&self) -> Option<(u64, String)> {
        let register = self.inner.register.as_ref()?;
        if let Some(key) = Key::new("probe") {
            // The outcome is remembered by `within`.
            let _ = self.inner.within(register.read(&key)).await;
        }
        let fault = self.inner.store_fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = self.inner.host.now();
        fault.as_ref().map(|(since, why)| (now.mono.since(*since), why.clone()))
    }
}

impl Inner {
    fn cell(&self, name: &str) -> Result<&Arc<Cell>, Error> {
        self.cells.get(name).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no credential is named `{name}`")))
    }

    fn fleet<'a>(self: &'a Arc<Self>, cell: &'a Arc<Cell>) -> Result<Fleet<'a>, Error> {
        let Plan::Fleet(rules) = cell.plan.as_ref() else {
            let text =
                format!("`{}` is in slot mode: nothing is stored, and the next slot brings the next token", cell.name);
            return Err(Error::new(ErrorKind::ConfigInvalid, text));
        };
        let (Some(register), Some(keys)) = (&self.register, &self.keys) else {
            return Err(Error::new(ErrorKind::ConfigInvalid, format!("`{}` needs `store` and `seal.keys`", cell.name)));
        };
        Ok(Fleet { inner: self, cell, rules, register: register.as_ref(), keys, key: self.record_key(cell) })
    }

    fn state_of(&self, cell: &Cell) -> CredentialState {
        let now = self.host.now();
        let snapshot = cell.snapshot.load();
        let view = snapshot.as_ref().map(|snapshot| snapshot.view).unwrap_or_default();
        let served = cell.serve(now, 0);
        let next = view.next.filter(|next| !next.is_in_use(now));
        let (mode, faults_absorbed, quiet) = match cell.plan.as_ref() {
            Plan::Slot(_) => ("slot", None, None),
            Plan::Fleet(rules) => {
                (rules.mode.as_str(), Some(rules.faults_absorbed()), quiet::next(&rules.quiet, now.wall))
            }
        };
        let (status, why, wake_at) = {
            let state = cell.lock();
            (state.status, state.why, state.wake_at.filter(|_| !state.is_running))
        };
        let is_wanted = cell.is_wanted(now.mono);
        CredentialState {
            name: cell.name.clone(),
            source: cell.source.kind(),
            mode,
            status,
            generation: served.as_ref().map(|served| served.generation),
            expires_at: served.as_ref().map(|served| served.expires_at),
            refresh_at: served.as_ref().map(|served| served.refresh_at),
            renew_by: served.as_ref().map(|served| served.expires_at.minus(cell.skew_ms())),
            quiet,
            looks_at: wake_at.filter(|_| is_wanted).map(|at| now.wall.plus(at.since(now.mono))),
            why,
            next: next.map(|next| (next.generation, next.use_from)),
            is_wanted,
            last_error: cell.last_error(),
            faults_absorbed,
        }
    }

    /// This node's choice goes forward: what is refused upstream is not handed out while there is something newer.
    fn switch(&self, cell: &Cell, refused: u64) {
        let _state = cell.lock();
        let held = cell.snapshot.load_full();
        if let Some(snapshot) = held
            && snapshot.view.next.is_some_and(|next| next.generation > refused)
        {
            let view = snapshot.view.switched(self.host.now());
            let (current, next) = (snapshot.current.clone(), snapshot.next.clone());
            cell.snapshot.store(Some(Arc::new(Snapshot::new(&cell.plan, view, current, next))));
        }
    }

    fn report_slot(self: &Arc<Self>, cell: &Arc<Cell>, generation: u64) -> Reported {
        self.switch(cell, generation);
        let now = self.host.now();
        match (cell.serve(now, 0), cell.plan.as_ref()) {
            (Some(served), Plan::Slot(slots)) if served.generation <= generation => {
                Reported::FloorWait(slots.numbered(served.generation).ends_at.since(now.wall))
            }
            _ => Reported::IgnoredStale,
        }
    }
}

impl Fleet<'_> {
    fn context(&self) -> Context<'_> {
        let inner = self.inner;
        Context { rules: self.rules, me: &inner.me, now: inner.host.now(), fresh: fresh_write_id(inner.host.as_ref()) }
    }

    fn in_doubt(&self) -> Error {
        let text = format!(
            "whether `{0}` was minted is in doubt\nhint: `keyreeve credential resolve {0} adopt|discard|reauthorize`",
            self.cell.name
        );
        Error::new(ErrorKind::InDoubt, text)
    }

    fn busy(&self) -> Error {
        let text = format!("the record of `{}` changed each time it was to be changed: try again", self.cell.name);
        Error::new(ErrorKind::Conflict, text).after(1000)
    }

    fn away(&self, error: &StoreError) -> Error {
        Error::new(ErrorKind::StoreUnavailable, format!("`{}`: {error}", self.cell.name)).after(self.rules.poll_ms)
    }

    async fn read(&self) -> Result<Option<Record>, Error> {
        let entry = self.inner.within(self.register.read(&self.key)).await.map_err(|error| self.away(&error))?;
        let Some(entry) = entry else { return Ok(None) };
        let refuse = |text: String| Error::new(ErrorKind::RecordRefused, format!("`{}`: {text}", self.cell.name));
        let record = Record::decode(&entry.bytes).map_err(|error| refuse(error.to_string()))?;
        // What cannot be opened can still be looked at, and replaced: that is the way out when a seal key is lost.
        if let Err(error) = self.inner.adopt(self.cell, self.keys, &record) {
            tracing::warn!(credential = %self.cell.name, "{error}");
        }
        Ok(Some(record))
    }

    /// True where the record was written, false where somebody was faster.
    async fn write(&self, base: &Record, next: Record) -> Result<bool, Error> {
        let entry = Entry { op: next.op, bytes: next.encode().into() };
        let swap = self.register.swap(&self.key, Some(base.op), entry);
        match self.inner.within(swap).await {
            Ok(Swap::Done) => Ok(true),
            Ok(Swap::Lost) => Ok(false),
            // The record tells: if the write is there, it was made.
            Err(StoreError::Unknown(_)) => Ok(self.read().await?.is_some_and(|found| found.op == next.op)),
            Err(error) => Err(self.away(&error)),
        }
    }

    fn resealed(&self, record: &Record) -> Result<Option<Record>, Error> {
        let first = self.keys.load().sealing_key();
        let is_old = |published: &Published| key_of(&published.sealed) != Some(first);
        if ![&record.current, &record.next].into_iter().flatten().any(is_old) {
            return Ok(None);
        }
        let anew =
            |published: &Option<Published>| published.as_ref().map(|published| self.seal_anew(published)).transpose();
        Ok(operator::resealed(self.context(), record, anew(&record.current)?, anew(&record.next)?))
    }

    fn seal_anew(&self, published: &Published) -> Result<Vec<u8>, Error> {
        let context = SealContext { name: &self.cell.name, generation: published.generation };
        let refuse = |text: String| Error::new(ErrorKind::SealKeyMissing, format!("`{}`: {text}", self.cell.name));
        let keys = self.keys.load();
        let crypto = self.inner.crypto.as_ref();
        let plain = keys.open(crypto, context, &published.sealed).map_err(|error| refuse(error.to_string()))?;
        let mut nonce = [0; 24];
        self.inner.host.fill(&mut nonce);
        keys.seal(crypto, &nonce, context, plain.expose()).map_err(|error| refuse(error.to_string()))
    }
}
