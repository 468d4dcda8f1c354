use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyreeve::config::Algorithm;
use keyreeve::core::secret::Secret;
use keyreeve::crypto::signer;

use crate::support::{P256, secret};

const P256_JWK: &str = r#"{"kty":"EC","crv":"P-256","d":"ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE",
    "x":"YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y","y":"eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk"}"#;

fn error(algorithm: Algorithm, key: &str) -> String {
    match signer(algorithm, &secret(key)) {
        Ok(_) => panic!("the key was taken"),
        Err(error) => error.to_string(),
    }
}

async fn signs_like(algorithm: Algorithm, key: &str, other: &str) {
    let signature = |key| signer(algorithm, &secret(key)).unwrap();
    assert_eq!(signature(key).sign(b"m").await, signature(other).sign(b"m").await);
}

#[tokio::test]
async fn a_p256_key_may_come_in_pkcs8_sec1_or_jwk() {
    signs_like(Algorithm::Es256, P256, include_str!("keys/p256-sec1.pem")).await;
    signs_like(Algorithm::Es256, P256, P256_JWK).await;
    signs_like(Algorithm::Es256, P256, &format!("comment\n{}\n\n", P256.replace('\n', "\r\n"))).await;
    let _taken = signer(Algorithm::Es256, &secret(include_str!("keys/p256-with-parameters.pem"))).unwrap();
}

#[cfg(feature = "native")]
#[tokio::test]
async fn an_rsa_key_may_come_in_pkcs8_or_pkcs1() {
    let pkcs1 = include_str!("keys/rsa2048-pkcs1.pem");
    signs_like(Algorithm::Rs256, include_str!("keys/rsa2048-pkcs8.pem"), pkcs1).await;
}

#[test]
fn a_wrong_key_is_named_beside_what_was_expected() {
    let es256 = "expected a P-256 private key in PEM (PKCS#8 `.p8`, SEC1) or JWK, found ";
    for (key, found) in [
        (include_str!("keys/rsa2048-pkcs8.pem"), "an RSA key in PKCS#8 PEM"),
        (include_str!("keys/rsa2048-pkcs1.pem"), "an RSA key in PKCS#1 PEM"),
        (include_str!("keys/rsa2048-pkcs1-encrypted.pem"), "an encrypted private key"),
        (include_str!("keys/ed25519-pkcs8.pem"), "an Ed25519 key in PKCS#8 PEM"),
        (include_str!("keys/ed448-pkcs8.pem"), "an Ed448 key in PKCS#8 PEM"),
        (include_str!("keys/secp384r1-pkcs8.pem"), "a P-384 key in PKCS#8 PEM"),
        (include_str!("keys/secp521r1-pkcs8.pem"), "a P-521 key in PKCS#8 PEM"),
        (include_str!("keys/secp256k1-pkcs8.pem"), "a secp256k1 key in PKCS#8 PEM"),
        (include_str!("keys/p256-public.pem"), "a public key"),
        (include_str!("keys/p256-encrypted.pem"), "an encrypted private key"),
        (include_str!("keys/certificate.pem"), "a certificate"),
        (include_str!("keys/openssh.pem"), "an OpenSSH private key"),
        (include_str!("keys/rfc7515-a2.jwk"), "an RSA key in JWK"),
        (r#"{"kty":"oct","k":"AAAA"}"#, "an HMAC secret in JWK"),
        (r#"{"kty":"EC","crv":"P-384"}"#, "a P-384 key in JWK"),
        (r#"{"kty":"EC","crv":"hunter2"}"#, "a JWK of another curve"),
        (r#"{"keys":[]}"#, "a JWK of an unknown type"),
        ("{", "JSON that does not parse"),
        ("", "nothing"),
        ("hunter2", "text that is neither PEM nor JWK"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA", "PEM without its last line"),
        ("-----BEGIN PRIVATE KEY-----\nA!\n-----END PRIVATE KEY-----", "PEM whose base64 is damaged"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "PEM whose content is not PKCS#8"),
        ("-----BEGIN hunter2-----\nAAAA\n-----END hunter2-----", "PEM of another kind"),
    ] {
        assert_eq!(error(Algorithm::Es256, key), format!("{es256}{found}"));
    }
    let der = Secret::new(vec![0x30, 0x81, 0x87, 0x02]);
    let Err(error) = signer(Algorithm::EdDsa, &der) else { panic!("the key was taken") };
    assert_eq!(error.to_string(), "expected an Ed25519 private key in PEM (PKCS#8) or JWK, found binary DER");
}

#[test]
fn a_damaged_key_is_refused_with_the_reason() {
    let refused = "expected a P-256 private key in PEM (PKCS#8 `.p8`, SEC1) or JWK, found one that is not valid: ";
    for (key, reason) in [
        (include_str!("keys/secp384r1-sec1.pem").to_owned(), "another curve, or the number is not a key of the curve"),
        (P256_JWK.replace("ya-p2EW6", "!"), "`d` is not base64url"),
        (P256_JWK.replace("\"d\"", "\"e\""), "no `d` (a public key?)"),
        (P256_JWK.replace("ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE", "AAAA"), "`d` is not a key of the curve"),
        (P256_JWK.replace("YP7U", "YP7V"), "`x` and `y` do not belong to `d`"),
        (P256_JWK.replace("\"kty\"", "\"use\":\"enc\",\"kty\""), "its `use` is not `sig`"),
        (P256_JWK.replace("\"kty\"", "\"alg\":\"ES384\",\"kty\""), "its `alg` is not `ES256`"),
    ] {
        assert_eq!(error(Algorithm::Es256, &key), format!("{refused}{reason}"));
    }
    let key = P256.replace(
        "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg",
        "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQh",
    );
    assert_ne!(key, P256);
    assert!(error(Algorithm::Es256, &key).starts_with(refused));
}

#[test]
fn a_weak_key_is_refused_at_the_limit() {
    for (algorithm, bytes) in [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)] {
        assert!(signer(algorithm, &secret(&"k".repeat(bytes))).is_ok());
        let expected =
            format!("{} needs a key of at least {} bits, found {}", algorithm.as_str(), bytes * 8, bytes * 8 - 8);
        assert_eq!(error(algorithm, &"k".repeat(bytes - 1)), expected);
    }
}

#[test]
fn a_p256_key_whose_public_half_is_another_ones_is_refused() {
    let sec1 = include_str!("keys/p256-sec1.pem");
    let body: String = sec1.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = STANDARD.decode(body).unwrap();
    let taken = |der: &[u8]| {
        let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", STANDARD.encode(der));
        signer(Algorithm::Es256, &secret(&pem)).is_ok()
    };
    assert!(taken(&der));
    // The public key is what ends it (RFC 5915 3).
    *der.last_mut().unwrap() ^= 1;
    assert!(!taken(&der));
}

#[cfg(feature = "native")]
#[test]
fn a_short_rsa_key_is_refused() {
    let short = "RS256 needs a key of at least 2048 bits, found 1024";
    assert_eq!(error(Algorithm::Rs256, include_str!("keys/rsa1024-pkcs8.pem")), short);
}

#[cfg(not(feature = "native"))]
#[test]
fn a_build_without_rsa_says_what_to_use_instead() {
    assert_eq!(
        error(Algorithm::Rs256, include_str!("keys/rsa2048-pkcs8.pem")),
        "RS256 cannot be signed by this build of keyreeve\nhint: use ES256, EdDSA or an HMAC"
    );
}

/// Whoever signs HMACs with a public key lets everybody sign.
#[test]
fn a_pem_is_no_hmac_secret() {
    assert_eq!(
        error(Algorithm::Hs256, include_str!("keys/p256-public.pem")),
        "expected an HMAC secret as plain bytes or JWK, found a public key"
    );
}

#[test]
fn no_error_holds_any_of_the_key() {
    let files = [P256, include_str!("keys/rsa2048-pkcs8.pem"), include_str!("keys/rfc7515-a2.jwk"), P256_JWK];
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256] {
        for file in files {
            let Err(error) = signer(algorithm, &secret(file)) else { continue };
            let text = format!("{error} {error:?}");
            let parts = file.split_whitespace().flat_map(|line| line.as_bytes().windows(16));
            for part in parts.map(|part| String::from_utf8_lossy(part)).filter(|part| !part.contains('-')) {
                assert!(!text.contains(part.as_ref()), "{text} holds {part}");
            }
        }
    }
}
