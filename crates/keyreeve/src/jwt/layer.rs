//! Verification in front of an axum router, or of any tower service over HTTP.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use keyreeve::jwt::{Bearer, Kit, RequireToken};
//!
//! async fn hello(Bearer(caller): Bearer) -> String {
//!     format!("hello {}", caller.claims().subject().unwrap_or("nobody"))
//! }
//!
//! # fn run() -> Result<Router, keyreeve::jwt::KitError> {
//! let kit = Kit::from_environment()?;
//! Ok(Router::new().route("/", get(hello)).layer(RequireToken::new(kit)))
//! # }
//! ```

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use keyreeve_core::jwt::{Claims, Verified};
use tower::{Layer, Service};

use super::kit::Kit;
use super::verifier::VerifyError;

/// What is asked about a caller whose token is good; false is 403.
pub type Admits = Arc<dyn Fn(&Verified<Claims>) -> bool + Send + Sync>;

/// Lets only requests with a good bearer token through, and hands their claims on: [`Bearer`] takes them.
///
/// Others are answered 401 with `WWW-Authenticate` (RFC 6750), 403 where [`admitting`](Self::admitting) says no, and 503 where
/// there are no keys to verify with. Why is logged, and strangers hear little.
#[derive(Clone)]
pub struct RequireToken {
    kit: Kit,
    admits: Option<Admits>,
}

impl RequireToken {
    /// Asks for a token that `kit` verifies.
    #[must_use]
    pub const fn new(kit: Kit) -> Self {
        Self { kit, admits: None }
    }

    /// Asks for more than a good token.
    #[must_use]
    pub fn admitting(mut self, admits: impl Fn(&Verified<Claims>) -> bool + Send + Sync + 'static) -> Self {
        self.admits = Some(Arc::new(admits));
        self
    }

    async fn judge(&self, headers: &HeaderMap) -> Result<Verified<Claims>, Denied> {
        let token = bearer(headers)?;
        let verified = self.kit.verify(token).await.map_err(Denied::of)?;
        // RFC 9449 7.2: a token that is bound to a key is nothing without the proof, and no proof is looked for here.
        let claims = verified.claims();
        let held = claims.check_possession(None).and_then(|()| claims.check_certificate(None));
        held.map_err(|refusal| Denied::of(refusal.into()))?;
        match &self.admits {
            Some(admits) if !admits(&verified) => {
                tracing::info!(subject = verified.claims().subject(), "token is good, but not enough");
                Err(Denied::Forbidden)
            }
            _ => Ok(verified),
        }
    }
}

/// The claims of the caller, behind [`RequireToken`].
pub struct Bearer(pub Verified<Claims>);

impl<S: Send + Sync> FromRequestParts<S> for Bearer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        // Without the layer nobody has verified anything: that is closed, not open.
        let verified = parts.extensions.get::<Arc<Verified<Claims>>>();
        verified.map(|verified| Self((**verified).clone())).ok_or_else(|| Denied::Missing.answer())
    }
}

/// Why a request does not go through.
enum Denied {
    Missing,
    Invalid(&'static str),
    Forbidden,
    Unavailable,
}

impl Denied {
    fn of(error: VerifyError) -> Self {
        match error {
            VerifyError::Refused(refusal) => {
                tracing::info!(code = refusal.code(), reason = %refusal, "token refused");
                Self::Invalid(refusal.public())
            }
            error @ (VerifyError::Unavailable(_) | VerifyError::Stale(_)) => {
                tracing::warn!(reason = %error, "token not verified");
                Self::Unavailable
            }
        }
    }

    fn answer(&self) -> Response {
        let (status, code, detail, challenge) = match self {
            Self::Missing => {
                (StatusCode::UNAUTHORIZED, "unauthenticated", "a bearer token is needed", Some("Bearer".to_owned()))
            }
            Self::Invalid(public) => {
                let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{public}\"");
                (StatusCode::UNAUTHORIZED, "unauthenticated", *public, Some(challenge))
            }
            Self::Forbidden => {
                let challenge = "Bearer error=\"insufficient_scope\"".to_owned();
                (StatusCode::FORBIDDEN, "forbidden", "the token does not allow this", Some(challenge))
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "tokens cannot be verified at the moment", None)
            }
        };
        let body = format!(r#"{{"code":"{code}","detail":"{detail}","status":{}}}"#, status.as_u16());
        let mut answer = Response::new(Body::from(body));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 2.1), said once.
fn bearer(headers: &HeaderMap) -> Result<&str, Denied> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return Err(Denied::Missing) };
    let (scheme, token) = one.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Denied::Missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(Denied::Missing) }
}

impl<S> Layer<S> for RequireToken {
    type Service = TokenRequired<S>;

    fn layer(&self, inner: S) -> TokenRequired<S> {
        TokenRequired { inner, wants: self.clone() }
    }
}

/// A service behind [`RequireToken`].
#[derive(Clone)]
pub struct TokenRequired<S> {
    inner: S,
    wants: RequireToken,
}

impl<S, B> Service<Request<B>> for TokenRequired<S>
where
    S: Service<Request<B>, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was polled ready is the one that is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let wants = self.wants.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match wants.judge(&parts.headers).await {
                Ok(verified) => {
                    parts.extensions.insert(Arc::new(verified));
                    inner.call(Request::from_parts(parts, body)).await
                }
                Err(denied) => Ok(denied.answer()),
            }
        })
    }
}
