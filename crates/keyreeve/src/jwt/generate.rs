//! New key pairs, as JWK.

use keyreeve_core::jwt::{Algorithm, Curve, Family, Jwk, PublicKey, base64url};
use keyreeve_core::secret::Secret;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::crypto::KeyError;

/// The bits of a new RSA key.
pub const RSA_BITS: usize = 2048;
/// How often a number outside of a curve is drawn again; once in 2^32 draws for P-256.
const DRAWS_MAX: usize = 64;

/// A new key pair.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The public half, with `kid`, `alg` and `use`, in the order in which the Flarelette kit prints it.
    pub public: Map<String, Value>,
    /// The private half as JSON, with `kid`.
    pub private: Secret<String>,
    /// The public half, read.
    pub jwk: Jwk,
}

/// Draws a key pair for `algorithm`. `fill` fills bytes from the system's secure random generator; RSA keys are drawn by the
/// library itself.
///
/// # Errors
/// [`KeyError::Platform`] for RSA in builds without aws-lc; [`KeyError::Wrong`] for an HMAC, whose secret is no pair.
pub fn generate(algorithm: Algorithm, id: &str, fill: &mut dyn FnMut(&mut [u8])) -> Result<KeyPair, KeyError> {
    let (names, numbers): (&[&str], Vec<Secret<Vec<u8>>>) = match algorithm.family() {
        Family::Ed25519 => {
            let seed = drawn(32, fill);
            let bytes: [u8; 32] = seed.expose().as_slice().try_into().map_err(|_| unlucky())?;
            let public = ed25519_dalek::SigningKey::from_bytes(&bytes).verifying_key();
            (&["d", "x"], vec![seed, Secret::new(public.as_bytes().to_vec())])
        }
        Family::Ec(curve) => (&["d", "x", "y"], ec(curve, fill)?),
        Family::Rsa => (&["n", "e", "d", "p", "q", "dp", "dq", "qi"], rsa(algorithm)?),
        Family::Hmac => {
            let found = format!("{algorithm}, whose secret both sides know: `keyreeve keys secret` makes one");
            return Err(KeyError::Wrong { expected: "an algorithm with key pairs", found });
        }
    };
    let text = |name: &str| {
        let at = names.iter().position(|its| *its == name)?;
        Some(base64url::encode(numbers.get(at)?.expose()))
    };
    let (kty, crv, public_names): (_, _, &[&str]) = match algorithm.family() {
        Family::Ed25519 => ("OKP", Some("Ed25519"), &["x"]),
        Family::Ec(curve) => ("EC", Some(curve.as_str()), &["x", "y"]),
        _ => ("RSA", None, &["n", "e"]),
    };
    let mut public = Map::new();
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            public.insert(name.to_owned(), value.into());
        }
    };
    say("crv", crv.map(str::to_owned));
    public_names.iter().for_each(|name| say(name, text(name)));
    say("kty", Some(kty.to_owned()));
    say("kid", Some(id.to_owned()));
    say("alg", Some(algorithm.to_string()));
    say("use", Some("sig".to_owned()));

    let mut private = Map::new();
    if let Some(crv) = crv {
        private.insert("crv".to_owned(), crv.into());
    }
    for name in names {
        private.insert((*name).to_owned(), text(name).into());
    }
    private.insert("kty".to_owned(), kty.into());
    private.insert("kid".to_owned(), id.into());
    if crv.is_none() {
        // Its kind alone does not say which of six algorithms it is for.
        private.insert("alg".to_owned(), algorithm.as_str().into());
    }
    let jwk = Jwk::parse(Value::Object(public.clone()).to_string().as_bytes(), None);
    let jwk = jwk.map_err(|cause| KeyError::Refused { expected: "a new key", cause: cause.to_string() })?;
    let text = Value::Object(private).to_string();
    Ok(KeyPair { public, private: Secret::new(text), jwk })
}

/// A new secret of `bytes` bytes, as base64url.
pub fn secret(bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Secret<String> {
    Secret::new(base64url::encode(drawn(bytes, fill).expose()))
}

/// An id that nobody gave: algorithm and milliseconds, as the Flarelette kit has it.
#[must_use]
pub fn usual_id(algorithm: Algorithm, now_ms: u64) -> String {
    format!("{}-{now_ms}", algorithm.as_str().to_ascii_lowercase())
}

fn drawn(bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Secret<Vec<u8>> {
    let mut drawn = vec![0; bytes];
    fill(&mut drawn);
    Secret::new(drawn)
}

fn unlucky() -> KeyError {
    KeyError::Refused { expected: "random bytes", cause: "no draw was a key of the curve".to_owned() }
}

fn ec(curve: Curve, fill: &mut dyn FnMut(&mut [u8])) -> Result<Vec<Secret<Vec<u8>>>, KeyError> {
    for _ in 0..DRAWS_MAX {
        let mut number = Zeroizing::new(drawn(curve.coordinate_bytes(), fill).expose().clone());
        if let (Curve::P521, Some(first)) = (curve, number.first_mut()) {
            // 521 bits are 65 bytes and one bit.
            *first &= 1;
        }
        let point = match curve {
            Curve::P256 => p256::SecretKey::from_slice(&number)
                .map(|key| key.public_key().to_sec1_point(false).as_bytes().to_vec()),
            Curve::P384 => p384::SecretKey::from_slice(&number)
                .map(|key| key.public_key().to_sec1_point(false).as_bytes().to_vec()),
            Curve::P521 => p521::SecretKey::from_slice(&number)
                .map(|key| key.public_key().to_sec1_point(false).as_bytes().to_vec()),
        };
        let Ok(point) = point else { continue };
        let Some((_, coordinates)) = point.split_first() else { continue };
        let (x, y) = coordinates.split_at(curve.coordinate_bytes());
        let public = PublicKey::ec(curve, x.to_vec(), y.to_vec()).map_err(|_| unlucky())?;
        if let PublicKey::Ec { x, y, .. } = public {
            return Ok(vec![Secret::new(number.to_vec()), Secret::new(x), Secret::new(y)]);
        }
    }
    Err(unlucky())
}

#[cfg(feature = "native")]
fn rsa(_: Algorithm) -> Result<Vec<Secret<Vec<u8>>>, KeyError> {
    crate::crypto::new_rsa_numbers()
}

#[cfg(not(feature = "native"))]
fn rsa(algorithm: Algorithm) -> Result<Vec<Secret<Vec<u8>>>, KeyError> {
    Err(KeyError::Platform(algorithm.as_str()))
}
