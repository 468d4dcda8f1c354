//! Tokens whose hashes were made elsewhere: compared by bcrypt once, then by a hash of ours, for as long as the other one is
//! there.

use std::sync::Arc;

use async_trait::async_trait;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Timestamp;
use keyreeve_core::token::{Format, Import, Presented, Record, Scope, TokenId};

use super::held::Verdict;
use super::look::{Looked, RETRY_MS};
use super::{Denied, Inner, credentials};
use crate::port::fresh_write_id;

/// Who made a token that nobody here made.
pub(super) const IMPORT: &str = "import";

/// Where hashes are that were made elsewhere, or are made for others to read: GraphQL Hive's bucket.
#[async_trait]
pub trait Imported: Send + Sync {
    /// The bcrypt hash of the key `id` of a target, or of the target's one legacy token. `None` where there is none, which
    /// takes the token back.
    ///
    /// # Errors
    /// [`Unavailable`] where nobody can say.
    async fn hash(&self, target: &str, id: Option<TokenId>) -> Result<Option<String>, Unavailable>;

    /// Puts the hash of a new key, or of a target's legacy token, where others find it.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn put(&self, target: &str, id: Option<TokenId>, hash: &str) -> Result<(), Unavailable>;

    /// Takes a hash away, so that others refuse the token too. One that is not there is no error.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn remove(&self, target: &str, id: Option<TokenId>) -> Result<(), Unavailable>;

    /// Takes every hash of a target away. Repeating it does no harm.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn drop_target(&self, target: &str) -> Result<(), Unavailable>;
}

/// No answer about a hash; a sentence without any secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Computes bcrypt, which takes tens of milliseconds of a core: off the threads that answer requests, and so many at once.
#[async_trait]
pub trait Bcrypt: Send + Sync {
    /// Whether `hash` is one of `secret`. What is no hash is none of any secret.
    ///
    /// # Errors
    /// [`Busy`] where too many wait already.
    async fn is_of(&self, secret: Secret<Vec<u8>>, hash: String) -> Result<bool, Busy>;

    /// A hash of `secret` as GraphQL Hive makes it: `$2a$`, cost 10.
    ///
    /// # Errors
    /// [`Busy`] where too many wait already.
    async fn hash(&self, secret: Secret<Vec<u8>>, salt: [u8; 16]) -> Result<String, Busy>;
}

/// Too much is being done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many hashes are being computed")]
pub struct Busy;

/// What the hash that was made elsewhere says.
enum There {
    /// The secret is right for it; its SHA-256.
    Right([u8; 32]),
    /// It is not, or there is none.
    Wrong,
    /// Nobody can say.
    Unknown,
}

impl Inner {
    /// The verdict on a token that our own hash does not settle: there is none, or it goes by one that was made elsewhere.
    pub(super) async fn look_elsewhere(&self, looked: &Looked<'_>, record: Option<Record>, is_right: bool) -> Verdict {
        let was = record.as_ref().and_then(|record| record.import.as_ref()?.was);
        match (self.there(looked, was, is_right).await, record) {
            (There::Right(hash), Some(record)) if was == Some(hash) && is_right => self.grant(record, looked.epoch),
            (There::Right(hash), record) => {
                let upgraded = self.upgrade(looked, record, hash).await?;
                self.grant(upgraded, looked.epoch)
            }
            // While nobody can say whether the other hash is still there, ours is as good as it was.
            (There::Unknown, Some(record)) if is_right => self.grant(record, looked.epoch),
            (There::Unknown, _) => Err(Denied::Unavailable { retry_ms: RETRY_MS }),
            (There::Wrong, Some(record)) if is_right => {
                self.forget_hash(looked, &record).await;
                Err(Denied::Unknown)
            }
            (There::Wrong, _) => Err(Denied::Unknown),
        }
    }

    /// Takes our own hash out of a record whose other hash is gone: it must not vouch for the token when nobody can look
    /// there any more. Where the other one comes back, ours is made again.
    async fn forget_hash(&self, looked: &Looked<'_>, record: &Record) {
        let mut next = record.following(fresh_write_id(self.host.as_ref()), self.host.now());
        next.hash = None;
        if let Some(import) = &mut next.import {
            import.was = None;
        }
        match self.replace(&next, record.op).await {
            Ok(()) => tracing::info!(token = %looked.id, "a hash that is gone elsewhere is gone here too"),
            Err(error) => tracing::warn!(token = %looked.id, "a hash that is gone elsewhere is still here: {error}"),
        }
    }

    /// The hash that was made elsewhere.
    pub(super) async fn hash_there(&self, looked: &Looked<'_>) -> Result<Option<String>, Unavailable> {
        if let Some(there) = &looked.there {
            return there.clone();
        }
        let imported =
            looked.family.imported.as_ref().ok_or_else(|| Unavailable("there is no such place".to_owned()))?;
        let hash = imported.hash(looked.target, looked.presented.id).await;
        hash.inspect_err(|error| tracing::warn!(token = %looked.id, "an imported hash cannot be read: {error}"))
    }

    /// Whether `hash` is one of `secret`, by bcrypt: computed once on this node.
    pub(super) async fn is_of(&self, secret: &Secret<Vec<u8>>, hash: &str) -> Result<bool, Busy> {
        let Ok(text) = std::str::from_utf8(secret.expose()) else { return Ok(false) };
        let compute = self.bcrypt.is_of(secret.clone(), hash.to_owned());
        self.held.compare(text, hash, self.host.now().mono, compute).await
    }

    async fn there(&self, looked: &Looked<'_>, was: Option<[u8; 32]>, is_right: bool) -> There {
        let hash = match self.hash_there(looked).await {
            Ok(Some(hash)) => hash,
            Ok(None) => return There::Wrong,
            Err(_) => return There::Unknown,
        };
        let digest = self.crypto.sha256(&[hash.as_bytes()]);
        // Computed, so that no hash has to say it: that one is there is enough.
        if looked.is_computed == Some(true) {
            return There::Right(digest);
        }
        // The same hash as before: what our own says about the secret holds.
        if was == Some(digest) {
            return if is_right { There::Right(digest) } else { There::Wrong };
        }
        match self.is_of(&looked.presented.secret, &hash).await {
            Ok(true) => There::Right(digest),
            Ok(false) => There::Wrong,
            Err(Busy) => There::Unknown,
        }
    }

    /// Writes a hash of ours beside the one that was just found right. That it could not be written is no reason to refuse.
    async fn upgrade(&self, looked: &Looked<'_>, record: Option<Record>, was: [u8; 32]) -> Result<Record, Denied> {
        let now = self.host.now();
        let base = record.as_ref().map(|record| record.op);
        let mut next = match &record {
            Some(record) => record.following(fresh_write_id(self.host.as_ref()), now),
            None => {
                // Nobody knows when it was made: every revocation of its target is meant for it.
                let name = looked.id.to_string();
                let revoked = credentials(&looked.family.name, looked.target, &name, Timestamp(0));
                if self.revocations.is_revoked(&revoked).is_some() {
                    return Err(Denied::Revoked);
                }
                self.unwritten(looked, now.wall)
            }
        };
        next.hash = Some(looked.hash);
        next.import = Some(Import { was: Some(was), ..ends(looked.presented) });
        let written = match base {
            Some(base) => self.replace(&next, base).await,
            None => self.put_new(&next).await,
        };
        match written {
            Ok(()) => tracing::info!(token = %looked.id, "an imported token has a hash of ours now"),
            Err(error) => tracing::warn!(token = %looked.id, "an imported token keeps its bcrypt hash: {error}"),
        }
        Ok(next)
    }

    /// The record of a token that is known only by its hash elsewhere, as nobody has written it yet.
    pub(super) fn unwritten(&self, looked: &Looked<'_>, now: Timestamp) -> Record {
        Record {
            op: fresh_write_id(self.host.as_ref()),
            rev: 1,
            written_at: now,
            id: looked.id,
            family: looked.family.name.clone(),
            target: looked.target.to_owned(),
            alias: if looked.presented.format == Format::Legacy { "legacy".into() } else { "imported".into() },
            format: looked.presented.format,
            hash: None,
            scope: Scope::default(),
            created_at: now,
            created_by: IMPORT.to_owned(),
            expires_at: None,
            rolled: None,
            revoked: None,
            used: None,
            import: Some(ends(looked.presented)),
            copied_from: None,
        }
    }
}

/// The ends of a secret, for a list.
fn ends(presented: &Presented) -> Import {
    let secret = presented.secret.expose();
    let count = if presented.format == Format::Legacy { 3 } else { Import::shown(secret.len()) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let last = secret.len().saturating_sub(count);
    Import {
        was: None,
        first: text(secret.get(..count).unwrap_or_default()),
        last: text(secret.get(last..).unwrap_or_default()),
    }
}

/// What is hashed for others to read.
pub(super) async fn published(
    bcrypt: &Arc<dyn Bcrypt>,
    secret: &Secret<Vec<u8>>,
    salt: [u8; 16],
) -> Result<String, Busy> {
    bcrypt.hash(secret.clone(), salt).await
}
