//! A user's consent, by refresh tokens that may be good for one use (RFC 6749 6, RFC 9700 4.14).
//!
//! With each mint the server may give a new refresh token, and using the old one again may revoke all of them. So:
//!
//! - the new refresh token is sealed with the access token and committed by the same write that publishes; nobody is
//!   handed the one before the other is safe;
//! - a refresh without an answer, or with one that does not say whether the token was used, is in doubt, and stays so until
//!   an operator says what is true: the old token is not tried again, whichever file still holds it. A digest of it stands
//!   in the intent, so that this is known also where nobody lived to tell;
//! - `invalid_grant` is such a doubt too. It is written over the intent of this mint only: where somebody else has rotated
//!   meanwhile that write is lost, and what is newer is read and used;
//! - a new refresh token is never thrown away, whatever the access token beside it looks like: where nobody can use that one,
//!   the mint has failed, and the same write that says so commits the refresh token.
//!
//! The first refresh token comes from the configuration, and is read for each mint: when it is one that was never seen
//! before, the chain starts over with it. A chain is shown to the server that it came from, by the client that it was given to,
//! and to nobody else: with another `token_url` or `client_id` there has to be a new token as well. Where a server does not rotate (`rotates = false`), all this is harmless, and a
//! failed refresh is tried again as any other mint.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::{FaultClass, OneUse};
use keyreeve_core::secret::Secret;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::build::Made;
use super::life::LifeError;
use super::token_endpoint::{Granted, Refusal, TokenEndpoint};
use super::{Before, Kept, MintError, Minting, Nature, Source, answer};
use crate::config::{RefreshConfig, SecretRef};
use crate::hex;
use crate::port::Secrets;

/// The refresh token to use next.
const TOKEN: &str = "refresh_token";
/// The digests of the tokens that chains have started from, the latest last, with spaces between.
const SEEDS: &str = "seeds";
/// How many such digests are remembered.
const SEEDS_MAX: usize = 32;
/// A digest of the server and the client that the chain is of; absent in what was kept by an older keyreeve.
const OF: &str = "of";
/// How long an access token is taken to live whose answer says nothing usable, but brings a new refresh token.
const LIFE_MS_UNSAID: u64 = 5 * 60_000;

/// Mints by refreshing.
pub struct Oauth2Refresh {
    endpoint: TokenEndpoint,
    seed: SecretRef,
    /// As under [`OF`].
    of: String,
    rotates: bool,
    secrets: Arc<dyn Secrets>,
}

/// Where a chain of refresh tokens is.
struct Chain {
    token: Secret<String>,
    seeds: Vec<String>,
}

fn one_use(token: &str) -> OneUse {
    OneUse(Sha256::digest(token.as_bytes()).into())
}

impl Oauth2Refresh {
    pub(super) fn new(config: &RefreshConfig, made: &Made<'_>) -> Result<Self, String> {
        // Read once here, so that a file that is not there is found at start and not at the first renewal.
        made.text("params.refresh_token", &config.seed)?;
        Ok(Self {
            endpoint: TokenEndpoint::new(&config.token, made)?,
            seed: config.seed.clone(),
            of: hex::encode(&Sha256::digest(json!([config.token.url, config.token.client.id]).to_string())),
            rotates: config.rotates,
            secrets: Arc::clone(&made.tools.secrets),
        })
    }

    /// The refresh token to use: the one that the last mint left, unless the configuration has one that no chain has
    /// started from yet.
    fn chain(&self, before: Before<'_>) -> Result<Chain, MintError> {
        let misconfigured = |cause: String| {
            MintError::nothing_minted(FaultClass::Misconfigured, format!("`params.refresh_token`: {cause}"))
        };
        let seed = self.secrets.read(&self.seed).map_err(misconfigured)?;
        let text = std::str::from_utf8(seed.expose()).map(str::trim).unwrap_or_default();
        if text.is_empty() {
            return Err(misconfigured("it is not text".into()));
        }
        let digest = hex::encode(&one_use(text).0);
        let text_of = |name: &str| before.kept.and_then(|kept| kept.0.get(name)).map(|value| value.expose().as_str());
        let mut seeds: Vec<String> = text_of(SEEDS).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        // What was used up in doubt no chain starts from again.
        for used in before.spent.into_iter().flatten().map(|used| hex::encode(&used.0)) {
            if !seeds.contains(&used) {
                seeds.push(used);
            }
        }
        let is_new = !seeds.contains(&digest);
        if !is_new && text_of(OF).is_some_and(|of| of != self.of) {
            let text = "it is one for another `token_url` or `client_id` than these\nhint: put one there that these have given, or set both back";
            return Err(misconfigured(text.into()));
        }
        match text_of(TOKEN).filter(|_| before.spent.is_none()) {
            // One that a chain has started from is used up, also on a node whose file is the old one. Where nothing is
            // ever used up, another one than the latest is somebody's wish.
            Some(token) if !is_new && (self.rotates || seeds.last() == Some(&digest)) => {
                return Ok(Chain { token: Secret::new(token.to_owned()), seeds });
            }
            None if !is_new && self.rotates => {
                return Err(misconfigured("it is used up\nhint: put a new one where it is read from".into()));
            }
            _ => {}
        }
        // The latest last: it is what the chain goes on from.
        seeds.retain(|seed| *seed != digest);
        seeds.push(digest);
        let excess = seeds.len().saturating_sub(SEEDS_MAX);
        seeds.drain(..excess);
        Ok(Chain { token: Secret::new(text.to_owned()), seeds })
    }

    /// What a refusal means where the refresh token may be good for one use.
    fn refused(&self, refusal: Refusal) -> MintError {
        let Refusal { error, code, is_sure } = refusal;
        if !self.rotates {
            return error;
        }
        match code.as_deref() {
            Some("invalid_grant") => {
                let message = format!(
                    "{}\nhint: the refresh token is used up, revoked or expired: put a new one where `params.refresh_token` is read from, then resolve with `reauthorize`",
                    error.message
                );
                MintError { class: FaultClass::Terminal, may_have_minted: true, message, ..error }
            }
            _ if is_sure => error,
            // A 503 of some gateway says nothing about what happened behind it.
            _ => MintError { may_have_minted: true, ..error },
        }
    }

    fn read(&self, granted: &Granted, chain: Chain) -> Result<(Minting, Kept), MintError> {
        let rotated = match granted.field(TOKEN) {
            Some(Value::String(token)) if !token.is_empty() => Some(Secret::new(token.clone())),
            _ => None,
        };
        let is_new = rotated.as_ref().is_some_and(|token| *token != chain.token);
        if is_new && !self.rotates {
            let name = self.endpoint.upstream.name.as_str();
            tracing::warn!(credential = name, "the server rotates refresh tokens, and `rotates` is false");
        }
        let mut kept = BTreeMap::new();
        kept.insert(TOKEN.to_owned(), rotated.unwrap_or(chain.token));
        kept.insert(SEEDS.to_owned(), Secret::new(chain.seeds.join(" ")));
        kept.insert(OF.to_owned(), Secret::new(self.of.clone()));
        let kept = Kept(kept);
        let minting = match self.endpoint.minting(granted) {
            Err(error) if is_new => match self.saved(granted) {
                Some(minting) => {
                    let name = self.endpoint.upstream.name.as_str();
                    tracing::warn!(credential = name, "{}; it is used for a short time all the same", error.message);
                    Ok(minting)
                }
                None => Err(error),
            },
            minting => minting,
        };
        let fits = |minting: Minting| answer::bounded_with(&minting.material, &kept).map(|()| minting);
        match minting.and_then(fits) {
            Ok(minting) => Ok((minting, kept)),
            Err(error) if is_new => {
                let message = format!("{}; the refresh token that came with it is kept", error.message);
                Err(MintError { message, left: Some(kept), ..error })
            }
            Err(error) => Err(error),
        }
    }

    /// What can be made of an answer whose end is of no use: its access token, for no longer than may be.
    fn saved(&self, granted: &Granted) -> Option<Minting> {
        let material = granted.material().ok()?;
        let window = granted.window;
        let life_ms = match granted.expires_at(self.endpoint.default_life_ms()) {
            Err(LifeError::TooLong { .. }) => window.life_ms_max,
            _ => LIFE_MS_UNSAID.min(window.life_ms_max),
        };
        Some(Minting { material, issued_at: None, expires_at: window.asked_at.plus(life_ms) })
    }
}

#[async_trait]
impl Source for Oauth2Refresh {
    fn kind(&self) -> &'static str {
        "oauth2-refresh"
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    fn is_chained(&self) -> bool {
        true
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let before = Before { announced: self.uses(Before::default()), ..Before::default() };
        self.mint_after(order, idempotency_key, before).await.map(|(minting, _)| minting)
    }

    fn uses(&self, before: Before<'_>) -> Option<OneUse> {
        let chain = self.chain(before).ok().filter(|_| self.rotates)?;
        Some(one_use(chain.token.expose()))
    }

    async fn mint_after(
        &self,
        order: &Order,
        idempotency_key: &str,
        before: Before<'_>,
    ) -> Result<(Minting, Option<Kept>), MintError> {
        let chain = self.chain(before)?;
        if self.rotates && before.announced != Some(one_use(chain.token.expose())) {
            let text = "`params.refresh_token` has changed since the lease was taken";
            return Err(MintError::nothing_minted(FaultClass::Transient, text));
        }
        let grant = [("grant_type", Secret::new("refresh_token".to_owned())), (TOKEN, chain.token.clone())];
        let granted =
            self.endpoint.ask(order, idempotency_key, &grant).await.map_err(|refusal| self.refused(refusal))?;
        let (minting, kept) = self.read(&granted, chain)?;
        Ok((minting, Some(kept)))
    }
}
