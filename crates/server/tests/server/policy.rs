//! `keyreeve policy` as people and CI meet it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::node::PROGRAM;

const CONFIG: &str = r#"
store.url = "memory:"
[verifier.auth0]
issuer = "https://tenant.auth0.com/"
audience = "my-client"
[gate.orders]
kind = "auth"
[[policy]]
who = "verifier:auth0[permissions has 'orders:write']"
can = ["POST /orders/*", "PUT /orders/*"]
on = "gate:orders"
[[policy]]
who = "verifier:auth0"
can = "GET /orders/**"
on = "gate:orders"
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("keyreeve.toml"), config).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(PROGRAM).current_dir(&self.0).args(["policy"]).args(args).stdin(Stdio::null()).output().unwrap()
    }
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    format!("{}{}exit {code}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn rules_are_listed_with_the_numbers_that_explanations_use() {
    let folder = Folder::new(CONFIG);
    insta::assert_snapshot!(shown(&folder.run(&["check", "-c", "keyreeve.toml"])));
    let broken = Folder::new(&CONFIG.replace("permissions has", "permissions hsa"));
    insta::assert_snapshot!(shown(&broken.run(&["check", "-c", "keyreeve.toml"])));
}

#[test]
fn a_request_is_explained_by_the_rule_or_by_the_nearest_miss() {
    let folder = Folder::new(CONFIG);
    let claims = folder.file("claims.json", r#"{"permissions":["orders:write"]}"#);
    let explain = |claims: &str, request: [&str; 2]| {
        let common =
            ["explain", "-c", "keyreeve.toml", "--on", "gate:orders", "--as", "verifier:auth0", "--claims", claims];
        shown(&folder.run(&[&common[..], &request].concat()))
    };
    assert_eq!(
        explain(claims.to_str().unwrap(), ["PUT", "/orders/7"]),
        "allowed by rule 1\nrule 1: verifier:auth0[permissions has 'orders:write']\nexit 0"
    );
    assert_eq!(
        explain(r#"{"permissions":["orders:read"]}"#, ["POST", "/orders/7"]),
        "denied: no rule allows it: rule 1 would if `permissions` had 'orders:write'\n\
         rule 1: verifier:auth0[permissions has 'orders:write']\nexit 4"
    );
    assert_eq!(
        explain("{}", ["GET", "/orders/../admin"]),
        "denied: the path has `.` or `..` in it, which the service behind may undo\nexit 4"
    );
    let json =
        ["explain", "-c", "keyreeve.toml", "--json", "--on", "gate:orders", "--as", "verifier:auth0", "--claims", "{}"];
    let json = shown(&folder.run(&[&json[..], &["DELETE", "/orders/7"]].concat()));
    assert_eq!(
        json,
        "{\"allowed\":false,\"reason\":\"no rule allows it: rule 2 would if the method were `GET`\",\"nearest_rule\":2,\"who\":\"verifier:auth0\"}\nexit 4"
    );
    assert!(explain("[]", ["GET", "/"]).ends_with("exit 2"));
    assert!(explain("nowhere.json", ["GET", "/"]).ends_with("exit 2"));
}

#[test]
fn cases_are_compared_and_a_wrong_one_fails() {
    let folder = Folder::new(CONFIG);
    let case = |name: &str, claims: &str, request: &str, rest: &str| {
        format!(
            r#"{{"name":"{name}","as":"verifier:auth0","claims":{claims},"on":"gate:orders","request":"{request}",{rest}}}"#
        )
    };
    let write = r#"{"permissions":["orders:write"]}"#;
    let good = [
        case("writers order", write, "POST /orders/7", r#""expect":"allow","rule":1"#),
        case("everybody reads", "{}", "GET /orders/7/items", r#""expect":"allow""#),
        case("readers may not order", "{}", "POST /orders/7", r#""expect":"deny""#),
        case("there is no way up", write, "GET /orders/../admin", r#""expect":"deny""#),
    ];
    folder.file("good.json", &format!("[{}]", good.join(",")));
    insta::assert_snapshot!(shown(&folder.run(&["test", "-c", "keyreeve.toml", "good.json"])));
    let bad = [
        case("text is no list", r#"{"permissions":"orders:write"}"#, "POST /orders/7", r#""expect":"allow""#),
        case("nobody reads", "{}", "GET /orders/7", r#""expect":"deny""#),
        case("by another rule", "{}", "GET /orders/7", r#""expect":"allow","rule":1"#),
    ];
    folder.file("bad.json", &format!("[{}]", bad.join(",")));
    insta::assert_snapshot!(shown(&folder.run(&["test", "-c", "keyreeve.toml", "bad.json"])));
    for broken in
        ["[]", "{}", "[{}]", r#"[{"name":"x","as":"auth0","on":"gate:orders","request":"GET /","expect":"allow"}]"#]
    {
        folder.file("broken.json", broken);
        assert!(shown(&folder.run(&["test", "-c", "keyreeve.toml", "broken.json"])).ends_with("exit 2"), "{broken}");
    }
}
