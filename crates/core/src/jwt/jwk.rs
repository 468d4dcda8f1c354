use std::fmt;

use subtle::ConstantTimeEq as _;

use super::algorithm::{Algorithm, Curve, Family};
use super::base64url;
use super::refusal::Shown;
use super::token::KEY_ID_BYTES_MAX;
use crate::crypto::Crypto;
use crate::json::{Json, JsonError, Node};
use crate::secret::Secret;

/// The largest single JWK that is read, in bytes.
pub const JWK_BYTES_MAX: usize = 16 * 1024;
/// The largest JWKS that is read, in bytes.
pub const JWK_SET_BYTES_MAX: usize = 100 * 1024;
/// The most keys of a JWKS.
pub const KEYS_MAX: usize = 100;
/// RFC 7518 3.3: shorter RSA keys must not be used.
const RSA_BITS_MIN: usize = 2048;
/// Longer ones only cost.
const RSA_BITS_MAX: usize = 8192;

/// What a signature is checked with. The name says what it mostly is; an HMAC secret is one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// An RSA key: big-endian numbers without leading zeros, 2048 to 8192 bits, exponent odd and at least 3.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// A point, coordinates of the curve's length. Whether it is on the curve is for who computes with it to see.
    Ec {
        /// The curve.
        curve: Curve,
        /// One coordinate.
        x: Vec<u8>,
        /// The other.
        y: Vec<u8>,
    },
    /// An Ed25519 key.
    Ed25519([u8; 32]),
    /// A secret that both sides know.
    Secret(Secret<Vec<u8>>),
}

/// Why a JWK cannot be used. Holds nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwkError {
    /// Larger than the limit.
    #[error("{found} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What came.
        found: usize,
        /// What is read.
        limit: usize,
    },
    /// No JSON.
    #[error("not good JSON: {0}")]
    Json(#[from] JsonError),
    /// JSON, but no JWK or JWKS.
    #[error("{0}")]
    Form(&'static str),
    /// A member is missing or of the wrong kind.
    #[error("`{0}` is missing or is not base64url text")]
    Member(&'static str),
    /// `kty` or `crv` is none that is known here.
    #[error("a key of type `{0}` is not known here")]
    Kind(Shown),
    /// `use` or `key_ops` is for something else than signatures.
    #[error("it is not for signatures: its `use` or `key_ops` says so")]
    Purpose,
    /// `alg` is none that is known here.
    #[error("its `alg` `{0}` is no signature algorithm that is known here")]
    UnknownAlgorithm(Shown),
    /// `alg` does not go with the kind of key, or none is said and the kind has no usual one.
    #[error("its `alg` does not go with a key of this kind, or is missing where the kind does not say it")]
    Algorithm,
    /// Too short, or known to be weak.
    #[error("{0}")]
    Weak(&'static str),
    /// A private key among keys that everybody may read.
    #[error("it is a private key, where everybody may read it: it is compromised")]
    Private,
    /// A secret among keys that everybody may read.
    #[error("it is a secret, where everybody may read it")]
    Secret,
}

/// A JWK (RFC 7517) whose form is right: the public half of it, or a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    /// `kid`.
    pub id: Option<String>,
    /// The one algorithm it is for: `alg`, or what its kind says.
    pub algorithm: Algorithm,
    /// The key.
    pub key: PublicKey,
    /// Whether the private half was there too.
    pub is_private: bool,
}

/// A key of a JWKS that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its `kid`.
    pub id: Option<Shown>,
    /// Why.
    pub cause: JwkError,
}

/// A JWKS (RFC 7517 5): what can be used of it. One bad key costs itself only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwkSet {
    /// The good ones, in order.
    pub keys: Vec<Jwk>,
    /// The others.
    pub skipped: Vec<Skipped>,
}

impl Jwk {
    /// Reads one key, for verifying. `usual` is the algorithm of a key that says none: an RSA key's is RS256 where nobody
    /// says, a secret has none.
    ///
    /// # Errors
    /// [`JwkError`].
    pub fn parse(text: &[u8], usual: Option<Algorithm>) -> Result<Self, JwkError> {
        if text.len() > JWK_BYTES_MAX {
            return Err(JwkError::TooLarge { found: text.len(), limit: JWK_BYTES_MAX });
        }
        Self::read(Json::parse(text.to_vec())?.root(), usual)
    }

    /// Reads one key out of a document that has been parsed.
    ///
    /// # Errors
    /// [`JwkError`].
    pub fn read(jwk: Node<'_>, usual: Option<Algorithm>) -> Result<Self, JwkError> {
        let text =
            |name| jwk.member(name).map(|value: Node<'_>| value.text().ok_or(JwkError::Member(name))).transpose();
        let kty = text("kty")?.ok_or(JwkError::Form("no `kty`: not a JWK"))?;
        check_purpose(jwk)?;
        let key = PublicKey::read(jwk, kty)?;
        let said = match text("alg")? {
            None => None,
            Some(name) => Some(Algorithm::named(name).ok_or_else(|| JwkError::UnknownAlgorithm(Shown::of(name)))?),
        };
        let algorithm = said.or_else(|| usual.filter(|usual| key.goes_with(*usual))).or(key.usual_algorithm());
        let algorithm = algorithm.filter(|algorithm| key.goes_with(*algorithm)).ok_or(JwkError::Algorithm)?;
        if let PublicKey::Secret(secret) = &key
            && secret.expose().len() < algorithm.secret_bytes_min()
        {
            return Err(JwkError::Weak("the secret is shorter than the hash (RFC 7518 3.2)"));
        }
        let is_private = jwk.member("d").is_some();
        let id = text("kid")?.filter(|id| !id.is_empty()).map(str::to_owned);
        // No token can name it: its header is refused.
        if id.as_ref().is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return Err(JwkError::Form("its `kid` is longer than 256 bytes"));
        }
        Ok(Self { id, algorithm, key, is_private })
    }
}

/// RFC 7517 4.2, 4.3: a key that says what it is for is used for nothing else.
fn check_purpose(jwk: Node<'_>) -> Result<(), JwkError> {
    if jwk.member("use").is_some_and(|purpose| purpose.text() != Some("sig")) {
        return Err(JwkError::Purpose);
    }
    if let Some(operations) = jwk.member("key_ops") {
        let is_ours = |operation: Node<'_>| matches!(operation.text(), Some("verify" | "sign"));
        if !operations.items().is_some_and(|mut items| items.any(is_ours)) {
            return Err(JwkError::Purpose);
        }
    }
    Ok(())
}

impl PublicKey {
    fn read(jwk: Node<'_>, kty: &str) -> Result<Self, JwkError> {
        let bytes = |name| {
            let text = jwk.member(name).and_then(Node::text).ok_or(JwkError::Member(name))?;
            base64url::decode(text).ok_or(JwkError::Member(name))
        };
        let crv = jwk.member("crv").and_then(Node::text).unwrap_or_default();
        match (kty, crv) {
            ("RSA", _) => Self::rsa(bytes("n")?, bytes("e")?),
            ("EC", "P-256") => Self::ec(Curve::P256, bytes("x")?, bytes("y")?),
            ("EC", "P-384") => Self::ec(Curve::P384, bytes("x")?, bytes("y")?),
            ("EC", "P-521") => Self::ec(Curve::P521, bytes("x")?, bytes("y")?),
            ("OKP", "Ed25519") => {
                Ok(Self::Ed25519(bytes("x")?.try_into().map_err(|_| JwkError::Weak("`x` is not 32 bytes long"))?))
            }
            ("oct", _) => Ok(Self::Secret(Secret::new(bytes("k")?))),
            ("EC" | "OKP", crv) => Err(JwkError::Kind(Shown::of(crv))),
            (kty, _) => Err(JwkError::Kind(Shown::of(kty))),
        }
    }

    /// An RSA key, from big-endian numbers.
    ///
    /// # Errors
    /// [`JwkError::Weak`].
    pub fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Self, JwkError> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if bits < RSA_BITS_MIN {
            return Err(JwkError::Weak("the RSA key has fewer than 2048 bits (RFC 7518 3.3)"));
        }
        if bits > RSA_BITS_MAX {
            return Err(JwkError::Weak("the RSA key has more than 8192 bits"));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        if !is_odd(&e) || e.len() > 8 || e == [1] || !is_odd(&n) {
            return Err(JwkError::Weak("the RSA key's exponent or modulus is not one of a key"));
        }
        if is_roca(&n) {
            return Err(JwkError::Weak(
                "the RSA key comes from a generator whose keys can be factored (ROCA, CVE-2017-15361)",
            ));
        }
        Ok(Self::Rsa { n, e })
    }

    /// A point of a curve, from coordinates of the curve's length.
    ///
    /// # Errors
    /// [`JwkError::Weak`] where they are of another length.
    pub fn ec(curve: Curve, x: Vec<u8>, y: Vec<u8>) -> Result<Self, JwkError> {
        // RFC 7518 6.2.1.2: the full length, leading zeros included.
        let is_full = |part: &[u8]| part.len() == curve.coordinate_bytes();
        if !is_full(&x) || !is_full(&y) {
            return Err(JwkError::Weak("`x` or `y` has not the length of the curve's coordinates"));
        }
        Ok(Self::Ec { curve, x, y })
    }

    /// Whether a key of this kind can be for `algorithm`.
    #[must_use]
    pub fn goes_with(&self, algorithm: Algorithm) -> bool {
        match (self, algorithm.family()) {
            (Self::Rsa { .. }, Family::Rsa) | (Self::Ed25519(_), Family::Ed25519) | (Self::Secret(_), Family::Hmac) => {
                true
            }
            (Self::Ec { curve, .. }, Family::Ec(other)) => *curve == other,
            _ => false,
        }
    }

    /// The algorithm of a key that says none. A secret has none.
    #[must_use]
    pub const fn usual_algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::Rsa { .. } => Some(Algorithm::Rs256),
            Self::Ec { curve, .. } => Some(curve.algorithm()),
            Self::Ed25519(_) => Some(Algorithm::EdDsa),
            Self::Secret(_) => None,
        }
    }

    /// The members that RFC 7638 3.2 hashes, in its order and spelling.
    fn required(&self) -> String {
        let text = base64url::encode;
        match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n)),
            Self::Ec { curve, x, y } => {
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.as_str(), text(x), text(y))
            }
            Self::Ed25519(x) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text(x)),
            Self::Secret(k) => format!(r#"{{"k":"{}","kty":"oct"}}"#, text(k.expose())),
        }
    }

    /// The thumbprint (RFC 7638, RFC 8037 2) by SHA-256.
    #[must_use]
    pub fn thumbprint(&self, crypto: &dyn Crypto) -> Thumbprint {
        Thumbprint(crypto.sha256(&[self.required().as_bytes()]))
    }

    /// As a public JWK with `kid`, `alg` and `use`, the key's own members first and in the order of their names. `None` for a
    /// secret, which is nothing to publish.
    #[must_use]
    pub fn to_jwk(&self, id: Option<&str>, algorithm: Algorithm) -> Option<String> {
        if matches!(self, Self::Secret(_)) {
            return None;
        }
        let mut jwk = self.required();
        jwk.pop();
        if let Some(id) = id {
            jwk.push_str(",\"kid\":");
            crate::json::write_text(&mut jwk, id);
        }
        jwk.push_str(&format!(r#","alg":"{algorithm}","use":"sig"}}"#));
        Some(jwk)
    }
}

fn without_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

/// Whether a modulus has the structure that the generator of CVE-2017-15361 gave its primes: modulo each of these small
/// primes it is a power of 65537 (Nemec and others, "The Return of Coppersmith's Attack", 2017).
fn is_roca(n: &[u8]) -> bool {
    const PRIMES: [u32; 20] = [3, 5, 7, 11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];
    PRIMES.iter().all(|prime| {
        let rest = n.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * 65537 % prime));
        powers.take(*prime as usize).any(|power| power == rest)
    })
}

impl JwkSet {
    /// Reads what an issuer publishes. Private keys and secrets have no place there and are not used.
    ///
    /// # Errors
    /// [`JwkError`] where it is no set at all; a bad key is [`skipped`](Self::skipped).
    pub fn parse_public(text: &[u8]) -> Result<Self, JwkError> {
        let mut set = Self::parse(text)?;
        let is_open = |jwk: &Jwk| match jwk {
            Jwk { key: PublicKey::Secret(_), .. } => Some(JwkError::Secret),
            Jwk { is_private: true, .. } => Some(JwkError::Private),
            _ => None,
        };
        for jwk in std::mem::take(&mut set.keys) {
            match is_open(&jwk) {
                None => set.keys.push(jwk),
                Some(cause) => set.skipped.push(Skipped { id: jwk.id.as_deref().map(Shown::of), cause }),
            }
        }
        Ok(set)
    }

    /// Reads a set of one's own, from a file or a variable. Secrets are taken, but not beside keys of another kind: who may
    /// read those could then sign.
    ///
    /// # Errors
    /// [`JwkError`] where it is no set at all.
    pub fn parse(text: &[u8]) -> Result<Self, JwkError> {
        if text.len() > JWK_SET_BYTES_MAX {
            return Err(JwkError::TooLarge { found: text.len(), limit: JWK_SET_BYTES_MAX });
        }
        let json = Json::parse(text.to_vec())?;
        let keys = json.root().member("keys").and_then(Node::items);
        let keys = keys.ok_or(JwkError::Form("no list `keys`: not a JWKS"))?;
        if keys.clone().count() > KEYS_MAX {
            return Err(JwkError::Form("more than 100 keys"));
        }
        let mut set = Self::default();
        for jwk in keys {
            match Jwk::read(jwk, None) {
                Ok(jwk) => set.keys.push(jwk),
                Err(cause) => {
                    let id = jwk.member("kid").and_then(Node::text).map(Shown::of);
                    set.skipped.push(Skipped { id, cause });
                }
            }
        }
        set.drop_twins();
        if set.keys.iter().any(|jwk| !jwk.algorithm.is_symmetric()) {
            let (secrets, keys) = set.keys.into_iter().partition(|jwk| jwk.algorithm.is_symmetric());
            set.keys = keys;
            let secrets: Vec<Jwk> = secrets;
            let skipped = |jwk: Jwk| Skipped { id: jwk.id.as_deref().map(Shown::of), cause: JwkError::Secret };
            set.skipped.extend(secrets.into_iter().map(skipped));
        }
        Ok(set)
    }
}

impl JwkSet {
    /// Which of two keys a shared id means is anybody's guess; also where one of the two is damaged. A key that is not for
    /// signatures at all is no rival.
    fn drop_twins(&mut self) {
        let is_damaged = |cause: &JwkError| {
            matches!(cause, JwkError::Member(_) | JwkError::Weak(_) | JwkError::Algorithm | JwkError::Json(_))
        };
        let damaged: Vec<Shown> =
            self.skipped.iter().filter(|skipped| is_damaged(&skipped.cause)).filter_map(|one| one.id.clone()).collect();
        let (twins, keys) = std::mem::take(&mut self.keys)
            .into_iter()
            .partition::<Vec<_>, _>(|jwk| jwk.id.as_deref().is_some_and(|id| damaged.contains(&Shown::of(id))));
        self.keys = keys;
        let cause = JwkError::Form("another key of this set has the same id");
        self.skipped.extend(
            twins.into_iter().map(|jwk| Skipped { id: jwk.id.as_deref().map(Shown::of), cause: cause.clone() }),
        );
    }
}

/// The SHA-256 thumbprint of a key (RFC 7638). Compares in constant time; prints as base64url.
#[derive(Clone, Copy)]
pub struct Thumbprint(pub [u8; 32]);

impl Thumbprint {
    /// Reads the printed form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        base64url::decode(text)?.try_into().ok().map(Self)
    }
}

impl PartialEq for Thumbprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Thumbprint {}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(&self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
