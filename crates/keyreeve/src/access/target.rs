//! A target that is gone: all of its tokens are taken back, at once and in every store.
//!
//! The log of revocations is written first, so that every node refuses them from then on, and it stands there as open until
//! each record says it too. Whoever writes the first may end before the last: any node goes on from the log.

use keyreeve_core::time::Timestamp;
use keyreeve_core::token::Revocation as Taken;
use keyreeve_core::token::is_target;

use super::{Access, Family, Inner};
use crate::error::{Error, ErrorKind};
use crate::port::LIST_MAX;
use crate::revocation::{Kind, Lifetime, Open, Revocation, What};

/// What became of a target's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedTarget {
    /// How many tokens there are that were taken back, now or before.
    pub revoked: u64,
    /// Every node refuses them from this epoch on.
    pub epoch: u64,
}

impl Access {
    /// Takes every token of a target back. Asking again does no harm.
    ///
    /// # Errors
    /// [`ErrorKind::Unacceptable`] for a target that is none; [`ErrorKind::StoreUnavailable`] where it is not done yet: if the
    /// log could be written nodes refuse the tokens already, and one of them finishes it.
    pub async fn drop_target(&self, target: &str, by: &str) -> Result<DroppedTarget, Error> {
        if !is_target(target) {
            return Err(Error::new(ErrorKind::Unacceptable, "`target` is no name of a target"));
        }
        let (inner, family) = (&self.inner, &self.family);
        let label = format!("{}/{target} {by}", family.name);
        let revocation = Revocation {
            what: What::Target { tenant: &family.name, target },
            issued_by: None,
            lifetime: Lifetime::Settled,
            label: Some(&label),
        };
        let receipt = inner.revocations.revoke(revocation, by).await?;
        tracing::info!(target: "audit", who = by, what = "token.drop-target", family = family.name, of = target, "token");
        let open = Open { kind: receipt.kind, id: receipt.id, issued_by: receipt.issued_by, label: Some(label) };
        // Also where that goes on in the background: whoever asks is told when it is done, and twice does no harm.
        let revoked = inner.finish(&open, true).await?.unwrap_or_default();
        Ok(DroppedTarget { revoked, epoch: receipt.epoch })
    }
}

impl Inner {
    /// Goes on with what nodes began and did not end.
    pub(super) async fn finish_dropping(&self) {
        for open in self.revocations.open() {
            match self.finish(&open, false).await {
                Ok(Some(revoked)) => tracing::info!(label = open.label, revoked, "a dropped target was finished"),
                // Being done here, or nothing of ours.
                Ok(None) => {}
                Err(error) => tracing::warn!(label = open.label, "a dropped target is not finished: {error}"),
            }
        }
    }

    /// Takes back what an open entry of the log means, and says so there. `None` where it is about something else, or, unless
    /// somebody waits for it, where that goes on here already.
    async fn finish(&self, open: &Open, is_awaited: bool) -> Result<Option<u64>, Error> {
        let Some(label) = open.label.as_deref().filter(|_| open.kind == Kind::Target) else { return Ok(None) };
        let Some((place, by)) = label.split_once(' ') else { return Ok(None) };
        let Some((family, target)) = place.split_once('/') else { return Ok(None) };
        let Some(family) = self.families.get(family) else { return Ok(None) };
        let is_first = self.held.dropping().insert(place.to_owned());
        if !is_first && !is_awaited {
            return Ok(None);
        }
        let result = self.sweep(family, target, open.issued_by, by).await;
        self.held.dropping().remove(place);
        let revoked = result?;
        self.revocations.settle(open).await?;
        Ok(Some(revoked))
    }

    async fn sweep(&self, family: &Family, target: &str, issued_by: Timestamp, by: &str) -> Result<u64, Error> {
        if let Some(imported) = &family.imported {
            let gone = imported.drop_target(target).await;
            gone.map_err(|error| Error::new(ErrorKind::StoreUnavailable, error.to_string()).after(1000))?;
        }
        let digest = self.target_digest(&family.name, target);
        let (mut after, mut revoked) = (None, 0_u64);
        loop {
            let places = self.places(&digest, after.as_ref(), LIST_MAX).await?;
            for record in self.records(&places).await? {
                if record.family != family.name || record.target != target || record.created_at > issued_by {
                    continue;
                }
                let taken = self.changed(&family.name, record.id, |record, at| {
                    record.revoked.get_or_insert_with(|| Taken { at, by: by.to_owned() });
                    Ok(())
                });
                taken.await?;
                revoked = revoked.saturating_add(1);
            }
            after = places.last().cloned();
            if places.len() < LIST_MAX {
                return Ok(revoked);
            }
        }
    }
}
