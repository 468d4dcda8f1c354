//! Memory for 100,000 credentials, each with a token of APNs size, all of them held and served.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::fleet::{FAR, Upstream, outbound};

const COUNT: usize = 100_000;

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

pub fn run(runtime: &Runtime) {
    let _entered = runtime.enter();
    let before = resident_mib();
    let upstream = Arc::new(Upstream { calls: AtomicU64::new(0), delay: Duration::ZERO, is_failing: false });
    let outbound = outbound(COUNT, &upstream);
    runtime.block_on(async {
        for n in 0..COUNT {
            outbound.token(&format!("credential-{n}"), 0, FAR).await.unwrap();
        }
    });
    let served = (0..COUNT).filter(|n| outbound.get(&format!("credential-{n}")).is_some()).count();
    // The memory register's records are in this process too; a node with a real store does not hold them.
    println!("{served} credentials served; resident {:.0} MiB, of which {before:.0} MiB before them", resident_mib());
    println!("this includes the memory register, which holds every sealed record as well");
}
