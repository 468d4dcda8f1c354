//! Proofs of possession (RFC 9449).

use futures::FutureExt as _;
use keyreeve::core::jwt::{Key, Possession, Proof, ProofExpected, base64url};
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Timestamp;
use keyreeve::crypto::{LocalCrypto, signer};
use keyreeve::jwt::possession::prove;
use keyreeve::jwt::{Algorithm, Jwk, Refusal};
use serde_json::{Value, json};

use crate::given::{NOW, STACKS, judged};

const P256: &str = include_str!("../keyreeve/keys/p256-pkcs8.pem");

fn jwk() -> Value {
    json!({
        "kty": "EC", "crv": "P-256",
        "x": "YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y", "y": "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk",
    })
}

fn header() -> Value {
    json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk() })
}

fn claims() -> Value {
    json!({ "jti": "j1", "htm": "POST", "htu": "https://api.example/orders", "iat": NOW.seconds() })
}

fn signed(header: &Value, claims: &Value) -> String {
    let encode = |json: &Value| base64url::encode(json.to_string().as_bytes());
    let message = format!("{}.{}", encode(header), encode(claims));
    let signer = signer(Algorithm::Es256, &Secret::new(P256.into())).unwrap();
    let signature = signer.sign(message.as_bytes()).now_or_never().unwrap().unwrap();
    format!("{message}.{}", base64url::encode(&signature))
}

const EXPECTED: ProofExpected<'_> = ProofExpected {
    method: "POST",
    url: "https://API.example:443/orders?page=2#top",
    access_token: None,
    nonce: None,
    window_s: 60,
};

fn proven(text: &str, expected: &ProofExpected<'_>, now: Timestamp) -> Result<Possession, Refusal> {
    let mut last = None;
    for (_, make) in STACKS {
        let proof = Proof::parse(text)?;
        let (key, algorithm) = (proof.key().clone(), proof.header().algorithm);
        let ready = Key::new(None, algorithm, make(&key, algorithm).unwrap());
        let one = judged(proof.select(&ready)?)?.proof(&key, expected, now, &LocalCrypto)?;
        // The same in one call.
        let at_once = prove(text, expected, now, make).now_or_never().unwrap().unwrap();
        assert_eq!((one.id(), one.thumbprint()), (at_once.id(), at_once.thumbprint()));
        last = Some(one);
    }
    Ok(last.unwrap())
}

/// RFC 9449 4.1, figure 2: the proof of the RFC itself.
#[test]
fn the_proof_of_the_rfc_holds() {
    let text = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
    let expected = ProofExpected { url: "https://server.example.com/token", ..EXPECTED };
    let now = Timestamp(1_562_262_616_000);
    let possession = proven(text, &expected, now).unwrap();
    assert_eq!(possession.thumbprint().to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    assert_eq!(possession.id(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I.-BwC3ESc6acc2lTc");
    assert_eq!(possession.until(), now.plus(61_000), "to be remembered as long as it would be taken");
    let moved = proven(text, &expected, possession.until());
    assert_eq!(moved.unwrap_err().to_string(), "issued 1m 1s ago, accepted for 1m");
}

#[test]
fn what_a_proof_is_about_is_compared() {
    let good = signed(&header(), &claims());
    assert!(proven(&good, &EXPECTED, NOW).is_ok());
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        signed(&header(), &claims)
    };
    let said = |text: &str| proven(text, &EXPECTED, NOW).unwrap_err().to_string();
    for (text, message) in [
        (with("htm", "GET".into()), "the proof is for another method"),
        (with("htm", "post".into()), "the proof is for another method"),
        (with("htu", "https://api.example/orders/1".into()), "the proof is for another URL"),
        (with("htu", "http://api.example/orders".into()), "the proof is for another URL"),
        (with("htu", "https://api.example.evil/orders".into()), "the proof is for another URL"),
        (with("jti", "".into()), "`jti` is empty or longer than 256 bytes"),
        (with("jti", "j".repeat(257).into()), "`jti` is empty or longer than 256 bytes"),
        (with("jti", Value::Null), "`jti` is not text"),
        (with("iat", (NOW.seconds() - 61).into()), "issued 1m 1s ago, accepted for 1m"),
        (with("iat", (NOW.seconds() + 61).into()), "issued 1m 1s in the future: one of the clocks is wrong"),
    ] {
        assert_eq!(said(&text), message);
    }
    assert!(proven(&with("iat", (NOW.seconds() - 60).into()), &EXPECTED, NOW).is_ok());
    let bound = ProofExpected { access_token: Some("a.b.c"), ..EXPECTED };
    assert_eq!(proven(&good, &bound, NOW).unwrap_err(), Refusal::MissingClaim("ath"));
    let other = with("ath", base64url::encode(&[0; 32]).into());
    assert_eq!(proven(&other, &bound, NOW).unwrap_err().to_string(), "the proof is for another access token");
    // base64url(SHA-256("a.b.c")), by another program.
    assert!(proven(&with("ath", "hF4wRIgJ4ryJWOsCW_x5UjXROwd6U9DDq70jhRcNybg".into()), &bound, NOW).is_ok());
    let nonce = ProofExpected { nonce: Some("n"), ..EXPECTED };
    assert_eq!(proven(&good, &nonce, NOW).unwrap_err(), Refusal::MissingClaim("nonce"));
    assert!(
        proven(&with("nonce", "m".into()), &nonce, NOW).is_err()
            && proven(&with("nonce", "n".into()), &nonce, NOW).is_ok()
    );
}

#[test]
fn a_proof_brings_a_public_key_of_its_own() {
    let of = |change: &dyn Fn(&mut Value)| {
        let mut header = header();
        change(&mut header);
        Proof::parse(&signed(&header, &claims())).map(|_| ()).unwrap_err().to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str); 7] = [
        (&|h| h["typ"] = "JWT".into(), "the token's `typ` is `JWT`, wanted `dpop+jwt`"),
        (&|h| h["alg"] = "HS256".into(), "`alg` of the header of a proof is not a secret's"),
        (&|h| h["alg"] = "none".into(), "the token is not signed: its `alg` is `none`"),
        (&|h| drop(h.as_object_mut().unwrap().remove("jwk")), "`jwk` of the header is missing"),
        (&|h| h["jwk"]["d"] = "AA".into(), "`jwk` of the header is a private key"),
        (&|h| h["alg"] = "EdDSA".into(), "`jwk` of the header does not go with `alg`"),
        (&|h| h["jwk"] = json!({ "kty": "oct", "k": "AA" }), "`jwk` of the header is no public key that is known here"),
    ];
    for (change, message) in cases {
        assert_eq!(of(change), message);
    }
    // Somebody else's key in the header: the signature is not by it.
    let mut stolen = header();
    stolen["jwk"]["x"] = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs".into();
    stolen["jwk"]["y"] = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA".into();
    let refusal = proven(&signed(&stolen, &claims()), &EXPECTED, NOW).unwrap_err();
    assert_eq!(refusal.to_string(), "the signature was not made by the key without an id");
}

#[test]
fn a_bound_token_needs_the_proof_of_its_own_key() {
    use crate::attacks::verified_with;
    let mine = proven(&signed(&header(), &claims()), &EXPECTED, NOW).unwrap();
    let thumbprint = Jwk::parse(jwk().to_string().as_bytes(), None).unwrap().key.thumbprint(&LocalCrypto);
    assert_eq!(mine.thumbprint(), thumbprint);
    let bound = |jkt: &str| verified_with("cnf", &json!({ "jkt": jkt }).to_string()).unwrap();
    let good = bound(&thumbprint.to_string());
    assert_eq!(good.claims().check_possession(Some(&mine)), Ok(()));
    let said = |verdict: Result<(), Refusal>| verdict.unwrap_err().to_string();
    assert_eq!(said(good.claims().check_possession(None)), "the token is bound to a key, and nobody proved to have it");
    let other = bound(&base64url::encode(&[1; 32]));
    assert_eq!(
        said(other.claims().check_possession(Some(&mine))),
        "the token is bound to another key than the proof's"
    );
    let broken = bound("short");
    assert_eq!(said(broken.claims().check_possession(Some(&mine))), "`cnf` has a `jkt` that is no thumbprint");
    assert_eq!(verified_with("x", "1").unwrap().claims().check_possession(None), Ok(()));
}

#[test]
fn a_token_that_is_bound_to_a_certificate_needs_that_one() {
    use crate::attacks::verified_with;
    let bound = verified_with("cnf", &json!({ "x5t#S256": base64url::encode(&[5; 32]) }).to_string()).unwrap();
    let said = |verdict: Result<(), Refusal>| verdict.unwrap_err().to_string();
    assert_eq!(bound.claims().check_certificate(Some([5; 32])), Ok(()));
    assert_eq!(
        said(bound.claims().check_certificate(Some([6; 32]))),
        "the token is bound to another certificate than the connection's"
    );
    assert_eq!(
        said(bound.claims().check_certificate(None)),
        "the token is bound to a certificate, and the connection showed none"
    );
    let broken = verified_with("cnf", r#"{"x5t#S256":7}"#).unwrap();
    assert_eq!(said(broken.claims().check_certificate(Some([5; 32]))), "`cnf` has a `x5t#S256` that is no thumbprint");
    assert_eq!(verified_with("x", "1").unwrap().claims().check_certificate(None), Ok(()));
}
