//! The time of one warm get: two threads, one credential (both threads on the same one) and 1,024 (each get another one).

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use multistore_oidc_provider::cache::CredentialCache;
use tokio::runtime::Runtime;

use crate::fleet::{FAR, Upstream, outbound, token};
use crate::peers::{Smithy, SmithyUpstream, multistore_credentials};

const ROUNDS: usize = 9;
const THREADS: u64 = 2;

/// Median nanoseconds of one call, over rounds of `calls` calls on each of two threads.
fn measure(calls: u64, each: impl Fn(u64) + Sync) -> f64 {
    let runtime = tokio::runtime::Handle::current();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (each, runtime) = (&each, &runtime);
                    scope.spawn(move || {
                        let _entered = runtime.enter();
                        (0..calls).for_each(|n| each(n.wrapping_mul(7).wrapping_add(thread * 13)));
                    });
                }
            });
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Runs futures that are ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

pub fn run(runtime: &Runtime) {
    let _entered = runtime.enter();
    println!("warm get, {THREADS} threads, median of {ROUNDS} rounds, ns per get (wall time of one thread)\n");
    println!("{:<44} {:>10} {:>10}", "", "1", "1,024");
    let mut rows = Vec::new();
    for count in [1usize, 1024] {
        let names: Vec<String> = (0..count).map(|n| format!("credential-{n}")).collect();
        let name = |n: u64| names[n as usize % count].as_str();
        rows.push((count, "arc-swap, no name, no expiry (the limit)", arc_swap(count)));
        rows.push((count, "keyreeve, by handle", keyreeve_handle(runtime, count)));
        rows.push((count, "keyreeve, by name", keyreeve_name(runtime, count, &name)));
        rows.push((count, "moka::future", moka(count, &name)));
        rows.push((count, "multistore-oidc-provider cache", multistore(count, &name)));
        rows.push((count, "aws-smithy-runtime lazy identity cache", smithy(count)));
    }
    let labels: Vec<&str> = rows.iter().filter(|row| row.0 == 1).map(|row| row.1).collect();
    for label in labels {
        let of = |count| rows.iter().find(|row| row.0 == count && row.1 == label).map_or(0.0, |row| row.2);
        println!("{label:<44} {:>10.1} {:>10.1}", of(1), of(1024));
    }
}

fn arc_swap(count: usize) -> f64 {
    let slots: Vec<ArcSwap<String>> = (0..count).map(|n| ArcSwap::from_pointee(token(n as u64))).collect();
    measure(2_000_000, |n| {
        black_box(slots[n as usize % count].load().len());
    })
}

fn warmed(runtime: &Runtime, count: usize) -> keyreeve::outbound::Outbound {
    let upstream = Arc::new(Upstream { calls: AtomicU64::new(0), delay: Duration::ZERO, is_failing: false });
    let outbound = outbound(count, &upstream);
    runtime.block_on(async {
        for n in 0..count {
            outbound.token(&format!("credential-{n}"), 0, FAR).await.unwrap();
        }
    });
    outbound
}

fn keyreeve_handle(runtime: &Runtime, count: usize) -> f64 {
    let outbound = warmed(runtime, count);
    let handles: Vec<_> = (0..count).map(|n| outbound.handle(&format!("credential-{n}")).unwrap()).collect();
    measure(2_000_000, |n| {
        black_box(handles[n as usize % count].get().unwrap().generation);
    })
}

fn keyreeve_name<'a>(runtime: &Runtime, count: usize, name: &(impl Fn(u64) -> &'a str + Sync)) -> f64 {
    let outbound = warmed(runtime, count);
    measure(2_000_000, |n| {
        black_box(outbound.get(name(n)).unwrap().generation);
    })
}

fn moka<'a>(count: usize, name: &(impl Fn(u64) -> &'a str + Sync)) -> f64 {
    let cache: moka::future::Cache<String, Arc<String>> =
        moka::future::Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(3600)).build();
    now(async {
        for n in 0..count {
            cache.insert(format!("credential-{n}"), Arc::new(token(n as u64))).await;
        }
    });
    measure(300_000, |n| {
        black_box(now(cache.get(name(n))).unwrap().len());
    })
}

fn multistore<'a>(count: usize, name: &(impl Fn(u64) -> &'a str + Sync)) -> f64 {
    let cache = CredentialCache::new();
    let get =
        |name: &str| now(cache.get_or_fetch(name, || async { Ok::<_, String>(multistore_credentials()) })).unwrap();
    (0..count as u64).for_each(|n| drop(get(name(n))));
    measure(300_000, |n| {
        black_box(get(name(n)).session_token.len());
    })
}

fn smithy(count: usize) -> f64 {
    let caches: Vec<Smithy> = (0..count)
        .map(|_| {
            let calls = Arc::default();
            Smithy::new(SmithyUpstream::new(&calls, Duration::ZERO, false))
        })
        .collect();
    caches.iter().for_each(|cache| drop(now(cache.get()).unwrap()));
    measure(100_000, |n| {
        black_box(now(caches[n as usize % count].get()).unwrap().expiration());
    })
}
