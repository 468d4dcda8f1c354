//! Settings about the store: where it is, and how it is reached.

use super::super::table::Fallback::{Computed, Unset, Value};
use super::super::table::{Kind, Setting, Text, row};
#[cfg(not(target_arch = "wasm32"))]
use super::super::types::Home::Native;
use super::super::types::Home::Worker;
#[cfg(not(target_arch = "wasm32"))]
use super::FILE;
use super::SECOND;

const STORE: Text = Text::new(
    "`sqlite:PATH`, `postgres://USER@HOST/DATABASE`, `https://HOST` or `memory:`; on a Worker `do:BINDING` or `r2:BINDING`",
    "^(sqlite:.+|postgres(ql)?://[^/?#@:]+@.+|memory:|https?://[^/?#@]+/?|(do|r2):[A-Za-z_][A-Za-z0-9_]*)$",
    4096,
)
.quiet();
const CACHE: Text = Text::new("`cache` or `kv:BINDING`", "^(cache|kv:[A-Za-z_][A-Za-z0-9_]*)$", 256);

/// The settings, in the order of the reference page.
pub(super) static SETTINGS: &[Setting] = &[
    row(("", "store"), Kind::Group("store"), Unset(""), "Where the fleet keeps its records.", "[store]"),
    row(
        ("store", "url"),
        Kind::Text(STORE),
        Computed("`sqlite:/var/lib/keyreeve/state.db`; `do:KEYREEVE` on a Worker"),
        "Where the register is. For a native node: a SQLite file that all processes of one machine share, a database of PostgreSQL 12 or newer, the Worker at an `https` address (its register is shared by all that know `key`), or the memory of one process. For a Worker: its Durable Objects or a bucket, by their binding.",
        "\"sqlite:/var/lib/keyreeve/state.db\"",
    ),
    row(
        ("store", "timeout"),
        Kind::Duration(50, 30 * SECOND),
        Value("2s"),
        "After this long a store that has not answered is taken not to have answered. What is held is served on meanwhile.",
        "\"2s\"",
    ),
    row(
        ("store", "key"),
        Kind::Secret,
        Unset("needed with an `https` address; a Worker without one answers no native node"),
        "The secret that signs what native nodes and a Worker say to each other about the register, at least 32 bytes, the same on both sides. `keyreeve config new-seal-key` makes one that fits; use another one than for `seal.keys`.",
        "\"file:/etc/keyreeve/register.key\"",
    ),
    row(
        ("store", "old_key"),
        Kind::Secret,
        Unset("none"),
        "The `key` before this one, which the Worker takes from native nodes until all of them have changed over.",
        "\"binding:REGISTER_KEY_OLD\"",
    )
    .on(Worker, "a node has one key: change the Worker's first, with the old one as its `old_key`, then the nodes'"),
    #[cfg(not(target_arch = "wasm32"))]
    row(
        ("store", "password"),
        Kind::Secret,
        Unset("none: the server knows this node by its Unix account or its address"),
        "The password of the role in a `postgres:` URL. Read for each new connection, so whoever replaces it need not tell anybody.",
        "\"file:/etc/keyreeve/postgres.password\"",
    )
    .on(Native, "remove it: a Worker's register has no password"),
    #[cfg(not(target_arch = "wasm32"))]
    row(
        ("store", "ca"),
        Kind::Text(FILE),
        Computed("the system's"),
        "The authorities, certificates in PEM, that a `postgres:` server's certificate has to come from. TLS is always on, and the certificate always checked, except on loopback (without this setting) and Unix sockets.",
        "\"file:/etc/keyreeve/postgres-ca.pem\"",
    )
    .on(Native, "remove it: a Worker's register needs no certificate"),
    row(
        ("store", "caches"),
        Kind::Texts(CACHE, 2),
        Computed("`cache`"),
        "What a Worker keeps sealed credentials in, besides the memory of each isolate: the Cache API of each data centre, a KV namespace. They only save time: what they forget or confuse is found out and asked of the register.",
        "[\"cache\", \"kv:CREDENTIALS\"]",
    )
    .on(Worker, "remove it: a native node has its own memory, and then asks the store"),
];
