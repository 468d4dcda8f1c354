//! Assertions, verified: RS256 and ES256 by a public key in PEM or JWK.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// A public key that assertions are verified by.
#[derive(Clone, Debug)]
pub struct Key {
    id: Option<String>,
    algorithm: &'static str,
    bytes: Vec<u8>,
}

/// What is not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError;

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a public key in PEM (RSA or P-256) or a JWK set")
    }
}

impl Key {
    /// Reads one public key in PEM (SPKI), or a JWK set (RFC 7517 5) of RSA and P-256 keys.
    ///
    /// # Errors
    /// [`KeyError`] where there is no key.
    pub fn all(text: &str) -> Result<Vec<Self>, KeyError> {
        let keys = if text.trim_start().starts_with('{') { of_set(text) } else { of_pem(text).into_iter().collect() };
        if keys.is_empty() { Err(KeyError) } else { Ok(keys) }
    }

    fn verifies(&self, message: &[u8], sign: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
            "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
            _ => &signature::ECDSA_P256_SHA256_FIXED,
        };
        UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, sign).is_ok()
    }
}

fn of_pem(text: &str) -> Option<Key> {
    let body = text.split("-----BEGIN PUBLIC KEY-----").nth(1)?.split("-----END").next()?;
    let bytes = STANDARD.decode(body.split_whitespace().collect::<String>()).ok()?;
    // The object identifier of rsaEncryption, 1.2.840.113549.1.1.1.
    let rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let is_rsa = bytes.windows(rsa.len()).any(|window| window == rsa);
    if is_rsa {
        return Some(Key { id: None, algorithm: "RS256", bytes });
    }
    // The point is the end of the structure.
    let point = bytes.get(bytes.len().checked_sub(65)?..)?.to_vec();
    (point.first() == Some(&4)).then_some(Key { id: None, algorithm: "ES256", bytes: point })
}

fn of_set(text: &str) -> Vec<Key> {
    let Ok(set) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let keys = set.get("keys").and_then(Value::as_array);
    keys.into_iter().flatten().filter_map(of_jwk).collect()
}

fn of_jwk(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let id = text("kid").map(str::to_owned);
    match text("kty")? {
        "EC" if text("crv") == Some("P-256") => {
            let point = [vec![4], bytes("x")?, bytes("y")?].concat();
            Some(Key { id, algorithm: "ES256", bytes: point })
        }
        "RSA" => {
            // RSAPublicKey (RFC 8017 A.1.1).
            let numbers = [integer(&bytes("n")?), integer(&bytes("e")?)].concat();
            Some(Key { id, algorithm: "RS256", bytes: der(0x30, &numbers) })
        }
        _ => None,
    }
}

fn integer(number: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if number.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    der(0x02, &[sign, number].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let long: Vec<u8> = length.iter().copied().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(0));
            out.extend(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The claims of a token that one of `keys` has signed.
pub(super) fn claims(keys: &[Key], token: &str) -> Option<Map<String, Value>> {
    let (message, sign) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let object = |part: &str| serde_json::from_slice::<Map<String, Value>>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let header = object(header)?;
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let sign = URL_SAFE_NO_PAD.decode(sign).ok()?;
    let is_signed = keys.iter().any(|key| {
        let is_named = text("kid").is_none() || key.id.is_none() || text("kid") == key.id.as_deref();
        is_named && text("alg") == Some(key.algorithm) && key.verifies(message.as_bytes(), &sign)
    });
    if is_signed { object(claims) } else { None }
}

/// A claim that is a whole number.
pub(super) fn number(claims: &Map<String, Value>, name: &str) -> Option<i64> {
    claims.get(name).and_then(Value::as_i64)
}

/// Whether `aud` is, or holds, this audience.
pub(super) fn is_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one == audience),
        _ => false,
    }
}
