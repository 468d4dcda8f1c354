//! What native nodes and a Worker say to each other about the register: one signed request, one signed answer.
//!
//! A request is `POST /v1/register` with a CBOR body (RFC 8949) that begins with the version, 1:
//!
//! | request | answer |
//! |---|---|
//! | `[1, 0, key]`: read | `[1, 0, null]` or `[1, 0, [op, bytes]]` |
//! | `[1, 1, key, expected or null, op, bytes]`: swap | `[1, 1, true]`: made; `[1, 1, false]`: lost |
//! | `[1, 2, prefix, after or null, limit]`: list | `[1, 2, [key, ..]]` |
//! | any | `[1, 3, text]`: refused, nothing was written; `[1, 4, text]`: it may or may not have been |
//!
//! Both carry `keyreeve-signature`: HMAC-SHA-256 under a key that both sides know. The request's covers method, path,
//! time, a nonce and the body; the answer's covers the request's signature, the status and the body. So whoever sits
//! between them can neither change a word nor answer with an older answer. What such a box can do is hold a request back
//! or send it twice; a late or repeated swap is harmless, because it names the write it follows, and after five minutes
//! it is refused. Values are sealed before they get here: what signs does not hide.
//!
//! An answer without a right signature proves nothing, whatever its status. Knows nothing of records.

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header};
use keyreeve_core::crypto::Crypto as _;
use keyreeve_core::id::WriteId;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Span, Timestamp};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::VALUE_BYTES_MAX;
use crate::crypto::LocalCrypto;
use crate::hex;
use crate::port::{Entry, KEY_BYTES_MAX, Key, LIST_MAX, Register, StoreError, Swap};

/// The version that this side speaks.
pub const VERSION: u64 = 1;
/// Where a Worker answers.
pub const PATH: &str = "/v1/register";
/// The header that carries a signature.
pub const SIGNATURE: HeaderName = HeaderName::from_static("keyreeve-signature");
/// The largest request body, in bytes.
pub const REQUEST_BYTES_MAX: usize = VALUE_BYTES_MAX + 1024;
/// The largest answer body, in bytes: a value, or a full page of the longest keys.
pub const ANSWER_BYTES_MAX: usize = max(VALUE_BYTES_MAX, LIST_MAX * (KEY_BYTES_MAX + 2)) + 1024;
/// The shortest key, in bytes.
pub const KEY_BYTES_MIN: usize = 32;
/// A request that was signed longer ago, or further ahead, by the clock of who receives it is refused.
pub const SIGNED_WITHIN_MS: u64 = 5 * 60_000;
/// The longest sentence in an answer, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// What a signature is for, so that none is good for anything else.
const REQUEST_LABEL: &[u8] = b"keyreeve register request 1";
const ANSWER_LABEL: &[u8] = b"keyreeve register answer 1";

const fn max(left: usize, right: usize) -> usize {
    if left > right { left } else { right }
}

/// The key of a signature. Prints `***`.
#[derive(Clone, Debug)]
pub struct SigningKey(Secret<Vec<u8>>);

impl SigningKey {
    /// Takes a secret of at least [`KEY_BYTES_MIN`] bytes, as it is.
    ///
    /// # Errors
    /// A sentence with a hint, without the secret.
    pub fn new(secret: Secret<Vec<u8>>) -> Result<Self, String> {
        let found = secret.expose().len();
        if found < KEY_BYTES_MIN {
            return Err(format!(
                "the key is too short to sign with: {found} bytes are less than {KEY_BYTES_MIN}\nhint: `keyreeve config new-seal-key` makes one that fits"
            ));
        }
        Ok(Self(secret))
    }

    /// The code of the fields, in hexadecimal digits. Each field goes in with its length, so that none runs into the next.
    fn sign(&self, label: &[u8], fields: &[&[u8]]) -> String {
        let lengths: Vec<[u8; 8]> =
            std::iter::once(&label).chain(fields).map(|field| (field.len() as u64).to_be_bytes()).collect();
        let parts: Vec<&[u8]> = std::iter::once(&label)
            .chain(fields)
            .zip(&lengths)
            .flat_map(|(field, length)| [length.as_slice(), *field])
            .collect();
        hex::encode(&LocalCrypto.hmac_sha256(self.0.expose(), &parts))
    }
}

/// What is asked of the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Read(Key),
    Swap { key: Key, expected: Option<WriteId>, next: Entry },
    List { prefix: String, after: Option<Key>, limit: usize },
}

/// What the register answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Found(Option<Entry>),
    Swapped(Swap),
    Keys(Vec<Key>),
    /// Nothing was written.
    Refused(String),
    /// Something may have been written.
    Unknown(String),
}

/// A request that is ready to be sent, and what its answer is checked against.
pub(super) struct Signed {
    /// The value of [`SIGNATURE`].
    pub(super) header: String,
    pub(super) body: Vec<u8>,
}

impl Signed {
    /// Signs. No two requests may have the same nonce.
    pub(super) fn new(key: &SigningKey, ask: &Ask, now: Timestamp, nonce: [u8; 16]) -> Self {
        let body = ask.encode();
        let (time, nonce) = (now.0.to_string(), hex::encode(&nonce));
        let code = code_of_request(key, "POST", PATH, &time, &nonce, &body);
        Self { header: format!("1;t={time};n={nonce};s={code}"), body }
    }

    /// The answer, if it is one to this request by somebody who knows the key.
    pub(super) fn open(
        &self,
        key: &SigningKey,
        status: u16,
        header: Option<&[u8]>,
        body: &[u8],
    ) -> Option<Result<Answer, String>> {
        let code = header?.strip_prefix(b"1;s=")?;
        let right = code_of_answer(key, &self.header, status, body);
        is_same(right.as_bytes(), code).then(|| Answer::decode(body))
    }
}

/// Answers a request to the register. `now` is this side's clock; of `keys` any may have signed.
///
/// Whoever calls this authorizes by nothing else: the signature is the authorization. The answer is signed if the
/// request was, under the same key.
///
/// Dropping the future takes nothing back: a swap may have been made.
pub async fn serve(
    register: &dyn Register,
    keys: &[SigningKey],
    now: Timestamp,
    request: Request<Bytes>,
) -> Response<Bytes> {
    if keys.is_empty() {
        return unsigned(StatusCode::NOT_FOUND, "not_found", "no register is shared here");
    }
    if request.body().len() > REQUEST_BYTES_MAX {
        return unsigned(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request is too large");
    }
    let Some((key, header, time)) = signed_by(keys, &request) else {
        return unsigned(StatusCode::UNAUTHORIZED, "bad_signature", "this needs a signature by the register's key");
    };
    let off_ms = now.since(time).max(time.since(now));
    let (status, answer) = if off_ms > SIGNED_WITHIN_MS {
        let direction = if time > now { "ahead of" } else { "behind" };
        let text = format!(
            "the request was signed by a clock {} {direction} this one, the most is {}",
            Span(off_ms / 1000 * 1000),
            Span(SIGNED_WITHIN_MS)
        );
        (StatusCode::UNAUTHORIZED, Answer::Refused(text))
    } else {
        match Ask::decode(request.body()) {
            Ok(ask) => act(register, ask).await,
            Err(text) => (StatusCode::BAD_REQUEST, Answer::Refused(text)),
        }
    };
    let body = answer.encode();
    let code = code_of_answer(key, &header, status.as_u16(), &body);
    respond(status, "application/cbor", Some(format!("1;s={code}")), body)
}

async fn act(register: &dyn Register, ask: Ask) -> (StatusCode, Answer) {
    let answer = match ask {
        Ask::Read(key) => register.read(&key).await.map(Answer::Found),
        Ask::Swap { key, expected, next } => register.swap(&key, expected, next).await.map(Answer::Swapped),
        Ask::List { prefix, after, limit } => register.list(&prefix, after.as_ref(), limit).await.map(Answer::Keys),
    };
    match answer {
        Ok(answer) => (StatusCode::OK, answer),
        Err(StoreError::Refused(text)) => (StatusCode::SERVICE_UNAVAILABLE, Answer::Refused(text)),
        Err(StoreError::Unknown(text)) => (StatusCode::SERVICE_UNAVAILABLE, Answer::Unknown(text)),
    }
}

/// The key that signed a request, the whole header, and when that was.
fn signed_by<'k>(keys: &'k [SigningKey], request: &Request<Bytes>) -> Option<(&'k SigningKey, String, Timestamp)> {
    let mut headers = request.headers().get_all(SIGNATURE).iter();
    let header = headers.next()?.to_str().ok()?;
    if headers.next().is_some() {
        return None;
    }
    let (time, rest) = header.strip_prefix("1;t=")?.split_once(";n=")?;
    let (nonce, code) = rest.split_once(";s=")?;
    let is_right = |key: &&SigningKey| {
        let (method, path) = (request.method().as_str(), request.uri().path());
        let right = code_of_request(key, method, path, time, nonce, request.body());
        is_same(right.as_bytes(), code.as_bytes())
    };
    let key = keys.iter().find(is_right)?;
    Some((key, header.to_owned(), Timestamp(time.parse().ok()?)))
}

fn code_of_request(key: &SigningKey, method: &str, path: &str, time: &str, nonce: &str, body: &[u8]) -> String {
    let fields = [method.as_bytes(), path.as_bytes(), time.as_bytes(), nonce.as_bytes(), body];
    key.sign(REQUEST_LABEL, &fields)
}

/// `header` is the request's, with its nonce and its code in it.
fn code_of_answer(key: &SigningKey, header: &str, status: u16, body: &[u8]) -> String {
    key.sign(ANSWER_LABEL, &[header.as_bytes(), status.to_string().as_bytes(), body])
}

fn is_same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

fn unsigned(status: StatusCode, code: &str, title: &str) -> Response<Bytes> {
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "code": code });
    respond(status, "application/problem+json", None, body.to_string().into_bytes())
}

fn respond(status: StatusCode, kind: &'static str, signature: Option<String>, body: Vec<u8>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    if let Some(signature) = signature.and_then(|text| http::HeaderValue::from_maybe_shared(text.into_bytes()).ok()) {
        headers.insert(SIGNATURE, signature);
    }
    response
}

type Writer = Encoder<Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// Writing to a `Vec` has the error type `Infallible`, and nothing here refuses to be encoded.
fn encoded(write: impl FnOnce(&mut Writer) -> Written) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    let _: Written = write(&mut encoder);
    encoder.into_writer()
}

impl Ask {
    fn encode(&self) -> Vec<u8> {
        encoded(|e| match self {
            Self::Read(key) => e.array(3)?.u64(VERSION)?.u8(0)?.str(key.as_str())?.ok(),
            Self::Swap { key, expected, next } => {
                e.array(6)?.u64(VERSION)?.u8(1)?.str(key.as_str())?;
                match expected {
                    Some(WriteId(op)) => e.bytes(op)?,
                    None => e.null()?,
                };
                e.bytes(&next.op.0)?.bytes(&next.bytes)?.ok()
            }
            Self::List { prefix, after, limit } => {
                e.array(5)?.u64(VERSION)?.u8(2)?.str(prefix)?;
                match after {
                    Some(after) => e.str(after.as_str())?,
                    None => e.null()?,
                };
                e.u64(*limit as u64)?.ok()
            }
        })
    }

    fn decode(body: &[u8]) -> Result<Self, String> {
        decode("the request", body, |kind, d| {
            let ask = match kind {
                0 => Self::Read(key(d)?),
                1 => Self::Swap {
                    key: key(d)?,
                    expected: optional(d, op)?,
                    next: Entry { op: op(d)?, bytes: Bytes::copy_from_slice(d.bytes()?) },
                },
                2 => {
                    let prefix = d.str()?;
                    if prefix.len() > KEY_BYTES_MAX {
                        return Err(minicbor::decode::Error::message("a prefix that is too long"));
                    }
                    let after = optional(d, key)?;
                    let limit = usize::try_from(d.u64()?).unwrap_or(LIST_MAX).min(LIST_MAX);
                    Self::List { prefix: prefix.to_owned(), after, limit }
                }
                _ => return Err(minicbor::decode::Error::message("an operation that nobody knows")),
            };
            let items = match &ask {
                Self::Read(_) => 3,
                Self::Swap { .. } => 6,
                Self::List { .. } => 5,
            };
            Ok((ask, items))
        })
    }
}

impl Answer {
    fn encode(&self) -> Vec<u8> {
        encoded(|e| {
            e.array(3)?.u64(VERSION)?;
            match self {
                Self::Found(None) => e.u8(0)?.null()?.ok(),
                Self::Found(Some(entry)) => e.u8(0)?.array(2)?.bytes(&entry.op.0)?.bytes(&entry.bytes)?.ok(),
                Self::Swapped(swap) => e.u8(1)?.bool(*swap == Swap::Done)?.ok(),
                Self::Keys(keys) => {
                    e.u8(2)?.array(keys.len() as u64)?;
                    keys.iter().try_for_each(|key| e.str(key.as_str())?.ok())
                }
                Self::Refused(text) => e.u8(3)?.str(start(text))?.ok(),
                Self::Unknown(text) => e.u8(4)?.str(start(text))?.ok(),
            }
        })
    }

    fn decode(body: &[u8]) -> Result<Self, String> {
        decode("the answer", body, |kind, d| {
            let answer = match kind {
                0 => Self::Found(optional(d, |d| {
                    if d.array()? != Some(2) {
                        return Err(minicbor::decode::Error::message("an entry that is none"));
                    }
                    Ok(Entry { op: op(d)?, bytes: Bytes::copy_from_slice(d.bytes()?) })
                })?),
                1 => Self::Swapped(if d.bool()? { Swap::Done } else { Swap::Lost }),
                2 => {
                    let count = d.array()?.and_then(|count| usize::try_from(count).ok());
                    let count = count.filter(|count| *count <= LIST_MAX);
                    let Some(count) = count else { return Err(minicbor::decode::Error::message("too long a list")) };
                    Self::Keys((0..count).map(|_| key(d)).collect::<Result<_, _>>()?)
                }
                3 => Self::Refused(start(d.str()?).to_owned()),
                4 => Self::Unknown(start(d.str()?).to_owned()),
                _ => return Err(minicbor::decode::Error::message("an outcome that nobody knows")),
            };
            Ok((answer, 3))
        })
    }
}

/// Reads a message: its version, its kind, the rest by `read`, which also says how many items there must be.
fn decode<T>(
    what: &str,
    body: &[u8],
    read: impl FnOnce(u8, &mut Decoder<'_>) -> Result<(T, u64), minicbor::decode::Error>,
) -> Result<T, String> {
    let unreadable = |error: minicbor::decode::Error| format!("{what} cannot be read: {error}");
    let mut decoder = Decoder::new(body);
    let items = decoder.array().map_err(unreadable)?;
    // First of all, so that whatever a later version changes, it is told which one is spoken here.
    let version = decoder.u64().map_err(unreadable)?;
    if version != VERSION {
        return Err(format!("{what} is of version {version} of the protocol, and version {VERSION} is spoken here"));
    }
    let kind = decoder.u8().map_err(unreadable)?;
    let (message, expected) = read(kind, &mut decoder).map_err(unreadable)?;
    if items != Some(expected) || decoder.position() != body.len() {
        return Err(format!("{what} cannot be read: it does not end where it should"));
    }
    Ok(message)
}

fn optional<T>(
    d: &mut Decoder<'_>,
    read: impl FnOnce(&mut Decoder<'_>) -> Result<T, minicbor::decode::Error>,
) -> Result<Option<T>, minicbor::decode::Error> {
    if d.datatype()? == Type::Null { d.null().map(|()| None) } else { read(d).map(Some) }
}

fn key(d: &mut Decoder<'_>) -> Result<Key, minicbor::decode::Error> {
    Key::new(d.str()?).ok_or_else(|| minicbor::decode::Error::message("a key that is none"))
}

fn op(d: &mut Decoder<'_>) -> Result<WriteId, minicbor::decode::Error> {
    let bytes = d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("a write id that is none"))?;
    Ok(WriteId(bytes))
}

/// As much of a sentence as an answer carries.
fn start(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
