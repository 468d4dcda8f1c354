//! The folder that one run lives in: keys, configuration, sockets, logs, fault switches.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use keyreeve_picky::apns::Key;
use p256::ecdsa::SigningKey;
use p256::pkcs8::{EncodePrivateKey as _, LineEnding};

use super::plan::name_of;
use crate::new_key::fresh_hex;

/// The team and key id that the fake Apple knows.
pub(crate) const TEAM_ID: &str = "DEMOTEAM01";
/// See [`TEAM_ID`].
pub(crate) const KEY_ID: &str = "DEMOKEY001";
/// The name of the credential, and the topic of the pushes.
pub(crate) const CREDENTIAL: &str = "push";

/// How long a mint takes, in real milliseconds: the window for "in the middle of it".
pub(crate) const MINT_MS: u64 = 500;

/// From one mint to the next, in simulated milliseconds: `max` - `backdate` - `lead` of [`CONFIG`].
pub(crate) const CYCLE_MS: u64 = 24 * 60_000;
/// From the publication of a token to the switch to it: `handover` of [`CONFIG`].
pub(crate) const HANDOVER_MS: u64 = 12 * 60_000;
/// The bound on clock errors that the configuration vouches for, and so how long a switch may take.
pub(crate) const SKEW_BOUND_MS: u64 = 120_000;

/// What every node runs. All durations are simulated ones; the mint is slow on purpose (`MINT_MS`), so the lease is long.
const CONFIG: &str = r#"# Written by `keyreeve demo fleet`.
store.url = "sqlite:@FOLDER@/state.db"
seal.keys = ["file:@FOLDER@/seal.key"]

[limits]
request = "10m"

[caller.clients]
uid = @UID@
can = ["list", "token", "report", "history", "events"]
credentials = ["*"]

[credential.push]
source = "apns"
key = "file:@FOLDER@/AuthKey.p8"
params = { team_id = "DEMOTEAM01", key_id = "DEMOKEY001" }
mode = "replay"
keep = "always"
wait = "30s"
history = 64

[credential.push.life]
max = "55m"
min_interval = "20m"
lead = "29m"
handover = "12m"
backdate = "2m"
skew = "2m"
upstream_skew = "0s"
send = "1m"
timeout = "2m"
lease = "3m"
takeover = "4m"
jitter = "0s"
spread = "2m"
poll = "10s"
hold = "10s"
"#;

/// The folder of one run, removed with it unless it is to be kept.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    signing_key: SigningKey,
}

impl Place {
    /// Makes the folder, a signing key, a seal key and a configuration for each of `nodes`, whose mints are slowed down.
    pub(crate) fn new(nodes: usize, scale: u32, is_kept: bool) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keyreeve-demo-").disable_cleanup(is_kept).tempdir()?;
        let signing_key = new_signing_key()?;
        let place = Self { folder, signing_key };
        let pem = place.signing_key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
        write_private(&place.key(), pem.as_bytes())?;
        let seal_key = fresh_hex().map_err(|failure| io::Error::other(failure.message))?;
        write_private(&place.path("seal.key"), seal_key.expose().as_bytes())?;
        std::fs::create_dir(place.shared())?;
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(place.folder.path())?);
        let config =
            CONFIG.replace("@FOLDER@", &place.folder.path().display().to_string()).replace("@UID@", &uid.to_string());
        for node in 0..nodes {
            std::fs::create_dir(place.faults(node))?;
            // The switch counts in the node's time.
            std::fs::write(place.faults(node).join("mint-delay-ms"), (MINT_MS * u64::from(scale)).to_string())?;
            let bind = format!("\n[[listener]]\nbind = \"unix:{}\"\nserve = [\"api\"]\n", place.socket(node).display());
            write_private(&place.config(node), format!("{config}{bind}").as_bytes())?;
        }
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The private key.
    pub(crate) fn key(&self) -> PathBuf {
        self.path("AuthKey.p8")
    }

    /// The register.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("state.db")
    }

    /// What the compared strategies share.
    pub(crate) fn shared(&self) -> PathBuf {
        self.path("shared")
    }

    /// A node's configuration.
    pub(crate) fn config(&self, node: usize) -> PathBuf {
        self.path(&format!("{}.toml", name_of(node)))
    }

    /// A node's socket.
    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.path(&format!("{}.sock", name_of(node)))
    }

    /// A node's log.
    pub(crate) fn log(&self, node: usize) -> PathBuf {
        self.path(&format!("{}.log", name_of(node)))
    }

    /// The folder with a node's fault switches.
    pub(crate) fn faults(&self, node: usize) -> PathBuf {
        self.path(&format!("{}.faults", name_of(node)))
    }

    /// The key as the fake Apple knows it.
    pub(crate) fn registered_key(&self) -> Key {
        Key { team_id: TEAM_ID.into(), key_id: KEY_ID.into(), public_key: *self.signing_key.verifying_key() }
    }
}

fn new_signing_key() -> io::Result<SigningKey> {
    // One draw in 2^32 is not a key of the curve.
    for _ in 0..4 {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        if let Ok(key) = SigningKey::from_slice(&bytes) {
            return Ok(key);
        }
    }
    Err(io::Error::other("the system's random numbers are no keys"))
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}
