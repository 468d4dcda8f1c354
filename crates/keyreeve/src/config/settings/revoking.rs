//! Settings of what is revoked.

use super::super::table::Fallback::{Unset, Value};
use super::super::table::{Kind, Setting, row};
use super::super::types::Home::Native;
use super::{DAY, HOUR, MINUTE};

/// The rows, in the order of the reference page.
pub(super) static SETTINGS: &[Setting] = &[
    row(
        ("", "revocation"),
        Kind::Group("revocation"),
        Unset("tokens end by themselves, or by their issuer"),
        "How tokens are revoked: by token, subject, key id or time of issue, on every node within a bound.",
        "[revocation]",
    )
    .on(Native, "remove it: in this version native nodes revoke"),
    row(
        ("revocation", "max_staleness"),
        Kind::Duration(100, HOUR),
        Value("1s"),
        "Within this every node refuses what was revoked. Each node reads one key of the store four times in it, however many tokens there are, and at once where the store can tell it of a change.",
        "\"1s\"",
    ),
    row(
        ("revocation", "on_stale"),
        Kind::Choice(&["deny", "allow"], &[]),
        Value("deny"),
        "What a node does that could not read what is revoked for `max_staleness`: `deny` answers 503 to every token, `allow` goes on by what it knows, once it has read that at all, and says so in `/readyz`, metrics and log.",
        "\"deny\"",
    ),
    row(
        ("revocation", "keep"),
        Kind::Duration(MINUTE, 3660 * DAY),
        Value("30d"),
        "How long a revocation is kept where nothing says how long its tokens live: the longest life of a token of an outside issuer. What is older than a revocation that was dropped is refused as a whole.",
        "\"30d\"",
    ),
    row(
        ("revocation", "skew"),
        Kind::Duration(0, 10 * MINUTE),
        Value("2s"),
        "The most by which two wall clocks differ. Whoever is revoked by subject is refused with tokens that are issued up to this long afterwards.",
        "\"2s\"",
    ),
];
