//! Settings of who signs tokens here, and for whom.

use super::super::table::Fallback::{Computed, Required, Unset, Value};
use super::super::table::{Kind, Setting, Text, row};
use super::super::types::Home::Native;
use super::{DAY, KEY_HASH, MINUTE, SECOND};

/// RFC 8414 2: no query, no fragment.
const ISSUER_URL: Text = Text::new("an `https` URL, or `http` on loopback", "^https?://[^?#]+$", 512);
const AUDIENCE: Text = Text::new("who a token is for, without spaces", "^[!-~]+$", 512);
const ISSUER: Text = Text::new("the name of an issuer", "^[a-z0-9][a-z0-9._-]*$", 63);
/// RFC 6749 3.3.
const SCOPE: Text = Text::new("a scope, without spaces and quotes", "^[!#-\\[\\]-~]+$", 128);
const SUBJECT: Text = Text::new("a subject, or a start of subjects with `*` at its end", "^[!-~]+$", 256);
const CERTIFICATE_NAME: Text =
    Text::new("a name in a certificate: `dns:..`, `uri:..` or `subject:..`", "^(dns|uri|subject):[ -~]+$", 512);
const ONE_PROOF: &str = "one of `secret_sha256`, `jwks`, `certificate_sha256` and `certificate_name` is needed";
const TRUSTED: Text = Text::new("`issuer:NAME` or `verifier:NAME`", "^(issuer|verifier):[a-z0-9][a-z0-9._-]*$", 80);

/// The algorithms of issuers. An HMAC is none: who could verify could sign.
pub(in super::super) const ALGORITHMS: &[&str] =
    &["EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

const fn issuer(name: &'static str) -> (&'static str, &'static str) {
    ("issuer.*", name)
}

const fn keys(name: &'static str) -> (&'static str, &'static str) {
    ("issuer.*.keys", name)
}

const fn client(name: &'static str) -> (&'static str, &'static str) {
    ("client.*", name)
}

const NOT_ON_A_WORKER: &str =
    "remove it: in this version tokens are signed by native nodes, which may share the Worker's register";

/// The rows, in the order of the reference page.
pub(super) static SETTINGS: &[Setting] = &[
    row(
        ("", "issuer"),
        Kind::Named("issuer.*"),
        Unset("nothing is signed for others"),
        "Who signs tokens here, by name.",
        "[issuer.gateway]",
    )
    .on(Native, NOT_ON_A_WORKER),
    row(
        issuer("url"),
        Kind::Text(ISSUER_URL),
        Required,
        "The `iss` of its tokens, and where its discovery document is found, under `/.well-known/`. With several issuers this should end with `/issuer/NAME`.",
        "\"https://gateway.example.org\"",
    ),
    row(
        issuer("audience"),
        Kind::OneOrMore(AUDIENCE, 64),
        Required,
        "Who its tokens can be for. A client that asks for none of them gets the first of those it may have.",
        "[\"internal-api\"]",
    ),
    row(
        issuer("ttl"),
        Kind::Duration(SECOND, DAY),
        Value("15m"),
        "The longest life of a token. Nothing but its end is sure to stop one, so keep it short.",
        "\"15m\"",
    ),
    row(
        issuer("keys"),
        Kind::Group("issuer.*.keys"),
        Unset(""),
        "Its keys, which the fleet makes, seals and shares.",
        "keys = { alg = \"EdDSA\", rotate = \"30d\", overlap = \"1h\" }",
    ),
    row(
        keys("alg"),
        Kind::Choice(ALGORITHMS, &[]),
        Value("EdDSA"),
        "The algorithm of new keys. Another one is a rotation that is due: the tokens of the old key stay good.",
        "\"ES256\"",
    ),
    row(
        keys("rotate"),
        Kind::Duration(5 * SECOND, 400 * DAY),
        Value("30d"),
        "How long a key signs until the next one takes over.",
        "\"30d\"",
    ),
    row(
        keys("overlap"),
        Kind::Duration(SECOND, 60 * DAY),
        Value("1h"),
        "How long a key is published before it signs. A node that cannot read the register for as long stops signing.",
        "\"1h\"",
    ),
    row(
        keys("stale"),
        Kind::Duration(SECOND, 60 * DAY),
        Computed("`overlap`"),
        "For how long a node that cannot read the register signs and verifies with what it read last: within this a retired key is refused by a node that is cut off, too.",
        "\"10m\"",
    ),
    row(
        keys("poll"),
        Kind::Duration(20, MINUTE),
        Value("1s"),
        "How often a node reads the keys and revocations: within this, and the time of a read, what was retired or revoked is refused everywhere.",
        "\"1s\"",
    ),
    row(
        keys("max_age"),
        Kind::Duration(0, DAY),
        Computed("`5m`, or half of `overlap` where that is less"),
        "For how long verifiers may keep the key set (`Cache-Control: max-age`).",
        "\"5m\"",
    ),
    row(
        keys("skew"),
        Kind::Duration(0, 10 * MINUTE),
        Value("1m"),
        "How far the clocks of nodes and verifiers may be apart: a key comes and goes with this to spare.",
        "\"1m\"",
    ),
    row(
        ("", "client"),
        Kind::Named("client.*"),
        Unset("nobody gets a token"),
        "Who may ask an issuer for tokens or about them, by `client_id`.",
        "[client.orders]",
    )
    .on(Native, NOT_ON_A_WORKER),
    row(client("issuer"), Kind::Text(ISSUER), Required, "The issuer that knows it.", "\"gateway\""),
    row(
        client("secret_sha256"),
        Kind::Text(KEY_HASH),
        Unset(ONE_PROOF),
        "The SHA-256 of its secret. `keyreeve config new-client NAME` makes a secret and prints this line.",
        "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
    ),
    row(
        client("jwks"),
        Kind::Secret,
        Unset(ONE_PROOF),
        "Its public keys (JWKS), with which it proves itself by a signed assertion (`private_key_jwt`, RFC 7523).",
        "\"file:/etc/keyreeve/orders.jwks.json\"",
    ),
    row(
        client("certificate_sha256"),
        Kind::Text(KEY_HASH),
        Unset(ONE_PROOF),
        "The SHA-256 of its client certificate in DER, whoever signed it (RFC 8705 2.2). Its tokens are bound to it.",
        "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
    ),
    row(
        client("certificate_name"),
        Kind::Text(CERTIFICATE_NAME),
        Unset(ONE_PROOF),
        "A name in its client certificate, which an authority under `client_ca` of the listener has signed (RFC 8705 2.1). Its tokens are bound to the certificate.",
        "\"dns:orders.internal\"",
    ),
    row(
        client("can"),
        Kind::Choices(&["client-credentials", "token-exchange", "jwt-bearer", "introspect", "revoke"], &[]),
        Required,
        "What it may do: the grants of `/oauth2/token`, `introspect` any token of the issuer, `revoke` tokens of its own.",
        "[\"client-credentials\"]",
    ),
    row(
        client("scopes"),
        Kind::Texts(SCOPE, 64),
        Unset("none"),
        "The scopes that its tokens can have.",
        "[\"orders:read\", \"orders:write\"]",
    ),
    row(
        client("audience"),
        Kind::OneOrMore(AUDIENCE, 64),
        Computed("that of the issuer"),
        "Who its tokens can be for, out of the issuer's `audience`.",
        "[\"internal-api\"]",
    ),
    row(
        client("claims"),
        Kind::Json(4 * 1024),
        Unset("none"),
        "Claims that its own tokens have besides, such as `permissions` and `roles`.",
        "{ roles = [\"service\"] }",
    ),
    row(
        client("trusts"),
        Kind::Texts(TRUSTED, 16),
        Computed("its own issuer for `token-exchange`, nobody for `jwt-bearer`"),
        "Whose tokens it may exchange, or bring as an assertion.",
        "[\"issuer:gateway\"]",
    ),
    row(
        client("subjects"),
        Kind::Texts(SUBJECT, 64),
        Unset("none"),
        "For whom it may ask with an assertion that it signed itself with a key of its `jwks`.",
        "[\"user-*\"]",
    ),
];
