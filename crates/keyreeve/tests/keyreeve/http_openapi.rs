//! The committed document is the one that the code makes.

use std::path::Path;

use keyreeve::http::{PROBLEMS, openapi};

use crate::http_world::World;

#[test]
fn the_committed_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi.json");
    let made = format!("{:#}\n", openapi(env!("CARGO_PKG_VERSION")));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "openapi.json is out of date: run this test with UPDATE_DOCS=1");
}

#[test]
fn every_reference_and_every_problem_is_there() {
    let document = openapi("x");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} is missing");
    }
    let names = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().unwrap();
    assert_eq!(names.len(), PROBLEMS.len());
}

/// What the API answers has the members that the document says, and no others.
#[tokio::test(start_paused = true)]
async fn answers_have_the_members_of_their_schemas() {
    let world = World::new();
    let document = openapi("x");
    let check = |schema: &str, value: &serde_json::Value| {
        let schema = &document["components"]["schemas"][schema];
        let members = schema["properties"].as_object().unwrap();
        for name in value.as_object().unwrap().keys() {
            assert!(members.contains_key(name), "`{name}` is not in {schema}");
        }
        for name in schema["required"].as_array().unwrap() {
            assert!(value.get(name.as_str().unwrap()).is_some(), "{name} is missing in {value}");
        }
    };
    check("Token", &world.get("/v1/credentials/push/token", "ops").await.json());
    check("Token", &world.get("/v1/credentials/acme/lake/token", "ops").await.json());
    check("CredentialState", &world.get("/v1/credentials/push", "ops").await.json());
    check("CredentialList", &world.get("/v1/credentials", "ops").await.json());
    check("History", &world.get("/v1/credentials/push/history", "ops").await.json());
    check("History", &world.get("/v1/credentials/slotted/history", "ops").await.json());
    check("Health", &world.get("/readyz", "ops").await.json());
    check("Problem", &world.get("/v1/credentials/push/token", "").await.json());
    check("Problem", &world.post("/v1/credentials/push/renew", "ops", "").await.json());
    let report = r#"{"generation":9,"upstream_status":401}"#;
    check("ReportResult", &world.post("/v1/credentials/push/report", "ops", report).await.json());
}
