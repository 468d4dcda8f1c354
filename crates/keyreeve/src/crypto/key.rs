//! Private keys from PEM (PKCS #8, SEC1, PKCS #1) or JWK, with errors that name what was found.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keyreeve_core::jwt::Algorithm;
use keyreeve_core::secret::Secret;
use p256::pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use sec1::{EcParameters, EcPrivateKey};
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

/// The largest key that is read, in bytes. An RSA key of 8192 bits has 6.5 KiB in PEM.
pub const KEY_BYTES_MAX: usize = 16 * 1024;

/// RFC 7518 3.3: with RS256 a key of this many bits or more must be used.
const RSA_BITS_MIN: usize = 2048;

const P256_EXPECTED: &str = "a P-256 private key in PEM (PKCS#8 `.p8`, SEC1) or JWK";
const P384_EXPECTED: &str = "a P-384 private key in PEM (PKCS#8, SEC1) or JWK";
const P521_EXPECTED: &str = "a P-521 private key in PEM (PKCS#8, SEC1) or JWK";
const ED25519_EXPECTED: &str = "an Ed25519 private key in PEM (PKCS#8) or JWK";
pub(super) const RSA_EXPECTED: &str = "an RSA private key in PEM (PKCS#8, PKCS#1) or JWK";
const HMAC_EXPECTED: &str = "an HMAC secret as plain bytes or JWK";

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const SECP521R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const SECP256K1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ED448: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.113");

/// Why a key cannot be used. No variant holds any of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is something else.
    #[error("expected {expected}, found {found}")]
    Wrong {
        /// What the algorithm needs.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// It is the right thing, but damaged or inconsistent.
    #[error("expected {expected}, found one that is not valid: {cause}")]
    Refused {
        /// What the algorithm needs.
        expected: &'static str,
        /// What the library says.
        cause: String,
    },
    /// It is the right thing, but too weak.
    #[error("{algorithm} needs a key of at least {limit} bits, found {found}")]
    Short {
        /// The algorithm.
        algorithm: &'static str,
        /// What was given, in bits.
        found: usize,
        /// What is needed, in bits.
        limit: usize,
    },
    /// This build cannot sign with it.
    #[error("{0} cannot be signed by this build of keyreeve\nhint: use ES256, EdDSA or an HMAC")]
    Platform(&'static str),
    /// Its signatures are random, and the same one is needed each time.
    #[error("a signature of {0} is another one each time, so no node could repeat it\nhint: use ES256, EdDSA or RS256")]
    Random(&'static str),
}

/// What a key file turned out to hold.
enum Found {
    Pkcs8(Kind, Secret<Vec<u8>>),
    Sec1(Secret<Vec<u8>>),
    Pkcs1(Secret<Vec<u8>>),
    Jwk(Map<String, Value>),
    Other(String),
}

impl Drop for Found {
    fn drop(&mut self) {
        if let Self::Jwk(members) = self {
            for member in members.values_mut() {
                if let Value::String(text) = member {
                    text.zeroize();
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Secp256k1,
    Ed25519,
    Ed448,
    Unknown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "an RSA key",
            Self::P256 => "a P-256 key",
            Self::P384 => "a P-384 key",
            Self::P521 => "a P-521 key",
            Self::Secp256k1 => "a secp256k1 key",
            Self::Ed25519 => "an Ed25519 key",
            Self::Ed448 => "an Ed448 key",
            Self::Unknown => "a key of an unknown type",
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pkcs8(kind, _) => write!(f, "{kind} in PKCS#8 PEM"),
            Self::Sec1(_) => f.write_str("an EC key in SEC1 PEM"),
            Self::Pkcs1(_) => f.write_str("an RSA key in PKCS#1 PEM"),
            Self::Jwk(members) => {
                let text = |name| members.get(name).and_then(Value::as_str).unwrap_or_default();
                match (text("kty"), text("crv")) {
                    ("RSA", _) => f.write_str("an RSA key in JWK"),
                    ("oct", _) => f.write_str("an HMAC secret in JWK"),
                    ("EC", "P-256") => f.write_str("a P-256 key in JWK"),
                    ("EC", "P-384") => f.write_str("a P-384 key in JWK"),
                    ("EC", "P-521") => f.write_str("a P-521 key in JWK"),
                    ("OKP", "Ed25519") => f.write_str("an Ed25519 key in JWK"),
                    // Whatever else is written there may be a key in the wrong place.
                    ("EC" | "OKP", _) => f.write_str("a JWK of another curve"),
                    _ => f.write_str("a JWK of an unknown type"),
                }
            }
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl Found {
    fn read(bytes: &[u8]) -> Self {
        let other = |what: &str| Self::Other(what.to_owned());
        if bytes.len() > KEY_BYTES_MAX {
            return Self::Other(format!("{} bytes, more than the limit of {KEY_BYTES_MAX}", bytes.len()));
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return other(if bytes.first() == Some(&0x30) { "binary DER" } else { "bytes that are not text" });
        };
        let text = text.trim();
        if text.is_empty() {
            return other("nothing");
        }
        if text.starts_with('{') {
            return serde_json::from_str(text).map_or_else(|_| other("JSON that does not parse"), Self::Jwk);
        }
        let mut rest = text;
        // `openssl ecparam -genkey` writes the curve in a block of its own before the key.
        loop {
            let Some((_, after)) = rest.split_once("-----BEGIN ") else {
                return other("text that is neither PEM nor JWK");
            };
            let Some((label, after)) = after.split_once("-----") else {
                return other("PEM without a proper first line");
            };
            let end = format!("-----END {label}-----");
            let Some((body, after)) = after.split_once(end.as_str()) else {
                return other("PEM without its last line");
            };
            if label != "EC PARAMETERS" {
                return Self::read_pem(label, body);
            }
            rest = after;
        }
    }

    fn read_pem(label: &str, body: &str) -> Self {
        let other = |what: &str| Self::Other(what.to_owned());
        match label {
            "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => {}
            "ENCRYPTED PRIVATE KEY" => return other("an encrypted private key"),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => return other("a public key"),
            "CERTIFICATE" => return other("a certificate"),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => return other("a certificate request"),
            "OPENSSH PRIVATE KEY" => return other("an OpenSSH private key"),
            _ => return other("PEM of another kind"),
        }
        if body.contains("Proc-Type:") {
            return other("an encrypted private key");
        }
        let base64: Zeroizing<String> = Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        let Ok(der) = STANDARD.decode(base64.as_bytes()) else { return other("PEM whose base64 is damaged") };
        let der = Secret::new(der);
        match label {
            "EC PRIVATE KEY" => Self::Sec1(der),
            "RSA PRIVATE KEY" => Self::Pkcs1(der),
            _ => match kind_of(der.expose()) {
                Some(kind) => Self::Pkcs8(kind, der),
                None => other("PEM whose content is not PKCS#8"),
            },
        }
    }
}

fn kind_of(der: &[u8]) -> Option<Kind> {
    let info = PrivateKeyInfoRef::try_from(der).ok()?;
    let curve = info.algorithm.parameters_oid().ok();
    Some(match info.algorithm.oid {
        RSA_ENCRYPTION => Kind::Rsa,
        ED25519 => Kind::Ed25519,
        ED448 => Kind::Ed448,
        EC_PUBLIC_KEY => match curve {
            Some(PRIME256V1) => Kind::P256,
            Some(SECP384R1) => Kind::P384,
            Some(SECP521R1) => Kind::P521,
            Some(SECP256K1) => Kind::Secp256k1,
            _ => Kind::Unknown,
        },
        _ => Kind::Unknown,
    })
}

macro_rules! ec_key {
    ($name:ident, $kind:ident, $oid:ident, $curve:literal, $algorithm:ident, $expected:ident) => {
        #[doc = concat!("Reads a ", $curve, " private key.")]
        ///
        /// Making a key computes its public half, which takes milliseconds in wasm: what the file says of that half is compared
        /// with it here, so that it is computed once.
        pub(super) fn $name(bytes: &[u8]) -> Result<$name::ecdsa::SigningKey, KeyError> {
            /// RFC 5915 3: the curve and the public key may be there; then they must be the right ones.
            fn of_sec1(der: &[u8]) -> Option<$name::ecdsa::SigningKey> {
                let read = EcPrivateKey::try_from(der).ok()?;
                if matches!(read.parameters, Some(EcParameters::NamedCurve(curve)) if curve != $oid) {
                    return None;
                }
                let key = $name::ecdsa::SigningKey::from_slice(read.private_key).ok()?;
                let is_its_own = read.public_key.is_none_or(|public| {
                    let is_compressed = matches!(public.first(), Some(2 | 3));
                    key.verifying_key().to_sec1_point(is_compressed).as_bytes() == public
                });
                is_its_own.then_some(key)
            }

            let found = Found::read(bytes);
            let refused = |cause: &str| KeyError::Refused { expected: $expected, cause: cause.to_owned() };
            match &found {
                Found::Pkcs8(Kind::$kind, der) => {
                    let info =
                        PrivateKeyInfoRef::try_from(der.expose().as_slice()).map_err(|_| refused("not PKCS#8"))?;
                    of_sec1(info.private_key.as_bytes()).ok_or_else(|| refused("the number is not a key of the curve"))
                }
                Found::Sec1(der) => of_sec1(der.expose())
                    .ok_or_else(|| refused("another curve, or the number is not a key of the curve")),
                Found::Jwk(jwk) if is(jwk, "EC", Some($curve)) => {
                    may_sign(jwk, Algorithm::$algorithm, $expected)?;
                    let d = member(jwk, "d", $expected)?;
                    let key = $name::ecdsa::SigningKey::from_slice(d.expose())
                        .map_err(|_| refused("`d` is not a key of the curve"))?;
                    let point = key.verifying_key().to_sec1_point(false);
                    let (x, y) = (point.x().map(|x| x.to_vec()), point.y().map(|y| y.to_vec()));
                    for (name, is) in [("x", x), ("y", y)] {
                        if jwk.contains_key(name) && Some(member(jwk, name, $expected)?.expose()) != is.as_ref() {
                            return Err(refused("`x` and `y` do not belong to `d`"));
                        }
                    }
                    Ok(key)
                }
                _ => Err(KeyError::Wrong { expected: $expected, found: found.to_string() }),
            }
        }
    };
}

ec_key!(p256, P256, PRIME256V1, "P-256", Es256, P256_EXPECTED);
ec_key!(p384, P384, SECP384R1, "P-384", Es384, P384_EXPECTED);
ec_key!(p521, P521, SECP521R1, "P-521", Es512, P521_EXPECTED);

/// Reads an Ed25519 private key.
pub(super) fn ed25519(bytes: &[u8]) -> Result<ed25519_dalek::SigningKey, KeyError> {
    let found = Found::read(bytes);
    let refused = |cause: &str| KeyError::Refused { expected: ED25519_EXPECTED, cause: cause.to_owned() };
    match &found {
        Found::Pkcs8(Kind::Ed25519, der) => {
            let info = PrivateKeyInfoRef::try_from(der.expose().as_slice()).map_err(|_| refused("not PKCS#8"))?;
            ed25519_dalek::SigningKey::try_from(info)
                .map_err(|_| refused("not 32 bytes, or not with its own public key"))
        }
        Found::Jwk(jwk) if is(jwk, "OKP", Some("Ed25519")) => {
            may_sign(jwk, Algorithm::EdDsa, ED25519_EXPECTED)?;
            let d = member(jwk, "d", ED25519_EXPECTED)?;
            let d: &[u8; 32] = d.expose().as_slice().try_into().map_err(|_| refused("`d` is not 32 bytes long"))?;
            let key = ed25519_dalek::SigningKey::from_bytes(d);
            let x = jwk.contains_key("x").then(|| member(jwk, "x", ED25519_EXPECTED)).transpose()?;
            if x.is_some_and(|x| x.expose().as_slice() != key.verifying_key().as_bytes()) {
                return Err(refused("`x` does not belong to `d`"));
            }
            Ok(key)
        }
        _ => Err(KeyError::Wrong { expected: ED25519_EXPECTED, found: found.to_string() }),
    }
}

/// Reads an HMAC secret of at least `limit` bytes (RFC 7518 3.2: as long as the hash).
pub(super) fn hmac(bytes: &[u8], algorithm: Algorithm, limit: usize) -> Result<Secret<Vec<u8>>, KeyError> {
    let looks_like = |start: &[u8]| bytes.trim_ascii_start().starts_with(start);
    let secret = if looks_like(b"{") {
        let found = Found::read(bytes);
        match &found {
            Found::Jwk(jwk) if is(jwk, "oct", None) => {
                may_sign(jwk, algorithm, HMAC_EXPECTED)?;
                member(jwk, "k", HMAC_EXPECTED)?
            }
            _ => return Err(KeyError::Wrong { expected: HMAC_EXPECTED, found: found.to_string() }),
        }
    } else if looks_like(b"-----BEGIN ") {
        // A public key taken for an HMAC secret is how tokens get forged.
        let found = Found::read(bytes).to_string();
        return Err(KeyError::Wrong { expected: HMAC_EXPECTED, found });
    } else {
        Secret::new(bytes.to_vec())
    };
    let found = secret.expose().len();
    if found > KEY_BYTES_MAX {
        let found = format!("{found} bytes, more than the limit of {KEY_BYTES_MAX}");
        return Err(KeyError::Wrong { expected: HMAC_EXPECTED, found });
    }
    if found < limit {
        return Err(KeyError::Short { algorithm: algorithm.as_str(), found: found * 8, limit: limit * 8 });
    }
    Ok(secret)
}

/// Reads an RSA private key for `algorithm` that is long enough for it, and gives it in the one form that every library takes:
/// PKCS #8 (RFC 5958). Whoever uses it checks whether its numbers belong together.
///
/// # Errors
/// [`KeyError`] where it is something else, or too short.
pub fn rsa_pkcs8(bytes: &[u8], algorithm: Algorithm) -> Result<Secret<Vec<u8>>, KeyError> {
    let key = any_rsa_pkcs8(bytes, algorithm)?;
    let damaged = || KeyError::Refused { expected: RSA_EXPECTED, cause: "its numbers cannot be read".to_owned() };
    let found = rsa_bits(key.expose()).ok_or_else(damaged)?;
    if found < RSA_BITS_MIN {
        return Err(KeyError::Short { algorithm: algorithm.as_str(), found, limit: RSA_BITS_MIN });
    }
    Ok(key)
}

fn any_rsa_pkcs8(bytes: &[u8], algorithm: Algorithm) -> Result<Secret<Vec<u8>>, KeyError> {
    let found = Found::read(bytes);
    match &found {
        Found::Pkcs8(Kind::Rsa, der) => Ok(der.clone()),
        Found::Pkcs1(der) => Ok(pkcs8_of(der.expose())),
        Found::Jwk(jwk) if is(jwk, "RSA", None) => {
            may_sign(jwk, algorithm, RSA_EXPECTED)?;
            // RFC 8017 A.1.2, in this order; RFC 7518 6.3 has the same numbers.
            let mut numbers = Zeroizing::new(TWO_PRIMES.to_vec());
            for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
                let number = member(jwk, name, RSA_EXPECTED)?;
                let number = without_zeros(number.expose());
                // X.690 8.3: without this byte a number with its first bit set would be negative.
                let sign: &[u8] = if number.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
                numbers.extend_from_slice(&der(INTEGER, &[sign, number]));
            }
            Ok(pkcs8_of(&der(SEQUENCE, &[&numbers])))
        }
        _ => Err(KeyError::Wrong { expected: RSA_EXPECTED, found: found.to_string() }),
    }
}

/// How many bits the modulus of an RSA key in PKCS #8 has; `None` where none can be read.
fn rsa_bits(pkcs8: &[u8]) -> Option<usize> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).ok()?;
    // RFC 8017 A.1.2: a sequence of the version, the modulus, and what does not matter here.
    let (numbers, _) = der_value(SEQUENCE, info.private_key.as_bytes())?;
    let (_, numbers) = der_value(INTEGER, numbers)?;
    let modulus = without_zeros(der_value(INTEGER, numbers)?.0);
    let unused = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    modulus.len().checked_mul(8)?.checked_sub(unused)
}

/// The content of the first value in `der`, which must have this tag, and what follows it (X.690 8.1).
fn der_value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, short], rest) = der.split_first_chunk().filter(|([found, _], _)| *found == tag)?;
    let (length, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        // Longer than four bytes would be longer than any key that is read.
        let (length, rest) =
            rest.split_at_checked(usize::from(short & 0x7f)).filter(|(length, _)| length.len() <= 4)?;
        (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
    };
    rest.split_at_checked(length)
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// The version 0, of a key with two primes.
const TWO_PRIMES: &[u8] = &[INTEGER, 1, 0];
/// The version 0, and the algorithm `rsaEncryption` with its NULL.
const PKCS8_OF_RSA: &[u8] =
    &[INTEGER, 1, 0, SEQUENCE, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0];

fn pkcs8_of(pkcs1: &[u8]) -> Secret<Vec<u8>> {
    let key = der(OCTET_STRING, &[pkcs1]);
    Secret::new(der(SEQUENCE, &[PKCS8_OF_RSA, &key]).to_vec())
}

fn without_zeros(number: &[u8]) -> &[u8] {
    number.iter().position(|byte| *byte > 0).and_then(|at| number.get(at..)).unwrap_or_default()
}

/// One value in DER (X.690): tag, length, content.
fn der(tag: u8, content: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = content.iter().map(|part| part.len()).sum();
    let bytes = length.to_be_bytes();
    // Room for all of it: a vector that grows leaves copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(length.saturating_add(10)));
    out.push(tag);
    match (u8::try_from(length), without_zeros(&bytes)) {
        (Ok(short), _) if short < 0x80 => out.push(short),
        (_, long) => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(0x7f));
            out.extend_from_slice(long);
        }
    }
    for part in content {
        out.extend_from_slice(part);
    }
    out
}

/// The numbers of an RSA key in PKCS #8 (RFC 5958, RFC 8017 A.1.2) as a library writes it: n, e, d, p, q, dp, dq, qi.
#[cfg(feature = "native")]
pub(super) fn rsa_numbers(pkcs8: &[u8]) -> Option<Vec<Secret<Vec<u8>>>> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).ok()?;
    let (mut numbers, _) = der_value(SEQUENCE, info.private_key.as_bytes())?;
    let mut found = Vec::with_capacity(9);
    while !numbers.is_empty() {
        let (number, rest) = der_value(INTEGER, numbers)?;
        found.push(Secret::new(without_zeros(number).to_vec()));
        numbers = rest;
    }
    // The first is the version.
    (found.len() == 9).then(|| found.split_off(1))
}

fn is(jwk: &Map<String, Value>, kty: &str, crv: Option<&str>) -> bool {
    let text = |name| jwk.get(name).and_then(Value::as_str);
    text("kty") == Some(kty) && (crv.is_none() || text("crv") == crv)
}

/// RFC 7517 4.2, 4.4: a key that says what it is for is used for nothing else.
fn may_sign(jwk: &Map<String, Value>, algorithm: Algorithm, expected: &'static str) -> Result<(), KeyError> {
    let refused = |cause: String| Err(KeyError::Refused { expected, cause });
    if jwk.get("use").is_some_and(|purpose| purpose != "sig") {
        return refused("its `use` is not `sig`".into());
    }
    if jwk.get("alg").is_some_and(|alg| alg != algorithm.as_str()) {
        return refused(format!("its `alg` is not `{}`", algorithm.as_str()));
    }
    Ok(())
}

fn member(jwk: &Map<String, Value>, name: &str, expected: &'static str) -> Result<Secret<Vec<u8>>, KeyError> {
    let refused = |cause: String| KeyError::Refused { expected, cause };
    let Some(value) = jwk.get(name) else {
        let hint = if name == "d" { " (a public key?)" } else { "" };
        return Err(refused(format!("no `{name}`{hint}")));
    };
    let text = value.as_str().ok_or_else(|| refused(format!("`{name}` is not text")))?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused(format!("`{name}` is not base64url")))?;
    Ok(Secret::new(bytes))
}
