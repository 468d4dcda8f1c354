//! Tokens in, verified claims out.

use std::sync::Arc;

use keyreeve_core::jwt::{Claims, Expected, Refusal, Selected, Signed, Unverified, Verified};
use keyreeve_core::time::Timestamp;

use super::keys::{Fixed, KeySet, Keys, Unavailable, may_be_cured};
use crate::crypto::Check;

/// Why a token was not verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is not accepted. Another token may be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing is known about it: keys or the platform's cryptography are away. Never a reason for 401 or 403.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Nobody can tell whether it has been revoked. Never a reason for 401 or 403.
    #[error(transparent)]
    Stale(#[from] crate::revocation::Stale),
}

/// Checks the tokens of one issuer, or of several whose keys are known together.
#[derive(Clone)]
pub struct Verifier {
    expected: Arc<Expected>,
    keys: Arc<dyn Keys>,
}

impl Verifier {
    /// Trusts `keys` for what is `expected`.
    pub fn new(expected: Expected, keys: Arc<dyn Keys>) -> Self {
        Self { expected: Arc::new(expected), keys }
    }

    /// Trusts keys that never change.
    #[must_use]
    pub fn with_keys(expected: Expected, keys: KeySet) -> Self {
        Self::new(expected, Arc::new(Fixed(Arc::new(keys))))
    }

    /// What a token has to say.
    #[must_use]
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// The same keys, for something else than was expected before.
    #[must_use]
    pub fn expecting(&self, expected: Expected) -> Self {
        Self { expected: Arc::new(expected), keys: Arc::clone(&self.keys) }
    }

    /// Where the keys come from.
    #[must_use]
    pub fn keys(&self) -> &Arc<dyn Keys> {
        &self.keys
    }

    /// Verifies a token at `now`. Looks for keys where none are known, or where the token names one that is not.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Verified<Claims>, VerifyError> {
        let parsed = Unverified::parse(token)?;
        if let Some(known) = self.keys.known() {
            match parsed.select(&known) {
                Ok(selected) => return Ok(settled(selected).await?.claims(&self.expected, now)?),
                Err(refusal) if may_be_cured(&refusal) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        // Only what has the form of a token makes anybody look for keys.
        let header = parsed.header()?;
        let keys = self.keys.look(header.key_id.as_deref()).await?;
        Ok(settled(parsed.select(&keys)?).await?.claims(&self.expected, now)?)
    }

    /// Verifies a token at `now` with the keys that are known, at once.
    ///
    /// # Errors
    /// [`VerifyError`]; [`VerifyError::Unavailable`] also where the key is one that answers later.
    pub fn verify_at_once(&self, token: &str, now: Timestamp) -> Result<Verified<Claims>, VerifyError> {
        let keys = self.keys.known().ok_or_else(|| Unavailable("none have been fetched yet".into()))?;
        let selected = Unverified::parse(token)?.select(&keys)?;
        let Check::Now(key) = selected.key().check() else {
            return Err(Unavailable("this key answers later: wait for it".into()).into());
        };
        let is_good = key.verify(selected.message(), selected.signature()).is_ok();
        Ok(selected.judged(is_good)?.claims(&self.expected, now)?)
    }
}

/// Asks the key of a selected token about its signature.
///
/// # Errors
/// [`VerifyError`].
pub async fn settled(selected: Selected<'_, '_, Check>) -> Result<Signed, VerifyError> {
    let is_good = match selected.key().check() {
        Check::Now(key) => key.verify(selected.message(), selected.signature()).is_ok(),
        Check::Later(key) => key.verify(selected.message(), selected.signature()).await.map_err(Unavailable)?,
    };
    Ok(selected.judged(is_good)?)
}
