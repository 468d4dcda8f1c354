//! Any self-signed assertion: header and claims from the configuration, signed here.
//!
//! Claims may hold placeholders: `{iat}`, `{exp}` (seconds since 1970), `{generation}` and `{jti}`. A text that is
//! nothing but a numeric placeholder becomes a number; inside a longer text it becomes digits. `{jti}` is derived from
//! the mint, so that every node signs the same one.

use std::sync::Arc;

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::template::{self, Template};
use super::{Material, MintError, Minting, Nature, Source};
use crate::crypto::{Signer, jws};
use crate::hex;

/// The placeholders of claims.
pub const PLACEHOLDERS: [&str; 4] = ["iat", "exp", "generation", "jti"];
/// How deep claims may be nested.
const DEPTH_MAX: usize = 16;

/// Mints self-signed JWTs.
pub struct Jwt {
    signer: Arc<dyn Signer>,
    header: Map<String, Value>,
    claims: Vec<(String, Claim)>,
}

enum Claim {
    Fixed(Value),
    Text(Template),
    Number(&'static str),
    List(Vec<Claim>),
    Object(Vec<(String, Claim)>),
}

struct Values {
    iat: u64,
    exp: u64,
    generation: u64,
    jti: String,
}

impl Jwt {
    /// Takes the key, the header members besides `alg`, and the claims.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn new(
        signer: Arc<dyn Signer>,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
    ) -> Result<Self, String> {
        let algorithm = signer.algorithm();
        let mut whole = Map::new();
        whole.insert("alg".to_owned(), Value::from(algorithm.as_str()));
        for (name, value) in header {
            match name.as_str() {
                "alg" if value != algorithm.as_str() => {
                    return Err(format!("`header.alg` must be `{}`, as `algorithm` says", algorithm.as_str()));
                }
                // RFC 7515 4.1.11, RFC 7797: whoever reads these has to do something that is not done here.
                "crit" | "b64" => return Err(format!("`header.{name}` is not supported")),
                _ => whole.insert(name.clone(), value.clone()),
            };
        }
        for (name, placeholder) in [("iat", "{iat}"), ("exp", "{exp}")] {
            if claims.get(name).is_some_and(|value| value != placeholder) {
                return Err(format!("`claims.{name}` must be \"{placeholder}\": a fixed time is wrong after a while"));
            }
        }
        let claims = members("claims", claims, 0)?;
        Ok(Self { signer, header: whole, claims })
    }
}

#[async_trait]
impl Source for Jwt {
    fn kind(&self) -> &'static str {
        "jwt"
    }

    fn nature(&self) -> Nature {
        Nature::Deterministic
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let values = Values {
            iat: order.issued_at.seconds(),
            exp: order.expires_at.seconds(),
            generation: order.generation,
            jti: hex::encode(&Sha256::digest(idempotency_key)),
        };
        let token = jws::compact(self.signer.as_ref(), &self.header, &filled(&self.claims, &values))
            .await
            .map_err(|cause| MintError::nothing_minted(FaultClass::Misconfigured, cause.to_string()))?;
        // RFC 7519 2: the token says whole seconds, so that is when it ends.
        let expires_at = order.expires_at.floor_to_second();
        Ok(Minting { material: Material::bearer(token), issued_at: None, expires_at })
    }
}

fn members(path: &str, object: &Map<String, Value>, depth: usize) -> Result<Vec<(String, Claim)>, String> {
    object.iter().map(|(name, value)| Ok((name.clone(), claim(&format!("{path}.{name}"), value, depth)?))).collect()
}

fn claim(path: &str, value: &Value, depth: usize) -> Result<Claim, String> {
    if depth > DEPTH_MAX {
        return Err(format!("`{path}` is nested deeper than {DEPTH_MAX} levels"));
    }
    let depth = depth.saturating_add(1);
    Ok(match value {
        Value::String(text) => match text.as_str() {
            "{iat}" => Claim::Number("iat"),
            "{exp}" => Claim::Number("exp"),
            "{generation}" => Claim::Number("generation"),
            _ => Claim::Text(Template::parse(text, &PLACEHOLDERS).map_err(|cause| format!("`{path}`: {cause}"))?),
        },
        Value::Array(items) => {
            Claim::List(items.iter().map(|item| claim(path, item, depth)).collect::<Result<_, _>>()?)
        }
        Value::Object(object) => Claim::Object(members(path, object, depth)?),
        fixed => Claim::Fixed(fixed.clone()),
    })
}

fn filled(claims: &[(String, Claim)], values: &Values) -> Map<String, Value> {
    claims.iter().map(|(name, claim)| (name.clone(), claim.fill(values))).collect()
}

impl Claim {
    fn fill(&self, values: &Values) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Number(name) => Value::from(values.number(name)),
            Self::Text(text) => Value::from(text.fill(template::Escape::None, |name| match name {
                "jti" => values.jti.clone(),
                name => values.number(name).to_string(),
            })),
            Self::List(items) => items.iter().map(|item| item.fill(values)).collect(),
            Self::Object(object) => Value::Object(filled(object, values)),
        }
    }
}

impl Values {
    fn number(&self, name: &str) -> u64 {
        match name {
            "iat" => self.iat,
            "exp" => self.exp,
            _ => self.generation,
        }
    }
}
