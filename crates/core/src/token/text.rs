//! What tokens look like. Whatever is not the one spelling of a token is refused before anybody asks a store for it.
//!
//! ```text
//! native   krt_ID_SECRET_CHECK  32, 64 and 8 lower-case hexadecimal digits
//! hv2      hv2BASE64            of KEYID:PRIVATE, UUID and 10 to 40 digits, all in lower case
//! legacy   BASE64               of 32 bytes, 44 characters
//! ```
//! The check is the CRC-32 (ISO-HDLC, that of zip) of everything before its `_`: a scanner tells a token from something like
//! it without asking anybody, and a typing error costs no read. It is no protection: that is the secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD};
use minicbor::{Decode, Encode};
use zeroize::Zeroize as _;

use crate::secret::Secret;

/// The longest token, in bytes.
pub const TEXT_BYTES_MAX: usize = 128;
const PREFIX: &str = "krt_";
/// Prefix, three parts in digits, and two `_` between them.
const NATIVE_BYTES: usize = 4 + 32 + 1 + 64 + 1 + 8;
const HV2_PREFIX: &str = "hv2";
const LEGACY_BYTES: usize = 44;
/// A UUID in its canonical form.
const UUID_BYTES: usize = 36;
/// The fewest digits that the secret of an `hv2` token has.
pub const PRIVATE_DIGITS_MIN: usize = 10;
/// The most digits.
pub const PRIVATE_DIGITS_MAX: usize = 40;
/// The most of a secret that bcrypt looks at, in bytes.
const BCRYPT_BYTES_MAX: usize = 72;
/// What `atob` of browsers and workers takes, once spaces and padding are gone: bits that say nothing may be set.
const FORGIVING: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, NO_PAD.with_decode_allow_trailing_bits(true));

/// Which token: the id in its text, and the name of its record. Printed as a UUID (RFC 9562 4), which it is in `hv2` tokens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

impl TokenId {
    /// An id of random bytes, as a UUID of version 4.
    #[must_use]
    pub const fn random(mut bytes: [u8; 16]) -> Self {
        let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
        *version = *version & 0x0f | 0x40;
        *variant = *variant & 0x3f | 0x80;
        Self(bytes)
    }

    /// Reads the canonical form: lower case, five groups. `None` for any other spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != UUID_BYTES {
            return None;
        }
        let mut digits = [0; 32];
        let mut free = digits.iter_mut();
        for (at, byte) in text.iter().enumerate() {
            match (matches!(at, 8 | 13 | 18 | 23), byte) {
                (true, b'-') => {}
                (true, _) => return None,
                (false, byte) => *free.next()? = *byte,
            }
        }
        unhex(&digits).map(Self)
    }

    /// The id as 32 digits: in the native text, and in the keys of stores.
    #[must_use]
    pub fn digits(self) -> String {
        let mut text = String::with_capacity(32);
        push_hex(&mut text, &self.0);
        text
    }

    /// The reverse of [`digits`](Self::digits).
    #[must_use]
    pub fn from_digits(text: &str) -> Option<Self> {
        unhex(text.as_bytes()).map(Self)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a token is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Format {
    /// Our own.
    #[n(0)]
    Native,
    /// GraphQL Hive's `hv2` keys.
    #[n(1)]
    Hv2,
    /// What Hive had before: one for each target, computed from a secret.
    #[n(2)]
    Legacy,
}

impl Format {
    /// The name used in the configuration and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Hv2 => "hv2",
            Self::Legacy => "legacy",
        }
    }
}

/// A token as somebody shows it, taken apart. Nothing vouches for it.
#[derive(Debug)]
pub struct Presented {
    /// How it is spelt.
    pub format: Format,
    /// Which one it says it is; a legacy token says nothing, one for each target.
    pub id: Option<TokenId>,
    /// What has to be right about it.
    pub secret: Secret<Vec<u8>>,
}

impl Presented {
    /// Takes a token apart. `None` for whatever is not the one spelling of a token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        if text.starts_with(PREFIX) {
            return Self::parse_native(text);
        }
        // One in 262,144 legacy tokens begins as an `hv2` token does, and none of them is as long as one.
        match text.strip_prefix(HV2_PREFIX) {
            Some(rest) if text.len() != LEGACY_BYTES => Self::parse_hv2(rest),
            _ => Self::parse_legacy(text),
        }
    }

    /// Takes a token apart as the workers of GraphQL Hive do, which are not strict: spaces in the text, padding that is missing,
    /// bits that say nothing, and a second `:` with whatever follows it. `None` for what they let through in no case; their
    /// key ids are canonical UUIDs, so no other text can have a hash.
    #[must_use]
    pub fn parse_as_hive(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let Some(encoded) = text.strip_prefix(HV2_PREFIX) else { return Self::parse_legacy(text) };
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\x0c' | b'\r');
        let encoded = Secret::new(encoded.bytes().filter(|byte| !is_space(byte)).collect::<Vec<u8>>());
        let mut digits = encoded.expose().as_slice();
        // https://infra.spec.whatwg.org/#forgiving-base64-decode
        if digits.len().is_multiple_of(4) {
            for _ in 0..2 {
                digits = digits.strip_suffix(b"=").unwrap_or(digits);
            }
        }
        let plain = Secret::new(FORGIVING.decode(digits).ok()?);
        let mut parts = plain.expose().split(|byte| *byte == b':');
        let id = TokenId::parse(std::str::from_utf8(parts.next()?).ok()?)?;
        let private = parts.next()?;
        let is_private = (1..=BCRYPT_BYTES_MAX).contains(&private.len()) && private.is_ascii();
        is_private.then(|| Self { format: Format::Hv2, id: Some(id), secret: Secret::new(private.to_vec()) })
    }

    fn parse_native(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != NATIVE_BYTES {
            return None;
        }
        let (checked, check) = digits.split_last_chunk::<8>()?;
        let checked = checked.strip_suffix(b"_")?;
        let (id, secret) = checked.strip_prefix(PREFIX.as_bytes())?.split_at_checked(32)?;
        let secret = secret.strip_prefix(b"_")?;
        if u32::from_be_bytes(unhex(check)?) != crc32(checked) {
            return None;
        }
        let mut bytes: [u8; 32] = unhex(secret)?;
        let secret = Secret::new(bytes.to_vec());
        bytes.zeroize();
        Some(Self { format: Format::Native, id: Some(TokenId(unhex(id)?)), secret })
    }

    fn parse_hv2(encoded: &str) -> Option<Self> {
        // The engine takes canonical text only: padded, and no bits set that say nothing.
        let plain = Secret::new(STANDARD.decode(encoded).ok()?);
        let (id, private) = plain.expose().split_at_checked(UUID_BYTES)?;
        let private = private.strip_prefix(b":")?;
        let is_private = (PRIVATE_DIGITS_MIN..=PRIVATE_DIGITS_MAX).contains(&private.len())
            && private.iter().all(|byte| digit(*byte).is_some());
        let id = TokenId::parse(std::str::from_utf8(id).ok()?)?;
        is_private.then(|| Self { format: Format::Hv2, id: Some(id), secret: Secret::new(private.to_vec()) })
    }

    fn parse_legacy(text: &str) -> Option<Self> {
        let decoded = Secret::new(STANDARD.decode(text).ok()?);
        // The hash that Hive keeps is one of the text, not of the bytes that it stands for.
        let secret = || Secret::new(text.as_bytes().to_vec());
        (decoded.expose().len() == 32).then(|| Self { format: Format::Legacy, id: None, secret: secret() })
    }
}

/// The text of a native token.
#[must_use]
pub fn native(id: TokenId, secret: &[u8; 32]) -> Secret<String> {
    let mut text = String::with_capacity(NATIVE_BYTES);
    text.push_str(PREFIX);
    push_hex(&mut text, &id.0);
    text.push('_');
    push_hex(&mut text, secret);
    let check = crc32(text.as_bytes());
    text.push('_');
    push_hex(&mut text, &check.to_be_bytes());
    Secret::new(text)
}

/// The text of an `hv2` token. `private` is 10 to 40 hexadecimal digits.
#[must_use]
pub fn hv2(id: TokenId, private: &str) -> Secret<String> {
    let plain = Secret::new(format!("{id}:{private}"));
    Secret::new(format!("{HV2_PREFIX}{}", STANDARD.encode(plain.expose())))
}

/// The text of a legacy token.
#[must_use]
pub fn legacy(mac: &[u8; 32]) -> Secret<String> {
    Secret::new(STANDARD.encode(mac))
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(if digit < 10 { b'0' + digit } else { b'a' + (digit - 10) }));
        }
    }
}

/// Exactly `N` bytes from lower-case digits, and nothing else.
fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// CRC-32/ISO-HDLC, bit by bit: a hundred bytes now and then.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = (crc & 1).wrapping_neg();
            crc = crc >> 1 ^ 0xedb8_8320 & mask;
        }
    }
    !crc
}

bytes_in_cbor!(TokenId, "a token id has 16 bytes");
