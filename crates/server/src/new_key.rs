//! `keyreeve config new-key` and `new-seal-key`: secrets from the system's generator, printed once.

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use keyreeve::core::crypto::Crypto as _;
use keyreeve::core::secret::Secret;
use keyreeve::crypto::LocalCrypto;
use serde_json::json;

use crate::exit::{Code, Failure, say, tell};

/// What an API key of ours begins with, so that scanners and people recognise one.
const API_KEY_PREFIX: &str = "kr_";

/// An API key and what the configuration has to know about it.
pub(crate) struct ApiKey {
    pub(crate) key: Secret<String>,
    /// Of the whole key, prefix included; 64 hexadecimal digits.
    pub(crate) sha256: String,
}

impl ApiKey {
    /// 256 random bits.
    pub(crate) fn fresh() -> Result<Self, Failure> {
        Ok(Self::from_text(format!("{API_KEY_PREFIX}{}", fresh_hex()?.expose())))
    }

    pub(crate) fn from_text(key: String) -> Self {
        let sha256 = hex(&LocalCrypto.sha256(&[key.as_bytes()]));
        Self { key: Secret::new(key), sha256 }
    }
}

/// 32 random bytes as 64 hexadecimal digits: the form of a seal key.
pub(crate) fn fresh_hex() -> Result<Secret<String>, Failure> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(Secret::new(hex(&bytes)))
}

/// Fills `bytes` from the system's secure random generator.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes)
        .map_err(|error| Failure::new(Code::Unavailable, format!("the system gives no random bytes: {error}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Prints an API key, and the stanza that lets its bearer take and report every credential.
pub(crate) fn api_key(name: &str, is_json: bool) -> Result<(), Failure> {
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !is_name {
        let text = format!("a caller's name is made of letters, digits, `-` and `_`, not `{name}`");
        return Err(Failure::new(Code::Usage, text));
    }
    let fresh = ApiKey::fresh()?;
    if is_json {
        say(&json!({ "name": name, "api_key": fresh.key.expose(), "key_sha256": fresh.sha256 }).to_string());
        return Ok(());
    }
    say(&format!(
        "# API key, shown this once: {}\n[caller.{name}]\nkey_sha256 = \"{}\"\ncan = [\"list\", \"token\", \"report\"]\ncredentials = [\"*\"]",
        fresh.key.expose(),
        fresh.sha256
    ));
    tell("hint: put the stanza into the configuration, hand the key to the caller, and narrow `can` and `credentials`");
    Ok(())
}

/// Prints a client's secret, and the stanza that lets it ask for tokens of its own.
pub(crate) fn client(name: &str, is_json: bool) -> Result<(), Failure> {
    if let Err(error) = keyreeve::core::id::IssuerName::parse(name) {
        return Err(Failure::new(Code::Usage, format!("`{name}` is no name for a client: {error}")));
    }
    let fresh = ApiKey::fresh()?;
    if is_json {
        say(&json!({ "client_id": name, "client_secret": fresh.key.expose(), "secret_sha256": fresh.sha256 })
            .to_string());
        return Ok(());
    }
    say(&format!(
        "# client secret, shown this once: {}\n[client.{name}]\nissuer = \"ISSUER\"\nsecret_sha256 = \"{}\"\ncan = [\"client-credentials\"]\nscopes = []",
        fresh.key.expose(),
        fresh.sha256
    ));
    tell("hint: put the stanza into the configuration with the name of an issuer, and hand the secret to the client");
    Ok(())
}

/// Prints a seal key.
pub(crate) fn seal_key(is_json: bool) -> Result<(), Failure> {
    let fresh = fresh_hex()?;
    close_to_others();
    if is_json {
        say(&json!({ "seal_key": fresh.expose() }).to_string());
        return Ok(());
    }
    say(fresh.expose());
    tell("hint: keep it in a file, put that first in `seal.keys`, and the old ones after it");
    Ok(())
}

/// A shell makes the file of `> seal.key` readable for everybody, and no node takes a key that everybody may read.
fn close_to_others() {
    let output = std::path::Path::new("/dev/stdout");
    let is_open_file = std::fs::metadata(output).is_ok_and(|found| found.is_file() && found.mode() & 0o077 != 0);
    if is_open_file && std::fs::set_permissions(output, std::fs::Permissions::from_mode(0o600)).is_ok() {
        tell("the file is now readable by its owner only");
    }
}
