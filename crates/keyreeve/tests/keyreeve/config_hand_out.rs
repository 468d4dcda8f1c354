//! Metadata services, files and gates that add a credential: how they are read, and what is said about each mistake.

use std::path::Path;

use keyreeve::config::{Bind, Config, FileForm, Home, MetadataKind, ReadOptions};

use crate::config_mistakes::said;

/// Four lines, so that what follows starts on line 10.
const BASE: &str = "store.url = \"memory:\"\n\
    seal.keys = [\"env:SEAL\"]\n\
    [credential.lake]\n\
    source = \"exec\"\n\
    command = [\"/bin/mint\"]\n\
    [credential.\"acme/token\"]\n\
    source = \"exec\"\n\
    command = [\"/bin/mint\"]\n\n";

#[test]
fn what_is_handed_out_is_read_with_its_defaults() {
    let text = format!(
        "{BASE}\
        [metadata.batch]\nbind = \"127.0.0.1:9911\"\nkind = \"aws\"\ncredential = \"lake\"\n\
        [metadata.google]\nbind = \"169.254.169.254:80\"\nkind = \"gce\"\ncredential = \"acme/token\"\n\
        audiences = {{ \"https://orders.example\" = \"acme/token\" }}\n\
        [metadata.azure]\nbind = \"unix:/run/azure.sock\"\nkind = \"azure\"\n\
        resources = {{ \"https://vault.azure.net/\" = \"acme/token\" }}\n\
        [file.token]\ncredential = \"acme/token\"\npath = \"/run/keyreeve/token\"\n\
        [gate.github]\nkind = \"inject\"\nbind = \"[::1]:7075\"\ncredential = \"acme/token\"\n\
        upstreams = \"https://api.github.com/\"\nheader = \"X-Api-Key\"\nvalue = \"{{token}}\"\n"
    );
    let read = Config::read(&text, "a.toml", &Default::default(), ReadOptions::default()).unwrap();
    assert_eq!(read.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    let config = read.config;
    let MetadataKind::Aws { credential, role } = &config.metadata["batch"].kind else { panic!() };
    assert_eq!((credential.as_str(), role.as_str()), ("lake", "lake"));
    let MetadataKind::Gce { email, project, scopes, audiences, .. } = &config.metadata["google"].kind else { panic!() };
    assert_eq!((email.as_str(), project, scopes.len(), audiences.len()), ("default", &None, 1, 1));
    let MetadataKind::Azure { resources } = &config.metadata["azure"].kind else { panic!() };
    assert_eq!(resources["https://vault.azure.net"].as_str(), "acme/token");
    assert_eq!(config.metadata["azure"].bind, Bind::Unix("/run/azure.sock".into()));
    let file = &config.files["token"];
    assert_eq!((file.path.as_path(), file.form), (Path::new("/run/keyreeve/token"), FileForm::Raw));
    let gate = &config.injects["github"];
    assert_eq!((gate.header.as_str(), gate.value.as_str()), ("x-api-key", "{token}"));
    assert_eq!(gate.upstreams, ["https://api.github.com".parse::<http::Uri>().unwrap()]);
    assert_eq!((gate.timeout_ms, gate.body_bytes_max, gate.requests_max), (60_000, 64 << 20, 256));
    assert!(config.gates.is_empty());
}

#[test]
fn a_worker_has_none_of_them() {
    for table in [
        "[metadata.a]\nbind = \"127.0.0.1:1\"\nkind = \"aws\"\ncredential = \"lake\"\n",
        "[file.a]\npath = \"/a\"\ncredential = \"lake\"\n",
        "[gate.a]\nkind = \"inject\"\nbind = \"127.0.0.1:1\"\ncredential = \"lake\"\nupstreams = \"https://a.example\"\n",
    ] {
        let text = format!("seal.keys = [\"binding:SEAL\"]\n{table}");
        let options = ReadOptions { home: Home::Worker, ..ReadOptions::default() };
        let problems = Config::read(&text, "a.toml", &Default::default(), options).unwrap_err().to_string();
        assert!(problems.contains("Worker"), "{problems}");
    }
}

macro_rules! mistakes {
    ($($name:ident: $text:expr;)+) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), said(&format!("{BASE}{}", $text), &[]));
        }
    )+};
}

mistakes! {
    a_metadata_service_for_other_machines: "[metadata.a]\nbind = \"0.0.0.0:9911\"\nkind = \"aws\"\ncredential = \"lake\"\n";
    a_metadata_service_at_a_taken_address: "[metadata.a]\nbind = \"127.0.0.1:7070\"\nkind = \"aws\"\ncredential = \"lake\"\n[metadata.b]\nbind = \"127.0.0.1:7070\"\nkind = \"aws\"\ncredential = \"lake\"\n";
    a_metadata_service_of_nothing: "[metadata.a]\nbind = \"127.0.0.1:9911\"\nkind = \"aws\"\n[metadata.b]\nbind = \"127.0.0.1:9912\"\nkind = \"azure\"\n[metadata.c]\nkind = \"gcp\"\n";
    a_metadata_service_of_another_kind: "[metadata.a]\nbind = \"127.0.0.1:9911\"\nkind = \"azure\"\nresources = { \"https://vault.azure.net\" = \"lake\" }\nrole = \"lake\"\ncredential = \"lake\"\n";
    a_metadata_service_of_a_credential_that_is_not_there: "[metadata.a]\nbind = \"127.0.0.1:9911\"\nkind = \"gce\"\ncredential = \"laek\"\naudiences = { \"https://a.example\" = \"Nobody\" }\n";
    a_resource_twice: "[metadata.a]\nbind = \"127.0.0.1:9911\"\nkind = \"azure\"\nresources = { \"https://vault.azure.net\" = \"lake\", \"https://vault.azure.net/\" = \"acme/token\" }\n";
    a_file_that_is_none: "[file.a]\ncredential = \"lake\"\npath = \"run/token\"\n[file.b]\ncredential = \"lake\"\npath = \"/run/keyreeve/\"\nform = \"yaml\"\n[file.c]\n";
    one_file_for_two: "[file.a]\ncredential = \"lake\"\npath = \"/run/token\"\n[file.b]\ncredential = \"acme/token\"\npath = \"/run/token\"\n";
    an_inject_gate_without_anything: "[gate.a]\nkind = \"inject\"\n";
    an_inject_gate_for_other_machines: "[gate.a]\nkind = \"inject\"\nbind = \"10.0.0.1:7075\"\ncredential = \"lake\"\nupstreams = \"https://api.example.org\"\n";
    an_inject_gate_to_anywhere: "[gate.a]\nkind = \"inject\"\nbind = \"127.0.0.1:7075\"\ncredential = \"lake\"\nupstreams = [\"https://*.example.org\", \"https://api.example.org/v1\", \"http://api.example.org\", \"https://me:hunter2@api.example.org\", \"api.example.org\"]\n";
    an_inject_gate_with_a_strange_header: "[gate.a]\nkind = \"inject\"\nbind = \"127.0.0.1:7075\"\ncredential = \"lake\"\nupstreams = \"https://api.example.org\"\nheader = \"Host\"\nvalue = \"Bearer hunter2\"\n";
    an_inject_gate_that_answers_a_proxy: "[gate.a]\nkind = \"inject\"\nbind = \"127.0.0.1:7075\"\ncredential = \"lake\"\nupstreams = \"https://api.example.org\"\nproxy = \"nginx\"\n[gate.b]\nkind = \"auth\"\nupstreams = \"https://api.example.org\"\n";
    a_metadata_service_at_the_address_of_a_gate: "[gate.a]\nkind = \"inject\"\nbind = \"127.0.0.1:7075\"\ncredential = \"lake\"\nupstreams = \"https://api.example.org\"\n[metadata.a]\nbind = \"127.0.0.1:7075\"\nkind = \"aws\"\ncredential = \"lake\"\n";
}
