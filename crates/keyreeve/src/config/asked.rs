//! What the sources that ask an authorization server or a cloud have to know, and reading it.

use std::collections::BTreeMap;

use keyreeve_core::id::CredentialName;
use serde_json::{Value as Json, json};

use super::credential::Flavour;
use super::parse;
use super::problem::{Fault, Origin, shown};
use super::scope::Scope;
use super::sources::shown_url;
use super::types::{Algorithm, SecretRef, SourceConfig};
use super::value::{secret_ref, show_secret};

/// What Google's tokens are good for unless somebody says otherwise.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
const ALGORITHMS: [(&str, Algorithm); 3] =
    [("RS256", Algorithm::Rs256), ("ES256", Algorithm::Es256), ("EdDSA", Algorithm::EdDsa)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Auth {
    Basic,
    Post,
    Signed,
    Certificate,
    None,
}

const AUTHS: [(&str, Auth); 5] = [
    ("basic", Auth::Basic),
    ("post", Auth::Post),
    ("private-key-jwt", Auth::Signed),
    ("mtls", Auth::Certificate),
    ("none", Auth::None),
];

/// A token endpoint (RFC 6749 3.2), who asks there, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// Where; `https`, or `http` on loopback. On a Worker also `service:NAME/path`.
    pub url: String,
    /// Who asks.
    pub client: AskingClient,
    /// `scope`, in order.
    pub scopes: Vec<String>,
    /// `audience`.
    pub audience: Option<String>,
    /// `resource` (RFC 8707).
    pub resource: Option<String>,
    /// How long a token lives where the answer does not say, in milliseconds.
    pub default_life_ms: Option<u64>,
}

/// An OAuth client, and how it shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskingClient {
    /// `client_id`.
    pub id: String,
    /// How it shows who it is.
    pub proof: AskingProof,
}

/// How an OAuth client shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskingProof {
    /// Not at all, or by its certificate (RFC 8705 2): it only says its name.
    Name,
    /// Its secret, in the `Authorization` header (RFC 6749 2.3.1).
    Basic(SecretRef),
    /// Its secret, in the body.
    Post(SecretRef),
    /// An assertion signed with its key (RFC 7523 2.2).
    Signed {
        /// The private key.
        key: SecretRef,
        /// What it signs with.
        algorithm: Algorithm,
        /// The `kid` of the assertion.
        key_id: Option<String>,
        /// The `aud` of the assertion.
        audience: String,
    },
    /// An assertion of somebody else's (RFC 7523 2.2).
    Assertion(AssertionConfig),
}

/// A token that is shown to get another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssertionConfig {
    /// Read anew for each mint.
    Read(SecretRef),
    /// Signed for each mint, as the credential of this name says.
    Credential {
        /// The credential.
        name: CredentialName,
        /// What it says, once all credentials have been read; its source is `jwt`.
        signed: Option<Box<SignedAssertion>>,
    },
}

/// What an assertion that is signed here says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAssertion {
    /// A `jwt` source.
    pub source: SourceConfig,
    /// How long it lives, in milliseconds.
    pub life_ms: u64,
    /// How much earlier than now it says it was issued, in milliseconds.
    pub backdate_ms: u64,
}

/// A rotating refresh token (RFC 6749 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshConfig {
    /// Where and who.
    pub token: TokenConfig,
    /// The refresh token to start from.
    pub seed: SecretRef,
    /// Whether using a refresh token ends it.
    pub rotates: bool,
}

/// An exchange of one token for another (RFC 8693).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeConfig {
    /// Where and who.
    pub token: TokenConfig,
    /// `subject_token`.
    pub subject: AssertionConfig,
    /// `subject_token_type`.
    pub subject_type: String,
    /// `requested_token_type`.
    pub requested_type: Option<String>,
}

/// An installation of a GitHub App.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GithubConfig {
    /// The app's private key.
    pub key: SecretRef,
    /// App id or client id.
    pub app_id: String,
    /// The installation.
    pub installation_id: String,
    /// Names of repositories; empty for all.
    pub repositories: Vec<String>,
    /// Permissions by name; empty for all.
    pub permissions: BTreeMap<String, String>,
    /// The API, without a slash at its end.
    pub api_url: String,
}

/// A Google service account with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoogleConfig {
    /// The JSON key file.
    pub key: SecretRef,
    /// Scopes, at least one.
    pub scopes: Vec<String>,
    /// The user to act for.
    pub subject: Option<String>,
}

/// A role at AWS, assumed with a web identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsConfig {
    /// The role.
    pub role_arn: String,
    /// The name of the session.
    pub session_name: String,
    /// The STS.
    pub endpoint: String,
    /// A session policy in JSON.
    pub policy: Option<String>,
    /// Managed policies.
    pub policy_arns: Vec<String>,
    /// The web identity.
    pub assertion: AssertionConfig,
}

/// A workload identity at Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcpConfig {
    /// `projects/../providers/..`
    pub provider: String,
    /// The service account to act as.
    pub service_account: Option<String>,
    /// Scopes, at least one.
    pub scopes: Vec<String>,
    /// The STS.
    pub sts_url: String,
    /// The IAM credentials API, without a slash at its end.
    pub iam_url: String,
    /// The subject token.
    pub assertion: AssertionConfig,
}

/// Reads the settings of one source.
pub(super) fn read(scope: &mut Scope<'_>, flavour: Flavour) -> Option<SourceConfig> {
    match flavour {
        Flavour::Oauth2Client => oauth2_client(scope),
        Flavour::Oauth2Refresh => oauth2_refresh(scope),
        Flavour::TokenExchange => token_exchange(scope),
        Flavour::GithubInstallation => github(scope),
        Flavour::GoogleServiceAccount => google(scope),
        Flavour::AwsWebIdentity => aws(scope),
        Flavour::GcpWorkloadIdentity => gcp(scope),
        Flavour::AzureFederated => azure(scope),
        _ => None,
    }
}

fn oauth2_client(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let token = token(scope)?;
    let has_certificate = scope.is_written("via");
    let params = scope.inner("params");
    let is_tried = params.is_written("client_secret") || params.is_written("client_key");
    if token.client.proof == AskingProof::Name && !has_certificate && !is_tried {
        // RFC 6749 4.4: this grant is for clients that can keep a secret.
        let fault = Fault::new(
            "cannot be `none`: a client that shows nothing gets no token of its own",
            "write `client_secret`, or `client_key` for a signed assertion",
        );
        scope.inner("params").fault("auth", &fault);
    }
    Some(SourceConfig::Oauth2Client(Box::new(token)))
}

fn oauth2_refresh(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let token = token(scope);
    let mut params = scope.inner("params");
    let seed = params.secret("refresh_token");
    let rotates = params.flag("rotates");
    Some(SourceConfig::Oauth2Refresh(Box::new(RefreshConfig { token: token?, seed: seed?, rotates })))
}

fn token_exchange(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let token = token(scope);
    let subject = assertion(scope);
    let mut params = scope.inner("params");
    let subject_type = params.parsed("subject_token_type", token_type, Clone::clone);
    let requested_type = params.parsed("requested_token_type", token_type, Clone::clone);
    Some(SourceConfig::TokenExchange(Box::new(ExchangeConfig {
        token: token?,
        subject: subject?,
        subject_type: subject_type?,
        requested_type,
    })))
}

/// The token endpoint, the client, and what is asked for.
fn token(scope: &mut Scope<'_>) -> Option<TokenConfig> {
    let has_certificate = scope.is_written("via");
    let mut params = scope.inner("params");
    let url = address(&mut params, "token_url");
    let client = client(&mut params, has_certificate, url.as_deref());
    let scopes = scopes(&mut params, None);
    let audience = params.text("audience");
    let home = params.sheet.home;
    let resource = params.parsed("resource", |text| parse::url(text, home), |url| shown_url(url));
    let default_life_ms = params.maybe_number("default_life");
    Some(TokenConfig { url: url?, client: client?, scopes, audience, resource, default_life_ms })
}

fn client(params: &mut Scope<'_>, has_certificate: bool, url: Option<&str>) -> Option<AskingClient> {
    let id = params.parsed("client_id", visible, Clone::clone);
    let secret = params.secret("client_secret");
    let key = params.secret("client_key");
    let usual = match (&secret, &key) {
        (Some(_), _) => Auth::Basic,
        (None, Some(_)) => Auth::Signed,
        (None, None) if has_certificate => Auth::Certificate,
        (None, None) => Auth::None,
    };
    let auth = params.choice_or("auth", &AUTHS, usual);
    let algorithm = params.choice_or("client_alg", &ALGORITHMS, Algorithm::Rs256);
    let key_id = params.parsed("client_key_id", visible, Clone::clone);
    let audience = params.text("client_audience");
    let needs = |params: &mut Scope<'_>, name: &str, auth: &str| {
        let fault = Fault::new(format!("is missing for `auth = \"{auth}\"`"), "add it, or choose another `auth`");
        params.fault(name, &fault);
    };
    if secret.is_some() && !matches!(auth, Auth::Basic | Auth::Post) {
        let fault = Fault::new("is not used by this `auth`", "remove it, or use `auth = \"basic\"` or `\"post\"`");
        params.fault("client_secret", &fault);
    }
    if key.is_some() && auth != Auth::Signed {
        let fault = Fault::new("is not used by this `auth`", "remove it, or use `auth = \"private-key-jwt\"`");
        params.fault("client_key", &fault);
    }
    let proof = match (auth, secret, key) {
        (Auth::Basic, Some(secret), _) => AskingProof::Basic(secret),
        (Auth::Post, Some(secret), _) => AskingProof::Post(secret),
        (Auth::Basic | Auth::Post, None, _) => {
            needs(params, "client_secret", if auth == Auth::Basic { "basic" } else { "post" });
            return None;
        }
        (Auth::Signed, _, Some(key)) => {
            let audience = audience.or_else(|| url.map(str::to_owned))?;
            AskingProof::Signed { key, algorithm, key_id, audience }
        }
        (Auth::Signed, _, None) => {
            needs(params, "client_key", "private-key-jwt");
            return None;
        }
        (Auth::Certificate, ..) if !has_certificate => {
            let fault = Fault::new(
                "is `mtls`, and there is no certificate",
                "`via = \"file:PATH\"`, the certificate and its key in PEM; on a Worker `via = \"binding:NAME\"`",
            );
            params.fault("auth", &fault);
            return None;
        }
        (Auth::Certificate | Auth::None, ..) => AskingProof::Name,
    };
    Some(AskingClient { id: id?, proof })
}

fn azure(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let assertion = assertion(scope);
    let mut params = scope.inner("params");
    let tenant = params.parsed("tenant_id", |text| word(text, b".-", "the id or a domain of the tenant"), Clone::clone);
    let id = params.parsed("client_id", visible, Clone::clone);
    let authority = address(&mut params, "authority");
    let scopes = scopes(&mut params, None);
    let is_one = matches!(scopes.as_slice(), [one] if one.ends_with("/.default"));
    if !is_one {
        // Entra: client credentials take one resource, with all that has been granted for it.
        let fault = Fault::new(
            "must be one, `RESOURCE/.default`",
            "for example `scopes = [\"https://graph.microsoft.com/.default\"]`",
        );
        params.fault("scopes", &fault);
        return None;
    }
    let url = format!("{}/{}/oauth2/v2.0/token", authority?.trim_end_matches('/'), tenant?);
    let client = AskingClient { id: id?, proof: AskingProof::Assertion(assertion?) };
    Some(SourceConfig::AzureFederated(Box::new(TokenConfig {
        url,
        client,
        scopes,
        audience: None,
        resource: None,
        default_life_ms: None,
    })))
}

fn github(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let key = scope.secret("key");
    let mut params = scope.inner("params");
    let app_id = params.parsed("app_id", |text| word(text, b"._-", "the app id or the client id"), Clone::clone);
    let installation_id = params.parsed("installation_id", digits, Clone::clone);
    let repositories = params.texts("repositories").unwrap_or_default();
    for (at, (name, origin)) in repositories.iter().enumerate() {
        if let Err(fault) = word(name, b"._-", "the name of a repository, without its owner") {
            let fault = Fault::new(fault.must, "for example `repositories = [\"keyreeve\"]`");
            let path = format!("{}[{at}]", params.path("repositories"));
            params.sheet.fault(&path, origin.clone(), &fault, None);
        }
    }
    let permissions: BTreeMap<_, _> = params.text_map("permissions").into_iter().collect();
    for (name, level) in &permissions {
        if !["read", "write", "admin"].contains(&level.as_str()) {
            let must = format!("must give `read`, `write` or `admin` for {}, not {}", shown(name), shown(level));
            params.fault("permissions", &Fault::new(must, "for example `permissions = { contents = \"read\" }`"));
        }
    }
    let api_url = address(&mut params, "api_url");
    Some(SourceConfig::GithubApp(Box::new(GithubConfig {
        key: key?,
        app_id: app_id?,
        installation_id: installation_id?,
        repositories: repositories.into_iter().map(|(name, _)| name).collect(),
        permissions,
        api_url: api_url?.trim_end_matches('/').to_owned(),
    })))
}

fn google(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let key = scope.secret("key");
    let mut params = scope.inner("params");
    let scopes = scopes(&mut params, Some(CLOUD_PLATFORM));
    let subject = params.parsed("subject", email, Clone::clone);
    Some(SourceConfig::GoogleServiceAccount(Box::new(GoogleConfig { key: key?, scopes, subject })))
}

fn aws(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let assertion = assertion(scope);
    let mut params = scope.inner("params");
    let role_arn = params.parsed("role_arn", role, Clone::clone);
    let region = params.parsed("region", region, Clone::clone);
    let session_name = params.parsed("session_name", session, Clone::clone);
    let policy = params.parsed("policy", policy, Clone::clone);
    let policy_arns = params.texts("policy_arns").unwrap_or_default();
    for (at, (arn, origin)) in policy_arns.iter().enumerate() {
        if !(arn.starts_with("arn:aws") && arn.contains(":policy/")) {
            let path = format!("{}[{at}]", params.path("policy_arns"));
            let fault = Fault::new(
                format!("must be the ARN of a policy, not {}", shown(arn)),
                "for example `arn:aws:iam::aws:policy/ReadOnlyAccess`",
            );
            params.sheet.fault(&path, origin.clone(), &fault, None);
        }
    }
    let usual = region.as_deref().map(sts_of);
    let home = params.sheet.home;
    let endpoint = params.parsed_or("endpoint", usual.as_deref(), |text| parse::url(text, home), |url| shown_url(url));
    Some(SourceConfig::AwsWebIdentity(Box::new(AwsConfig {
        role_arn: role_arn?,
        session_name: session_name?,
        endpoint: endpoint?,
        policy,
        policy_arns: policy_arns.into_iter().map(|(arn, _)| arn).collect(),
        assertion: assertion?,
    })))
}

/// The regional endpoint: the global one is far away for most, and its tokens are not good in every region.
fn sts_of(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://sts.{region}.amazonaws.com{suffix}/")
}

fn gcp(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let assertion = assertion(scope);
    let mut params = scope.inner("params");
    let provider = params.parsed("provider", provider, Clone::clone);
    let service_account = params.parsed("service_account", email, Clone::clone);
    let scopes = scopes(&mut params, Some(CLOUD_PLATFORM));
    let sts_url = address(&mut params, "sts_url");
    let iam_url = address(&mut params, "iam_url");
    Some(SourceConfig::GcpWorkloadIdentity(Box::new(GcpConfig {
        provider: provider?,
        service_account,
        scopes,
        sts_url: sts_url?,
        iam_url: iam_url?.trim_end_matches('/').to_owned(),
        assertion: assertion?,
    })))
}

/// A URL that is asked.
fn address(params: &mut Scope<'_>, name: &str) -> Option<String> {
    let home = params.sheet.home;
    let url = params.parsed(name, |text| parse::url(text, home), |url| shown_url(url))?;
    if url.contains(['{', '}']) {
        params
            .fault(name, &Fault::new("must not hold `{` or `}` (the value is not shown)", "nothing is filled in here"));
        return None;
    }
    Some(url)
}

fn scopes(params: &mut Scope<'_>, usual: Option<&str>) -> Vec<String> {
    let Some(written) = params.texts("scopes") else {
        let usual: Vec<String> = usual.into_iter().map(str::to_owned).collect();
        params.explain("scopes", json!(usual).to_string(), Origin::Default);
        return usual;
    };
    for (at, (scope, origin)) in written.iter().enumerate() {
        // RFC 6749 3.3.
        let is_good = !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        if !is_good {
            let path = format!("{}[{at}]", params.path("scopes"));
            let must = format!("must be one scope, without spaces, quotes and backslashes, not {}", shown(scope));
            let fault = Fault::new(must, "one text for each: `scopes = [\"read\", \"write\"]`");
            params.sheet.fault(&path, origin.clone(), &fault, None);
        }
    }
    written.into_iter().map(|(scope, _)| scope).collect()
}

/// What is shown to get a token. A secret that somebody pasted is not repeated.
fn assertion(scope: &mut Scope<'_>) -> Option<AssertionConfig> {
    let mut params = scope.inner("params");
    let home = params.sheet.home;
    let allow_literals = params.sheet.allow_literals;
    let parse = |text: &str| match text.strip_prefix("credential:") {
        Some(name) => match CredentialName::parse(name) {
            Ok(name) => Ok(AssertionConfig::Credential { name, signed: None }),
            Err(error) => Err(Fault::new(
                format!("names no credential, {}: {error}", shown(name)),
                "for example `assertion = \"credential:identity\"`, with `[credential.identity]` whose source is `jwt`",
            )),
        },
        None => secret_ref(text, allow_literals, home).map(AssertionConfig::Read),
    };
    params.parsed("assertion", parse, AssertionConfig::shown)
}

impl SourceConfig {
    /// What is shown to get a token, where anything is.
    #[must_use]
    pub fn assertion(&self) -> Option<&AssertionConfig> {
        match self {
            Self::TokenExchange(exchange) => Some(&exchange.subject),
            Self::AwsWebIdentity(aws) => Some(&aws.assertion),
            Self::GcpWorkloadIdentity(gcp) => Some(&gcp.assertion),
            Self::AzureFederated(token) => match &token.client.proof {
                AskingProof::Assertion(assertion) => Some(assertion),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn assertion_mut(&mut self) -> Option<&mut AssertionConfig> {
        match self {
            Self::TokenExchange(exchange) => Some(&mut exchange.subject),
            Self::AwsWebIdentity(aws) => Some(&mut aws.assertion),
            Self::GcpWorkloadIdentity(gcp) => Some(&mut gcp.assertion),
            Self::AzureFederated(token) => match &mut token.client.proof {
                AskingProof::Assertion(assertion) => Some(assertion),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) const fn token_config(&self) -> Option<&TokenConfig> {
        match self {
            Self::Oauth2Client(token) | Self::AzureFederated(token) => Some(token),
            Self::Oauth2Refresh(refresh) => Some(&refresh.token),
            Self::TokenExchange(exchange) => Some(&exchange.token),
            _ => None,
        }
    }

    /// The secrets that are needed by these sources, with the settings that name them.
    pub(super) fn asked_secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        let mut all = Vec::new();
        if let Some(token) = self.token_config() {
            match &token.client.proof {
                AskingProof::Basic(secret) | AskingProof::Post(secret) => all.push(("params.client_secret", secret)),
                AskingProof::Signed { key, .. } => all.push(("params.client_key", key)),
                AskingProof::Name | AskingProof::Assertion(_) => {}
            }
        }
        all.extend(self.assertion().and_then(AssertionConfig::secret).map(|secret| ("params.assertion", secret)));
        match self {
            Self::Oauth2Refresh(refresh) => all.push(("params.refresh_token", &refresh.seed)),
            Self::GithubApp(github) => all.push(("key", &github.key)),
            Self::GoogleServiceAccount(google) => all.push(("key", &google.key)),
            _ => {}
        }
        all
    }

    /// The addresses that these sources ask, with the settings that name them.
    pub(super) fn asked_urls(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Oauth2Client(token) => vec![("params.token_url", &token.url)],
            Self::Oauth2Refresh(refresh) => vec![("params.token_url", &refresh.token.url)],
            Self::TokenExchange(exchange) => vec![("params.token_url", &exchange.token.url)],
            Self::AzureFederated(token) => vec![("params.authority", &token.url)],
            Self::GithubApp(github) => vec![("params.api_url", &github.api_url)],
            Self::AwsWebIdentity(aws) => vec![("params.endpoint", &aws.endpoint)],
            Self::GcpWorkloadIdentity(gcp) => vec![("params.sts_url", &gcp.sts_url), ("params.iam_url", &gcp.iam_url)],
            _ => Vec::new(),
        }
    }
}

impl AssertionConfig {
    fn shown(&self) -> String {
        match self {
            Self::Read(reference) => show_secret(reference),
            Self::Credential { name, .. } => format!("credential:{name}"),
        }
    }

    pub(super) const fn secret(&self) -> Option<&SecretRef> {
        match self {
            Self::Read(reference) => Some(reference),
            Self::Credential { .. } => None,
        }
    }
}

fn visible(text: &str) -> Result<String, Fault> {
    // RFC 6749 A.1: VSCHAR.
    if !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(text.to_owned());
    }
    Err(Fault::plain(format!("must be printable ASCII, not {}", shown(text))))
}

fn word(text: &str, also: &[u8], what: &str) -> Result<String, Fault> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte)) {
        return Ok(text.to_owned());
    }
    Err(Fault::plain(format!("must be {what}, not {}", shown(text))))
}

fn digits(text: &str) -> Result<String, Fault> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("must be digits, not {}", shown(text)),
        "it stands at the end of the address of the installation's settings page",
    ))
}

fn token_type(text: &str) -> Result<String, Fault> {
    if text.contains(':') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("must be a type of token, a URI, not {}", shown(text)),
        "for example `urn:ietf:params:oauth:token-type:access_token` (RFC 8693 3)",
    ))
}

fn email(text: &str) -> Result<String, Fault> {
    let is_good = text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
    });
    if is_good {
        Ok(text.to_owned())
    } else {
        Err(Fault::plain(format!("must be an e-mail address, not {}", shown(text))))
    }
}

fn role(text: &str) -> Result<String, Fault> {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account, role) = (next(), next(), next(), next(), next(), next());
    let is_good = arn == "arn"
        && partition.starts_with("aws")
        && (service, region) == ("iam", "")
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && role.len() > "role/".len()
        && role.starts_with("role/")
        && role.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("must be the ARN of a role, not {}", shown(text)),
        "for example `arn:aws:iam::123456789012:role/lake`",
    ))
}

fn region(text: &str) -> Result<String, Fault> {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if text.split('-').count() >= 3 && text.split('-').all(is_word) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("must be a region, not {}", shown(text)), "for example `eu-central-1`"))
}

fn session(text: &str) -> Result<String, Fault> {
    let is_good = (2..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_=,.@-".contains(&byte));
    if is_good {
        return Ok(text.to_owned());
    }
    let must = format!("must be 2 to 64 characters of A-Z, a-z, 0-9 and `_=,.@-`, not {}", shown(text));
    Err(Fault::new(must, "CloudTrail shows it as the name of the session: `keyreeve-lake`"))
}

fn policy(text: &str) -> Result<String, Fault> {
    if matches!(serde_json::from_str::<Json>(text), Ok(Json::Object(_))) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        "must be a JSON object",
        "STS would answer `MalformedPolicyDocument`: `policy = '{\"Version\":\"2012-10-17\",\"Statement\":[..]}'`",
    ))
}

fn provider(text: &str) -> Result<String, Fault> {
    let text = text.strip_prefix("//iam.googleapis.com/").unwrap_or(text);
    let parts: Vec<&str> = text.split('/').collect();
    let is_good = match parts.as_slice() {
        ["projects", number, "locations", location, "workloadIdentityPools", pool, "providers", name] => {
            !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && [location, pool, name].iter().all(|part| !part.is_empty())
        }
        _ => false,
    };
    if is_good {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("must name a workload identity provider, not {}", shown(text)),
        "`projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/NAME`: the number of the project, not its id",
    ))
}
