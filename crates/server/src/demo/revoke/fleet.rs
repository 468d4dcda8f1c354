//! The nodes, and the tokens that they take.

use std::io;
use std::path::Path;
use std::time::Duration;

use keyreeve::core::jwt::Algorithm;
use keyreeve::core::secret::Secret;
use keyreeve::crypto;
use keyreeve::jwt::{SigningKey, generate};
use serde_json::{Value, json};

use super::super::args::RevokeArgs;
use super::super::frame::wall_ms;
use super::super::processes::{End, Processes, node_name};
use crate::exit::Failure;
use crate::new_key::{fill, fresh_hex};

/// `max_staleness` of the configuration, in milliseconds.
pub(super) const MAX_STALENESS_MS: u64 = 1000;
/// The longest wait for a node.
const NODE_TIMEOUT: Duration = Duration::from_secs(10);
const KEY_ID: &str = "demo-1";
const URL: &str = "https://issuer.demo";
/// What access tokens of this demonstration are for.
const TARGET: &str = "demo";

const CONFIG: &str = r#"# Written by `keyreeve demo revoke`.
seal.keys = ["file:@FOLDER@/seal.key"]
store.url = "sqlite:@FOLDER@/state.db"
store.timeout = "1s"

[token.cdn]

[verifier.demo]
issuer = "https://issuer.demo"
audience = "demo"
keys = ["file:@FOLDER@/public.jwk"]

[gate.door]
kind = "auth"

[[policy]]
who = "verifier:demo"
can = ["GET /**"]
on = "gate:door"

[caller.ops]
uid = @UID@
can = ["revoke", "metrics", "list", "history", "tokens", "grant"]
credentials = ["*"]
tokens = ["cdn/*"]

[revocation]
max_staleness = "@MAX@ms"
on_stale = "@ON_STALE@"
"#;

/// The nodes of one run. The last one but one goes without the store in the end, and so does the last one, which is set to
/// accept tokens all the same.
pub(super) struct Fleet {
    processes: Processes,
    key: SigningKey,
}

impl Fleet {
    pub(super) fn start(args: &RevokeArgs) -> io::Result<Self> {
        let processes = Processes::new(args.nodes, NODE_TIMEOUT, args.keep)?;
        let mut failed = None;
        let pair = generate::generate(Algorithm::EdDsa, KEY_ID, &mut |bytes| failed = fill(bytes).err());
        let pair = pair.map_err(io::Error::other)?;
        if let Some(failure) = failed {
            return Err(io::Error::other(failure.message));
        }
        let public = json!(pair.public).to_string();
        processes.write_private("public.jwk", public.as_bytes())?;
        let private = Secret::new(pair.private.expose().as_bytes().to_vec());
        let signer = crypto::any_signer(Algorithm::EdDsa, &private).map_err(io::Error::other)?;
        let fleet = Self { processes, key: SigningKey::new(signer, Some(KEY_ID)) };
        let config = fleet.processes.config(CONFIG, &[("@MAX@", &MAX_STALENESS_MS.to_string())])?;
        for node in 0..args.nodes {
            let on_stale = if node == fleet.allowing() { "allow" } else { "deny" };
            fleet.processes.start_one(node, &config.replace("@ON_STALE@", on_stale), &["api", "gate", "metrics"])?;
        }
        Ok(fleet)
    }

    pub(super) fn folder(&self) -> &Path {
        self.processes.folder()
    }

    pub(super) fn count(&self) -> usize {
        self.processes.count()
    }

    pub(super) fn name(&self, node: usize) -> String {
        node_name(node)
    }

    /// The node that goes on without news.
    pub(super) fn allowing(&self) -> usize {
        self.count().saturating_sub(1)
    }

    /// The node that is cut off from the store, and denies.
    pub(super) fn denying(&self) -> usize {
        self.count().saturating_sub(2)
    }

    pub(super) fn end(&self, node: usize) -> Option<&End> {
        self.processes.ends().get(node)
    }

    /// Sets a fault switch of a node, or takes it away.
    pub(super) fn switch(&self, node: usize, name: &str, is_on: bool) -> io::Result<()> {
        self.processes.switch(node, name, is_on.then_some("on"))
    }

    pub(super) async fn wait_until_ready(&self) -> Result<(), Failure> {
        self.processes.wait_for_all().await
    }

    /// An access token, made by a node.
    pub(super) async fn opaque(&self, node: usize, alias: &str) -> io::Result<String> {
        let end = self.end(node).ok_or_else(|| io::Error::other("no such node"))?;
        end.new_token(TARGET, alias).await
    }

    /// What a node answers to whoever comes with a token: 200, 401, or that it cannot tell.
    pub(super) async fn pass(&self, node: usize, token: &str) -> Option<u16> {
        let end = self.end(node)?;
        if token.contains('.') {
            return end.pass("/auth/door", token).await;
        }
        let (status, said) = end.post("/v1/tokens/verify", &json!({ "token": token, "target": TARGET })).await?;
        let is_valid = said.get("valid") == Some(&Value::Bool(true));
        Some(if status == 200 && !is_valid { 401 } else { status })
    }

    /// A JWT that is good for an hour.
    pub(super) async fn jwt(&self, subject: &str) -> io::Result<String> {
        let now_s = wall_ms() / 1000;
        let id = fresh_hex().map_err(|failure| io::Error::other(failure.message))?;
        let claims = json!({
            "iss": URL, "aud": "demo", "sub": subject, "jti": id.expose(), "iat": now_s, "exp": now_s.saturating_add(3600),
        });
        self.key.sign_as("JWT", &claims.to_string()).await.map_err(io::Error::other)
    }

    /// Has a token revoked by a node. The answer has its id and the moment of the writing.
    pub(super) async fn revoke(&self, node: usize, token: &str) -> Option<Value> {
        self.end(node)?.revoke(token).await
    }

    /// The receipts of a revocation, when all nodes have one or `wait` is over.
    pub(super) async fn receipts(&self, node: usize, id: &str, wait: &str) -> Option<Value> {
        self.end(node)?.receipts(id, wait).await
    }

    /// What `/readyz` says.
    pub(super) async fn ready(&self, node: usize) -> Option<Value> {
        self.end(node)?.get("/readyz").await.map(|(_, body)| body)
    }

    /// Whether the metrics of a node have this line.
    pub(super) async fn has_metric(&self, node: usize, line: &str) -> bool {
        let Some(end) = self.end(node) else { return false };
        end.text("/metrics").await.is_some_and(|page| page.lines().any(|found| found == line))
    }
}
