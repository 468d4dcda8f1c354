//! `POST /oauth2/token`: client credentials (RFC 6749 4.4), exchange (RFC 8693), assertions (RFC 7523 2.1).
//!
//! Every token is an access token of RFC 9068. None says more than its client may say, or than the token it was made from;
//! none outlives that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyreeve_core::json::Json;
use keyreeve_core::jwt::{Claims, Delegation, Draft, Expected, Verified};
use serde_json::{Value, json};

use super::{Asked, Refusal, refusal, unkept};
use crate::config::{Grant, Trusted};
use crate::http::credentials::json_answer;
use crate::http::problem::Answer;
use crate::inbound::client::{claimed_issuer, verify};
use crate::inbound::issuer::Ready;
use crate::jwt::{Verifier, VerifyError};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The longest life of an assertion that a client signed itself, in seconds.
const ASSERTION_S_MAX: u64 = 3600;

/// What was decided: the claims but for those that every token has.
struct Making {
    grant: Grant,
    claims: Draft,
    scope: String,
    expires_s: u64,
}

pub(super) async fn answer(asked: Asked<'_>) -> Result<Answer, Refusal> {
    let ready = asked.issuing.issuers.ready(asked.name.as_str()).await.map_err(|error| Refusal::unavailable(&error))?;
    let life_s = ready.life_ms_max.min(asked.issuer.rules.ttl_ms) / 1000;
    let making = match asked.form.required("grant_type")? {
        "client_credentials" => client_credentials(&asked, life_s)?,
        "urn:ietf:params:oauth:grant-type:token-exchange" => exchange(&asked, life_s).await?,
        "urn:ietf:params:oauth:grant-type:jwt-bearer" => bearer(&asked, life_s).await?,
        _ => {
            let text = "`grant_type` is not one of client_credentials, token-exchange, jwt-bearer";
            return Err(refusal("unsupported_grant_type", text));
        }
    };
    issue(asked, &ready, making).await
}

/// The scopes asked for, out of `allowed`; all of those where nothing is asked for.
fn scopes(asked: &Asked<'_>, allowed: Vec<String>) -> Result<Vec<String>, Refusal> {
    let Some(wanted) = asked.form.one("scope") else { return Ok(allowed) };
    let mut scopes: Vec<String> = Vec::new();
    for scope in wanted.split(' ').filter(|scope| !scope.is_empty()) {
        if !allowed.iter().any(|allowed| allowed == scope) {
            return Err(refusal("invalid_scope", "a scope that was asked for is not allowed"));
        }
        if !scopes.iter().any(|known| known == scope) {
            scopes.push(scope.to_owned());
        }
    }
    Ok(scopes)
}

/// The scopes of the client that a token has as well.
fn both(asked: &Asked<'_>, claims: &Claims) -> Vec<String> {
    let is_there = |scope: &&String| claims.scopes().any(|other| other == scope.as_str());
    asked.client.config.scopes.iter().filter(is_there).cloned().collect()
}

/// Who the token is for: what is asked for, out of what the client may have; the first of that where nothing is.
fn audience(asked: &Asked<'_>) -> Result<Vec<String>, Refusal> {
    let allowed = &asked.client.config.audience;
    let mut audience: Vec<String> = Vec::new();
    for wanted in asked.form.several() {
        if !allowed.iter().any(|allowed| allowed == wanted) {
            return Err(refusal("invalid_target", "an audience or resource that was asked for is not allowed"));
        }
        if !audience.iter().any(|known| known == wanted) {
            audience.push(wanted.to_owned());
        }
    }
    if audience.is_empty() {
        audience.extend(allowed.first().cloned());
    }
    Ok(audience)
}

/// The claims that a token begins with.
fn begun(asked: &Asked<'_>, subject: &str, audience: &[String], expires_s: u64, scope: &str) -> Draft {
    let claims = Draft::new()
        .text("iss", &asked.issuer.url)
        .text("sub", subject)
        .audience(audience)
        .number("iat", asked.now.wall.seconds())
        .number("exp", expires_s);
    if scope.is_empty() { claims } else { claims.text("scope", scope) }
}

fn client_credentials(asked: &Asked<'_>, life_s: u64) -> Result<Making, Refusal> {
    asked.may(Grant::ClientCredentials)?;
    let config = &asked.client.config;
    let scope = scopes(asked, config.scopes.clone())?.join(" ");
    let expires_s = asked.now.wall.seconds().saturating_add(life_s);
    let mut claims = begun(asked, &asked.client.id, &audience(asked)?, expires_s, &scope);
    let besides = Json::parse(Value::Object(config.claims.clone()).to_string().into_bytes());
    let besides =
        besides.map_err(|error| Refusal::invalid_request("the client's claims").because(error.to_string()))?;
    for (name, value) in besides.root().members().into_iter().flatten() {
        claims = claims.node(name, value);
    }
    Ok(Making { grant: Grant::ClientCredentials, claims, scope, expires_s })
}

/// RFC 8693: the client acts for the subject of another token, and the token says so.
async fn exchange(asked: &Asked<'_>, life_s: u64) -> Result<Making, Refusal> {
    asked.may(Grant::TokenExchange)?;
    let form = &asked.form;
    for name in ["subject_token_type", "actor_token_type", "requested_token_type"] {
        let is_needed =
            name == "subject_token_type" || (name == "actor_token_type" && form.one("actor_token").is_some());
        let said = if is_needed { Some(form.required(name)?) } else { form.one(name) };
        if said.is_some_and(|said| said != ACCESS_TOKEN && said != JWT) {
            return Err(Refusal::invalid_request(format!("`{name}` must be `{ACCESS_TOKEN}` or `{JWT}`")));
        }
    }
    let subject = trusted(asked, form.required("subject_token")?, "subject_token").await?;
    let actor = match form.one("actor_token") {
        None => asked.client.id.clone(),
        Some(token) => actor(asked, token).await?,
    };
    let original = subject.claims();
    let scopes = scopes(asked, both(asked, original))?;
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    let audience = audience(asked)?;
    let mut delegation = Delegation::new(&actor, &asked.issuer.url, &audience);
    delegation.life_s = life_s;
    delegation.scopes = Some(&scopes);
    let claims = delegation.draft(&subject, asked.now.wall).map_err(|refused| {
        Refusal::invalid_request("`subject_token` does not let this client act").because(refused.to_string())
    })?;
    let ends_s = original.expires_at_s().unwrap_or_default();
    let expires_s = asked.now.wall.seconds().saturating_add(life_s).min(ends_s);
    Ok(Making { grant: Grant::TokenExchange, claims, scope: scopes.join(" "), expires_s })
}

/// The actor of an actor token: one that this issuer gave to this client.
async fn actor(asked: &Asked<'_>, token: &str) -> Result<String, Refusal> {
    let verified = trusted(asked, token, "actor_token").await?;
    let claims = verified.claims();
    if claims.issuer() != Some(&asked.issuer.url) || claims.client_id() != Some(&asked.client.id) {
        return Err(Refusal::invalid_request("`actor_token` is not one of this client"));
    }
    let actor = claims.subject().ok_or_else(|| Refusal::invalid_request("`actor_token` has no subject"))?;
    Ok(actor.to_owned())
}

/// Verifies a token of somebody whom the client may bring tokens of.
async fn trusted(asked: &Asked<'_>, token: &str, what: &str) -> Result<Verified<Claims>, Refusal> {
    let refused = |cause: String| Refusal::invalid_request(format!("`{what}` is not accepted")).because(cause);
    let issuer = claimed_issuer(token).ok_or_else(|| refused("it is no token with an issuer".into()))?;
    for trusted in &asked.client.config.trusts {
        let (verifier, own) = match trusted {
            Trusted::Issuer(name) => {
                let Some(config) = asked.issuing.issuers.config(name.as_str()) else { continue };
                if config.url != issuer {
                    continue;
                }
                let expected = Expected::new([config.url.clone()], config.audience.iter().cloned());
                let expected = expected.map_err(|error| refused(error.to_string()))?;
                let Some(keys) = asked.issuing.issuers.keys(name.as_str()) else { continue };
                (Verifier::new(expected, keys), Some(name))
            }
            Trusted::Verifier(name) => match asked.issuing.verifiers.get(name) {
                Some(verifier) if verifier.expected().issuers().contains(&issuer) => (verifier.clone(), None),
                _ => continue,
            },
        };
        let verified = verifier.verify(token, asked.now.latest()).await.map_err(|error| match error {
            VerifyError::Refused(why) => refused(why.to_string()),
            other => super::Refusal::unavailable(&unavailable(&other)),
        })?;
        if let (Some(name), Some(jti)) = (own, verified.claims().token_id())
            && asked.issuing.issuers.is_revoked(name.as_str(), jti)
        {
            return Err(refused("it was revoked".into()));
        }
        match asked.later.live.inbound.is_revoked(token, &verified) {
            Ok(false) => {}
            Ok(true) => return Err(refused("it was revoked".into())),
            Err(stale) => return Err(super::Refusal::unavailable(&unavailable(&stale.into()))),
        }
        // RFC 9449 7.1, RFC 8705 3: what is bound is worth nothing in other hands, and no key unbinds it.
        let claims = verified.claims();
        let is_held = claims.check_possession(None).and_then(|()| claims.check_certificate(asked.certificate));
        is_held.map_err(|why| refused(why.to_string()))?;
        return Ok(verified);
    }
    Err(refused(format!("client `{}` trusts no issuer `{issuer}`", asked.client.id)))
}

fn unavailable(error: &VerifyError) -> crate::error::Error {
    crate::error::Error::new(crate::error::ErrorKind::StoreUnavailable, error.to_string()).after(1000)
}

/// RFC 7523 2.1: an assertion of the client itself, or of somebody whom it may bring tokens of.
async fn bearer(asked: &Asked<'_>, life_s: u64) -> Result<Making, Refusal> {
    asked.may(Grant::JwtBearer)?;
    let assertion = asked.form.required("assertion")?;
    let invalid = |cause: String| refusal("invalid_grant", "the assertion is not accepted").because(cause);
    let client = &asked.client;
    let own = client.keys.as_ref().filter(|_| claimed_issuer(assertion).as_deref() == Some(client.id.as_str()));
    let is_own = own.is_some();
    let verified = match own {
        Some(keys) => {
            let expected = Expected::new([client.id.clone()], Asked::audiences(asked.issuer));
            let expected = expected.map_err(|error| invalid(error.to_string()))?;
            let now = asked.now.latest();
            let verified = verify(keys, &expected, assertion, now).await.map_err(|error| invalid(error.to_string()))?;
            let shown = client.show_once(&crate::crypto::LocalCrypto, &verified, ASSERTION_S_MAX, now);
            shown.map_err(|stranger| invalid(stranger.to_string()))?;
            verified
        }
        None => trusted(asked, assertion, "assertion").await.map_err(|refused| {
            let is_refused = refused.status == 400;
            if is_refused { invalid(refused.cause.unwrap_or_default()) } else { refused }
        })?,
    };
    let said = verified.claims();
    let subject = said.subject().ok_or_else(|| invalid("it has no subject".into()))?;
    if is_own && !client.speaks_for(subject) {
        return Err(invalid(format!("client `{}` does not speak for `{subject}`", client.id)));
    }
    // RFC 8693 4.1: who acts is for us to say, or for whoever else has signed the assertion.
    if is_own && said.claim("act").is_some() {
        return Err(invalid("an assertion of its own names an actor: exchange a token for that".into()));
    }
    said.check_actor(&client.id, &asked.issuer.url).map_err(|refused| invalid(refused.to_string()))?;
    // An assertion of its own that names no scopes leaves them to the client; a token of somebody else that names none has none.
    let is_open = is_own && said.claim("scope").is_none();
    let scope = scopes(asked, if is_open { client.config.scopes.clone() } else { both(asked, said) })?.join(" ");
    let now_s = asked.now.wall.seconds();
    // RFC 7521 4.1: how long is up to the issuer. A token of somebody else is not outlived; an assertion of its own says for
    // whom, and no more.
    let ends_s = if is_own { u64::MAX } else { said.expires_at_s().unwrap_or_default() };
    let expires_s = now_s.saturating_add(life_s).min(ends_s);
    if expires_s <= now_s {
        return Err(invalid("it has expired".into()));
    }
    let mut claims = begun(asked, subject, &audience(asked)?, expires_s, &scope);
    // The subject is the same one, so whoever acts for it does so still, and nobody else may.
    for name in ["act", "may_act"] {
        if let Some(kept) = said.claim(name) {
            claims = claims.node(name, kept);
        }
    }
    Ok(Making { grant: Grant::JwtBearer, claims, scope, expires_s })
}

/// Signs what was decided.
async fn issue(asked: Asked<'_>, ready: &Ready, making: Making) -> Result<Answer, Refusal> {
    let mut jti = [0; 16];
    asked.later.api.host.fill(&mut jti);
    let jti = URL_SAFE_NO_PAD.encode(jti);
    let mut claims = making.claims.text("jti", &jti).text("client_id", &asked.client.id);
    if let Some(certificate) = asked.certificate {
        // RFC 8705 3.1.
        let bound = Draft::new().text("x5t#S256", &URL_SAFE_NO_PAD.encode(certificate));
        claims = claims.object("cnf", &bound);
    }
    let signed = ready.key.sign_as("at+jwt", &claims.json()).await;
    let token =
        signed.map_err(|error| Refusal::invalid_request("the token would be too large").because(error.to_string()))?;
    let (request_id, grant) = (asked.later.request_id(), making.grant.as_str());
    let (client, kid) = (asked.client.id.as_str(), ready.key.id().unwrap_or_default());
    tracing::info!(%request_id, issuer = %asked.name, client, grant, jti, kid, "token issued");
    metrics::counter!("keyreeve_tokens_total", "issuer" => asked.name.as_str().to_owned(), "grant" => grant)
        .increment(1);
    let expires_in = making.expires_s.saturating_sub(asked.now.wall.seconds());
    let mut body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": expires_in });
    if let Some(members) = body.as_object_mut() {
        if !making.scope.is_empty() {
            members.insert("scope".into(), making.scope.into());
        }
        if making.grant == Grant::TokenExchange {
            members.insert("issued_token_type".into(), ACCESS_TOKEN.into());
        }
    }
    Ok(unkept(json_answer(&body)))
}
