//! Settings of opaque access tokens.

use super::super::table::Fallback::{Required, Unset, Value};
use super::super::table::{Kind, Setting, Text, row};
use super::super::types::Home::Native;
use super::{DAY, MINUTE};

const OBJECTS: Text = Text::new("a name under `[objects.NAME]`", "^[a-z0-9][a-z0-9._-]*$", 63);

const fn token(name: &'static str) -> (&'static str, &'static str) {
    ("token.*", name)
}

/// The rows, in the order of the reference page.
pub(super) static SETTINGS: &[Setting] = &[
    row(
        ("", "token"),
        Kind::Named("token.*"),
        Unset("there are no access tokens"),
        "Families of opaque access tokens, by name. Each has targets of its own.",
        "[token.cdn]",
    )
    .on(Native, "remove it: in this version access tokens are made and checked by native nodes"),
    row(
        token("format"),
        Kind::Choice(&["native", "hv2"], &[]),
        Value("native"),
        "How new tokens are spelt: our own way, or as the keys of GraphQL Hive. Both are read.",
        "\"hv2\"",
    ),
    row(
        token("life"),
        Kind::Duration(MINUTE, 3650 * DAY),
        Unset("tokens end only where that was asked for"),
        "How long a token lives, unless a shorter life is asked for.",
        "\"90d\"",
    ),
    row(
        token("grace"),
        Kind::Duration(MINUTE, 90 * DAY),
        Value("1d"),
        "How long a token goes on after it was rolled, unless something else is asked for.",
        "\"1d\"",
    ),
    row(
        token("hashes"),
        Kind::Text(OBJECTS),
        Unset("only tokens that were made here"),
        "The bucket, by its name under `[objects.NAME]`, in which GraphQL Hive has the hashes of its tokens. Those are good here too, for as long as their hash is there, and the hashes of new `hv2` tokens are put there.",
        "\"hive\"",
    ),
    row(
        token("legacy"),
        Kind::Group("token.*.legacy"),
        Unset("legacy tokens go by the hashes in the bucket alone"),
        "GraphQL Hive's legacy tokens, one for each target, all computed from one secret.",
        "legacy = { hmac_key = \"env:CDN_AUTH_PRIVATE_KEY\" }",
    ),
    row(
        ("token.*.legacy", "hmac_key"),
        Kind::Secret,
        Required,
        "The secret that they are made with: the one of Hive's own service. With it they are made and, once `keyreeve token mode enforce` was taken, checked without bcrypt.",
        "\"env:CDN_AUTH_PRIVATE_KEY\"",
    ),
];
