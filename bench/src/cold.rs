//! Upstream calls, answers and time for 1,000 callers that arrive at a cold cache, whose upstream takes 50 ms and then
//! answers or fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use multistore_oidc_provider::cache::CredentialCache;

use crate::fleet::{FAR, Upstream, outbound};
use crate::peers::{Smithy, SmithyUpstream, multistore_credentials};

const CALLERS: usize = 1000;
const DELAY: Duration = Duration::from_millis(50);

pub async fn run() {
    println!("{CALLERS} cold callers, upstream answers after {} ms\n", DELAY.as_millis());
    println!(
        "{:<44} {:>9} {:>8} {:>9}   {:>9} {:>8} {:>9}",
        "", "ok: calls", "answers", "ms", "fail: calls", "errors", "ms"
    );
    let rows = [
        ("keyreeve", keyreeve(false).await, keyreeve(true).await),
        ("moka::future try_get_with", moka(false).await, moka(true).await),
        ("multistore-oidc-provider cache", multistore(false).await, multistore(true).await),
        ("aws-smithy-runtime lazy identity cache", smithy(false).await, smithy(true).await),
    ];
    for (name, ok, fail) in rows {
        println!("{name:<44} {:>9} {:>8} {:>9}   {:>9} {:>8} {:>9}", ok.0, ok.1, ok.2, fail.0, fail.1, fail.2);
    }
}

/// Upstream calls, results of the wanted kind, milliseconds until the last one.
type Row = (u64, usize, u128);

async fn all<F: Future<Output = bool> + Send + 'static>(call: impl Fn() -> F) -> (usize, u128) {
    let start = Instant::now();
    let results = join_all((0..CALLERS).map(|_| tokio::spawn(call()))).await;
    (results.into_iter().filter(|result| *result.as_ref().unwrap()).count(), start.elapsed().as_millis())
}

async fn keyreeve(is_failing: bool) -> Row {
    let upstream = Arc::new(Upstream { calls: AtomicU64::new(0), delay: DELAY, is_failing });
    let outbound = outbound(1, &upstream);
    let (count, ms) = all(|| {
        let outbound = outbound.clone();
        async move { outbound.token("credential-0", 0, FAR).await.is_err() == is_failing }
    })
    .await;
    (upstream.calls.load(Ordering::SeqCst), count, ms)
}

async fn fetch<T>(calls: Arc<AtomicU64>, is_failing: bool, value: T) -> Result<T, String> {
    calls.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(DELAY).await;
    if is_failing { Err("the upstream answered 500".into()) } else { Ok(value) }
}

async fn moka(is_failing: bool) -> Row {
    let calls = Arc::new(AtomicU64::new(0));
    let cache: moka::future::Cache<String, Arc<String>> = moka::future::Cache::new(100);
    let (count, ms) = all(|| {
        let (cache, calls) = (cache.clone(), Arc::clone(&calls));
        async move {
            let result = cache.try_get_with("credential-0".into(), fetch(calls, is_failing, Arc::default())).await;
            result.is_err() == is_failing
        }
    })
    .await;
    (calls.load(Ordering::SeqCst), count, ms)
}

async fn multistore(is_failing: bool) -> Row {
    let calls = Arc::new(AtomicU64::new(0));
    let cache = CredentialCache::new();
    let (count, ms) = all(|| {
        let (cache, calls) = (cache.clone(), Arc::clone(&calls));
        async move {
            let result =
                cache.get_or_fetch("credential-0", || fetch(calls, is_failing, multistore_credentials())).await;
            result.is_err() == is_failing
        }
    })
    .await;
    (calls.load(Ordering::SeqCst), count, ms)
}

async fn smithy(is_failing: bool) -> Row {
    let calls = Arc::new(AtomicU64::new(0));
    let cache = Arc::new(Smithy::new(SmithyUpstream::new(&calls, DELAY, is_failing)));
    let (count, ms) = all(|| {
        let cache = Arc::clone(&cache);
        async move { cache.get().await.is_err() == is_failing }
    })
    .await;
    (calls.load(Ordering::SeqCst), count, ms)
}
