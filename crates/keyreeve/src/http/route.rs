//! The way of a request through the [routes](super::routes).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::Request;
use futures::future::Either;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts as Head;
use http::{HeaderValue, Method};

use super::api::{Answering, Api, RequestId};
use super::auth::{Caller, Peer, action_name};
use super::hand_out;
use super::hand_out::Metadata;
use super::inject::{self, Inject};
use super::input;
use super::problem::{Answer, FORBIDDEN, METHOD, NOT_FOUND, Problem};
use super::routes::{ARTIFACTS, Access, Endpoint, GATES, ROUTES, Route, TOKENS};
use super::sizes::check_sizes;
use super::{change, credentials, events, forward, gate, health, issuer, oauth2, revocations, token, tokens, verify};
use crate::config::MetadataKind;
use crate::config::{Action, Surface};
use crate::inbound::Issuing;

/// Whether this is a process of its own, with addresses that programs beside it can ask.
const IS_NATIVE: bool = !cfg!(target_arch = "wasm32");
/// What one listener serves. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    api: Arc<Api>,
    paths: Arc<[Path]>,
    metadata: Option<Arc<Metadata>>,
    inject: Option<Arc<Inject>>,
    #[cfg(feature = "objects")]
    artifacts: Option<Arc<super::artifacts::ArtifactGate>>,
}

/// A path and what can be done there.
struct Path {
    before: &'static str,
    /// What follows the name, where the path has one.
    after: Option<&'static str>,
    rows: Vec<Row>,
}

type Row = (usize, &'static Route);

/// An answer that takes time.
pub(super) type Waiting = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl Path {
    /// Whether `path` is this one, and the name in it as it was sent, if it has one.
    fn matches<'a>(&self, path: &'a str) -> Option<Option<&'a str>> {
        let rest = path.strip_prefix(self.before)?;
        let Some(after) = self.after else { return rest.is_empty().then_some(None) };
        // What follows the name of a gate is the path that is asked about, or an artifact.
        if self.before == GATES || self.before == ARTIFACTS {
            return Some(Some(rest));
        }
        let name = rest.strip_suffix(after)?;
        let (tenant, own) = name.split_once('/').unwrap_or(("-", name));
        (!tenant.is_empty() && !own.is_empty() && !own.contains('/')).then_some(Some(name))
    }
}

impl Site {
    /// What a listener with these surfaces serves.
    ///
    /// Whoever serves it must bound what arrives before a request is one: connections, their number, the time for headers.
    #[must_use]
    pub fn new(api: Arc<Api>, surfaces: &BTreeSet<Surface>) -> Self {
        let mut paths: Vec<Path> = Vec::new();
        for row @ (_, route) in ROUTES.iter().enumerate() {
            let is_served = route.surface.is_none_or(|surface| surfaces.contains(&surface));
            let is_there = match route.endpoint {
                Endpoint::Metrics => api.metrics.is_some(),
                _ if route.path.starts_with(ARTIFACTS) => has_artifacts(&api.live()),
                _ if route.path.starts_with(TOKENS) => api.live().tokens.is_some(),
                _ => is_issued(api.live().issuing.as_ref(), route),
            };
            if !(is_served && is_there) {
                continue;
            }
            let named = ["{name}", "{gate}", "{upstream}", "{id}", "{artifact}"];
            let named = named.iter().find_map(|name| route.path.split_once(name));
            let (before, after) = match named {
                Some((before, after)) => (before, Some(after)),
                None => (route.path, None),
            };
            match paths.iter_mut().find(|path| path.before == before && path.after == after) {
                Some(path) => path.rows.push(row),
                None => paths.push(Path { before, after, rows: vec![row] }),
            }
        }
        // `acme/token` is the token of `acme` rather than the credential `token` of the tenant `acme`, and a path without a name
        // is that path rather than a name. Gates come first: they are asked most, and nothing else is below their path.
        let rank = |path: &Path| (path.before == GATES, path.after.is_none(), path.after.map(str::len));
        paths.sort_by_key(|path| std::cmp::Reverse(rank(path)));
        Self {
            api,
            paths: paths.into(),
            metadata: None,
            inject: None,
            #[cfg(feature = "objects")]
            artifacts: None,
        }
    }

    /// What a listener serves that hands artifacts to holders of tokens: the gate of this name, if the configuration has it.
    #[cfg(feature = "objects")]
    #[must_use]
    pub fn artifacts(api: Arc<Api>, name: &str) -> Self {
        let artifacts = api.live().artifacts.get(name).map(Arc::clone);
        Self { artifacts, ..Self::new(api, &BTreeSet::from([Surface::Artifact])) }
    }

    /// What a listener serves that stands in for the metadata service of a cloud. Whoever can connect to it is handed the
    /// credential, so it belongs on an address that only this machine can reach.
    #[must_use]
    pub fn metadata(api: Arc<Api>, kind: MetadataKind) -> Self {
        let metadata = Metadata::new(kind, api.host.as_ref());
        let surfaces = BTreeSet::from([metadata.surface()]);
        Self { metadata: Some(Arc::new(metadata)), ..Self::new(api, &surfaces) }
    }

    /// What a listener serves that adds a credential to everything on its way to an upstream. Whoever can connect to it may
    /// use the credential.
    #[must_use]
    pub fn inject(api: Arc<Api>, inject: Inject) -> Self {
        Self { inject: Some(Arc::new(inject)), ..Self::new(api, &BTreeSet::from([Surface::Inject])) }
    }

    /// Answers a request. A [`Peer`] in its extensions says who is at the other end of a Unix socket.
    ///
    /// A token that is there is answered on the spot. Dropping the future cancels waiting, never a renewal or a change.
    pub fn answer(&self, request: Request) -> impl Future<Output = Answer> + Send + use<> {
        self.answer_from(request, None)
    }

    /// The same for a request that came from this address, where it is known: some access tokens are good at some only.
    pub fn answer_from(
        &self,
        request: Request,
        address: Option<IpAddr>,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let is_passed_on = self.inject.is_some();
        // An upstream knows itself how long the body is that it does not send.
        let is_head = request.method() == Method::HEAD && !is_passed_on;
        let (head, body) = request.into_parts();
        #[cfg(feature = "objects")]
        if let Some(gate) = &self.artifacts {
            return match super::artifacts::begin(&self.api, gate, head, address) {
                super::artifacts::Begun::Answered(answer) => {
                    Either::Left(std::future::ready(if is_head { bare(answer) } else { answer }))
                }
                super::artifacts::Begun::Waiting(waiting) => Either::Right(waiting),
            };
        }
        #[cfg(not(feature = "objects"))]
        let _ = address;
        match begin(self, &head) {
            Begun::Answered(answer) => Either::Left(std::future::ready(if is_head { bare(answer) } else { answer })),
            Begun::Later(later) => {
                let later: Waiting = Box::pin(async move {
                    let answer = later.answer(head, body).await;
                    if is_head { bare(answer) } else { answer }
                });
                Either::Right(later)
            }
        }
    }

    /// Answers a request whose answer is there already: a token that this node holds, for a caller who may have it. `None` for
    /// every other request, of which nothing has been counted or logged then: [`answer`](Self::answer) takes them all.
    ///
    /// For a host to which a request costs less than a future does. The answer is the one of `answer`.
    #[must_use]
    pub fn answer_now(&self, head: &Head) -> Option<Answer> {
        let live = self.api.live();
        let mut known = Known::default();
        let (_, answer) = look(self, &live, head, &mut known).ok()?;
        let answer = finish(&self.api, self.api.next_request_id(), known.row(), answer?);
        Some(if head.method == Method::HEAD { bare(answer) } else { answer })
    }

    fn find<'a>(&self, path: &'a str) -> Option<(&[Row], Option<&'a str>)> {
        self.paths.iter().find_map(|known| Some((known.rows.as_slice(), known.matches(path)?)))
    }
}

/// Whether anything is published here. Gates of artifacts are not in a Worker's wasm.
fn has_artifacts(live: &Answering) -> bool {
    #[cfg(feature = "objects")]
    return !live.artifacts.is_empty();
    #[cfg(not(feature = "objects"))]
    {
        let _ = live;
        false
    }
}

/// Whether a route about issuers is there: those that name none belong to the only one.
fn is_issued(issuing: Option<&Issuing>, route: &Route) -> bool {
    let is_about_issuers = route.surface == Some(Surface::Oauth2) || route.path.starts_with("/v1/issuers");
    let names_none = route.surface == Some(Surface::Oauth2) && !route.path.contains("{name}");
    match issuing {
        None => !is_about_issuers,
        Some(issuing) => !names_none || issuing.issuers.only().is_some(),
    }
}

/// A [`Site`] as an axum router, for whatever wants one.
pub fn router(api: Arc<Api>, surfaces: &BTreeSet<Surface>) -> Router {
    let site = Site::new(api, surfaces);
    Router::new().fallback(move |request: Request| site.answer(request))
}

/// The answer to `HEAD` (RFC 9110 9.3.2): everything but the body.
pub(super) fn bare(answer: Answer) -> Answer {
    let (mut head, body) = answer.into_parts();
    // A body that is not read at all says itself how long it would have been.
    if let Some(length) = body.size_hint().exact()
        && !head.headers.contains_key(CONTENT_LENGTH)
        && head.status != http::StatusCode::NOT_MODIFIED
    {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Answer::from_parts(head, axum::body::Body::empty())
}

enum Begun {
    Answered(Answer),
    Later(Box<Later>),
}

/// A request that has passed every check, and whose answer may take time.
pub(super) struct Later {
    pub(super) api: Arc<Api>,
    pub(super) live: Arc<Answering>,
    /// There, unless the route is open to anybody.
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) route: &'static Route,
    /// The credential; empty where the route has none.
    pub(super) name: String,
    /// What the listener hands out, where it stands in for a cloud's metadata service.
    pub(super) metadata: Option<Arc<Metadata>>,
    /// Where the listener sends everything on to, if it does.
    pub(super) inject: Option<Arc<Inject>>,
    row: usize,
    id: RequestId,
}

/// Everything that needs no waiting: sizes, method, caller, right, and the token that is there.
fn begin(site: &Site, head: &Head) -> Begun {
    let api = &site.api;
    let id = api.next_request_id();
    let live = api.live();
    let mut known = Known::default();
    let answer = match (look(site, &live, head, &mut known), known.row) {
        (Ok((_, Some(answer))), _) => answer,
        (Ok((name, None)), Some((row, route))) => {
            let (caller, live, name) = (known.caller.cloned(), api.live_full(), name.into_owned());
            return Begun::Later(Box::new(Later {
                api: Arc::clone(api),
                live,
                caller,
                route,
                name,
                metadata: site.metadata.clone(),
                inject: site.inject.clone(),
                row,
                id,
            }));
        }
        (Ok((_, None)), None) => no_route(&[], head).answer(id, None, "-"),
        (Err(problem), row) => {
            let problem = hand_out::dressed(problem, row.map(|(_, route)| route.endpoint));
            problem.answer(id, known.caller.map(|caller| &*caller.name), row.map_or("-", |(_, route)| route.path))
        }
    };
    Begun::Answered(finish(api, id, known.row(), answer))
}

/// Checks a request, and answers it where the answer is there. Returns the name of the credential, if the route has one.
fn look<'a>(
    site: &Site,
    live: &'a Answering,
    head: &'a Head,
    known: &mut Known<'a>,
) -> Result<(Cow<'a, str>, Option<Answer>), Problem> {
    let name = check(site, live, head, known)?;
    let now = match known.row {
        Some((_, route)) if route.endpoint == Endpoint::Token => token::now(&site.api, live, &name, head)?,
        Some((_, route)) if route.endpoint == Endpoint::Aws => hand_out::aws_now(&site.api, live, &name, head)?,
        Some((_, route)) if route.endpoint == Endpoint::Live => Some(health::live()),
        Some((_, route)) if route.endpoint == Endpoint::Gate => gate::now(&site.api, live, &name, head)?,
        _ => None,
    };
    Ok((name, now))
}

/// What is known about a request so far, for the log and the counts.
#[derive(Default)]
struct Known<'a> {
    row: Option<Row>,
    caller: Option<&'a Arc<Caller>>,
}

impl Known<'_> {
    /// Where the request is counted.
    fn row(&self) -> usize {
        self.row.map_or(ROUTES.len(), |(row, _)| row)
    }
}

/// Refuses whatever must not get any further. Returns the name of the credential, if the route has one.
fn check<'a>(site: &Site, live: &'a Answering, head: &'a Head, known: &mut Known<'a>) -> Result<Cow<'a, str>, Problem> {
    if let Some(inject) = &site.inject
        && IS_NATIVE
    {
        check_sizes(head, true)?;
        known.row = ROUTES.iter().enumerate().find(|(_, route)| route.endpoint == Endpoint::Inject);
        return inject::check(inject, head).map(|()| "".into());
    }
    let is_gate = head.uri.path().starts_with(GATES);
    check_sizes(head, is_gate)?;
    let (rows, raw) = site.find(head.uri.path()).ok_or_else(|| no_route(&[], head))?;
    let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
    let is_of = |route: &Route| route.method == *method || route.endpoint == Endpoint::Gate;
    let Some(row) = rows.iter().find(|(_, route)| is_of(route)) else {
        return Err(no_route(rows, head));
    };
    known.row = Some(*row);
    let (_, route) = row;
    if route.access == Access::Tokens {
        return Ok(raw.unwrap_or_default().into());
    }
    known.caller = identify(live, head, route.endpoint)?;
    let action = match route.access {
        Access::Local => {
            match (route.endpoint, &site.metadata) {
                (Endpoint::Metadata(asked), Some(metadata)) if IS_NATIVE => {
                    hand_out::check_metadata(&site.api, metadata, head, asked)?;
                }
                _ => return Err(no_route(&[], head)),
            }
            return raw.map_or(Ok("".into()), |raw| input::unescaped(raw).ok_or_else(|| no_route(&[], head)));
        }
        Access::Anybody | Access::AnybodyForAWord | Access::Clients | Access::Tokens => {
            return raw.map_or(Ok("".into()), |raw| input::unescaped(raw).ok_or_else(|| no_route(&[], head)));
        }
        Access::Callers(action) => action,
    };
    let caller = known.caller.ok_or_else(Problem::unauthenticated)?;
    if !caller.may(action) {
        let text = format!(
            "`{0}` may not `{1}`\nhint: add \"{1}\" to `can` of caller `{0}` in the configuration",
            caller.name,
            action_name(action)
        );
        return Err(Problem::new(FORBIDDEN, text));
    }
    let Some(raw) = raw else { return Ok("".into()) };
    match input::unescaped(raw) {
        name if route.path.starts_with("/v1/issuers") => {
            let name = name.unwrap_or_default();
            if caller.reaches_issuer(&name) { Ok(name) } else { Err(issuer::no_such(&name)) }
        }
        // Whose an artifact is stands in its name, which is taken as it was sent.
        _ if route.path.starts_with(ARTIFACTS) => Ok(raw.into()),
        // Whose a token is stands in its record.
        name if route.path.starts_with(TOKENS) => Ok(name.unwrap_or_default()),
        // It names nothing that belongs to some callers only.
        name if route.endpoint == Endpoint::Receipts => Ok(name.unwrap_or_default()),
        Some(name) if caller.reaches(&name) => Ok(name),
        Some(name) => Err(Problem::unknown_name(&name)),
        None => Err(Problem::unknown_name("")),
    }
}

/// Who asks, by what the clients of this endpoint send.
fn identify<'a>(live: &'a Answering, head: &Head, endpoint: Endpoint) -> Result<Option<&'a Arc<Caller>>, Problem> {
    let peer = head.extensions.get::<Peer>().copied();
    Ok(match endpoint {
        Endpoint::Aws => {
            // A Worker is asked from afar, by way of Cloudflare; a node is asked by programs beside it.
            if IS_NATIVE {
                hand_out::check_local(head, false)?;
            }
            live.callers.identify_bare(&head.headers, &AUTHORIZATION, peer)
        }
        Endpoint::Metadata(_) => live.callers.identify_bare(&head.headers, &hand_out::IDENTITY, None),
        _ => live.callers.identify(&head.headers, peer),
    })
}

fn no_route(rows: &[Row], head: &Head) -> Problem {
    if rows.is_empty() {
        let text = "there is nothing at this path\nhint: the API is under `/v1`; `openapi.json` lists its paths";
        return Problem::new(NOT_FOUND, text);
    }
    let mut methods = Vec::new();
    for (_, route) in rows {
        methods.push(route.method.as_str());
        if route.method == Method::GET {
            methods.push("HEAD");
        }
    }
    let methods = methods.join(", ");
    // A method is a token (RFC 9110 9.1), but it may be a long one.
    let sent = if head.method.as_str().len() <= 16 { head.method.as_str() } else { "that method" };
    Problem::new(METHOD, format!("`{sent}` is not a method of this path\nhint: use {methods}")).allowing(methods)
}

impl Later {
    async fn answer(self: Box<Self>, head: Head, body: axum::body::Body) -> Answer {
        if let Some(to) = forward::applies(&self) {
            let who = self.caller.as_ref().map(|caller| &*caller.name);
            return match forward::send(&self, to.as_ref(), head, body).await {
                // Finished where it was made, under the id that the log over there knows.
                Ok(answer) => {
                    self.api.counts.count(self.row, answer.status().as_u16());
                    answer
                }
                Err(problem) => finish(&self.api, self.id, self.row, problem.answer(self.id, who, self.route.path)),
            };
        }
        let result = match self.route.endpoint {
            Endpoint::List => credentials::list(&self, &head).await,
            Endpoint::Show => credentials::show(&self, &head),
            Endpoint::Token => token::wait(&self, &head).await,
            Endpoint::Aws => hand_out::aws_wait(&self).await,
            Endpoint::Metadata(_) | Endpoint::Inject => match self.handed_out(&head, body).await {
                // As the upstream sent it.
                Ok(answer) if self.route.endpoint == Endpoint::Inject => {
                    self.api.counts.count(self.row, answer.status().as_u16());
                    return answer;
                }
                result => result,
            },
            Endpoint::History => credentials::history(&self, &head).await,
            Endpoint::Report => change::report(&self, &head, body).await,
            Endpoint::Renew => change::renew(&self, &head, body).await,
            Endpoint::Resolve => change::resolve(&self, &head, body).await,
            Endpoint::Events => events::follow(&self, &head),
            Endpoint::Verify => verify::verify(&self, &head, body).await,
            Endpoint::Gate => gate::wait(&self, &head).await,
            Endpoint::Live => Ok(health::live()),
            Endpoint::Ready => health::ready(&self).await,
            Endpoint::Metrics => health::metrics_page(&self),
            #[cfg(feature = "objects")]
            Endpoint::ReadArtifact | Endpoint::PublishArtifact => super::artifacts::publish(&self, &head, body).await,
            #[cfg(not(feature = "objects"))]
            Endpoint::ReadArtifact | Endpoint::PublishArtifact => Err(no_route(&[], &head)),
            // Answered before.
            Endpoint::Artifact => Err(no_route(&[], &head)),
            Endpoint::Issuers | Endpoint::Issuer | Endpoint::Rotate | Endpoint::Retire => {
                self.issued(&head, body).await
            }
            Endpoint::Jwks | Endpoint::Discovery => self.issued(&head, body).await,
            Endpoint::IssueToken | Endpoint::Introspect | Endpoint::Revoke => self.issued(&head, body).await,
            Endpoint::AccessToken(asked) => self.of_tokens(&head, body, asked).await,
            Endpoint::RevokeAny | Endpoint::Receipts => self.revoked(&head, body).await,
        };
        let who = self.caller.as_ref().map(|caller| &*caller.name);
        let dressed = |problem| hand_out::dressed(problem, Some(self.route.endpoint));
        let answer = result.unwrap_or_else(|problem| dressed(problem).answer(self.id, who, self.route.path));
        finish(&self.api, self.id, self.row, answer)
    }

    /// What is answered to whoever can connect. A Worker has no addresses of its own: its wasm leaves this out.
    fn handed_out<'a>(
        &'a self,
        head: &'a Head,
        body: axum::body::Body,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send + 'a>> {
        if !IS_NATIVE {
            return Box::pin(std::future::ready(Err(no_route(&[], head))));
        }
        Box::pin(async move {
            match (self.route.endpoint, &self.inject) {
                (Endpoint::Metadata(asked), _) => hand_out::metadata(self, head, asked).await,
                (_, Some(inject)) => inject::answer(self, inject, head, body).await,
                (_, None) => Err(no_route(&[], head)),
            }
        })
    }

    /// What a node with issuers answers. A Worker has none, since its configuration refuses them: its wasm leaves this out.
    fn issued<'a>(
        &'a self,
        head: &'a Head,
        body: axum::body::Body,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send + 'a>> {
        if cfg!(target_arch = "wasm32") {
            return Box::pin(std::future::ready(Err(Problem::new(NOT_FOUND, "there are no issuers on a Worker"))));
        }
        Box::pin(async move {
            match self.route.endpoint {
                Endpoint::Issuers => issuer::list(self, head),
                Endpoint::Issuer => issuer::show(self, head),
                Endpoint::Rotate => issuer::rotate(self, head, body).await,
                Endpoint::Retire => issuer::retire(self, head, body).await,
                Endpoint::Jwks => issuer::jwks(self, head).await,
                Endpoint::Discovery => issuer::discovery(self, head),
                _ => oauth2::answer(self, head, body).await,
            }
        })
    }

    /// What a node with access tokens answers. A Worker has none, since its configuration refuses them: its wasm leaves this
    /// out.
    fn of_tokens<'a>(
        &'a self,
        head: &'a Head,
        body: axum::body::Body,
        asked: tokens::Asked,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send + 'a>> {
        if !IS_NATIVE {
            return Box::pin(std::future::ready(Err(no_route(&[], head))));
        }
        Box::pin(tokens::answer(self, head, body, asked))
    }

    /// What a node that follows revocations answers. A Worker follows none: its wasm leaves this out.
    fn revoked<'a>(
        &'a self,
        head: &'a Head,
        body: axum::body::Body,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send + 'a>> {
        if !IS_NATIVE {
            return Box::pin(std::future::ready(Err(no_route(&[], head))));
        }
        Box::pin(async move {
            match self.route.endpoint {
                Endpoint::RevokeAny => revocations::revoke(self, head, body).await,
                _ => revocations::receipts(self, head).await,
            }
        })
    }

    /// The id of the request, for its log lines.
    pub(super) const fn request_id(&self) -> RequestId {
        self.id
    }

    /// The caller's name.
    pub(super) fn who(&self) -> &str {
        self.caller.as_ref().map_or("-", |caller| &*caller.name)
    }

    /// Whether the caller is told what goes on inside, such as the store's own words: who may read histories.
    pub(super) fn tells_causes(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.may(Action::History))
    }

    /// Whether the issuer is one of the caller's.
    pub(super) fn reaches_issuer(&self, name: &str) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.reaches_issuer(name))
    }

    /// Whether access tokens for this target are the caller's.
    pub(super) fn reaches_tokens(&self, family: &str, target: &str) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.reaches_tokens(family, target))
    }

    /// Whether the access tokens for every target of a family are the caller's.
    pub(super) fn reaches_family(&self, family: &str) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.reaches_family(family))
    }

    /// Whether the credential is one of the caller's.
    pub(super) fn reaches(&self, name: &str) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.reaches(name))
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every answer has.
pub(super) fn finish(api: &Api, id: RequestId, row: usize, mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    // Hexadecimal digits are a valid header value.
    if let Ok(id) = HeaderValue::from_bytes(id.digits().as_slice()) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    api.counts.count(row, answer.status().as_u16());
    answer
}
