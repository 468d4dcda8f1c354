//! What scripts and services print reaches these parsers as it is.

use std::collections::BTreeMap;

use keyreeve::config::{Algorithm, HttpMapping};
use keyreeve::core::record::FaultClass;
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Timestamp;
use keyreeve::crypto::signer;
use keyreeve::source::life::Window;
use keyreeve::source::{Fields, MintError, Minting, exec, http};
use proptest::prelude::*;

use crate::support::NOW;

const WINDOW: Window = Window { asked_at: NOW, now: NOW, life_ms_max: 3_600_000 };

fn read(output: &str) -> Result<Minting, MintError> {
    exec::read(output.as_bytes(), WINDOW)
}

fn refused(output: &str, class: FaultClass) -> String {
    let error = read(output).unwrap_err();
    assert!(error.may_have_minted, "{output}");
    assert_eq!(error.class, class, "{output}");
    error.message
}

#[test]
fn a_script_may_print_a_token_fields_or_aws_keys() {
    let minting = read(r#"{"token":"abc","expires_in":60,"token_type":"bearer"}"#).unwrap();
    assert_eq!(minting.material.header().unwrap().1.expose(), "bearer abc");
    assert_eq!((minting.expires_at, minting.issued_at), (NOW.plus(60_000), None));

    let minting =
        read(r#"{"fields":{"user":"a","password":"b"},"expires_at":"2026-11-21T12:30:00Z","issued_at":1795262399}"#)
            .unwrap();
    assert_eq!(minting.material.kind, "fields");
    assert!(matches!(&minting.material.secret, Fields::Named(named) if named["user"].expose() == "a"));
    assert_eq!(minting.issued_at, Some(NOW.minus(1000)));

    let minting = read(
        r#" {"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","SessionToken":"T","Expiration":"2026-11-21T12:30:00Z","Other":1} "#,
    )
    .unwrap();
    assert_eq!(minting.material.aws().unwrap().session_token.unwrap().expose(), "T");
    assert_eq!(minting.expires_at, NOW.plus(1_800_000));
    assert!(matches!(&minting.material.secret, Fields::Named(named) if named.len() == 3));
}

#[test]
fn useless_output_is_transient_and_named() {
    for (output, message) in [
        ("", "nothing"),
        (" \n", "nothing"),
        ("ok: done", "8 bytes that are not JSON (line 1, column 1)"),
        ("[1]", "JSON that is not an object"),
        ("{}", "an answer in which `token` is missing"),
        (r#"{"token":"","expires_in":1}"#, "an answer in which `token` is empty"),
        (r#"{"token":"a"}"#, "an answer in which `expires_at` is missing: a credential without an end is not taken"),
        (r#"{"Version":1,"AccessKeyId":"A"}"#, "an answer in which `SecretAccessKey` is missing"),
        (
            r#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S"}"#,
            "an answer in which `Expiration` is missing: a credential without an end is not taken",
        ),
    ] {
        assert_eq!(refused(output, FaultClass::Transient), message);
    }
}

#[test]
fn output_that_would_come_again_is_misconfigured_and_named() {
    for (output, message) in [
        (r#"{"token":1,"expires_in":1}"#, "`token` is not text"),
        (r#"{"token":"a b","expires_in":1}"#, "`token` has characters that no header may carry"),
        (r#"{"token":"a\n","expires_in":1}"#, "`token` has characters that no header may carry"),
        (r#"{"token":"a","fields":{},"expires_in":1}"#, "there are both `token` and `fields`"),
        (r#"{"fields":{},"expires_in":1}"#, "`fields` has 0 members, not 1 to 64"),
        (r#"{"fields":[],"expires_in":1}"#, "`fields` is not an object"),
        (r#"{"fields":{"a":1},"expires_in":1}"#, "`a` is not text"),
        (r#"{"token":"a","expires_in":1,"expires_at":1}"#, "there are both `expires_at` and `expires_in`"),
        (r#"{"token":"a","expires_at":"tomorrow"}"#, "`expires_at` is not RFC 3339 text or seconds since 1970"),
        (r#"{"Version":2,"AccessKeyId":"A"}"#, "`Version` is not 1, the only one there is"),
        (r#"{"Version":"1","AccessKeyId":"A"}"#, "`Version` is not 1, the only one there is"),
        (r#"{"AccessKeyId":"A"}"#, "`Version` is missing, it has to be 1"),
        (
            r#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","Expiration":1795263400}"#,
            "`Expiration` is not RFC 3339 text",
        ),
    ] {
        assert_eq!(refused(output, FaultClass::Misconfigured), format!("an answer in which {message}"));
    }
    let large = format!(r#"{{"token":"{}","expires_in":60}}"#, "x".repeat(33_000));
    assert!(refused(&large, FaultClass::Misconfigured).ends_with("more than the limit of 32768"));
}

fn mapping(token: Option<&str>, expires_at: Option<&str>) -> HttpMapping {
    HttpMapping {
        token: token.map(str::to_owned),
        fields: BTreeMap::new(),
        expires_at: expires_at.map(str::to_owned),
        expires_in: None,
    }
}

#[test]
fn an_answer_is_read_by_its_pointers() {
    let body = br#"{"data":[{"a/b":"tok"}],"meta":{"end":"2026-11-21T12:30:00Z","left":"60"}}"#;
    let minting = http::read(body, &mapping(Some("/data/0/a~1b"), Some("/meta/end")), WINDOW).unwrap();
    assert_eq!(minting.material.header().unwrap().1.expose(), "bearer tok");
    assert_eq!(minting.expires_at, NOW.plus(1_800_000));
    let fields = [("t".to_owned(), "/data/0/a~1b".to_owned())].into();
    let by_fields = HttpMapping { fields, expires_in: Some("/meta/left".into()), ..mapping(None, None) };
    let minting = http::read(body, &by_fields, WINDOW).unwrap();
    assert!(matches!(&minting.material.secret, Fields::Named(named) if named["t"].expose() == "tok"));
    assert_eq!(minting.expires_at, NOW.plus(60_000));
    let error = http::read(body, &mapping(Some("/nowhere"), Some("/meta/end")), WINDOW).unwrap_err();
    assert_eq!(error.message, "an answer in which `/nowhere` is missing");
    assert!(error.may_have_minted);
}

#[test]
fn retry_after_is_read_as_seconds_or_as_a_date() {
    let of = |retry_after: &str, date: Option<&str>| {
        let mut headers = ::http::HeaderMap::new();
        headers.insert("retry-after", retry_after.parse().unwrap());
        if let Some(date) = date {
            headers.insert("date", date.parse().unwrap());
        }
        http::retry_after_ms(&headers, NOW)
    };
    assert_eq!(of("30", None), Some(30_000));
    assert_eq!(of(" 0 ", None), Some(0));
    assert_eq!(of("99999999999999999999", None), Some(u64::MAX));
    assert_eq!(of("Sat, 21 Nov 2026 12:02:00 GMT", None), Some(120_000));
    assert_eq!(of("Sat, 21 Nov 2026 11:00:00 GMT", None), Some(0));
    // The service's clock is an hour behind: only the difference counts.
    assert_eq!(of("Sat, 21 Nov 2026 11:02:00 GMT", Some("Sat, 21 Nov 2026 11:00:00 GMT")), Some(120_000));
    assert_eq!(of("soon", None), None);
    assert_eq!(of("-5", None), None);
    assert_eq!(http::retry_after_ms(&::http::HeaderMap::new(), NOW), None);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
    ];
    let name = prop_oneof![
        Just("token"),
        Just("fields"),
        Just("expires_at"),
        Just("expires_in"),
        Just("issued_at"),
        Just("Version"),
        Just("AccessKeyId"),
        Just("SecretAccessKey"),
        Just("Expiration"),
        Just("kty"),
        Just("crv"),
        Just("d"),
        Just("k")
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(3, 40, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map(name.clone(), inner, 0..8)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_falling_over(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _read = exec::read(&bytes, WINDOW);
        let _read = http::read(&bytes, &mapping(Some("/token"), Some("/expires_at")), WINDOW);
        for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256, Algorithm::Rs256] {
            let _signer = signer(algorithm, &Secret::new(bytes.clone()));
        }
    }

    #[test]
    fn any_json_is_read_without_falling_over_and_what_is_taken_has_an_end(value in any_json()) {
        let text = value.to_string();
        let by_pointers = http::read(text.as_bytes(), &mapping(Some("/token"), Some("/expires_at")), WINDOW);
        for minting in [exec::read(text.as_bytes(), WINDOW), by_pointers].into_iter().flatten() {
            prop_assert!(minting.expires_at > NOW);
            prop_assert!(minting.expires_at <= Timestamp(NOW.0 + 3_900_000));
        }
        for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256, Algorithm::Rs256] {
            let _signer = signer(algorithm, &Secret::new(text.clone().into_bytes()));
        }
    }

    #[test]
    fn any_pem_is_read_without_falling_over(label in "(EC |RSA |ENCRYPTED |)PRIVATE KEY", body in "[A-Za-z0-9+/=\n]{0,200}") {
        let pem = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256, Algorithm::Rs256] {
            let _signer = signer(algorithm, &Secret::new(pem.clone().into_bytes()));
        }
    }
}
