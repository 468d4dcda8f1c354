//! What people do to tokens: make, roll, duplicate, take back. Each is one line in the audit log.

use keyreeve_core::id::WriteId;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Span, Timestamp};
use keyreeve_core::token::hash::{legacy_id, legacy_token, target_digest};
use keyreeve_core::token::record::alias_fault;
use keyreeve_core::token::text::{hv2, native};
use keyreeve_core::token::{
    Bound, Format, Record, Revocation as Taken, Rolled, State, TARGET_BYTES_MAX, TokenId, is_target,
};

use super::imported::published;
use super::look::FRESH_MS;
use super::{Access, Inner, Made, New, Tokens, credentials};
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::port::{Entry, Key, Swap, fresh_write_id};
use crate::revocation::{Lifetime, Revocation, What};

/// How often a change that somebody else was faster than is made anew.
const TRIES_MAX: usize = 8;
/// The longest grace, in milliseconds.
const GRACE_MS_MAX: u64 = 90 * 24 * 3_600_000;

/// A new token.
struct Spelt {
    id: TokenId,
    text: Secret<String>,
    /// What of it is hashed.
    secret: Secret<Vec<u8>>,
}

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
    /// [`ErrorKind::Unacceptable`] where something about it is not acceptable, and why; [`ErrorKind::Conflict`] where its
    /// target has just been dropped; [`ErrorKind::StoreUnavailable`].
    pub async fn create(&self, new: New, by: &str) -> Result<Made, Error> {
        let made = self.make(new, None, by).await?;
        audit(by, "token.create", &made.record);
        Ok(made)
    }

    /// A token as `id` is, with another secret: of the same target, scope and length of life.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`ErrorKind::NotFound`].
    pub async fn duplicate(&self, id: TokenId, alias: Option<String>, by: &str) -> Result<Made, Error> {
        let record = self.own(id).await?;
        let mut new = self.like(&record);
        new.alias = alias.unwrap_or(new.alias);
        let made = self.make(new, Some(id), by).await?;
        audit(by, "token.duplicate", &made.record);
        Ok(made)
    }

    /// Makes a token that takes the place of `id`, which goes on for `grace_ms`, or as long as the family says. With no grace it
    /// is revoked.
    ///
    /// # Errors
    /// As [`create`](Self::create), [`ErrorKind::NotFound`], and [`ErrorKind::Conflict`] where it has a successor already, or is
    /// over. Where the old token could not be changed the new one is taken back.
    pub async fn roll(&self, id: TokenId, grace_ms: Option<u64>, by: &str) -> Result<Made, Error> {
        let grace_ms = grace_ms.unwrap_or(self.family.config.grace_ms);
        if grace_ms != 0 && !(FRESH_MS..=GRACE_MS_MAX).contains(&grace_ms) {
            let (least, most) = (Span(FRESH_MS), Span(GRACE_MS_MAX));
            let text = format!("`grace` must be `0s`, or {least} to {most}, not {}", Span(grace_ms));
            return Err(Error::new(ErrorKind::Unacceptable, text));
        }
        let old = self.own(id).await?;
        can_be_rolled(&old, self.inner.host.now().latest())?;
        let made = self.make(self.like(&old), Some(id), by).await?;
        let to = made.record.id;
        let rolled = self.inner.changed(&self.family.name, id, |record, now| {
            // Written already, by a try whose answer was lost.
            if record.rolled.is_some_and(|rolled| rolled.to == to) {
                return Ok(());
            }
            can_be_rolled(record, now)?;
            record.rolled = Some(Rolled { to, ends_at: now.plus(grace_ms) });
            Ok(())
        });
        let rolled = match rolled.await {
            Ok(rolled) => rolled,
            Err(error) => {
                // Nobody has seen it, so nothing hangs on whether this succeeds.
                let _ = self.revoke(to, by).await;
                return Err(error);
            }
        };
        audit(by, "token.roll", &rolled);
        if grace_ms == 0
            && let Err(error) = self.revoke(id, by).await
        {
            // It is over by its record, and the text of its successor is nowhere but in this answer.
            tracing::error!(%id, "a rolled token may go on for a minute where it was seen: {error}");
        }
        Ok(made)
    }

    /// Takes a token back: refused here at once, on every other node as soon as it hears of it. One that is revoked already
    /// stays so, and nodes are told again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::StoreUnavailable`], after which it may be revoked or not: ask again.
    pub async fn revoke(&self, id: TokenId, by: &str) -> Result<Record, Error> {
        let (inner, family) = (&self.inner, &self.family);
        let taken = inner.changed(&family.name, id, |record, at| {
            record.revoked.get_or_insert_with(|| Taken { at, by: by.to_owned() });
            Ok(())
        });
        let record = taken.await?;
        audit(by, "token.revoke", &record);
        let name = id.to_string();
        let what = What::Token { tenant: &family.name, id: &name };
        inner
            .revocations
            .revoke(Revocation { what, issued_by: None, lifetime: Lifetime::Told, label: None }, by)
            .await?;
        // Others read these. Last, because our own nodes do not.
        if let Some(imported) = family.imported.as_ref().filter(|_| record.format != Format::Native) {
            let id = (record.format == Format::Hv2).then_some(id);
            let removed = imported.remove(&record.target, id).await;
            removed.map_err(|error| Error::new(ErrorKind::StoreUnavailable, error.to_string()).after(1000))?;
        }
        Ok(record)
    }

    /// A token of this family.
    async fn own(&self, id: TokenId) -> Result<Record, Error> {
        let record = self.inner.record(id).await?.filter(|record| record.family == self.family.name);
        record.ok_or_else(|| no_such(id))
    }

    /// What makes a token like this one.
    fn like(&self, record: &Record) -> New {
        let life_ms = record.expires_at.map(|end| end.since(record.created_at));
        let most = self.family.config.life_ms;
        New {
            target: record.target.clone(),
            alias: record.alias.clone(),
            scope: record.scope.clone(),
            life_ms: life_ms.map(|life_ms| most.map_or(life_ms, |most| life_ms.min(most))),
            // The successor of a legacy token is none: a target has one.
            format: None,
        }
    }

    async fn make(&self, new: New, copied_from: Option<TokenId>, by: &str) -> Result<Made, Error> {
        let (inner, family) = (&self.inner, &self.family);
        let life_ms = self.check_new(&new)?;
        let format = new.format.unwrap_or(family.config.format);
        let Spelt { id, text, secret } = match format {
            Format::Legacy => self.computed(&new.target)?,
            Format::Native | Format::Hv2 => self.drawn(format),
        };
        let key = inner.hash_key().await?;
        let bound = Bound { family: &family.name, target: &new.target, id, format };
        let hash = bound.hash(inner.crypto.as_ref(), key.expose(), secret.expose());
        if format == Format::Legacy
            && let Some(record) = self.unfinished(id, &new.target, &hash).await?
        {
            self.publish(&record, &secret).await?;
            return Ok(Made { text, record });
        }
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
        self.not_dropped(&record, by).await?;
        self.publish(&record, &secret).await?;
        Ok(Made { text, record })
    }

    /// A token of random bytes.
    fn drawn(&self, format: Format) -> Spelt {
        let (mut id, mut bytes) = ([0; 16], [0; 32]);
        self.inner.host.fill(&mut id);
        self.inner.host.fill(&mut bytes);
        let (id, bytes) = (TokenId::random(id), Secret::new(bytes));
        let (text, secret) = spelt(format, id, &bytes);
        Spelt { id, text, secret }
    }

    /// The legacy token of a target.
    fn computed(&self, target: &str) -> Result<Spelt, Error> {
        let (crypto, family) = (self.inner.crypto.as_ref(), &self.family);
        let key = family.legacy_key.as_ref().ok_or_else(|| {
            let name = &family.name;
            let text = format!(
                "`token.{name}` makes no legacy tokens\nhint: they are computed from a secret: `legacy = {{ hmac_key = \"env:NAME\" }}`"
            );
            Error::new(ErrorKind::Unacceptable, text)
        })?;
        let text = legacy_token(crypto, key.expose(), target);
        let secret = Secret::new(text.expose().clone().into_bytes());
        Ok(Spelt { id: legacy_id(crypto, &family.name, target), text, secret })
    }

    /// The record of a legacy token whose making was cut short; none where there is no token yet.
    async fn unfinished(&self, id: TokenId, target: &str, hash: &[u8; 32]) -> Result<Option<Record>, Error> {
        let conflict = |why: &str| {
            let text =
                format!("the one legacy token of `{target}` {why}\nhint: leave `format` out, and make another token");
            Err(Error::new(ErrorKind::Conflict, text))
        };
        let away = |error: super::Unavailable| Error::new(ErrorKind::StoreUnavailable, error.to_string()).after(1000);
        let record = self.inner.record(id).await?;
        let is_published = match &self.family.imported {
            Some(imported) => imported.hash(target, None).await.map_err(away)?.is_some(),
            None => record.is_some(),
        };
        match record {
            Some(record) if record.state(self.inner.host.now().latest()) != State::Active => {
                conflict("is over, and would have the same text again")
            }
            Some(record) if record.import.is_none() && record.hash == Some(*hash) && !is_published => Ok(Some(record)),
            Some(_) => conflict("is there already"),
            None if is_published => conflict("was made elsewhere, and is good as it is"),
            None => Ok(None),
        }
    }

    /// Sees to it that no token of a target outlives the target: whoever drops it has either found this record, or is found in
    /// the log here.
    async fn not_dropped(&self, record: &Record, by: &str) -> Result<(), Error> {
        let revocations = &self.inner.revocations;
        revocations.catch_up().await?;
        let name = record.id.to_string();
        let created = credentials(&record.family, &record.target, &name, record.created_at);
        if revocations.is_revoked(&created).is_none() {
            return Ok(());
        }
        let _ = self.revoke(record.id, by).await;
        let skew_ms = revocations.config().skew_ms;
        let text = format!(
            "the tokens of `{}` have just been taken back, and so are new ones for {}\nhint: try again after that",
            record.target,
            Span(skew_ms)
        );
        Err(Error::new(ErrorKind::Conflict, text).after(skew_ms))
    }

    /// Puts the hash where those find it who go by bcrypt.
    async fn publish(&self, record: &Record, secret: &Secret<Vec<u8>>) -> Result<(), Error> {
        let Some(imported) = self.family.imported.as_ref().filter(|_| record.format != Format::Native) else {
            return Ok(());
        };
        let away = |cause: String| Error::new(ErrorKind::StoreUnavailable, cause).after(1000);
        let mut salt = [0; 16];
        self.inner.host.fill(&mut salt);
        let hash = published(&self.inner.bcrypt, secret, salt).await.map_err(|busy| away(busy.to_string()))?;
        imported
            .put(&record.target, (record.format == Format::Hv2).then_some(record.id), &hash)
            .await
            .map_err(|error| away(error.to_string()))
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
            (Some(0), _) => refuse("`life` must be more than nothing".to_owned()),
            (Some(asked), Some(most)) if asked > most => {
                refuse(format!("`life` must be at most {}, as `token.{}.life` says", Span(most), self.family.name))
            }
            (asked, most) => Ok(asked.or(most)),
        }
    }
}

/// A token's text, and the part of it that is hashed.
fn spelt(format: Format, id: TokenId, bytes: &Secret<[u8; 32]>) -> (Secret<String>, Secret<Vec<u8>>) {
    if format == Format::Hv2 {
        // As long as Hive's may be: 160 bits.
        let digits = hex::encode(bytes.expose().first_chunk::<20>().unwrap_or(&[0; 20]));
        return (hv2(id, &digits), Secret::new(digits.into_bytes()));
    }
    (native(id, bytes.expose()), Secret::new(bytes.expose().to_vec()))
}

fn can_be_rolled(record: &Record, now: Timestamp) -> Result<(), Error> {
    let why = match (record.state(now), record.rolled) {
        (State::Revoked, _) => "it was revoked".to_owned(),
        (State::Expired, _) => "it has expired".to_owned(),
        (_, Some(rolled)) => format!("`{}` has taken its place already", rolled.to),
        _ => return Ok(()),
    };
    let text = format!("`{}` cannot be rolled: {why}\nhint: `duplicate` makes another token like it", record.id);
    Err(Error::new(ErrorKind::Conflict, text))
}

impl Inner {
    pub(super) fn target_digest(&self, family: &str, target: &str) -> String {
        hex::encode(&target_digest(self.crypto.as_ref(), family, target))
    }

    /// Writes the record of a new token: first its place in the list, so that there is none that no list has.
    pub(super) async fn put_new(&self, record: &Record) -> Result<(), Error> {
        let digits = record.id.digits();
        let place = Key::of_place(&self.target_digest(&record.family, &record.target), record.created_at, &digits);
        let op = fresh_write_id(self.host.as_ref());
        // Its key says everything.
        let entry = Entry { op, bytes: bytes::Bytes::from_static(&[1]) };
        if self.swap(&place, None, entry).await?.is_none() && self.read(&place).await?.is_none() {
            return Err(busy());
        }
        let key = Key::of_token(&digits);
        let entry = Entry { op: record.op, bytes: record.encode().into() };
        if self.swap(&key, None, entry).await? == Some(Swap::Done) {
            return Ok(());
        }
        // No answer came, or somebody else wrote it, as may be where it is imported.
        let is_ours = self.read(&key).await?.is_some_and(|found| found.op == record.op);
        if is_ours { Ok(()) } else { Err(busy()) }
    }

    /// Puts a record over the one that `base` wrote. One that somebody else has put there stays.
    pub(super) async fn replace(&self, next: &Record, base: WriteId) -> Result<(), Error> {
        let entry = Entry { op: next.op, bytes: next.encode().into() };
        self.swap(&Key::of_token(&next.id.digits()), Some(base), entry).await.map(drop)
    }

    /// Changes the record of a token of this family. `change` is asked again where somebody else was faster.
    pub(super) async fn changed(
        &self,
        family: &str,
        id: TokenId,
        change: impl Fn(&mut Record, Timestamp) -> Result<(), Error> + Send + Sync,
    ) -> Result<Record, Error> {
        let key = Key::of_token(&id.digits());
        for _ in 0..TRIES_MAX {
            let record = self.record(id).await?.filter(|record| record.family == family);
            let record = record.ok_or_else(|| no_such(id))?;
            let now = self.host.now();
            let mut next = record.clone();
            change(&mut next, now.wall)?;
            if next == record {
                return Ok(record);
            }
            let next = next.following(fresh_write_id(self.host.as_ref()), now);
            let entry = Entry { op: next.op, bytes: next.encode().into() };
            if self.swap(&key, Some(record.op), entry).await? == Some(Swap::Done) {
                return Ok(next);
            }
        }
        Err(busy())
    }
}

/// One line for whoever has to know later who did what. Never a secret.
fn audit(who: &str, what: &str, record: &Record) {
    tracing::info!(
        target: "audit", who, what, id = %record.id, family = record.family, of = record.target, alias = record.alias,
        "token"
    );
}

pub(super) fn no_such(id: TokenId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no token `{id}`"))
}

fn busy() -> Error {
    let text = "access tokens: the store did not say what became of a change";
    Error::new(ErrorKind::StoreUnavailable, text).after(1000)
}
