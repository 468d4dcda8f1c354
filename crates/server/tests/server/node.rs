//! Starts, asks and ends real nodes. Each test has a folder, ports and processes of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use keyreeve::core::crypto::Crypto as _;
use keyreeve::crypto::LocalCrypto;
use p256::SecretKey;
use p256::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde_json::Value;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_keyreeve");
/// How long a test waits for anything. Everything is over far sooner; a machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with keys, in which a test keeps everything.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) api_key: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder, api_key: format!("kr_{}", random_hex()) };
        place.secret("seal.key", &random_hex());
        let key = loop {
            if let Ok(key) = SecretKey::from_slice(&random()) {
                break key;
            }
        };
        place.secret("apns.p8", &key.to_pkcs8_pem(LineEnding::LF).unwrap());
        place.secret("apns-public.pem", &key.public_key().to_public_key_pem(LineEnding::LF).unwrap());
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn secret(&self, name: &str, content: &str) -> PathBuf {
        use std::io::Write as _;
        let path = self.path(name);
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        path
    }

    /// A folder for the fault switches of one node.
    pub(crate) fn switches(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A configuration over this place's SQLite file: one listener on a free port, one caller who may do everything.
    pub(crate) fn config(&self, credentials: &str) -> PathBuf {
        let folder = self.folder.path().display();
        self.config_with(&format!("sqlite:{folder}/state.db"), &format!("[\"file:{folder}/seal.key\"]"), credentials)
    }

    pub(crate) fn config_with(&self, store: &str, seal_keys: &str, credentials: &str) -> PathBuf {
        let sha256 = hex(&LocalCrypto.sha256(&[self.api_key.as_bytes()]));
        let text = format!(
            r#"
store.url = "{store}"
seal.keys = {seal_keys}
[[listener]]
bind = "127.0.0.1:0"
[caller.test]
key_sha256 = "{sha256}"
can = ["list", "token", "report", "renew", "resolve", "history", "events", "metrics"]
credentials = ["*"]
{credentials}
"#
        );
        let path = self.path("keyreeve.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts a node and waits until it listens.
    pub(crate) fn node(&self, config: &Path, name: &str, environment: &[(&str, &str)]) -> Node {
        let mut node = self.spawn(config, name, environment);
        node.wait_until_listening();
        node
    }

    /// Starts a node and does not wait.
    pub(crate) fn spawn(&self, config: &Path, name: &str, environment: &[(&str, &str)]) -> Node {
        let log = self.path(&format!("{name}.{}.log", random_hex().get(..6).unwrap()));
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--node", name, "-c"])
            .arg(config)
            .envs(environment.iter().copied())
            .env("RUST_LOG", "debug,hyper=info,h2=info")
            .env_remove("KEYREEVE_API_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Node { child, lines, urls: Vec::new(), log, api_key: self.api_key.clone(), client: client() }
    }

    /// Runs a client command against `node`; standard output, standard error, exit code.
    pub(crate) fn cli(&self, node: &Node, args: &[&str]) -> (String, String, i32) {
        ran(Command::new(PROGRAM).args(args).env("KEYREEVE_URL", node.url()).env("KEYREEVE_API_KEY", &self.api_key))
    }
}

fn lines_of(stdout: std::process::ChildStdout) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// One running process. It is killed when the test ends, however it ends.
pub(crate) struct Node {
    child: Child,
    lines: Receiver<String>,
    urls: Vec<String>,
    pub(crate) log: PathBuf,
    api_key: String,
    client: reqwest::Client,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `keyreeve dev`, killed when the test ends.
pub(crate) struct Dev {
    child: Child,
    pub(crate) url: String,
    pub(crate) printed: String,
    pub(crate) log: PathBuf,
    api_key: String,
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    pub(crate) fn start(data: &Path, args: &[&str]) -> Self {
        let log = data.with_extension(format!("{}.log", random_hex()));
        let mut child = Command::new(PROGRAM)
            .args(["dev", "--data"])
            .arg(data)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let mut printed = String::new();
        // The last line of the introduction.
        while !printed.contains("nodes that die on purpose") {
            let line = lines.recv_timeout(PATIENCE);
            printed += &line.unwrap_or_else(|_| panic!("{printed}\n{}", fs::read_to_string(&log).unwrap()));
            printed.push('\n');
        }
        let url = printed.lines().next().unwrap().strip_prefix("listening on ").unwrap().to_owned();
        let api_key = fs::read_to_string(data.join("api.key")).unwrap();
        Self { child, url, printed, log, api_key }
    }

    /// Runs a client command against it; standard output, standard error, exit code.
    pub(crate) fn get(&self, args: &[&str]) -> (String, String, i32) {
        ran(Command::new(PROGRAM).args(args).env("KEYREEVE_URL", &self.url).env("KEYREEVE_API_KEY", &self.api_key))
    }
}

pub(crate) fn ran(command: &mut Command) -> (String, String, i32) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// A client that has not connected to anything yet. HTTP/2, so that a thousand callers are one connection.
pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).http2_prior_knowledge().timeout(PATIENCE).build().unwrap()
}

impl Node {
    pub(crate) fn wait_until_listening(&mut self) {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => self.urls.push(line.strip_prefix("listening on ").unwrap().to_owned()),
            Err(error) => panic!("the node does not listen ({error}); its log:\n{}", self.log_text()),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.urls[0]
    }

    /// Every address that it has said it listens on.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL: nothing is finished, nothing is told.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The status that the process ends with.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the process ends", async || child.try_wait().unwrap()).await
    }

    pub(crate) fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url())).bearer_auth(&self.api_key)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request(http::Method::GET, path)).await
    }

    /// Posts `body`, or nothing for null.
    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.request(http::Method::POST, path);
        if body.is_null() {
            return answer(request).await;
        }
        answer(request.header("content-type", "application/json").body(body.to_string())).await
    }

    pub(crate) async fn token(&self, name: &str) -> (u16, Value) {
        self.get(&format!("/v1/credentials/{name}/token")).await
    }

    /// The token, which has to be there.
    pub(crate) async fn token_text(&self, name: &str) -> String {
        let (status, body) = self.token(name).await;
        assert_eq!(status, 200, "{body}\n{}", self.log_text());
        body["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn history(&self, name: &str) -> Value {
        let (status, body) = self.get(&format!("/v1/credentials/{name}/history")).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn status(&self, name: &str) -> String {
        self.history(name).await["status"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn metrics(&self) -> String {
        self.request(http::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap()
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Asks again and again until there is an answer; fails after [`PATIENCE`].
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

pub(crate) fn random_hex() -> String {
    hex(&random())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An `http` credential named `up` over a counting issuer.
pub(crate) fn http_credential(mint_url: &str, more: &str) -> String {
    format!(
        r#"
[credential.up]
source = "http"
url = "{mint_url}"
map = {{ token = "/token", expires_at = "/expires_at" }}
wait = "30s"
{more}
"#
    )
}
