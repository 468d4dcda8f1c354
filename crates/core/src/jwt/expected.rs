use super::claims::Claims;
use super::refusal::{Refusal, Shown};
use crate::time::Timestamp;

/// The most seconds by which clocks may differ.
pub const LEEWAY_S_MAX: u64 = 300;
/// What clocks may differ by where nobody says, in seconds.
const LEEWAY_S: u64 = 60;

/// Which `typ` a token must have (RFC 8725 3.11). Compared without regard to case and to a leading `application/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenType {
    /// None, `JWT` or `at+jwt`: not one that was made for another purpose, such as `dpop+jwt` or `logout+jwt`.
    #[default]
    Ordinary,
    /// `at+jwt`, with the claims that RFC 9068 demands.
    AccessToken,
    /// Exactly this one.
    Exactly(String),
}

/// An expectation that would accept anybody's token, or one that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrongExpectation {
    /// No issuer, or an empty one.
    #[error("an issuer is needed: without one, every holder of a key could speak for every other")]
    NoIssuer,
    /// No audience, or an empty one.
    #[error("an audience is needed: without one, tokens for other services would be accepted here")]
    NoAudience,
    /// A leeway longer than [`LEEWAY_S_MAX`].
    #[error("a leeway of {0}s is more than the limit of {LEEWAY_S_MAX}s")]
    Leeway(u64),
}

/// What a token has to say to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    issuers: Vec<String>,
    audiences: Vec<String>,
    typ: TokenType,
    leeway_s: u64,
    age_s_max: Option<u64>,
}

impl Expected {
    /// A token of one of `issuers` (exactly as they are written) for one of `audiences`, with a leeway of 60 seconds.
    ///
    /// # Errors
    /// [`WrongExpectation`] where one of the lists is empty or has an empty text.
    pub fn new<I, A>(issuers: I, audiences: A) -> Result<Self, WrongExpectation>
    where
        I: IntoIterator<Item: Into<String>>,
        A: IntoIterator<Item: Into<String>>,
    {
        let issuers: Vec<String> = issuers.into_iter().map(Into::into).collect();
        let audiences: Vec<String> = audiences.into_iter().map(Into::into).collect();
        let is_bad = |list: &[String]| list.is_empty() || list.iter().any(String::is_empty);
        if is_bad(&issuers) {
            return Err(WrongExpectation::NoIssuer);
        }
        if is_bad(&audiences) {
            return Err(WrongExpectation::NoAudience);
        }
        Ok(Self { issuers, audiences, typ: TokenType::Ordinary, leeway_s: LEEWAY_S, age_s_max: None })
    }

    /// With another leeway, in seconds.
    ///
    /// # Errors
    /// [`WrongExpectation::Leeway`] beyond [`LEEWAY_S_MAX`].
    pub fn with_leeway_s(mut self, leeway_s: u64) -> Result<Self, WrongExpectation> {
        if leeway_s > LEEWAY_S_MAX {
            return Err(WrongExpectation::Leeway(leeway_s));
        }
        self.leeway_s = leeway_s;
        Ok(self)
    }

    /// With another `typ`.
    #[must_use]
    pub fn with_type(mut self, typ: TokenType) -> Self {
        self.typ = typ;
        self
    }

    /// Not older than this many seconds, by its `iat`, which must then be there.
    #[must_use]
    pub const fn with_age_s_max(mut self, age_s_max: u64) -> Self {
        self.age_s_max = Some(age_s_max);
        self
    }

    /// The issuers.
    #[must_use]
    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// The audiences.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The leeway, in seconds.
    #[must_use]
    pub const fn leeway_s(&self) -> u64 {
        self.leeway_s
    }

    pub(super) fn check_type(&self, found: Option<&str>) -> Result<(), Refusal> {
        let is = |wanted: &str| found.is_some_and(|found| short(found).eq_ignore_ascii_case(short(wanted)));
        let is_good = match &self.typ {
            TokenType::Ordinary => found.is_none() || is("JWT") || is("at+jwt"),
            TokenType::AccessToken => is("at+jwt"),
            TokenType::Exactly(typ) => is(typ),
        };
        if is_good {
            return Ok(());
        }
        let wanted = match &self.typ {
            TokenType::Ordinary => "`JWT`, `at+jwt` or none".to_owned(),
            TokenType::AccessToken => "`at+jwt`".to_owned(),
            TokenType::Exactly(typ) => format!("`{typ}`"),
        };
        Err(Refusal::Type { found: Shown::of(found.unwrap_or("-")), wanted })
    }

    /// Judges claims whose signature is good.
    pub(super) fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        let issuer = claims.issuer().ok_or(Refusal::MissingClaim("iss"))?;
        if !self.issuers.iter().any(|wanted| wanted == issuer) {
            return Err(Refusal::WrongIssuer { found: Shown::of(issuer), wanted: one_of(&self.issuers) });
        }
        if !claims.audience().any(|found| self.audiences.iter().any(|wanted| wanted == found)) {
            if claims.audience().next().is_none() {
                return Err(Refusal::MissingClaim("aud"));
            }
            let found: Vec<String> = claims.audience().take(4).map(|one| format!("`{one}`")).collect();
            return Err(Refusal::WrongAudience {
                found: Shown::of(&found.join(", ")),
                wanted: one_of(&self.audiences),
            });
        }
        check_times(claims, now, self.leeway_s, self.age_s_max)?;
        if self.typ == TokenType::AccessToken {
            // RFC 9068 2.2.
            for (name, is_there) in [
                ("sub", claims.subject().is_some()),
                ("client_id", claims.client_id().is_some()),
                ("iat", claims.issued_at_s().is_some()),
                ("jti", claims.token_id().is_some()),
            ] {
                if !is_there {
                    return Err(Refusal::MissingClaim(name));
                }
            }
        }
        Ok(())
    }
}

/// RFC 7515 4.1.9: a media type, whose `application/` may be left out.
fn short(typ: &str) -> &str {
    let (start, rest) = typ.split_at_checked("application/".len()).unwrap_or(("", typ));
    if start.eq_ignore_ascii_case("application/") { rest } else { typ }
}

fn check_times(claims: &Claims, now: Timestamp, leeway_s: u64, age_s_max: Option<u64>) -> Result<(), Refusal> {
    let now_s = now.seconds();
    let latest_s = now_s.saturating_add(leeway_s);
    let expires_s = claims.expires_at_s().ok_or(Refusal::MissingClaim("exp"))?;
    // RFC 7519 4.1.4: on or after `exp` it must not be accepted, but for the leeway.
    if now_s >= expires_s.saturating_add(leeway_s) {
        return Err(Refusal::Expired { by_s: now_s.saturating_sub(expires_s) });
    }
    if let Some(starts_s) = claims.not_before_s()
        && starts_s > latest_s
    {
        return Err(Refusal::NotYetValid { in_s: starts_s.saturating_sub(now_s) });
    }
    if let Some(issued_s) = claims.issued_at_s()
        && issued_s > latest_s
    {
        return Err(Refusal::IssuedInFuture { in_s: issued_s.saturating_sub(now_s) });
    }
    if let Some(limit_s) = age_s_max {
        let issued_s = claims.issued_at_s().ok_or(Refusal::MissingClaim("iat"))?;
        let age_s = now_s.saturating_sub(issued_s);
        if age_s > limit_s.saturating_add(leeway_s) {
            return Err(Refusal::TooOld { age_s, limit_s });
        }
    }
    Ok(())
}

fn one_of(texts: &[String]) -> String {
    texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" or ")
}
