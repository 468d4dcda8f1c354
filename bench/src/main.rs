//! keyreeve beside its peers, in one run, so that the ratios hold whatever the machine is doing.
//!
//! ```text
//! cargo run --release -- warm   time of one warm get, two threads, 1 and 1,024 credentials
//! cargo run --release -- cold   upstream calls for 1,000 cold callers, answering and failing
//! cargo run --release -- renew  what callers are told when a renewal fails while the old credential is valid
//! cargo run --release -- rss    memory for 100,000 credentials
//! cargo run --release -- jwt [ALG..]   tokens per CPU second, beside jsonwebtoken, jwt-simple and the raw libraries
//! cargo run --release -- http --keyreeve PATH      GET /token beside a bare hyper "hello"
//! cargo run --release -- auth --keyreeve PATH      a gate beside a bare hyper "hello", and what a remembered token costs
//! cargo run --release -- gate --keyreeve PATH      an artifact gate beside a file server, nginx and the peer's way
//! cargo run --release -- callers --keyreeve PATH   what 5,000 cold callers of 50 processes wait
//! ```

mod auth;
mod callers;
mod cold;
mod fleet;
mod gate;
mod http;
mod jwt;
mod jwt_peers;
mod peers;
mod renew;
mod rss;
mod warm;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["warm"] => warm::run(&runtime),
        ["cold"] => runtime.block_on(cold::run()),
        ["renew"] => runtime.block_on(renew::run()),
        ["rss"] => rss::run(&runtime),
        ["jwt", only @ ..] => jwt::run(only),
        ["http", "--keyreeve", binary] => http::run(&runtime, binary.as_ref()),
        ["auth", "--keyreeve", binary] => auth::run(&runtime, binary.as_ref()),
        ["gate", "--keyreeve", binary] => gate::run(&runtime, binary.as_ref()),
        ["callers", "--keyreeve", binary] => runtime.block_on(callers::run(binary.as_ref())),
        // What `http` and `auth` start as the process beside keyreeve.
        ["hello"] => runtime.block_on(http::hello()),
        // What `gate` starts.
        ["files", root] => runtime.block_on(gate::files(root.into())),
        _ => {
            eprintln!("usage: keyreeve-bench warm|cold|renew|rss, jwt [ALG..], or http|auth|gate|callers --keyreeve PATH");
            std::process::exit(2);
        }
    }
}
