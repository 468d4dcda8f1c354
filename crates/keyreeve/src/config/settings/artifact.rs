//! Settings about artifacts: where objects are, and gates that hand them out.

use super::super::table::Fallback::{Computed, Required, Unset, Value};
use super::super::table::{Kind, Setting, Text, row};
use super::super::types::Home::Native;
use super::{DAY, FILE, KIB, MIB, MINUTE};

const PLACE: Text =
    Text::new("`file:PATH`, `s3://BUCKET`, `gs://BUCKET` or `az://CONTAINER`", "^(file:/|s3://|gs://|az://).+$", 1024);
const ENDPOINT: Text = Text::new("an `https` URL, or `http` on loopback", "^https?://.+$", 512).quiet();
const REGION: Text = Text::new("the name of a region", "^[a-z0-9-]+$", 64);
const ACCOUNT: Text = Text::new("an access key id, or the name of a storage account", "^[A-Za-z0-9._-]+$", 128);
const NAME: Text = Text::new("a name of a table", "^[a-z0-9._-]+$", 64);
const FOLDER: Text = Text::new("an absolute path", "^/.+$", 4096);
const PAGE: Text = Text::new("scheme and host of a web page", "^https?://[^/?#@*]+$", 256);
const HERE: &str = "remove it: a Worker has no addresses and files of its own";
const ONLY: &str = "only for kind `artifact`";

const fn objects(name: &'static str) -> (&'static str, &'static str) {
    ("objects.*", name)
}

const fn gate(name: &'static str) -> (&'static str, &'static str) {
    ("gate.*", name)
}

/// The settings, in the order of the reference page.
pub(super) static SETTINGS: &[Setting] = &[
    row(
        ("", "objects"),
        Kind::Named("objects.*"),
        Unset("nothing is read from buckets"),
        "Where objects are, by name: a folder, or a bucket and what opens it.",
        "[objects.primary]",
    )
    .on(Native, HERE),
    row(
        objects("url"),
        Kind::Text(PLACE),
        Required,
        "The folder, or the bucket of S3, Google Cloud Storage or Azure; names below the bucket may follow it.",
        "\"s3://artifacts\"",
    )
    .on(Native, HERE),
    row(
        objects("endpoint"),
        Kind::Text(ENDPOINT),
        Computed("that of the cloud"),
        "The service to ask instead of the cloud's own, such as R2 or a server of your own that speaks S3.",
        "\"https://0123456789abcdef.r2.cloudflarestorage.com\"",
    )
    .on(Native, HERE),
    row(objects("region"), Kind::Text(REGION), Value("us-east-1"), "The region of an S3 bucket; `auto` for R2.", "\"eu-central-1\"")
        .on(Native, HERE),
    row(
        objects("account"),
        Kind::Text(ACCOUNT),
        Unset("whatever this machine is known as, by the cloud's metadata service"),
        "Who asks: the access key id of S3, or the storage account of Azure.",
        "\"AKIAIOSFODNN7EXAMPLE\"",
    )
    .on(Native, HERE),
    row(
        objects("key"),
        Kind::Secret,
        Unset("whatever this machine is known as, by the cloud's metadata service"),
        "What requests are signed with: the secret access key of S3, a service account of Google in JSON, or the key of an Azure storage account. Read again with the configuration.",
        "\"file:/etc/keyreeve/bucket.key\"",
    )
    .on(Native, HERE),
    row(
        objects("via"),
        Kind::Text(FILE),
        Unset("no certificate"),
        "The client certificate that requests go out with (mTLS): a file in PEM with the certificate, its chain and its private key.",
        "\"file:/etc/keyreeve/client.pem\"",
    )
    .on(Native, HERE),
    row(
        objects("ca"),
        Kind::Text(FILE),
        Unset("the system's"),
        "The certificate authorities that are believed instead of the system's: a file in PEM.",
        "\"file:/etc/keyreeve/ca.pem\"",
    )
    .on(Native, HERE),
    row(
        gate("tokens"),
        Kind::Text(NAME),
        Computed("the only family of tokens, where there is one"),
        "The family of access tokens, by its name under `[token.NAME]`, that an `artifact` gate takes.",
        "\"cdn\"",
    )
    .on(Native, HERE),
    row(
        gate("origins"),
        Kind::Texts(NAME, 8),
        Unset(ONLY),
        "Where an `artifact` gate reads, by names under `[objects.NAME]`: the primary first, which alone can say that something is not there, then its mirrors.",
        "[\"primary\", \"mirror\"]",
    )
    .on(Native, HERE),
    row(
        gate("compat"),
        Kind::Choice(&["none", "hive"], &[]),
        Value("none"),
        "How an `artifact` gate answers: keyreeve's own way (401, 403 and problem documents, HEAD, ranges), or with the routes, statuses and bodies of the CDN of GraphQL Hive.",
        "\"hive\"",
    )
    .on(Native, HERE),
    row(
        gate("tls"),
        Kind::Group("listener[].tls"),
        Unset("no TLS"),
        "The TLS of an `artifact` gate, as that of a listener.",
        "tls = { certificate = \"file:/etc/keyreeve/server.pem\", key = \"file:/etc/keyreeve/server.key\" }",
    )
    .on(Native, HERE),
    row(
        gate("allow_plaintext"),
        Kind::Flag,
        Value("false"),
        "Let an `artifact` gate listen without TLS on an address that other machines can reach. Tokens cross the network in clear, so set it only where something else encrypts.",
        "true",
    )
    .on(Native, HERE),
    row(
        gate("hedge_after"),
        Kind::Duration(1, MINUTE),
        Value("150ms"),
        "After so long without an answer, the next origin of an `artifact` gate is asked as well; the first answer counts.",
        "\"150ms\"",
    )
    .on(Native, HERE),
    row(
        gate("deadline"),
        Kind::Duration(100, 5 * MINUTE),
        Value("5s"),
        "How long token and origins together may take, before an `artifact` gate answers 503.",
        "\"5s\"",
    )
    .on(Native, HERE),
    row(
        gate("deliver"),
        Kind::Choice(&["stream", "redirect"], &[]),
        Value("stream"),
        "How an artifact gets to whoever asked: through this node, or from the bucket itself by a signed URL that is good for 60 s.",
        "\"stream\"",
    )
    .on(Native, HERE),
    row(
        gate("fresh"),
        Kind::Duration(0, DAY),
        Value("1s"),
        "How long an `artifact` gate answers what it has read without asking an origin again. Versions never change, and are not asked for again while they are kept.",
        "\"1s\"",
    )
    .on(Native, HERE),
    row(
        gate("stale_if_error"),
        Kind::Duration(0, 365 * DAY),
        Value("24h"),
        "How long after an origin last vouched for it a kept artifact is answered while no origin answers; such answers say so in `Age` and `Warning`.",
        "\"24h\"",
    )
    .on(Native, HERE),
    row(
        gate("cache"),
        Kind::Text(FOLDER),
        Unset("in memory only: a restart forgets them"),
        "The folder where an `artifact` gate keeps artifacts for times when no origin answers. One gate's own.",
        "\"/var/cache/keyreeve/supergraph\"",
    )
    .on(Native, HERE),
    row(
        gate("cache_size"),
        Kind::Size(MIB, 1024 * 1024 * MIB),
        Value("256MiB"),
        "How large that folder may grow; what was kept longest ago makes room.",
        "\"256MiB\"",
    )
    .on(Native, HERE),
    row(
        gate("memory"),
        Kind::Size(MIB, 64 * 1024 * MIB),
        Value("64MiB"),
        "How much memory the kept artifacts of an `artifact` gate may take.",
        "\"64MiB\"",
    )
    .on(Native, HERE),
    row(
        gate("kept"),
        Kind::Size(KIB, 64 * MIB),
        Value("4MiB"),
        "The largest artifact that an `artifact` gate keeps; larger ones are streamed each time, in constant memory.",
        "\"4MiB\"",
    )
    .on(Native, HERE),
    row(
        gate("publish"),
        Kind::Size(KIB, 1024 * MIB),
        Value("64MiB"),
        "The largest artifact that can be published by `PUT /v1/artifacts`; larger ones are put into the bucket with its own tools.",
        "\"64MiB\"",
    )
    .on(Native, HERE),
    row(
        gate("cors"),
        Kind::Texts(PAGE, 64),
        Unset("none"),
        "The web pages whose scripts may read the answers of an `artifact` gate.",
        "[\"https://studio.example.org\"]",
    )
    .on(Native, HERE),
];
