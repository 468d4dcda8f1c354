//! The pages that are made from the table of settings, and the table itself.

use std::collections::BTreeMap;
use std::path::Path;

use keyreeve::config::table::{Fallback, Kind, Setting};
use keyreeve::config::{Config, Home, ReadOptions, reference, schema, settings};
use serde_json::Value as Json;

/// Compares a committed file with what the table says now; `UPDATE_DOCS=1` writes it instead.
fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{} is behind the table of settings: UPDATE_DOCS=1 writes it", path.display());
}

#[test]
fn the_reference_page_says_what_the_table_says() {
    let page = reference();
    for row in settings().filter(|row| !matches!(row.kind, Kind::Group(_) | Kind::Named(_) | Kind::Groups(..))) {
        assert!(page.contains(&format!("| `{}` |", row.name)) && page.contains(row.doc), "{}", row.path());
    }
    compare("configuration.md", &page);
}

#[test]
fn the_json_schema_says_what_the_table_says() {
    compare("configuration.schema.json", &format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap()));
}

/// Counts the schemas of objects that take unknown keys, and are not tables of free keys.
fn open_tables(schema: &Json, open: &mut usize) {
    if schema.get("properties").is_some() && schema["additionalProperties"] != Json::Bool(false) {
        *open += 1;
    }
    match schema {
        Json::Object(map) => map.values().for_each(|value| open_tables(value, open)),
        Json::Array(items) => items.iter().for_each(|value| open_tables(value, open)),
        _ => {}
    }
}

#[test]
fn the_json_schema_is_closed_and_knows_what_each_source_needs() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let mut open = 0;
    open_tables(&schema, &mut open);
    assert_eq!(open, 0);
    let sources = schema["properties"]["credential"]["additionalProperties"]["oneOf"].as_array().unwrap();
    let titles: Vec<_> = sources.iter().map(|source| source["title"].as_str().unwrap()).collect();
    assert_eq!(titles[..6], ["apns", "jwt", "app-store-connect", "github-app-jwt", "exec", "http"]);
    assert_eq!(
        titles[6..],
        [
            "oauth2-client",
            "oauth2-refresh",
            "token-exchange",
            "github-app",
            "google-service-account",
            "aws-web-identity",
            "gcp-workload-identity",
            "azure-federated"
        ]
    );
    let apns = &sources[0];
    assert_eq!(apns["properties"]["source"]["const"], "apns");
    assert_eq!(apns["required"], serde_json::json!(["source", "key"]));
    assert_eq!(apns["properties"]["params"]["required"], serde_json::json!(["team_id", "key_id"]));
    assert!(apns["properties"].get("command").is_none());
    assert_eq!(schema["properties"]["limits"]["properties"]["connections"]["default"], 10_000);
}

#[test]
fn every_setting_has_a_parent_a_meaning_and_a_place_of_its_own() {
    let mut places = std::collections::BTreeSet::new();
    for row in settings() {
        assert!(places.insert((row.parent, row.name)), "{} is there twice", row.path());
        assert!(row.doc.ends_with('.') && !row.example.is_empty(), "{}", row.path());
        let is_inside = |other: &&Setting| matches!(other.kind, Kind::Group(inside) | Kind::Named(inside) | Kind::Groups(inside, _) if inside == row.parent);
        assert!(row.parent.is_empty() || settings().any(|other| is_inside(&other)), "{}", row.path());
        if let Fallback::Value(text) = row.fallback {
            assert!(!text.is_empty(), "{}", row.path());
        }
    }
}

/// The home that a sample of the setting is for, and the sample.
fn sample_at_home(row: &Setting) -> (ReadOptions, String) {
    let home = row.home.map_or(Home::Native, |(home, _)| home);
    let text = sample(row);
    let text = if home == Home::Worker {
        text.replace("env:", "binding:").replace("file:/etc/keyreeve/", "binding:")
    } else {
        text
    };
    (ReadOptions { home, ..ReadOptions::default() }, text)
}

/// The other settings of its table that have to be there.
fn needed_besides(row: &Setting) -> String {
    let is_needed = |other: &&Setting| {
        other.parent == row.parent && other.name != row.name && matches!(other.fallback, Fallback::Required)
    };
    settings().filter(is_needed).map(|other| format!("{} = {}\n", other.name, other.example)).collect()
}

/// Credentials by the names that examples have.
const HANDED_OUT: &str = "seal.keys = [\"env:SEAL\"]\n\
    [credential]\n\
    lake-prod = { source = \"exec\", command = [\"/bin/mint\"] }\n\
    github-acme = { source = \"exec\", command = [\"/bin/mint\"] }\n\
    orders-identity = { source = \"exec\", command = [\"/bin/mint\"] }\n\
    vault = { source = \"exec\", command = [\"/bin/mint\"] }\n";

/// A table of something that is handed out: its name, and lines of which those that the setting itself replaces are left out.
fn handing_out(table: &str, lines: &[&str], row: &Setting) -> String {
    let own = format!("{} = {}\n", row.name, row.example);
    let others: String = lines
        .iter()
        .filter(|line| !line.starts_with(&format!("{} =", row.name)))
        .map(|line| format!("{line}\n"))
        .collect();
    format!("{HANDED_OUT}[{table}]\n{others}{own}")
}

/// What only gates of artifacts have.
const OF_ARTIFACTS: [&str; 16] = [
    "tokens",
    "origins",
    "compat",
    "tls",
    "allow_plaintext",
    "hedge_after",
    "deadline",
    "deliver",
    "fresh",
    "stale_if_error",
    "cache",
    "cache_size",
    "memory",
    "kept",
    "publish",
    "cors",
];

fn sample_of_objects(row: &Setting) -> String {
    let others = match row.name {
        "account" => "url = \"s3://artifacts\"\nkey = \"env:KEY\"\n",
        "key" => "url = \"s3://artifacts\"\naccount = \"AKIAIOSFODNN7EXAMPLE\"\n",
        "url" => "",
        _ => "url = \"s3://artifacts\"\n",
    };
    format!("[objects.primary]\n{others}{} = {}\n", row.name, row.example)
}

fn sample_of_hand_out(row: &Setting) -> String {
    match row.parent {
        "objects.*" => sample_of_objects(row),
        "gate.*" if OF_ARTIFACTS.contains(&row.name) => {
            let lines =
                ["kind = \"artifact\"", "bind = \"127.0.0.1:7080\"", "tokens = \"cdn\"", "origins = [\"primary\"]"];
            let objects =
                "[objects.primary]\nurl = \"s3://artifacts\"\n[objects.mirror]\nurl = \"s3://artifacts-eu\"\n";
            format!("{}[token.cdn]\n{objects}", handing_out("gate.g", &lines, row))
        }
        "gate.*" => {
            let lines = [
                "kind = \"inject\"",
                "bind = \"127.0.0.1:7075\"",
                "credential = \"github-acme\"",
                "upstreams = \"https://api.github.com\"",
            ];
            handing_out("gate.g", &lines, row)
        }
        "metadata.*" => {
            let bind = "bind = \"127.0.0.1:9911\"";
            let credential = "credential = \"lake-prod\"";
            match row.name {
                "resources" => handing_out("metadata.m", &[bind, "kind = \"azure\""], row),
                "bind" | "kind" | "credential" | "role" => {
                    handing_out("metadata.m", &[bind, "kind = \"aws\"", credential], row)
                }
                _ => handing_out("metadata.m", &[bind, "kind = \"gce\"", credential], row),
            }
        }
        _ => handing_out("file.f", &["credential = \"lake-prod\"", "path = \"/run/keyreeve/lake.token\""], row),
    }
}

fn listener_sample(row: &Setting, line: &str) -> String {
    match (row.parent, row.name) {
        ("listener[]", "bind") => format!("[[listener]]\n{line}"),
        ("listener[]", _) => format!("[[listener]]\nbind = \"127.0.0.1:0\"\n{line}"),
        (_, name) => {
            let more = if name == "crl" { "client_ca = \"file:/etc/keyreeve/clients.pem\"\n" } else { "" };
            format!("[[listener]]\nbind = \"127.0.0.1:0\"\n[listener.tls]\n{}{more}{line}", needed_besides(row))
        }
    }
}

fn sample_of_credential(row: &Setting) -> String {
    let flavour = row.only.first().copied().unwrap_or("apns");
    let source = match flavour {
        "app-store-connect" | "github-app-jwt" => format!("source = \"jwt\"\npreset = \"{flavour}\"\n"),
        _ => format!("source = \"{flavour}\"\n"),
    };
    let needed = |other: &&Setting| {
        other.parent.starts_with("credential.*")
            && other.name != "source"
            && (matches!(other.fallback, Fallback::Required) || std::ptr::eq(*other, row))
            && (other.only.is_empty() || other.only.contains(&flavour))
    };
    let lines: String = settings()
        .filter(needed)
        .map(|other| format!("{}.{} = {}\n", other.parent, other.name, other.example))
        .collect();
    let lines = lines.replace("credential.*.", "");
    // What is needed one way or another.
    let more = match (flavour, row.name) {
        (_, "client_secret" | "client_key" | "scopes") if flavour != "oauth2-client" => "",
        ("oauth2-client", "client_secret" | "client_key") => "",
        ("oauth2-client", _) => "params.client_secret = \"env:CLIENT_SECRET\"\n",
        ("azure-federated", _) => "params.scopes = [\"https://graph.microsoft.com/.default\"]\n",
        _ => "",
    };
    format!("seal.keys = [\"env:SEAL\"]\n[credential.c]\n{source}{lines}{more}")
}

/// A file with the least that the setting needs around it, and the setting with its example.
fn sample(row: &Setting) -> String {
    let line = format!("{} = {}\n", row.name, row.example);
    match row.parent {
        "caller.*" => {
            let proof = if row.name == "uid" { "" } else { "key_sha256" };
            let others = settings().filter(|other| {
                other.parent == row.parent
                    && other.name != row.name
                    && [proof, "can", "credentials"].contains(&other.name)
            });
            let lines: String = others.map(|other| format!("{} = {}\n", other.name, other.example)).collect();
            format!("[caller.c]\n{lines}{line}")
        }
        parent if parent.starts_with("listener[]") => listener_sample(row, &line),
        parent if parent.starts_with("credential.*") => sample_of_credential(row),
        parent if parent.starts_with("issuer.*") => {
            let (issuer, keys) = if row.parent == "issuer.*" { (line, String::new()) } else { (String::new(), line) };
            let required = "url = \"https://gateway.example.org\"\naudience = [\"internal-api\"]\n";
            let required: String =
                required.lines().filter(|line| !line.starts_with(row.name)).map(|line| format!("{line}\n")).collect();
            format!("seal.keys = [\"env:SEAL\"]\n[issuer.gateway]\n{required}{issuer}[issuer.gateway.keys]\n{keys}")
        }
        "client.*" => {
            let mut lines = vec!["issuer = \"gateway\"", "can = [\"jwt-bearer\"]"];
            lines.push(match row.name {
                "secret_sha256" | "certificate_sha256" | "certificate_name" => "",
                _ => "jwks = \"file:/etc/keyreeve/orders.jwks.json\"",
            });
            let others: String =
                lines.iter().filter(|line| !line.starts_with(row.name)).map(|line| format!("{line}\n")).collect();
            let issuer = "[issuer.gateway]\nurl = \"https://gateway.example.org\"\naudience = [\"internal-api\"]\n";
            format!("seal.keys = [\"env:SEAL\"]\n{issuer}[client.c]\n{others}{line}")
        }
        "token.*" => {
            format!("seal.keys = [\"env:SEAL\"]\n[token.cdn]\n{line}[objects.hive]\nurl = \"s3://artifacts\"\n")
        }
        "token.*.legacy" => format!("seal.keys = [\"env:SEAL\"]\n[token.cdn.legacy]\n{line}"),
        "verifier.*" => format!("[verifier.v]\n{}{line}", needed_besides(row)),
        "metadata.*" | "file.*" | "objects.*" => sample_of_hand_out(row),
        "gate.*" if row.home.is_some() => sample_of_hand_out(row),
        "gate.*" => format!("[gate.g]\n{}{line}", needed_besides(row)),
        "policy[]" => {
            let others = needed_besides(row);
            let trust = "[verifier.auth0]\nissuer = \"https://tenant.auth0.com/\"\naudience = \"my-client\"\n";
            format!("{trust}[gate.orders]\nkind = \"auth\"\n[[policy]]\n{others}{line}")
        }
        "store" if row.name == "old_key" => format!("[store]\nkey = \"binding:REGISTER_KEY\"\n{line}"),
        parent => format!("[{parent}]\n{line}"),
    }
}

#[test]
fn every_example_is_right_and_what_is_required_is_enough() {
    for row in settings() {
        let is_table = matches!(row.kind, Kind::Group(_) | Kind::Named(_) | Kind::Groups(..));
        // A preset changes what is required; the presets' own settings show that.
        if is_table || row.name == "preset" || row.name == "source" {
            continue;
        }
        let (options, text) = sample_at_home(row);
        if let Err(problems) = Config::read(&text, "sample.toml", &BTreeMap::new(), options) {
            panic!("the example of {} is wrong: {problems}\n{text}", row.path());
        }
    }
}

#[test]
fn every_default_is_within_its_own_limits() {
    for row in settings() {
        let Fallback::Value(text) = row.fallback else { continue };
        let value = match row.kind {
            Kind::Flag | Kind::Count(..) => text.to_owned(),
            _ => format!("\"{text}\""),
        };
        let key = format!("{} = ", row.name);
        let text = sample(row).replace(&format!("{key}{}", row.example), &format!("{key}{value}"));
        assert!(text.contains(&value), "{text}");
        let read = Config::read(&text, "sample.toml", &BTreeMap::new(), ReadOptions::default());
        assert!(read.is_ok(), "the default of {} is wrong: {text}", row.path());
    }
}

#[test]
fn the_file_on_the_reference_page_can_be_used() {
    let page = reference();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let read = Config::read(example, "push.toml", &BTreeMap::new(), ReadOptions::default()).unwrap();
    assert!(read.warnings.is_empty() && read.config.credentials.len() == 1);
}
