//! The JSON Schema of the configuration, made from the table of settings.

use serde_json::{Map, Value as Json, json};

use super::settings::{PRESETS, SOURCES};
use super::table::{Fallback, Kind, Setting, Text};

const DURATION: &str = "^ *([0-9]+(\\.[0-9]{1,3})? *(d|h|m|s|ms) *)+$";
const DURATION_OR_SHARE: &str = "^ *(([0-9]+(\\.[0-9]{1,3})? *(d|h|m|s|ms) *)+|[1-9][0-9]?%)$";
const SIZE: &str = "^ *([0-9]+(\\.[0-9]{1,3})? *(GiB|MiB|KiB|B) *)+$";
const REFERENCE: &str = "^((env|binding|name-in):[A-Za-z_][A-Za-z0-9_]*|file:.+)$";
const KEEP: &str = "^(always|[0-9]+( *lifetimes?)?)$";
const NAME: &str = "^[a-z0-9][a-z0-9._-]{0,62}(/[a-z0-9][a-z0-9._-]{0,62})?$";

/// The JSON Schema (draft 2020-12) of a configuration, for editors. It knows names, kinds and choices;
/// [`Config::read`](super::Config::read) also knows limits and sums.
#[must_use]
pub fn schema() -> Json {
    let mut schema = table("", None);
    schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".into(), json!("keyreeve configuration"));
    Json::Object(schema)
}

/// A table of settings; `flavour` narrows a credential's to those of one source.
fn table(parent: &str, flavour: Option<&str>) -> Map<String, Json> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for setting in Setting::children_of(parent) {
        if flavour.is_some_and(|source| !setting.belongs_to(source)) {
            continue;
        }
        if matches!(setting.fallback, Fallback::Required) {
            required.push(Json::from(setting.name));
        }
        properties.insert(setting.name.into(), Json::Object(one(setting, flavour)));
    }
    let mut schema = Map::new();
    schema.insert("type".into(), json!("object"));
    schema.insert("properties".into(), Json::Object(properties));
    schema.insert("additionalProperties".into(), json!(false));
    if !required.is_empty() {
        schema.insert("required".into(), Json::Array(required));
    }
    schema
}

fn one(setting: &Setting, flavour: Option<&str>) -> Map<String, Json> {
    let mut schema = match &setting.kind {
        Kind::Group(inside) => table(inside, flavour),
        Kind::Named(inside) if *inside == "credential.*" => named(json!({ "oneOf": credentials() })),
        Kind::Named(inside) => named(Json::Object(table(inside, None))),
        Kind::Groups(inside, most) => {
            object(json!({ "type": "array", "maxItems": most, "items": table(inside, None) }))
        }
        kind => object(leaf(kind)),
    };
    schema.insert("description".into(), json!(setting.doc));
    if let Fallback::Value(text) = &setting.fallback {
        // The defaults of flags and counts are written like JSON; those of texts are texts.
        let plain = matches!(setting.kind, Kind::Flag | Kind::Count(..));
        let value = plain.then(|| serde_json::from_str(text).ok()).flatten().unwrap_or_else(|| json!(text));
        schema.insert("default".into(), value);
    }
    schema
}

/// One schema for each source, each without what belongs to the others.
fn credentials() -> Vec<Json> {
    let mut all = Vec::new();
    for source in SOURCES {
        all.push(credential(source, source, None));
        if *source == "jwt" {
            all.extend(PRESETS.iter().map(|preset| credential(source, preset, Some(preset))));
        }
    }
    all
}

fn credential(source: &str, flavour: &str, preset: Option<&str>) -> Json {
    let mut schema = table("credential.*", Some(flavour));
    if let Some(Json::Object(properties)) = schema.get_mut("properties") {
        properties.insert("source".into(), json!({ "const": source }));
        match preset {
            Some(preset) => properties.insert("preset".into(), json!({ "const": preset })),
            None => properties.remove("preset"),
        };
    }
    if let (Some(Json::Array(required)), Some(_)) = (schema.get_mut("required"), preset) {
        required.push(json!("preset"));
    }
    schema.insert("title".into(), json!(flavour));
    Json::Object(schema)
}

fn named(member: Json) -> Map<String, Json> {
    object(json!({ "type": "object", "propertyNames": { "pattern": NAME }, "additionalProperties": member }))
}

fn leaf(kind: &Kind) -> Json {
    match kind {
        Kind::Group(_) | Kind::Named(_) | Kind::Groups(..) | Kind::Json(_) => json!({ "type": "object" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
        Kind::DurationOrShare(..) => json!({ "type": "string", "pattern": DURATION_OR_SHARE }),
        Kind::Size(..) => json!({ "type": "string", "pattern": SIZE }),
        Kind::Choice(now, _) => json!({ "enum": now }),
        Kind::Choices(now, _) => json!({ "type": "array", "items": { "enum": now }, "minItems": 1 }),
        Kind::Text(rule) => text(rule),
        Kind::Texts(rule, most) => json!({ "type": "array", "items": text(rule), "maxItems": most }),
        Kind::OneOrMore(rule, most) => {
            let several = json!({ "type": "array", "items": text(rule), "minItems": 1, "maxItems": most });
            json!({ "oneOf": [text(rule), several] })
        }
        Kind::TextMap(rule, most) => {
            json!({ "type": "object", "additionalProperties": text(rule), "maxProperties": most })
        }
        Kind::Secret => reference(),
        Kind::Secrets(most) => json!({ "type": "array", "items": reference(), "maxItems": most }),
        Kind::SecretMap(most) => {
            json!({ "type": "object", "additionalProperties": reference(), "maxProperties": most })
        }
        Kind::Keep => json!({ "oneOf": [
            { "type": "string", "pattern": KEEP },
            { "type": "integer", "minimum": 1, "maximum": 1000 },
        ] }),
    }
}

fn reference() -> Json {
    json!({ "type": "string", "pattern": REFERENCE })
}

fn text(rule: &Text) -> Json {
    let mut schema = object(json!({ "type": "string", "maxLength": rule.bytes_max }));
    if rule.takes_numbers {
        schema.insert("type".into(), json!(["string", "integer"]));
    }
    if !rule.pattern.is_empty() {
        schema.insert("pattern".into(), json!(rule.pattern));
    }
    Json::Object(schema)
}

fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}
