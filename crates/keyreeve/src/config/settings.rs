//! The table of settings: names, limits, defaults and meaning, each written once.

mod access;
mod artifact;
mod asked;
mod hand_out;
mod inbound;
mod issuing;
mod revoking;
mod store;

pub(super) use issuing::ALGORITHMS as ISSUER_ALGORITHMS;

use super::table::Fallback::{Computed, Required, Unset, Value};
use super::table::{Kind, Setting, Text, row};
use super::types::Home::Native;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The sources of this version.
pub(super) const SOURCES: &[&str] = &[
    "apns",
    "jwt",
    "exec",
    "http",
    "oauth2-client",
    "oauth2-refresh",
    "token-exchange",
    "github-app",
    "google-service-account",
    "aws-web-identity",
    "gcp-workload-identity",
    "azure-federated",
];
/// The `PS` family is random: it would give other bytes on every node.
const ALGORITHMS_LATER: &[&str] = &["RS384", "RS512", "ES384", "ES512", "PS256", "PS384", "PS512"];
/// The presets of `source = "jwt"`.
pub(super) const PRESETS: &[&str] = &["app-store-connect", "github-app-jwt"];

const APNS: &[&str] = &["apns"];
const JWT: &[&str] = &["jwt"];
const ANY_JWT: &[&str] = &["jwt", "app-store-connect", "github-app-jwt"];
const SIGNED: &[&str] = &["apns", "jwt", "app-store-connect", "github-app-jwt"];
const EXEC: &[&str] = &["exec"];
const HTTP: &[&str] = &["http"];
/// Sources whose private key is `key`.
const KEYED: &[&str] = &["apns", "jwt", "app-store-connect", "github-app-jwt", "github-app", "google-service-account"];
/// Sources that send a request which may have to carry a client certificate.
/// Sources that send requests.
const SENT: &[&str] = &[
    "http",
    "oauth2-client",
    "oauth2-refresh",
    "token-exchange",
    "azure-federated",
    "github-app",
    "google-service-account",
    "aws-web-identity",
    "gcp-workload-identity",
];
/// Sources that know what to do by `params`.
const WITH_PARAMS: &[&str] = &[
    "apns",
    "jwt",
    "app-store-connect",
    "github-app-jwt",
    "oauth2-client",
    "oauth2-refresh",
    "token-exchange",
    "github-app",
    "google-service-account",
    "aws-web-identity",
    "gcp-workload-identity",
    "azure-federated",
];
/// Sources that ask somebody else: all but `apns` and `jwt`, which sign by themselves.
const CALLED: &[&str] = SOURCES.split_at(2).1;

const QUIET: Text = Text::new(
    "`HH:MM-HH:MM`, days before it",
    "^((mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))? )?[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$",
    64,
);
const CERTIFICATE: Text =
    Text::new("`file:PATH`; on a Worker `binding:NAME`", "^(file:.+|binding:[A-Za-z_][A-Za-z0-9_]*)$", 4096);
const FILE: Text = Text::new("`file:PATH`", "^file:.+$", 4096);
const BIND: Text = Text::new("`ADDRESS:PORT` or `unix:PATH`", "^(unix:/.+|.+:[0-9]+)$", 256);
const KEY_HASH: Text = Text::new("the SHA-256 of the key, 64 hexadecimal digits", "^[0-9a-fA-F]{64}$", 4096).quiet();
const NAME_PATTERN: Text = Text::new("a name, or a start of names with `*` at its end", "^[a-z0-9._/-]*\\*?$", 128);
const APPLE_ID: Text = Text::new("exactly 10 characters of A-Z and 0-9", "^[A-Z0-9]{10}$", 256);
const ISSUER_ID: Text = Text::new("the issuer id, a UUID", "^[0-9a-fA-F-]{36}$", 256);
const FAMILY_PATTERN: Text =
    Text::new("`FAMILY/TARGET`, or the start of such with `*` at its end", "^[A-Za-z0-9._/-]*\\*?$", 200);
const APP_ID: Text = Text::new("the app id or client id", "^[A-Za-z0-9._-]+$", 64).or_number();
const SCOPE: Text = Text::new("a method and path", "^[A-Z]+ /.*$", 512);
const ARGUMENT: Text = Text::new("text without NUL", "^[^\\u0000]*$", 4096).quiet();
const VARIABLE: Text = Text::new("the name of an environment variable", "^[A-Za-z_][A-Za-z0-9_]*$", 128);
const URL: Text = Text::new("an `https` URL, or `http` on loopback", "^https?://.+$", 2048).quiet();
const SERVICE: Text = Text::new(
    "an `https` URL, or `http` on loopback; on a Worker also `service:NAME/path`",
    "^(https?://.+|service:[A-Za-z_][A-Za-z0-9_]*/.*)$",
    2048,
)
.quiet();
const HEADER: Text = Text::new("the value of a header", "^[\\t\\u0020-\\u007e]*$", 4096).quiet();
const BODY: Text = Text::new("text", "", 16 * 1024).quiet();
const POINTER: Text = Text::new("a JSON pointer", "^/([^~]|~[01])*$", 256);

const fn life(name: &'static str) -> (&'static str, &'static str) {
    ("credential.*.life", name)
}

const fn credential(name: &'static str) -> (&'static str, &'static str) {
    ("credential.*", name)
}

const fn param(name: &'static str) -> (&'static str, &'static str) {
    ("credential.*.params", name)
}

/// Tables and keys that the design names and this version does not have, by their table.
pub(super) const LATER: &[(&str, &str)] = &[("", "tenant"), ("", "audit"), ("", "observe")];

/// What only a native node can have is not in a Worker's wasm, which nobody writes settings for without having them checked.
const fn hand_out() -> &'static [Setting] {
    if cfg!(target_arch = "wasm32") { &[] } else { hand_out::SETTINGS }
}

/// As [`hand_out`].
const fn revoking() -> &'static [Setting] {
    if cfg!(target_arch = "wasm32") { &[] } else { revoking::SETTINGS }
}

/// As [`hand_out`].
const fn artifact() -> &'static [Setting] {
    if cfg!(target_arch = "wasm32") { &[] } else { artifact::SETTINGS }
}

/// As [`hand_out`].
const fn access() -> &'static [Setting] {
    if cfg!(target_arch = "wasm32") { &[] } else { access::SETTINGS }
}

/// Every setting, in the order of the reference page.
pub fn settings() -> impl Iterator<Item = &'static Setting> + Clone {
    store::SETTINGS
        .iter()
        .chain(OUTBOUND)
        .chain(asked::SETTINGS)
        .chain(inbound::SETTINGS)
        .chain(issuing::SETTINGS)
        .chain(access())
        .chain(revoking())
        .chain(hand_out())
        .chain(artifact())
}

/// Everything but the store, tokens, and what is asked of others by their own protocols.
static OUTBOUND: &[Setting] = &[
    row(
        ("", "clock"),
        Kind::Group("clock"),
        Computed("the system clock is trusted"),
        "What the system clock is measured by.",
        "[clock]",
    )
    .on(Native, "remove it: Cloudflare keeps the clocks of Workers right"),
    row(
        ("clock", "url"),
        Kind::Text(URL),
        Unset("not measured"),
        "A node asks this URL (`HEAD`, no credentials) before it starts, and then once an hour. Where the `Date` of the answer is more than 2s from the system clock, the node corrects its own time by the difference, up to 24h. Without an answer within 5s it starts all the same.",
        "\"https://api.github.com/\"",
    ),
    row(("", "seal"), Kind::Group("seal"), Unset(""), "How credentials are sealed at rest.", "[seal]"),
    row(
        ("seal", "keys"),
        Kind::Secrets(8),
        Unset("needed unless every credential is in slot mode"),
        "The keys that seal what is stored. The first seals, all open, so that keys rotate without downtime.",
        "[\"file:/etc/keyreeve/seal.key\"]",
    ),
    row(
        ("", "listener"),
        Kind::Groups("listener[]", 16),
        Computed("`127.0.0.1:7070` serves everything"),
        "A socket to listen on.",
        "[[listener]]",
    )
    .on(Native, "remove it: a Worker is called at the addresses that Cloudflare gives it"),
    row(
        ("listener[]", "bind"),
        Kind::Text(BIND),
        Required,
        "The address: an IP address with a port, or a Unix socket, on which callers are known by their uid.",
        "\"127.0.0.1:7070\"",
    ),
    row(
        ("listener[]", "serve"),
        Kind::Choices(&["api", "metrics", "gate", "oauth2"], &["console", "s3"]),
        Computed("all of them"),
        "What is served there: `api` is `/v1`, `metrics` is `/metrics`, `gate` is `/auth`, `oauth2` is `/oauth2` and the keys of issuers under `/.well-known`. The probes `/livez` and `/readyz` are on every listener.",
        "[\"api\", \"metrics\"]",
    ),
    row(
        ("listener[]", "allow_plaintext"),
        Kind::Flag,
        Value("false"),
        "Listen without TLS on an address that other machines can reach. Credentials cross the network in clear, so set it only where something else encrypts.",
        "true",
    ),
    row(
        ("listener[]", "tls"),
        Kind::Group("listener[].tls"),
        Unset("no TLS"),
        "Speak TLS (1.2 and 1.3). Where `oauth2` is served and a client proves itself by a certificate, clients are asked for theirs.",
        "tls = { certificate = \"file:/etc/keyreeve/server.pem\", key = \"file:/etc/keyreeve/server.key\" }",
    ),
    row(
        ("listener[].tls", "certificate"),
        Kind::Secret,
        Required,
        "Its certificate, and after it those between it and its authority, in PEM. Read again with the configuration.",
        "\"file:/etc/keyreeve/server.pem\"",
    ),
    row(
        ("listener[].tls", "key"),
        Kind::Secret,
        Required,
        "The private key of the certificate, in PEM (PKCS #8, PKCS #1 or SEC 1).",
        "\"file:/etc/keyreeve/server.key\"",
    ),
    row(
        ("listener[].tls", "client_ca"),
        Kind::Secret,
        Unset("nobody: clients are known by `certificate_sha256` only"),
        "The authorities that vouch for the names in certificates of clients (`certificate_name`), in PEM. Read again with the configuration. A name ends with its certificate, and with its authority at the reload that takes it out, on open connections too.",
        "\"file:/etc/keyreeve/clients.pem\"",
    ),
    row(
        ("listener[].tls", "crl"),
        Kind::Secrets(16),
        Unset("nothing is revoked: certificates end by themselves"),
        "Revocation lists of the authorities under `client_ca`, in PEM, 64KiB each at most. Read again with the configuration. Where there is one, every authority of a chain needs its own; without one, or after the `nextUpdate` of it, it vouches for nobody.",
        "[\"file:/etc/keyreeve/clients.crl\"]",
    ),
    row(("", "caller"), Kind::Named("caller.*"), Unset("nobody may call"), "Who may call, by name.", "[caller.push]"),
    row(
        ("caller.*", "key_sha256"),
        Kind::Text(KEY_HASH),
        Unset("one of `key_sha256` and `uid` is needed"),
        "The SHA-256 of the caller's API key. `keyreeve config new-key NAME` makes a key and prints this line.",
        "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
    ),
    row(
        ("caller.*", "uid"),
        Kind::Count(0, u32::MAX as u64),
        Unset("one of `key_sha256` and `uid` is needed"),
        "The user id of the calling process, on a Unix socket.",
        "1000",
    )
    .on(Native, "a Worker has no Unix sockets: use `key_sha256`"),
    row(
        ("caller.*", "can"),
        Kind::Choices(
            &[
                "list", "token", "report", "renew", "resolve", "history", "events", "metrics", "verify", "keys", "rotate",
                "retire", "tokens", "grant", "revoke", "artifacts", "publish",
            ],
            &[],
        ),
        Required,
        "What the caller may do. Everything else is denied.",
        "[\"token\", \"report\"]",
    ),
    row(
        ("caller.*", "credentials"),
        Kind::Texts(NAME_PATTERN, 256),
        Unset("needed for what is done to credentials"),
        "To which credentials: names, or the start of names with `*` at its end.",
        "[\"apns-*\"]",
    ),
    row(
        ("caller.*", "issuers"),
        Kind::Texts(NAME_PATTERN, 64),
        Unset("needed for `keys`, `rotate` and `retire`"),
        "To which issuers: names, or the start of names with `*` at its end.",
        "[\"gateway\"]",
    ),
    row(
        ("caller.*", "tokens"),
        Kind::Texts(FAMILY_PATTERN, 256),
        Unset("needed for `tokens` and `grant`"),
        "To which access tokens: `FAMILY/TARGET`, or the start of such with `*` at its end.",
        "[\"cdn/*\"]",
    )
    .on(Native, "remove it: in this version access tokens are made and checked by native nodes"),
    row(("", "limits"), Kind::Group("limits"), Unset(""), "Limits of the HTTP surface.", "[limits]"),
    row(
        ("limits", "body"),
        Kind::Size(KIB, 16 * MIB),
        Value("64KiB"),
        "The largest request body; a larger one is answered with 413.",
        "\"64KiB\"",
    ),
    row(
        ("limits", "request"),
        Kind::Duration(100, 10 * MINUTE),
        Value("30s"),
        "The longest time for one request, reading its body included.",
        "\"30s\"",
    ),
    row(
        ("limits", "connections"),
        Kind::Count(1, 1_000_000),
        Value("10000"),
        "The most connections at once, per listener.",
        "10000",
    )
    .on(Native, "remove it: Cloudflare limits the connections of Workers"),
    row(
        ("limits", "event_streams"),
        Kind::Count(1, 100_000),
        Value("64"),
        "The most followers of `/v1/events` at once.",
        "64",
    ),
    row(
        ("", "credential"),
        Kind::Named("credential.*"),
        Unset("nothing to renew"),
        "The credentials, by name: `NAME`, or `\"TENANT/NAME\"` in quotes.",
        "[credential.apns-prod]",
    ),
    row(
        credential("source"),
        Kind::Choice(SOURCES, &[]),
        Required,
        "How it is minted: `apns` signs Apple's push provider token, `jwt` any other self-signed assertion, `exec` runs a script of yours, `http` calls a service of yours; the others ask an authorization server or a cloud by its own protocol.",
        "\"apns\"",
    ),
    row(
        credential("preset"),
        Kind::Choice(PRESETS, &[]),
        Unset("then `params` says it all"),
        "A ready-made header, set of claims and life for `source = \"jwt\"`.",
        "\"github-app-jwt\"",
    )
    .only(ANY_JWT),
    row(
        credential("key"),
        Kind::Secret,
        Required,
        "The private key: a `.p8` for `apns`; PEM, JWK or an HMAC secret for `jwt`; the PEM of the app for `github-app`; the JSON key file for `google-service-account`. A reference: `file:PATH`, `env:NAME`, `name-in:VARIABLE`, or `binding:NAME` on Workers.",
        "\"file:/etc/keyreeve/AuthKey_ABC123DEFG.p8\"",
    )
    .only(KEYED),
    row(
        credential("params"),
        Kind::Group("credential.*.params"),
        Unset(""),
        "What the source has to know.",
        "params = { team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }",
    )
    .only(WITH_PARAMS),
    row(param("team_id"), Kind::Text(APPLE_ID), Required, "The team that the key belongs to.", "\"DEF123GHIJ\"")
        .only(APNS),
    row(param("key_id"), Kind::Text(APPLE_ID), Required, "The id that Apple gave to the key.", "\"ABC123DEFG\"")
        .only(&["apns", "app-store-connect"]),
    row(
        param("issuer_id"),
        Kind::Text(ISSUER_ID),
        Required,
        "The issuer id of the App Store Connect team.",
        "\"57246542-96fe-1a63-e053-0824d011072a\"",
    )
    .only(&["app-store-connect"]),
    row(
        param("scope"),
        Kind::Texts(SCOPE, 32),
        Unset("the token may do what the key may do"),
        "The requests that the token is good for.",
        "[\"GET /v1/apps\"]",
    )
    .only(&["app-store-connect"]),
    row(
        param("app_id"),
        Kind::Text(APP_ID),
        Required,
        "The id or the client id of the GitHub App.",
        "\"Iv23liABCDEFGHIJKLMN\"",
    )
    .only(&["github-app-jwt", "github-app"]),
    row(
        param("alg"),
        Kind::Choice(&["ES256", "EdDSA", "RS256", "HS256", "HS384", "HS512"], ALGORITHMS_LATER),
        Required,
        "The signature algorithm. All of these give the same bytes for the same input, on every node.",
        "\"ES256\"",
    )
    .only(JWT),
    row(
        param("header"),
        Kind::Json(8 * 1024),
        Unset("only `alg`"),
        "Members of the header besides `alg`, signed in the order in which they are written.",
        "{ typ = \"JWT\", kid = \"key-1\" }",
    )
    .only(JWT),
    row(
        param("claims"),
        Kind::Json(8 * 1024),
        Required,
        "The claims, signed in the order in which they are written. `{iat}`, `{exp}`, `{jti}` and `{generation}` stand for the values of each mint; where one of `{iat}`, `{exp}` and `{generation}` is the whole text it becomes a number.",
        "{ iss = \"me\", aud = \"https://api.example.org\", iat = \"{iat}\", exp = \"{exp}\" }",
    )
    .only(JWT),
    row(
        credential("command"),
        Kind::Texts(ARGUMENT, 64),
        Required,
        "The program, by its absolute path, and its arguments. There is no shell.",
        "[\"/usr/local/bin/mint-token\", \"--json\"]",
    )
    .only(EXEC),
    row(
        credential("pass"),
        Kind::Texts(VARIABLE, 64),
        Unset("none"),
        "Variables that the script gets from keyreeve's own environment.",
        "[\"PATH\", \"HOME\"]",
    )
    .only(EXEC),
    row(
        credential("secrets"),
        Kind::SecretMap(32),
        Unset("none"),
        "Variables that the script gets with a secret in them.",
        "{ VENDOR_PASSWORD = \"file:/etc/keyreeve/vendor.password\" }",
    )
    .only(EXEC),
    row(
        credential("output"),
        Kind::Size(64, MIB),
        Value("64KiB"),
        "The most that the script may print.",
        "\"64KiB\"",
    )
    .only(EXEC),
    row(
        credential("url"),
        Kind::Text(SERVICE),
        Required,
        "The address of the service: `https`, or `http` on loopback; on a Worker also `service:NAME/path`, another Worker by its service binding. No user name or password in it. `{generation}`, `{idempotency_key}` and `{expires_at}` stand for the values of each mint, here, in `headers` and in `body`.",
        "\"https://tokens.example.org/renew\"",
    )
    .only(HTTP),
    row(
        credential("via"),
        Kind::Text(CERTIFICATE),
        Unset("no certificate"),
        "The client certificate that requests go out with (mTLS): a file in PEM with the certificate, its chain and its private key, read for each request, so that it can be replaced at any time. On a Worker the name of an mTLS certificate binding.",
        "\"file:/etc/keyreeve/client.pem\"",
    )
    .only(SENT),
    row(
        credential("ca"),
        Kind::Text(FILE),
        Unset("the system's"),
        "The certificate authorities to believe instead of the system's: a file in PEM, read for each request.",
        "\"file:/etc/keyreeve/ca.pem\"",
    )
    .only(SENT)
    .on(Native, "remove it: a Worker believes the authorities that Cloudflare believes"),
    row(
        credential("method"),
        Kind::Choice(&["GET", "POST"], &[]),
        Value("POST"),
        "The method of the request.",
        "\"POST\"",
    )
    .only(HTTP),
    row(
        credential("headers"),
        Kind::TextMap(HEADER, 32),
        Unset("none"),
        "Headers of the request that hold no secret.",
        "{ accept = \"application/json\" }",
    )
    .only(HTTP),
    row(
        credential("secret_headers"),
        Kind::SecretMap(16),
        Unset("none"),
        "Headers of the request whose value is a secret.",
        "{ authorization = \"env:RENEWAL_AUTHORIZATION\" }",
    )
    .only(HTTP),
    row(
        credential("body"),
        Kind::Text(BODY),
        Unset("none"),
        "The body of the request.",
        "\"{\\\"audience\\\": \\\"push\\\"}\"",
    )
    .only(HTTP),
    row(
        credential("map"),
        Kind::Group("credential.*.map"),
        Unset(""),
        "Where in the answer, which is JSON, things are.",
        "map = { token = \"/access_token\", expires_in = \"/expires_in\" }",
    )
    .only(HTTP),
    row(
        ("credential.*.map", "token"),
        Kind::Text(POINTER),
        Computed("`/access_token`, unless `fields` is written"),
        "The token (RFC 6901).",
        "\"/access_token\"",
    )
    .only(HTTP),
    row(
        ("credential.*.map", "fields"),
        Kind::TextMap(POINTER, 16),
        Unset("the answer holds one token"),
        "Several named values instead of one token (RFC 6901).",
        "{ AccessKeyId = \"/Credentials/AccessKeyId\" }",
    )
    .only(HTTP),
    row(
        ("credential.*.map", "expires_in"),
        Kind::Text(POINTER),
        Computed("`/expires_in`, unless `expires_at` is written"),
        "The seconds for which the credential is good (RFC 6901).",
        "\"/expires_in\"",
    )
    .only(HTTP),
    row(
        ("credential.*.map", "expires_at"),
        Kind::Text(POINTER),
        Unset("`expires_in` is used"),
        "When the credential expires: RFC 3339 text, or seconds since 1970 (RFC 6901).",
        "\"/expires_at\"",
    )
    .only(HTTP),
    row(
        credential("idempotent"),
        Kind::Flag,
        Value("false"),
        "Whether the service answers a repeated `Idempotency-Key` with the same credential. Then a lost answer costs seconds, not a wait.",
        "true",
    )
    .only(HTTP),
    row(
        credential("answer"),
        Kind::Size(64, MIB),
        Value("64KiB"),
        "The largest answer that is read.",
        "\"64KiB\"",
    )
    .only(HTTP),
    row(
        credential("mode"),
        Kind::Choice(&["slot", "replay", "lease", "exclusive"], &[]),
        Computed("`replay` for `apns`, `jwt`, and `http` with `idempotent = true`; else `lease`"),
        "How the fleet coordinates: `slot` not at all, each node computes the same token; `replay` where a repeated mint brings the same credential; `lease` where several may be valid at once; `exclusive` where a second mint within `min_interval` does harm.",
        "\"replay\"",
    ),
    row(
        credential("on_doubt"),
        Kind::Choice(&["retry-same", "wait", "reauth"], &[]),
        Computed("`retry-same` in replay mode; `reauth` for `oauth2-refresh`, unless `rotates = false`; else `wait`"),
        "What happens after a mint whose answer was lost: ask again for the same, wait until a second mint is safe, or wait for an operator.",
        "\"wait\"",
    ),
    row(
        credential("first_mint"),
        Kind::Choice(&["now", "wait"], &[]),
        Computed("`wait` in exclusive mode, else `now`"),
        "Whether an empty store means that nothing was minted lately. `wait` lets `min_interval` pass first.",
        "\"now\"",
    ),
    row(
        credential("keep"),
        Kind::Keep,
        Value("3 lifetimes"),
        "When it is renewed although nobody asks for it: `\"always\"`, or until nobody has asked for so many lifetimes.",
        "\"always\"",
    ),
    row(
        credential("wait"),
        Kind::Duration(0, 30 * SECOND),
        Value("1500ms"),
        "How long a caller waits while there is no valid credential. Clients of cloud SDKs give up after 2s.",
        "\"1500ms\"",
    ),
    row(
        credential("history"),
        Kind::Count(1, 64),
        Value("16"),
        "How many entries of its history the record keeps.",
        "16",
    ),
    row(
        credential("life"),
        Kind::Group("credential.*.life"),
        Unset(""),
        "The numbers of its life.",
        "life = { max = \"55m\", min_interval = \"20m\", lead = \"10m\" }",
    ),
    row(
        life("max"),
        Kind::Duration(SECOND, 366 * DAY),
        Computed("`55m` for `apns`, `15m` for `jwt` and `app-store-connect`, `9m` for `github-app-jwt`, else `1h`"),
        "How long a credential lives from its issue. For what others mint the most that is believed, or what they are asked for.",
        "\"55m\"",
    ),
    row(
        life("min_interval"),
        Kind::Duration(0, 30 * DAY),
        Computed("`20m` for `apns`, else a tenth of `max`, `1m` at most; none in slot mode, `apns` aside"),
        "The least time between two mints.",
        "\"20m\"",
    ),
    row(
        life("lead"),
        Kind::DurationOrShare(1, 366 * DAY),
        Computed("`10m` for `apns`; for `aws-web-identity` `20m`, or half of `max` where that is less; else a fifth of `max`"),
        "How long before expiry the renewal starts, as a time or as a share of `max`. It must absorb at least one lost answer.",
        "\"10m\"",
    ),
    row(
        life("quiet"),
        Kind::Texts(QUIET, 16),
        Unset("none"),
        "Maintenance windows, in UTC: a renewal that would fall due in one comes before it. Where an upstream gives too short a life for that, and where a renewal before the window fails, validity comes first and the window gives way.",
        "[\"sat 22:00-22:30\"]",
    ),
    row(
        life("skew"),
        Kind::Duration(0, 10 * MINUTE),
        Value("2s"),
        "The most by which two wall clocks differ. Who writes it vouches for it, and then wall clocks may prove that a wait is over.",
        "\"2s\"",
    ),
    row(
        life("upstream_skew"),
        Kind::Duration(0, 10 * MINUTE),
        Computed("`skew`"),
        "The most by which the upstream's clock is wrong.",
        "\"2s\"",
    ),
    row(
        life("backdate"),
        Kind::Duration(0, HOUR),
        Computed("`60s`, or `skew` + `upstream_skew` where that is more; none for what others sign"),
        "How much earlier than now a signed token says it was issued, so that no verifier's clock finds it early.",
        "\"60s\"",
    )
    .only(SIGNED),
    row(
        life("handover"),
        Kind::Duration(0, DAY),
        Computed("half of `lead` for `apns` and `jwt` in replay mode, else none"),
        "How long before the switch to it a new credential is published, so that all nodes switch together.",
        "\"5m\"",
    ),
    row(
        life("jitter"),
        Kind::Duration(0, DAY),
        Computed("a quarter of `lead`"),
        "A renewal falls due up to this much earlier, drawn anew each time, so that credentials minted together do not stay together.",
        "\"150s\"",
    ),
    row(
        life("spread"),
        Kind::Duration(0, DAY),
        Computed("a quarter of `lead`; `2s` at most in exclusive mode"),
        "Over how long the nodes spread their look for a due renewal, the last holder aside.",
        "\"150s\"",
    ),
    row(
        life("stale"),
        Kind::Duration(0, 7 * DAY),
        Value("0s"),
        "How far past its expiry a credential may still be served while it cannot be renewed.",
        "\"1h\"",
    )
    .only(CALLED),
    row(
        life("slot"),
        Kind::Duration(SECOND, 30 * DAY),
        Computed("`30m` for `apns`, else half of `max`"),
        "The length of a slot, in slot mode.",
        "\"30m\"",
    )
    .only(SIGNED),
    row(
        life("flight"),
        Kind::Duration(0, 10 * MINUTE),
        Value("30s"),
        "The longest time from choosing a token to its arrival upstream, in slot mode.",
        "\"30s\"",
    )
    .only(SIGNED),
    row(
        life("lease"),
        Kind::Duration(1, 10 * MINUTE),
        Computed("`20s`, or `send` + `timeout` + `5s` where that is more"),
        "How long a node believes in its right to mint, counted from before it asked for it.",
        "\"20s\"",
    ),
    row(
        life("send"),
        Kind::Duration(1, 5 * MINUTE),
        Value("5s"),
        "No mint leaves later than this after the lease was asked for.",
        "\"5s\"",
    ),
    row(
        life("timeout"),
        Kind::Duration(1, 5 * MINUTE),
        Value("10s"),
        "A mint is cut off this long after it was sent.",
        "\"10s\"",
    ),
    row(
        life("takeover"),
        Kind::Duration(1, 20 * MINUTE),
        Computed("one and a quarter of `lease`"),
        "How long the others wait for a node that took the lease. At least 1.2 times `lease`, for slow clocks.",
        "\"25s\"",
    ),
    row(
        life("poll"),
        Kind::Duration(10, MINUTE),
        Value("1s"),
        "How soon to look again while another node renews, or while the store is away.",
        "\"1s\"",
    ),
    row(
        life("hold"),
        Kind::Duration(1, HOUR),
        Value("1s"),
        "How long the fleet holds back after a first failure that will pass; doubles with each.",
        "\"1s\"",
    ),
    row(life("hold_max"), Kind::Duration(1, DAY), Value("60s"), "The longest such hold.", "\"60s\""),
    row(
        life("hard_hold"),
        Kind::Duration(1, HOUR),
        Value("30s"),
        "How long the fleet holds back after a first failure that will not pass by itself; doubles with each.",
        "\"30s\"",
    ),
    row(life("hard_hold_max"), Kind::Duration(1, DAY), Value("15m"), "The longest such hold.", "\"15m\""),
];
