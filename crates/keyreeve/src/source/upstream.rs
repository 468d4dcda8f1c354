//! One call to somebody else: sent in time, cut off in time, and what its failure means.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use keyreeve_core::id::CredentialName;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Moment, Mono, Span, Timestamp};
use zeroize::Zeroize as _;

use super::build::{check_send_by, cut_off};
use super::http::retry_after_ms;
use super::life::Window;
use super::redact::Redactor;
use super::{MintError, answer};
use crate::clock;
use crate::port::{Host, Http, HttpAnswer, HttpError, HttpRequest, Via};

/// How much of an error answer goes into a message, in bytes.
pub(super) const COMPLAINT_BYTES_MAX: usize = 240;
/// The largest answer that a source reads which knows its upstream, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A clock that is less than this off, in milliseconds, is not worth correcting: the `Date` of an answer has seconds.
const OFFSET_MS_MIN: u64 = 30_000;

/// Who is asked.
pub(super) struct Upstream {
    pub(super) name: CredentialName,
    /// For messages: `the service`.
    pub(super) who: &'static str,
    /// How far its clock may be from this one, in milliseconds, before it is worth a warning.
    pub(super) skew_ms: u64,
    /// How requests leave, where that is not the usual way.
    pub(super) via: Option<Via>,
    pub(super) host: Arc<dyn Host>,
    pub(super) http: Arc<dyn Http>,
    /// How far ahead its clock was when it last answered, in milliseconds.
    pub(super) offset_ms: AtomicI64,
}

/// An answer, whatever it says.
pub(super) struct Heard {
    pub(super) answer: HttpAnswer,
    pub(super) window: Window,
}

impl Upstream {
    /// Sends a request under an order and reads the answer.
    pub(super) async fn ask(
        &self,
        order: &Order,
        request: HttpRequest,
        redactor: &Redactor,
    ) -> Result<Heard, MintError> {
        check_send_by(self.host.as_ref(), order)?;
        let asked_at = self.host.now();
        let deadline = cut_off(self.host.as_ref(), order);
        let request = HttpRequest { via: self.via.clone(), ..request };
        let answer = self.http.send(request, deadline).await.map_err(|error| self.failed(&error, redactor))?;
        let answered_at = self.host.now();
        self.compare_clocks(&answer, asked_at.mono, answered_at);
        let life_ms_max = order.expires_at.since(order.issued_at);
        Ok(Heard { answer, window: Window { asked_at: asked_at.wall, now: answered_at.wall, life_ms_max } })
    }

    /// Exports how far the upstream's clock is from this node's, and says where that is more than was vouched for.
    fn compare_clocks(&self, answer: &HttpAnswer, asked_at: Mono, now: Moment) {
        let Some(offset) = clock::offset(&answer.headers, asked_at, now) else { return };
        self.offset_ms.store(offset.ms, Ordering::Relaxed);
        let name = self.name.as_str();
        metrics::gauge!("keyreeve_clock_offset_ms", "credential" => name.to_owned()).set(offset.ms as f64);
        if offset.is_beyond(self.skew_ms) {
            let (by, skew) = (Span(offset.ms.unsigned_abs()), Span(self.skew_ms));
            let direction = if offset.ms > 0 { "ahead of" } else { "behind" };
            let who = self.who;
            tracing::warn!(credential = name, "the clock of {who} is {by} {direction} this one, skew is {skew}");
        }
    }

    /// The time to sign with: this node's, corrected where the upstream's last answer showed another one.
    pub(super) fn signing_time(&self) -> Timestamp {
        let (now, offset_ms) = (self.host.now().wall, self.offset_ms.load(Ordering::Relaxed));
        match offset_ms {
            _ if offset_ms.unsigned_abs() < OFFSET_MS_MIN => now,
            ahead if ahead > 0 => now.plus(ahead.unsigned_abs()),
            behind => now.minus(behind.unsigned_abs()),
        }
    }

    /// Whether something signed at `signed_at` would be signed at quite another time now, by what has been learnt since.
    pub(super) fn would_sign_otherwise(&self, signed_at: Timestamp) -> bool {
        let now = self.signing_time();
        now.since(signed_at).max(signed_at.since(now)) >= OFFSET_MS_MIN
    }

    fn failed(&self, error: &HttpError, redactor: &Redactor) -> MintError {
        let who = self.who;
        let clean = |cause: &str| redactor.start(cause, COMPLAINT_BYTES_MAX);
        match error {
            HttpError::NotSent(cause) => {
                MintError::nothing_minted(FaultClass::Transient, format!("{who} was not reached: {}", clean(cause)))
            }
            HttpError::NoAnswer(cause) => answer::unusable(format!("{who} did not answer: {}", clean(cause))),
            HttpError::TooLarge(limit) => answer::wrong(format!("{who} answered with more than {limit} bytes")),
        }
    }

    /// The error of an answer that is no success: by its status, unless `class` knows better.
    pub(super) fn refused(&self, heard: &Heard, class: Option<FaultClass>, complaint: &str) -> MintError {
        let status = heard.answer.status;
        let (by_status, may_have_minted) = by_status(status);
        let mut message = format!("{} answered {status}", self.who);
        if (300..=399).contains(&status) {
            message.push_str(", and redirects are not followed");
        }
        if !complaint.is_empty() {
            message.push_str(": ");
            message.push_str(complaint);
        }
        // AWS throttles with 400, and so may OAuth's `slow_down` and `temporarily_unavailable` be.
        let is_passing = matches!(class, Some(FaultClass::Throttled | FaultClass::Transient));
        let retry_after_ms = (is_passing || matches!(status, 408 | 425 | 429 | 500..=599))
            .then(|| retry_after_ms(&heard.answer.headers, heard.window.now))
            .flatten();
        MintError {
            class: class.unwrap_or(by_status),
            may_have_minted: may_have_minted && class.is_none(),
            is_spent: false,
            retry_after_ms,
            message,
            left: None,
        }
    }

    /// Says of an unusable answer whose it was.
    pub(super) fn blame(&self, status: u16, error: MintError) -> MintError {
        let message = format!("{} answered {status} with {}", self.who, error.message);
        MintError { message, ..error }
    }
}

/// What a status says that is no success: its class, and whether something may have been minted.
fn by_status(status: u16) -> (FaultClass, bool) {
    match status {
        // RFC 9110 15.4.4: the action was carried out, its result is elsewhere.
        303 => (FaultClass::Misconfigured, true),
        300..=399 => (FaultClass::Misconfigured, false),
        408 | 425 | 503 => (FaultClass::Transient, false),
        429 => (FaultClass::Throttled, false),
        400..=499 => (FaultClass::Terminal, false),
        _ => (FaultClass::Transient, true),
    }
}

/// A form (`application/x-www-form-urlencoded`).
pub(super) fn form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Secret<Vec<u8>> {
    let mut body = String::new();
    for (name, value) in fields {
        if !body.is_empty() {
            body.push('&');
        }
        percent(&mut body, name);
        body.push('=');
        percent(&mut body, value);
    }
    let bytes = Secret::new(body.as_bytes().to_vec());
    body.zeroize();
    bytes
}

/// Percent-encodes (RFC 3986 2.1) all but unreserved characters, which is right in a form as well.
pub(super) fn percent(text: &mut String, value: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_escapes_what_would_end_a_field() {
        let body = form([("a b", "x&y=z"), ("scope", "read write"), ("e", "\u{e4}~")]);
        assert_eq!(body.expose(), b"a%20b=x%26y%3Dz&scope=read%20write&e=%C3%A4~");
    }
}
