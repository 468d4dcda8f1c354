//! The tokens of a target, the newest first.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use keyreeve_core::token::{Record, TokenId, is_target};

use super::{Access, Inner};
use crate::error::{Error, ErrorKind};
use crate::port::{Key, LIST_MAX};

/// The most tokens of a page.
pub const TOKENS_MAX: usize = 100;
/// The most records that are read at once.
const AT_ONCE: usize = 8;
/// Digits of a moment, and of an id.
const PLACE_BYTES: usize = 16 + 32;

/// Some of the tokens of a target.
#[derive(Debug)]
pub struct Page {
    /// The tokens, the newest first.
    pub records: Vec<Record>,
    /// What to ask with for those that follow, where there are any.
    pub cursor: Option<String>,
}

impl Access {
    /// The tokens of a target, those that are over included. `limit` is 1 to [`TOKENS_MAX`].
    ///
    /// # Errors
    /// [`ErrorKind::Unacceptable`] for a target, a cursor or a limit that is none; [`ErrorKind::StoreUnavailable`].
    pub async fn list(&self, target: &str, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let refuse = |text: &str| Err(Error::new(ErrorKind::Unacceptable, text));
        if !is_target(target) {
            return refuse("`target` is no name of a target");
        }
        if !(1..=TOKENS_MAX).contains(&limit) {
            return Err(Error::new(ErrorKind::Unacceptable, format!("`limit` must be 1 to {TOKENS_MAX}")));
        }
        let digest = self.inner.target_digest(&self.family.name, target);
        let after = match cursor {
            Some(cursor) if is_cursor(cursor) => Key::new(format!("{}{cursor}", Key::places(&digest))),
            Some(_) => return refuse("`cursor` is none that was answered"),
            None => None,
        };
        // One more than is asked for says whether there are any.
        let mut places = self.inner.places(&digest, after.as_ref(), limit.saturating_add(1)).await?;
        let has_more = places.len() > limit;
        places.truncate(limit);
        let cursor = places.last().filter(|_| has_more).and_then(place_tail).map(str::to_owned);
        let records = self.inner.records(&places).await?;
        let mine = |record: &Record| record.family == self.family.name && record.target == target;
        Ok(Page { records: records.into_iter().filter(mine).collect(), cursor })
    }
}

impl Inner {
    /// Places of a target, in order.
    pub(super) async fn places(&self, target: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, Error> {
        let prefix = Key::places(target);
        let keys = self.register.list(&prefix, after, limit.min(LIST_MAX));
        self.within(keys).await.map_err(|error| super::key::away(&error))
    }

    /// The records of places, in their order. A place that a node left when it ended half-way has none.
    pub(super) async fn records(&self, places: &[Key]) -> Result<Vec<Record>, Error> {
        let ids: Vec<TokenId> = places.iter().filter_map(id_of).collect();
        let reads = stream::iter(ids.into_iter().map(|id| self.record(id))).buffered(AT_ONCE);
        let records: Vec<Option<Record>> = reads.try_collect().await?;
        Ok(records.into_iter().flatten().collect())
    }
}

fn is_cursor(text: &str) -> bool {
    text.len() == PLACE_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn place_tail(place: &Key) -> Option<&str> {
    place.as_str().rsplit_once('/').map(|(_, tail)| tail).filter(|tail| is_cursor(tail))
}

fn id_of(place: &Key) -> Option<TokenId> {
    TokenId::from_digits(place_tail(place)?.get(16..)?)
}
