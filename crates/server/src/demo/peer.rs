//! The nodes that keyreeve is compared with: what people build for themselves, with the mistakes that they report.
//!
//! - `naive`: each process signs a token when it has none, or when its own is due; after a refusal it signs another
//! - `lockfile`: the processes share the token in a file, and take turns by a lock file with a time to live. The lock
//!   is not compared with anything when the token is written, its life is judged by wall clocks, and a process that
//!   cannot reach the shared folder signs for itself.
//!
//! They answer with the same HTTP shape as keyreeve, so that the same clients use them.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyreeve_picky::clock::PickyClock;
use p256::ecdsa::signature::RandomizedSigner as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;

use super::args::{NodeArgs, Strategy};
use super::place::{CREDENTIAL, CYCLE_MS, KEY_ID, TEAM_ID};
use crate::exit::{Code, Failure};

/// A holder of the lock file is given up after this, in simulated milliseconds: ample for a mint, usually.
const LOCK_TTL_MS: i64 = 120_000;
/// How long clients may keep a token, in simulated seconds.
const MAX_AGE_S: u64 = 15;
/// How often a node looks whether the lock is free, and for how long, in real milliseconds.
const LOCK_LOOK_MS: u64 = 20;
const LOCK_LOOKS_MAX: u32 = 20;

/// A token, as it is held in memory or in the shared file.
#[derive(Clone, Serialize, Deserialize)]
struct Held {
    token: String,
    /// Seconds since 1970. It also serves as the generation.
    iat: i64,
}

struct Peer {
    args: NodeArgs,
    clock: PickyClock,
    key: SigningKey,
    /// Locked while a mint is under way: at least within a process there is only one.
    held: Mutex<Option<Held>>,
}

/// Runs one such node until it is killed.
pub(crate) async fn run(args: NodeArgs) -> Result<(), Failure> {
    let unavailable = |text: String| Failure::new(Code::Unavailable, text);
    let pem = std::fs::read_to_string(&args.key)
        .map_err(|error| unavailable(format!("cannot read `{}`: {error}", args.key.display())))?;
    let key = SigningKey::from_pkcs8_pem(&pem)
        .map_err(|error| unavailable(format!("cannot use `{}`: {error}", args.key.display())))?;
    let listener = tokio::net::UnixListener::bind(&args.socket)
        .map_err(|error| unavailable(format!("cannot listen on `{}`: {error}", args.socket.display())))?;
    let clock = PickyClock::scaled(args.epoch, f64::from(args.scale));
    let peer = Arc::new(Peer { args, clock, key, held: Mutex::new(None) });
    let router = Router::new()
        .route(&format!("/v1/credentials/{CREDENTIAL}/token"), get(token))
        .route(&format!("/v1/credentials/{CREDENTIAL}/report"), post(report))
        .with_state(peer);
    axum::serve(listener, router).await.map_err(|error| unavailable(error.to_string()))
}

async fn token(State(peer): State<Arc<Peer>>, headers: HeaderMap) -> Response {
    // A caller that goes away must not leave a mint half done.
    let task = tokio::spawn(async move { peer.token().await });
    let held = match task.await {
        Ok(Ok(held)) => held,
        Ok(Err(error)) => return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let tag = format!("\"g{}\"", held.iat);
    let is_same = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let cache = (header::CACHE_CONTROL, format!("private, max-age={MAX_AGE_S}"));
    if is_same {
        return (StatusCode::NOT_MODIFIED, [cache]).into_response();
    }
    let body = json!({ "name": CREDENTIAL, "generation": held.iat, "token": held.token });
    let headers = [cache, (header::ETAG, tag), (header::CONTENT_TYPE, "application/json".to_owned())];
    (headers, body.to_string()).into_response()
}

#[derive(Deserialize)]
struct Report {
    generation: i64,
    upstream_status: u16,
}

async fn report(State(peer): State<Arc<Peer>>, body: String) -> StatusCode {
    let Ok(report) = serde_json::from_str::<Report>(&body) else { return StatusCode::BAD_REQUEST };
    // A refused token is thrown away, as libraries for this do; too many updates are nothing that a new token helps.
    if report.upstream_status == 403 {
        let task = tokio::spawn(async move { peer.throw_away(report.generation).await });
        if task.await.is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    StatusCode::ACCEPTED
}

impl Peer {
    fn now_ms(&self) -> i64 {
        self.clock.now_ms().saturating_add(self.args.offset)
    }

    fn is_due(&self, held: &Held) -> bool {
        self.now_ms().saturating_sub(held.iat.saturating_mul(1000)) >= i64::try_from(CYCLE_MS).unwrap_or(i64::MAX)
    }

    async fn token(&self) -> io::Result<Held> {
        let mut held = self.held.lock().await;
        if self.args.strategy == Strategy::Lockfile && !self.is_cut() {
            let shared = self.shared_token().await?;
            *held = Some(shared.clone());
            return Ok(shared);
        }
        match &*held {
            Some(held) if !self.is_due(held) => Ok(held.clone()),
            _ => {
                let fresh = self.mint().await?;
                *held = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }

    async fn throw_away(&self, generation: i64) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| held.iat == generation) {
            *held = None;
            if self.args.strategy == Strategy::Lockfile && !self.is_cut() {
                // What others have written since is as refused as this, for all that this node knows.
                let _gone_already = std::fs::remove_file(self.shared("token.json"));
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.args.faults.join("store-cut").exists()
    }

    fn shared(&self, name: &str) -> PathBuf {
        self.args.shared.join(name)
    }

    /// The shared token; renewed by whoever gets the lock.
    async fn shared_token(&self) -> io::Result<Held> {
        let lock = self.shared("token.lock");
        for _ in 0..LOCK_LOOKS_MAX {
            let shared = read(&self.shared("token.json"));
            if let Some(shared) = shared.as_ref().filter(|shared| !self.is_due(shared)) {
                return Ok(shared.clone());
            }
            match OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(mut file) => {
                    write!(file, "{}", self.now_ms())?;
                    let fresh = self.mint().await?;
                    write_whole(&self.shared("token.json"), &self.args.node, &fresh)?;
                    let _stolen_and_released = std::fs::remove_file(&lock);
                    return Ok(fresh);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.steal(&lock);
                    // While somebody else renews, the old token will do.
                    if let Some(shared) = shared {
                        return Ok(shared);
                    }
                    tokio::time::sleep(Duration::from_millis(LOCK_LOOK_MS)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("somebody else renews the token"))
    }

    /// Removes a lock that is older than its time to live, by this node's wall clock.
    fn steal(&self, lock: &Path) {
        let since = std::fs::read_to_string(lock).ok().and_then(|text| text.parse::<i64>().ok());
        if since.is_some_and(|since| self.now_ms().saturating_sub(since) > LOCK_TTL_MS) {
            let _gone_already = std::fs::remove_file(lock);
        }
    }

    /// Signs a token, which takes as long as keyreeve's nodes are made to take, and leaves marks for the watcher.
    async fn mint(&self) -> io::Result<Held> {
        let iat = self.now_ms() / 1000;
        let mark = self.shared(&format!("{}.minting", self.args.node));
        std::fs::write(&mark, iat.to_string())?;
        let delay = std::fs::read_to_string(self.args.faults.join("mint-delay-ms")).unwrap_or_default();
        let delay = Duration::from_millis(delay.trim().parse().unwrap_or(0));
        tokio::time::sleep(self.clock.real_for(delay).unwrap_or_default()).await;
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({ "alg": "ES256", "kid": KEY_ID }));
        let signed = format!("{header}.{}", part(json!({ "iss": TEAM_ID, "iat": iat })));
        // As most libraries sign: with a random number, so that no two signatures are the same.
        let signature: Signature = self
            .key
            .try_sign_with_rng(&mut getrandom::SysRng, signed.as_bytes())
            .map_err(|error| io::Error::other(error.to_string()))?;
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()));
        let _gone_already = std::fs::remove_file(&mark);
        let mut events = OpenOptions::new().append(true).create(true).open(self.shared("events"))?;
        events.write_all(format!("{} minted a token\n", self.args.node).as_bytes())?;
        Ok(Held { token, iat })
    }
}

fn read(path: &Path) -> Option<Held> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Replaces a file as a whole, whatever is there by now.
fn write_whole(path: &Path, by: &str, held: &Held) -> io::Result<()> {
    let draft = path.with_extension(by);
    std::fs::write(&draft, serde_json::to_vec(held)?)?;
    std::fs::rename(&draft, path)
}
