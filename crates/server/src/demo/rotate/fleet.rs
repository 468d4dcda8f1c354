//! The folder and the processes of one run.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::super::args::RotateArgs;
use crate::exit::{Code, Failure};
use crate::new_key::{ApiKey, fresh_hex};

/// How many nodes.
pub(super) const NODES: usize = 4;
/// The life of a token, in seconds.
pub(super) const TTL_S: u64 = 5;
/// The issuer.
pub(super) const ISSUER: &str = "demo";
/// Its `iss`.
pub(super) const URL: &str = "https://issuer.demo";
const CLIENT_SECRET: &str = "a secret of the demonstration";
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest wait for a node.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

const CONFIG: &str = r#"# Written by `keyreeve demo rotate`.
seal.keys = ["file:@FOLDER@/seal.key"]

[store]
url = "sqlite:@FOLDER@/state.db"
timeout = "1s"

[issuer.demo]
url = "https://issuer.demo"
audience = ["demo"]
ttl = "@TTL@s"
keys = { alg = "@ALG@", rotate = "@ROTATE@s", overlap = "@OVERLAP@s", poll = "100ms", max_age = "1s", skew = "500ms" }

[client.crowd]
issuer = "demo"
secret_sha256 = "@SECRET@"
can = ["client-credentials", "introspect"]

[caller.ops]
uid = @UID@
can = ["keys", "rotate", "retire"]
issuers = ["demo"]
"#;

/// All nodes. Dropping it kills them.
pub(super) struct Fleet {
    folder: tempfile::TempDir,
    children: Vec<Mutex<Option<Child>>>,
    pub(super) rotate_s: u64,
    pub(super) overlap_s: u64,
}

/// The way to one node.
#[derive(Clone)]
pub(super) struct End {
    pub(super) http: reqwest::Client,
}

pub(super) fn node_name(node: usize) -> String {
    format!("node-{}", node.saturating_add(1))
}

impl Fleet {
    pub(super) fn start(args: &RotateArgs) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keyreeve-demo-").disable_cleanup(args.keep).tempdir()?;
        let (rotate_s, overlap_s) = ((args.seconds / 8).max(6), 3);
        let secret = ApiKey::from_text(CLIENT_SECRET.to_owned());
        let seal_key = fresh_hex().map_err(|failure| io::Error::other(failure.message))?;
        write_private(&folder.path().join("seal.key"), seal_key.expose().as_bytes())?;
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(folder.path())?);
        let config = CONFIG
            .replace("@FOLDER@", &folder.path().display().to_string())
            .replace("@TTL@", &TTL_S.to_string())
            .replace("@ALG@", &args.alg)
            .replace("@ROTATE@", &rotate_s.to_string())
            .replace("@OVERLAP@", &overlap_s.to_string())
            .replace("@SECRET@", &secret.sha256)
            .replace("@UID@", &uid.to_string());
        let children = (0..NODES).map(|_| Mutex::new(None)).collect();
        let fleet = Self { folder, children, rotate_s, overlap_s };
        for node in 0..NODES {
            std::fs::create_dir(fleet.faults(node))?;
            let socket = fleet.socket(node);
            let bind = format!("\n[[listener]]\nbind = \"unix:{}\"\nserve = [\"api\", \"oauth2\"]\n", socket.display());
            write_private(&fleet.path(node, "toml"), format!("{config}{bind}").as_bytes())?;
            fleet.spawn(node)?;
        }
        Ok(fleet)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, node: usize, kind: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{kind}", node_name(node)))
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.path(node, "sock")
    }

    /// The folder with a node's fault switches.
    fn faults(&self, node: usize) -> PathBuf {
        self.path(node, "faults")
    }

    /// Sets a node's fault switch, or takes it away.
    pub(super) fn switch(&self, node: usize, name: &str, value: Option<&str>) -> io::Result<()> {
        let file = self.faults(node).join(name);
        match value {
            Some(value) => std::fs::write(file, value),
            None => std::fs::remove_file(file),
        }
    }

    /// Starts one node, in a new life.
    pub(super) fn spawn(&self, node: usize) -> io::Result<()> {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path(node, "log"))?;
        // A dead node's socket file would keep its successor from listening.
        match std::fs::remove_file(self.socket(node)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(self.path(node, "toml"))
            .args(["--node", &node_name(node)])
            .env("KEYREEVE_TEST_FAULTS", self.faults(node))
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

    pub(super) fn ends(&self) -> Result<Vec<End>, reqwest::Error> {
        let end = |node| {
            let http = reqwest::Client::builder().no_proxy().unix_socket(self.socket(node)).timeout(NODE_TIMEOUT);
            Ok(End { http: http.build()? })
        };
        (0..NODES).map(end).collect()
    }

    pub(super) async fn wait_until_ready(&self) -> Result<(), Failure> {
        let unready = |text: String| Failure::new(Code::Unavailable, text);
        let ends = self.ends().map_err(|error| unready(error.to_string()))?;
        let until = Instant::now() + READY_WITHIN;
        for (node, end) in ends.iter().enumerate() {
            while end.token().await.is_err() {
                if Instant::now() > until {
                    let log = std::fs::read_to_string(self.path(node, "log")).unwrap_or_default();
                    let last = log.lines().last().unwrap_or("nothing").to_owned();
                    return Err(unready(format!("{} signs nothing", node_name(node)))
                        .hint(&format!("its log ends with: {last}")));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }
}

/// Why a node gave no answer to judge by.
pub(super) enum Silence {
    /// No connection, or none that lasted.
    Unreachable,
    /// It says that it cannot answer now.
    Unavailable,
    /// Something else, which is a fault of this demonstration or of keyreeve.
    Strange(String),
}

impl End {
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<Value, Silence> {
        let body: String = form.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let request = self
            .http
            .post(format!("http://node{path}"))
            .basic_auth("crowd", Some(CLIENT_SECRET))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        Self::answer(request).await
    }

    async fn answer(request: reqwest::RequestBuilder) -> Result<Value, Silence> {
        let answer = request.send().await.map_err(|_| Silence::Unreachable)?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(|_| Silence::Unreachable)?;
        match status {
            200 | 202 => serde_json::from_slice(&body).map_err(|error| Silence::Strange(error.to_string())),
            503 => Err(Silence::Unavailable),
            other => Err(Silence::Strange(format!("{other} {}", String::from_utf8_lossy(&body)))),
        }
    }

    /// A fresh token.
    pub(super) async fn token(&self) -> Result<String, Silence> {
        let answer = self.post("/oauth2/token", &[("grant_type", "client_credentials")]).await?;
        let token = answer.get("access_token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| Silence::Strange("no token in the answer".to_owned()))
    }

    /// Whether the node takes a token.
    pub(super) async fn accepts(&self, token: &str) -> Result<bool, Silence> {
        let answer = self.post("/oauth2/introspect", &[("token", token)]).await?;
        Ok(answer.get("active") == Some(&Value::Bool(true)))
    }

    pub(super) async fn keys(&self) -> Result<String, Silence> {
        let answer = Self::answer(self.http.get("http://node/.well-known/jwks.json")).await?;
        Ok(answer.to_string())
    }

    /// What the node says about the issuer.
    pub(super) async fn state(&self) -> Result<Value, Silence> {
        Self::answer(self.http.get(format!("http://node/v1/issuers/{ISSUER}"))).await
    }

    pub(super) async fn rotate(&self) -> Result<Value, Silence> {
        let request = self.http.post(format!("http://node/v1/issuers/{ISSUER}/rotate"));
        Self::answer(request.header("content-type", "application/json").body("{}")).await
    }

    pub(super) async fn retire(&self, kid: &str) -> Result<Value, Silence> {
        let request = self.http.post(format!("http://node/v1/issuers/{ISSUER}/retire"));
        Self::answer(request.header("content-type", "application/json").body(json!({ "kid": kid }).to_string())).await
    }
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}
