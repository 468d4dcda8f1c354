//! The folder of a `dev` node: keys made once, a configuration written at every start.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use keyreeve::core::secret::Secret;
use p256::SecretKey;
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde_json::json;

use crate::exit::{Code, Failure};
use crate::new_key::{ApiKey, fresh_hex};

/// The credential that everything is shown with.
pub(super) const CREDENTIAL: &str = "apns-dev";
const TEAM_ID: &str = "DEVTEAM001";
const KEY_ID: &str = "DEVKEY0001";
/// Files of this folder are small; anything larger is not ours.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The folder, with its keys in place.
pub(super) struct Folder {
    path: PathBuf,
    api_key: ApiKey,
}

impl Folder {
    /// Opens the folder, and makes it and every key that is not there yet. Two nodes that start together get the same keys.
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.and_then(|()| fs::canonicalize(&path)).map_err(|error| refuse(&path, &error)).and_then(Self::fill)
    }

    fn fill(path: PathBuf) -> Result<Self, Failure> {
        let is_quotable =
            path.to_str().is_some_and(|text| !text.contains(['"', '\'', '\\']) && !text.contains(char::is_control));
        if !is_quotable {
            let text = format!("`{}` cannot be written into a configuration", path.display());
            return Err(
                Failure::new(Code::Usage, text).hint("choose a folder without quotes and backslashes in its path")
            );
        }
        made_once(&path.join("apns.p8"), &signing_key)?;
        made_once(&path.join("seal.key"), &fresh_hex)?;
        let api_key = made_once(&path.join("api.key"), &|| ApiKey::fresh().map(|fresh| fresh.key))?;
        made_once(&path.join("mint-token.sh"), &|| Ok(Secret::new(SCRIPT.to_owned())))?;
        let api_key = ApiKey::from_text(api_key.expose().trim().to_owned());
        let folder = Self { path, api_key };
        folder.write_public_key()?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The key that may do everything. It opens nothing but this folder's node.
    pub(super) fn api_key(&self) -> &str {
        self.api_key.key.expose()
    }

    fn public_key_path(&self) -> PathBuf {
        self.path.join("apns-public.pem")
    }

    fn write_public_key(&self) -> Result<(), Failure> {
        let path = self.path.join("apns.p8");
        let pem = Secret::new(fs::read_to_string(&path).map_err(|error| refuse(&path, &error))?);
        let key = SecretKey::from_pkcs8_pem(pem.expose()).map_err(|_| refuse(&path, &"not a P-256 key in PKCS #8"))?;
        let public = key.public_key().to_public_key_pem(LineEnding::LF);
        let public = public.map_err(|error| refuse(&path, &error))?;
        replace(&self.public_key_path(), &public)
    }

    /// Writes the configuration of a node that listens on `address`, and says where it is.
    pub(super) fn write_config(&self, address: SocketAddr) -> Result<PathBuf, Failure> {
        let path = self.path.join("keyreeve.toml");
        replace(&path, &self.config(address))?;
        Ok(path)
    }

    /// Writes what a script has to know.
    pub(super) fn write_summary(&self, url: &str) -> Result<(), Failure> {
        let summary = json!({
            "url": url,
            "api_key": self.api_key(),
            "credential": CREDENTIAL,
            "public_key_pem_path": self.public_key_path(),
            "team_id": TEAM_ID,
            "key_id": KEY_ID,
        });
        replace(&self.path.join("dev.json"), &format!("{summary:#}\n"))
    }

    fn config(&self, address: SocketAddr) -> String {
        let (folder, key_sha256) = (self.path.display(), &self.api_key.sha256);
        format!(
            r#"# Written by `keyreeve dev` at every start: copy it before you change it.
# `keyreeve config explain -c FILE` prints every value that holds, and where it came from.

store.url = "sqlite:{folder}/state.db"
seal.keys = ["file:{folder}/seal.key"]

[[listener]]
bind = "{address}"
serve = ["api", "metrics"]

[caller.dev]
key_sha256 = "{key_sha256}"
can = ["list", "token", "report", "renew", "resolve", "history", "events", "metrics"]
credentials = ["*"]

# Apple's push provider token: at most one every 20 minutes, none older than an hour.
[credential.{CREDENTIAL}]
source = "apns"
key = "file:{folder}/apns.p8"
params = {{ team_id = "{TEAM_ID}", key_id = "{KEY_ID}" }}
life = {{ max = "55m", min_interval = "20m", lead = "10m" }}
mode = "replay"
keep = "always"

# A self-signed assertion in slot mode: every node computes the same bytes, and nothing is stored.
[credential.jwt-dev]
source = "jwt"
key = "file:{folder}/apns.p8"
mode = "slot"
life = {{ skew = "2s" }}
[credential.jwt-dev.params]
alg = "ES256"
header = {{ typ = "JWT", kid = "{KEY_ID}" }}
claims = {{ iss = "keyreeve-dev", aud = "https://api.example.org", iat = "{{iat}}", exp = "{{exp}}", jti = "{{jti}}" }}

# A script of your own. It runs when somebody asks, once for the whole fleet.
[credential.script-dev]
source = "exec"
command = ["/bin/sh", "{folder}/mint-token.sh"]
pass = ["PATH"]
life = {{ max = "15m" }}
"#
        )
    }
}

/// What a script of one's own looks like.
const SCRIPT: &str = r#"#!/bin/sh
# Prints one JSON object: a token, and how many seconds it is good for.
# What goes to standard error is kept in the credential's history when the script fails.
secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
printf '{"token": "script-%s-%s", "expires_in": 900}\n' "$KEYREEVE_GENERATION" "$secret"
"#;

fn signing_key() -> Result<Secret<String>, Failure> {
    // A random number is no key with probability 2^-32; then another one is.
    loop {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| Failure::new(Code::Unavailable, format!("the system gives no random bytes: {error}")))?;
        if let Ok(key) = SecretKey::from_slice(&bytes) {
            let pem = key.to_pkcs8_pem(LineEnding::LF);
            let pem = pem.map_err(|error| Failure::new(Code::Unavailable, format!("no signing key: {error}")))?;
            return Ok(Secret::new(pem.as_str().to_owned()));
        }
    }
}

/// The contents of `path`; made by `make` where there is no such file. Of several makers one wins, and all get its file.
fn made_once(path: &Path, make: &dyn Fn() -> Result<Secret<String>, Failure>) -> Result<Secret<String>, Failure> {
    if !path.exists() {
        let contents = make()?;
        let draft = draft(path, contents.expose())?;
        match fs::hard_link(draft.path(), path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refuse(path, &error)),
        }
    }
    let size = fs::metadata(path).map_err(|error| refuse(path, &error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(refuse(path, &format!("{size} bytes are more than `keyreeve dev` ever writes")));
    }
    fs::read_to_string(path).map(Secret::new).map_err(|error| refuse(path, &error))
}

/// Writes `path` as a whole: whoever reads it finds the old contents or the new ones.
fn replace(path: &Path, contents: &str) -> Result<(), Failure> {
    let draft = draft(path, contents)?;
    draft.persist(path).map(drop).map_err(|error| refuse(path, &error.error))
}

fn draft(path: &Path, contents: &str) -> Result<tempfile::NamedTempFile, Failure> {
    let folder = path.parent().unwrap_or(path);
    // Readable by the owner only, as `tempfile` makes them.
    let mut draft = tempfile::NamedTempFile::new_in(folder).map_err(|error| refuse(folder, &error))?;
    draft.write_all(contents.as_bytes()).map_err(|error| refuse(path, &error))?;
    Ok(draft)
}

fn refuse(path: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Unavailable, format!("`{}`: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_only_their_owner_may_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::open(folder.path().join("data")).unwrap();
        let key = fs::read_to_string(first.path().join("apns.p8")).unwrap();
        let second = Folder::open(folder.path().join("data")).unwrap();
        assert_eq!(second.api_key(), first.api_key());
        assert_eq!(fs::read_to_string(second.path().join("apns.p8")).unwrap(), key);
        for file in ["apns.p8", "seal.key", "api.key"] {
            let mode = fs::metadata(first.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
