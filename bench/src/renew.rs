//! What callers are told when the renewal fails of a credential that is still valid. Each cache gets a credential that is good
//! for a while and within its own time for renewal, and then an upstream that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keyreeve::core::lifecycle::Order;
use keyreeve::core::record::FaultClass;
use keyreeve::core::rules::Rules;
use keyreeve::engine::memory::Memory;
use keyreeve::source::{Material, MintError, Minting, Nature, Source};
use multistore_oidc_provider::cache::CredentialCache;

use crate::fleet::{FAR, outbound_of, rules, token};
use crate::peers::{Smithy, SmithyUpstream, multistore_credentials_for};

const CALLERS: u64 = 200;
const APART: Duration = Duration::from_millis(10);
/// How long the upstream takes to fail.
const DELAY: Duration = Duration::from_millis(50);

/// Calls of the upstream after it began to fail, and errors that callers saw.
type Row = (u64, u64);

pub async fn run() {
    println!("{CALLERS} callers, {} ms apart; the credential is valid, and every renewal fails\n", APART.as_millis());
    println!("{:<44} {:>12} {:>12} {:>16}", "", "valid for", "errors seen", "upstream calls");
    let rows = [
        ("keyreeve", "28 s", keyreeve().await),
        ("multistore-oidc-provider cache", "30 s", multistore().await),
        ("aws-smithy-runtime lazy identity cache", "8 s", smithy().await),
    ];
    for (name, valid, (calls, errors)) in rows {
        println!("{name:<44} {valid:>12} {errors:>12} {calls:>16}");
    }
}

/// Asks `CALLERS` times, each without waiting for the one before.
async fn ask<F: Future<Output = bool> + Send + 'static>(call: impl Fn() -> F) -> u64 {
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        asked.spawn(call());
        tokio::time::sleep(APART).await;
    }
    asked.join_all().await.into_iter().filter(|is_served| !is_served).count() as u64
}

struct Turning {
    calls: AtomicU64,
    is_failing: AtomicBool,
}

#[async_trait]
impl Source for Turning {
    fn kind(&self) -> &'static str {
        "bench"
    }
    fn nature(&self) -> Nature {
        Nature::Opaque
    }
    async fn mint(&self, order: &Order, _: &str) -> Result<Minting, MintError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_failing.load(Ordering::SeqCst) {
            tokio::time::sleep(DELAY).await;
            return Err(MintError::nothing_minted(FaultClass::Transient, "the upstream answered 500"));
        }
        Ok(Minting { material: Material::bearer(token(call)), issued_at: None, expires_at: order.expires_at })
    }
}

async fn keyreeve() -> Row {
    let turning = Arc::new(Turning { calls: AtomicU64::new(0), is_failing: AtomicBool::new(false) });
    // Due a second after it was minted.
    let rules = Rules {
        life_ms: 30_000,
        lead_ms: 29_000,
        min_interval_ms: 100,
        skew_ms: 100,
        wake_spread_ms: 0,
        refresh_jitter_ms: 0,
        ..rules()
    };
    let source: Arc<dyn Source> = turning.clone();
    let outbound = outbound_of(Arc::new(Memory::new()), 1, &source, rules);
    outbound.token("credential-0", 0, FAR).await.unwrap();
    turning.is_failing.store(true, Ordering::SeqCst);
    while turning.calls.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(APART).await;
    }
    let errors = ask(|| {
        let outbound = outbound.clone();
        async move { outbound.token("credential-0", 0, FAR).await.is_ok() }
    })
    .await;
    (turning.calls.load(Ordering::SeqCst) - 1, errors)
}

async fn multistore() -> Row {
    let (cache, calls) = (CredentialCache::new(), Arc::new(AtomicU64::new(0)));
    let first = async || Ok::<_, String>(multistore_credentials_for(30));
    cache.get_or_fetch("credential-0", first).await.unwrap();
    let errors = ask(|| {
        let (cache, calls) = (cache.clone(), Arc::clone(&calls));
        async move {
            let fetch = async || {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(DELAY).await;
                Err(String::from("the upstream answered 500"))
            };
            cache.get_or_fetch("credential-0", fetch).await.is_ok()
        }
    })
    .await;
    (calls.load(Ordering::SeqCst), errors)
}

async fn smithy() -> Row {
    let (calls, is_failing) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let upstream = SmithyUpstream {
        calls: Arc::clone(&calls),
        delay: DELAY,
        is_failing: Arc::clone(&is_failing),
        life: Duration::from_secs(8),
    };
    let cache = Arc::new(Smithy::new(upstream));
    cache.get().await.unwrap();
    is_failing.store(true, Ordering::SeqCst);
    let errors = ask(|| {
        let cache = Arc::clone(&cache);
        async move { cache.get().await.is_ok() }
    })
    .await;
    (calls.load(Ordering::SeqCst) - 1, errors)
}
