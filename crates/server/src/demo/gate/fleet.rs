//! The nodes, the bucket and its mirror, and what is asked of them from outside.

use std::io;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::super::args::GateArgs;
use super::super::processes::{End, Processes, node_name};
use super::bucket::{self, Bucket, Fault};
use crate::exit::Failure;

/// Settings of the configuration, in milliseconds.
pub(super) const HEDGE_MS: u64 = 150;
pub(super) const DEADLINE_MS: u64 = 2000;
pub(super) const FRESH_MS: u64 = 1000;
pub(super) const MAX_STALENESS_MS: u64 = 1000;
/// Whose artifacts are read all the time.
pub(super) const TARGET: &str = "acme";
/// Whose tokens are all taken back at once.
pub(super) const LEAVING: &str = "leaving";
/// The artifact that gets a new version.
pub(super) const SUPERGRAPH: &str = "supergraph";
/// What is read all the time.
pub(super) const KNOWN: [&str; 4] = [SUPERGRAPH, "sdl", "services", "metadata"];
/// How many artifacts are there that no node has read yet.
pub(super) const BUILDS: usize = 20_000;
/// The size of an artifact, in bytes: a small schema.
const BYTES: usize = 5000;
/// The longest wait for a node.
const NODE_TIMEOUT: Duration = Duration::from_secs(15);

const CONFIG: &str = r#"# Written by `keyreeve demo gate`.
seal.keys = ["file:@FOLDER@/seal.key"]
store.url = "sqlite:@FOLDER@/state.db"
store.timeout = "1s"

[token.cdn]

[revocation]
max_staleness = "@STALENESS@ms"

[objects.primary]
url = "s3://@BUCKET@"
endpoint = "@PRIMARY@"
account = "demo"
key = "file:@FOLDER@/bucket.key"

[objects.mirror]
url = "s3://@BUCKET@"
endpoint = "@MIRROR@"
account = "demo"
key = "file:@FOLDER@/bucket.key"

[gate.cdn]
kind = "artifact"
bind = "unix:@FOLDER@/@NODE@.gate"
origins = ["primary", "mirror"]
hedge_after = "@HEDGE@ms"
deadline = "@DEADLINE@ms"
fresh = "@FRESH@ms"
cache = "@FOLDER@/@NODE@.cache"

[caller.ops]
uid = @UID@
can = ["list", "tokens", "grant", "revoke", "publish", "artifacts"]
credentials = ["*"]
tokens = ["cdn/*"]
"#;

/// Everything that runs. Dropping it ends it.
pub(super) struct Fleet {
    processes: Processes,
    gates: Vec<End>,
    primary: Bucket,
    mirror: Bucket,
}

impl Fleet {
    pub(super) async fn start(args: &GateArgs) -> io::Result<Self> {
        let processes = Processes::new(args.nodes, NODE_TIMEOUT, args.keep)?;
        let (primary, mirror) = (Bucket::start().await?, Bucket::start().await?);
        for origin in [&primary, &mirror] {
            origin.put(&format!("artifact/{LEAVING}/{SUPERGRAPH}"), &artifact(1));
            for build in 0..BUILDS {
                origin.put(&format!("artifact/{TARGET}/builds/{build}"), "version 1\n");
            }
        }
        processes.write_private("bucket.key", b"a key of the demonstration")?;
        let number = |number: u64| number.to_string();
        let words = [
            ("@BUCKET@", bucket::NAME.to_owned()),
            ("@PRIMARY@", primary.endpoint()),
            ("@MIRROR@", mirror.endpoint()),
            ("@HEDGE@", number(HEDGE_MS)),
            ("@DEADLINE@", number(DEADLINE_MS)),
            ("@FRESH@", number(FRESH_MS)),
            ("@STALENESS@", number(MAX_STALENESS_MS)),
        ];
        let words: Vec<_> = words.iter().map(|(word, meaning)| (*word, meaning.as_str())).collect();
        let config = processes.config(CONFIG, &words)?;
        let mut gates = Vec::new();
        for node in 0..args.nodes {
            processes.start_one(node, &config.replace("@NODE@", &node_name(node)), &["api"])?;
            gates.push(End::at(&processes.path(node, "gate"), NODE_TIMEOUT)?);
        }
        Ok(Self { processes, gates, primary, mirror })
    }

    pub(super) async fn wait_until_ready(&self) -> Result<(), Failure> {
        self.processes.wait_for_all().await?;
        for (node, gate) in self.gates.iter().enumerate() {
            self.processes.wait_for(node, async |_| gate.text("/livez").await.is_some()).await?;
        }
        Ok(())
    }

    pub(super) fn folder(&self) -> &Path {
        self.processes.folder()
    }

    pub(super) fn nodes(&self) -> Vec<usize> {
        (0..self.processes.count()).collect()
    }

    /// The way to a node's API.
    pub(super) fn api(&self, node: usize) -> io::Result<&End> {
        self.processes.ends().get(node).ok_or_else(|| io::Error::other("no such node"))
    }

    /// The way to a node's gate.
    pub(super) fn gate(&self, node: usize) -> Option<&End> {
        self.gates.get(node)
    }

    /// Breaks or mends the primary and the mirror.
    pub(super) fn set(&self, primary: Fault, mirror: Fault) {
        self.primary.set(primary);
        self.mirror.set(mirror);
    }

    /// How often the primary and the mirror were read since the last time.
    pub(super) fn take_reads(&self) -> (u64, u64) {
        (self.primary.take_reads(), self.mirror.take_reads())
    }

    /// Publishes a version of an artifact through a node, which has to say that all origins have it.
    pub(super) async fn publish(&self, node: usize, name: &str, version: u64) -> io::Result<()> {
        let path = format!("/v1/artifacts/cdn/{TARGET}/{name}");
        let request = self.api(node)?.request(Method::PUT, &path).body(artifact(version));
        match End::answer(request).await {
            Some((200 | 201, body)) if body.get("missing_on") == Some(&json!([])) => Ok(()),
            other => Err(io::Error::other(format!("{} did not publish: {other:?}", node_name(node)))),
        }
    }

    /// Takes back all tokens of a target.
    pub(super) async fn drop_target(&self, node: usize, target: &str) -> io::Result<Value> {
        match self.api(node)?.post("/v1/tokens/drop-target", &json!({ "target": target })).await {
            Some((200, body)) => Ok(body),
            other => Err(io::Error::other(format!("{} did not drop the target: {other:?}", node_name(node)))),
        }
    }
}

/// What a version of an artifact says.
fn artifact(version: u64) -> String {
    let mut text = format!("version {version}\n");
    while text.len() < BYTES {
        text.push_str("type Query { ok: Boolean }\n");
    }
    text
}

/// The version that an artifact says it is.
pub(super) fn version_of(body: &[u8]) -> Option<u64> {
    let line = body.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix("version ")?.parse().ok()
}
