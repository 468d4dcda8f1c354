use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::base64url;
use super::claims::Claims;
use super::jwk::{Jwk, PublicKey, Thumbprint};
use super::key::Key;
use super::refusal::{Part, Refusal, Shown};
use super::token::{Header, Selected, Signed, Unverified};
use crate::crypto::Crypto;
use crate::json::{Json, Node};
use crate::time::Timestamp;

/// The `typ` of a proof.
const TYPE: &str = "dpop+jwt";
/// The longest `jti`, in bytes.
const ID_BYTES_MAX: usize = 256;

/// A proof of possession (RFC 9449), taken apart. The key in it is the prover's own: it says who proves, never what they may.
#[derive(Clone, Debug)]
pub struct Proof<'t> {
    token: Unverified<'t>,
    header: Arc<Header>,
    key: PublicKey,
}

/// What a proof has to be about.
#[derive(Clone, Copy, Debug)]
pub struct ProofExpected<'a> {
    /// The method of the request it came with.
    pub method: &'a str,
    /// The URL of that request; query and fragment are not compared.
    pub url: &'a str,
    /// The access token it came with, if any.
    pub access_token: Option<&'a str>,
    /// The nonce that this server gave out, if it does (RFC 9449 8).
    pub nonce: Option<&'a str>,
    /// How old it may be, and how far ahead of the clock, in seconds.
    pub window_s: u64,
}

/// A proof that holds. Whether it is the first time is for whoever remembers [`id`](Self::id) to say.
#[derive(Clone, Debug)]
pub struct Possession {
    thumbprint: Thumbprint,
    id: String,
    until: Timestamp,
}

impl Possession {
    /// The thumbprint of the key that the sender has: what `cnf.jkt` of an access token is compared with.
    #[must_use]
    pub const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// What must not come a second time (RFC 9449 11.1): thumbprint and `jti`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Until when a second time would be accepted, so until when to remember [`id`](Self::id).
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.until
    }
}

impl<'t> Proof<'t> {
    /// Takes a proof apart (RFC 9449 4.3, steps 2 to 6).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn parse(text: &'t str) -> Result<Self, Refusal> {
        let token = Unverified::parse(text)?;
        let json = token.header_json()?;
        let header = Header::read(&json)?;
        if header.typ.as_deref() != Some(TYPE) {
            let found = Shown::of(header.typ.as_deref().unwrap_or("-"));
            return Err(Refusal::Type { found, wanted: format!("`{TYPE}`") });
        }
        if header.algorithm.is_symmetric() {
            return Err(Refusal::Header { member: "alg", why: "of a proof is not a secret's" });
        }
        let jwk = json.root().member("jwk").ok_or(Refusal::Header { member: "jwk", why: "is missing" })?;
        let is_bad = |why| Refusal::Header { member: "jwk", why };
        let jwk = Jwk::read(jwk, Some(header.algorithm)).map_err(|_| is_bad("is no public key that is known here"))?;
        if jwk.is_private {
            return Err(is_bad("is a private key"));
        }
        if !jwk.key.goes_with(header.algorithm) || jwk.algorithm != header.algorithm {
            return Err(is_bad("does not go with `alg`"));
        }
        Ok(Self { token, header: Arc::new(header), key: jwk.key })
    }

    /// The prover's key, to be made ready.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Goes on with the prover's key made ready.
    ///
    /// # Errors
    /// [`Refusal`] of the form of the signature.
    pub fn select<K>(self, ready: &Key<K>) -> Result<Selected<'t, '_, K>, Refusal> {
        self.token.signed_by(ready, self.header)
    }
}

impl Signed {
    /// Step three of a proof (RFC 9449 4.3, steps 8 to 12), whose [`Proof::key`] is `key`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn proof(
        self,
        key: &PublicKey,
        expected: &ProofExpected<'_>,
        now: Timestamp,
        crypto: &dyn Crypto,
    ) -> Result<Possession, Refusal> {
        let json =
            Json::parse(self.payload().to_vec()).map_err(|cause| Refusal::Json { part: Part::Payload, cause })?;
        let claims = Claims::read(json)?;
        let text = |name: &'static str| claims.text(name).ok_or(Refusal::MissingClaim(name));
        let id = text("jti")?;
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(Refusal::BadClaim { name: "jti", why: "is empty or longer than 256 bytes" });
        }
        if text("htm")? != expected.method {
            return Err(Refusal::Unbound("the proof is for another method"));
        }
        if plain_url(text("htu")?) != plain_url(expected.url) {
            return Err(Refusal::Unbound("the proof is for another URL"));
        }
        let (now_s, issued_s) = (now.seconds(), claims.issued_at_s().ok_or(Refusal::MissingClaim("iat"))?);
        if issued_s > now_s.saturating_add(expected.window_s) {
            return Err(Refusal::IssuedInFuture { in_s: issued_s.saturating_sub(now_s) });
        }
        let ends_s = issued_s.saturating_add(expected.window_s);
        if ends_s < now_s {
            return Err(Refusal::TooOld { age_s: now_s.saturating_sub(issued_s), limit_s: expected.window_s });
        }
        if let Some(nonce) = expected.nonce {
            let is_it: bool = text("nonce")?.as_bytes().ct_eq(nonce.as_bytes()).into();
            if !is_it {
                return Err(Refusal::Unbound("the proof has another nonce than was given out"));
            }
        }
        if let Some(token) = expected.access_token {
            let hash = base64url::encode(&crypto.sha256(&[token.as_bytes()]));
            let is_it: bool = text("ath")?.as_bytes().ct_eq(hash.as_bytes()).into();
            if !is_it {
                return Err(Refusal::Unbound("the proof is for another access token"));
            }
        }
        let thumbprint = key.thumbprint(crypto);
        let until = Timestamp(ends_s.saturating_add(1).saturating_mul(1000));
        Ok(Possession { thumbprint, id: format!("{thumbprint}.{id}"), until })
    }
}

impl Claims {
    /// The key that this token is bound to (RFC 9449 6.1): who brings it must prove to have it.
    ///
    /// # Errors
    /// [`Refusal::BadClaim`] where `cnf.jkt` is there and no thumbprint.
    pub fn bound_key(&self) -> Result<Option<Thumbprint>, Refusal> {
        let Some(jkt) = self.claim("cnf").and_then(|cnf| cnf.member("jkt")) else { return Ok(None) };
        let thumbprint = Node::text(jkt).and_then(Thumbprint::parse);
        thumbprint.map(Some).ok_or(Refusal::BadClaim { name: "cnf", why: "has a `jkt` that is no thumbprint" })
    }

    /// Checks that the token came with the certificate that it is bound to, if it is bound to one (RFC 8705 3): `shown` is the
    /// SHA-256 of the one that the connection was made with.
    ///
    /// # Errors
    /// [`Refusal::Unbound`]; [`Refusal::BadClaim`] where `cnf.x5t#S256` is there and no thumbprint.
    pub fn check_certificate(&self, shown: Option<[u8; 32]>) -> Result<(), Refusal> {
        let Some(bound) = self.claim("cnf").and_then(|cnf| cnf.member("x5t#S256")) else { return Ok(()) };
        let no_thumbprint = Refusal::BadClaim { name: "cnf", why: "has a `x5t#S256` that is no thumbprint" };
        let bound = Node::text(bound).and_then(Thumbprint::parse).ok_or(no_thumbprint)?;
        match shown.map(Thumbprint) {
            Some(shown) if shown == bound => Ok(()),
            Some(_) => Err(Refusal::Unbound("the token is bound to another certificate than the connection's")),
            None => Err(Refusal::Unbound("the token is bound to a certificate, and the connection showed none")),
        }
    }

    /// Checks that whoever brought the token has the key it is bound to, if it is bound to one.
    ///
    /// # Errors
    /// [`Refusal::Unbound`].
    pub fn check_possession(&self, possession: Option<&Possession>) -> Result<(), Refusal> {
        match (self.bound_key()?, possession) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Refusal::Unbound("the token is bound to a key, and nobody proved to have it")),
            (Some(bound), Some(proof)) if bound == proof.thumbprint => Ok(()),
            (Some(_), Some(_)) => Err(Refusal::Unbound("the token is bound to another key than the proof's")),
        }
    }
}

/// RFC 9449 4.3: compared without query and fragment, after the normalization of RFC 3986 6.2.2 and 6.2.3.
fn plain_url(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (scheme, mut host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let usual = if scheme == "https" { ":443" } else { ":80" };
    if let Some(plain) = host.strip_suffix(usual) {
        host = plain.to_owned();
    }
    format!("{scheme}://{host}/{path}")
}
