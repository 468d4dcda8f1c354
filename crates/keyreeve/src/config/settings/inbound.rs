//! Settings about tokens of others: verifiers, gates, policies.

use super::super::table::Fallback::{Computed, Required, Unset, Value};
use super::super::table::{Kind, Setting, Text, row};
use super::super::types::Home::Native;
use super::{DAY, HOUR, MINUTE, SECOND};

/// Signature algorithms that a verifier may be told.
const ALGORITHMS: &[&str] = &[
    "EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "HS256", "HS384", "HS512",
];
/// Which proxy asks.
const PROXIES: &[&str] = &["any", "nginx", "envoy", "traefik", "caddy"];

const ISSUER: Text = Text::new("the issuer, as its tokens say it", "^[^\\s]+$", 1024);
const AUDIENCE: Text = Text::new("an audience, as tokens say it", "^.+$", 1024);
const KEYS_URL: Text = Text::new(
    "an `https` URL, or `http` on loopback; on a Worker also `service:NAME/path`",
    "^(https?://.+|service:[A-Za-z_][A-Za-z0-9_]*/.*)$",
    2048,
)
.quiet();
const PIN: Text = Text::new("a thumbprint of 43 characters (RFC 7638)", "^[A-Za-z0-9_-]{43}$", 256);
const TYPE: Text = Text::new("`ordinary`, `at+jwt` or another `typ`", "^[A-Za-z0-9!#$&^_.+/-]+$", 128);
const CLAIM: Text = Text::new("a claim", "^.+$", 256);
const HEADER_NAME: Text = Text::new("the name of a header", "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", 128);
const WHO: Text = Text::new("`issuer:NAME[..]` or `verifier:NAME[..]`", "^(issuer|verifier):.+$", 2048);
const CAN: Text = Text::new("a method and a path", "^([A-Z-]+|\\*) /.*$", 512);
const ON: Text = Text::new("`gate:NAME`", "^gate:.+$", 128);

const fn verifier(name: &'static str) -> (&'static str, &'static str) {
    ("verifier.*", name)
}

const fn gate(name: &'static str) -> (&'static str, &'static str) {
    ("gate.*", name)
}

const fn policy(name: &'static str) -> (&'static str, &'static str) {
    ("policy[]", name)
}

/// The settings, in the order of the reference page.
pub(super) static SETTINGS: &[Setting] = &[
    row(
        ("", "verifier"),
        Kind::Named("verifier.*"),
        Unset("no tokens but our own are accepted"),
        "Whose tokens are accepted, by name.",
        "[verifier.auth0]",
    ),
    row(
        verifier("issuer"),
        Kind::Text(ISSUER),
        Required,
        "The `iss` of its tokens, compared byte by byte. Where keys come from discovery it is an `https` URL, under which `/.well-known/openid-configuration` is.",
        "\"https://tenant.auth0.com/\"",
    ),
    row(
        verifier("audience"),
        Kind::OneOrMore(AUDIENCE, 16),
        Required,
        "The `aud` of tokens for us; one of them is enough. Without it a token for any other service would be good here.",
        "\"my-client\"",
    ),
    row(
        verifier("algorithms"),
        Kind::Choices(ALGORITHMS, &[]),
        Computed("all but `HS256`, `HS384` and `HS512`; with `secret` only `HS512`"),
        "The signature algorithms. Keys for others are left out; what a token says about its algorithm is only compared.",
        "[\"RS256\", \"ES256\"]",
    ),
    row(
        verifier("typ"),
        Kind::Text(TYPE),
        Value("ordinary"),
        "The `typ` of its tokens: `ordinary` is `JWT`, `at+jwt` or none; `at+jwt` also demands the claims of RFC 9068; anything else is that and nothing else.",
        "\"at+jwt\"",
    ),
    row(
        verifier("jwks_url"),
        Kind::Text(KEYS_URL),
        Unset("discovery at `issuer` names it"),
        "Where its keys are, as a JWKS; on a Worker also `service:NAME/path`, another Worker by its service binding.",
        "\"https://tenant.auth0.com/.well-known/jwks.json\"",
    ),
    row(
        verifier("keys"),
        Kind::Secrets(16),
        Unset("discovery at `issuer` names where they are"),
        "Its public keys, where they are not fetched: references to a JWK or a JWKS.",
        "[\"file:/etc/keyreeve/partner.jwks.json\"]",
    ),
    row(
        verifier("secret"),
        Kind::Secret,
        Unset("its keys are public ones"),
        "The secret that it signs with, in base64url: at least 32 bytes for `HS256`, 48 for `HS384`, 64 for `HS512`. Who has it can sign, so better let it have a private key.",
        "\"file:/etc/keyreeve/partner.secret\"",
    ),
    row(
        verifier("pins"),
        Kind::Texts(PIN, 16),
        Unset("every key that the issuer names is taken"),
        "Thumbprints of the only keys that are taken (RFC 7638, SHA-256, base64url), whatever the issuer names.",
        "[\"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\"]",
    ),
    row(
        verifier("leeway"),
        Kind::Duration(0, 5 * MINUTE),
        Value("60s"),
        "By how much its clock and ours may differ.",
        "\"60s\"",
    ),
    row(
        verifier("cooldown"),
        Kind::Duration(SECOND, HOUR),
        Value("30s"),
        "Keys are fetched no sooner than this after the last time, whatever key ids tokens come with.",
        "\"30s\"",
    ),
    row(
        verifier("fresh"),
        Kind::Duration(10 * SECOND, DAY),
        Value("5m"),
        "After this long the keys are fetched anew, in the background, while the old ones serve on. An issuer that says `max-age` decides itself, between `cooldown` and `1d`.",
        "\"5m\"",
    ),
    row(
        verifier("stale"),
        Kind::Duration(0, 30 * DAY),
        Value("1d"),
        "How long after that the old keys still serve while the issuer does not answer. It takes that long for a key to go which the issuer withdraws meanwhile.",
        "\"1d\"",
    ),
    row(
        verifier("via"),
        Kind::Text(super::CERTIFICATE),
        Unset("no certificate"),
        "The client certificate that its keys are fetched with: a file in PEM with the certificate, its chain and its private key; on a Worker the name of an mTLS certificate binding.",
        "\"file:/etc/keyreeve/client.pem\"",
    ),
    row(
        verifier("ca"),
        Kind::Text(super::FILE),
        Unset("the system's"),
        "The certificate authorities to believe instead of the system's when its keys are fetched: a file in PEM.",
        "\"file:/etc/keyreeve/ca.pem\"",
    )
    .on(Native, "remove it: a Worker believes the authorities that Cloudflare believes"),
    row(
        ("", "gate"),
        Kind::Named("gate.*"),
        Unset("nothing is asked about"),
        "What lets requests through to something, by name.",
        "[gate.orders]",
    ),
    row(
        gate("kind"),
        Kind::Choice(&["auth", "inject", "artifact"], &["s3"]),
        Required,
        "What it does: `auth` answers a proxy in front of a service, at `/auth/NAME`, whether a request may go through; `inject` adds a credential to requests on their way to an upstream; `artifact` hands objects to whoever has a token for them.",
        "\"auth\"",
    ),
    row(
        gate("proxy"),
        Kind::Choice(PROXIES, &[]),
        Value("any"),
        "Who asks, and so where method and path stand: `nginx` in `method_header` and `uri_header`; `traefik` and `caddy` in `X-Forwarded-Method` and `X-Forwarded-Uri`; `envoy` in the request itself, behind `/auth/NAME`. `any` takes each of these and refuses a request that has two.",
        "\"nginx\"",
    ),
    row(
        gate("method_header"),
        Kind::Text(HEADER_NAME),
        Value("x-original-method"),
        "The header in which `nginx` names the method. It must set this itself, so that no client can.",
        "\"x-original-method\"",
    ),
    row(
        gate("uri_header"),
        Kind::Text(HEADER_NAME),
        Value("x-original-uri"),
        "The header in which `nginx` names path and query. It must set this itself, so that no client can.",
        "\"x-original-uri\"",
    ),
    row(
        gate("identity"),
        Kind::TextMap(CLAIM, 16),
        Computed(
            "`x-auth-subject` = `sub`, `x-auth-issuer` = `iss`, `x-auth-scope` = `scope`, `x-auth-permissions` = `permissions`, `x-auth-roles` = `roles`, `x-auth-actor` = `actor`",
        ),
        "Headers of the answer, each with the claim that it says. All of them are in every answer that lets a request through, empty where the claim is not there, so that the proxy replaces what a client sent under their names.",
        "{ x-auth-subject = \"sub\", x-auth-groups = \"realm_access.roles\" }",
    ),
    row(
        ("", "policy"),
        Kind::Groups("policy[]", 1000),
        Unset("nothing is allowed"),
        "A rule: who can do what. What no rule allows is denied.",
        "[[policy]]",
    ),
    row(
        policy("who"),
        Kind::Text(WHO),
        Required,
        "Whose tokens, and in brackets what they must say: `has`, `has any`, `has all`, `has like`, `within`, `is`, `like`, joined by `and` or `or`.",
        "\"verifier:auth0[permissions has 'orders:write']\"",
    ),
    row(
        policy("can"),
        Kind::OneOrMore(CAN, 64),
        Required,
        "The requests that it allows: a method, or `*` for any, and a path, in which `*` is one or more characters but no `/`, and `/**` at the end everything below. `GET` allows `HEAD` too.",
        "[\"POST /orders/*\"]",
    ),
    row(policy("on"), Kind::OneOrMore(ON, 64), Required, "Where it holds.", "\"gate:orders\""),
];
