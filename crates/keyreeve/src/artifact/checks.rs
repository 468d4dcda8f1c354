//! Who may have an artifact: asked of whatever knows the tokens.

use async_trait::async_trait;
use keyreeve_core::time::Moment;

use crate::access::{Access, Ask, Denied};

/// What knows the tokens of a gate: [`Access`], or in tests one that hangs and lies.
#[async_trait]
pub trait Checks: Send + Sync {
    /// The verdict, where no waiting is needed.
    fn seen(&self, ask: &Ask<'_>, now: Moment) -> Option<Result<(), Denied>>;

    /// The verdict.
    ///
    /// # Errors
    /// Why the token is not good for this, or cannot be judged.
    async fn check(&self, ask: &Ask<'_>, now: Moment) -> Result<(), Denied>;

    /// The verdict once more, on a request that [`seen`](Self::seen) has counted already.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    async fn check_again(&self, ask: &Ask<'_>, now: Moment) -> Result<(), Denied> {
        self.check(ask, now).await
    }
}

#[async_trait]
impl Checks for Access {
    fn seen(&self, ask: &Ask<'_>, now: Moment) -> Option<Result<(), Denied>> {
        Self::seen(self, ask, now).map(|verdict| verdict.map(drop))
    }

    async fn check(&self, ask: &Ask<'_>, now: Moment) -> Result<(), Denied> {
        Self::check(self, ask, now).await.map(drop)
    }

    async fn check_again(&self, ask: &Ask<'_>, now: Moment) -> Result<(), Denied> {
        Self::check_again(self, ask, now).await.map(drop)
    }
}
