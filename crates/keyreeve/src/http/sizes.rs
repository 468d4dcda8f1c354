//! How large the head of a request may be.

use http::request::Parts as Head;
use keyreeve_core::policy::PATH_BYTES_MAX;

use super::problem::{HEADERS, Problem, URI_TOO_LONG};

/// The longest path with its query, in bytes.
const URI_BYTES_MAX: usize = 2048;
/// The most header lines of a request.
const HEADERS_MAX: usize = 64;
/// The most bytes of all header names and values of a request.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// The same for what a proxy asks about, which brings all that its client sent: no more than a connection takes.
const GATE_URI_BYTES_MAX: usize = PATH_BYTES_MAX + 256;
const GATE_HEADERS_MAX: usize = 100;
const GATE_HEADER_BYTES_MAX: usize = 32 * 1024;

/// Refuses a head that is too large; `is_gate` is for what a proxy asks about.
///
/// # Errors
/// The refusal.
pub(super) fn check_sizes(head: &Head, is_gate: bool) -> Result<(), Problem> {
    let (uri_max, headers_max, header_bytes_max) = match is_gate {
        true => (GATE_URI_BYTES_MAX, GATE_HEADERS_MAX, GATE_HEADER_BYTES_MAX),
        false => (URI_BYTES_MAX, HEADERS_MAX, HEADER_BYTES_MAX),
    };
    let uri_bytes = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if uri_bytes > uri_max {
        let text = format!("path and query have {uri_bytes} bytes, the limit is {uri_max}");
        return Err(Problem::new(URI_TOO_LONG, text));
    }
    let headers = &head.headers;
    let header_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > headers_max || header_bytes > header_bytes_max {
        let text = format!(
            "{} headers with {header_bytes} bytes are more than {headers_max} or than {header_bytes_max} bytes",
            headers.len()
        );
        return Err(Problem::new(HEADERS, text));
    }
    Ok(())
}
