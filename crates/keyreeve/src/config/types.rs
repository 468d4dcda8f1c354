//! Valid settings. Made by the reader of this module's parent from TOML, environment and defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use keyreeve_core::id::{CredentialName, IssuerName};
pub use keyreeve_core::jwt::Algorithm;
use keyreeve_core::policy::Policy;
use keyreeve_core::rules::Rules;
use keyreeve_core::schedule::Slots;
use keyreeve_core::secret::Secret;

use super::access::FamilyConfig;
use super::artifact::{ArtifactConfig, ObjectsConfig};
use super::asked::{AwsConfig, ExchangeConfig, GcpConfig, GithubConfig, GoogleConfig, RefreshConfig, TokenConfig};
use super::client::ClientConfig;
use super::hand_out::{FileConfig, MetadataConfig};
use super::inbound::{GateConfig, VerifierConfig};
use super::inject::InjectConfig;
use super::issuer::IssuerConfig;
use super::postgres::PostgresUrl;
use super::revocation::RevocationConfig;
use crate::port::Via;

/// Where keyreeve runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// A process of an operating system.
    #[default]
    Native,
    /// A Cloudflare Worker.
    Worker,
}

/// The whole configuration of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the register is.
    pub store: StoreUrl,
    /// What the messages between native nodes and a Worker's register are signed with. There wherever `store` is
    /// [`StoreUrl::Remote`]; a Worker without one answers no native node.
    pub store_key: Option<SecretRef>,
    /// The key before: a Worker still takes it from nodes that have not changed over.
    pub store_old_key: Option<SecretRef>,
    /// The password of a [`StoreUrl::Postgres`]; without one the server has to know this node by other means.
    pub store_password: Option<SecretRef>,
    /// The authorities to believe about a [`StoreUrl::Postgres`], instead of the system's: certificates in PEM.
    pub store_ca: Option<PathBuf>,
    /// What a Worker keeps sealed credentials in, between its own memory and the register, in the order of asking.
    pub caches: Vec<CacheTier>,
    /// After this long, in milliseconds, a store that has not answered is taken not to have answered.
    pub store_ms: u64,
    /// Whose `Date` the clock is measured by; without one the system clock is trusted.
    pub clock_url: Option<String>,
    /// Seal keys: the first seals, all open. Empty only where no credential needs the store.
    pub seal_keys: Vec<SecretRef>,
    /// Where to listen. Empty on a Worker.
    pub listeners: Vec<Listener>,
    /// The credentials, by name.
    pub credentials: BTreeMap<CredentialName, CredentialConfig>,
    /// Who may call, by name.
    pub callers: BTreeMap<String, CallerConfig>,
    /// Who signs tokens, by name.
    pub issuers: BTreeMap<IssuerName, IssuerConfig>,
    /// Who may ask an issuer, by `client_id`.
    pub clients: BTreeMap<String, ClientConfig>,
    /// Families of access tokens, by name. Empty on a Worker.
    pub tokens: BTreeMap<String, FamilyConfig>,
    /// Whose tokens are accepted, by name.
    pub verifiers: BTreeMap<String, VerifierConfig>,
    /// What lets requests through, by name.
    pub gates: BTreeMap<String, GateConfig>,
    /// What adds credentials to requests, by name. Empty on a Worker.
    pub injects: BTreeMap<String, InjectConfig>,
    /// Where objects are, by name. Empty on a Worker.
    pub objects: BTreeMap<String, ObjectsConfig>,
    /// What hands artifacts to holders of tokens, by name. Empty on a Worker.
    pub artifacts: BTreeMap<String, ArtifactConfig>,
    /// Stand-ins for the metadata services of clouds, by name. Empty on a Worker.
    pub metadata: BTreeMap<String, MetadataConfig>,
    /// Files that hold credentials, by name. Empty on a Worker.
    pub files: BTreeMap<String, FileConfig>,
    /// Who may do what.
    pub policy: Policy,
    /// How it is known what is revoked; none where nothing can be. None on a Worker.
    pub revocation: Option<RevocationConfig>,
    /// Limits of the HTTP surface.
    pub limits: Limits,
}

/// A register by URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:PATH`: a file that all processes of one machine share.
    Sqlite(PathBuf),
    /// `postgres://USER@HOST/DATABASE`: a table in PostgreSQL.
    Postgres(PostgresUrl),
    /// `memory:`: this process only.
    Memory,
    /// `https://HOST`: the register behind a keyreeve Worker. Without a slash at its end; `http` on loopback.
    Remote(String),
    /// `do:BINDING`: Durable Objects of this Worker, one for each credential.
    DurableObject(String),
    /// `r2:BINDING`: a bucket of this Worker.
    Bucket(String),
}

impl fmt::Display for StoreUrl {
    /// As it would be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
            Self::Memory => f.write_str("memory:"),
            Self::Remote(url) => f.write_str(url),
            Self::DurableObject(binding) => write!(f, "do:{binding}"),
            Self::Bucket(binding) => write!(f, "r2:{binding}"),
        }
    }
}

/// A cache that all isolates of a Worker share, more or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheTier {
    /// `cache`: the Cache API of a data centre.
    Cache,
    /// `kv:BINDING`: a KV namespace.
    Kv(String),
}

impl fmt::Display for CacheTier {
    /// As it would be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache => f.write_str("cache"),
            Self::Kv(binding) => write!(f, "kv:{binding}"),
        }
    }
}

/// Where a secret is. The secret itself is never in the configuration, except under `keyreeve dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`: an environment variable.
    Env(String),
    /// `file:PATH`: the contents of a file.
    File(PathBuf),
    /// `binding:NAME`: a secret binding of a Worker.
    Binding(String),
    /// `name-in:VAR`: the variable `VAR` holds the name of the variable with the secret.
    NameIn(String),
    /// A literal, for `keyreeve dev` and tests.
    Literal(Secret<String>),
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its address.
    pub bind: Bind,
    /// What it serves.
    pub serve: BTreeSet<Surface>,
    /// What it proves itself with; without it, it speaks no TLS.
    pub tls: Option<TlsConfig>,
}

/// The TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Its certificate, with those between it and its authority.
    pub certificate: SecretRef,
    /// The certificate's private key.
    pub key: SecretRef,
    /// Who vouches for the names of clients.
    pub client_ca: Option<SecretRef>,
    /// What they vouch for no longer.
    pub crl: Vec<SecretRef>,
}

/// A socket address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket; callers are known by the uid of the peer.
    Unix(PathBuf),
}

/// A group of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Surface {
    /// `/v1`.
    Api,
    /// `/metrics`.
    Metrics,
    /// `/oauth2`, and the keys and documents of issuers.
    Oauth2,
    /// `/auth`.
    Gate,
    /// Everything, on its way to an upstream. Only on a listener of its own, as the others below.
    Inject,
    /// Everything, as the paths of artifacts.
    Artifact,
    /// What AWS's metadata service has.
    Imds,
    /// What Google's metadata service has.
    Gce,
    /// What Azure's metadata service has.
    Azure,
}

/// One credential.
#[derive(Clone, Debug)]
pub struct CredentialConfig {
    /// How it is minted.
    pub source: SourceConfig,
    /// How the fleet coordinates.
    pub plan: Plan,
    /// Whether it is renewed without demand.
    pub keep: Keep,
    /// How long a caller without a valid credential waits for one, in milliseconds.
    pub wait_ms: u64,
    /// How its requests leave, where that is not the usual way.
    pub via: Option<Via>,
}

/// How the fleet coordinates on one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Not at all: each node computes the token of the slot.
    Slot(Slots),
    /// Through the register.
    Fleet(Rules),
}

/// When a credential is renewed although nobody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Always.
    Always,
    /// Until nobody has asked for it for this many lifetimes.
    OnDemand {
        /// Lifetimes.
        lifetimes: u32,
    },
}

/// How a credential is minted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// Apple's push provider token.
    Apns {
        /// The `.p8` key.
        key: SecretRef,
        /// Ten characters.
        team_id: String,
        /// Ten characters.
        key_id: String,
    },
    /// A self-signed assertion.
    Jwt {
        /// Private key (PEM, JWK) or HMAC secret.
        key: SecretRef,
        /// Signature algorithm.
        algorithm: Algorithm,
        /// Header members besides `alg`, in order.
        header: serde_json::Map<String, serde_json::Value>,
        /// Claims, in order; see the `jwt` source for the placeholders.
        claims: serde_json::Map<String, serde_json::Value>,
    },
    /// The user's own script.
    Exec {
        /// Program and arguments. No shell.
        argv: Vec<String>,
        /// Variables passed on from keyreeve's own environment.
        pass: Vec<String>,
        /// Variables set to secrets.
        secrets: BTreeMap<String, SecretRef>,
        /// The most it may print, in bytes.
        output_bytes_max: usize,
    },
    /// The user's own renewal service.
    Http {
        /// Where; `https`, or `http` on loopback. On a Worker also `service:NAME/path`.
        url: String,
        /// `GET` or `POST`.
        method: String,
        /// Plain headers; values may hold placeholders.
        headers: BTreeMap<String, String>,
        /// Headers with a secret value.
        secret_headers: BTreeMap<String, SecretRef>,
        /// Body template.
        body: Option<String>,
        /// Where in the answer (JSON pointer, RFC 6901) things are.
        mapping: HttpMapping,
        /// Whether the service honours `Idempotency-Key`.
        is_idempotent: bool,
        /// The largest answer, in bytes.
        answer_bytes_max: usize,
    },
    /// A client of an authorization server, for itself (RFC 6749 4.4).
    Oauth2Client(Box<TokenConfig>),
    /// A user's consent, by refresh tokens (RFC 6749 6).
    Oauth2Refresh(Box<RefreshConfig>),
    /// One token for another (RFC 8693).
    TokenExchange(Box<ExchangeConfig>),
    /// An installation of a GitHub App.
    GithubApp(Box<GithubConfig>),
    /// A Google service account with a key.
    GoogleServiceAccount(Box<GoogleConfig>),
    /// A role at AWS, assumed with a web identity.
    AwsWebIdentity(Box<AwsConfig>),
    /// A workload identity at Google.
    GcpWorkloadIdentity(Box<GcpConfig>),
    /// A federated identity at Entra.
    AzureFederated(Box<TokenConfig>),
}

impl SourceConfig {
    /// The name of the kind of source, as the API has it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Apns { .. } => "apns",
            Self::Jwt { .. } => "jwt",
            Self::Exec { .. } => "exec",
            Self::Http { .. } => "http",
            Self::Oauth2Client(_) => "oauth2-client",
            Self::Oauth2Refresh(_) => "oauth2-refresh",
            Self::TokenExchange(_) => "token-exchange",
            Self::GithubApp(_) => "github-app",
            Self::GoogleServiceAccount(_) => "google-service-account",
            Self::AwsWebIdentity(_) => "aws-web-identity",
            Self::GcpWorkloadIdentity(_) => "gcp-workload-identity",
            Self::AzureFederated(_) => "azure-federated",
        }
    }
}

/// Where things are in the answer of an `http` source: JSON pointers (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMapping {
    /// The token, unless `fields` is used.
    pub token: Option<String>,
    /// Named fields: name to pointer.
    pub fields: BTreeMap<String, String>,
    /// RFC 3339 text, or seconds since 1970.
    pub expires_at: Option<String>,
    /// Seconds from now.
    pub expires_in: Option<String>,
}

/// Somebody who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerConfig {
    /// How it proves who it is.
    pub proof: Proof,
    /// What it may do.
    pub can: BTreeSet<Action>,
    /// To which credentials: names, or patterns with one trailing `*`.
    pub credentials: Vec<String>,
    /// To which issuers: names, or patterns with one trailing `*`.
    pub issuers: Vec<String>,
    /// To which access tokens: `FAMILY/TARGET`, or patterns with one trailing `*`.
    pub tokens: Vec<String>,
}

/// How a caller proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// An API key, by its SHA-256.
    KeySha256([u8; 32]),
    /// The peer's uid on a Unix socket.
    Uid(u32),
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// See names and states.
    List,
    /// Take the token.
    Token,
    /// Report a refusal upstream.
    Report,
    /// Ask for an early renewal.
    Renew,
    /// Decide on a mint in doubt.
    Resolve,
    /// See the history.
    History,
    /// Follow events.
    Events,
    /// Read metrics.
    Metrics,
    /// See an issuer's keys and their phases.
    Keys,
    /// Ask an issuer for its next key.
    Rotate,
    /// Take a key of an issuer out at once.
    Retire,
    /// Have tokens of others verified.
    Verify,
    /// See and read the artifacts of targets.
    Artifacts,
    /// Publish artifacts.
    Publish,
    /// See access tokens, and have them checked.
    Tokens,
    /// Make access tokens, roll them, take them back.
    Grant,
    /// Revoke tokens, and see which nodes refuse them.
    Revoke,
}

/// Limits of the HTTP surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Longest time for a request, its body included, in milliseconds.
    pub request_ms_max: u64,
    /// Most connections at once, per listener.
    pub connections_max: usize,
    /// Most event streams at once.
    pub event_streams_max: usize,
}
