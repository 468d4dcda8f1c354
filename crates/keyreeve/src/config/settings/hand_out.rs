//! Settings about hand-out: metadata services, and files.

use super::super::table::Fallback::{Computed, Required, Unset, Value};
use super::super::table::{Kind, Setting, Text, row};
use super::super::types::Home::Native;
use super::{BIND, FILE, HOUR, KIB, MIB};

const NAME: Text = Text::new("the name of a credential", "^[a-z0-9._/-]+$", 128);
const ROLE: Text = Text::new("the name of a role", "^[A-Za-z0-9+=,.@_-]+$", 64);
const PROJECT: Text = Text::new("the id of a project", "^[a-z][a-z0-9:.-]+$", 128);
const EMAIL: Text = Text::new("the address of a service account", "^[A-Za-z0-9@._-]+$", 256);
const SCOPE: Text = Text::new("a scope", "^[^\\s,]+$", 512);
const PATH: Text = Text::new("an absolute path", "^/.+$", 4096);
const HERE: &str = "remove it: a Worker has no addresses and files of its own";

const fn metadata(name: &'static str) -> (&'static str, &'static str) {
    ("metadata.*", name)
}

const INJECT: &str = "only for kind `inject`";
const UPSTREAM: Text = Text::new("an `https` URL, or `http` on loopback", "^https?://[^/?#@]+/?$", 512).quiet();
const HEADER_NAME: Text = Text::new("the name of a header", "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", 128);
const VALUE: Text =
    Text::new("text with `{token}` in it", "^[\\t\\u0020-\\u007e]*\\{token\\}[\\t\\u0020-\\u007e]*$", 512).quiet();

const fn gate(name: &'static str) -> (&'static str, &'static str) {
    ("gate.*", name)
}

const fn file(name: &'static str) -> (&'static str, &'static str) {
    ("file.*", name)
}

/// The settings, in the order of the reference page.
pub(super) static SETTINGS: &[Setting] = &[
    row(
        gate("bind"),
        Kind::Text(BIND),
        Unset("only for kinds `inject` and `artifact`"),
        "Where an `inject` or `artifact` gate listens. For `inject` a loopback or link-local address, or a Unix socket: whoever can connect may use the credential, and cannot read it. For `artifact` any address, by the rules of listeners: it has `tls`, or is local.",
        "\"127.0.0.1:7075\"",
    )
    .on(Native, HERE),
    row(
        gate("credential"),
        Kind::Text(NAME),
        Unset(INJECT),
        "What an `inject` gate adds: a credential that is a single token.",
        "\"github-acme\"",
    )
    .on(Native, HERE),
    row(
        gate("upstreams"),
        Kind::OneOrMore(UPSTREAM, 32),
        Unset(INJECT),
        "Where the requests of an `inject` gate may go: scheme and host. Everything else is refused. Who asks the gate by its own address means the first.",
        "[\"https://api.github.com\"]",
    )
    .on(Native, HERE),
    row(
        gate("header"),
        Kind::Text(HEADER_NAME),
        Value("authorization"),
        "The header that an `inject` gate sets; what the program sent under this name is dropped.",
        "\"authorization\"",
    )
    .on(Native, HERE),
    row(
        gate("value"),
        Kind::Text(VALUE),
        Value("Bearer {token}"),
        "The value of that header, with `{token}` for the token.",
        "\"Bearer {token}\"",
    )
    .on(Native, HERE),
    row(
        gate("via"),
        Kind::Text(FILE),
        Unset("no certificate"),
        "The client certificate that the requests of an `inject` gate go out with (mTLS): a file in PEM with the certificate, its chain and its private key, read for each request, so that it can be replaced at any time.",
        "\"file:/etc/keyreeve/client.pem\"",
    )
    .on(Native, HERE),
    row(
        gate("ca"),
        Kind::Text(FILE),
        Unset("the system's"),
        "The certificate authorities that an `inject` gate believes instead of the system's: a file in PEM, read for each request.",
        "\"file:/etc/keyreeve/ca.pem\"",
    )
    .on(Native, HERE),
    row(
        gate("timeout"),
        Kind::Duration(100, HOUR),
        Value("60s"),
        "How long the upstream of an `inject` gate may take to begin its answer. Between two pieces of the answer 60s may pass.",
        "\"60s\"",
    )
    .on(Native, HERE),
    row(
        gate("body"),
        Kind::Size(KIB, 1024 * 1024 * MIB),
        Value("64MiB"),
        "The largest request body of an `inject` gate. Bodies stream, and are never kept.",
        "\"64MiB\"",
    )
    .on(Native, HERE),
    row(
        gate("requests"),
        Kind::Count(1, 100_000),
        Computed("256 for `inject`, 1024 for `artifact`"),
        "The most requests at once at an `inject` gate, or that wait for the origins of an `artifact` gate.",
        "256",
    )
    .on(Native, HERE),
    row(
        ("", "metadata"),
        Kind::Named("metadata.*"),
        Unset("clients ask the API"),
        "Stand-ins for the metadata service of a cloud, by name. Whoever can connect to one is handed its credential.",
        "[metadata.batch]",
    )
    .on(Native, HERE),
    row(
        metadata("bind"),
        Kind::Text(BIND),
        Required,
        "Where it listens: a loopback or link-local address, which only this machine or pod can reach.",
        "\"127.0.0.1:9911\"",
    ),
    row(
        metadata("kind"),
        Kind::Choice(&["aws", "gce", "azure"], &[]),
        Required,
        "Whose it stands in for: `aws` speaks IMDSv2, `gce` Google's, `azure` that of Azure's machines and of App Service.",
        "\"aws\"",
    ),
    row(
        metadata("credential"),
        Kind::Text(NAME),
        Unset("needed for `aws` and `gce`"),
        "What is handed out: AWS keys for `aws`, an access token for `gce`.",
        "\"lake-prod\"",
    ),
    row(
        metadata("role"),
        Kind::Text(ROLE),
        Computed("the name of the credential, without its tenant"),
        "What the role is called to clients of AWS.",
        "\"lake\"",
    ),
    row(
        metadata("project"),
        Kind::Text(PROJECT),
        Unset("clients are told of none"),
        "The id of the project, for Google's clients.",
        "\"acme-prod\"",
    ),
    row(
        metadata("email"),
        Kind::Text(EMAIL),
        Computed("`default`"),
        "The address of the service account, for Google's clients.",
        "\"batch@acme-prod.iam.gserviceaccount.com\"",
    ),
    row(
        metadata("scopes"),
        Kind::Texts(SCOPE, 32),
        Computed("that of the whole platform"),
        "What Google's clients are told that the service account may do. What the token really allows, its source says.",
        "[\"https://www.googleapis.com/auth/cloud-platform\"]",
    ),
    row(
        metadata("audiences"),
        Kind::TextMap(NAME, 64),
        Unset("there are no identity tokens"),
        "Identity tokens for Google's clients: each audience with the credential that is a token for it.",
        "{ \"https://orders.example.org\" = \"orders-identity\" }",
    ),
    row(
        metadata("resources"),
        Kind::TextMap(NAME, 64),
        Unset("needed for `azure`"),
        "Access tokens for Azure's clients: each resource with the credential that is a token for it. App Service clients name the API key of a caller, who may take that credential, as `IDENTITY_HEADER`.",
        "{ \"https://vault.azure.net\" = \"vault\" }",
    ),
    row(
        ("", "file"),
        Kind::Named("file.*"),
        Unset("credentials are not written to files"),
        "Files that always hold a credential, by name: written anew with each generation, mode 0600, replaced as a whole.",
        "[file.lake]",
    )
    .on(Native, HERE),
    row(file("credential"), Kind::Text(NAME), Required, "Which credential.", "\"lake-prod\""),
    row(
        file("path"),
        Kind::Text(PATH),
        Required,
        "Where. Its folder has to be there, and should belong to whoever reads the file.",
        "\"/run/keyreeve/lake.token\"",
    ),
    row(
        file("form"),
        Kind::Choice(&["raw", "json", "aws"], &[]),
        Value("raw"),
        "`raw` is the token and nothing after it, `json` what the API says, `aws` a `credentials` file with the profile `default`.",
        "\"raw\"",
    ),
];
