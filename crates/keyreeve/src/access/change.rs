//! What people do to tokens: make, look at, take back. Each is one line in the audit log.

use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Span, Timestamp};
use keyreeve_core::token::hash::target_digest;
use keyreeve_core::token::record::alias_fault;
use keyreeve_core::token::{
    Bound, Format, Record, Revocation, TARGET_BYTES_MAX, TokenId, is_target, native,
};

use super::{Access, Inner, Made, New, Tokens};
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::port::{Entry, Key, Swap, fresh_write_id};

/// How often a change that somebody else was faster than is made anew.
const TRIES_MAX: usize = 8;

impl Tokens {
    /// A token by its id, with its family.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none, also where its family is no longer in the configuration;
    /// [`ErrorKind::StoreUnavailable`].
    pub async fn find(&self, id: TokenId) -> Result<(Access, Record), Error> {
        let record = self.inner.record(id).await?.ok_or_else(|| no_such(id))?;
        let access = self.family(&record.family).ok_or_else(|| no_such(id))?;
        Ok((access, record))
    }
}

impl Access {
    /// Makes a token. Its text is in the answer and nowhere else, so that an answer that is lost is a token that nobody has.
    ///
    /// # Errors
    /// [`ErrorKind::Unacceptable`] where something about it is not acceptable, and why; [`ErrorKind::StoreUnavailable`].
    pub async fn create(&self, new: New, by: &str) -> Result<Made, Error> {
        let made = self.make(new, None, by).await?;
        let (id, record) = (made.record.id, &made.record);
        audit(by, "token.create", record);
        tracing::debug!(token = %id, "made");
        Ok(made)
    }

    /// Takes a token back: refused here at once, elsewhere as soon as nodes hear of it. One that is revoked already stays so.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::StoreUnavailable`], after which it may be revoked or not: ask again.
    pub async fn revoke(&self, id: TokenId, by: &str) -> Result<Record, Error> {
        let inner = &self.inner;
        let record = inner
            .changed(self, id, |record, now| {
                let revoked = || Revocation { at: now, by: by.to_owned() };
                if record.revoked.is_none() {
                    record.revoked = Some(revoked());
                }
                Ok(())
            })
            .await?;
        inner.held.void_all();
        audit(by, "token.revoke", &record);
        Ok(record)
    }

    pub(super) async fn make(&self, new: New, copied_from: Option<TokenId>, by: &str) -> Result<Made, Error> {
        let (inner, family) = (&self.inner, &self.family);
        let life_ms = self.check_new(&new)?;
        let (mut id, mut secret) = ([0; 16], [0; 32]);
        inner.host.fill(&mut id);
        inner.host.fill(&mut secret);
        let (id, secret) = (TokenId::random(id), Secret::new(secret));
        let key = inner.hash_key().await?;
        let format = Format::Native;
        let bound = Bound { family: &family.name, target: &new.target, id, format };
        let hash = bound.hash(inner.crypto.as_ref(), key.expose(), secret.expose());
        let now = inner.host.now();
        let record = Record {
            op: fresh_write_id(inner.host.as_ref()),
            rev: 1,
            written_at: now.wall,
            id,
            family: family.name.clone(),
            target: new.target,
            alias: new.alias,
            format,
            hash: Some(hash),
            scope: new.scope,
            created_at: now.wall,
            created_by: by.to_owned(),
            expires_at: life_ms.map(|life_ms| now.wall.plus(life_ms)),
            rolled: None,
            revoked: None,
            used: None,
            import: None,
            copied_from,
        };
        inner.put_new(&record).await?;
        Ok(Made { text: native(id, secret.expose()), record })
    }

    /// What is wrong with what was asked for, or how long it lives.
    fn check_new(&self, new: &New) -> Result<Option<u64>, Error> {
        let refuse = |text: String| Err(Error::new(ErrorKind::Unacceptable, text));
        if !is_target(&new.target) {
            return refuse(format!(
                "`target` must be 1 to {TARGET_BYTES_MAX} characters of A-Z, a-z, 0-9, `.`, `_` and `-`, and not only dots"
            ));
        }
        if let Some(fault) = alias_fault(&new.alias) {
            return refuse(format!("`alias` {fault}"));
        }
        if let Err(error) = new.scope.compile() {
            return refuse(format!("`scope`: {error}"));
        }
        match (new.life_ms, self.family.config.life_ms) {
            (Some(asked), Some(most)) if asked > most => {
                let text = format!("`life` must be at most {}, as `token.{}.life` says", Span(most), self.family.name);
                refuse(text)
            }
            (Some(0), _) => refuse("`life` must be more than nothing".to_owned()),
            (asked, most) => Ok(asked.or(most)),
        }
    }
}

impl Inner {
    pub(super) fn target_digest(&self, family: &str, target: &str) -> String {
        hex::encode(&target_digest(self.crypto.as_ref(), family, target))
    }

    /// Writes the record of a new token: first its place in the list, so that there is none that no list has.
    async fn put_new(&self, record: &Record) -> Result<(), Error> {
        let digits = record.id.digits();
        let place = Key::of_place(&self.target_digest(&record.family, &record.target), record.created_at, &digits);
        let op = fresh_write_id(self.host.as_ref());
        // A random id: nobody else writes under these keys, and what is unknown is read again below.
        self.swap(&place, None, Entry { op, bytes: bytes::Bytes::from_static(&[1]) }).await?;
        let key = Key::of_token(&digits);
        let entry = Entry { op: record.op, bytes: record.encode().into() };
        for _ in 0..TRIES_MAX {
            if self.swap(&key, None, entry.clone()).await? == Some(Swap::Done) {
                return Ok(());
            }
            if self.read(&key).await?.is_some_and(|found| found.op == record.op) {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// Changes the record of a token. `change` is asked again where somebody else was faster.
    pub(super) async fn changed(
        &self,
        access: &Access,
        id: TokenId,
        change: impl Fn(&mut Record, Timestamp) -> Result<(), Error>,
    ) -> Result<Record, Error> {
        let key = Key::of_token(&id.digits());
        for _ in 0..TRIES_MAX {
            let record = self.record(id).await?.filter(|record| record.family == access.family.name);
            let record = record.ok_or_else(|| no_such(id))?;
            let now = self.host.now();
            let mut next = record.following(fresh_write_id(self.host.as_ref()), now);
            change(&mut next, now.wall)?;
            if (Record { op: record.op, rev: record.rev, written_at: record.written_at, ..next.clone() }) == record {
                return Ok(record);
            }
            let entry = Entry { op: next.op, bytes: next.encode().into() };
            if self.swap(&key, Some(record.op), entry).await? == Some(Swap::Done) {
                return Ok(next);
            }
        }
        Err(busy())
    }
}

/// One line for whoever has to know later who did what. Never a secret.
pub(super) fn audit(who: &str, what: &str, record: &Record) {
    tracing::info!(
        target: "audit", who, what, id = %record.id, family = record.family, of = record.target, alias = record.alias
    );
}

pub(super) fn no_such(id: TokenId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no token `{id}`"))
}

fn busy() -> Error {
    Error::new(ErrorKind::StoreUnavailable, "the store did not say what became of the change: look, and try again").after(1000)
}
