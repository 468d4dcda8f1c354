use std::sync::Arc;

use super::algorithm::Algorithm;
use super::base64url;
use super::claims::{Claims, Verified};
use super::expected::Expected;
use super::key::{Key, KeySet, Verify};
use super::refusal::{Part, Refusal, Shown};
use crate::json::Json;
use crate::time::Timestamp;

/// The largest token that is read, in bytes; what is larger is refused before any of it is looked at.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The longest key id, in bytes.
pub(super) const KEY_ID_BYTES_MAX: usize = 256;

/// What a header says. Members that name keys of the sender's own (`jku`, `jwk`, `x5u`, `x5c`) are not read: who could write
/// them into a token could sign it with anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`: compared with the key's, never followed.
    pub algorithm: Algorithm,
    /// `kid`: only ever compared with the ids of trusted keys, so it can be no path and no query.
    pub key_id: Option<String>,
    /// `typ`, as it is written.
    pub typ: Option<String>,
}

/// Step one: a compact token (RFC 7515 3.1), taken apart. Nothing in it is to be believed.
#[derive(Clone, Copy, Debug)]
pub struct Unverified<'t> {
    /// Header and payload, encoded: what is signed.
    message: &'t str,
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Unverified<'t> {
    /// Takes a token apart. Looks at its size first, then for its dots, and no further.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`], [`Refusal::Parts`].
    pub fn parse(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes: token.len(), limit: TOKEN_BYTES_MAX });
        }
        let parts = || Refusal::Parts { parts: token.split('.').count() };
        let (message, signature) = token.rsplit_once('.').ok_or_else(parts)?;
        let (header, payload) = message.split_once('.').ok_or_else(parts)?;
        if payload.contains('.') {
            return Err(parts());
        }
        Ok(Self { message, header, payload, signature })
    }

    /// Reads the header.
    ///
    /// # Errors
    /// A [`Refusal`] that says what is wrong with it.
    pub fn header(&self) -> Result<Header, Refusal> {
        let json = self.header_json()?;
        Header::read(&json)
    }

    /// The header as JSON, for what [`Header`] leaves out.
    ///
    /// # Errors
    /// [`Refusal::Encoding`], [`Refusal::Json`].
    pub fn header_json(&self) -> Result<Json, Refusal> {
        json_of(Part::Header, self.header)
    }

    /// The payload as JSON. **Nothing vouches for it**: for showing a token to a person, and for finding out whose keys to
    /// try.
    ///
    /// # Errors
    /// [`Refusal::Encoding`], [`Refusal::Json`], [`Refusal::NoObject`].
    pub fn unverified_claims(&self) -> Result<Json, Refusal> {
        let json = json_of(Part::Payload, self.payload)?;
        if json.root().members().is_none() {
            return Err(Refusal::NoObject { part: Part::Payload });
        }
        Ok(json)
    }

    /// Finds the one key that must have signed it.
    ///
    /// # Errors
    /// A [`Refusal`]: of the header, the key, or the form of the signature.
    pub fn select<K>(self, keys: &KeySet<K>) -> Result<Selected<'t, '_, K>, Refusal> {
        let (key, header) = match keys.known(self.header) {
            Some(found) => found,
            None => {
                let header = self.header()?;
                (keys.select(&header)?, Arc::new(header))
            }
        };
        self.signed_by(key, header)
    }

    /// Goes on with the one key that must have signed it, where something else than a key set says which.
    pub(super) fn signed_by<K>(self, key: &Key<K>, header: Arc<Header>) -> Result<Selected<'t, '_, K>, Refusal> {
        let signature = base64url::decode(self.signature).ok_or(Refusal::Encoding { part: Part::Signature })?;
        if let Some(wanted) = key.algorithm().signature_bytes()
            && wanted != signature.len()
        {
            return Err(Refusal::SignatureLength { algorithm: key.algorithm(), found: signature.len(), wanted });
        }
        Ok(Selected { token: self, key, header, signature })
    }
}

fn json_of(part: Part, encoded: &str) -> Result<Json, Refusal> {
    let bytes = base64url::decode(encoded).ok_or(Refusal::Encoding { part })?;
    Json::parse(bytes).map_err(|cause| Refusal::Json { part, cause })
}

impl Header {
    /// Reads a header that has been parsed.
    pub(super) fn read(json: &Json) -> Result<Self, Refusal> {
        let members = json.root().members().ok_or(Refusal::NoObject { part: Part::Header })?;
        let (mut algorithm, mut key_id, mut typ) = (None, None, None);
        for (name, value) in members {
            let text = |member| value.text().ok_or(Refusal::Header { member, why: "is not text" });
            match name {
                "alg" => algorithm = Some(algorithm_named(text("alg")?)?),
                "kid" => key_id = Some(text("kid")?).filter(|id| !id.is_empty()),
                "typ" => typ = Some(text("typ")?),
                // RFC 7515 4.1.11: what is named there must be understood, and nothing that needs naming is.
                "crit" => return Err(Refusal::Critical { names: Shown::of(&format!("{value:?}")) }),
                "b64" if value.boolean() != Some(true) => return Err(Refusal::Unencoded),
                _ => {}
            }
        }
        if key_id.is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return Err(Refusal::Header { member: "kid", why: "is longer than 256 bytes" });
        }
        let algorithm = algorithm.ok_or(Refusal::Header { member: "alg", why: "is missing" })?;
        Ok(Self { algorithm, key_id: key_id.map(str::to_owned), typ: typ.map(str::to_owned) })
    }
}

fn algorithm_named(name: &str) -> Result<Algorithm, Refusal> {
    Algorithm::named(name).ok_or_else(|| {
        let found = Shown::of(name);
        if name.trim().eq_ignore_ascii_case("none") {
            Refusal::Unsigned { found }
        } else {
            Refusal::UnknownAlgorithm { found }
        }
    })
}

/// A token and the one key that must have signed it.
#[derive(Debug)]
pub struct Selected<'t, 'k, K> {
    token: Unverified<'t>,
    key: &'k Key<K>,
    header: Arc<Header>,
    signature: Vec<u8>,
}

impl<'t, 'k, K> Selected<'t, 'k, K> {
    /// The key.
    pub const fn key(&self) -> &'k Key<K> {
        self.key
    }

    /// What was signed.
    pub const fn message(&self) -> &'t [u8] {
        self.token.message.as_bytes()
    }

    /// The signature, decoded; of the right length where the algorithm has one.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Step two, at once.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`]; [`Refusal::Encoding`] of the payload.
    pub fn verify(self) -> Result<Signed, Refusal>
    where
        K: Verify,
    {
        let is_good = self.key.check().verify(self.message(), &self.signature).is_ok();
        self.judged(is_good)
    }

    /// Step two for a key that answers later: `is_good` is what [`key`](Self::key) said about
    /// [`message`](Self::message) and [`signature`](Self::signature). Who calls this vouches for that, as who
    /// implements [`Verify`] does.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`]; [`Refusal::Encoding`] of the payload.
    pub fn judged(self, is_good: bool) -> Result<Signed, Refusal> {
        if !is_good {
            return Err(Refusal::BadSignature { key: self.key.shown_id() });
        }
        let payload = base64url::decode(self.token.payload).ok_or(Refusal::Encoding { part: Part::Payload })?;
        Ok(Signed { header: self.header, key_id: self.key.shared_id(), payload })
    }
}

/// A token whose signature is good. What it says may be old, or for somebody else.
#[derive(Clone, Debug)]
pub struct Signed {
    header: Arc<Header>,
    key_id: Option<Arc<str>>,
    payload: Vec<u8>,
}

impl Signed {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The payload: any bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Step three: is it a JWT, from whom and for whom we expect, and alive at `now`?
    ///
    /// # Errors
    /// A [`Refusal`] for the first thing that is not so.
    pub fn claims(self, expected: &Expected, now: Timestamp) -> Result<Verified<Claims>, Refusal> {
        expected.check_type(self.header.typ.as_deref())?;
        let json = Json::parse(self.payload).map_err(|cause| Refusal::Json { part: Part::Payload, cause })?;
        let claims = Claims::read(json)?;
        expected.check(&claims, now)?;
        Ok(Verified::new(claims, self.header, self.key_id))
    }
}
