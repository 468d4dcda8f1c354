//! An artifact gate of a real keyreeve process beside a bare hyper file server, nginx with an `auth_request` that always
//! agrees, and a Node worker in the peer's style, by CPU time per request; what a key costs that nobody has shown before; how
//! much memory a large object takes; and whether the time of a refusal tells its reason.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use tokio::runtime::Runtime;

use crate::http::{Load, Server, cpu_us, load, read_answer, start, start_with};

const TARGET: &str = "6cf03e4f-9d2c-4f3a-8a44-0d6a5b1f7e10";
/// The target of a large artifact.
const LARGE: &str = "6cf03e4f-9d2c-4f3a-8a44-0d6a5b1f7e11";
/// An artifact of 5 kB.
const BODY_BYTES: usize = 5000;
/// Keys that nobody has shown before.
const COLD: usize = 2000;
/// Imported keys, each of which costs a bcrypt of cost 10 here as well.
const COLD_IMPORTED: usize = 100;
const ROUNDS: usize = 5;
const GIB: u64 = 1 << 30;

pub fn run(runtime: &Runtime, binary: &Path) {
    let folder = std::env::temp_dir().join(format!("keyreeve-bench-gate-{}", std::process::id()));
    let root = folder.join("objects");
    let artifacts = root.join("artifact").join(TARGET);
    std::fs::create_dir_all(&artifacts).unwrap();
    std::fs::write(artifacts.join("supergraph"), vec![b'x'; BODY_BYTES]).unwrap();
    let large = root.join("artifact").join(LARGE);
    std::fs::create_dir_all(&large).unwrap();
    std::fs::File::create(large.join("supergraph")).unwrap().set_len(GIB).unwrap();
    let imported = import(&root);
    let ours = keyreeve(binary, &folder, &root);
    let servers = [("bare hyper, files", bare(&root)), ("nginx, auth_request", nginx(&folder, &root)), ("node, the peer's way", node(&root))];
    println!("medians of {ROUNDS} rounds; an artifact of {BODY_BYTES} bytes\n");
    println!("{:<12} {:<28} {:>10} {:>15} {:>16} {:>9}", "", "", "requests/s", "CPU us/request", "by requests/s", "by CPU");
    loaded(runtime, &ours, &servers, &imported);
    cold(runtime, &ours, &servers[2].1, &imported);
    let large = get(&ours.gate, &format!("/artifacts/v1/{LARGE}/supergraph"), &header(&ours.token(LARGE).0));
    let (before, most) = stream(&ours.gate, &large);
    println!("\n1 GiB streamed: {:.1} MiB of memory before, {:.1} at the most", mib(before), mib(most));
    timing(&ours);
    drop((ours, servers));
    let _ = std::fs::remove_dir_all(folder);
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn header(token: &str) -> String {
    format!("x-hive-cdn-key: {token}\r\n")
}

/// Warm requests: the artifact, the same to who has it already, and to who may not have it.
fn loaded(runtime: &Runtime, ours: &Keyreeve, servers: &[(&str, Server)], imported: &[String]) {
    let token = ours.token(TARGET).0;
    let path = format!("/artifacts/v1/{TARGET}/supergraph");
    let file = format!("/artifact/{TARGET}/supergraph");
    // Who may have it, who has it already, and who may not: at keyreeve, and at the peer.
    let asked = |more: &dyn Fn(&Server, &[u8]) -> String| {
        let mut asked = Vec::new();
        let plain = get(&ours.gate, &path, &header(&token));
        asked.push(("keyreeve", &ours.gate, get(&ours.gate, &path, &(header(&token) + &more(&ours.gate, &plain)))));
        for (name, server) in servers {
            let (path, key) = if *name == "node, the peer's way" { (&path, header(&imported[0])) } else { (&file, String::new()) };
            let plain = get(server, path, &key);
            asked.push((*name, server, get(server, path, &(key + &more(server, &plain)))));
        }
        asked
    };
    case(runtime, &Case { name: "warm 200", status: 200, asked: asked(&|_, _| String::new()) });
    let tag = |server: &Server, plain: &[u8]| format!("if-none-match: {}\r\n", etag(server, plain));
    case(runtime, &Case { name: "warm 304", status: 304, asked: asked(&tag) });
    let wrong = other(&token, 7, false);
    let node = &servers[2].1;
    let (refused, theirs) = (get(&ours.gate, &path, &header(&wrong)), get(node, &path, &header(&wrong_hv2())));
    let asked = vec![("keyreeve", &ours.gate, refused), (servers[2].0, node, theirs)];
    case(runtime, &Case { name: "refusal", status: 403, asked });
}

/// Keys that nobody has shown before: each costs a look into the store.
fn cold(runtime: &Runtime, ours: &Keyreeve, node: &Server, imported: &[String]) {
    let path = format!("/artifacts/v1/{TARGET}/supergraph");
    let tokens: Vec<String> = (0..COLD).map(|_| ours.token(TARGET).0).collect();
    let of = |server: &Server, keys: &[String]| -> Vec<Vec<u8>> { keys.iter().map(|key| get(server, &path, &header(key))).collect() };
    let native = once_each(runtime, &ours.gate, &of(&ours.gate, &tokens), 200);
    println!("\n{COLD} native tokens, each for the first time: {native:.0} us of CPU each");
    let first = once_each(runtime, &ours.gate, &of(&ours.gate, &imported[1..]), 200);
    let again = once_each(runtime, &ours.gate, &of(&ours.gate, &imported[1..]), 200);
    let peer = once_each(runtime, node, &of(node, &imported[1..]), 200);
    println!("{} imported hv2 tokens: {first:.0} us of CPU each, {again:.0} the second time; the peer {peer:.0}", imported.len() - 1);
}

/// A server of files that does nothing else: the least that an artifact can cost.
pub async fn files(root: PathBuf) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    let root: &'static Path = Box::leak(root.into_boxed_path());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: hyper::Request<_>| async move {
                Ok::<_, std::convert::Infallible>(file(root, &request))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

/// Reads the file on the spot: a thread for it would cost more. Its entity tag is fixed.
fn file(root: &Path, request: &hyper::Request<hyper::body::Incoming>) -> hyper::Response<http_body_util::Full<bytes::Bytes>> {
    let answer = hyper::Response::builder().header("etag", "\"same\"");
    let body = |bytes: Vec<u8>| http_body_util::Full::new(bytes::Bytes::from(bytes));
    if request.headers().get("if-none-match").is_some_and(|tag| tag == "\"same\"") {
        return answer.status(304).body(body(Vec::new())).unwrap();
    }
    match std::fs::read(root.join(request.uri().path().trim_start_matches('/'))) {
        Ok(bytes) => answer.header("content-type", "text/plain").body(body(bytes)).unwrap(),
        Err(_) => answer.status(404).body(body(Vec::new())).unwrap(),
    }
}

fn get(server: &Server, path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", server.address).into_bytes()
}

/// The entity tag that a server gives this artifact.
fn etag(server: &Server, request: &[u8]) -> String {
    let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the server closed the connection");
        answer.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&answer);
    let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with("etag:"));
    line.expect("an entity tag").split_once(':').unwrap().1.trim().to_owned()
}

/// nginx with one process, and an `auth_request` that it answers itself.
fn nginx(folder: &Path, root: &Path) -> Server {
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let at = folder.display();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log warn;\n\
         events {{ worker_connections 256; }}\nhttp {{ access_log off; keepalive_requests 100000000; etag on; tcp_nodelay on;\n\
         client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
         uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi; default_type text/plain;\n\
         server {{ listen {address}; root {};\n location / {{ auth_request /agrees; }}\n\
         location = /agrees {{ internal; return 204; }}\n }}\n}}\n",
        root.display()
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.expect("nginx is missing: scripts/setup installs it"));
    command.arg("-p").arg(folder).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let began = Instant::now();
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "nginx does not listen");
        std::thread::yield_now();
    }
    Server { child, address, request: Vec::new() }
}

fn node(root: &Path) -> Server {
    let mut command = Command::new("node");
    command.arg("gate.mjs").arg(root);
    let (child, address) = start(command);
    Server { child, address, request: Vec::new() }
}

fn bare(root: &Path) -> Server {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("files").arg(root);
    let (child, address) = start(command);
    Server { child, address, request: Vec::new() }
}

/// Sends each request once, in turn over four connections, and gives the CPU time of each in microseconds.
fn once_each(runtime: &Runtime, server: &Server, requests: &[Vec<u8>], status: u16) -> f64 {
    let before = cpu_us(server.child.id());
    runtime.block_on(async {
        let connections = (0..4).map(|lane| {
            let address = server.address.clone();
            let mine: Vec<Vec<u8>> = requests.iter().skip(lane).step_by(4).cloned().collect();
            tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut answer = vec![0; 16 * 1024];
                for request in mine {
                    tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.unwrap();
                    read_answer(&mut stream, &mut answer, status).await;
                }
            })
        });
        futures::future::join_all(connections).await.into_iter().for_each(Result::unwrap);
    });
    (cpu_us(server.child.id()) - before) / requests.len() as f64
}

/// One kind of request, asked of each server that knows it.
struct Case<'a> {
    name: &'a str,
    status: u16,
    asked: Vec<(&'a str, &'a Server, Vec<u8>)>,
}

/// Loads all servers of a case in turn, and prints medians.
fn case(runtime: &Runtime, case: &Case<'_>) {
    let mut rows: Vec<Vec<Load>> = Vec::new();
    for round in 0..=ROUNDS {
        let row = case.asked.iter().map(|(_, server, request)| load(runtime, server, request, case.status)).collect();
        // The first round warms up.
        if round > 0 {
            rows.push(row);
        }
    }
    let of = |pick: &dyn Fn(&Vec<Load>) -> f64| {
        let mut values: Vec<f64> = rows.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (at, (name, ..)) in case.asked.iter().enumerate() {
        println!(
            "{:<12} {name:<28} {:>10.0} {:>15.1} {:>16.2} {:>9.2}",
            case.name,
            of(&|row| row[at].per_second),
            of(&|row| row[at].cpu_us),
            of(&|row| row[0].per_second / row[at].per_second),
            of(&|row| row[at].cpu_us / row[0].cpu_us)
        );
    }
}

/// Memory that a process holds, in bytes.
fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Reads a whole object slowly enough that a server which does not wait would have to keep it.
fn stream(server: &Server, request: &[u8]) -> (u64, u64) {
    let before = rss(server.child.id());
    let mut most = before;
    let mut connection = std::net::TcpStream::connect(&server.address).unwrap();
    connection.write_all(request).unwrap();
    let (mut buffer, mut total) = (vec![0; 256 * 1024], 0_u64);
    while total < GIB {
        let count = connection.read(&mut buffer).unwrap() as u64;
        assert!(count > 0, "the object ended after {total} bytes");
        if total / (16 << 20) != (total + count) / (16 << 20) {
            most = most.max(rss(server.child.id()));
        }
        total += count;
    }
    (before, most)
}

/// Welch's t of two samples: beyond 4.5 either way they are taken to be different (dudect).
fn welch(one: &[f64], two: &[f64]) -> f64 {
    let moments = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
        (mean, variance / values.len() as f64)
    };
    let ((mean_one, error_one), (mean_two, error_two)) = (moments(one), moments(two));
    (mean_one - mean_two) / (error_one + error_two).sqrt()
}

/// A keyreeve process with an API and a gate, and a caller who may make tokens.
struct Keyreeve {
    api: String,
    key: String,
    gate: Server,
}

fn keyreeve(binary: &Path, folder: &Path, root: &Path) -> Keyreeve {
    let made = |arguments: &[&str]| Command::new(binary).args(arguments).output().unwrap().stdout;
    let caller: serde_json::Value = serde_json::from_slice(&made(&["config", "new-key", "bench", "--json"])).unwrap();
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(folder.join("seal.key")).unwrap();
    file.write_all(&made(&["config", "new-seal-key"])).unwrap();
    let config = folder.join("keyreeve.toml");
    let text = CONFIG
        .replace("ROOT", &root.display().to_string())
        .replace("FOLDER", &folder.display().to_string())
        .replace("HASH", caller["key_sha256"].as_str().unwrap());
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(binary);
    command.args(["serve", "-c"]).arg(&config);
    let (child, addresses) = start_with(command, 2);
    let gate = Server { child, address: addresses[1].clone(), request: Vec::new() };
    Keyreeve { api: addresses[0].clone(), key: caller["api_key"].as_str().unwrap().to_owned(), gate }
}

const CONFIG: &str = r#"
store.url = "sqlite:FOLDER/state.db"
seal.keys = ["file:FOLDER/seal.key"]
[[listener]]
bind = "127.0.0.1:0"
[caller.bench]
key_sha256 = "HASH"
can = ["tokens", "grant"]
tokens = ["cdn/*"]
[objects.files]
url = "file:ROOT"
[token.cdn]
hashes = "files"
[gate.bench]
kind = "artifact"
bind = "127.0.0.1:0"
compat = "hive"
origins = ["files"]
tokens = "cdn"
"#;

impl Keyreeve {
    /// Makes a token, or does something else by the API; gives the answer.
    fn post(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let body = body.to_string();
        let mut stream = std::net::TcpStream::connect(&self.api).unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.api, self.key, body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    /// A fresh token: its text and its id.
    fn token(&self, target: &str) -> (String, String) {
        let made = self.post("/v1/tokens", &serde_json::json!({ "target": target, "alias": "bench" }));
        (made["token"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
    }
}

/// An hv2 token of a key that is not there.
fn wrong_hv2() -> String {
    hv2("00000000-0000-4000-8000-000000000000", "0123456789abcdef")
}

fn hv2(key: &str, secret: &str) -> String {
    format!("hv2{}", base64::engine::general_purpose::STANDARD.encode(format!("{key}:{secret}")))
}

/// Tokens of a Hive installation, with their hashes where it keeps them.
fn import(root: &Path) -> Vec<String> {
    let keys = root.join("cdn-keys").join(TARGET);
    std::fs::create_dir_all(&keys).unwrap();
    let one = |number: usize| {
        let (key, secret) = (format!("3b241101-e2bb-4255-8caf-{number:012x}"), format!("{number:016x}cafe"));
        std::fs::write(keys.join(&key), bcrypt::hash_with_result(&secret, 10).unwrap().format_for_version(bcrypt::Version::TwoA)).unwrap();
        hv2(&key, &secret)
    };
    (0..COLD_IMPORTED).map(one).collect()
}

/// Whether the time of a refusal tells its reason: one connection, the reasons in an order without a pattern.
fn timing(ours: &Keyreeve) {
    const EACH: usize = 4000;
    let path = format!("/artifacts/v1/{TARGET}/supergraph");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    // Fresh texts each time, so that no verdict is remembered.
    let mut asked: Vec<(usize, Vec<u8>)> = Vec::new();
    let live: Vec<String> = (0..64).map(|_| ours.token(TARGET).0).collect();
    let revoked: Vec<String> = (0..EACH)
        .map(|_| {
            let (token, id) = ours.token(TARGET);
            ours.post(&format!("/v1/tokens/{id}/revoke"), &serde_json::json!({}));
            token
        })
        .collect();
    for at in 0..EACH {
        let text = [other(&live[at % live.len()], next(), true), other(&live[at % live.len()], next(), false), revoked[at].clone()];
        for (reason, text) in text.into_iter().enumerate() {
            asked.push((reason, get(&ours.gate, &path, &header(&text))));
        }
    }
    for at in (1..asked.len()).rev() {
        asked.swap(at, (next() % (at as u64 + 1)) as usize);
    }
    let mut took: [Vec<f64>; 3] = Default::default();
    let mut stream = std::net::TcpStream::connect(&ours.gate.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 16 * 1024];
    for (reason, request) in asked {
        let began = Instant::now();
        stream.write_all(&request).unwrap();
        let count = stream.read(&mut buffer).unwrap();
        took[reason].push(began.elapsed().as_secs_f64() * 1e6);
        assert!(buffer[..count].starts_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&buffer[..count]));
    }
    // What the machine did besides is not about reasons: the slowest twentieth of each is left out.
    for times in &mut took {
        times.sort_by(f64::total_cmp);
        times.truncate(times.len() * 19 / 20);
    }
    println!("\nrefusals, {EACH} of each, one after the other, us:");
    for (name, times) in ["unknown id", "wrong secret", "revoked"].into_iter().zip(&took) {
        println!("  {name:<14} median {:>7.1}   90 % {:>7.1}", times[times.len() / 2], times[times.len() * 9 / 10]);
    }
    for (names, one, two) in [("unknown / wrong", 0, 1), ("unknown / revoked", 0, 2), ("wrong / revoked", 1, 2)] {
        println!("  Welch's t, {names}: {:.1}", welch(&took[one], &took[two]));
    }
}

/// A well-formed token with another id, or with another secret.
fn other(token: &str, number: u64, id: bool) -> String {
    let parts: Vec<&str> = token.split('_').collect();
    let (mut key, mut secret) = (parts[1].to_owned(), parts[2].to_owned());
    let changed = format!("{number:016x}");
    if id { key.replace_range(16.., &changed) } else { secret.replace_range(..16, &changed) }
    let begun = format!("krt_{key}_{secret}");
    format!("{begun}_{:08x}", crc32fast::hash(begun.as_bytes()))
}
