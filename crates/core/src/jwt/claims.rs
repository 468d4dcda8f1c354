use std::sync::Arc;

use super::algorithm::Algorithm;
use super::draft::Draft;
use super::refusal::{Part, Refusal};
use super::token::Header;
use crate::json::{Json, Node, Value};
use crate::time::Timestamp;

/// 9999-12-31T23:59:59Z. Beyond it is nobody's expiry.
const SECONDS_MAX: u64 = 253_402_300_799;
/// The most audiences a token may name.
const AUDIENCES_MAX: usize = 64;

/// What a token says: the registered claims (RFC 7519 4.1) of the right kinds, and all the others as they are.
///
/// Only [`Verified`] makes one a statement; alone it is a form that was filled in.
#[derive(Clone, Debug)]
pub struct Claims {
    json: Json,
    iss: Option<u32>,
    sub: Option<u32>,
    aud: Option<u32>,
    jti: Option<u32>,
    client_id: Option<u32>,
    exp: Option<u64>,
    nbf: Option<u64>,
    iat: Option<u64>,
}

impl Claims {
    /// Reads the claims of a payload: kinds only.
    pub(super) fn read(json: Json) -> Result<Self, Refusal> {
        let (mut iss, mut sub, mut aud, mut jti, mut client_id) = (None, None, None, None, None);
        let (mut exp, mut nbf, mut iat) = (None, None, None);
        for (name, value) in json.root().members().ok_or(Refusal::NoObject { part: Part::Payload })? {
            match name {
                "iss" => iss = Some(text("iss", value)?),
                "sub" => sub = Some(text("sub", value)?),
                "jti" => jti = Some(text("jti", value)?),
                "client_id" => client_id = Some(text("client_id", value)?),
                "aud" => aud = Some(audience(value)?),
                "exp" => exp = Some(seconds("exp", value)?),
                "nbf" => nbf = Some(seconds("nbf", value)?),
                "iat" => iat = Some(seconds("iat", value)?),
                _ => {}
            }
        }
        Ok(Self { json, iss, sub, aud, jti, client_id, exp, nbf, iat })
    }

    fn text_at(&self, place: Option<u32>) -> Option<&str> {
        self.json.at(place?).text()
    }

    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.text_at(self.iss)
    }

    /// `sub`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.text_at(self.sub)
    }

    /// `jti`.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.text_at(self.jti)
    }

    /// `client_id` (RFC 8693 4.3).
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.text_at(self.client_id)
    }

    /// `aud`, one or several.
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        let node = self.aud.map(|place| self.json.at(place));
        let one = node.and_then(Node::text);
        let several = node.and_then(Node::items).into_iter().flatten().filter_map(Node::text);
        one.into_iter().chain(several)
    }

    /// `exp`, in seconds since 1970. Always there in what was verified.
    #[must_use]
    pub const fn expires_at_s(&self) -> Option<u64> {
        self.exp
    }

    /// `nbf`, in seconds since 1970.
    #[must_use]
    pub const fn not_before_s(&self) -> Option<u64> {
        self.nbf
    }

    /// `iat`, in seconds since 1970.
    #[must_use]
    pub const fn issued_at_s(&self) -> Option<u64> {
        self.iat
    }

    /// Any claim, by its name.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<Node<'_>> {
        self.json.root().member(name)
    }

    /// A claim that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.claim(name)?.text()
    }

    /// The texts of a claim that is a list. What is a text itself has no items: `"admin"` does not contain `adm`.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.claim(name).and_then(Node::items).into_iter().flatten().filter_map(Node::text)
    }

    /// The scopes of `scope` (RFC 8693 4.2: one text with spaces).
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.text("scope").into_iter().flat_map(|text| text.split(' ')).filter(|scope| !scope.is_empty())
    }

    /// The same claims but one.
    pub(super) fn without(&self, name: &str) -> Result<Self, Refusal> {
        let members = self.json.root().members().into_iter().flatten().filter(|(its, _)| *its != name);
        let text = members.fold(Draft::new(), |draft, (name, value)| draft.node(name, value)).json();
        Self::read(Json::parse(text.into_bytes()).map_err(|cause| Refusal::Json { part: Part::Payload, cause })?)
    }

    /// All of it, as JSON.
    #[must_use]
    pub const fn json(&self) -> &Json {
        &self.json
    }
}

fn text(name: &'static str, value: Node<'_>) -> Result<u32, Refusal> {
    value.text().map(|_| value.place()).ok_or(Refusal::BadClaim { name, why: "is not text" })
}

fn audience(value: Node<'_>) -> Result<u32, Refusal> {
    let why = match value.items() {
        None if value.text().is_some() => return Ok(value.place()),
        None => "is neither text nor a list of texts",
        Some(mut items) => {
            if items.clone().count() > AUDIENCES_MAX {
                "has more than 64 entries"
            } else if items.all(|item| item.text().is_some()) {
                return Ok(value.place());
            } else {
                "has an entry that is not text"
            }
        }
    };
    Err(Refusal::BadClaim { name: "aud", why })
}

/// RFC 7519 2 allows fractions; a reader that rounds is a reader that differs from others about who is still let in.
fn seconds(name: &'static str, value: Node<'_>) -> Result<u64, Refusal> {
    let bad = |why| Err(Refusal::BadClaim { name, why });
    let text = match value.value() {
        Value::Number(text) => text,
        Value::Text(_) => return bad("is text, not a number of seconds"),
        _ => return bad("is not a number of seconds since 1970"),
    };
    match text.parse() {
        Ok(seconds) if seconds <= SECONDS_MAX => Ok(seconds),
        _ if text.starts_with('-') => bad("lies before 1970"),
        _ if text.contains(['.', 'e', 'E']) => bad("is not whole seconds in digits: round it where it is signed"),
        _ => bad("lies after the year 9999"),
    }
}

/// What was verified: signed by a key we trust, from whom and for whom we expect, and alive then.
///
/// Nothing outside of this module makes one. A function that needs proof takes `&Verified<Claims>`, and forgetting to
/// verify does not compile.
///
/// ```compile_fail
/// # use keyreeve_core::jwt::{Claims, Verified};
/// fn forged(claims: Claims) -> Verified<Claims> {
///     Verified { claims, header: todo!(), key_id: None }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Verified<C> {
    claims: C,
    header: Arc<Header>,
    key_id: Option<Arc<str>>,
}

impl<C> Verified<C> {
    pub(super) const fn new(claims: C, header: Arc<Header>, key_id: Option<Arc<str>>) -> Self {
        Self { claims, header, key_id }
    }

    /// What was verified.
    pub const fn claims(&self) -> &C {
        &self.claims
    }

    /// The algorithm of the key.
    pub fn algorithm(&self) -> Algorithm {
        self.header.algorithm
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The id of the key that verified it, also where the token named none.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The same, read as something else: `claims` says how.
    ///
    /// # Errors
    /// What `claims` answers.
    pub fn read<T, E>(&self, claims: impl FnOnce(&C) -> Result<T, E>) -> Result<Verified<T>, E> {
        let claims = claims(&self.claims)?;
        Ok(Verified { claims, header: Arc::clone(&self.header), key_id: self.key_id.clone() })
    }
}

impl Verified<Claims> {
    /// When it stops being true.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        Timestamp(self.claims.exp.unwrap_or_default().saturating_mul(1000))
    }

    /// Whether less than `within_s` seconds are left at `now`.
    #[must_use]
    pub fn is_expiring(&self, now: Timestamp, within_s: u64) -> bool {
        self.expires_at().since(now) < within_s.saturating_mul(1000)
    }
}
