//! A token: as it is, and as header and payload with a line break between, which the target encodes.
#![no_main]

use keyreeve_core::json::Json;
use keyreeve_core::jwt::{Delegation, Expected, Proof, ProofExpected, Request, Unverified, base64url};
use keyreeve_core::time::Timestamp;
use keyreeve_fuzz::{NoCrypto, keys};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp(1_000_000_000);

fn judge(token: &str) {
    let keys = keys();
    let Ok(parsed) = Unverified::parse(token) else { return };
    let _header = parsed.header();
    if let Ok(claims) = parsed.unverified_claims() {
        // What was read is written and read again the same.
        let mut text = String::new();
        claims.root().write(&mut text);
        let again = Json::parse(text.clone().into_bytes()).unwrap();
        assert_eq!(format!("{:?}", again.root()), text);
    }
    if let Ok(proof) = Proof::parse(token) {
        let key = proof.key().clone();
        let ready = keyreeve_core::jwt::Key::new(None, proof.header().algorithm, keyreeve_fuzz::Gullible);
        let expected = ProofExpected { method: "GET", url: "https://a/", access_token: Some(token), nonce: None, window_s: 60 };
        if let Ok(signed) = proof.select(&ready).and_then(|selected| selected.verify()) {
            let _possession = signed.proof(&key, &expected, NOW, &NoCrypto);
        }
    }
    let expected = Expected::new(["i"], ["a"]).unwrap();
    let Ok(verified) = parsed.select(keys).and_then(|one| one.verify()).and_then(|one| one.claims(&expected, NOW)) else { return };
    let claims = verified.claims();
    assert!(claims.issuer() == Some("i") && claims.audience().any(|one| one == "a"));
    assert!(claims.expires_at_s().unwrap() + 60 > NOW.seconds());
    let _parts = (claims.actors().count(), claims.scopes().count(), claims.list("permissions").count(), claims.bound_key());
    let _bound = verified.bound_to(&Request { method: "GET", target: "/", body: b"" }, &NoCrypto);
    let audience = ["a".to_owned()];
    if let Ok(draft) = Delegation::new("actor", "i", &audience).draft(&verified, NOW) {
        let json = Json::parse(draft.json().into_bytes()).unwrap();
        let ends = json.root().member("exp").and_then(|exp| exp.whole()).unwrap();
        assert!(ends <= claims.expires_at_s().unwrap());
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    judge(text);
    if let Some((header, payload)) = text.split_once('\n') {
        let encode = |part: &str| base64url::encode(part.as_bytes());
        judge(&format!("{}.{}.{}", encode(header), encode(payload), base64url::encode(&[7; 32])));
    }
});
