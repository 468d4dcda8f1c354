//! What the document says about access tokens.

use serde_json::{Map, Value, json};

use super::{PLAIN, Said, closed, flag, list, moment, number, object, one_of, or_null, reference, text};
use crate::http::tokens::Asked;

/// What makes a token.
const MADE: Said = Said {
    status: "201",
    answer: Ok("MadeAccessToken"),
    problems: &["404", "408", "409", "413", "415", "422", "503"],
    ..PLAIN
};

pub(super) fn said(asked: Asked) -> Said {
    match asked {
        Asked::Create => Said {
            id: "createAccessToken",
            summary: "Makes an access token. Its text is in the answer, and never to be had again.",
            body: Some("NewAccessToken"),
            ..MADE
        },
        Asked::List => Said {
            id: "listAccessTokens",
            summary: "The access tokens of a target, the newest first, those that are over included. Never a secret.",
            answer: Ok("AccessTokenList"),
            query: &[
                ("target", "The target. Needed."),
                ("family", "The name of a `[token.NAME]` table; where there is only one, that."),
                ("cursor", "Go on after the page that had this as its `next_cursor`."),
                ("limit", "At most so many, 1 to 100; 20 without it."),
            ],
            problems: &["404", "422", "503"],
            ..PLAIN
        },
        Asked::Roll => Said {
            id: "rollAccessToken",
            summary: "Makes an access token that takes the place of another one, which goes on for a while.",
            body: Some("RollAccessToken"),
            ..MADE
        },
        Asked::Duplicate => Said {
            id: "duplicateAccessToken",
            summary: "Makes another access token like this one, with a secret of its own.",
            body: Some("DuplicateAccessToken"),
            ..MADE
        },
        Asked::Show => Said {
            id: "showAccessToken",
            summary: "An access token, without its secret.",
            answer: Ok("AccessToken"),
            problems: &["404", "503"],
            ..PLAIN
        },
        Asked::Revoke | Asked::Verify | Asked::DropTarget => said_of_end(asked),
        Asked::Mode | Asked::SetMode => said_of_mode(asked),
    }
}

fn said_of_end(asked: Asked) -> Said {
    match asked {
        Asked::Revoke => Said {
            id: "revokeAccessToken",
            summary: "Takes an access token back.",
            answer: Ok("AccessToken"),
            body: Some("RevokeAccessToken"),
            problems: &["404", "408", "413", "415", "503"],
            ..PLAIN
        },
        Asked::DropTarget => Said {
            id: "dropTarget",
            summary: "Takes all access tokens of a target back, at once and in every store. Where it is cut short a node finishes it.",
            answer: Ok("DroppedTarget"),
            body: Some("DropTarget"),
            problems: &["404", "408", "413", "415", "422", "503"],
            ..PLAIN
        },
        _ => Said {
            id: "verifyAccessToken",
            summary: "Whether an access token is good for something; where it is refused, why.",
            answer: Ok("AccessVerdict"),
            body: Some("VerifyAccessToken"),
            problems: &["404", "408", "413", "415", "422", "503"],
            ..PLAIN
        },
    }
}

fn said_of_mode(asked: Asked) -> Said {
    match asked {
        Asked::Mode => Said {
            id: "showTokenMode",
            summary: "Whose verdict on the access tokens of a family counts, and what came of comparing.",
            answer: Ok("TokenMode"),
            query: &[("family", "The name of a `[token.NAME]` table; where there is only one, that.")],
            problems: &["404", "422", "503"],
            ..PLAIN
        },
        _ => Said {
            id: "setTokenMode",
            summary: "Says whose verdict counts, on every node. `enforce` is refused (409) while the verdicts disagree.",
            answer: Ok("TokenMode"),
            body: Some("SetTokenMode"),
            problems: &["404", "408", "409", "413", "415", "422", "503"],
            ..PLAIN
        },
    }
}

/// Whose verdict counts, and what came of comparing.
fn mode() -> Value {
    let cause = object(4, &[("cause", text()), ("count", number()), ("examples", list(&text())), ("advice", text())]);
    object(
        10,
        &[
            ("family", text()),
            ("mode", one_of(&["off", "shadow", "enforce"])),
            ("accepted_by_both", number()),
            ("refused_by_both", number()),
            ("not_compared", number()),
            ("disagree", number()),
            ("causes", list(&cause)),
            ("can_enforce", flag()),
            ("since", or_null(moment())),
            ("by", or_null(text())),
        ],
    )
}

fn set_mode() -> Value {
    let modes = one_of(&["off", "shadow", "enforce"]);
    closed(object(1, &[("mode", modes), ("family", said_of_family()), ("force", flag())]))
}

fn verdict() -> Value {
    object(
        1,
        &[
            ("valid", flag()),
            ("code", text()),
            ("reason", text()),
            ("id", text()),
            ("target", text()),
            ("alias", text()),
            ("format", text()),
            ("expires_at", or_null(moment())),
        ],
    )
}

pub(super) fn schemas() -> Map<String, Value> {
    let schemas = [
        ("AccessToken", token(false)),
        ("MadeAccessToken", token(true)),
        ("AccessScope", scope()),
        (
            "AccessTokenList",
            object(
                1,
                &[
                    ("tokens", list(&reference("AccessToken"))),
                    (
                        "next_cursor",
                        json!({ "type": "string", "description": "There are more: ask again with `cursor` set to this." }),
                    ),
                ],
            ),
        ),
        (
            "RollAccessToken",
            closed(object(0, &[("grace", said_of_duration("How long the old one goes on: `0s`, or 1m to 90d."))])),
        ),
        ("DuplicateAccessToken", closed(object(0, &[("alias", json!({ "type": "string", "maxLength": 100 }))]))),
        ("RevokeAccessToken", revoke()),
        ("DropTarget", closed(object(1, &[("target", text()), ("family", said_of_family())]))),
        ("DroppedTarget", object(3, &[("target", text()), ("revoked", number()), ("epoch", number())])),
        (
            "NewAccessToken",
            closed(object(
                2,
                &[
                    ("target", text()),
                    ("alias", json!({ "type": "string", "maxLength": 100 })),
                    ("family", said_of_family()),
                    ("scope", reference("AccessScope")),
                    ("life", said_of_duration("How long it lives.")),
                    ("format", one_of(&["native", "hv2", "legacy"])),
                ],
            )),
        ),
        (
            "VerifyAccessToken",
            closed(object(
                2,
                &[
                    ("token", text()),
                    ("target", text()),
                    ("family", said_of_family()),
                    ("path", json!({ "type": "string", "description": "The path below the target, from its `/` on." })),
                    ("type", text()),
                    ("address", json!({ "type": "string", "description": "The IP address that asks." })),
                ],
            )),
        ),
        ("AccessVerdict", verdict()),
        ("TokenMode", mode()),
        ("SetTokenMode", set_mode()),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn revoke() -> Value {
    let needed = "Needed for a token that was made elsewhere and has never been used here.";
    let target = json!({ "type": "string", "description": needed });
    closed(object(0, &[("target", target), ("family", said_of_family())]))
}

fn said_of_family() -> Value {
    json!({ "type": "string", "description": "The name of a `[token.NAME]` table; where there is only one, that." })
}

fn said_of_duration(what: &str) -> Value {
    json!({ "type": "string", "description": what, "examples": ["90d", "12h"] })
}

fn scope() -> Value {
    closed(object(0, &[("paths", list(&text())), ("types", list(&text())), ("networks", list(&text()))]))
}

fn token(is_new: bool) -> Value {
    let mut members = vec![
        ("id", json!({ "type": "string", "format": "uuid" })),
        ("family", text()),
        ("target", text()),
        ("alias", text()),
        ("format", one_of(&["native", "hv2", "legacy"])),
        ("state", one_of(&["active", "rolling", "revoked", "expired"])),
        ("scope", reference("AccessScope")),
        ("created_at", moment()),
        ("created_by", text()),
    ];
    if is_new {
        members.insert(0, ("token", json!({ "type": "string", "description": "The only time that it is shown." })));
    }
    let always = members.len();
    members.extend([
        ("copied_from", or_null(text())),
        ("expires_at", or_null(moment())),
        ("rolled_to", or_null(text())),
        ("revoked_at", or_null(moment())),
        ("revoked_by", or_null(text())),
        ("used_at", or_null(moment())),
        ("used_on", or_null(text())),
        ("shown", or_null(text())),
    ]);
    object(always, &members)
}
