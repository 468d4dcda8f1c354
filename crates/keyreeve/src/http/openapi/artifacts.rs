//! What the document says about artifacts.

use serde_json::{Map, Value, json};

use super::{PLAIN, Said, flag, list, moment, object, or_null, reference, text};
use crate::http::routes::Endpoint;

pub(super) fn said(endpoint: Endpoint) -> Said {
    match endpoint {
        Endpoint::Artifact => Said {
            id: "takeArtifact",
            summary: "An artifact, for whoever has an access token for its target. On a listener of the gate's own.",
            answer: Err("application/octet-stream"),
            problems: &["401", "403", "404", "405", "416", "503"],
            ..PLAIN
        },
        Endpoint::ReadArtifact => Said {
            id: "readArtifact",
            summary: "The artifacts of a target in the order of their paths, and the names of objects that are no artifact's (`strange`); with a path behind the target, the artifact itself.",
            answer: Ok("Artifacts"),
            query: &[
                ("after", "Begins after this name: `next` of the list before, percent-encoded."),
                ("limit", "How many, 1 to 1000. 100 where nobody says."),
            ],
            problems: &["404", "503"],
            ..PLAIN
        },
        _ => Said {
            id: "publishArtifact",
            summary: "Puts an artifact into the primary and its mirrors. `Content-Digest` (RFC 9530) is checked; a version that is there is never changed.",
            status: "201",
            answer: Ok("Published"),
            body: Some("application/octet-stream"),
            problems: &["404", "408", "409", "413", "422", "503"],
            ..PLAIN
        },
    }
}

pub(super) fn parameters(path: &str) -> Value {
    let description = match path.starts_with("/v1") {
        true => "`GATE/TARGET/PATH` with its slashes; `GATE/TARGET` for a list.",
        false => "`artifacts/v1/TARGET/PATH` with its slashes; with `compat` the paths of the other CDN.",
    };
    json!({ "parameters": [{
        "name": "artifact",
        "in": "path",
        "required": true,
        "description": description,
        "schema": { "type": "string" },
    }] })
}

pub(super) fn schemas() -> Map<String, Value> {
    let one = object(
        4,
        &[
            ("path", text()),
            ("size", json!({ "type": "integer" })),
            ("modified_at", moment()),
            ("etag", or_null(text())),
        ],
    );
    let published = object(
        6,
        &[
            ("target", text()),
            ("path", text()),
            ("size", json!({ "type": "integer" })),
            ("sha256", text()),
            ("unchanged", flag()),
            ("missing_on", list(&text())),
        ],
    );
    let all = object(
        3,
        &[("artifacts", list(&reference("ListedArtifact"))), ("strange", list(&text())), ("next", or_null(text()))],
    );
    let schemas = [("Artifacts", all), ("ListedArtifact", one), ("Published", published)];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}
