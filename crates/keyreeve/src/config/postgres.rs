//! `postgres://USER@HOST[:PORT][,HOST[:PORT]..]/DATABASE`: where a PostgreSQL register is.
//!
//! Less than libpq takes: no password, because a URL is shown, and no `sslmode`, because there is one way that is right.

use std::fmt;
use std::path::PathBuf;

use super::parse::is_loopback;
use super::problem::{Fault, shown};

/// The port of PostgreSQL.
const PORT: u16 = 5432;
/// Most servers in one URL: a primary and those that may take its place.
const HOSTS_MAX: usize = 5;
/// The longest name of a role or a database.
const NAME_BYTES_MAX: usize = 63;
const EXAMPLE: &str = "for example `postgres://keyreeve@db.example.org/keyreeve`, or `postgres://keyreeve@/keyreeve?host=/run/postgresql`";

/// A PostgreSQL database and the role that keyreeve has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl {
    /// The role.
    pub user: String,
    /// How it is reached.
    pub reach: Reach,
    /// The database.
    pub database: String,
}

/// How a PostgreSQL server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Names or addresses with ports; of several, the first that may be written to. One at least.
    Hosts(Vec<(String, u16)>),
    /// The folder of a Unix socket, and the port that its name ends with.
    Socket(PathBuf, u16),
}

impl PostgresUrl {
    /// Reads a URL. What stands there may hold a password, so none of it is repeated.
    ///
    /// # Errors
    /// What is wrong, and what helps.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |what: &str| Fault::new(format!("{what} (the value is not shown)"), EXAMPLE);
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| wrong("must begin with `postgres://`"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').ok_or_else(|| wrong("names no database"))?;
        let (user, hosts) = authority.rsplit_once('@').ok_or_else(|| wrong("names no role before `@`"))?;
        if user.contains(':') {
            let hint = "move it: `password = \"env:NAME\"` or `\"file:PATH\"`, and `postgres://USER@HOST/DATABASE`";
            return Err(Fault::new("must not hold a password (the value is not shown)", hint));
        }
        if !is_name(user) || !is_name(database) {
            let names = "names of role and database are 1 to 63 of A-Z, a-z, 0-9, `_`, `-` and `.`";
            return Err(Fault::new("does not name a role and a database (the value is not shown)", names));
        }
        let reach = reach(hosts, query)?;
        Ok(Self { user: user.to_owned(), reach, database: database.to_owned() })
    }

    /// Reads a URL, as the command line has it.
    ///
    /// # Errors
    /// A sentence about what is wrong with it, without any of it.
    pub fn of_url(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|fault| format!("the URL of a PostgreSQL {}\nhint: {}", fault.must, fault.hint))
    }

    /// Whether what is said may leave this machine, and so must be encrypted.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match &self.reach {
            Reach::Hosts(hosts) => hosts.iter().any(|(host, _)| !is_loopback(host)),
            Reach::Socket(..) => false,
        }
    }
}

impl fmt::Display for PostgresUrl {
    /// As it would be written, which is without any secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user)?;
        match &self.reach {
            Reach::Hosts(hosts) => {
                for (at, (host, port)) in hosts.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                    write!(f, "{comma}{open}{host}{close}")?;
                    if *port != PORT {
                        write!(f, ":{port}")?;
                    }
                }
                write!(f, "/{}", self.database)
            }
            Reach::Socket(folder, port) => {
                write!(f, "/{}?host={}", self.database, folder.display())?;
                if *port == PORT { Ok(()) } else { write!(f, "&port={port}") }
            }
        }
    }
}

fn reach(hosts: &str, query: &str) -> Result<Reach, Fault> {
    let (mut folder, mut port) = (None, PORT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "host" if value.starts_with('/') && !value.contains(['\0', '%', ',']) => {
                folder = Some(PathBuf::from(value))
            }
            "host" => return Err(Fault::new("has a `host=` that is no folder of a Unix socket", EXAMPLE)),
            "port" => port = port_of(value)?,
            "sslmode" | "sslrootcert" | "ssl" => {
                let hint = "remove it: TLS with a verified certificate is always on, except on loopback and Unix \
                            sockets; `ca = \"file:PATH\"` names authorities of your own";
                return Err(Fault::new(format!("must not say `{name}`"), hint));
            }
            "password" => {
                let hint = "move it: `password = \"env:NAME\"` or `\"file:PATH\"`";
                return Err(Fault::new("must not hold a password (the value is not shown)", hint));
            }
            _ => {
                let hint = "it takes `host` and `port` of a Unix socket, nothing else";
                return Err(Fault::new(format!("has a parameter that it does not take: {}", shown(name)), hint));
            }
        }
    }
    match folder {
        Some(folder) if hosts.is_empty() => Ok(Reach::Socket(folder, port)),
        Some(_) => Err(Fault::new("names a host and a Unix socket", "keep one of them")),
        None if query.contains("port=") => {
            Err(Fault::new("has a `port=` without a Unix socket", "write `HOST:PORT` before the database"))
        }
        None => {
            let hosts = hosts.split(',').map(host).collect::<Result<Vec<_>, _>>()?;
            if hosts.len() > HOSTS_MAX {
                let hint = format!("name at most {HOSTS_MAX}");
                return Err(Fault::new(format!("names {} hosts", hosts.len()), hint));
            }
            Ok(Reach::Hosts(hosts))
        }
    }
}

fn host(text: &str) -> Result<(String, u16), Fault> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or_default()),
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if host.is_empty() || host.len() > 253 || !(is_address || is_plain) {
        return Err(Fault::new("names no host (the value is not shown)", EXAMPLE));
    }
    let port = if port.is_empty() { PORT } else { port_of(port)? };
    Ok((host.to_owned(), port))
}

fn port_of(text: &str) -> Result<u16, Fault> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Fault::new("has a port that is no number from 1 to 65535 (the value is not shown)", EXAMPLE))
}

fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_reads_back_as_it_was_written() {
        for text in [
            "postgres://keyreeve@db.example.org/keyreeve",
            "postgres://k@db.example.org:6432/k",
            "postgres://k@a.example,b.example:5433/k",
            "postgres://k@[::1]:5433/k",
            "postgres://k@127.0.0.1/k",
            "postgres://k@/k?host=/run/postgresql",
            "postgres://k@/k?host=/tmp/x&port=5433",
        ] {
            assert_eq!(PostgresUrl::parse(text).map(|url| url.to_string()).ok().as_deref(), Some(text));
        }
        assert!(PostgresUrl::parse("postgresql://k@h/k").is_ok());
    }

    #[test]
    fn only_loopback_and_sockets_are_near() {
        let is_remote = |text| PostgresUrl::parse(text).map(|url| url.is_remote()).ok();
        assert_eq!(is_remote("postgres://k@127.0.0.1/k"), Some(false));
        assert_eq!(is_remote("postgres://k@[::1],localhost/k"), Some(false));
        assert_eq!(is_remote("postgres://k@localhost,db.example/k"), Some(true));
        assert_eq!(is_remote("postgres://k@10.0.0.1/k"), Some(true));
        assert_eq!(is_remote("postgres://k@/k?host=/run/postgresql"), Some(false));
    }

    #[test]
    fn nothing_of_a_wrong_url_is_repeated_and_no_password_is_taken() {
        for text in [
            "postgres://k:hunter2@h/k",
            "postgres://k@h/k?password=hunter2",
            "postgres://hunter2/k",
            "postgres://k@h",
            "postgres://k@h/",
            "postgres://@h/k",
            "postgres://k@/k",
            "postgres://k@h:0/k",
            "postgres://k@h:hunter2/k",
            "postgres://k@hun ter2/k",
            "postgres://k@h/k?host=hunter2",
            "postgres://k@h/k?host=/run",
            "postgres://k@h/k?port=1",
            "postgres://k@h/k?sslmode=disable",
            "postgres://k@h/k?options=-cfsync",
            "postgres://k@a,b,c,d,e,f/k",
        ] {
            let Err(fault) = PostgresUrl::parse(text) else { panic!("{text} was taken") };
            let said = format!("{fault:?}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
