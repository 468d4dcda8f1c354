//! keyreeve beside its peers, in one run, so that the ratios hold whatever the machine is doing.
//!
//! ```text
//! cargo run --release -- warm   time of one warm get, two threads, 1 and 1,024 credentials
//! cargo run --release -- cold   upstream calls for 1,000 cold callers, answering and failing
//! cargo run --release -- rss    memory for 100,000 credentials
//! cargo run --release -- jwt [ALG..]   tokens signed and verified per CPU second, beside jsonwebtoken, jwt-simple and the raw libraries
//! cargo run --release -- http --keyreeve PATH   GET /token beside a bare hyper "hello"
//! ```

mod cold;
mod fleet;
mod http;
mod jwt;
mod jwt_peers;
mod peers;
mod rss;
mod warm;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match arguments.first().map(String::as_str) {
        Some("warm") => warm::run(&runtime),
        Some("cold") => runtime.block_on(cold::run()),
        Some("rss") => rss::run(&runtime),
        Some("jwt") => jwt::run(&arguments[1..]),
        Some("http") => http::run(&runtime, &arguments[1..]),
        Some("hello") => runtime.block_on(http::hello()),
        _ => {
            eprintln!("usage: keyreeve-bench warm|cold|rss|jwt|http --keyreeve PATH");
            std::process::exit(2);
        }
    }
}
