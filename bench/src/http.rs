//! `GET /v1/credentials/{name}/token` on a real keyreeve process beside a bare hyper "hello" process, by requests per
//! second and by CPU time per request, with the same load in turn.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);

/// A server that does nothing but what hyper needs to answer.
pub async fn hello() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(hyper::Response::new(http_body_util::Full::new(
                    bytes::Bytes::from_static(b"hello"),
                )))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

pub struct Server {
    pub child: Child,
    pub address: String,
    pub request: Vec<u8>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn start(command: Command) -> (Child, String) {
    let (child, mut addresses) = start_with(command, 1);
    (child, addresses.remove(0))
}

/// Starts a server that says where it listens, in as many lines.
pub fn start_with(mut command: Command, count: usize) -> (Child, Vec<String>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.by_ref().map(Result::unwrap);
    let addresses: Vec<String> =
        said.filter_map(|line| line.strip_prefix("listening on http://").map(str::to_owned)).take(count).collect();
    assert_eq!(addresses.len(), count, "it did not start");
    std::thread::spawn(move || lines.for_each(drop));
    (child, addresses)
}

/// The bare server, as a process of its own.
pub fn hello_server() -> Server {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("hello");
    let (child, address) = start(command);
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes();
    Server { child, address, request }
}

pub fn run(runtime: &Runtime, binary: &Path) {
    let folder = std::env::temp_dir().join(format!("keyreeve-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(binary);
    command.args(["dev", "--bind", "127.0.0.1:0", "--data"]).arg(&folder);
    let (child, address) = start(command);
    let dev = wait_for(&folder.join("dev.json"));
    let request = format!(
        "GET /v1/credentials/{}/token HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n",
        field(&dev, "credential"),
        field(&dev, "api_key")
    );
    let keyreeve = Server { child, address, request: request.into_bytes() };
    let hello = hello_server();

    beside_hello(runtime, ("keyreeve GET /token", &keyreeve), &hello);
    drop((keyreeve, hello));
    let _ = std::fs::remove_dir_all(folder);
}

/// What one round of load gave.
pub struct Load {
    pub per_second: f64,
    pub cpu_us: f64,
}

/// Loads a server of ours and a bare one in turn, and prints what an answer of each costs: the bare one asked with the very
/// same bytes, and with as few as there can be.
pub fn beside_hello(runtime: &Runtime, (name, ours): (&str, &Server), hello: &Server) {
    let mut rows = Vec::new();
    for round in 0..=ROUNDS {
        let row = [
            load(runtime, ours, &ours.request, 200),
            load(runtime, hello, &ours.request, 200),
            load(runtime, hello, &hello.request, 200),
        ];
        // The first round warms up.
        if round > 0 {
            rows.push(row);
        }
    }
    let of = |pick: &dyn Fn(&[Load; 3]) -> f64| {
        let mut values: Vec<f64> = rows.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let seconds = ROUND.as_secs();
    println!("{name} beside a bare hyper hello, {CONNECTIONS} connections, median of {ROUNDS} rounds of {seconds} s\n");
    println!("{:<32} {:>10} {:>15} {:>16} {:>9}", "", "requests/s", "CPU us/request", "by requests/s", "by CPU");
    let names = [name, "bare hyper, the same request", "bare hyper, the least request"];
    for (at, name) in names.into_iter().enumerate() {
        println!(
            "{name:<32} {:>10.0} {:>15.1} {:>16.2} {:>9.2}",
            of(&|row| row[at].per_second),
            of(&|row| row[at].cpu_us),
            of(&|row| row[0].per_second / row[at].per_second),
            of(&|row| row[at].cpu_us / row[0].cpu_us)
        );
    }
}

/// User and system time of a process, in microseconds.
pub fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 10_000.0
}

/// Asks the same again and again, from all connections; each answer has to have this status.
pub fn load(runtime: &Runtime, server: &Server, request: &[u8], status: u16) -> Load {
    let done = Arc::new(AtomicU64::new(0));
    let before = cpu_us(server.child.id());
    let start = Instant::now();
    runtime.block_on(async {
        let connections = (0..CONNECTIONS).map(|_| {
            let (address, request, done) = (server.address.clone(), request.to_vec(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut answer = vec![0; 16 * 1024];
                while start.elapsed() < ROUND {
                    stream.write_all(&request).await.unwrap();
                    read_answer(&mut stream, &mut answer, status).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        futures::future::join_all(connections).await.into_iter().for_each(Result::unwrap);
    });
    let requests = done.load(Ordering::Relaxed) as f64;
    let elapsed = start.elapsed().as_secs_f64();
    Load { per_second: requests / elapsed, cpu_us: (cpu_us(server.child.id()) - before) / requests }
}

/// Reads one answer, which has to have this status, and gives its length with its head.
pub async fn read_answer(stream: &mut tokio::net::TcpStream, buffer: &mut [u8], status: u16) -> usize {
    let mut have = 0;
    loop {
        let count = stream.read(&mut buffer[have..]).await.unwrap();
        assert!(count > 0, "the server closed the connection");
        have += count;
        let text = &buffer[..have];
        let Some(head) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head_text = std::str::from_utf8(&text[..head]).unwrap().to_ascii_lowercase();
        assert!(head_text.starts_with(&format!("http/1.1 {status}")), "{head_text}");
        let length = head_text.lines().find_map(|line| line.strip_prefix("content-length: "));
        // RFC 9110 15.4.5: a 304 has no body, whatever length it names.
        let length: usize = if status == 304 { 0 } else { length.unwrap().trim().parse().unwrap() };
        if have >= head + 4 + length {
            return have;
        }
    }
}

fn wait_for(path: &Path) -> String {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim_end().ends_with('}') => return text,
            _ if Instant::now() > until => panic!("{} did not appear", path.display()),
            _ => std::thread::yield_now(),
        }
    }
}

fn field(json: &str, name: &str) -> String {
    let (_, rest) = json.split_once(&format!("\"{name}\"")).unwrap();
    rest.split('"').nth(1).unwrap().to_owned()
}
