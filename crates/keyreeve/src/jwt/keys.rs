//! Trusted keys, ready to verify, and where they come from.

use std::sync::Arc;

use async_trait::async_trait;
use keyreeve_core::jwt::{Jwk, JwkError, JwkSet, Shown, Skipped};
use keyreeve_core::{jwt, jwt::Refusal};

use crate::crypto::{Check, KeyError, MakeCheck};

/// A key ready to verify.
pub type Key = jwt::Key<Check>;
/// The keys that a verifier trusts.
pub type KeySet = jwt::KeySet<Check>;

/// There are no keys to verify with: nothing is known about the token. Never a reason for 401 or 403.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no keys to verify with: {0}")]
pub struct Unavailable(pub String);

/// Where trusted keys come from: given once, or an issuer's that change.
#[async_trait]
pub trait Keys: Send + Sync {
    /// The keys that are known now. `None` before the first look.
    fn known(&self) -> Option<Arc<KeySet>>;

    /// A number that changes whenever a key leaves: whoever keeps verdicts drops them then. Keys that never change need
    /// none.
    fn epoch(&self) -> u64 {
        0
    }

    /// Looks for keys: because none are known, or because a token names one, `missing`, that the known ones lack. Answers with
    /// what is known afterwards, which may be what was known before: how often it really looks is its own affair, and
    /// strangers must not be able to make it look.
    ///
    /// # Errors
    /// [`Unavailable`] where no keys are known, before and after.
    async fn look(&self, missing: Option<&str>) -> Result<Arc<KeySet>, Unavailable>;
}

/// Keys that never change, shared.
#[derive(Clone)]
pub struct Fixed(pub Arc<KeySet>);

#[async_trait]
impl Keys for Fixed {
    fn known(&self) -> Option<Arc<KeySet>> {
        Some(Arc::clone(&self.0))
    }

    async fn look(&self, _: Option<&str>) -> Result<Arc<KeySet>, Unavailable> {
        Ok(Arc::clone(&self.0))
    }
}

/// Makes one key ready. `make` is [`crate::crypto::check`], or the platform's own.
///
/// # Errors
/// [`KeyError`].
pub fn key_of(jwk: &Jwk, make: MakeCheck) -> Result<Key, KeyError> {
    Ok(Key::new(jwk.id.as_deref(), jwk.algorithm, make(&jwk.key, jwk.algorithm)?))
}

/// Makes the keys of a JWKS ready. Those that cannot be used are told with the reason, beside those that parsing skipped.
#[must_use]
pub fn key_set(set: &JwkSet, make: MakeCheck) -> (KeySet, Vec<Skipped>) {
    let mut skipped = set.skipped.clone();
    let mut keys = Vec::with_capacity(set.keys.len());
    for jwk in &set.keys {
        match key_of(jwk, make) {
            Ok(key) => keys.push(key),
            Err(_) => skipped.push(Skipped {
                id: jwk.id.as_deref().map(Shown::of),
                cause: JwkError::Weak("its numbers are not those of a key, or this build cannot compute with it"),
            }),
        }
    }
    (KeySet::new(keys), skipped)
}

/// Whether fresher keys could change the verdict.
pub(super) const fn may_be_cured(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::UnknownKey { .. })
}
