//! Two verdicts on one token: the old one, of those who judged it so far, and the new one, ours.
//!
//! The old one is what a worker of GraphQL Hive would say that has no memory: the bcrypt hash in the bucket decides, and the
//! spelling is read as loosely as there. It is what the client gets. But what was revoked or is over here is refused whatever
//! it says, and where it is not to be had ours counts.

use keyreeve_core::time::{Moment, Timestamp};
use keyreeve_core::token::{Compared, Format, Presented, Record, State, TokenId};

use super::held::{Told, Verdict};
use super::look::{Looked, unavailable};
use super::{Denied, Family, Inner, Unavailable, credentials};

/// A token that was revoked this lately may still have its hash, in milliseconds: whoever revokes it takes that away last.
const SETTLES_MS: u64 = 60_000;

/// The old verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    Accepts,
    /// Whether there is a hash.
    Refuses(bool),
    Unknown,
}

/// A token in the spelling that we take, and in the one that they take. Never neither.
pub(super) struct Spelt {
    pub(super) own: Option<Presented>,
    pub(super) theirs: Option<Presented>,
}

impl Inner {
    /// Both verdicts, and what came of comparing them.
    pub(super) async fn look_twice(&self, family: &Family, spelt: &Spelt, target: &str) -> Told {
        let Some(presented) = spelt.own.as_ref().or(spelt.theirs.as_ref()) else {
            return Told::new(Err(Denied::Malformed));
        };
        let epoch = self.revocations.epoch();
        let mut looked = match self.looked(family, presented, target, epoch).await {
            Ok(looked) => looked,
            Err(denied) => return Told::compared(Err(denied), Compared::Unavailable, TokenId([0; 16])),
        };
        let id = looked.id;
        let record = match self.record(id).await {
            Ok(record) => record,
            Err(error) => {
                let denied = unavailable(id, &error);
                return Told::compared(Err(denied), Compared::Unavailable, id);
            }
        };
        let there = self.hash_there(&looked).await;
        let old = self.old(&spelt.theirs, &there).await;
        looked.there = Some(there);
        let own = record.clone().filter(|record| looked.is_of(record));
        if let Some(denied) = self.closed(&looked, own.as_ref()) {
            let compared = after_closing(old, &denied, own.as_ref(), self.host.now());
            return Told { verdict: Err(denied), compared: compared.map(|compared| (compared, id)) };
        }
        looked.is_computed = self.is_computed(family, presented, target);
        let new = match &spelt.own {
            Some(_) => self.own_verdict(&looked, record.clone()).await,
            None => Err(Denied::Malformed),
        };
        let compared = compare(old, &new, spelt, record.is_some() && own.is_none());
        let verdict = match (old, new) {
            (Old::Accepts, Ok(granted)) => Ok(granted),
            (Old::Accepts, Err(_)) => {
                let record = own.unwrap_or_else(|| self.unwritten(&looked, self.host.now().wall));
                self.grant(record, epoch)
            }
            (Old::Refuses(_), Ok(_)) => Err(Denied::Unknown),
            (Old::Refuses(_) | Old::Unknown, new) => new,
        };
        Told::compared(verdict, compared, id)
    }

    async fn old(&self, theirs: &Option<Presented>, there: &Result<Option<String>, Unavailable>) -> Old {
        match (theirs, there) {
            (None, Ok(hash)) => Old::Refuses(hash.is_some()),
            (_, Err(_)) => Old::Unknown,
            (_, Ok(None)) => Old::Refuses(false),
            (Some(presented), Ok(Some(hash))) => match self.is_of(&presented.secret, hash).await {
                Ok(true) => Old::Accepts,
                Ok(false) => Old::Refuses(true),
                Err(_) => Old::Unknown,
            },
        }
    }

    /// Why a token is refused that its owner, or time, has ended here.
    fn closed(&self, looked: &Looked<'_>, record: Option<&Record>) -> Option<Denied> {
        match record.map(|record| record.state(self.host.now().latest())) {
            Some(State::Revoked) => return Some(Denied::Revoked),
            Some(State::Expired) => return Some(Denied::Expired),
            Some(State::Active | State::Rolling) | None => {}
        }
        let name = looked.id.to_string();
        let created_at = record.map_or(Timestamp(0), |record| record.created_at);
        let known = credentials(&looked.family.name, looked.target, &name, created_at);
        self.revocations.is_revoked(&known).map(|_| Denied::Revoked)
    }

    /// Whether a legacy token is the one that the secret of its makers gives; none where nobody knows the secret.
    pub(super) fn is_computed(&self, family: &Family, presented: &Presented, target: &str) -> Option<bool> {
        let key = family.legacy_key.as_ref().filter(|_| presented.format == Format::Legacy)?;
        let text = presented.secret.expose();
        Some(keyreeve_core::token::hash::is_legacy_token(self.crypto.as_ref(), key.expose(), target, text))
    }
}

fn compare(old: Old, new: &Verdict, spelt: &Spelt, is_of_another: bool) -> Compared {
    match (old, new) {
        (Old::Unknown, _) | (_, Err(Denied::Unavailable { .. } | Denied::Stale)) => Compared::Unavailable,
        (Old::Accepts, Ok(_)) => Compared::BothAccept,
        (Old::Refuses(_), Err(_)) => Compared::BothRefuse,
        (Old::Accepts, Err(Denied::Malformed)) => Compared::Malformed,
        (Old::Accepts, Err(Denied::Revoked)) => Compared::Revoked,
        (Old::Accepts, Err(Denied::Expired)) => Compared::Expired,
        (Old::Accepts, Err(_)) if is_of_another => Compared::OtherTarget,
        (Old::Accepts, Err(_)) => Compared::WrongSecret,
        (Old::Refuses(_), Ok(_)) if spelt.theirs.is_none() => Compared::ReadAsKey,
        (Old::Refuses(true), Ok(_)) => Compared::WrongHash,
        (Old::Refuses(false), Ok(_)) => Compared::MissingHash,
    }
}

/// What came of comparing where the token is revoked or over here.
fn after_closing(old: Old, denied: &Denied, record: Option<&Record>, now: Moment) -> Option<Compared> {
    match (old, denied) {
        (Old::Refuses(_), _) => Some(Compared::BothRefuse),
        (Old::Unknown, _) => Some(Compared::Unavailable),
        (Old::Accepts, Denied::Expired) => Some(Compared::Expired),
        (Old::Accepts, _) => {
            let at = record.and_then(|record| record.revoked.as_ref()).map(|revoked| revoked.at);
            at.filter(|at| now.wall.since(*at) > SETTLES_MS).map(|_| Compared::Revoked)
        }
    }
}

impl Told {
    /// A verdict that was compared with nothing.
    pub(super) const fn new(verdict: Verdict) -> Self {
        Self { verdict, compared: None }
    }

    fn compared(verdict: Verdict, compared: Compared, id: TokenId) -> Self {
        Self { verdict, compared: Some((compared, id)) }
    }

    /// A verdict on what both refuse without looking at anything.
    pub(super) const fn malformed(is_compared: bool) -> Self {
        let compared = if is_compared { Some((Compared::BothRefuse, TokenId([0; 16]))) } else { None };
        Self { verdict: Err(Denied::Malformed), compared }
    }
}
