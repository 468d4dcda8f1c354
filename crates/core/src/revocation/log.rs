//! The log: its writes, its stored form, and whether a token is in it.
//!
//! Stored form: as [`record`](crate::record) has it, one byte for the layout (1), then a CBOR map.

use minicbor::{Decode, Encode};

use super::what::{Credentials, Kind, Mark, Scope, What};
use crate::crypto::Crypto;
use crate::id::WriteId;
use crate::record::{RECORD_BYTES_MAX, RecordError, read, stored};
use crate::time::{Moment, Timestamp};

const LAYOUT: u8 = 1;
/// The most entries. Opaque tokens make room for others, since their own records say the same.
pub const ENTRIES_MAX: usize = 1800;
/// The largest stored log, in bytes.
pub const LOG_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// The most issuers that a compacted log knows moments for.
const CUTS_MAX: usize = 256;
/// The longest label, in bytes.
const LABEL_BYTES_MAX: usize = 600;
/// An entry that is told by the token's own record too is kept for so long, in milliseconds, so that nodes need not look at
/// every token again.
const TOLD_MS: u64 = 10 * 60_000;
/// An entry is dropped so long after it is over, in milliseconds: clocks differ.
pub(super) const GRACE_MS: u64 = 60_000;
/// So many entries that are over are worth a write that only drops them.
const WORTH: usize = 64;

/// Everything that is revoked and could still be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Log {
    /// The write that made this log; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// Grows with each write.
    #[n(1)]
    pub epoch: u64,
    /// A verdict on an opaque token that is older than this epoch says nothing: what it lacks may have been dropped.
    #[n(2)]
    pub floor: u64,
    /// When it was written, by the writer's clock, but later than the log before it.
    #[n(3)]
    pub written_at: Timestamp,
    /// When it was last noticed that the store had forgotten revocations that nobody could bring back; 1970 for never.
    #[n(4)]
    pub lost_at: Timestamp,
    /// Up to which such moment an operator has answered.
    #[n(5)]
    pub answered_at: Timestamp,
    /// What became of entries that were dropped although a token may outlive them: the JWTs of an issuer that were issued up
    /// to this are all refused. Sorted.
    #[n(6)]
    pub(super) cuts: Vec<Cut>,
    /// Sorted by kind and mark, which are there once.
    #[n(7)]
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(super) struct Cut {
    #[n(0)]
    pub(super) scope: Scope,
    #[n(1)]
    pub(super) issued_by: Timestamp,
}

/// One thing that is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// Its kind.
    #[n(0)]
    pub kind: Kind,
    /// What it names.
    #[n(1)]
    pub mark: Mark,
    /// Its issuer or tenant.
    #[n(2)]
    pub scope: Scope,
    /// The epoch of the write that brought it, or made it say more.
    #[n(3)]
    pub epoch: u64,
    /// When that was, by the writer's clock.
    #[n(4)]
    pub at: Timestamp,
    /// Tokens issued later than this are not meant; a kind that names one thing whole does not look at it.
    #[n(5)]
    pub issued_by: Timestamp,
    /// When nobody accepts such a token any more, revoked or not.
    #[n(6)]
    pub until: Timestamp,
    /// Whether `until` is known, not assumed. Of opaque tokens: whether their own records say it too, as far as is known.
    #[n(7)]
    pub is_exact: bool,
    /// Up to which `issued_by` whatever had to follow has been done; as late as can be where nothing has to.
    #[n(8)]
    pub settled: Option<Timestamp>,
    /// What it names, in words, where somebody has to go on with it.
    #[n(9)]
    pub label: Option<String>,
}

/// How long an entry has to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nobody accepts such a token later than this.
    Known(Timestamp),
    /// No token is thought to live longer than this. When the entry is dropped, JWTs as old as it are all refused.
    Assumed(Timestamp),
    /// The tokens' own records say it too, and this only tells the nodes.
    Told,
    /// The tokens' own records will say it once this is settled.
    Settled,
    /// For good.
    Never,
}

/// A revocation, as it is to be written down.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// What.
    pub what: What<'a>,
    /// Tokens issued later than this are not meant.
    pub issued_by: Timestamp,
    /// For how long.
    pub until: Until,
    /// What it names, in words, for whoever has to go on with it.
    pub label: Option<&'a str>,
}

/// No room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{ENTRIES_MAX} revocations are in force, the most there can be\nhint: revoke more at once: a key id, or everything that was issued before a moment, takes one"
)]
pub struct Full;

impl Entry {
    fn of(crypto: &dyn Crypto, order: &Order<'_>, epoch: u64, at: Timestamp) -> Self {
        let forever = Timestamp(u64::MAX);
        let (until, is_exact, settled) = match order.until {
            Until::Known(until) => (until, true, None),
            Until::Assumed(until) => (until, false, None),
            Until::Told => (at.plus(TOLD_MS), true, None),
            Until::Settled => (at, true, Some(Timestamp(0))),
            Until::Never => (forever, true, None),
        };
        let label = order.label.filter(|label| label.len() <= LABEL_BYTES_MAX).map(str::to_owned);
        let (kind, mark, scope) = (order.what.kind(), order.what.mark(crypto), order.what.scope(crypto));
        Self { kind, mark, scope, epoch, at, issued_by: order.issued_by, until, is_exact, settled, label }
    }

    /// Whether something is still to be done about it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.settled.is_some_and(|settled| settled < self.issued_by)
    }

    /// Whether the token's own record says the same.
    pub(super) const fn is_told(&self) -> bool {
        matches!(self.kind, Kind::Token | Kind::Target) && self.is_exact
    }

    /// The entry where nothing else says the same any more.
    pub(super) fn remembered(self) -> Self {
        Self { is_exact: false, until: Timestamp(u64::MAX), ..self }
    }

    /// Whether it can be dropped.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        !self.is_open() && self.until != Timestamp(u64::MAX) && self.until.plus(GRACE_MS) <= now
    }

    /// Whether it says all that `other`, of the same kind and mark, says.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.issued_by >= other.issued_by
            && self.until >= other.until
            && (!self.is_exact || other.is_exact)
            && self.settled >= other.settled
    }

    /// Whether writing `other` down would refuse nothing more.
    fn says_already(&self, other: &Self) -> bool {
        match self.kind {
            // Told for a while, and then for another while, is no news.
            Kind::Token => true,
            // One token has one end; where it is not known, what follows the entry refuses the token.
            Kind::Jwt => !(self.is_exact && other.is_exact && other.until > self.until),
            _ => self.covers(other),
        }
    }

    /// Both in one. Each field is a maximum, so neither order nor repetition matters.
    pub(super) fn join(&mut self, other: &Self) {
        self.epoch = self.epoch.max(other.epoch);
        self.at = self.at.max(other.at);
        self.issued_by = self.issued_by.max(other.issued_by);
        self.until = self.until.max(other.until);
        // Assumed where either assumed: then more is refused afterwards, not less.
        self.is_exact &= other.is_exact;
        self.settled = self.settled.max(other.settled);
        if self.label < other.label {
            self.label.clone_from(&other.label);
        }
    }

    fn place(&self) -> (Kind, Mark) {
        (self.kind, self.mark)
    }
}

/// The log with one entry more, and without those that are over, and the entry as it stands. The log is `None` where it
/// said so already.
///
/// # Errors
/// [`Full`].
pub fn revoke(
    crypto: &dyn Crypto,
    base: Option<&Log>,
    fresh: WriteId,
    now: Moment,
    order: &Order<'_>,
) -> Result<(Option<Log>, Entry), Full> {
    let mut next = Log::following(base, fresh, now);
    let entry = Entry::of(crypto, order, next.epoch, next.written_at);
    if let Some(known) = base.and_then(|base| base.entry(entry.kind, entry.mark))
        && known.says_already(&entry)
    {
        return Ok((None, known.clone()));
    }
    next.put(entry.clone());
    next.compact(now);
    next.make_room(entry.place())?;
    let entry = next.entry(entry.kind, entry.mark).cloned().unwrap_or(entry);
    Ok((Some(next), entry))
}

/// The log that says that what had to follow a revocation has been done, for tokens made up to `issued_by`. `None` where
/// nothing was open.
#[must_use]
pub fn settle(base: &Log, fresh: WriteId, now: Moment, place: (Kind, Mark), issued_by: Timestamp) -> Option<Log> {
    let open = base.entry(place.0, place.1).filter(|entry| entry.is_open() && entry.settled < Some(issued_by))?;
    let mut next = Log::following(Some(base), fresh, now);
    let settled =
        Entry { settled: Some(issued_by), until: open.until.max(next.written_at.plus(TOLD_MS)), ..open.clone() };
    next.put(settled);
    next.compact(now);
    Some(next)
}

impl Log {
    /// What a store holds that holds nothing.
    pub(super) const fn nothing() -> Self {
        Self {
            op: WriteId([0; 16]),
            epoch: 0,
            floor: 0,
            written_at: Timestamp(0),
            lost_at: Timestamp(0),
            answered_at: Timestamp(0),
            cuts: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// The log that follows `base`, with nothing else changed.
    pub(super) fn following(base: Option<&Self>, op: WriteId, now: Moment) -> Self {
        let base = base.cloned().unwrap_or_else(Self::nothing);
        Self {
            op,
            epoch: base.epoch.saturating_add(1),
            // Hybrid logical clock rule: never at or before the write it follows.
            written_at: now.wall.max(base.written_at.plus(1)),
            ..base
        }
    }

    /// The epoch of the revocation that this token falls under, if it falls under one. A log that was compacted may name a
    /// later one.
    #[must_use]
    pub fn finds(&self, crypto: &dyn Crypto, token: &Credentials<'_>) -> Option<u64> {
        let find = |what: What<'_>, issued_at: Option<Timestamp>| {
            if !self.has(what.kind()) {
                return None;
            }
            let entry = self.entry(what.kind(), what.mark(crypto))?;
            // A token that does not say when it was issued may have been issued before.
            let is_meant = issued_at.is_none_or(|issued_at| issued_at <= entry.issued_by);
            is_meant.then_some(entry.epoch)
        };
        match *token {
            Credentials::Token { tenant, id, target, created_at } => find(What::Token { tenant, id }, None)
                .or_else(|| find(What::Target { tenant, target }, Some(created_at))),
            Credentials::Jwt { issuer, token, subject, kid, issued_at } => find(What::Jwt { issuer, token }, None)
                .or_else(|| find(What::Subject { issuer, subject: subject? }, issued_at))
                .or_else(|| find(What::Key { issuer, kid: kid? }, None))
                .or_else(|| find(What::Issuer { issuer }, issued_at))
                .or_else(|| self.finds_cut(crypto, issuer, issued_at?)),
        }
    }

    /// What compaction left behind. A token that does not say when it was issued is not meant by it: it may be a new one, and
    /// nobody has asked for those of this issuer to be refused.
    fn finds_cut(&self, crypto: &dyn Crypto, issuer: &str, issued_at: Timestamp) -> Option<u64> {
        if self.cuts.is_empty() {
            return None;
        }
        let scope = Scope::of_issuer(crypto, issuer);
        let cut = self.cuts.iter().find(|cut| cut.scope == scope)?;
        (issued_at <= cut.issued_by).then_some(self.epoch)
    }

    /// Whether there are entries of this kind: most logs have few kinds, and a digest costs more than this.
    fn has(&self, kind: Kind) -> bool {
        let at = self.entries.partition_point(|entry| entry.kind < kind);
        self.entries.get(at).is_some_and(|entry| entry.kind == kind)
    }

    /// The entry of this kind and mark.
    #[must_use]
    pub fn entry(&self, kind: Kind, mark: Mark) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(&(kind, mark), Entry::place).ok()?;
        self.entries.get(at)
    }

    /// The entry with this mark, whatever its kind.
    #[must_use]
    pub fn marked(&self, mark: Mark) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.mark == mark)
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Since when revocations are missing that the store forgot, where nobody has answered to that yet.
    #[must_use]
    pub fn lost_since(&self) -> Option<Timestamp> {
        (self.lost_at > self.answered_at).then_some(self.lost_at)
    }

    /// Whether there is enough to be dropped for a write of its own.
    #[must_use]
    pub fn is_worth_compacting(&self, now: Moment) -> bool {
        self.entries.iter().filter(|entry| entry.is_over(now.earliest())).count() >= WORTH
    }

    /// The log without what is over, as a write of its own.
    #[must_use]
    pub fn compacted(&self, fresh: WriteId, now: Moment) -> Self {
        let mut next = Self::following(Some(self), fresh, now);
        next.compact(now);
        next
    }

    /// Adds an entry, or what it says to the one that is there.
    pub(super) fn put(&mut self, entry: Entry) {
        match self.entries.binary_search_by_key(&entry.place(), Entry::place) {
            Ok(at) => {
                if let Some(known) = self.entries.get_mut(at) {
                    known.join(&entry);
                }
            }
            Err(at) => self.entries.insert(at, entry),
        }
    }

    /// Raises the moment up to which all JWTs of an issuer are refused. False where there is no room for one more issuer.
    pub(super) fn cut(&mut self, scope: Scope, issued_by: Timestamp) -> bool {
        match self.cuts.binary_search_by_key(&scope, |cut| cut.scope) {
            Ok(at) => {
                if let Some(cut) = self.cuts.get_mut(at) {
                    cut.issued_by = cut.issued_by.max(issued_by);
                }
                true
            }
            Err(_) if self.cuts.len() >= CUTS_MAX => false,
            Err(at) => {
                self.cuts.insert(at, Cut { scope, issued_by });
                true
            }
        }
    }

    /// Drops what is over. INVARIANT: what it refused and may still be alive is refused by something wider afterwards.
    fn compact(&mut self, now: Moment) {
        let entries = std::mem::take(&mut self.entries);
        let (over, mut kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.is_over(now.earliest()));
        for entry in over {
            if entry.is_told() {
                self.floor = self.floor.max(entry.epoch);
            } else if !entry.is_exact && !self.cut(entry.scope, entry.issued_by) {
                kept.push(entry);
            }
        }
        kept.sort_unstable_by_key(Entry::place);
        self.entries = kept;
    }

    /// Drops entries that records of tokens tell too, the oldest first, until the rest fits. `newest` stays.
    fn make_room(&mut self, newest: (Kind, Mark)) -> Result<(), Full> {
        let mut told: Vec<(u64, (Kind, Mark))> = Vec::new();
        let is_dispensable = |entry: &&Entry| entry.is_told() && !entry.is_open() && entry.place() != newest;
        told.extend(self.entries.iter().filter(is_dispensable).map(|entry| (entry.epoch, entry.place())));
        told.sort_unstable_by(|a, b| b.cmp(a));
        while self.is_too_large() {
            if told.is_empty() {
                return Err(Full);
            }
            // A tenth at a time: writes at the limit should not each pay for it.
            for _ in 0..ENTRIES_MAX / 10 {
                let Some((epoch, place)) = told.pop() else { break };
                self.drop_entry(place);
                self.floor = self.floor.max(epoch);
            }
        }
        Ok(())
    }

    /// Makes the union of two logs fit: where nothing else can go, the oldest JWTs are refused by their age.
    pub(super) fn fit(&mut self) {
        if self.make_room((Kind::Token, Mark([0; 16]))).is_ok() {
            return;
        }
        let mut aged: Vec<(u64, (Kind, Mark), Scope, Timestamp)> = Vec::new();
        let is_aged = |entry: &&Entry| matches!(entry.kind, Kind::Jwt | Kind::Subject);
        let of = |entry: &Entry| (entry.epoch, entry.place(), entry.scope, entry.issued_by);
        aged.extend(self.entries.iter().filter(is_aged).map(of));
        aged.sort_unstable_by(|a, b| b.cmp(a));
        while self.is_too_large() {
            let Some((_, place, scope, issued_by)) = aged.pop() else { return };
            if self.cut(scope, issued_by) {
                self.drop_entry(place);
            }
        }
    }

    fn is_too_large(&self) -> bool {
        self.entries.len() > ENTRIES_MAX || self.encode().len() > LOG_BYTES_MAX
    }

    fn drop_entry(&mut self, place: (Kind, Mark)) {
        if let Ok(at) = self.entries.binary_search_by_key(&place, Entry::place) {
            self.entries.remove(at);
        }
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        stored(LAYOUT, self)
    }

    /// Reads a stored form of layout 1.
    ///
    /// # Errors
    /// [`RecordError`] where the bytes are too new, too many, or no such log; nothing is guessed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let log: Self = read(LAYOUT, LOG_BYTES_MAX, bytes)?;
        let is_sorted = log.entries.is_sorted_by(|a, b| a.place() < b.place());
        let are_cuts_sorted = log.cuts.is_sorted_by(|a, b| a.scope < b.scope);
        if !is_sorted || !are_cuts_sorted || log.entries.len() > ENTRIES_MAX || log.cuts.len() > CUTS_MAX {
            return Err(RecordError::Corrupt("its entries are too many, or not in order".into()));
        }
        Ok(log)
    }
}
