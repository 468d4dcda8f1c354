//! A folder, and nodes that run in it: started, killed by their id, and never left behind.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::exit::{Code, Failure};
use crate::new_key::fresh_hex;

const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The nodes of one run, and their seal key. Dropping them kills them, and removes the folder.
pub(super) struct Processes {
    folder: tempfile::TempDir,
    children: Vec<Mutex<Option<Child>>>,
    ends: Vec<End>,
}

/// The way to one node, over its Unix socket.
#[derive(Clone)]
pub(super) struct End(reqwest::Client);

/// An answer of a node: its status, and its body, which is JSON.
pub(super) type Answer = (u16, Value);

pub(super) fn node_name(node: usize) -> String {
    format!("node-{}", node.saturating_add(1))
}

impl Processes {
    /// Makes the folder, and a way to each of `count` nodes that are not started yet. `timeout` is the longest wait for one.
    pub(super) fn new(count: usize, timeout: Duration, is_kept: bool) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keyreeve-demo-").disable_cleanup(is_kept).tempdir()?;
        let children = (0..count).map(|_| Mutex::new(None)).collect();
        let mut processes = Self { folder, children, ends: Vec::new() };
        for node in 0..count {
            std::fs::create_dir(processes.path(node, "faults"))?;
            processes.ends.push(End::at(&processes.path(node, "sock"), timeout)?);
        }
        let seal_key = fresh_hex().map_err(|failure| io::Error::other(failure.message))?;
        processes.write_private("seal.key", seal_key.expose().as_bytes())?;
        Ok(processes)
    }

    /// A configuration for all nodes: `@FOLDER@` and `@UID@` of `template` are this folder, and the uid that the nodes know
    /// their callers by; `words` are the others.
    pub(super) fn config(&self, template: &str, words: &[(&str, &str)]) -> io::Result<String> {
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(self.folder())?).to_string();
        let folder = self.folder().display().to_string();
        let all = words.iter().copied().chain([("@FOLDER@", folder.as_str()), ("@UID@", uid.as_str())]);
        Ok(all.fold(template.to_owned(), |text, (word, meaning)| text.replace(word, meaning)))
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn count(&self) -> usize {
        self.children.len()
    }

    pub(super) fn ends(&self) -> &[End] {
        &self.ends
    }

    /// A file of a node: its `sock`, its `log`, its `toml`.
    pub(super) fn path(&self, node: usize, kind: &str) -> PathBuf {
        self.folder().join(format!("{}.{kind}", node_name(node)))
    }

    /// Writes a file that only its owner can read, over an older one.
    pub(super) fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.folder().join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, bytes)?;
        Ok(path)
    }

    /// Sets a fault switch of a node, or takes it away.
    pub(super) fn switch(&self, node: usize, name: &str, value: Option<&str>) -> io::Result<()> {
        let file = self.path(node, "faults").join(name);
        match value {
            Some(value) => std::fs::write(file, value),
            None => std::fs::remove_file(file),
        }
    }

    /// Gives every node this configuration, with a socket of its own that serves these surfaces, and starts it.
    pub(super) fn start(&self, config: &str, serve: &[&str]) -> io::Result<()> {
        (0..self.count()).try_for_each(|node| self.start_one(node, config, serve))
    }

    /// The same for one node.
    pub(super) fn start_one(&self, node: usize, config: &str, serve: &[&str]) -> io::Result<()> {
        let socket = self.path(node, "sock");
        let bind = format!("\n[[listener]]\nbind = \"unix:{}\"\nserve = {serve:?}\n", socket.display());
        self.write_private(&format!("{}.toml", node_name(node)), format!("{config}{bind}").as_bytes())?;
        self.spawn(node)
    }

    /// Starts one node, in a new life.
    pub(super) fn spawn(&self, node: usize) -> io::Result<()> {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path(node, "log"))?;
        // A dead node's socket file would keep its successor from listening.
        match std::fs::remove_file(self.path(node, "sock")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(self.path(node, "toml"))
            .args(["--node", &node_name(node)])
            .env("KEYREEVE_TEST_FAULTS", self.path(node, "faults"))
            // Many small processes on one machine: two threads each are plenty.
            .env("TOKIO_WORKER_THREADS", "2")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C in the terminal goes to the whole group; the nodes are ended in their own order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(slot) = self.children.get(node) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        }
        Ok(())
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    pub(super) async fn kill(&self, node: usize) -> io::Result<()> {
        let child = self.children.get(node).and_then(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).take());
        match child {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Waits until every node tells of credentials.
    pub(super) async fn wait_for_all(&self) -> Result<(), Failure> {
        for node in 0..self.count() {
            self.wait_for(node, End::lists_credentials).await?;
        }
        Ok(())
    }

    /// Waits until `node` does what shows that it is ready.
    pub(super) async fn wait_for(&self, node: usize, is_ready: impl AsyncFn(&End) -> bool) -> Result<(), Failure> {
        let Some(end) = self.ends.get(node) else { return Ok(()) };
        let until = Instant::now() + READY_WITHIN;
        while !is_ready(end).await {
            if Instant::now() > until {
                let log = std::fs::read_to_string(self.path(node, "log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("nothing").to_owned();
                let failure = Failure::new(Code::Unavailable, format!("{} does not get ready", node_name(node)));
                return Err(failure.hint(&format!("its log ends with: {last}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl End {
    /// The way to whatever listens on this Unix socket. `timeout` is the longest wait for an answer.
    pub(super) fn at(socket: &Path, timeout: Duration) -> io::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().unix_socket(socket).timeout(timeout);
        Ok(Self(http.build().map_err(io::Error::other)?))
    }

    /// Whether the node tells of credentials.
    pub(super) async fn lists_credentials(&self) -> bool {
        self.get("/v1/credentials").await.is_some_and(|(status, _)| status == 200)
    }

    /// A request to the node, for [`answer`](Self::answer).
    pub(super) fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        self.0.request(method, format!("http://node{path}"))
    }

    /// `None` where no answer came.
    pub(super) async fn get(&self, path: &str) -> Option<Answer> {
        Self::answer(self.request(http::Method::GET, path)).await
    }

    /// As [`get`](Self::get).
    pub(super) async fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        let request = self.request(http::Method::POST, path);
        Self::answer(request.header("content-type", "application/json").body(body.to_string())).await
    }

    /// What a page says, where it is there.
    pub(super) async fn text(&self, path: &str) -> Option<String> {
        let answer = self.0.get(format!("http://node{path}")).send().await.ok()?;
        answer.text().await.ok()
    }

    /// A new access token for `target`.
    pub(super) async fn new_token(&self, target: &str, alias: &str) -> io::Result<String> {
        let made = self.post("/v1/tokens", &json!({ "target": target, "alias": alias })).await;
        let text = made.as_ref().and_then(|(_, made)| made.get("token")?.as_str());
        text.map(str::to_owned).ok_or_else(|| io::Error::other(format!("no access token was made: {made:?}")))
    }

    /// Revokes a token. The answer has its id and the moment of the writing.
    pub(super) async fn revoke(&self, token: &str) -> Option<Value> {
        let answer = self.post("/v1/revocations", &json!({ "token": token })).await;
        answer.filter(|(status, _)| *status == 202).map(|(_, body)| body)
    }

    /// The receipts of a revocation, when all nodes have one or `wait` is over.
    pub(super) async fn receipts(&self, id: &str, wait: &str) -> Option<Value> {
        let answer = self.get(&format!("/v1/revocations/{id}?wait={wait}")).await;
        answer.filter(|(status, _)| *status == 200).map(|(_, body)| body)
    }

    /// What a proxy is answered that has a request with this token before it.
    pub(super) async fn pass(&self, gate: &str, token: &str) -> Option<u16> {
        let request = self.0.get(format!("http://node{gate}")).bearer_auth(token);
        let request = request.header("x-original-method", "GET").header("x-original-uri", "/");
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        // To its end, so that the connection can be used again.
        answer.bytes().await.ok()?;
        Some(status)
    }

    /// As [`get`](Self::get).
    pub(super) async fn answer(request: reqwest::RequestBuilder) -> Option<Answer> {
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.ok()?;
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}
