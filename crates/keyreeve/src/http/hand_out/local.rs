//! Whether a request was made on this machine, by a program that meant this service.
//!
//! A page in somebody's browser, or a service that fetches whatever URL it is given, can reach loopback too. The page's
//! requests name another host, or say where they come from; those of a proxy say for whom they were made.

use std::net::IpAddr;

use http::HeaderName;
use http::header::{FORWARDED, HOST, HeaderMap, ORIGIN};
use http::request::Parts as Head;

use crate::http::problem::{FORBIDDEN, Problem};

const MARKS: [HeaderName; 4] =
    [FORWARDED, ORIGIN, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-forwarded-host")];
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The name under which Google's clients know the address of the metadata server.
const GOOGLE: &str = "metadata.google.internal";

/// Refuses what was made elsewhere, or for somebody else. Where it stands in for Google's metadata server (`is_google`), it has
/// that name too; elsewhere a page under that name, which whoever runs the DNS can lead here, is a stranger's.
///
/// # Errors
/// 403 with the reason: whoever runs the client needs it, and nobody else learns anything by it.
pub(in crate::http) fn check(head: &Head, is_google: bool) -> Result<(), Problem> {
    made_elsewhere(head)?;
    let is_ours = |host: &str| is_local(host) || (is_google && host.eq_ignore_ascii_case(GOOGLE));
    let named = head.uri.host().into_iter().chain(hosts(&head.headers));
    match named.into_iter().find(|host| !is_ours(host)) {
        Some(_) => refuse("`Host` names another machine".to_owned()),
        None => Ok(()),
    }
}

fn refuse(why: String) -> Result<(), Problem> {
    let hint = "programs ask from this machine, at a loopback address, with nothing in between";
    Err(Problem::new(FORBIDDEN, format!("{why}\nhint: {hint}")))
}

/// Refuses what says itself that it was made by a page, or for somebody else.
///
/// # Errors
/// 403 with the reason.
pub(in crate::http) fn made_elsewhere(head: &Head) -> Result<(), Problem> {
    if let Some(mark) = MARKS.iter().find(|mark| head.headers.contains_key(*mark)) {
        return refuse(format!("a request with `{mark}` was made for somebody else"));
    }
    if head.headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "none") {
        return refuse("a request with `sec-fetch-site` was made by a page".to_owned());
    }
    Ok(())
}

/// What the lines of `Host` name; one that cannot be read names nothing, which is not local.
fn hosts(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(HOST).iter().map(|line| {
        let text = line.to_str().unwrap_or_default();
        match text.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => text,
        }
    })
}

/// Whether `host` is an address of this machine only: loopback, link-local, or the names of these.
pub(in crate::http) fn is_local(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(crate::config::is_local_address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Request;

    use super::*;

    fn judged(lines: &[(&str, &str)]) -> bool {
        judged_as(lines, false)
    }

    fn judged_as(lines: &[(&str, &str)], is_google: bool) -> bool {
        let mut request = Request::get("/latest/api/token");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, is_google).is_ok()
    }

    #[test]
    fn a_request_names_this_machine_or_is_refused() {
        for host in [
            "127.0.0.1:7070",
            "127.8.9.1",
            "[::1]:7070",
            "[::1]",
            "localhost",
            "LocalHost:80",
            "169.254.169.254",
            "169.254.170.2",
            "[fd00:ec2::254]",
        ] {
            assert!(judged(&[("host", host)]), "{host}");
        }
        assert!(judged_as(&[("host", "metadata.google.internal")], true));
        for host in [
            "metadata.google.internal",
            "rebound.example",
            "localhost.example:7070",
            "127.0.0.1.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "",
            ":80",
            "localhost:80:80",
            "127.0.0.1@evil.example",
            "evil.example#localhost",
        ] {
            assert!(!judged(&[("host", host)]), "{host}");
        }
        assert!(judged(&[]), "HTTP/1.0 names none, and no browser speaks it");
        assert!(!judged(&[("host", "localhost"), ("host", "rebound.example")]));
    }

    #[test]
    fn what_was_made_for_somebody_else_is_refused() {
        for line in ["x-forwarded-for", "X-Forwarded-Host", "forwarded", "origin"] {
            assert!(!judged(&[("host", "localhost"), (line, "")]), "{line}");
        }
        assert!(!judged(&[("host", "localhost"), ("sec-fetch-site", "cross-site")]));
        assert!(judged(&[("host", "localhost"), ("sec-fetch-site", "none")]));
    }
}
