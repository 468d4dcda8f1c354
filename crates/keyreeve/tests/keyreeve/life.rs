//! R19: no credential without an end.

use keyreeve::core::record::FaultClass;
use keyreeve::core::time::Timestamp;
use keyreeve::source::life::{self, SKEW_MS, Window};
use keyreeve::source::{LifeError, MintError};
use serde_json::{Value, json};

use crate::support::NOW;

const HOUR_MS: u64 = 3_600_000;
const NOW_S: u64 = NOW.0 / 1000;

fn window() -> Window {
    Window { asked_at: NOW.minus(2000), now: NOW, life_ms_max: HOUR_MS }
}

fn at(value: Value) -> Result<Timestamp, LifeError> {
    window().expires_at("expires_at", Some(&value))
}

fn within(value: Value) -> Result<Timestamp, LifeError> {
    window().expires_in("expires_in", Some(&value))
}

fn message<T: std::fmt::Debug>(result: Result<T, LifeError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn r19_an_end_is_read_in_each_of_its_forms() {
    let end = NOW.plus(1_800_000);
    for value in [
        json!("2026-11-21T12:30:00Z"),
        json!("2026-11-21T13:30:00+01:00"),
        json!("2026-11-21T12:30:00.000000Z"),
        json!(NOW_S + 1800),
        json!((NOW_S + 1800).to_string()),
        json!(NOW_S as f64 + 1800.7),
    ] {
        assert_eq!(at(value.clone()), Ok(end), "{value}");
    }
    for value in [json!(1800), json!("1800"), json!(1800.9)] {
        assert_eq!(within(value), Ok(end.minus(2000)), "counted from before the issuer was asked");
    }
}

#[test]
fn r19_an_absent_end_is_an_error() {
    let absent = "`expires_at` is missing: a credential without an end is not taken";
    assert_eq!(message(window().expires_at("expires_at", None)), absent);
    assert_eq!(message(at(Value::Null)), absent);
    assert_eq!(message(at(json!(""))), absent);
    assert_eq!(message(within(json!(" "))), absent.replace("_at", "_in"));
}

#[test]
fn r19_a_zero_end_is_an_error() {
    assert_eq!(message(at(json!(0))), "`expires_at` is zero");
    assert_eq!(message(at(json!("0"))), "`expires_at` is zero");
    assert_eq!(message(within(json!(0))), "`expires_in` is zero");
}

#[test]
fn r19_a_past_end_is_an_error_to_the_second() {
    assert_eq!(message(at(json!("2026-11-21T11:59:00Z"))), "`expires_at` is in the past, by 1m");
    assert_eq!(message(at(json!(NOW_S))), "`expires_at` is in the past, by 0s");
    assert!(at(json!(NOW_S + 1)).is_ok());
    assert!(matches!(at(json!(-5)), Err(LifeError::Past { .. })));
    assert_eq!(message(within(json!(-1))), "`expires_in` is in the past, by 3s");
    assert_eq!(message(within(json!(2))), "`expires_in` is in the past, by 0s");
    assert!(within(json!(3)).is_ok());
}

#[test]
fn r19_a_life_beyond_the_limit_is_an_error() {
    let edge = (HOUR_MS + SKEW_MS) / 1000;
    assert!(at(json!(NOW_S + edge)).is_ok(), "an issuer's clock may be ahead");
    assert_eq!(
        message(at(json!(NOW_S + edge + 1))),
        "`expires_at` gives a life of 1h 5m 1s, longer than `life.max` 1h"
    );
    assert!(matches!(at(json!("9999-12-01T00:00:00Z")), Err(LifeError::TooLong { .. })));
    assert!(matches!(at(json!(1e300)), Err(LifeError::TooLong { .. })));
    assert!(matches!(within(json!(u64::MAX)), Err(LifeError::TooLong { .. })));
}

#[test]
fn r19_milliseconds_in_place_of_seconds_are_recognized() {
    let error = message(at(json!(NOW.plus(1_800_000).0)));
    assert!(
        error.ends_with("longer than `life.max` 1h\nhint: it looks like milliseconds, seconds are needed"),
        "{error}"
    );
}

#[test]
fn r19_what_is_no_time_is_an_error() {
    for value in
        [json!("the day after tomorrow"), json!("2026-11-21"), json!(true), json!([1]), json!({}), json!("1e9")]
    {
        assert_eq!(message(at(value)), "`expires_at` is not RFC 3339 text or seconds since 1970");
    }
    for value in [json!("1h"), json!("2026-11-21T12:30:00Z"), json!(false)] {
        assert_eq!(message(within(value)), "`expires_in` is not a number of seconds");
    }
}

#[test]
fn r19_an_unusable_end_leaves_in_doubt_whether_something_was_minted() {
    let class = |error: LifeError| {
        let error = MintError::from(error);
        assert!(error.may_have_minted);
        error.class
    };
    assert_eq!(class(at(json!(0)).unwrap_err()), FaultClass::Transient);
    assert_eq!(class(at(json!(5)).unwrap_err()), FaultClass::Transient);
    assert_eq!(class(at(Value::Null).unwrap_err()), FaultClass::Transient);
    assert_eq!(class(at(json!("x")).unwrap_err()), FaultClass::Misconfigured);
    assert_eq!(class(within(json!(1_000_000)).unwrap_err()), FaultClass::Misconfigured);
}

#[test]
fn an_issue_time_from_the_future_counts_as_now() {
    assert_eq!(life::issued_at("issued_at", &json!(NOW_S + 100), NOW), Ok(NOW));
    assert_eq!(life::issued_at("issued_at", &json!(NOW_S - 100), NOW), Ok(NOW.minus(100_000)));
    assert!(life::issued_at("issued_at", &json!("soon"), NOW).is_err());
}
