//! What the document says about revocations.

use serde_json::{Map, Value, json};

use super::{PLAIN, Said, closed, flag, list, moment, number, object, one_of, or_null, reference, text};
use crate::http::routes::Endpoint;

/// Kinds of revocations.
const KINDS: [&str; 6] = ["token", "target", "jwt", "subject", "kid", "issued-before"];

pub(super) fn said(endpoint: Endpoint) -> Said {
    match endpoint {
        Endpoint::RevokeAny => Said {
            id: "revokeAny",
            summary: "Has tokens refused from now on, on every node within `bound_ms`: one, or those of a subject, of a key, or issued before a moment. The same again is no second revocation.",
            status: "202",
            answer: Ok("Revoked"),
            body: Some("Revocation"),
            problems: &["404", "408", "409", "413", "415", "422", "503"],
            ..PLAIN
        },
        _ => Said {
            id: "showReceipts",
            summary: "Which node refuses what was revoked, and since which millisecond.",
            answer: Ok("Receipts"),
            query: &[("wait", "Answers when every node does, but after this at the latest: `2s`, at most `10s`.")],
            problems: &["404", "503"],
            ..PLAIN
        },
    }
}

pub(super) fn id_parameter() -> Value {
    json!({
        "name": "id",
        "in": "path",
        "required": true,
        "description": "The `id` of a revocation.",
        "schema": { "type": "string", "pattern": "^[0-9a-f]{32}$" },
    })
}

/// How the follower is, as callers of `/readyz` hear it.
pub(super) fn health() -> Value {
    object(
        4,
        &[
            ("stale", flag()),
            ("on_stale", one_of(&["deny", "allow"])),
            ("epoch", number()),
            ("read_ms_ago", or_null(number())),
            ("cause", or_null(text())),
            ("lost_since", or_null(moment())),
        ],
    )
}

pub(super) fn schemas() -> Map<String, Value> {
    let issuer = json!({
        "type": "string",
        "description": "Whose: `issuer:NAME`, `verifier:NAME`, or the `iss`. Not needed where there is only one.",
    });
    let revocation = closed(object(
        0,
        &[
            ("token", json!({ "type": "string", "description": "A token." })),
            ("jti", json!({ "type": "string", "description": "The `jti` of a JWT." })),
            (
                "subject",
                json!({ "type": "string", "description": "Whose JWTs: those issued up to now, or before `issued_before`." }),
            ),
            ("kid", json!({ "type": "string", "description": "The key that signed the JWTs." })),
            (
                "issued_before",
                json!({ "type": "string", "format": "date-time", "description": "JWTs of the issuer that were issued before this." }),
            ),
            ("issuer", issuer),
            (
                "answer_loss",
                json!({ "const": true, "description": "Alone: what a store had forgotten has been revoked again." }),
            ),
        ],
    ));
    let node = object(
        2,
        &[
            ("node", text()),
            ("state", one_of(&["applied", "stale", "pending", "silent"])),
            ("at", moment()),
            ("after_ms", number()),
        ],
    );
    let common = [("id", text()), ("kind", one_of(&KINDS)), ("epoch", number()), ("at", moment())];
    let mut revoked = common.to_vec();
    revoked.extend([("bound_ms", number()), ("answered", flag())]);
    let mut receipts = common.to_vec();
    receipts.extend([("complete", flag()), ("nodes", list(&reference("NodeReceipt")))]);
    let schemas = [
        ("Revocation", revocation),
        ("Revoked", object(0, &revoked)),
        ("Receipts", object(6, &receipts)),
        ("NodeReceipt", node),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}
