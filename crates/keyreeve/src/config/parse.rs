//! Texts that stand for something: addresses, stores, URLs, hashes, pointers.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::postgres::PostgresUrl;
use super::problem::{Fault, shown};
use super::types::{Bind, CacheTier, Home, StoreUrl};
use super::value::is_variable;

/// Stores that the design names and this version does not have.
const STORES_LATER: [&str; 3] = ["etcd", "redis", "s3"];
/// How a Worker of another team's making is called.
const SERVICE: &str = "for example `url = \"service:RENEWAL/renew\"`";
/// The longest path of a Unix socket: `sun_path` holds 108 bytes, the last of them NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What there is: the forms, and a sentence about them.
const fn stores(home: Home) -> (&'static str, &'static str) {
    match home {
        Home::Native => (
            "`sqlite:PATH`, `postgres://USER@HOST/DATABASE`, `https://HOST` or `memory:`",
            "this version has `sqlite:PATH`, a file that all processes of one machine share, `postgres://USER@HOST/DATABASE`, `https://HOST`, a keyreeve Worker, and `memory:`",
        ),
        Home::Worker => {
            ("`do:BINDING` or `r2:BINDING`", "a Worker has `do:BINDING`, Durable Objects, and `r2:BINDING`, a bucket")
        }
    }
}

/// Reads a store. Its URL may hold a password, so no more than its scheme is repeated.
pub(super) fn store_url(text: &str, home: Home) -> Result<StoreUrl, Fault> {
    let (forms, there_is) = stores(home);
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(Fault::new(format!("must be {forms}"), there_is));
    };
    let not_here = |why: &str| Err(Fault::new(format!("cannot be `{scheme}:` {why}"), there_is));
    let later = |name: &&str| scheme == *name || (*name == "redis" && scheme == "rediss");
    match (scheme, home) {
        ("kv", Home::Native) => Err(Fault::new(NO_SWAP, there_is)),
        ("kv", Home::Worker) => Err(Fault::new(
            NO_SWAP,
            "use `do:BINDING`; a KV namespace can be a cache: `caches = [\"cache\", \"kv:BINDING\"]`",
        )),
        ("memory", Home::Native) if rest.is_empty() || rest == "//" => Ok(StoreUrl::Memory),
        ("memory", Home::Native) => Err(Fault::new("must be just `memory:`", there_is)),
        ("memory", Home::Worker) => {
            not_here("on a Worker: each isolate has a memory of its own, and would mint for itself")
        }
        ("sqlite", Home::Native) => sqlite_path(rest).map(|path| StoreUrl::Sqlite(PathBuf::from(path))),
        ("sqlite", Home::Worker) => not_here("on a Worker: it has no files"),
        // Whoever builds a Worker has checked its configuration natively: its wasm need not know what it cannot have.
        ("postgres" | "postgresql", Home::Native) if cfg!(not(target_arch = "wasm32")) => {
            PostgresUrl::parse(text).map(StoreUrl::Postgres)
        }
        ("postgres" | "postgresql", _) => not_here("on a Worker: it speaks HTTP only"),
        ("https" | "http", Home::Native) => worker_origin(text).map(StoreUrl::Remote),
        ("https" | "http", Home::Worker) => not_here("on a Worker: that is for native nodes, which ask a Worker"),
        ("do", Home::Worker) => binding(rest).map(StoreUrl::DurableObject),
        ("r2", Home::Worker) => binding(rest).map(StoreUrl::Bucket),
        ("do" | "r2", Home::Native) => Err(Fault::new(
            format!("cannot be `{scheme}:` outside a Worker: it is a binding of one"),
            "a native node asks the Worker: `url = \"https://HOST\"`, with the same `key` on both sides",
        )),
        _ if STORES_LATER.iter().any(later) => {
            Err(Fault::new(format!("uses `{scheme}:`, which is not in this version"), there_is))
        }
        _ if scheme.len() <= 16 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            Err(Fault::new(format!("must be {forms}, not a `{scheme}:` URL"), there_is))
        }
        _ => Err(Fault::new(format!("must be {forms}"), there_is)),
    }
}

/// Why a KV namespace is no register.
const NO_SWAP: &str = "cannot be `kv:`: a KV namespace has no compare-and-swap, so two nodes would both win";

fn binding(name: &str) -> Result<String, Fault> {
    if is_variable(name) {
        return Ok(name.to_owned());
    }
    Err(Fault::new(
        format!("does not name a binding: A-Z, a-z, 0-9 and `_`, not {}", shown(name)),
        "for example `do:KEYREEVE`, `r2:RECORDS`, `kv:CREDENTIALS`: the name is yours to choose",
    ))
}

/// Reads the address of a Worker: no path, because its routes are where they are.
fn worker_origin(text: &str) -> Result<String, Fault> {
    const EXAMPLE: &str = "for example `url = \"https://keyreeve.example.org\"`";
    const KEY: &str = "the secret is `store.key`";
    let url = absolute(text, text, "would send what the fleet shares in clear to", EXAMPLE, KEY)?;
    let origin = url.strip_suffix('/').unwrap_or(&url);
    let is_bare = origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains(['/', '?']));
    if is_bare {
        return Ok(origin.to_owned());
    }
    Err(Fault::new("must be just scheme and host (the value is not shown)", EXAMPLE))
}

/// Reads a cache of a Worker.
pub(super) fn cache(text: &str) -> Result<CacheTier, Fault> {
    match text.split_once(':') {
        None if text == "cache" => Ok(CacheTier::Cache),
        Some(("kv", name)) => binding(name).map(CacheTier::Kv),
        _ => Err(Fault::new(
            format!("must be `cache` or `kv:BINDING`, not {}", shown(text)),
            "for example `caches = [\"cache\", \"kv:CREDENTIALS\"]`",
        )),
    }
}

/// Reads the name of a certificate binding.
pub(super) fn certificate(text: &str) -> Result<String, Fault> {
    match text.strip_prefix("binding:") {
        Some(name) => binding(name),
        None => Err(Fault::new(
            format!("must be `binding:NAME`, not {}", shown(text)),
            "for example `via = \"binding:VENDOR_CERTIFICATE\"`",
        )),
    }
}

fn sqlite_path(rest: &str) -> Result<&str, Fault> {
    let path = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => {
            return Err(Fault::new(
                "names a host, and a file has none",
                "write `sqlite:/absolute/path`, or `sqlite:relative/path`",
            ));
        }
        None => rest,
    };
    if path == ":memory:" {
        return Err(Fault::new(
            "must be a file that all processes share, not `:memory:`",
            "write `memory:` for the memory of one process",
        ));
    }
    if path.is_empty() || path.ends_with('/') || path.contains(['\0', '?']) {
        return Err(Fault::new("does not name a file", "for example `url = \"sqlite:/var/lib/keyreeve/state.db\"`"));
    }
    Ok(path)
}

/// Reads `ADDRESS:PORT` or `unix:PATH`.
pub(super) fn bind(text: &str) -> Result<Bind, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') || path.len() > SOCKET_PATH_BYTES_MAX || path.contains('\0') {
            return Err(Fault::new(
                format!(
                    "must be an absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes after `unix:`, not {}",
                    shown(path)
                ),
                "for example `bind = \"unix:/run/keyreeve.sock\"`",
            ));
        }
        return Ok(Bind::Unix(PathBuf::from(path)));
    }
    text.parse::<SocketAddr>().map(Bind::Tcp).map_err(|_| {
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let hint = match port {
            Some(port) => format!("names are not looked up: write `127.0.0.1:{port}` or `[::1]:{port}`"),
            None => String::from("for example `bind = \"127.0.0.1:7070\"`, or `bind = \"unix:/run/keyreeve.sock\"`"),
        };
        Fault::new(format!("must be an IP address with a port, or `unix:PATH`, not {}", shown(text)), hint)
    })
}

/// Reads 64 hexadecimal digits. What stands there instead may be the key itself, so it is not repeated.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], Fault> {
    let fault = || {
        Fault::new(
            "must be the SHA-256 of the key in 64 hexadecimal digits, not the key itself (the value is not shown)",
            super::sheet::NEW_KEY,
        )
    };
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()
        .ok_or_else(fault)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() != 64 {
        return Err(fault());
    }
    bytes.try_into().map_err(|_| fault())
}

/// Reads an id of Apple's: 10 characters.
pub(super) fn apple_id(text: &str) -> Result<String, Fault> {
    if text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(Fault::plain(format!(
        "must be exactly 10 characters of A-Z and 0-9, not {} ({} characters)",
        shown(text),
        text.chars().count()
    )))
}

/// Reads the URL of an `http` source. It may hold a secret, so no more than its scheme and host is repeated.
pub(super) fn url(text: &str, home: Home) -> Result<String, Fault> {
    const EXAMPLE: &str = "for example `url = \"https://tokens.example.org/renew\"`";
    // `{generation}` and the like stand for something that a URL may hold.
    let plain = text.replace(['{', '}'], "");
    match (text.strip_prefix("service:"), home) {
        (Some(_), Home::Native) => Err(Fault::new(
            "names another Worker by its binding, and only a Worker has those (the value is not shown)",
            EXAMPLE,
        )),
        (Some(rest), Home::Worker) => service(rest).map(|()| text.to_owned()),
        (None, _) => absolute(text, &plain, "would send secrets in clear to", EXAMPLE, SECRET_HEADER),
    }
}

/// Checks what follows `service:`.
fn service(rest: &str) -> Result<(), Fault> {
    let Some((name, path)) = rest.split_once('/') else {
        return Err(Fault::new("must be `service:NAME/path` (the value is not shown)", SERVICE));
    };
    if !is_variable(name) {
        return Err(Fault::new(
            "does not name a service binding: A-Z, a-z, 0-9 and `_` (the value is not shown)",
            SERVICE,
        ));
    }
    let is_path = format!("https://service/{}", path.replace(['{', '}'], "")).parse::<http::Uri>().is_ok();
    if !is_path || path.contains('#') {
        return Err(Fault::new("holds no path after the name of the binding (the value is not shown)", SERVICE));
    }
    Ok(())
}

/// Where a password in a URL belongs.
const SECRET_HEADER: &str =
    "move it: `secret_headers = { authorization = \"env:NAME\" }`, with `Basic ..` in the variable";

/// Reads the URL that the clock is measured by.
pub(super) fn clock_url(text: &str) -> Result<String, Fault> {
    const EXAMPLE: &str = "for example `url = \"https://api.github.com/\"`";
    absolute(text, text, "would let anybody on the way there set this clock:", EXAMPLE, SECRET_HEADER)
}

/// Reads the URL of an issuer (RFC 8414 2): no query, no fragment, and here no slash at its end.
pub(super) fn issuer_url(text: &str) -> Result<String, Fault> {
    const EXAMPLE: &str = "for example `url = \"https://gateway.example.org\"`";
    let url = absolute(text, text, "would let anybody on the way there hand out other keys:", EXAMPLE, EXAMPLE)?;
    if url.contains('?') {
        return Err(Fault::new("must not hold a query", EXAMPLE));
    }
    if url.ends_with('/') {
        let hint = "remove the `/` at its end: verifiers compare it byte by byte, and documents are under it";
        return Err(Fault::new(format!("must not end with a slash: {}", shown(text)), hint));
    }
    Ok(url)
}

/// Takes `text` if `plain`, which is the same without placeholders, is a URL that may be called.
pub(super) fn absolute(
    text: &str,
    plain: &str,
    in_clear: &str,
    example: &str,
    for_secrets: &str,
) -> Result<String, Fault> {
    let Ok(uri) = plain.parse::<http::Uri>() else {
        return Err(Fault::new("is not a URL (the value is not shown)", example));
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Fault::new("must start with `https://`", example));
    };
    if authority.as_str().contains('@') {
        return Err(Fault::new("must not hold a user name or password (the value is not shown)", for_secrets));
    }
    if text.contains('#') {
        return Err(Fault::new("must not hold a fragment", "remove `#` and what follows it"));
    }
    match scheme {
        "https" => Ok(text.to_owned()),
        "http" if is_loopback(authority.host()) => Ok(text.to_owned()),
        "http" => Err(Fault::new(
            format!("{in_clear} {}", shown(authority.host())),
            "use `https`; `http` is for `localhost`, `127.0.0.1` and `[::1]`",
        )),
        other => Err(Fault::new(format!("must be `https`, or `http` on loopback, not {}", shown(other)), example)),
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Scheme and host of a URL.
pub(super) fn origin_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.replace(['{', '}'], "").parse().ok()?;
    Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
}

/// Reads a JSON pointer (RFC 6901).
pub(super) fn pointer(text: &str) -> Result<String, Fault> {
    let is_escaped = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if text.starts_with('/') && is_escaped {
        return Ok(text.to_owned());
    }
    let hint = if text.starts_with('$') || text.contains('.') {
        "JSON pointers use `/`: `$.data.token` is `/data/token`"
    } else {
        "it starts with `/`, and `~` is written `~0` (RFC 6901): `/access_token`"
    };
    Err(Fault::new(format!("must be a JSON pointer, not {}", shown(text)), hint))
}

/// Whether other machines cannot have it, nor reach it through a router: loopback, link-local, and the addresses at which AWS
/// has its metadata in IPv6.
pub(crate) fn is_local_address(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        std::net::IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unicast_link_local() || matches!(ip.segments(), [0xfd00, 0x0ec2, ..])
        }
    }
}
