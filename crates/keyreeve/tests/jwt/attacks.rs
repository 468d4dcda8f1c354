//! Hostile tokens: each refused with its own error, none of them a panic.

use futures::FutureExt as _;
use keyreeve::core::crypto::Crypto as _;
use keyreeve::core::jwt::{Key, KeySet, base64url};
use keyreeve::core::secret::Secret;
use keyreeve::crypto::{Check, LocalCrypto, check, signer};
use keyreeve::jwt::{Algorithm, Claims, Expected, Jwk, JwkSet, PublicKey, Refusal, TokenType, Verified, key_set};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::given::{NOW, STACKS, signed};

const SECRET: &[u8; 64] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const P256: &str = include_str!("../keyreeve/keys/p256-pkcs8.pem");
const NOW_S: u64 = NOW.0 / 1000;

/// The HMAC secret `h` for HS256, and the P-256 key `e`.
fn trusted() -> KeySet<Check> {
    KeySet::new(vec![secret_key(Some("h"), Algorithm::Hs256), p256_key()])
}

fn secret_key(id: Option<&str>, algorithm: Algorithm) -> Key<Check> {
    Key::new(id, algorithm, check(&PublicKey::Secret(Secret::new(SECRET.to_vec())), algorithm).unwrap())
}

fn p256_public() -> PublicKey {
    let url = |text| base64url::decode(text).unwrap();
    let (x, y) = ("YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y", "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk");
    PublicKey::ec(keyreeve::core::jwt::Curve::P256, url(x), url(y)).unwrap()
}

fn p256_key() -> Key<Check> {
    Key::new(Some("e"), Algorithm::Es256, check(&p256_public(), Algorithm::Es256).unwrap())
}

fn expected() -> Expected {
    Expected::new(["https://issuer.example"], ["orders"]).unwrap()
}

/// Signs whatever text is given.
fn made(header: &str, payload: &str, algorithm: Algorithm, key: &[u8]) -> String {
    let message = format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(payload.as_bytes()));
    let signer = signer(algorithm, &Secret::new(key.to_vec())).unwrap();
    let signature = signer.sign(message.as_bytes()).now_or_never().unwrap().unwrap();
    format!("{message}.{}", base64url::encode(&signature))
}

/// HMAC SHA-256 with any bytes for a secret: whoever forges does not read keys as carefully as `signer` does.
fn mac(secret: &[u8], message: &str) -> [u8; 32] {
    LocalCrypto.hmac_sha256(secret, &[message.as_bytes()])
}

fn hs256(header: &str, payload: &str) -> String {
    made(header, payload, Algorithm::Hs256, SECRET)
}

const HEADER: &str = r#"{"alg":"HS256","kid":"h"}"#;

fn claims() -> Value {
    json!({ "iss": "https://issuer.example", "aud": "orders", "sub": "u1", "iat": NOW_S - 60, "exp": NOW_S + 600 })
}

/// The claims with one of them spelt otherwise; an empty text leaves it out.
fn with(name: &str, value: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    let mut text = claims.to_string();
    if !value.is_empty() {
        text.pop();
        text.push_str(&format!(",\"{name}\":{value}}}"));
    }
    hs256(HEADER, &text)
}

fn verified(token: &str) -> Result<Verified<Claims>, Refusal> {
    signed(token, &trusted())?.claims(&expected(), NOW)
}

/// The verdict on good claims of which one is spelt so.
pub(crate) fn verified_with(name: &str, value: &str) -> Result<Verified<Claims>, Refusal> {
    verified(&with(name, value))
}

#[track_caller]
fn refused(token: &str) -> String {
    match verified(token) {
        Ok(claims) => panic!("accepted: {:?}", claims.claims()),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn a_good_token_is_accepted() {
    let good = verified(&hs256(HEADER, &claims().to_string())).unwrap();
    assert_eq!((good.claims().subject(), good.key_id(), good.algorithm()), (Some("u1"), Some("h"), Algorithm::Hs256));
    let good =
        verified(&made(r#"{"alg":"ES256","kid":"e"}"#, &claims().to_string(), Algorithm::Es256, P256.as_bytes()));
    assert_eq!(good.unwrap().key_id(), Some("e"));
}

#[test]
fn none_is_refused_in_every_spelling() {
    let payload = base64url::encode(claims().to_string().as_bytes());
    for none in ["none", "None", "NONE", "nOnE", "none ", " none"] {
        for signature in ["", "AA", &base64url::encode(&[0; 32])] {
            let header = base64url::encode(format!(r#"{{"alg":"{none}","kid":"h"}}"#).as_bytes());
            let shown = format!("the token is not signed: its `alg` is `{none}`");
            assert_eq!(refused(&format!("{header}.{payload}.{signature}")), shown);
        }
    }
    for (header, message) in [
        (r#"{"alg":"","kid":"h"}"#, "the algorithm `` is not known here"),
        (r#"{"alg":"hs256","kid":"h"}"#, "the algorithm `hs256` is not known here"),
        (r#"{"alg":"HS1","kid":"h"}"#, "the algorithm `HS1` is not known here"),
        (r#"{"alg":null,"kid":"h"}"#, "`alg` of the header is not text"),
        (r#"{"alg":["HS256"],"kid":"h"}"#, "`alg` of the header is not text"),
        (r#"{"kid":"h"}"#, "`alg` of the header is missing"),
    ] {
        assert_eq!(refused(&hs256(header, &claims().to_string())), message);
    }
}

/// The classic: everybody knows the public key, and HMAC takes any bytes for a secret.
#[test]
fn a_public_key_is_never_a_secret() {
    let public = p256_public();
    let jwk = public.to_jwk(Some("e"), Algorithm::Es256).unwrap();
    let PublicKey::Ec { x, y, .. } = &public else { panic!("another kind of key") };
    let point = [&[4], x.as_slice(), y].concat();
    let pem = include_str!("../keyreeve/keys/p256-public.pem");
    for bytes in [jwk.as_bytes(), point.as_slice(), pem.as_bytes(), pem.trim().as_bytes()] {
        let message = format!(
            "{}.{}",
            base64url::encode(br#"{"alg":"HS256","kid":"e"}"#),
            base64url::encode(claims().to_string().as_bytes())
        );
        let forged = mac(bytes, &message);
        let token = format!("{message}.{}", base64url::encode(&forged));
        assert_eq!(refused(&token), "the token says `HS256`, the key `e` is for `ES256`");
    }
    // Nor does a key for one HMAC serve another one, which a peer of ours accepts.
    let hs512 = KeySet::new(vec![secret_key(None, Algorithm::Hs512)]);
    for algorithm in [Algorithm::Hs256, Algorithm::Hs384] {
        let token = made(&format!(r#"{{"alg":"{algorithm}"}}"#), &claims().to_string(), algorithm, SECRET);
        let refusal = signed(&token, &hs512).unwrap_err();
        assert_eq!(refusal.to_string(), format!("the token says `{algorithm}`, the key it would need is for `HS512`"));
    }
}

#[test]
fn a_key_id_is_only_ever_compared() {
    for (id, shown) in [
        ("../../../../dev/null", "../../../../dev/null"),
        ("h' OR '1'='1", "h\\' OR \\'1\\'=\\'1"),
        ("|/bin/sh -c id", "|/bin/sh -c id"),
        ("https://evil.example/keys", "https://evil.example/keys"),
        ("h\u{0}", "h\\0"),
        ("H", "H"),
        ("h\n2026-11-21 INFO all is well", "h\\n2026-11-21 INFO all is well"),
    ] {
        let header = json!({ "alg": "HS256", "kid": id }).to_string();
        let message = refused(&made(&header, &claims().to_string(), Algorithm::Hs256, &[0; 32]));
        assert_eq!(message, format!("unknown key id `{shown}`"));
        assert!(!message.contains(['\n', '\0']));
    }
    let long = json!({ "alg": "HS256", "kid": "k".repeat(257) }).to_string();
    assert_eq!(refused(&hs256(&long, "{}")), "`kid` of the header is longer than 256 bytes");
    let number = r#"{"alg":"HS256","kid":1}"#;
    assert_eq!(refused(&hs256(number, "{}")), "`kid` of the header is not text");
    let shown = refused(&hs256(&json!({ "alg": "HS256", "kid": "k".repeat(200) }).to_string(), "{}"));
    assert_eq!(shown, format!("unknown key id `{}…`", "k".repeat(64)));
}

/// A key that comes with the token proves nothing: it is not even looked at.
#[test]
fn keys_that_a_token_brings_are_not_used() {
    let attackers = [7; 32];
    let k = base64url::encode(&attackers);
    for member in [
        json!({ "jwk": { "kty": "oct", "k": k, "kid": "h", "alg": "HS256" } }),
        json!({ "jku": "https://evil.example/jwks.json" }),
        json!({ "x5u": "https://evil.example/chain.pem" }),
        json!({ "x5c": ["MIIB"] }),
    ] {
        let mut header = json!({ "alg": "HS256", "kid": "h" });
        header.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        let forged = made(&header.to_string(), &claims().to_string(), Algorithm::Hs256, &attackers);
        assert_eq!(refused(&forged), "the signature was not made by the key `h`");
        assert!(verified(&hs256(&header.to_string(), &claims().to_string())).is_ok(), "it is ignored, not followed");
    }
}

/// CVE-2022-21449: r = s = 0 satisfied a verifier that forgot to look.
#[test]
fn psychic_signatures_are_refused_by_every_stack() {
    let order = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let order: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap()).collect();
    let one = [[0; 31].as_slice(), &[1]].concat();
    let zero = [0; 32].as_slice();
    let message = format!(
        "{}.{}",
        base64url::encode(br#"{"alg":"ES256","kid":"e"}"#),
        base64url::encode(claims().to_string().as_bytes())
    );
    for (stack, make) in STACKS {
        let key = Key::new(Some("e"), Algorithm::Es256, make(&p256_public(), Algorithm::Es256).unwrap());
        let keys = KeySet::new(vec![key]);
        for (r, s) in [(zero, zero), (zero, &one), (&one, zero), (&order, &order), (&order, &one), (&one, &order)] {
            let token = format!("{message}.{}", base64url::encode(&[r, s].concat()));
            let refusal = signed(&token, &keys).unwrap_err();
            assert_eq!(refusal.to_string(), "the signature was not made by the key `e`", "{stack}");
        }
    }
}

#[test]
fn a_point_off_the_curve_is_no_key() {
    let PublicKey::Ec { curve, x, y } = p256_public() else { panic!("another kind of key") };
    let mut off = y.clone();
    off[31] ^= 1;
    for (stack, make) in STACKS {
        for (x, y) in [(x.clone(), off.clone()), (vec![0; 32], vec![0; 32]), (vec![0xff; 32], vec![0xff; 32])] {
            assert!(make(&PublicKey::ec(curve, x, y).unwrap(), Algorithm::Es256).is_err(), "{stack}");
        }
        // Points of small order verify the same signature for many messages.
        for weak in [[0; 32], [[1].as_slice(), &[0; 31]].concat().try_into().unwrap()] {
            assert!(make(&PublicKey::Ed25519(weak), Algorithm::EdDsa).is_err(), "{stack}");
        }
    }
    assert!(PublicKey::ec(curve, x[1..].to_vec(), y).is_err());
}

#[test]
fn a_truncated_mac_is_refused_by_its_length() {
    let good = hs256(HEADER, &claims().to_string());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mac = base64url::decode(signature).unwrap();
    for length in [0, 1, 16, 31] {
        let token = format!("{message}.{}", base64url::encode(&mac[..length]));
        assert_eq!(refused(&token), format!("the signature has {length} bytes, those of HS256 have 32"));
    }
    let longer = format!("{message}.{}", base64url::encode(&[mac.as_slice(), &[0]].concat()));
    assert_eq!(refused(&longer), "the signature has 33 bytes, those of HS256 have 32");
}

/// One token has one spelling: a cache or a list of revoked tokens may go by its bytes.
#[test]
fn no_token_has_a_second_spelling() {
    // 22 bytes of payload leave four unused bits, 32 of MAC two.
    let good = hs256(HEADER, &claims().to_string());
    let parts: Vec<&str> = good.split('.').collect();
    let bumped = |part: &str| {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = LETTERS.iter().position(|letter| *letter == *part.as_bytes().last().unwrap()).unwrap();
        format!("{}{}", &part[..part.len() - 1], char::from(LETTERS[(last + 1) % 64]))
    };
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    let encoding = "is not base64url as RFC 7515 has it: no padding, no white space, no spare bits";
    for (token, message) in [
        (format!("{h}.{p}.{s}="), format!("the signature {encoding}")),
        (format!("{h}.{p}.{s}\n"), format!("the signature {encoding}")),
        (format!("{h}.{p}. {s}"), format!("the signature {encoding}")),
        (format!("{h}.{p}.{}", bumped(s)), format!("the signature {encoding}")),
        (format!("{h}.{p}.{}", s.replace(['-', '_'], "+")), format!("the signature {encoding}")),
        (format!("{h}=.{p}.{s}"), format!("the header {encoding}")),
        (format!(" {h}.{p}.{s}"), format!("the header {encoding}")),
        (format!("{h}.{p}=.{s}"), "the signature was not made by the key `h`".to_owned()),
        (format!("{h}.{p}"), "not a signed token: 2 parts instead of 3".to_owned()),
        (format!("{good}."), "not a signed token: 4 parts instead of 3".to_owned()),
        (format!("{good}.AA.AA"), "not a signed token: 5 parts instead of 3".to_owned()),
        (String::new(), "not a signed token: 1 parts instead of 3".to_owned()),
    ] {
        if token != good {
            assert_eq!(refused(&token), message, "{token}");
        }
    }
    // Spelt badly *and* signed so: the signature is good, and still.
    let message = format!("{h}.{p}=");
    let token = format!("{message}.{}", base64url::encode(&mac(SECRET, &message)));
    assert_eq!(refused(&token), format!("the payload {encoding}"));
}

#[test]
fn what_is_said_twice_is_refused_however_it_is_spelt() {
    let twice = "a member that is there twice";
    let payload = claims().to_string();
    for header in [
        r#"{"alg":"HS256","kid":"h","kid":"e"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
    ] {
        assert!(refused(&hs256(header, &payload)).contains(twice), "{header}");
    }
    for payload in [
        payload.replacen('{', r#"{"sub":"admin","#, 1),
        payload.replacen('{', r#"{"s\u0075b":"admin","#, 1),
        payload.replacen('{', r#"{"cnf":{"jkt":"a","jkt":"b"},"#, 1),
    ] {
        let message = refused(&hs256(HEADER, &payload));
        assert!(message.starts_with("the payload is not good JSON: ") && message.contains(twice), "{message}");
    }
}

#[test]
fn size_and_depth_have_limits_before_anything_is_read() {
    let limit = keyreeve::core::jwt::TOKEN_BYTES_MAX;
    let big = "a".repeat(1 << 20);
    assert_eq!(refused(&big), format!("the token has {} bytes, more than the limit of {limit}", 1 << 20));
    assert_eq!(
        refused(&"a".repeat(limit + 1)),
        format!("the token has {} bytes, more than the limit of {limit}", limit + 1)
    );
    assert_eq!(refused(&"a".repeat(limit)), "not a signed token: 1 parts instead of 3");
    assert_eq!(refused(&".".repeat(limit)), format!("not a signed token: {} parts instead of 3", limit + 1));
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(verified(&with("x", &nested(15))).is_ok());
    let message = refused(&with("x", &nested(16)));
    assert!(message.starts_with("the payload is not good JSON: nested deeper than 16 levels at byte "), "{message}");
    assert!(refused(&with("x", &"[".repeat(5000))).contains("nested deeper"));
    let header = format!(r#"{{"alg":"HS256","x":{}}}"#, "[".repeat(3000));
    assert!(refused(&hs256(&header, "{}")).starts_with("the header is not good JSON: nested deeper"));
}

#[test]
fn times_are_seconds_in_digits_and_nothing_else() {
    let number = "is not a number of seconds since 1970";
    let digits = "is not whole seconds in digits: round it where it is signed";
    for (value, message) in [
        ("", "no `exp` in the token".to_owned()),
        ("null", format!("`exp` {number}")),
        ("\"90s\"", "`exp` is text, not a number of seconds".to_owned()),
        ("\"1795263000\"", "`exp` is text, not a number of seconds".to_owned()),
        ("-1", "`exp` lies before 1970".to_owned()),
        ("-1e300", "`exp` lies before 1970".to_owned()),
        ("1795263000.0", format!("`exp` {digits}")),
        ("1795263000.999", format!("`exp` {digits}")),
        ("1e300", format!("`exp` {digits}")),
        ("1e12", format!("`exp` {digits}")),
        ("99999999999999999999999999", "`exp` lies after the year 9999".to_owned()),
        ("18446744073709551615", "`exp` lies after the year 9999".to_owned()),
        ("[1795263000]", format!("`exp` {number}")),
        ("true", format!("`exp` {number}")),
        ("0", "expired 20778d 12h ago".to_owned()),
    ] {
        assert_eq!(refused(&with("exp", value)), message);
    }
    assert_eq!(refused(&with("nbf", "\"now\"")), "`nbf` is text, not a number of seconds");
    assert_eq!(refused(&with("iat", "1e9")), format!("`iat` {digits}"));
}

/// Both sides of each edge, with the usual leeway of a minute.
#[test]
fn times_are_judged_to_the_second() {
    let at = |name, offset: i64| verified(&with(name, &NOW_S.saturating_add_signed(offset).to_string()));
    let said = |verdict: Result<Verified<Claims>, Refusal>| verdict.unwrap_err().to_string();
    assert!(at("exp", -59).is_ok());
    assert_eq!(said(at("exp", -60)), "expired 1m ago");
    assert_eq!(said(at("exp", -72)), "expired 1m 12s ago");
    assert!(at("nbf", 60).is_ok());
    assert_eq!(said(at("nbf", 61)), "not valid for another 1m 1s");
    assert!(at("iat", 60).is_ok());
    assert_eq!(said(at("iat", 61)), "issued 1m 1s in the future: one of the clocks is wrong");
    let young = expected().with_age_s_max(300);
    let aged = |age: u64| {
        signed(&with("iat", &(NOW_S - age).to_string()), &trusted()).unwrap().claims(&young, NOW).map(|_| ())
    };
    assert_eq!(aged(360), Ok(()));
    assert_eq!(aged(361).unwrap_err().to_string(), "issued 6m 1s ago, accepted for 5m");
    let without = signed(&with("iat", ""), &trusted()).unwrap().claims(&young, NOW);
    assert_eq!(without.unwrap_err().to_string(), "no `iat` in the token");
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    for (header, message) in [
        (
            r#"{"alg":"HS256","kid":"h","crit":["exp"],"exp":1}"#,
            r#"the header demands extensions that are not known here: [\"exp\"]"#,
        ),
        (r#"{"alg":"HS256","kid":"h","crit":[]}"#, "the header demands extensions that are not known here: []"),
        (r#"{"alg":"HS256","kid":"h","crit":null}"#, "the header demands extensions that are not known here: null"),
        (
            r#"{"alg":"HS256","kid":"h","b64":false,"crit":["b64"]}"#,
            "`b64` of the header is false: an unencoded payload is no JWT",
        ),
        (r#"{"alg":"HS256","kid":"h","b64":false}"#, "`b64` of the header is false: an unencoded payload is no JWT"),
    ] {
        assert_eq!(refused(&hs256(header, &claims().to_string())), message);
    }
}

#[test]
fn issuer_and_audience_are_demanded_and_compared_whole() {
    for (name, value, message) in [
        ("iss", "", "no `iss` in the token"),
        ("iss", "\"https://issuer.example/\"", "issuer `https://issuer.example/`, wanted `https://issuer.example`"),
        ("iss", "[\"https://issuer.example\"]", "`iss` is not text"),
        ("aud", "", "no `aud` in the token"),
        ("aud", "[]", "no `aud` in the token"),
        ("aud", "\"orders2\"", "audience `orders2`, wanted `orders`"),
        ("aud", "[\"a\",\"b\"]", "audience `a`, `b`, wanted `orders`"),
        ("aud", "[\"orders\",1]", "`aud` has an entry that is not text"),
        ("aud", "{\"orders\":true}", "`aud` is neither text nor a list of texts"),
        ("sub", "1", "`sub` is not text"),
    ] {
        assert_eq!(refused(&with(name, value)), message);
    }
    assert!(verified(&with("aud", "[\"billing\",\"orders\"]")).is_ok());
    assert!(Expected::new([""], ["a"]).is_err() && Expected::new(["a"], Vec::<String>::new()).is_err());
    assert!(expected().with_leeway_s(300).is_ok() && expected().with_leeway_s(301).is_err());
}

/// RFC 8725 3.11: a token made for one purpose is not taken for another.
#[test]
fn the_type_of_a_token_is_enforced() {
    let typed =
        |typ: &str| hs256(&json!({ "alg": "HS256", "kid": "h", "typ": typ }).to_string(), &claims().to_string());
    let of = |typ: &str, wanted: TokenType| {
        signed(&typed(typ), &trusted()).unwrap().claims(&expected().with_type(wanted), NOW).map(|_| ())
    };
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"] {
        assert_eq!(of(typ, TokenType::Ordinary), Ok(()), "{typ}");
    }
    for typ in ["dpop+jwt", "logout+jwt", "secevent+jwt", "application/", "application/application/jwt", ""] {
        let message = of(typ, TokenType::Ordinary).unwrap_err().to_string();
        assert_eq!(message, format!("the token's `typ` is `{typ}`, wanted `JWT`, `at+jwt` or none"));
    }
    let message = of("JWT", TokenType::AccessToken).unwrap_err().to_string();
    assert_eq!(message, "the token's `typ` is `JWT`, wanted `at+jwt`");
    // RFC 9068 2.2 demands claims as well.
    assert_eq!(of("at+jwt", TokenType::AccessToken).unwrap_err().to_string(), "no `client_id` in the token");
    assert_eq!(of("x+jwt", TokenType::Exactly("x+jwt".into())), Ok(()));
}

#[test]
fn a_string_of_permissions_contains_none() {
    let good = verified(&with("permissions", "\"orders:read orders:write\"")).unwrap();
    assert_eq!(good.claims().list("permissions").count(), 0);
    let good = verified(&with("permissions", "[\"orders:read\",7,\"orders:write\"]")).unwrap();
    assert_eq!(good.claims().list("permissions").collect::<Vec<_>>(), ["orders:read", "orders:write"]);
    let good = verified(&with("scope", "\"a  b\"")).unwrap();
    assert_eq!(good.claims().scopes().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn one_bad_key_does_not_fail_a_set_and_open_secrets_are_not_used() {
    let good = p256_public().to_jwk(Some("good"), Algorithm::Es256).unwrap();
    let set = format!(
        r#"{{"keys":[1,{{}},{{"kty":"oct","k":"{k}","alg":"HS256","kid":"open"}},{{"kty":"X"}},
        {{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"AA","kid":"private"}},
        {{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}},{good}]}}"#,
        k = base64url::encode(SECRET),
    );
    let set = JwkSet::parse_public(set.as_bytes()).unwrap();
    assert_eq!(set.keys.iter().map(|key| key.id.as_deref()).collect::<Vec<_>>(), [Some("good")]);
    assert_eq!(set.skipped.len(), 6);
    assert_eq!(key_set(&set, check).0.keys().len(), 1);
    assert!(JwkSet::parse_public(b"[]").is_err());
    // Found by the fuzzer: an id that no token can name filled a key up to its limit.
    let named = |bytes: usize| Jwk::parse(good.replace("good", &"k".repeat(bytes)).as_bytes(), None).is_ok();
    assert!(named(256) && !named(257));
    assert!(Jwk::parse(&vec![b' '; 20_000], None).is_err());
}

#[test]
fn strangers_hear_little() {
    for (refusal, public) in [
        (verified(&with("exp", "1")).unwrap_err(), "the token has expired"),
        (verified(&with("iss", "\"x\"")).unwrap_err(), "the token is not valid"),
        (verified(&hs256(r#"{"alg":"HS256","kid":"x"}"#, "{}")).unwrap_err(), "the token is not valid"),
        (verified("x").unwrap_err(), "the token is not valid"),
    ] {
        assert_eq!(refusal.public(), public);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_is_a_panic(text in "[A-Za-z0-9_.=-]{0,200}|\\PC{0,60}") {
        prop_assert!(verified(&text).is_err());
    }

    #[test]
    fn no_header_or_payload_is_a_panic(header in json_text(), payload in json_text()) {
        let _verdict = verified(&hs256(&header, &payload));
        let _set = JwkSet::parse(payload.as_bytes());
    }

    /// Whatever single byte of a good token is changed, it is refused.
    #[test]
    fn no_changed_byte_goes_unseen(at in 0_usize..400, byte in any::<u8>()) {
        let good = hs256(HEADER, &claims().to_string());
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes) && text != good {
            prop_assert!(verified(&text).is_err());
        }
    }
}

/// Things that look like the JSON of a token or a key set.
fn json_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just(r#""alg""#),
        Just(r#""HS256""#),
        Just(r#""kid""#),
        Just(r#""h""#),
        Just(r#""exp""#),
        Just("1795263000"),
        Just("-0"),
        Just("1e9"),
        Just(r#""aud""#),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(":"),
        Just(","),
        Just("null"),
        Just(r#""\u00e9\ud83d\ude00""#),
        Just(r#""\ud83d""#),
        Just(r#""keys""#),
        Just(r#""kty":"EC""#),
        Just(" "),
        Just("\u{0}"),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}
