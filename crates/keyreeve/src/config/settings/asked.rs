//! Settings of the sources that ask an authorization server or a cloud by its own protocol.

use super::super::table::Fallback::{Computed, Required, Unset, Value};
use super::super::table::{Kind, Setting, Text, row};
use super::{DAY, SECOND, SERVICE, URL, param};

const OAUTH: &[&str] = &["oauth2-client", "oauth2-refresh", "token-exchange"];
/// Sources with an OAuth client.
const CLIENTS: &[&str] = &["oauth2-client", "oauth2-refresh", "token-exchange", "azure-federated"];
const SCOPED: &[&str] = &[
    "oauth2-client",
    "oauth2-refresh",
    "token-exchange",
    "azure-federated",
    "google-service-account",
    "gcp-workload-identity",
];
/// Sources that show somebody else's token.
const ASSERTING: &[&str] = &["token-exchange", "aws-web-identity", "gcp-workload-identity", "azure-federated"];
const REFRESH: &[&str] = &["oauth2-refresh"];
const EXCHANGE: &[&str] = &["token-exchange"];
const GITHUB: &[&str] = &["github-app"];
const GOOGLE: &[&str] = &["google-service-account"];
const AWS: &[&str] = &["aws-web-identity"];
const GCP: &[&str] = &["gcp-workload-identity"];
const AZURE: &[&str] = &["azure-federated"];

const CLIENT_ID: Text = Text::new("the id of the client", "^[\\u0020-\\u007e]+$", 512);
const KEY_ID: Text = Text::new("the id of a key", "^[\\u0020-\\u007e]+$", 256);
const SCOPE_TOKEN: Text = Text::new("a scope (RFC 6749 3.3)", "^[\\u0021\\u0023-\\u005b\\u005d-\\u007e]+$", 512);
const AUDIENCE: Text = Text::new("an audience", "^.+$", 1024);
const ASSERTION: Text = Text::new(
    "`file:PATH`, `env:NAME`, `binding:NAME` or `credential:NAME`",
    "^((env|binding|name-in):[A-Za-z_][A-Za-z0-9_]*|file:.+|credential:.+)$",
    4096,
)
.quiet();
const TOKEN_TYPE: Text = Text::new("a type of token (RFC 8693 3)", "^[^\\s]+:[^\\s]+$", 256);
const INSTALLATION: Text = Text::new("the id of the installation, digits", "^[0-9]+$", 20).or_number();
const REPOSITORY: Text = Text::new("the name of a repository, without its owner", "^[A-Za-z0-9._-]+$", 100);
const PERMISSION: Text = Text::new("`read`, `write` or `admin`", "^(read|write|admin)$", 16);
const EMAIL: Text = Text::new("an e-mail address", "^[^@\\s]+@[^@\\s]+$", 256);
const ROLE: Text = Text::new("the ARN of a role", "^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\\u0021-\\u007e]+$", 2048);
const SESSION: Text = Text::new("2 to 64 characters of A-Z, a-z, 0-9 and `_=,.@-`", "^[A-Za-z0-9_=,.@-]{2,64}$", 64);
const REGION: Text = Text::new("a region", "^[a-z]{2}(-[a-z]+)+-[0-9]+$", 32);
const POLICY: Text = Text::new("a session policy in JSON, 2048 characters at the most", "^\\{.*\\}$", 2048);
const POLICY_ARN: Text = Text::new("the ARN of a policy", "^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$", 2048);
const PROVIDER: Text = Text::new(
    "`projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/NAME`",
    "^projects/[0-9]+/locations/[a-z0-9-]+/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+$",
    512,
);
const TENANT: Text = Text::new("the id or a domain of the tenant", "^[A-Za-z0-9.-]+$", 256);

/// The settings, in the order of the reference page.
pub(super) static SETTINGS: &[Setting] = &[
    row(
        param("token_url"),
        Kind::Text(SERVICE),
        Required,
        "The token endpoint (RFC 6749 3.2): `https`, or `http` on loopback; on a Worker also `service:NAME/path`.",
        "\"https://auth.example.org/oauth/token\"",
    )
    .only(OAUTH),
    row(param("client_id"), Kind::Text(CLIENT_ID), Required, "The id of the client.", "\"push-service\"").only(CLIENTS),
    row(
        param("client_secret"),
        Kind::Secret,
        Unset("needed for `auth = \"basic\"` and `auth = \"post\"`"),
        "The secret of the client.",
        "\"file:/etc/keyreeve/client.secret\"",
    )
    .only(OAUTH),
    row(
        param("auth"),
        Kind::Choice(&["basic", "post", "private-key-jwt", "mtls", "none"], &[]),
        Computed("`basic` with `client_secret`, `private-key-jwt` with `client_key`, `mtls` with `via`, else `none`"),
        "How the client shows who it is: its secret in a header or in the body (RFC 6749 2.3.1), an assertion signed with its key (RFC 7523), a client certificate (RFC 8705, by `via`), or not at all.",
        "\"post\"",
    )
    .only(OAUTH),
    row(
        param("client_key"),
        Kind::Secret,
        Unset("needed for `auth = \"private-key-jwt\"`"),
        "The private key of the client, PEM or JWK.",
        "\"file:/etc/keyreeve/client.pem\"",
    )
    .only(OAUTH),
    row(
        param("client_alg"),
        Kind::Choice(&["RS256", "ES256", "EdDSA"], &[]),
        Value("RS256"),
        "What the client's assertions are signed with.",
        "\"RS256\"",
    )
    .only(OAUTH),
    row(
        param("client_key_id"),
        Kind::Text(KEY_ID),
        Unset("the assertion names no key"),
        "The `kid` of the client's assertions.",
        "\"2026-11\"",
    )
    .only(OAUTH),
    row(
        param("client_audience"),
        Kind::Text(AUDIENCE),
        Computed("`token_url`"),
        "The `aud` of the client's assertions (RFC 7523 3): the token endpoint, or the issuer of the server.",
        "\"https://auth.example.org/\"",
    )
    .only(OAUTH),
    row(
        param("scopes"),
        Kind::Texts(SCOPE_TOKEN, 64),
        Computed("`https://www.googleapis.com/auth/cloud-platform` for Google, else what the server gives"),
        "What the token is good for.",
        "[\"https://graph.microsoft.com/.default\"]",
    )
    .only(SCOPED),
    row(
        param("audience"),
        Kind::Text(AUDIENCE),
        Unset("none is asked for"),
        "For whom the token is: `audience` (RFC 8693 2.1; Auth0 and others take it everywhere).",
        "\"https://api.example.org\"",
    )
    .only(OAUTH),
    row(
        param("resource"),
        Kind::Text(URL),
        Unset("none is asked for"),
        "For which resource the token is (RFC 8707).",
        "\"https://api.example.org/\"",
    )
    .only(OAUTH),
    row(
        param("default_life"),
        Kind::Duration(SECOND, 366 * DAY),
        Unset("an answer without `expires_in` is refused; with a new refresh token in it, it is taken for `5m`"),
        "How long a token lives where the answer does not say (RFC 6749 5.1 leaves that open). At most `life.max`.",
        "\"30m\"",
    )
    .only(OAUTH),
    row(
        param("refresh_token"),
        Kind::Secret,
        Required,
        "The refresh token to start from. It is read again for each mint, and used once: after that the one that the server gave last is used, which is kept sealed beside the credential. A new one here starts over.",
        "\"file:/etc/keyreeve/partner.refresh\"",
    )
    .only(REFRESH),
    row(
        param("rotates"),
        Kind::Flag,
        Value("true"),
        "Whether the server replaces a refresh token when it is used, so that using it twice may revoke all of them. Then a refresh without an answer waits for an operator.",
        "true",
    )
    .only(REFRESH),
    row(
        param("assertion"),
        Kind::Text(ASSERTION),
        Required,
        "The token to show, read again for each mint: `file:PATH`, `env:NAME`, `binding:NAME`; or `credential:NAME`, signed for each mint as the credential of that name says, whose source is `jwt`.",
        "\"file:/var/run/secrets/tokens/keyreeve\"",
    )
    .only(ASSERTING),
    row(
        param("subject_token_type"),
        Kind::Text(TOKEN_TYPE),
        Value("urn:ietf:params:oauth:token-type:jwt"),
        "What `assertion` is.",
        "\"urn:ietf:params:oauth:token-type:id_token\"",
    )
    .only(EXCHANGE),
    row(
        param("requested_token_type"),
        Kind::Text(TOKEN_TYPE),
        Unset("the server chooses"),
        "What is asked for.",
        "\"urn:ietf:params:oauth:token-type:access_token\"",
    )
    .only(EXCHANGE),
    row(
        param("installation_id"),
        Kind::Text(INSTALLATION),
        Required,
        "The installation of the app.",
        "12345678",
    )
    .only(GITHUB),
    row(
        param("repositories"),
        Kind::Texts(REPOSITORY, 500),
        Unset("all that the installation may see"),
        "The repositories that the token is good for.",
        "[\"keyreeve\"]",
    )
    .only(GITHUB),
    row(
        param("permissions"),
        Kind::TextMap(PERMISSION, 64),
        Unset("all that the installation has"),
        "What the token may do.",
        "{ contents = \"read\" }",
    )
    .only(GITHUB),
    row(
        param("api_url"),
        Kind::Text(SERVICE),
        Value("https://api.github.com"),
        "The API: another one for GitHub Enterprise Server.",
        "\"https://github.example.org/api/v3\"",
    )
    .only(GITHUB),
    row(
        param("subject"),
        Kind::Text(EMAIL),
        Unset("the service account itself"),
        "The user in whose name the token is, by domain-wide delegation.",
        "\"alice@example.org\"",
    )
    .only(GOOGLE),
    row(
        param("role_arn"),
        Kind::Text(ROLE),
        Required,
        "The role to assume.",
        "\"arn:aws:iam::123456789012:role/lake\"",
    )
    .only(AWS),
    row(
        param("region"),
        Kind::Text(REGION),
        Required,
        "The region whose STS is asked.",
        "\"eu-central-1\"",
    )
    .only(AWS),
    row(
        param("session_name"),
        Kind::Text(SESSION),
        Value("keyreeve"),
        "The name of the session, as CloudTrail shows it.",
        "\"keyreeve-lake\"",
    )
    .only(AWS),
    row(
        param("policy"),
        Kind::Text(POLICY),
        Unset("the session may do what the role may do"),
        "A policy that narrows what the session may do.",
        "\"{\\\"Version\\\":\\\"2012-10-17\\\",\\\"Statement\\\":[]}\"",
    )
    .only(AWS),
    row(
        param("policy_arns"),
        Kind::Texts(POLICY_ARN, 10),
        Unset("none"),
        "Managed policies that narrow what the session may do.",
        "[\"arn:aws:iam::aws:policy/ReadOnlyAccess\"]",
    )
    .only(AWS),
    row(
        param("endpoint"),
        Kind::Text(SERVICE),
        Computed("`https://sts.REGION.amazonaws.com/`, `.com.cn` in China"),
        "The STS to ask, where it is not that of the region: a VPC endpoint, or a fake.",
        "\"https://vpce-1a2b.sts.eu-central-1.vpce.amazonaws.com/\"",
    )
    .only(AWS),
    row(
        param("provider"),
        Kind::Text(PROVIDER),
        Required,
        "The workload identity provider.",
        "\"projects/123456/locations/global/workloadIdentityPools/fleet/providers/keyreeve\"",
    )
    .only(GCP),
    row(
        param("service_account"),
        Kind::Text(EMAIL),
        Unset("the federated token itself is handed out"),
        "The service account to act as, by `generateAccessToken`.",
        "\"lake@project.iam.gserviceaccount.com\"",
    )
    .only(GCP),
    row(
        param("sts_url"),
        Kind::Text(SERVICE),
        Value("https://sts.googleapis.com/v1/token"),
        "The token endpoint of Google's STS.",
        "\"https://sts.googleapis.com/v1/token\"",
    )
    .only(GCP),
    row(
        param("iam_url"),
        Kind::Text(SERVICE),
        Value("https://iamcredentials.googleapis.com"),
        "The IAM credentials API.",
        "\"https://iamcredentials.googleapis.com\"",
    )
    .only(GCP),
    row(param("tenant_id"), Kind::Text(TENANT), Required, "The Entra tenant.", "\"contoso.onmicrosoft.com\"").only(AZURE),
    row(
        param("authority"),
        Kind::Text(SERVICE),
        Value("https://login.microsoftonline.com"),
        "The Entra authority: another one in sovereign clouds.",
        "\"https://login.microsoftonline.us\"",
    )
    .only(AZURE),
];
