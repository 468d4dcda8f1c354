//! Asks somebody else what time it is: the `Date` of any HTTP answer.
//!
//! What to do about a difference is decided in [`keyreeve_core::clock`]; who is asked, and how often, by the process.

use http::{HeaderMap, Method, header};
use keyreeve_core::clock::{Dated, Offset};
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Moment, Mono, Timestamp};

use crate::port::{Host, Http, HttpRequest};

/// Of the answer only the head is of use.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Asks `url` with `HEAD`, without credentials, and compares the answer's `Date` with the clock of `host`. Any status will do.
///
/// # Errors
/// A sentence that holds no part of the URL.
pub async fn measure(host: &dyn Host, http: &dyn Http, url: &str, deadline: Mono) -> Result<Offset, String> {
    let request = HttpRequest {
        method: Method::HEAD,
        url: url.to_owned(),
        via: None,
        // RFC 9111 5.2.1.4: no cache may answer by itself; its copy has the `Date` of back then.
        headers: vec![(header::CACHE_CONTROL, Secret::new("no-cache".to_owned()))],
        body: Secret::new(Vec::new()),
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let asked_at = host.now().mono;
    let answer = http.send(request, deadline).await.map_err(|error| error.to_string())?;
    offset(&answer.headers, asked_at, host.now()).ok_or_else(|| "the answer has no `Date` of its own".to_owned())
}

/// How wrong the clock is that read `now`, by an answer that has just come. `None` where the answer has no usable `Date`.
#[must_use]
pub fn offset(headers: &HeaderMap, asked_at: Mono, now: Moment) -> Option<Offset> {
    // RFC 9111 5.1: whoever was asked did not write this answer just now.
    if headers.get(header::AGE).is_some_and(|age| age.as_bytes() != b"0") {
        return None;
    }
    let date = date(headers)?;
    Some(Dated { date, took_ms: now.mono.since(asked_at), answered_at: now.raw }.offset())
}

/// When an answer was written, by the clock of who wrote it (RFC 9110 6.6.1).
#[must_use]
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(header::DATE)?.to_str().ok()?)
}

/// Reads an HTTP date in its one form that may still be written (RFC 9110 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn http_date(text: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(date.as_millisecond()).ok().map(Timestamp)
}

/// Scheme and host of a URL, which is all of it that may be shown.
#[must_use]
pub fn shown(url: &str) -> String {
    let uri: Option<http::Uri> = url.parse().ok();
    match uri.as_ref().map(|uri| (uri.scheme_str(), uri.authority())) {
        Some((Some(scheme), Some(authority))) => format!("{scheme}://{authority}"),
        _ => "(not a URL)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(all: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn an_offset_is_from_a_fresh_date_and_from_nothing_else() {
        const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const DATE_MS: u64 = 784_111_777_000;
        let now = Moment { wall: Timestamp(5), raw: Timestamp(DATE_MS + 600), mono: Mono(1200) };
        let fresh = Some(Offset { ms: 0, error_ms: 600 });
        assert_eq!(offset(&headers(&[(header::DATE, DATE)]), Mono(1000), now), fresh);
        assert_eq!(offset(&headers(&[(header::DATE, DATE), (header::AGE, "0")]), Mono(1000), now), fresh);
        assert_eq!(offset(&headers(&[(header::DATE, DATE), (header::AGE, "60")]), Mono(1000), now), None);
        assert_eq!(offset(&HeaderMap::new(), Mono(1000), now), None);
        for wrong in ["", "now", "784111777", "Mon, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1904 08:49:37 GMT"] {
            assert_eq!(http_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_more_of_a_url_is_shown_than_scheme_and_host() {
        assert_eq!(shown("https://api.github.com/zen?token=hunter2"), "https://api.github.com");
        assert_eq!(shown("http://[::1]:8080"), "http://[::1]:8080");
        assert_eq!(shown("hunter2"), "(not a URL)");
    }
}
