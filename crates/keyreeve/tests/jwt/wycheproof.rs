//! The JOSE files of Wycheproof: every case accounted for, on both stacks.

use std::path::PathBuf;

use keyreeve::core::jwt::KeySet;
use keyreeve::crypto::{Check, MakeCheck};
use keyreeve::jwt::{Algorithm, Jwk};
use serde_json::Value;

use crate::given::{STACKS, key, keys, root, signed};

/// They want a `?` inside of a part to be skipped (RFC 2045), where RFC 7515 2 knows no such character. One token would have
/// many spellings.
const REFUSED_ON_PURPOSE: [u64; 2] = [372, 373];
/// RFC 7520 figures 20 and 27: the file's key says `PS256` or `ES521`, the token `PS384` or `ES512`. The key's word counts
/// here, so they are refused with the key as it is, and verify where whoever configures the key says what it is for.
const KEY_SAYS_OTHERWISE: [(u64, Algorithm); 4] =
    [(346, Algorithm::Ps384), (347, Algorithm::Es512), (350, Algorithm::Ps384), (351, Algorithm::Es512)];

/// Said to be padded and therefore invalid, but what the file holds is, byte for byte, the token of case 357, which is valid.
const SAME_TOKEN: &str =
    "eyJraWQiOiJoczI1Ni1rZXkiLCJhbGciOiJIUzI1NiJ9.VGVzdA.c1LROH7eNQwUT8KMVEO52VC3WZ9e_AnDWbZ7aMmowV8";
const SAME_AS_A_VALID_ONE: [u64; 2] = [367, 370];

#[derive(Debug, Default, PartialEq, Eq)]
struct Score {
    agreed: usize,
    /// Only when told what the key is for.
    agreed_when_told: usize,
    refused_on_purpose: usize,
    contradicted_by_the_file: usize,
    /// RSA, where this stack leaves it to the platform.
    left_to_platform: usize,
    encrypted: usize,
}

fn folder() -> Option<PathBuf> {
    let told = std::env::var_os("KEYREEVE_WYCHEPROOF_DIR").map(PathBuf::from);
    let places = [root().join("../shared/vectors/wycheproof")];
    told.into_iter().chain(places).find(|place| place.join("json_web_signature_test.json").is_file())
}

/// Judges every case of a file. `None` where there is no file.
fn judged(file: &str, make: MakeCheck, has_rsa: bool) -> Option<(Score, usize)> {
    let Some(folder) = folder() else {
        eprintln!("skipped: no Wycheproof files; vectors/README.md says where to get them");
        return None;
    };
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let mut score = Score::default();
    for group in file["testGroups"].as_array().unwrap() {
        let key = if group["public"].is_object() { &group["public"] } else { &group["private"] };
        let keys = keys(key, make);
        for test in group["tests"].as_array().unwrap() {
            judge(&mut score, key, &keys, test, make, has_rsa);
        }
    }
    Some((score, usize::try_from(file["numberOfTests"].as_u64().unwrap()).unwrap()))
}

fn judge(score: &mut Score, jwk: &Value, keys: &KeySet<Check>, test: &Value, make: MakeCheck, has_rsa: bool) {
    let id = test["tcId"].as_u64().unwrap();
    if test.get("jws").is_none() {
        score.encrypted += 1;
        return;
    }
    // A token in JSON serialization is no token of ours either.
    let token = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
    let is_valid = test["result"] == "valid";
    let verdict = signed(&token, keys);
    if verdict.is_ok() == is_valid {
        score.agreed += 1;
    } else if let Some((_, algorithm)) = KEY_SAYS_OTHERWISE.iter().find(|(case, _)| *case == id) {
        match key(jwk, *algorithm, make) {
            Ok(key) => {
                signed(&token, &KeySet::new(vec![key])).unwrap();
                score.agreed_when_told += 1;
            }
            Err(_) => score.left_to_platform += 1,
        }
    } else if REFUSED_ON_PURPOSE.contains(&id) {
        score.refused_on_purpose += 1;
    } else if SAME_AS_A_VALID_ONE.contains(&id) {
        assert_eq!(token, SAME_TOKEN, "case {id}");
        score.contradicted_by_the_file += 1;
    } else {
        let is_rsa = jwk.to_string().contains("\"RSA\"");
        assert!(!has_rsa && is_rsa, "case {id} ({}), wanted {}: {verdict:?}", test["comment"], test["result"]);
        score.left_to_platform += 1;
    }
}

/// Whether a stack computes RSA itself.
fn has_rsa(make: MakeCheck) -> bool {
    let jwk = include_str!("../keyreeve/keys/rfc7515-a2.jwk");
    let jwk = Jwk::parse(jwk.as_bytes(), None).unwrap();
    make(&jwk.key, jwk.algorithm).is_ok()
}

#[test]
fn of_401_signatures_397_are_judged_as_wycheproof_does_two_refused_on_purpose_and_two_contradict_another() {
    for (stack, make) in STACKS {
        let has_rsa = has_rsa(make);
        let Some((score, count)) = judged("json_web_signature_test.json", make, has_rsa) else { return };
        assert_eq!(count, 401);
        let wanted = if has_rsa {
            Score {
                agreed: 393,
                agreed_when_told: 4,
                refused_on_purpose: 2,
                contradicted_by_the_file: 2,
                ..Score::default()
            }
        } else {
            // What is valid by RSA: 33, 259 to 275, 287, 288, 320 to 323, 325 to 328, 345, 346, 349, 350.
            Score {
                agreed: 363,
                agreed_when_told: 2,
                refused_on_purpose: 2,
                contradicted_by_the_file: 2,
                left_to_platform: 32,
                ..Score::default()
            }
        };
        assert_eq!(score, wanted, "{stack}");
    }
}

#[test]
fn all_26_key_cases_are_judged_as_wycheproof_does() {
    for (stack, make) in STACKS {
        let has_rsa = has_rsa(make);
        let Some((score, count)) = judged("json_web_key_test.json", make, has_rsa) else { return };
        let left_to_platform = usize::from(!has_rsa);
        assert_eq!(count, 26);
        assert_eq!(score, Score { agreed: 26 - left_to_platform, left_to_platform, ..Score::default() }, "{stack}");
    }
}

#[test]
fn all_signature_cases_of_the_crypto_file_are_judged_as_wycheproof_does() {
    for (stack, make) in STACKS {
        let has_rsa = has_rsa(make);
        let Some((score, count)) = judged("json_web_crypto_test.json", make, has_rsa) else { return };
        let left_to_platform = usize::from(!has_rsa);
        assert_eq!(count, 83);
        // The others are encrypted (JWE), which nothing here reads.
        let agreed = 49 - left_to_platform;
        assert_eq!(score, Score { agreed, left_to_platform, encrypted: 34, ..Score::default() }, "{stack}");
    }
}
