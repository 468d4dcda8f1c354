//! The routes, and who may use them.

use http::Method;

use super::hand_out::Asked;
use super::tokens;
use crate::config::{Action, Surface};

/// What gates of artifacts are counted and logged under.
#[cfg(feature = "objects")]
pub(super) const ARTIFACT_PATH: &str = "/{artifact}";
/// Where access tokens are.
pub(super) const TOKENS: &str = "/v1/tokens";
/// Where artifacts are published.
pub(super) const ARTIFACTS: &str = "/v1/artifacts/";
/// Where gates are.
pub(super) const GATES: &str = "/auth/";

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Anybody,
    /// Anybody, who is told a word; callers are told more.
    AnybodyForAWord,
    /// Whoever has a token that is accepted, for what the rules allow.
    Tokens,
    /// Callers who may do this.
    Callers(Action),
    /// Whoever can connect to a listener of its own, from this machine, and asks as the cloud's clients do.
    Local,
    /// Clients of the issuer, who prove themselves in the body or the headers as RFC 6749 has it.
    Clients,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    List,
    Show,
    Token,
    History,
    Report,
    Renew,
    Resolve,
    Events,
    Live,
    Ready,
    Metrics,
    Issuers,
    Issuer,
    Rotate,
    Retire,
    Jwks,
    Discovery,
    IssueToken,
    Introspect,
    Revoke,
    Verify,
    Gate,
    Aws,
    Metadata(Asked),
    Inject,
    Artifact,
    ReadArtifact,
    PublishArtifact,
    AccessToken(tokens::Asked),
    RevokeAny,
    Receipts,
}

/// One method of one path.
#[derive(Clone, Debug)]
pub struct Route {
    /// `GET` also stands for `HEAD`; at a gate it stands for every method.
    pub method: Method,
    /// The path; `{name}` is `name`, `tenant%2Fname` or `tenant/name`. Where the two segments of a tenant's name could be
    /// a name and an action, they are: a tenant's credential named `token` is written with `%2F`.
    pub path: &'static str,
    /// The surface it belongs to; none is on every listener.
    pub surface: Option<Surface>,
    /// Who may use it.
    pub access: Access,
    pub(super) endpoint: Endpoint,
}

const fn api(method: Method, path: &'static str, action: Action, endpoint: Endpoint) -> Route {
    Route { method, path, surface: Some(Surface::Api), access: Access::Callers(action), endpoint }
}

const fn opaque(method: Method, path: &'static str, action: Action, asked: tokens::Asked) -> Route {
    api(method, path, action, Endpoint::AccessToken(asked))
}

const fn open(path: &'static str, endpoint: Endpoint) -> Route {
    Route { method: Method::GET, path, surface: Some(Surface::Oauth2), access: Access::Anybody, endpoint }
}

const fn client(path: &'static str, endpoint: Endpoint) -> Route {
    Route { method: Method::POST, path, surface: Some(Surface::Oauth2), access: Access::Clients, endpoint }
}

const fn local(method: Method, path: &'static str, surface: Surface, asked: Asked) -> Route {
    Route { method, path, surface: Some(surface), access: Access::Local, endpoint: Endpoint::Metadata(asked) }
}

/// Every route.
pub static ROUTES: &[Route] = &[
    api(Method::GET, "/v1/credentials", Action::List, Endpoint::List),
    api(Method::GET, "/v1/credentials/{name}", Action::List, Endpoint::Show),
    api(Method::GET, "/v1/credentials/{name}/token", Action::Token, Endpoint::Token),
    api(Method::GET, "/v1/credentials/{name}/aws", Action::Token, Endpoint::Aws),
    api(Method::GET, "/v1/credentials/{name}/history", Action::History, Endpoint::History),
    api(Method::POST, "/v1/credentials/{name}/report", Action::Report, Endpoint::Report),
    api(Method::POST, "/v1/credentials/{name}/renew", Action::Renew, Endpoint::Renew),
    api(Method::POST, "/v1/credentials/{name}/resolve", Action::Resolve, Endpoint::Resolve),
    api(Method::GET, "/v1/events", Action::Events, Endpoint::Events),
    api(Method::GET, "/v1/issuers", Action::Keys, Endpoint::Issuers),
    api(Method::GET, "/v1/issuers/{name}", Action::Keys, Endpoint::Issuer),
    api(Method::POST, "/v1/issuers/{name}/rotate", Action::Rotate, Endpoint::Rotate),
    api(Method::POST, "/v1/issuers/{name}/retire", Action::Retire, Endpoint::Retire),
    opaque(Method::POST, "/v1/tokens", Action::Grant, tokens::Asked::Create),
    opaque(Method::GET, "/v1/tokens", Action::Tokens, tokens::Asked::List),
    opaque(Method::POST, "/v1/tokens/drop-target", Action::Grant, tokens::Asked::DropTarget),
    opaque(Method::POST, "/v1/tokens/verify", Action::Tokens, tokens::Asked::Verify),
    opaque(Method::GET, "/v1/tokens/mode", Action::Tokens, tokens::Asked::Mode),
    opaque(Method::POST, "/v1/tokens/mode", Action::Grant, tokens::Asked::SetMode),
    opaque(Method::GET, "/v1/tokens/{name}", Action::Tokens, tokens::Asked::Show),
    opaque(Method::POST, "/v1/tokens/{name}/roll", Action::Grant, tokens::Asked::Roll),
    opaque(Method::POST, "/v1/tokens/{name}/duplicate", Action::Grant, tokens::Asked::Duplicate),
    opaque(Method::POST, "/v1/tokens/{name}/revoke", Action::Grant, tokens::Asked::Revoke),
    open("/.well-known/jwks.json", Endpoint::Jwks),
    open("/.well-known/openid-configuration", Endpoint::Discovery),
    open("/.well-known/oauth-authorization-server", Endpoint::Discovery),
    client("/oauth2/token", Endpoint::IssueToken),
    client("/oauth2/introspect", Endpoint::Introspect),
    client("/oauth2/revoke", Endpoint::Revoke),
    open("/issuer/{name}/.well-known/jwks.json", Endpoint::Jwks),
    open("/issuer/{name}/.well-known/openid-configuration", Endpoint::Discovery),
    open("/.well-known/oauth-authorization-server/issuer/{name}", Endpoint::Discovery),
    client("/issuer/{name}/oauth2/token", Endpoint::IssueToken),
    client("/issuer/{name}/oauth2/introspect", Endpoint::Introspect),
    client("/issuer/{name}/oauth2/revoke", Endpoint::Revoke),
    api(Method::POST, "/v1/verify", Action::Verify, Endpoint::Verify),
    api(Method::POST, "/v1/revocations", Action::Revoke, Endpoint::RevokeAny),
    api(Method::GET, "/v1/revocations/{id}", Action::Revoke, Endpoint::Receipts),
    Route {
        method: Method::GET,
        path: "/auth/{gate}",
        surface: Some(Surface::Gate),
        access: Access::Tokens,
        endpoint: Endpoint::Gate,
    },
    api(Method::GET, "/v1/artifacts/{artifact}", Action::Artifacts, Endpoint::ReadArtifact),
    api(Method::PUT, "/v1/artifacts/{artifact}", Action::Publish, Endpoint::PublishArtifact),
    Route { method: Method::GET, path: "/livez", surface: None, access: Access::Anybody, endpoint: Endpoint::Live },
    Route {
        method: Method::GET,
        path: "/readyz",
        surface: None,
        access: Access::AnybodyForAWord,
        endpoint: Endpoint::Ready,
    },
    Route {
        method: Method::GET,
        path: "/metrics",
        surface: Some(Surface::Metrics),
        access: Access::Callers(Action::Metrics),
        endpoint: Endpoint::Metrics,
    },
    local(Method::PUT, "/latest/api/token", Surface::Imds, Asked::ImdsSession),
    local(Method::GET, "/latest/meta-data/iam/security-credentials/", Surface::Imds, Asked::ImdsRoles),
    local(Method::GET, "/latest/meta-data/iam/security-credentials/{name}", Surface::Imds, Asked::ImdsKeys),
    local(Method::GET, "/", Surface::Gce, Asked::GceRoot),
    local(Method::GET, "/computeMetadata/v1/instance", Surface::Gce, Asked::GceInstance),
    local(Method::GET, "/computeMetadata/v1/project/project-id", Surface::Gce, Asked::GceProject),
    local(Method::GET, "/computeMetadata/v1/universe/universe-domain", Surface::Gce, Asked::GceUniverse),
    local(Method::GET, "/computeMetadata/v1/instance/service-accounts/{name}/", Surface::Gce, Asked::GceAccount),
    local(Method::GET, "/computeMetadata/v1/instance/service-accounts/{name}/email", Surface::Gce, Asked::GceEmail),
    local(Method::GET, "/computeMetadata/v1/instance/service-accounts/{name}/token", Surface::Gce, Asked::GceToken),
    local(
        Method::GET,
        "/computeMetadata/v1/instance/service-accounts/{name}/identity",
        Surface::Gce,
        Asked::GceIdentity,
    ),
    local(Method::GET, "/metadata/identity/oauth2/token", Surface::Azure, Asked::AzureToken),
    local(Method::GET, "/msi/token", Surface::Azure, Asked::AzureAppToken),
    Route {
        method: Method::GET,
        path: "/{upstream}",
        surface: Some(Surface::Inject),
        access: Access::Local,
        endpoint: Endpoint::Inject,
    },
    Route {
        method: Method::GET,
        path: "/{artifact}",
        surface: Some(Surface::Artifact),
        access: Access::Tokens,
        endpoint: Endpoint::Artifact,
    },
];
