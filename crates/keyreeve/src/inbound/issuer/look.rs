//! Looks: reads what the fleet shares about an issuer, and does what the core says.

use std::sync::{Arc, PoisonError, Weak};

use async_trait::async_trait;
use futures::future::{Either, select};
use keyreeve_core::id::WriteId;
use keyreeve_core::issuer::{self, Context, KeySet as Record, NewKey, Plan, Step};
use keyreeve_core::jwt::Algorithm;
use keyreeve_core::revoked::{Revoked, TokenDigest};
use keyreeve_core::seal::{SealedKey, key_of};
use keyreeve_core::time::{Moment, Mono, Span};

use super::cell::Cell;
use super::{Inner, LOOK_GAP_MS};
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::jwt::{KeySet, Keys, Unavailable};
use crate::port::{Entry, Key, StoreError, Swap, fresh_write_id};

/// A look makes at most so many writes; what is left is for the next one.
const WRITES_MAX: usize = 4;

/// Looks every `poll`, and when somebody wishes it, for as long as the driver lives.
pub(super) async fn follow(inner: Weak<Inner>, cell: Arc<Cell>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        if cell.is_stopped() {
            return;
        }
        let began = strong.host.now().mono;
        let result = look(&strong, &cell).await;
        note(&cell, began, result);
        // Whoever asks from here on needs another look.
        cell.looked.send_replace(began.0.max(1));
        let host = Arc::clone(&strong.host);
        drop(strong);
        let poll_ms = cell.config.poll_ms;
        let wished = Box::pin(cell.wish.notified());
        if let Either::Left(_) = select(wished, host.sleep_until(began.plus(poll_ms))).await {
            host.sleep_until(began.plus(poll_ms.min(LOOK_GAP_MS))).await;
        }
    }
}

/// Waits for the end of a look that begins after this call; not for ever.
pub(super) async fn again(inner: &Inner, cell: &Cell) {
    let asked_at = inner.host.now().mono;
    let mut looked = cell.looked.subscribe();
    cell.wish.notify_one();
    let ended = Box::pin(async move {
        // The sender lives in the cell, which this borrows.
        let _ = looked.wait_for(|began| *began > asked_at.0).await;
    });
    let most_ms = inner.store_ms.saturating_mul(2).saturating_add(LOOK_GAP_MS.saturating_mul(2));
    let _ = select(ended, inner.host.sleep_until(asked_at.plus(most_ms))).await;
}

/// Says once that looks fail, and once that they do no longer.
fn note(cell: &Cell, began: Mono, result: Result<(), String>) {
    let mut fault = cell.fault.lock().unwrap_or_else(PoisonError::into_inner);
    match (result, fault.as_mut()) {
        (Ok(()), None) => {}
        (Ok(()), Some(_)) => {
            tracing::info!(issuer = %cell.name, "keys are read again");
            *fault = None;
        }
        (Err(why), None) => {
            tracing::warn!(issuer = %cell.name, "keys cannot be read: {why}");
            *fault = Some((began, why));
        }
        (Err(why), Some((_, last))) => *last = why,
    }
}

/// One look: read, adopt, and write what is due.
async fn look(inner: &Inner, cell: &Cell) -> Result<(), String> {
    for _ in 0..=WRITES_MAX {
        let asked_at = inner.host.now().mono;
        // What is held is only as fresh as both records are.
        inner.read_revoked(cell, asked_at).await.map_err(|error| error.to_string())?;
        let record = inner.read(cell, asked_at).await.map_err(|error| error.to_string())?;
        let write = inner.due(cell, record.as_ref()).await?;
        let Some((expected, next)) = write else { return Ok(()) };
        match inner.write(cell, expected, next).await {
            // Done, or somebody was faster: there may be more to do.
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

impl Inner {
    pub(super) fn context<'a>(&'a self, cell: &'a Cell) -> Context<'a> {
        let (now, fresh) = (self.host.now(), fresh_write_id(self.host.as_ref()));
        Context { rules: &cell.config.rules, me: &self.node, now, fresh }
    }

    /// What is due, as a write.
    async fn due(&self, cell: &Cell, record: Option<&Record>) -> Result<Option<(Option<WriteId>, Record)>, String> {
        let ctx = self.context(cell);
        let step = issuer::step(ctx, record, &cell.lock_seen());
        match (step, record) {
            (Step::Make(plan), _) => self.finish(cell, *plan).await.map(Some),
            (Step::Write(next), record) => Ok(Some((record.map(|record| record.op), *next))),
            (Step::Rest, Some(record)) => {
                let next = self.resealed(cell, ctx, record)?;
                Ok(next.map(|next| (Some(record.op), next)))
            }
            (Step::Rest, None) => Ok(None),
        }
    }

    /// Generates the key that a plan lacks.
    pub(super) async fn finish(&self, cell: &Cell, plan: Plan) -> Result<(Option<WriteId>, Record), String> {
        let algorithm = Algorithm::named(&plan.algorithm).ok_or("an algorithm that this keyreeve does not know")?;
        let made = self.maker.make(algorithm).await?;
        let thumbprint = made.public.thumbprint(self.crypto.as_ref());
        let short = hex::encode(thumbprint.0.first_chunk::<6>().unwrap_or(&[0; 6]));
        // People read the number, and a store that forgot a write cannot bring the same id twice.
        let kid = format!("k{}-{short}", plan.serial);
        let public = made.public.to_jwk(Some(&kid), algorithm).ok_or("a secret cannot be published")?;
        let sealed = self.seal(cell, &kid, made.private.expose())?;
        let expected = plan.expected;
        let next = plan.with(NewKey { kid, public, sealed })?;
        Ok((expected, next))
    }

    fn seal(&self, cell: &Cell, kid: &str, private: &[u8]) -> Result<Vec<u8>, String> {
        let mut nonce = [0; 24];
        self.host.fill(&mut nonce);
        let context = SealedKey { issuer: &cell.name, kid };
        let keys = self.keys.load();
        keys.seal(self.crypto.as_ref(), &nonce, context, private).map_err(|error| error.to_string())
    }

    /// The record with what another seal key sealed sealed anew; what cannot be opened stays as it is.
    fn resealed(&self, cell: &Cell, ctx: Context<'_>, record: &Record) -> Result<Option<Record>, String> {
        let keys = self.keys.load();
        let first = Some(keys.sealing_key());
        let mut anew = Vec::new();
        for key in &record.keys {
            let Some(sealed) = key.sealed.as_ref().filter(|sealed| key_of(sealed) != first) else { continue };
            let context = SealedKey { issuer: &cell.name, kid: &key.kid };
            if let Ok(private) = keys.open(self.crypto.as_ref(), context, sealed) {
                anew.push((key.kid.clone(), self.seal(cell, &key.kid, private.expose())?));
            }
        }
        Ok((!anew.is_empty()).then(|| issuer::resealed(ctx, record, anew)))
    }

    /// Reads the record and adopts it.
    pub(super) async fn read(&self, cell: &Cell, asked_at: Mono) -> Result<Option<Record>, Error> {
        let Some(entry) = self.entry(cell, &cell.key).await? else { return Ok(None) };
        let record = Record::decode(&entry.bytes).map_err(|error| refused(cell, &error.to_string()))?;
        cell.adopt(self, record.clone(), asked_at);
        Ok(Some(record))
    }

    /// Writes a record and adopts it. True where it was written, false where somebody was faster.
    pub(super) async fn write(&self, cell: &Cell, expected: Option<WriteId>, next: Record) -> Result<bool, Error> {
        let asked_at = self.host.now().mono;
        let entry = Entry { op: next.op, bytes: next.encode().into() };
        match self.within(self.register.swap(&cell.key, expected, entry)).await {
            Ok(Swap::Done) => {
                tell(cell, &next);
                cell.adopt(self, next, asked_at);
                Ok(true)
            }
            Ok(Swap::Lost) => Ok(false),
            // The record tells: if the write is there, it was made.
            Err(StoreError::Unknown(_)) => {
                let found = self.read(cell, self.host.now().mono).await?;
                Ok(found.is_some_and(|found| found.op == next.op))
            }
            Err(error) => Err(away(cell, &error)),
        }
    }

    pub(super) async fn read_revoked(&self, cell: &Cell, asked_at: Mono) -> Result<Option<Revoked>, Error> {
        let Some(entry) = self.entry(cell, &cell.revoked_key).await? else {
            cell.adopt_revoked(None, asked_at);
            return Ok(None);
        };
        let revoked = Revoked::decode(&entry.bytes).map_err(|error| refused(cell, &error.to_string()))?;
        cell.adopt_revoked(Some(revoked.clone()), asked_at);
        Ok(Some(revoked))
    }

    pub(super) async fn entry(&self, cell: &Cell, key: &Key) -> Result<Option<Entry>, Error> {
        self.within(self.register.read(key)).await.map_err(|error| away(cell, &error))
    }

    /// Waits for a store call, but not for ever.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let until = self.host.now().mono.plus(self.store_ms);
        match select(Box::pin(call), self.host.sleep_until(until)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(StoreError::Unknown(format!("no answer within {}", Span(self.store_ms)))),
        }
    }

    pub(super) fn token_digest(&self, jti: &str) -> TokenDigest {
        let digest = self.crypto.sha256(&[b"keyreeve revoked v1\0", jti.as_bytes()]);
        TokenDigest(*digest.first_chunk::<16>().unwrap_or(&[0; 16]))
    }
}

fn away(cell: &Cell, error: &StoreError) -> Error {
    Error::new(ErrorKind::StoreUnavailable, format!("issuer `{}`: {error}", cell.name)).after(cell.config.poll_ms)
}

fn refused(cell: &Cell, why: &str) -> Error {
    Error::new(ErrorKind::RecordRefused, format!("issuer `{}`: {why}", cell.name))
}

/// Says in the log what this node has just written.
fn tell(cell: &Cell, next: &Record) {
    let written = next.notes.iter().filter(|note| note.at == next.written_at);
    for note in written {
        let kind = note.kind.as_str();
        metrics::counter!("keyreeve_issuer_keys_total", "issuer" => cell.name.as_str().to_owned(), "what" => kind)
            .increment(1);
        tracing::info!(issuer = %cell.name, kid = note.kid, rev = next.rev, "key {kind}: {}", note.detail);
    }
}

/// The keys of one issuer for whoever verifies.
pub(super) struct Followed {
    pub(super) inner: Arc<Inner>,
    pub(super) cell: Arc<Cell>,
}

impl Followed {
    fn now(&self) -> Moment {
        self.inner.host.now()
    }
}

#[async_trait]
impl Keys for Followed {
    fn known(&self) -> Option<Arc<KeySet>> {
        self.cell.known(self.now())
    }

    fn epoch(&self) -> u64 {
        self.cell.epoch(self.now().mono)
    }

    async fn look(&self, _: Option<&str>) -> Result<Arc<KeySet>, Unavailable> {
        again(&self.inner, &self.cell).await;
        let now = self.now();
        self.cell.known(now).ok_or_else(|| {
            let error = self.cell.ready(now).err().map(|error| error.message);
            Unavailable(error.unwrap_or_else(|| "the keys are too old".to_owned()))
        })
    }
}
