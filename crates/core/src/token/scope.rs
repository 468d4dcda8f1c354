//! What a token is good for, within its target: paths, types, and from where.
//!
//! Each list that is empty allows everything of its kind. The stored form is the text that somebody wrote.

use core::net::IpAddr;

use minicbor::{Decode, Encode};

use crate::policy::{Act, RequestPath};

/// The most entries of a list.
pub const ENTRIES_MAX: usize = 32;
/// The longest name of a type, in bytes.
const KIND_BYTES_MAX: usize = 64;

/// What a token is good for, as it is stored and shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Scope {
    /// Paths below the target: `/version/*/supergraph`, `/contracts/**`. In a path `*` is one or more characters, but no `/`;
    /// `/**` at its end is everything below.
    #[n(0)]
    pub paths: Vec<String>,
    /// Types of artifacts: `supergraph`.
    #[n(1)]
    pub kinds: Vec<String>,
    /// Networks: `10.0.0.0/8`, `2001:db8::/32`, or one address.
    #[n(2)]
    pub networks: Vec<String>,
}

/// Why a scope is none: names the entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScopeError(String);

/// What a request has to be, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfScope {
    /// Another path, or one that can be read in two ways.
    #[error("the token is not for this path")]
    Path,
    /// Another type.
    #[error("the token is not for this type")]
    Kind,
    /// From elsewhere, or nobody knows from where.
    #[error("the token is not for this address")]
    Network,
}

/// A scope, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    paths: Vec<Act>,
    kinds: Vec<Box<str>>,
    networks: Vec<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    bits: u128,
    mask: u128,
    is_v6: bool,
}

impl Scope {
    /// Reads every entry.
    ///
    /// # Errors
    /// The first entry that is none, with the rule that it breaks.
    pub fn compile(&self) -> Result<Allowed, ScopeError> {
        for (what, list) in [("paths", &self.paths), ("types", &self.kinds), ("networks", &self.networks)] {
            if list.len() > ENTRIES_MAX {
                return Err(ScopeError(format!("`{what}` has {} entries, the most is {ENTRIES_MAX}", list.len())));
            }
        }
        let paths = self.paths.iter().map(|path| {
            format!("* {path}").parse().map_err(|error| ScopeError(format!("the path `{}` {error}", clipped(path))))
        });
        let kinds = self.kinds.iter().map(|kind| {
            let is_kind = (1..=KIND_BYTES_MAX).contains(&kind.len())
                && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            let wrong = || {
                ScopeError(format!("`{}` is no type: 1 to {KIND_BYTES_MAX} of a-z, 0-9, `.`, `_`, `-`", clipped(kind)))
            };
            if is_kind { Ok(kind.as_str().into()) } else { Err(wrong()) }
        });
        let networks = self.networks.iter().map(|text| Network::parse(text));
        Ok(Allowed {
            paths: paths.collect::<Result<_, _>>()?,
            kinds: kinds.collect::<Result<_, _>>()?,
            networks: networks.collect::<Result<_, _>>()?,
        })
    }

    /// Whether it allows everything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.kinds.is_empty() && self.networks.is_empty()
    }
}

impl Allowed {
    /// Whether a request is within it.
    ///
    /// # Errors
    /// [`OutOfScope`] names the first thing that is not.
    pub fn check(&self, path: &str, kind: &str, peer: Option<IpAddr>) -> Result<(), OutOfScope> {
        if !self.kinds.is_empty() && !self.kinds.iter().any(|own| **own == *kind) {
            return Err(OutOfScope::Kind);
        }
        if !self.paths.is_empty() {
            let path = RequestPath::parse(path).map_err(|_| OutOfScope::Path)?;
            if !self.paths.iter().any(|own| own.has_path(&path)) {
                return Err(OutOfScope::Path);
            }
        }
        if !self.networks.is_empty() {
            let peer = peer.ok_or(OutOfScope::Network)?;
            if !self.networks.iter().any(|network| network.holds(peer)) {
                return Err(OutOfScope::Network);
            }
        }
        Ok(())
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, ScopeError> {
        let wrong = |why: &str| ScopeError(format!("`{}` is no network: {why}", clipped(text)));
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong("write it as `10.0.0.0/8` or `2001:db8::/32`"))?;
        if address.to_canonical() != address {
            return Err(wrong("an IPv4 address stands by itself, not inside of an IPv6 address"));
        }
        let (bits, width, is_v6) = bits_of(address);
        let length = match length {
            None => width,
            Some(digits) => {
                let is_number =
                    !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.parse().ok().filter(|number| is_number && *number <= width);
                number.ok_or_else(|| wrong("what follows the `/` is the number of bits that count"))?
            }
        };
        let mask = u128::MAX.checked_shl(width.saturating_sub(length)).unwrap_or(0);
        if bits & !mask != 0 {
            return Err(wrong("it has bits set that do not count"));
        }
        Ok(Self { bits, mask, is_v6 })
    }

    fn holds(self, peer: IpAddr) -> bool {
        // What a socket for both versions calls `::ffff:10.0.0.1`.
        let (bits, _, is_v6) = bits_of(peer.to_canonical());
        is_v6 == self.is_v6 && bits & self.mask == self.bits
    }
}

fn bits_of(address: IpAddr) -> (u128, u32, bool) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32, false),
        IpAddr::V6(address) => (u128::from(address), 128, true),
    }
}

/// The beginning of what somebody wrote, short enough to be sent back.
fn clipped(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
