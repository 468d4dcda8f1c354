//! The OpenAPI 3.1 document, made from the same list of routes as the router.

mod artifacts;
mod hand_out;
mod issuers;
mod revocations;
mod tokens;

use keyreeve_core::lifecycle::Why;
use serde_json::{Map, Value, json};

use super::problem::PROBLEMS;
use super::routes::{Access, Endpoint, ROUTES, Route};

/// The OpenAPI 3.1 document of this version. The repository's `openapi.json` is this, and a test says when it is not.
#[must_use]
pub fn openapi(version: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| path_item(route.path));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.as_str().to_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "keyreeve",
            "version": version,
            "description": "One credential for the whole fleet: take it, report it, renew it.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:7070" }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "client_secret": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "`client_id` and secret of a client; `client_secret_post` and `private_key_jwt` do as well, in the body.",
                },
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key. On a Unix socket the uid of the peer does as well.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token of an issuer that is accepted here.",
                },
            },
            "parameters": { "name": name_parameter(), "gate": gate_parameter() },
            "responses": { "Problem": problem_response() },
            "schemas": schemas(),
        },
    })
}

fn path_item(path: &str) -> Value {
    if path.contains("{name}") {
        json!({ "parameters": [{ "$ref": "#/components/parameters/name" }] })
    } else if path.contains("{upstream}") {
        json!({ "parameters": [{
            "name": "upstream",
            "in": "path",
            "required": true,
            "description": "The path at the upstream, slashes and all.",
            "schema": { "type": "string" },
        }] })
    } else if path.contains("{artifact}") {
        artifacts::parameters(path)
    } else if path.contains("{id}") {
        json!({ "parameters": [revocations::id_parameter()] })
    } else if path.contains("{gate}") {
        json!({ "parameters": [{ "$ref": "#/components/parameters/gate" }] })
    } else {
        json!({})
    }
}

fn name_parameter() -> Value {
    json!({
        "name": "name",
        "in": "path",
        "required": true,
        "description": "`name`, or `tenant/name` with the slash as `%2F`. The slash itself does too, unless the second part is the name of an action.",
        "schema": { "type": "string", "maxLength": 127 },
        "examples": { "plain": { "value": "apns-prod" }, "of a tenant": { "value": "acme/apns-prod" } },
    })
}

fn gate_parameter() -> Value {
    json!({
        "name": "gate",
        "in": "path",
        "required": true,
        "description": "The name of a gate.",
        "schema": { "type": "string", "maxLength": 63 },
    })
}

fn problem_response() -> Value {
    json!({
        "description": "A problem (RFC 9457).",
        "headers": { "Retry-After": { "description": "Where waiting helps: seconds.", "schema": { "type": "integer" } } },
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}

/// What the document says about an endpoint besides its route.
struct Said {
    id: &'static str,
    summary: &'static str,
    status: &'static str,
    /// Schema, or media type without one.
    answer: Result<&'static str, &'static str>,
    body: Option<&'static str>,
    query: &'static [(&'static str, &'static str)],
    problems: &'static [&'static str],
}

const PLAIN: Said =
    Said { id: "", summary: "", status: "200", answer: Err(""), body: None, query: &[], problems: &["404"] };

fn said(endpoint: Endpoint) -> Said {
    match endpoint {
        Endpoint::List => Said {
            id: "listCredentials",
            summary: "Where the caller's credentials stand, by name: on this node, or on a Worker by their objects.",
            answer: Ok("CredentialList"),
            query: &[
                ("after", "Names after this one."),
                (
                    "limit",
                    "At most so many, 1 to 1000. There may be fewer, and more to come, where there is a `next_after`.",
                ),
            ],
            problems: &[],
            ..PLAIN
        },
        Endpoint::Show => Said {
            id: "showCredential",
            summary: "Where a credential stands on this node. Asks no store.",
            answer: Ok("CredentialState"),
            ..PLAIN
        },
        Endpoint::Token => Said {
            id: "takeToken",
            summary: "The credential. Waits for it where this node holds none that is valid.",
            answer: Ok("Token"),
            query: &[("min_ttl", "The least life that it must have left: `60s`, `5m`, `1h`.")],
            problems: &["404", "409", "503"],
            ..PLAIN
        },
        Endpoint::History => Said {
            id: "showHistory",
            summary: "What became of a credential: generations, epochs, mints. Never a secret.",
            answer: Ok("History"),
            problems: &["404", "503"],
            ..PLAIN
        },
        Endpoint::Aws => hand_out::AWS,
        Endpoint::Inject => hand_out::INJECT,
        Endpoint::Metadata(asked) => hand_out::said_of_metadata(asked),
        Endpoint::Report | Endpoint::Renew | Endpoint::Resolve => said_of_change(endpoint),
        Endpoint::Issuers | Endpoint::Issuer | Endpoint::Rotate | Endpoint::Retire => issuers::said_of_keys(endpoint),
        Endpoint::Jwks | Endpoint::Discovery | Endpoint::IssueToken | Endpoint::Introspect | Endpoint::Revoke => {
            issuers::said_to_clients(endpoint)
        }
        Endpoint::AccessToken(asked) => tokens::said(asked),
        Endpoint::RevokeAny | Endpoint::Receipts => revocations::said(endpoint),
        Endpoint::Artifact | Endpoint::ReadArtifact | Endpoint::PublishArtifact => artifacts::said(endpoint),
        _ => said_of_node(endpoint),
    }
}

fn said_of_change(endpoint: Endpoint) -> Said {
    match endpoint {
        Endpoint::Report => Said {
            id: "reportRefusal",
            summary: "Reports that a generation was refused upstream. Renews once for the whole fleet.",
            status: "202",
            answer: Ok("ReportResult"),
            body: Some("Report"),
            problems: &["404", "408", "409", "413", "415", "422", "503"],
            ..PLAIN
        },
        Endpoint::Renew => Said {
            id: "renew",
            summary: "Renews before its time.",
            status: "202",
            answer: Ok("RenewResult"),
            problems: &["404", "408", "409", "413", "415", "503"],
            ..PLAIN
        },
        Endpoint::Resolve => Said {
            id: "resolve",
            summary: "Decides what to believe about a mint in doubt.",
            status: "202",
            answer: Ok("ResolveResult"),
            body: Some("Resolve"),
            problems: &["404", "408", "409", "413", "415", "422", "503"],
            ..PLAIN
        },
        _ => PLAIN,
    }
}

fn said_of_node(endpoint: Endpoint) -> Said {
    match endpoint {
        Endpoint::Events => Said {
            id: "followEvents",
            summary: "What happens to the caller's credentials on this node, as it happens. Not on a Worker.",
            answer: Err("text/event-stream"),
            problems: &["429", "501"],
            ..PLAIN
        },
        Endpoint::Live => {
            Said { id: "livez", summary: "The process answers.", answer: Ok("Health"), problems: &[], ..PLAIN }
        }
        Endpoint::Ready => Said {
            id: "readyz",
            summary: "Whether everything that is wanted can be served. Callers with a key are told more.",
            answer: Ok("Health"),
            problems: &["503"],
            ..PLAIN
        },
        Endpoint::Verify => Said {
            id: "verify",
            summary: "What a token says, and whether it allows something; where it is refused, why.",
            answer: Ok("Verdict"),
            body: Some("Verify"),
            problems: &["408", "413", "415", "503"],
            ..PLAIN
        },
        Endpoint::Gate => Said {
            id: "passGate",
            summary: "Whether a request that a proxy has before it may go through. Takes every method, and for Envoy any path behind the gate's name.",
            answer: Err("text/plain"),
            problems: &["400", "401", "403", "404", "503"],
            ..PLAIN
        },
        Endpoint::Metrics => Said {
            id: "metrics",
            summary: "Metrics in the Prometheus text format.",
            answer: Err("text/plain"),
            problems: &[],
            ..PLAIN
        },
        _ => PLAIN,
    }
}

fn operation(route: &Route) -> Value {
    let said = said(route.endpoint);
    let content = match said.answer {
        Ok(schema) => json!({ "application/json": { "schema": reference(schema) } }),
        Err(media_type) => json!({ media_type: { "schema": { "type": "string" } } }),
    };
    let mut responses = Map::new();
    let mut success = json!({ "description": "Done.", "content": content });
    if route.endpoint == Endpoint::Token
        && let Some(success) = success.as_object_mut()
    {
        success.insert("headers".into(), token_headers());
        responses.insert("304".into(), json!({ "description": "`If-None-Match` has the `ETag` of what there is." }));
    }
    responses.insert(said.status.into(), success);
    let problem = || json!({ "$ref": "#/components/responses/Problem" });
    let is_secured = matches!(route.access, Access::Callers(_));
    let refusals: &[&str] = if is_secured { &["400", "401", "403"] } else { &[] };
    for status in refusals.iter().chain(said.problems) {
        responses.insert((*status).into(), problem());
    }
    if route.access == Access::Clients {
        responses.extend(issuers::refusals());
    }
    responses.insert("default".into(), problem());
    let mut operation = Map::new();
    operation.insert("operationId".into(), format!("{}{}", said.id, issuers::id_suffix(route.path)).into());
    operation.insert("summary".into(), said.summary.into());
    let security = match route.access {
        Access::Callers(_) => json!([{ "key": [] }]),
        Access::Tokens => json!([{ "token": [] }]),
        Access::Clients => issuers::client_security(),
        Access::Anybody | Access::AnybodyForAWord | Access::Local => json!([]),
    };
    operation.insert("security".into(), security);
    let query = said.query.iter().map(|(name, description)| {
        json!({ "name": name, "in": "query", "description": description, "schema": { "type": "string" } })
    });
    let mut parameters: Vec<_> = query.collect();
    if route.endpoint == Endpoint::Token {
        parameters.push(json!({ "name": "If-None-Match", "in": "header", "schema": { "type": "string" } }));
    }
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if let Some(schema) = said.body {
        let content = match route.endpoint {
            Endpoint::PublishArtifact => json!({ schema: { "schema": { "type": "string", "format": "binary" } } }),
            _ if route.access == Access::Clients => {
                json!({ "application/x-www-form-urlencoded": { "schema": reference(schema) } })
            }
            _ => json!({ "application/json": { "schema": reference(schema) } }),
        };
        operation.insert("requestBody".into(), json!({ "required": true, "content": content }));
    }
    operation.insert("responses".into(), responses.into());
    operation.into()
}

fn token_headers() -> Value {
    json!({
        "ETag": { "description": "Names this credential. Text to give back, not to read. Not there on a stale answer.", "schema": { "type": "string" } },
        "Cache-Control": {
            "description": "`private, max-age=` seconds for which the answer may be kept.",
            "schema": { "type": "string" },
        },
        "Keyreeve-Stale": {
            "description": "`1` where the credential has expired, cannot be renewed, and its policy allows it all the same.",
            "schema": { "type": "string" },
        },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// An object with these members, of which the first `required` are always there.
fn object(required: usize, members: &[(&str, Value)]) -> Value {
    let names: Vec<_> = members.iter().take(required).map(|(name, _)| *name).collect();
    let properties: Map<_, _> = members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": names, "properties": properties })
}

fn closed(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.insert("additionalProperties".into(), false.into());
    }
    object
}

fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
        return schema;
    }
    json!({ "oneOf": [schema, { "type": "null" }] })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn moment() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn schemas() -> Value {
    let mut schemas = schemas_of_credentials();
    if let Some(schemas) = schemas.as_object_mut() {
        schemas.extend(issuers::schemas());
        schemas.extend(hand_out::schemas());
        schemas.extend(tokens::schemas());
        schemas.extend(revocations::schemas());
        schemas.extend(artifacts::schemas());
    }
    schemas
}

fn schemas_of_credentials() -> Value {
    json!({
        "Token": token(),
        "CredentialState": credential_state(),
        "CredentialList": object(1, &[
            ("credentials", list(&reference("CredentialState"))),
            ("next_after", json!({ "type": "string", "description": "There are more: ask again with `after` set to this." })),
        ]),
        "History": history(),
        "Published": object(5, &[
            ("generation", number()), ("issued_at", moment()), ("expires_at", moment()), ("refresh_at", moment()),
            ("use_from", moment()),
        ]),
        "HistoryEntry": object(6, &[
            ("at", moment()), ("kind", text()), ("generation", number()), ("epoch", number()), ("node", text()),
            ("detail", text()),
        ]),
        "Report": closed(object(2, &[
            ("generation", number()),
            ("upstream_status", json!({ "type": "integer", "enum": [401, 403] })),
            ("reason", json!({ "type": "string", "maxLength": 64 })),
        ])),
        "ReportResult": object(1, &[
            ("result", one_of(&["renewing", "ignored-stale", "floor-wait"])),
            ("retry_after_ms", number()),
        ]),
        "RenewResult": object(1, &[("result", one_of(&["renewing"]))]),
        "Resolve": closed(object(1, &[("decision", one_of(&["adopt", "discard", "reauthorize"]))])),
        "ResolveResult": object(2, &[("result", one_of(&["resolved"])), ("decision", text())]),
        "Health": object(1, &[
            ("status", one_of(&["alive", "ready", "degraded"])),
            ("version", text()),
            ("store", object(2, &[("since", moment()), ("cause", or_null(text()))])),
            ("revocation", revocations::health()),
        ]),
        "Verify": closed(object(1, &[("token", text()), ("on", text()), ("method", text()), ("path", text())])),
        "Verdict": object(1, &[
            ("valid", flag()),
            ("code", text()),
            ("reason", text()),
            ("source", text()),
            ("key_id", or_null(text())),
            ("expires_at", moment()),
            ("claims", json!({ "type": "object" })),
            ("decision", object(1, &[("allowed", flag()), ("rule", number()), ("reason", text())])),
        ]),
        "Problem": problem(),
    })
}

fn token() -> Value {
    let mut token = object(
        7,
        &[
            ("name", text()),
            ("generation", number()),
            ("type", json!({ "type": "string", "description": "`bearer`, `aws`, or what the source calls it." })),
            ("issued_at", moment()),
            ("expires_at", moment()),
            ("refresh_at", moment()),
            ("mode", one_of(&["slot", "replay", "lease", "exclusive"])),
            ("token", text()),
            ("fields", json!({ "type": "object", "additionalProperties": { "type": "string" } })),
            ("header", json!({ "type": "object", "additionalProperties": { "type": "string" } })),
            ("stale", flag()),
        ],
    );
    if let Some(members) = token.as_object_mut() {
        members.insert("oneOf".into(), json!([{ "required": ["token"] }, { "required": ["fields"] }]));
    }
    token
}

fn credential_state() -> Value {
    let next = object(2, &[("generation", number()), ("use_from", moment())]);
    let whys: Vec<_> = Why::ALL.map(Why::as_str).to_vec();
    let quiet = object(2, &[("from", moment()), ("until", moment())]);
    let renewal = object(
        5,
        &[
            ("from", or_null(moment())),
            ("until", or_null(moment())),
            ("quiet", or_null(quiet)),
            ("looks_at", or_null(moment())),
            ("why", or_null(one_of(&whys))),
        ],
    );
    let error = object(2, &[("kind", text()), ("message", text()), ("retry_after_ms", or_null(number()))]);
    object(
        12,
        &[
            ("name", text()),
            ("source", text()),
            ("mode", one_of(&["slot", "replay", "lease", "exclusive"])),
            ("status", or_null(text())),
            ("generation", or_null(number())),
            ("expires_at", or_null(moment())),
            ("refresh_at", or_null(moment())),
            ("renewal", renewal),
            ("next", or_null(next)),
            ("is_wanted", flag()),
            ("faults_absorbed", or_null(number())),
            ("error", or_null(error)),
        ],
    )
}

fn history() -> Value {
    let intent = object(
        5,
        &[
            ("generation", number()),
            ("node", text()),
            ("started_at", moment()),
            ("is_replay", flag()),
            ("doubt", or_null(text())),
        ],
    );
    let failure = object(
        5,
        &[("count", number()), ("class", text()), ("hold_ms", number()), ("at", moment()), ("message", text())],
    );
    object(
        3,
        &[
            ("name", text()),
            ("status", or_null(text())),
            ("history", list(&reference("HistoryEntry"))),
            ("generation", number()),
            ("epoch", number()),
            ("holder", or_null(text())),
            ("current", or_null(reference("Published"))),
            ("next", or_null(reference("Published"))),
            ("intent", or_null(intent)),
            ("last_mint", or_null(object(2, &[("generation", number()), ("at_most", moment())]))),
            ("failure", or_null(failure)),
            ("renewal_asked_of", or_null(number())),
        ],
    )
}

fn problem() -> Value {
    let types: Vec<_> = PROBLEMS.iter().map(|kind| format!("urn:keyreeve:problem:{}", kind.name)).collect();
    let unserved = object(3, &[("name", text()), ("status", or_null(text())), ("why", or_null(text()))]);
    object(
        7,
        &[
            ("type", json!({ "type": "string", "enum": types })),
            ("title", text()),
            ("status", number()),
            ("detail", text()),
            ("instance", text()),
            ("request_id", json!({ "type": "string", "description": "Finds the full cause in the log." })),
            (
                "safe_to_retry",
                json!({ "type": "boolean", "description": "Whether the same request may be sent again as it is." }),
            ),
            ("hint", text()),
            ("retry_after_ms", number()),
            ("Code", json!({ "type": "string", "description": "The last part of `type`, where AWS clients ask." })),
            ("Message", json!({ "type": "string", "description": "Detail and hint, where AWS clients ask." })),
            ("error", json!({ "type": "string", "description": "As `Code`, where Azure's clients ask." })),
            (
                "error_description",
                json!({ "type": "string", "description": "As `Message`, where Azure's clients ask." }),
            ),
            ("version", text()),
            ("store", object(2, &[("since", moment()), ("cause", or_null(text()))])),
            ("revocation", revocations::health()),
            ("unserved", list(&unserved)),
        ],
    )
}
