//! The peers, set up the way their documentation shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::identity::http::Token;
use aws_smithy_runtime_api::client::identity::{
    Identity, IdentityFuture, ResolveCachedIdentity, ResolveIdentity, SharedIdentityCache, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;
use multistore_oidc_provider::BackendCredentials;

use crate::fleet::token;

/// The AWS SDK's lazy identity cache and what it needs around it.
pub struct Smithy {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
    bag: ConfigBag,
}

#[derive(Debug)]
pub struct SmithyUpstream {
    pub calls: Arc<AtomicU64>,
    pub delay: Duration,
    pub is_failing: Arc<AtomicBool>,
    pub life: Duration,
}

impl SmithyUpstream {
    /// One that gives identities for an hour, or fails.
    pub fn new(calls: &Arc<AtomicU64>, delay: Duration, is_failing: bool) -> Self {
        let is_failing = Arc::new(AtomicBool::new(is_failing));
        Self { calls: Arc::clone(calls), delay, is_failing, life: Duration::from_secs(3600) }
    }
}

impl ResolveIdentity for SmithyUpstream {
    fn resolve_identity<'a>(&'a self, _: &'a RuntimeComponents, _: &'a ConfigBag) -> IdentityFuture<'a> {
        IdentityFuture::new(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            if self.is_failing.load(Ordering::SeqCst) {
                return Err("the upstream answered 500".into());
            }
            let until = SystemTime::now() + self.life;
            Ok(Identity::new(Token::new(token(0), Some(until)), Some(until)))
        })
    }
}

impl Smithy {
    pub fn new(upstream: SmithyUpstream) -> Self {
        let components = RuntimeComponentsBuilder::for_tests()
            .with_time_source(Some(SystemTimeSource::new()))
            .with_sleep_impl(Some(TokioSleep::new()))
            .build()
            .unwrap();
        Self {
            cache: IdentityCache::lazy().build(),
            resolver: SharedIdentityResolver::new(upstream),
            components,
            bag: ConfigBag::base(),
        }
    }

    pub async fn get(&self) -> Result<Identity, aws_smithy_runtime_api::box_error::BoxError> {
        self.cache.resolve_cached_identity(self.resolver.clone(), &self.components, &self.bag).await
    }
}

/// A credential as multistore keeps it.
pub fn multistore_credentials() -> Arc<BackendCredentials> {
    multistore_credentials_for(3600)
}

/// The same, for this many seconds.
pub fn multistore_credentials_for(seconds: i64) -> Arc<BackendCredentials> {
    Arc::new(BackendCredentials {
        access_key_id: "AKIAEXAMPLE".into(),
        secret_access_key: "secret".into(),
        session_token: token(0),
        expiration: chrono::Utc::now() + chrono::Duration::seconds(seconds),
    })
}
