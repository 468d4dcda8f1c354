//! The examples of the RFCs.

use keyreeve::core::secret::Secret;
use keyreeve::crypto::{LocalCrypto, any_signer};
use keyreeve::jwt::{Algorithm, Jwk, JwkSet, KeySet, Refusal, Unverified};
use serde_json::Value;

use crate::given::{STACKS, key, signed};

const VECTORS: &str = include_str!("../../../../vectors/jose.json");

fn vectors(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    all[name].as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// Another first character, which spells other bytes.
fn other_than(part: &str) -> char {
    if part.starts_with('B') { 'C' } else { 'B' }
}

#[test]
fn the_signatures_of_the_rfcs_verify_and_nothing_else_does() {
    for (stack, make) in STACKS {
        for case in vectors("jws") {
            let source = text(&case, "source");
            let algorithm = Algorithm::named(text(&case, "algorithm")).unwrap();
            let Ok(key) = key(&case["key"], algorithm, make) else {
                // Pure Rust has no RSA: a Worker asks its platform.
                assert_eq!((stack, text(&case["key"], "kty")), ("pure", "RSA"), "{source}");
                continue;
            };
            let keys = KeySet::new(vec![key]);
            let token = text(&case, "token");
            let good = signed(token, &keys).unwrap_or_else(|refusal| panic!("{stack} {source}: {refusal}"));
            assert_eq!(good.payload(), text(&case, "payload").as_bytes(), "{stack} {source}");
            let (message, signature) = token.rsplit_once('.').unwrap();
            let (header, payload) = message.split_once('.').unwrap();
            for other in [
                format!("{header}.{}{}.{signature}", other_than(payload), &payload[1..]),
                format!("{header}.{payload}A.{signature}"),
                format!("{header}.{payload}.{}{}", other_than(signature), &signature[1..]),
                format!("{header}.{payload}."),
            ] {
                assert_ne!(other, token);
                assert!(signed(&other, &keys).is_err(), "{stack} {source}: {other}");
            }
        }
    }
}

/// Who signs deterministically must give the very bytes of the RFC; who does not must give what verifies.
#[tokio::test]
async fn the_private_keys_of_the_rfcs_sign_what_verifies() {
    for case in vectors("jws") {
        let (source, token) = (text(&case, "source"), text(&case, "token"));
        let algorithm = Algorithm::named(text(&case, "algorithm")).unwrap();
        let private = Secret::new(case["private"].to_string().into_bytes());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signer = match any_signer(algorithm, &private) {
            Ok(signer) => signer,
            Err(error) => {
                assert!(!cfg!(feature = "native") && text(&case["key"], "kty") == "RSA", "{source}: {error}");
                continue;
            }
        };
        let made = keyreeve::core::jwt::base64url::encode(&signer.sign(message.as_bytes()).await.unwrap());
        if !matches!(algorithm, Algorithm::Es256 | Algorithm::Es512 | Algorithm::Ps384) {
            assert_eq!(made, signature, "{source}");
        }
        for (stack, make) in STACKS {
            let Ok(key) = key(&case["key"], algorithm, make) else { continue };
            let good = signed(&format!("{message}.{made}"), &KeySet::new(vec![key]));
            assert!(good.is_ok(), "{stack} {source}: {good:?}");
        }
    }
}

#[test]
fn an_unsecured_token_is_refused_by_name() {
    let keys = KeySet::new(Vec::new());
    for case in vectors("unsecured") {
        let refusal = signed(text(&case, "token"), &keys).unwrap_err();
        assert!(matches!(refusal, Refusal::Unsigned { .. }), "{refusal}");
        // It can be shown to a person nevertheless.
        assert!(Unverified::parse(text(&case, "token")).unwrap().unverified_claims().is_ok());
    }
}

#[test]
fn thumbprints_are_those_of_the_rfcs() {
    for case in vectors("thumbprints") {
        let jwk = Jwk::parse(case["key"].to_string().as_bytes(), None).unwrap();
        assert_eq!(jwk.key.thumbprint(&LocalCrypto).to_string(), text(&case, "thumbprint"), "{}", case["source"]);
    }
}

#[test]
fn key_sets_of_the_rfcs_are_read_and_what_is_no_signature_key_is_skipped() {
    for case in vectors("sets") {
        let set = JwkSet::parse(case["set"].to_string().as_bytes()).unwrap();
        let good: Vec<_> = set.keys.iter().map(|jwk| jwk.id.clone()).collect();
        let skipped: Vec<_> =
            set.skipped.iter().map(|skipped| skipped.id.as_ref().map(|id| id.as_str().to_owned())).collect();
        let wanted = |name: &str| -> Vec<Option<String>> {
            case[name].as_array().unwrap().iter().map(|id| id.as_str().map(str::to_owned)).collect()
        };
        assert_eq!((good, skipped), (wanted("good"), wanted("skipped")), "{}", case["source"]);
    }
}
