//! Memory of a process that holds and serves 100,000 credentials, each with a token of APNs size, minted through a SQLite
//! file.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::StreamExt as _;
use keyreeve::engine::sqlite::{Options, Sqlite};
use tokio::runtime::Runtime;

use crate::fleet::{FAR, Upstream, outbound_over};

const COUNT: usize = 100_000;
const AT_ONCE: usize = 256;

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

pub fn run(runtime: &Runtime) {
    let folder = std::env::temp_dir().join(format!("keyreeve-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    measure(runtime, &folder.join("state.db"));
    std::fs::remove_dir_all(folder).unwrap();
}

fn measure(runtime: &Runtime, file: &Path) {
    let _entered = runtime.enter();
    let before = resident_mib();
    let upstream = Arc::new(Upstream { calls: AtomicU64::new(0), delay: Duration::ZERO, is_failing: false });
    let register = Arc::new(Sqlite::open(file, Options::default()).unwrap());
    let outbound = outbound_over(register, COUNT, &upstream);
    runtime.block_on(async {
        futures::stream::iter(0..COUNT)
            .for_each_concurrent(AT_ONCE, |n| {
                let outbound = outbound.clone();
                async move { drop(outbound.token(&format!("credential-{n}"), 0, FAR).await.unwrap()) }
            })
            .await;
    });
    let served = (0..COUNT).filter(|n| outbound.get(&format!("credential-{n}")).is_some()).count();
    println!("{served} credentials served; resident {:.0} MiB, of which {before:.0} MiB before them", resident_mib());
}
