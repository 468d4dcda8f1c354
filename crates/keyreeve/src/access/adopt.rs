//! Tokens that somebody else made are taken over by what is known of them: not their secrets, which nobody has, nor their
//! hashes, which stay where they are until the first use.

use keyreeve_core::time::Timestamp;
use keyreeve_core::token::hash::legacy_id;
use keyreeve_core::token::record::ALIAS_CHARS_MAX;
use keyreeve_core::token::text::PRIVATE_DIGITS_MIN;
use keyreeve_core::token::{Format, Import, Record, Scope, TokenId, is_target};

use super::Access;
use super::change::no_such;
use crate::error::{Error, ErrorKind};
use crate::port::fresh_write_id;

/// What is known of a token that was made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Which one. The legacy token of a target has another id here, because no text of it names one.
    pub id: TokenId,
    /// Whether it is the legacy token of its target.
    pub is_legacy: bool,
    /// What it opens.
    pub target: String,
    /// What people call it.
    pub alias: String,
    /// The first characters of its secret.
    pub first: String,
    /// The last ones.
    pub last: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Access {
    /// Takes a token over, so that it is in the list of its target. False where it is there already, whoever put it there.
    ///
    /// # Errors
    /// [`Error`] of the store; a target that cannot be one.
    pub async fn adopt(&self, foreign: &Foreign) -> Result<bool, Error> {
        if !is_target(&foreign.target) {
            return Err(Error::new(ErrorKind::NotFound, format!("`{}` has no target that can be one", foreign.id)));
        }
        let id = match foreign.is_legacy {
            true => legacy_id(self.inner.crypto.as_ref(), &self.family.name, &foreign.target),
            false => foreign.id,
        };
        if self.inner.record(id).await?.is_some() {
            return Ok(false);
        }
        let now = self.inner.host.now();
        let record = Record {
            op: fresh_write_id(self.inner.host.as_ref()),
            rev: 1,
            written_at: now.wall,
            id,
            family: self.family.name.clone(),
            target: foreign.target.clone(),
            alias: foreign.alias.chars().take(ALIAS_CHARS_MAX).collect(),
            format: if foreign.is_legacy { Format::Legacy } else { Format::Hv2 },
            hash: None,
            scope: Scope::default(),
            created_at: foreign.created_at,
            created_by: super::imported::IMPORT.to_owned(),
            expires_at: None,
            rolled: None,
            revoked: None,
            used: None,
            import: Some(Import { was: None, first: start(&foreign.first), last: end(&foreign.last) }),
            copied_from: None,
        };
        self.inner.put_new(&record).await?;
        tracing::info!(target: "audit", who = super::imported::IMPORT, what = "token.adopt", %id);
        Ok(true)
    }

    /// As [`revoke`](Self::revoke), for a token of this target, which may be one that was made elsewhere and that nobody has
    /// used here: there is nothing of it here yet, and by its id alone nobody can tell what it opens.
    ///
    /// # Errors
    /// As [`revoke`](Self::revoke). Not found where neither we nor they have such a token of this target.
    pub async fn revoke_of(&self, target: &str, id: TokenId, by: &str) -> Result<Record, Error> {
        if !is_target(target) {
            return Err(no_such(id));
        }
        match self.inner.record(id).await? {
            Some(record) if record.family == self.family.name && record.target == target => {}
            Some(_) => return Err(no_such(id)),
            None => {
                let imported = self.family.imported.as_ref().ok_or_else(|| no_such(id))?;
                let is_legacy = id == legacy_id(self.inner.crypto.as_ref(), &self.family.name, target);
                let found = imported.hash(target, (!is_legacy).then_some(id)).await;
                let found = found.map_err(|error| Error::new(ErrorKind::StoreUnavailable, error.to_string()));
                found.map_err(|error| error.after(1000))?.ok_or_else(|| no_such(id))?;
                let foreign = Foreign {
                    id,
                    is_legacy,
                    target: target.to_owned(),
                    alias: if is_legacy { "legacy" } else { "imported" }.to_owned(),
                    first: String::new(),
                    last: String::new(),
                    created_at: self.inner.host.now().wall,
                };
                self.adopt(&foreign).await?;
            }
        }
        self.revoke(id, by).await
    }
}

/// As much as may be shown of the shortest secret there is: nobody knows how long this one is before it is used.
fn start(first: &str) -> String {
    first.chars().take(Import::shown(PRIVATE_DIGITS_MIN)).collect()
}

fn end(last: &str) -> String {
    let count = last.chars().count().saturating_sub(Import::shown(PRIVATE_DIGITS_MIN));
    last.chars().skip(count).collect()
}
