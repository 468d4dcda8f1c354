//! Slot mode: no store, no coordination, the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use crate::node::{PATIENCE, Place, unix_ms};

/// The condition holds with little to spare: 4s + 2s + 500ms + 500ms + 1s = 8s.
const LIFE: &str =
    r#"{ max = "8s", slot = "4s", backdate = "2s", skew = "500ms", upstream_skew = "500ms", flight = "1s" }"#;
const SKEW_MS: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_without_a_store_and_with_wrong_clocks_show_the_same_bytes_over_a_slot_edge() {
    let place = Place::new();
    let credential = format!(
        r#"
[credential.slot]
source = "jwt"
key = "file:{}"
mode = "slot"
keep = "always"
params = {{ alg = "ES256", header = {{ typ = "JWT" }}, claims = {{ iss = "me", iat = "{{iat}}", exp = "{{exp}}", jti = "{{jti}}" }} }}
life = {LIFE}
"#,
        place.path("apns.p8").display()
    );
    let config = place.config_with(&format!("sqlite:{}", place.path("nothing/here.db").display()), "[]", &credential);
    let offsets = [-500, -400, -250, -100, 0, 150, 300, 500];
    let clocks: Vec<String> = offsets.iter().map(|offset| format!("offset={offset}")).collect();
    let mut nodes: Vec<_> = clocks
        .iter()
        .enumerate()
        .map(|(n, clock)| place.spawn(&config, &format!("n{n}"), &[("KEYREEVE_TEST_CLOCK", clock)]))
        .collect();
    nodes.iter_mut().for_each(super::node::Node::wait_until_listening);

    let mut bytes_of: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut shown_by: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    let mut seen = vec![0; nodes.len()];
    let started = Instant::now();
    // Until every process has shown three slots: two edges, each crossed by clocks that are a second apart.
    while shown_by.values().filter(|shown| shown.len() == nodes.len()).count() < 3 {
        assert!(started.elapsed() < PATIENCE, "{shown_by:?}");
        for (n, node) in nodes.iter().enumerate() {
            let before = unix_ms();
            let (status, body) = node.token("slot").await;
            let after = unix_ms();
            assert_eq!(status, 200, "{body}");
            let generation = body["generation"].as_u64().unwrap();
            let token = body["token"].as_str().unwrap().to_owned();
            let claims = claims(&token);
            let (iat, exp) = (claims["iat"].as_u64().unwrap() * 1000, claims["exp"].as_u64().unwrap() * 1000);
            assert!(iat <= before - SKEW_MS, "a token from the future for a verifier that is {SKEW_MS} ms late");
            assert!(exp > after + SKEW_MS, "a token too old for a verifier that is {SKEW_MS} ms early");
            assert!(generation >= seen[n], "node {n} went back from slot {} to {generation}", seen[n]);
            seen[n] = generation;
            bytes_of.entry(generation).or_default().insert(token);
            shown_by.entry(generation).or_default().insert(n);
        }
    }
    for (slot, bytes) in &bytes_of {
        assert_eq!(bytes.len(), 1, "{} tokens in slot {slot}", bytes.len());
    }
    assert!(!place.path("nothing").exists(), "no store was opened");
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64url(payload)).unwrap()
}

fn base64url(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = Vec::new();
    let (mut buffer, mut bits) = (0_u32, 0);
    for c in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == c).unwrap();
        buffer = (buffer << 6 | u32::try_from(value).unwrap()) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(buffer >> bits & 0xff).unwrap());
        }
    }
    bytes
}
