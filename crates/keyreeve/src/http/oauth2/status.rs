//! `POST /oauth2/introspect` (RFC 7662) and `POST /oauth2/revoke` (RFC 7009).

use http::StatusCode;
use keyreeve_core::jwt::{Claims, Expected, Verified};
use serde_json::{Map, Value, json};

use super::{Asked, Refusal, refusal, unkept};
use crate::config::Grant;
use crate::error::{Error, ErrorKind};
use crate::http::credentials::json_answer;
use crate::http::problem::Answer;
use crate::jwt::{Verifier, VerifyError};

/// What is said about an active token, where the token says it.
const SAID: [&str; 12] =
    ["scope", "client_id", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "act", "may_act", "cnf"];

/// The token, if it is one of this issuer's and alive. Whether it was revoked is another question.
async fn alive(asked: &Asked<'_>, token: &str) -> Result<Option<Verified<Claims>>, Refusal> {
    let unusable = |error: String| Refusal::unavailable(&Error::new(ErrorKind::StoreUnavailable, error).after(1000));
    let expected = Expected::new([asked.issuer.url.clone()], asked.issuer.audience.iter().cloned());
    // RFC 7662 2.2: what is expired here is not active, whatever others may still accept.
    let expected =
        expected.and_then(|expected| expected.with_leeway_s(0)).map_err(|error| unusable(error.to_string()))?;
    let keys = asked.issuing.issuers.keys(asked.name.as_str());
    let keys = keys.ok_or_else(|| unusable("there is no such issuer".into()))?;
    match Verifier::new(expected, keys).verify(token, asked.now.latest()).await {
        Ok(verified) => Ok(Some(verified)),
        Err(VerifyError::Refused(why)) => {
            tracing::debug!(request_id = %asked.later.request_id(), client = asked.client.id, "not active: {why}");
            Ok(None)
        }
        Err(other) => Err(unusable(other.to_string())),
    }
}

fn is_revoked(asked: &Asked<'_>, claims: &Claims) -> bool {
    let jti = claims.token_id();
    jti.is_some_and(|jti| asked.issuing.issuers.is_revoked(asked.name.as_str(), jti))
}

pub(super) async fn introspect(asked: Asked<'_>) -> Result<Answer, Refusal> {
    asked.may(Grant::Introspect)?;
    let token = asked.form.required("token")?;
    let verified = alive(&asked, token).await?.filter(|verified| !is_revoked(&asked, verified.claims()));
    let is_revoked = verified.as_ref().map(|verified| asked.later.live.inbound.is_revoked(token, verified)).transpose();
    let is_revoked = is_revoked.map_err(|stale| {
        Refusal::unavailable(&Error::new(ErrorKind::StoreUnavailable, stale.to_string()).after(1000))
    })?;
    let verified = verified.filter(|_| is_revoked != Some(true));
    let Some(verified) = verified else { return Ok(unkept(json_answer(&json!({ "active": false })))) };
    let mut body = Map::new();
    body.insert("active".into(), true.into());
    body.insert("token_type".into(), "Bearer".into());
    for name in SAID {
        let Some(value) = verified.claims().claim(name) else { continue };
        let mut text = String::new();
        value.write(&mut text);
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        body.insert(name.into(), value);
    }
    Ok(unkept(json_answer(&body.into())))
}

pub(super) async fn revoke(asked: Asked<'_>) -> Result<Answer, Refusal> {
    asked.may(Grant::Revoke)?;
    let token = asked.form.required("token")?;
    let done = || {
        let mut answer = json_answer(&json!({}));
        *answer.status_mut() = StatusCode::OK;
        unkept(answer)
    };
    // RFC 7009 2.2: a token that is not one, or is over, is as good as revoked.
    let Some(verified) = alive(&asked, token).await? else { return Ok(done()) };
    let claims = verified.claims();
    if claims.client_id() != Some(&asked.client.id) {
        let text = "the token was issued to another client";
        return Err(refusal("unauthorized_client", text));
    }
    let Some(jti) = claims.token_id() else { return Ok(done()) };
    // Verifiers may accept it for as long as clocks may differ.
    let over_at = verified.expires_at().plus(asked.issuer.rules.skew_ms.saturating_mul(2));
    let revoked = asked.issuing.issuers.revoke(asked.name.as_str(), jti, over_at).await;
    revoked.map_err(|error| Refusal::unavailable(&error))?;
    tracing::info!(request_id = %asked.later.request_id(), issuer = %asked.name, client = asked.client.id, jti, "token revoked");
    Ok(done())
}
