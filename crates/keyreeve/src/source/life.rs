//! No credential without an end: every answer's expiry is read here, and what is not one is an error that names the
//! field.
//!
//! Peers have taken a missing or zero life for "for ever" or "never"; both hurt somebody.

use keyreeve_core::record::FaultClass;
use keyreeve_core::time::{Span, Timestamp};
use serde_json::Value;

use super::MintError;

/// How far an issuer's clock may be ahead of ours, in milliseconds, before its expiry is taken for too long a life.
pub const SKEW_MS: u64 = 5 * 60_000;

/// Why an answer has no usable end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LifeError {
    /// There is no such field.
    #[error("`{0}` is missing: a credential without an end is not taken")]
    Absent(String),
    /// The field is zero.
    #[error("`{0}` is zero")]
    Zero(String),
    /// The end is over already.
    #[error("`{field}` is in the past, by {}", Span(*.by_ms))]
    Past {
        /// The field.
        field: String,
        /// How long ago, in milliseconds.
        by_ms: u64,
    },
    /// The end is further away than `life.max` allows.
    #[error("`{field}` gives a life of {}, longer than `life.max` {}{}", Span(*.found_ms), Span(*.limit_ms), if *.is_in_ms { "\nhint: it looks like milliseconds, seconds are needed" } else { "" })]
    TooLong {
        /// The field.
        field: String,
        /// What was given, in milliseconds.
        found_ms: u64,
        /// The limit, in milliseconds.
        limit_ms: u64,
        /// Read as milliseconds it would have been fine.
        is_in_ms: bool,
    },
    /// The field is something else.
    #[error("`{field}` is not {expected}")]
    NotATime {
        /// The field.
        field: String,
        /// What would have been.
        expected: &'static str,
    },
}

impl From<LifeError> for MintError {
    /// The issuer answered, so there may be a credential out there that nobody can use.
    fn from(error: LifeError) -> Self {
        match error {
            LifeError::Past { .. } => Self::spent(FaultClass::Transient, error.to_string()),
            LifeError::Absent(_) | LifeError::Zero(_) => Self::in_doubt(FaultClass::Transient, error.to_string()),
            LifeError::TooLong { .. } | LifeError::NotATime { .. } => {
                Self::in_doubt(FaultClass::Misconfigured, error.to_string())
            }
        }
    }
}

/// What an expiry is measured against.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Before the issuer was asked. Relative lives count from here, so they never come out too long.
    pub asked_at: Timestamp,
    /// After it answered.
    pub now: Timestamp,
    /// The longest life to take, in milliseconds.
    pub life_ms_max: u64,
}

impl Window {
    /// Reads an absolute end: RFC 3339 text, or seconds since 1970 as a number or as digits.
    ///
    /// # Errors
    /// [`LifeError`] names `field`.
    pub fn expires_at(&self, field: &str, value: Option<&Value>) -> Result<Timestamp, LifeError> {
        let value = present(field, value)?;
        let expires_ms = moment_ms(field, value)?;
        if expires_ms == 0 {
            return Err(LifeError::Zero(field.into()));
        }
        self.checked(field, expires_ms)
    }

    /// Reads a relative end: seconds as a number or as digits.
    ///
    /// # Errors
    /// [`LifeError`] names `field`.
    pub fn expires_in(&self, field: &str, value: Option<&Value>) -> Result<Timestamp, LifeError> {
        let value = present(field, value)?;
        let life_ms = seconds(value)
            .ok_or_else(|| LifeError::NotATime { field: field.into(), expected: "a number of seconds" })
            .map(to_ms)?;
        if life_ms == 0 {
            return Err(LifeError::Zero(field.into()));
        }
        self.checked(field, life_ms.saturating_add(to_i128(self.asked_at)))
    }

    fn checked(&self, field: &str, expires_ms: i128) -> Result<Timestamp, LifeError> {
        let now_ms = to_i128(self.now);
        if expires_ms <= now_ms {
            return Err(LifeError::Past { field: field.into(), by_ms: clamp(now_ms.saturating_sub(expires_ms)) });
        }
        let found_ms = clamp(expires_ms.saturating_sub(now_ms));
        let limit_ms = self.life_ms_max;
        if found_ms > limit_ms.saturating_add(SKEW_MS) {
            let in_ms = expires_ms / 1000;
            let is_in_ms = in_ms > now_ms && in_ms.saturating_sub(now_ms) <= i128::from(limit_ms);
            return Err(LifeError::TooLong { field: field.into(), found_ms, limit_ms, is_in_ms });
        }
        Ok(Timestamp(clamp(expires_ms)))
    }
}

/// Reads an issue time in the forms of [`Window::expires_at`]; one in the future counts as now.
///
/// # Errors
/// [`LifeError::NotATime`].
pub fn issued_at(field: &str, value: &Value, now: Timestamp) -> Result<Timestamp, LifeError> {
    Ok(Timestamp(clamp(moment_ms(field, value)?)).min(now))
}

fn present<'a>(field: &str, value: Option<&'a Value>) -> Result<&'a Value, LifeError> {
    match value {
        None | Some(Value::Null) => Err(LifeError::Absent(field.into())),
        Some(Value::String(text)) if text.trim().is_empty() => Err(LifeError::Absent(field.into())),
        Some(value) => Ok(value),
    }
}

fn moment_ms(field: &str, value: &Value) -> Result<i128, LifeError> {
    if let Some(seconds) = seconds(value) {
        return Ok(to_ms(seconds));
    }
    value
        .as_str()
        .and_then(|text| text.trim().parse::<jiff::Timestamp>().ok())
        .map(|moment| i128::from(moment.as_millisecond()))
        .ok_or_else(|| LifeError::NotATime { field: field.into(), expected: "RFC 3339 text or seconds since 1970" })
}

/// Seconds, as a number or as digits (Azure writes them as text); a fraction is dropped.
fn seconds(value: &Value) -> Option<f64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let text = text.trim();
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || digits.len() > 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            text.parse().ok()?
        }
        _ => return None,
    };
    seconds.is_finite().then_some(seconds)
}

fn to_ms(seconds: f64) -> i128 {
    // Exact: whole seconds up to 2^53 have no rounding, and the cast saturates.
    (seconds.trunc() as i128).saturating_mul(1000)
}

fn to_i128(at: Timestamp) -> i128 {
    i128::from(at.0)
}

fn clamp(ms: i128) -> u64 {
    u64::try_from(ms.max(0)).unwrap_or(u64::MAX)
}
