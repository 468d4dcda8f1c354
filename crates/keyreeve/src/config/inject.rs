//! Gates that add a credential to requests.

use std::collections::BTreeMap;

use http::Uri;
use keyreeve_core::id::CredentialName;

use super::hand_out::{credential, local_bind};
use super::parse;
use super::problem::{Fault, shown};
use super::scope::Scope;
use super::types::{Bind, CredentialConfig};
use super::via;
use crate::port::Via;

/// A gate that adds a credential to requests on their way to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectConfig {
    /// Where it listens: an address that only this machine can reach, or a Unix socket.
    pub bind: Bind,
    /// What is added.
    pub credential: CredentialName,
    /// Where requests may go: scheme and authority. The first is meant by whoever names none.
    pub upstreams: Vec<Uri>,
    /// The header that is set, in lower case.
    pub header: String,
    /// Its value, with `{token}` for the token.
    pub value: String,
    /// How requests leave, where that is not the usual way: a client certificate, authorities of one's own.
    pub via: Option<Via>,
    /// How long the upstream may take to begin its answer, in milliseconds.
    pub timeout_ms: u64,
    /// The largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// The most requests at once.
    pub requests_max: usize,
}

/// Headers that say how a message is sent, and cannot carry a credential.
const TAKEN: [&str; 8] =
    ["connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];

/// Reads one gate whose `kind` is `inject`.
pub(super) fn one(
    scope: &mut Scope<'_>,
    taken: &[Bind],
    credentials: &BTreeMap<CredentialName, CredentialConfig>,
) -> Option<InjectConfig> {
    for name in ["bind", "credential", "upstreams"] {
        if !scope.is_written(name) {
            scope.missing(name);
        }
    }
    let bind = local_bind(scope, taken);
    let credential = credential(scope, "credential", credentials);
    let upstreams = upstreams(scope);
    let header = scope.parsed("header", header, Clone::clone);
    let value = scope.parsed("value", value, Clone::clone);
    let via = via::read(scope);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let timeout_ms = scope.number("timeout");
    let body_bytes_max = size(scope.number("body"));
    let requests_max = size(scope.number_or("requests", 256));
    Some(InjectConfig {
        bind: bind?,
        credential: credential?,
        upstreams: upstreams?,
        header: header?,
        value: value?,
        via,
        timeout_ms,
        body_bytes_max,
        requests_max,
    })
}

fn upstreams(scope: &mut Scope<'_>) -> Option<Vec<Uri>> {
    let texts = scope.texts("upstreams")?;
    let (count, mut all) = (texts.len(), Vec::with_capacity(texts.len()));
    for (text, _) in texts {
        match upstream(&text) {
            Ok(uri) if !all.contains(&uri) => all.push(uri),
            Ok(_) => scope.fault("upstreams", &Fault::new(format!("has {} twice", shown(&text)), "remove one")),
            Err(fault) => scope.fault("upstreams", &fault),
        }
    }
    (all.len() == count).then_some(all)
}

/// Scheme and host, nothing else: which paths are asked for is up to whoever asks.
fn upstream(text: &str) -> Result<Uri, Fault> {
    const EXAMPLE: &str = "for example `upstreams = [\"https://api.github.com\"]`";
    const SECRET: &str = "the credential is added by this gate";
    let url = parse::absolute(text, text, "would send the credential in clear to", EXAMPLE, SECRET)?;
    let bare = url.strip_suffix('/').unwrap_or(&url);
    let is_bare = bare.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains(['/', '?', '*']));
    match bare.parse() {
        Ok(uri) if is_bare => Ok(uri),
        _ => Err(Fault::new(format!("must be just scheme and host, not {}", shown(text)), EXAMPLE)),
    }
}

fn header(text: &str) -> Result<String, Fault> {
    let Ok(name) = http::HeaderName::from_bytes(text.as_bytes()) else {
        return Err(Fault::plain(format!("must be the name of a header, not {}", shown(text))));
    };
    if TAKEN.contains(&name.as_str()) {
        let hint = "`authorization` is the usual one; some upstreams have one of their own, such as `x-api-key`";
        return Err(Fault::new(format!("cannot be {}: it says how a message is sent", shown(text)), hint));
    }
    Ok(name.as_str().to_owned())
}

fn value(text: &str) -> Result<String, Fault> {
    if text.matches("{token}").count() == 1 && text.replace("{token}", "").find(['{', '}']).is_none() {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        "must have `{token}` in it, once (the value is not shown)",
        "for example `value = \"Bearer {token}\"`",
    ))
}
