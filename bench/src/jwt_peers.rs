//! The peers and the limits of [`crate::jwt`].

use std::hint::black_box;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as aws, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaKeyPair};
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken as jwt;
use jwt_simple::prelude as simple;
use jwt_simple::prelude::{ECDSAP256KeyPairLike as _, ECDSAP256PublicKeyLike as _, EdDSAKeyPairLike as _, EdDSAPublicKeyLike as _, MACLike as _, RSAKeyPairLike as _, RSAPublicKeyLike as _};
use keyreeve::core::jwt::Curve;
use keyreeve::jwt::{Algorithm, PublicKey};
use sha2::{Sha256, Sha512};

use crate::jwt::{Body, ED25519, P256, RSA, Row, SECRET, body, row};

const SIMPLE: &str = "jwt-simple 0.15 (pure Rust)";

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let standard = body.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned();
    keyreeve::core::jwt::base64url::decode(&standard).unwrap()
}

pub fn rsa_public() -> PublicKey {
    let pair = RsaKeyPair::from_pkcs8(&der(RSA)).unwrap();
    let public = pair.public_key();
    PublicKey::rsa(
        public.modulus().big_endian_without_leading_zero().to_vec(),
        public.exponent().big_endian_without_leading_zero().to_vec(),
    )
    .unwrap()
}

fn p256_pair() -> EcdsaKeyPair {
    EcdsaKeyPair::from_private_key_der(&aws::ECDSA_P256_SHA256_FIXED_SIGNING, &der(P256)).unwrap()
}

pub fn p256_public(curve: Curve) -> PublicKey {
    let point = p256_pair().public_key().as_ref().to_vec();
    PublicKey::ec(curve, point[1..33].to_vec(), point[33..].to_vec()).unwrap()
}

pub fn ed25519_public() -> [u8; 32] {
    *dalek().verifying_key().as_bytes()
}

fn dalek() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_pkcs8_pem(ED25519).unwrap()
}

fn jsonwebtoken(algorithm: Algorithm) -> (jwt::Algorithm, jwt::EncodingKey) {
    match algorithm {
        Algorithm::Hs256 => (jwt::Algorithm::HS256, jwt::EncodingKey::from_secret(SECRET)),
        Algorithm::Hs512 => (jwt::Algorithm::HS512, jwt::EncodingKey::from_secret(SECRET)),
        Algorithm::Rs256 => (jwt::Algorithm::RS256, jwt::EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap()),
        Algorithm::Ps256 => (jwt::Algorithm::PS256, jwt::EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap()),
        Algorithm::Es256 => (jwt::Algorithm::ES256, jwt::EncodingKey::from_ec_pem(P256.as_bytes()).unwrap()),
        _ => (jwt::Algorithm::EdDSA, jwt::EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap()),
    }
}

fn jsonwebtoken_public(algorithm: Algorithm) -> jwt::DecodingKey {
    let url = |bytes: &[u8]| keyreeve::core::jwt::base64url::encode(bytes);
    match algorithm {
        Algorithm::Hs256 | Algorithm::Hs512 => jwt::DecodingKey::from_secret(SECRET),
        Algorithm::Rs256 | Algorithm::Ps256 => {
            let PublicKey::Rsa { n, e } = rsa_public() else { unreachable!() };
            jwt::DecodingKey::from_rsa_components(&url(&n), &url(&e)).unwrap()
        }
        Algorithm::Es256 => {
            let PublicKey::Ec { x, y, .. } = p256_public(Curve::P256) else { unreachable!() };
            jwt::DecodingKey::from_ec_components(&url(&x), &url(&y)).unwrap()
        }
        _ => jwt::DecodingKey::from_ed_components(&url(&ed25519_public())).unwrap(),
    }
}

pub fn verify(algorithm: Algorithm, token: &str, message: &[u8], signature: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    let (theirs, _) = jsonwebtoken(algorithm);
    let key = jsonwebtoken_public(algorithm);
    let mut validation = jwt::Validation::new(theirs);
    validation.set_audience(&[body().aud]);
    validation.set_issuer(&[body().iss]);
    validation.validate_nbf = true;
    let text = token.to_owned();
    rows.push(row("jsonwebtoken 11", move || {
        black_box(jwt::decode::<Body>(&text, &key, &validation).unwrap().claims.permissions.len());
    }));
    rows.extend(simple_verify(algorithm, token));
    let (message, signature) = (message.to_vec(), signature.to_vec());
    match algorithm {
        Algorithm::Hs256 => rows.push(mac_verify::<Hmac<Sha256>>(message, signature)),
        Algorithm::Hs512 => rows.push(mac_verify::<Hmac<Sha512>>(message, signature)),
        Algorithm::EdDsa => {
            let key = dalek().verifying_key();
            let parsed = ed25519_dalek::Signature::from_slice(&signature).unwrap();
            let text = message.clone();
            rows.push(row("raw ed25519-dalek", move || key.verify_strict(&text, &parsed).unwrap()));
            let key = ParsedPublicKey::new(&aws::ED25519, ed25519_public()).unwrap();
            rows.push(row("raw aws-lc-rs", move || key.verify_sig(&message, &signature).unwrap()));
        }
        Algorithm::Es256 => {
            let point = p256_pair().public_key().as_ref().to_vec();
            let key = ParsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point).unwrap();
            rows.push(row("raw aws-lc-rs", move || key.verify_sig(&message, &signature).unwrap()));
        }
        rsa => {
            let how = if rsa == Algorithm::Rs256 { &aws::RSA_PKCS1_2048_8192_SHA256 } else { &aws::RSA_PSS_2048_8192_SHA256 };
            let PublicKey::Rsa { n, e } = rsa_public() else { unreachable!() };
            let key = aws::RsaPublicKeyComponents { n, e }.to_parsed_public_key(how).unwrap();
            rows.push(row("raw aws-lc-rs", move || key.verify_sig(&message, &signature).unwrap()));
        }
    }
    rows
}

pub fn sign(algorithm: Algorithm, message: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    let (theirs, key) = jsonwebtoken(algorithm);
    let mut header = jwt::Header::new(theirs);
    header.kid = Some("key-1".into());
    let claims = body();
    rows.push(row("jsonwebtoken 11", move || {
        black_box(jwt::encode(&header, &claims, &key).unwrap());
    }));
    rows.extend(simple_sign(algorithm));
    let message = message.to_vec();
    match algorithm {
        Algorithm::Hs256 => rows.push(mac_sign::<Hmac<Sha256>>(message)),
        Algorithm::Hs512 => rows.push(mac_sign::<Hmac<Sha512>>(message)),
        Algorithm::EdDsa => {
            let key = dalek();
            let text = message.clone();
            rows.push(row("raw ed25519-dalek", move || { black_box(key.sign(&text)); }));
            let key = Ed25519KeyPair::from_pkcs8(&der(ED25519)).unwrap();
            rows.push(row("raw aws-lc-rs", move || { black_box(key.sign(&message)); }));
        }
        Algorithm::Es256 => {
            let key = p256_pair();
            let chance = SystemRandom::new();
            rows.push(row("raw aws-lc-rs", move || { black_box(key.sign(&chance, &message).unwrap()); }));
        }
        rsa => {
            let how: &'static dyn aws::RsaEncoding =
                if rsa == Algorithm::Rs256 { &aws::RSA_PKCS1_SHA256 } else { &aws::RSA_PSS_SHA256 };
            let key = RsaKeyPair::from_pkcs8(&der(RSA)).unwrap();
            let chance = SystemRandom::new();
            let mut signature = vec![0; key.public_modulus_len()];
            rows.push(row("raw aws-lc-rs", move || key.sign(how, &chance, &message, &mut signature).unwrap()));
        }
    }
    rows
}

fn mac<M: KeyInit>() -> M {
    M::new_from_slice(SECRET).unwrap()
}

fn mac_verify<M: Mac + KeyInit + Clone + 'static>(message: Vec<u8>, signature: Vec<u8>) -> Row {
    let mac: M = mac();
    row("raw hmac + sha2", move || {
        let mut mac = mac.clone();
        mac.update(&message);
        mac.verify_slice(&signature).unwrap();
    })
}

fn mac_sign<M: Mac + KeyInit + Clone + 'static>(message: Vec<u8>) -> Row {
    let mac: M = mac();
    row("raw hmac + sha2", move || {
        let mut mac = mac.clone();
        mac.update(&message);
        black_box(mac.finalize().into_bytes());
    })
}

/// What is left of [`Body`] when the registered claims are the library's own.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Custom {
    permissions: Vec<String>,
    roles: Vec<String>,
    email: String,
    tid: String,
}

fn simple_claims() -> simple::JWTClaims<Custom> {
    let body = body();
    let custom = Custom { permissions: body.permissions, roles: body.roles, email: body.email, tid: body.tid };
    simple::Claims::with_custom_claims(custom, simple::Duration::from_hours(1))
        .with_issuer(body.iss)
        .with_audience(body.aud)
        .with_subject(body.sub)
        .with_jwt_id(body.jti)
}

fn simple_options() -> simple::VerificationOptions {
    let body = body();
    simple::VerificationOptions {
        allowed_issuers: Some([body.iss].into_iter().collect()),
        allowed_audiences: Some([body.aud].into_iter().collect()),
        ..Default::default()
    }
}

macro_rules! simple_verify_with {
    ($key:expr, $token:expr) => {{
        let (key, token, options) = ($key, $token.to_owned(), simple_options());
        Some(row(SIMPLE, move || {
            black_box(key.verify_token::<Custom>(&token, Some(options.clone())).unwrap());
        }))
    }};
}

fn simple_verify(algorithm: Algorithm, token: &str) -> Option<Row> {
    match algorithm {
        Algorithm::Hs256 => simple_verify_with!(simple::HS256Key::from_bytes(SECRET), token),
        Algorithm::Hs512 => simple_verify_with!(simple::HS512Key::from_bytes(SECRET), token),
        Algorithm::Rs256 => simple_verify_with!(simple::RS256KeyPair::from_pem(RSA).unwrap().public_key(), token),
        Algorithm::Ps256 => simple_verify_with!(simple::PS256KeyPair::from_pem(RSA).unwrap().public_key(), token),
        Algorithm::Es256 => simple_verify_with!(simple::ES256KeyPair::from_pem(P256).unwrap().public_key(), token),
        _ => simple_verify_with!(simple::Ed25519KeyPair::from_pem(ED25519).unwrap().public_key(), token),
    }
}

macro_rules! simple_sign_with {
    ($key:expr, $sign:ident) => {{
        let (key, claims) = ($key, simple_claims());
        Some(row(SIMPLE, move || drop(black_box(key.$sign(claims.clone()).unwrap()))))
    }};
}

fn simple_sign(algorithm: Algorithm) -> Option<Row> {
    match algorithm {
        Algorithm::Hs256 => simple_sign_with!(simple::HS256Key::from_bytes(SECRET), authenticate),
        Algorithm::Hs512 => simple_sign_with!(simple::HS512Key::from_bytes(SECRET), authenticate),
        Algorithm::Rs256 => simple_sign_with!(simple::RS256KeyPair::from_pem(RSA).unwrap(), sign),
        Algorithm::Ps256 => simple_sign_with!(simple::PS256KeyPair::from_pem(RSA).unwrap(), sign),
        Algorithm::Es256 => simple_sign_with!(simple::ES256KeyPair::from_pem(P256).unwrap(), sign),
        _ => simple_sign_with!(simple::Ed25519KeyPair::from_pem(ED25519).unwrap(), sign),
    }
}
