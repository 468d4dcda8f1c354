//! The nodes of one run, and what is asked of them.

use std::io;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::super::args::RotateArgs;
use super::super::processes::{self, Answer, Processes};
use crate::exit::Failure;
use crate::new_key::ApiKey;

/// How many nodes.
pub(super) const NODES: usize = 4;
/// The life of a token, in seconds.
pub(super) const TTL_S: u64 = 5;
/// The issuer.
pub(super) const ISSUER: &str = "demo";
/// Its `iss`.
pub(super) const URL: &str = "https://issuer.demo";
const CLIENT_SECRET: &str = "a secret of the demonstration";
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
    pub(super) processes: Processes,
    pub(super) rotate_s: u64,
    pub(super) overlap_s: u64,
}

/// The way to one node.
#[derive(Clone)]
pub(super) struct End(processes::End);

impl Fleet {
    pub(super) fn start(args: &RotateArgs) -> io::Result<Self> {
        let processes = Processes::new(NODES, NODE_TIMEOUT, args.keep)?;
        let (rotate_s, overlap_s) = ((args.seconds / 8).max(6), 3);
        let words = [
            ("@TTL@", TTL_S.to_string()),
            ("@ALG@", args.alg.clone()),
            ("@ROTATE@", rotate_s.to_string()),
            ("@OVERLAP@", overlap_s.to_string()),
            ("@SECRET@", ApiKey::from_text(CLIENT_SECRET.to_owned()).sha256),
        ];
        let words: Vec<_> = words.iter().map(|(word, meaning)| (*word, meaning.as_str())).collect();
        let config = processes.config(CONFIG, &words)?;
        processes.start(&config, &["api", "oauth2"])?;
        Ok(Self { processes, rotate_s, overlap_s })
    }

    pub(super) fn ends(&self) -> Vec<End> {
        self.processes.ends().iter().cloned().map(End).collect()
    }

    pub(super) async fn wait_until_ready(&self) -> Result<(), Failure> {
        for node in 0..NODES {
            self.processes.wait_for(node, async |end| End(end.clone()).token().await.is_ok()).await?;
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
            .0
            .request(Method::POST, path)
            .basic_auth("crowd", Some(CLIENT_SECRET))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        told(processes::End::answer(request).await)
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
        Ok(told(self.0.get("/.well-known/jwks.json").await)?.to_string())
    }

    /// What the node says about the issuer.
    pub(super) async fn state(&self) -> Result<Value, Silence> {
        told(self.0.get(&format!("/v1/issuers/{ISSUER}")).await)
    }

    pub(super) async fn rotate(&self) -> Result<Value, Silence> {
        told(self.0.post(&format!("/v1/issuers/{ISSUER}/rotate"), &json!({})).await)
    }

    pub(super) async fn retire(&self, kid: &str) -> Result<Value, Silence> {
        told(self.0.post(&format!("/v1/issuers/{ISSUER}/retire"), &json!({ "kid": kid })).await)
    }
}

fn told(answer: Option<Answer>) -> Result<Value, Silence> {
    match answer.ok_or(Silence::Unreachable)? {
        (200 | 202, body) if !body.is_null() => Ok(body),
        (503, _) => Err(Silence::Unavailable),
        (other, body) => Err(Silence::Strange(format!("{other} {body}"))),
    }
}
