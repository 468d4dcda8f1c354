//! R1: 50 keyreeve processes on one SQLite file with nothing stored, 100 callers each, all asking at once. How often
//! the upstream is called, and how much longer than its answer the callers wait.
//!
//! Callers and processes are already connected, so that what is measured is the answer and not 5,000 TCP handshakes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::read_answer;

const PROCESSES: usize = 50;
const CALLERS: usize = 100;
const ROUNDS: usize = 5;
const LATENCY: Duration = Duration::from_secs(1);

pub async fn run(binary: &Path) {
    println!(
        "{PROCESSES} processes x {CALLERS} callers, nothing stored, upstream answers after {} ms; ms beyond that\n",
        LATENCY.as_millis()
    );
    println!("{:>5} {:>15} {:>9} {:>9} {:>9}", "round", "upstream calls", "p50", "p99", "slowest");
    for round in 1..=ROUNDS {
        let (calls, mut waited) = once(binary).await;
        waited.sort_unstable();
        let beyond = |at: usize| waited[at].saturating_sub(LATENCY).as_secs_f64() * 1e3;
        let last = waited.len() - 1;
        println!(
            "{round:>5} {calls:>15} {:>9.0} {:>9.0} {:>9.0}",
            beyond(waited.len() / 2),
            beyond(waited.len() * 99 / 100),
            beyond(last)
        );
    }
}

async fn once(binary: &Path) -> (u64, Vec<Duration>) {
    let calls = Arc::new(AtomicU64::new(0));
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let serving = tokio::spawn(serve(upstream, Arc::clone(&calls)));

    let folder = std::env::temp_dir().join(format!("keyreeve-bench-callers-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let made = |arguments: &[&str]| -> serde_json::Value {
        let output = Command::new(binary).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let caller = made(&["config", "new-key", "bench", "--json"]);
    let seal = made(&["config", "new-seal-key", "--json"]);
    let key = caller["api_key"].as_str().unwrap();
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(folder.join("seal.key")).unwrap();
    file.write_all(seal["seal_key"].as_str().unwrap().as_bytes()).unwrap();
    let place = folder.display();
    let config = format!(
        r#"store.url = "sqlite:{place}/state.db"
seal.keys = ["file:{place}/seal.key"]
[[listener]]
bind = "127.0.0.1:0"
[caller.bench]
key_sha256 = {sha256}
can = ["token"]
credentials = ["*"]
[credential.up]
source = "http"
url = "http://{address}/mint"
map = {{ token = "/token", expires_in = "/expires_in" }}
wait = "30s"
"#,
        sha256 = caller["key_sha256"]
    );
    fs::write(folder.join("keyreeve.toml"), config).unwrap();
    let nodes: Vec<Node> = (0..PROCESSES).map(|n| Node::start(binary, &folder, n)).collect();

    let mut connected = Vec::new();
    for node in &nodes {
        for _ in 0..CALLERS {
            let mut stream = TcpStream::connect(&node.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream
                .write_all(format!("GET /livez HTTP/1.1\r\nhost: {}\r\n\r\n", node.address).as_bytes())
                .await
                .unwrap();
            read_answer(&mut stream, &mut [0; 4096], 200).await;
            let request = format!(
                "GET /v1/credentials/up/token HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\n\r\n",
                node.address
            );
            connected.push((stream, request));
        }
    }
    let callers: Vec<_> = connected
        .into_iter()
        .map(|(mut stream, request)| {
            tokio::spawn(async move {
                let started = Instant::now();
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = [0; 4096];
                let length = read_answer(&mut stream, &mut answer, 200).await;
                let took = started.elapsed();
                assert!(answer[..length].windows(9).any(|part| part == b"\"token-1\""), "everybody gets the one token");
                // Kept open, as callers do, until all have been answered.
                (stream, took)
            })
        })
        .collect();
    let (mut waited, mut open) = (Vec::new(), Vec::new());
    for caller in callers {
        let (stream, took) = caller.await.unwrap();
        open.push(stream);
        waited.push(took);
    }
    drop(open);
    serving.abort();
    drop(nodes);
    fs::remove_dir_all(&folder).unwrap();
    (calls.load(Ordering::SeqCst), waited)
}

/// The upstream: every call is a new token, and takes [`LATENCY`].
async fn serve(listener: TcpListener, calls: Arc<AtomicU64>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let calls = Arc::clone(&calls);
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(LATENCY).await;
                let body = format!(r#"{{"token":"token-{call}","expires_in":3600}}"#);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
                if stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

struct Node {
    child: Child,
    address: String,
}

impl Node {
    fn start(binary: &Path, folder: &Path, number: usize) -> Self {
        let mut child = Command::new(binary)
            .args(["serve", "--node", &format!("n{number}"), "-c"])
            .arg(folder.join("keyreeve.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address =
            lines.find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned)).expect("it listens");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
