//! What the document says about issuers.

use serde_json::{Map, Value, json};

use super::{PLAIN, Said, closed, list, moment, number, object, one_of, or_null, reference, text};
use crate::http::routes::Endpoint;

pub(super) fn said_of_keys(endpoint: Endpoint) -> Said {
    match endpoint {
        Endpoint::Issuers => Said {
            id: "listIssuers",
            summary: "The caller's issuers, with their keys. Asks no store.",
            answer: Ok("IssuerList"),
            problems: &[],
            ..PLAIN
        },
        Endpoint::Issuer => Said {
            id: "showIssuer",
            summary: "An issuer's keys, their phases, and what happened to them. Asks no store.",
            answer: Ok("Issuer"),
            ..PLAIN
        },
        Endpoint::Rotate => Said {
            id: "rotateKey",
            summary: "Publishes an issuer's next key now; it signs after the overlap.",
            status: "202",
            answer: Ok("Issuer"),
            problems: &["404", "408", "409", "413", "415", "503"],
            ..PLAIN
        },
        _ => Said {
            id: "retireKey",
            summary: "Takes a key out at once: its tokens are refused everywhere within `bound_ms`. For a key that leaked.",
            status: "202",
            answer: Ok("Issuer"),
            body: Some("Retire"),
            problems: &["404", "408", "409", "413", "415", "503"],
            ..PLAIN
        },
    }
}

pub(super) fn said_to_clients(endpoint: Endpoint) -> Said {
    match endpoint {
        Endpoint::Jwks => Said {
            id: "readKeys",
            summary: "The public keys of an issuer (RFC 7517), for as long as `Cache-Control` says.",
            answer: Ok("KeySet"),
            problems: &["404", "503"],
            ..PLAIN
        },
        Endpoint::Discovery => Said {
            id: "discover",
            summary: "Where an issuer has what (OpenID Connect Discovery, RFC 8414).",
            answer: Ok("Discovery"),
            ..PLAIN
        },
        Endpoint::IssueToken => Said {
            id: "issueToken",
            summary: "A token: for the client itself (RFC 6749 4.4), for another one (RFC 8693), for an assertion (RFC 7523).",
            answer: Ok("IssuedToken"),
            body: Some("TokenRequest"),
            problems: &["404", "408", "413"],
            ..PLAIN
        },
        Endpoint::Introspect => Said {
            id: "introspect",
            summary: "Whether a token of the issuer is active, and what it says (RFC 7662).",
            answer: Ok("Introspection"),
            body: Some("TokenQuestion"),
            problems: &["404", "408", "413"],
            ..PLAIN
        },
        _ => Said {
            id: "revoke",
            summary: "Refuses a token of the client's own from now on (RFC 7009).",
            answer: Ok("Nothing"),
            body: Some("TokenQuestion"),
            problems: &["404", "408", "413"],
            ..PLAIN
        },
    }
}

/// One endpoint has several paths; each is an operation of its own.
pub(super) fn id_suffix(path: &str) -> &'static str {
    match path {
        "/.well-known/oauth-authorization-server" => "Server",
        path if path.starts_with("/.well-known/oauth-authorization-server/") => "ServerOfIssuer",
        path if path.starts_with("/issuer/") => "OfIssuer",
        _ => "",
    }
}

pub(super) fn client_security() -> Value {
    json!([{ "client_secret": [] }, {}])
}

pub(super) fn refusals() -> Map<String, Value> {
    let refused = |description: &str| {
        let content = json!({ "application/json": { "schema": reference("OAuthError") } });
        json!({ "description": description, "content": content })
    };
    Map::from_iter([
        ("400".to_owned(), refused("Refused (RFC 6749 5.2).")),
        ("401".to_owned(), refused("No client of this issuer.")),
        ("503".to_owned(), refused("The issuer cannot answer now.")),
    ])
}

pub(super) fn schemas() -> Map<String, Value> {
    let schemas = [
        ("Issuer", issuer()),
        ("IssuerList", object(1, &[("issuers", list(&reference("Issuer")))])),
        ("Retire", closed(object(1, &[("kid", text())]))),
        ("KeySet", object(1, &[("keys", list(&json!({ "type": "object" })))])),
        ("Discovery", object(3, &[("issuer", text()), ("jwks_uri", text()), ("token_endpoint", text())])),
        ("IssuedToken", issued()),
        ("TokenRequest", asked()),
        ("TokenQuestion", object(1, &[("token", text()), ("token_type_hint", text())])),
        ("Introspection", introspection()),
        ("Nothing", object(0, &[])),
        ("OAuthError", object(2, &[("error", text()), ("error_description", text())])),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn issuer() -> Value {
    let key = object(
        6,
        &[
            ("kid", text()),
            ("alg", text()),
            ("phase", one_of(&["next", "active", "retiring", "gone"])),
            ("published_at", moment()),
            ("use_from", moment()),
            ("leaves_at", or_null(moment())),
        ],
    );
    let kinds = one_of(&["published", "rotated", "retired", "left", "promoted"]);
    let note = object(5, &[("at", moment()), ("kind", kinds), ("kid", text()), ("node", text()), ("detail", text())]);
    object(
        10,
        &[
            ("name", text()),
            ("url", or_null(text())),
            ("rev", number()),
            ("keys", list(&key)),
            ("revoked_tokens", number()),
            ("read_ms_ago", or_null(number())),
            ("good_for_ms", or_null(number())),
            ("bound_ms", number()),
            ("fault", or_null(text())),
            ("history", list(&note)),
        ],
    )
}

fn issued() -> Value {
    let members = [
        ("access_token", text()),
        ("token_type", one_of(&["Bearer"])),
        ("expires_in", number()),
        ("scope", text()),
        ("issued_token_type", text()),
    ];
    object(3, &members)
}

fn asked() -> Value {
    let names = [
        "grant_type",
        "scope",
        "audience",
        "resource",
        "subject_token",
        "subject_token_type",
        "actor_token",
        "actor_token_type",
        "requested_token_type",
        "assertion",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
    ];
    object(1, &names.map(|name| (name, text())))
}

fn introspection() -> Value {
    object(1, &[("active", super::flag()), ("token_type", text()), ("sub", text()), ("exp", number())])
}
