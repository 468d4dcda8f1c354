//! Provider tokens: what they must look like, and whether Apple's registered key signed them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::serve;

/// The longest provider token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 2048;

/// A signing key registered with the fake Apple.
#[derive(Clone, Debug)]
pub struct Key {
    /// The team that owns the key, the `iss` of its tokens.
    pub team_id: String,
    /// The key's id, the `kid` of its tokens.
    pub key_id: String,
    /// The public half.
    pub public_key: VerifyingKey,
}

impl Key {
    /// Registers the key whose public half is `spki_pem` (`-----BEGIN PUBLIC KEY-----`, P-256).
    ///
    /// # Errors
    /// When the text is not a P-256 public key in that form.
    pub fn from_pem(team_id: &str, key_id: &str, spki_pem: &str) -> Result<Self, KeyError> {
        let public_key = VerifyingKey::from_public_key_pem(spki_pem).map_err(|error| KeyError(error.to_string()))?;
        Ok(Self { team_id: team_id.to_owned(), key_id: key_id.to_owned(), public_key })
    }
}

/// A text that is not a P-256 public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(String);

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a P-256 public key in PEM: {}\nhint: `openssl ec -in AuthKey.p8 -pubout` prints one", self.0)
    }
}

impl std::error::Error for KeyError {}

/// A token's identity: the SHA-256 of all its bytes. Another signature over the same claims is another token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TokenId([u8; 32]);

impl TokenId {
    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Enough of the hash to tell tokens apart in a report, and useless for anything else.
    pub(crate) fn short(self) -> String {
        self.0.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a correctly signed token says. Made only by [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) team_id: String,
    pub(crate) key_id: String,
    /// Seconds since 1970.
    pub(crate) issued_at: i64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Payload {
    iss: String,
    iat: i64,
}

/// The claims of `token`, if one of `keys` signed it; its time is not judged here.
///
/// RFC 7515 5.2 with one algorithm: ES256, the signature being the 64 bytes of RFC 7518 3.4.
pub(crate) fn verify(token: &str, keys: &[Key]) -> Option<Claims> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let header: Header = part(header)?;
    // RFC 7515 4.1.11: an extension marked critical that is not understood makes the token invalid.
    let plain = header.crit.is_none() && header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
    if header.alg != "ES256" || !plain {
        return None;
    }
    let payload: Payload = part(payload)?;
    let key = keys.iter().find(|key| key.key_id == header.kid && key.team_id == payload.iss)?;
    let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
    key.public_key.verify(signed.as_bytes(), &signature).ok()?;
    Some(Claims { team_id: payload.iss, key_id: header.kid, issued_at: payload.iat })
}

/// One part as JSON. The engine refuses padding, other alphabets and non-zero trailing bits, so that one value has
/// exactly one spelling; a further `.` in the payload fails here too.
fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serve::object(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
