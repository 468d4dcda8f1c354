//! The command line as people and scripts meet it: what is printed where, and how it ends.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use keyreeve_picky::upstream;
use serde_json::Value;

use crate::node::{Dev, PROGRAM, Place, http_credential, until};

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).env_remove("KEYREEVE_API_KEY").env_remove("KEYREEVE_URL").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The first thing that anybody sees of keyreeve: one command, one curl line, a token.
#[tokio::test(flavor = "multi_thread")]
async fn dev_prints_a_curl_line_that_works_and_a_second_one_shares_the_token() {
    let place = Place::new();
    let data = place.path("data");
    let first = Dev::start(&data, &["--bind", "127.0.0.1:0"]);
    let curl = first.printed.lines().map(str::trim).find(|line| line.starts_with("curl ")).unwrap().to_owned();
    let answer = Command::new("sh").args(["-c", &curl]).output().unwrap();
    assert!(answer.status.success(), "{curl}");
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let token = answer["token"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3, "a JWT");

    let summary: Value = serde_json::from_str(&fs::read_to_string(data.join("dev.json")).unwrap()).unwrap();
    assert_eq!((summary["url"].as_str(), summary["credential"].as_str()), (Some(&*first.url), Some("apns-dev")));
    let pem = fs::read_to_string(summary["public_key_pem_path"].as_str().unwrap()).unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"));

    let second = Dev::start(&data, &["--bind", "127.0.0.1:0"]);
    assert_ne!(second.url, first.url);
    assert_eq!(second.get(&["credential", "get", "apns-dev"]).0.trim(), token, "one token for both");
    let config = data.join("keyreeve.toml");
    let third = place.node(&config, "third", &[("KEYREEVE__LISTENER__0__BIND", "127.0.0.1:0")]);
    let shared = Command::new(PROGRAM)
        .args(["credential", "get", "apns-dev", "--url", third.url(), "--api-key-file"])
        .arg(data.join("api.key"))
        .output()
        .unwrap();
    assert_eq!(text(&shared.stdout).trim(), token, "{}", text(&shared.stderr));

    let (_, said, code) = second.get(&["credential", "renew", "apns-dev"]);
    assert_eq!(code, 6);
    assert!(
        said.starts_with("error: `apns-dev` was minted too recently: its upstream allows one mint per 20m\n"),
        "{said}"
    );
    assert!(said.contains("\nretry: in "), "{said}");
    let (said, _, code) = second.get(&["credential", "get", "script-dev"]);
    assert!(code == 0 && said.starts_with("script-1-"), "{said}");
}

#[test]
fn dev_takes_the_next_port_where_its_own_is_taken_and_says_so() {
    let place = Place::new();
    // Another program of this machine may have it for a while.
    let started = Instant::now();
    let taken = loop {
        match std::net::TcpListener::bind("127.0.0.1:7070") {
            Ok(taken) => break taken,
            Err(error) => assert!(started.elapsed() < crate::node::PATIENCE, "7070: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let dev = Dev::start(&place.path("data"), &[]);
    assert_ne!(dev.url, "http://127.0.0.1:7070");
    assert!(fs::read_to_string(&dev.log).unwrap().contains("port 7070 is taken: listening on 70"), "{:?}", dev.log);
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_commands_put_data_on_standard_output_and_end_with_a_code_that_says_why() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    let config = place.config(&http_credential(&issuer.mint_url(), "life.quiet = [\"sat 22:00-22:20\"]"));
    let node = place.node(&config, "one", &[]);

    let (out, err, code) = place.cli(&node, &["credential", "get", "up"]);
    assert_eq!((out.as_str(), err.as_str(), code), ("t-1\n", "", 0));
    let (out, _, code) = place.cli(&node, &["credential", "get", "up", "-o", "header"]);
    assert_eq!((out.as_str(), code), ("authorization: bearer t-1\n", 0));
    let (out, _, code) = place.cli(&node, &["credential", "ls", "--json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((list["credentials"][0]["status"].as_str(), code), (Some("ready"), 0));
    for command in [&["ls"][..], &["show", "up"], &["history", "up"]] {
        let args = [&["credential"][..], command].concat();
        let (out, _, code) = place.cli(&node, &args);
        assert!(code == 0 && out.contains("up"), "{args:?}: {out}");
        assert!(!out.contains("t-1"), "only `get` prints a secret: {out}");
    }

    let (out, _, _) = place.cli(&node, &["credential", "show", "up"]);
    let window = out.lines().find(|line| line.starts_with("renewal.quiet.from:"));
    assert!(window.is_some_and(|line| line.ends_with("T22:00:00Z")), "{out}");

    let (out, err, code) = place.cli(&node, &["credential", "show", "nope"]);
    assert!(out.is_empty() && code == 3 && err.starts_with("error: ") && err.contains("\nrequest: "), "{code} {err}");
    let (_, err, code) = place.cli(&node, &["credential", "get", "No!"]);
    assert!(code == 2 && err.contains("`No!`"), "{code} {err}");
    let (_, err, code) = place.cli(&node, &["credential", "get", "up", "-o", "aws"]);
    assert!(code == 2 && err.contains("hint: use `-o json`"), "{code} {err}");
    let (_, err, code) = place.cli(&node, &["credential", "resolve", "up", "discard"]);
    assert!(code == 6 && err.contains("no mint of `up` is in doubt"), "{code} {err}");
    let report = ["credential", "report", "up", "--generation", "1", "--upstream-status", "401", "--json"];
    let (out, _, code) = place.cli(&node, &report);
    assert!(code == 0 && out.contains("\"result\":"), "{code} {out}");

    let other = place.secret("other-key", "kr_somebody_else");
    let (_, err, code) = place.cli(&node, &["credential", "ls", "--api-key-file", other.to_str().unwrap()]);
    assert!(code == 4 && err.contains("this needs an API key"), "{code} {err}");
    let (_, err, code) = place.cli(&node, &["credential", "ls", "--url", "http://127.0.0.1:1"]);
    assert!(code == 5 && err.contains("does not answer"), "{code} {err}");
    let (_, err, code) = place.cli(&node, &["credential", "ls", "--url", "127.0.0.1:7070"]);
    assert!(code == 2 && err.contains("unix:PATH"), "{code} {err}");
}

#[test]
fn a_command_without_a_network_is_done_in_milliseconds() {
    let fastest = (0..20)
        .map(|_| {
            let started = Instant::now();
            assert!(run(&["version"]).status.success());
            started.elapsed()
        })
        .min()
        .unwrap();
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
}

#[test]
fn config_commands_check_explain_and_make_keys_that_fit() {
    let place = Place::new();
    let config = place.config(&http_credential("http://127.0.0.1:1/mint", ""));
    let path = config.to_str().unwrap();
    assert!(run(&["config", "check", "-c", path]).status.success());
    let explained = text(&run(&["config", "explain", "-c", path]).stdout);
    assert!(
        explained.lines().any(|line| line.starts_with("credential.up.life.lead = ") && line.ends_with("# default"))
    );
    let schema: Value = serde_json::from_slice(&run(&["config", "schema"]).stdout).unwrap();
    assert!(schema["properties"]["credential"].is_object());

    let stanza = text(&run(&["config", "new-key", "push"]).stdout);
    let key = stanza.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert!(key.starts_with("kr_") && key.len() == 67, "{stanza}");
    // As the README says it, by a shell with the usual umask.
    let sh = format!("umask 022; '{PROGRAM}' config new-seal-key > '{}'", place.path("fresh.key").display());
    assert!(Command::new("sh").args(["-c", &sh]).status().unwrap().success());
    fs::rename(place.path("fresh.key"), place.path("seal.key")).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&config).unwrap();
    writeln!(file, "{stanza}").unwrap();
    let node = place.node(&config, "one", &[]);
    let key = place.secret("push-key", &key);
    let (out, err, code) = place.cli(&node, &["credential", "ls", "--api-key-file", key.to_str().unwrap()]);
    assert!(code == 0 && out.contains("up"), "{err}");
}

#[test]
fn every_problem_of_a_configuration_is_printed_at_once() {
    let place = Place::new();
    let config = place
        .config("[credential.a]\nsource = \"apsn\"\n[credential.b]\nsource = \"exec\"\ncommand = [\"x\"]\nlive = {}\n");
    for args in [&["serve", "-c"][..], &["config", "check", "-c"], &["doctor", "-c"]] {
        let output = Command::new(PROGRAM).args(args).arg(&config).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        for part in ["apsn", "credential.b", "live", "hint: "] {
            assert!(said.contains(part), "{args:?} does not say `{part}`: {said}");
        }
        assert_eq!(output.status.code(), Some(if args[0] == "serve" { 2 } else { 1 }), "{args:?}");
    }
    let output = run(&["serve", "-c", "/nonexistent/keyreeve.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: cannot read the configuration `/nonexistent/keyreeve.toml`"));
}

#[test]
fn doctor_says_what_is_in_order_and_what_is_not() {
    let place = Place::new();
    let apns = format!(
        "[credential.apns]\nsource = \"apns\"\nkey = \"file:{}\"\nparams = {{ team_id = \"DEVTEAM001\", key_id = \"DEVKEY0001\" }}\n",
        place.path("apns.p8").display()
    );
    let config = place.config(&apns);
    let good = run(&["doctor", "-c", config.to_str().unwrap()]);
    let said = text(&good.stdout);
    assert!(good.status.success(), "{said}");
    assert!(said.contains("OK    apns: F = 23: lead 10m - skew 2s absorbs 23 crashes"), "{said}");
    assert!(said.ends_with("0 to put right\n"), "{said}");

    fs::remove_file(place.path("apns.p8")).unwrap();
    place.secret("seal.key", "short");
    let bad = run(&["doctor", "-c", config.to_str().unwrap(), "--json"]);
    assert_eq!(bad.status.code(), Some(1));
    let findings: Value = serde_json::from_slice(&bad.stdout).unwrap();
    let failed: Vec<_> =
        findings["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == "FAIL").collect();
    assert_eq!(failed.len(), 2, "{findings}");
    assert!(failed.iter().all(|finding| finding["hint"].is_string()), "{findings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn picky_apns_says_where_it_is_and_prints_its_score_at_the_end() {
    let place = Place::new();
    let key = format!("DEVTEAM001:DEVKEY0001:{}", place.path("apns-public.pem").display());
    let ca = place.path("ca.pem");
    let mut picky = Command::new(PROGRAM)
        .args(["picky", "apns", "--json", "--scope", "connection", "--scale", "60", "--key", &key])
        .args([
            "--control",
            "127.0.0.1:0",
            "--fault",
            r#"{"fault":{"kind":"status","status":503},"next":1}"#,
            "--ca-file",
        ])
        .arg(&ca)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = picky.id().to_string();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(picky.stdout.take().unwrap()));
    let started: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(started["url"].as_str().unwrap().starts_with("https://127.0.0.1:"));
    let pem = reqwest::Certificate::from_pem(&fs::read(&ca).unwrap()).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([pem]).build().unwrap();
    let push = format!("{}/3/device/{}", started["url"].as_str().unwrap(), "0".repeat(64));
    let answer = client.post(push).header("apns-topic", "a.b").body("{}").send().await.unwrap();
    assert!(answer.status().is_client_error() || answer.status().is_server_error(), "it carries no token");
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let score: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(score["requests"], 1, "{score}");
    let status = until("it ends", async || picky.try_wait().unwrap()).await;
    assert!(status.success());

    let refused = run(&["picky", "apns", "--key", "nonsense"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("TEAM:KEYID:PEMFILE"));
}

#[test]
fn help_version_and_completions_are_answers_and_a_mistake_is_none() {
    assert!(text(&run(&["--help"]).stdout).contains("credential"));
    assert_eq!(text(&run(&["version"]).stdout), format!("keyreeve {}\n", env!("CARGO_PKG_VERSION")));
    assert!(text(&run(&["completions", "bash"]).stdout).contains("_keyreeve"));
    let mistake = run(&["credental"]);
    assert_eq!(mistake.status.code(), Some(2));
    assert!(mistake.stdout.is_empty() && text(&mistake.stderr).contains("credential"));
}
