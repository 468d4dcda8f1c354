//! Many real processes and one refresh token that is good for one use; many cold clients and one STS.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use keyreeve_picky::issuers::oauth::{self, Client, Server};
use keyreeve_picky::issuers::{Fault, Faults, Key, github, sts};
use serde_json::{Value, json};

use crate::issuers::{RSA, RSA_PUBLIC};
use crate::node::{Node, PROGRAM, Place, until};

/// How many processes: `KEYREEVE_AGENTS=50` for the size that the demonstration has.
fn count() -> usize {
    std::env::var("KEYREEVE_AGENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

async fn server() -> Server {
    let clients = vec![Client { id: "agent".into(), secret: Some("client-secret".into()), keys: Vec::new() }];
    oauth::start(oauth::Config { clients, ..Default::default() }).await.unwrap()
}

/// A credential whose refresh token lies in the place, with leases short enough for a test.
fn agent(place: &Place, server: &Server) -> String {
    let secret = place.secret("client.secret", "client-secret");
    let refresh = place.secret("refresh", &server.consent());
    format!(
        "[credential.user]\nsource = \"oauth2-refresh\"\nwait = \"20s\"\nkeep = \"always\"\nparams = {{ token_url = \"{}\", client_id = \"agent\", client_secret = \"file:{}\", refresh_token = \"file:{}\" }}\nlife = {{ min_interval = \"100ms\", send = \"2s\", timeout = \"3s\", lease = \"5s\", takeover = \"6s\", skew = \"0s\", poll = \"100ms\" }}\n",
        server.token_url(),
        secret.display(),
        refresh.display()
    )
}

async fn tokens(nodes: &[Node]) -> BTreeSet<String> {
    let mut tokens = BTreeSet::new();
    for node in nodes {
        tokens.insert(node.token_text("user").await);
    }
    tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_share_one_refresh_token_and_use_each_one_once() {
    let server = server().await;
    let place = Place::new();
    let config = place.config(&agent(&place, &server));
    let mut nodes: Vec<Node> = (0..count()).map(|n| place.spawn(&config, &format!("agent-{n}"), &[])).collect();
    nodes.iter_mut().for_each(Node::wait_until_listening);
    assert_eq!(tokens(&nodes).await.len(), 1, "one token for all");
    assert_eq!(server.score().refreshes, 1);
    for window in 2..=4_u64 {
        // All of them say that the token is refused; the fleet renews once.
        let generation = until("a generation", async || nodes[0].token("user").await.1["generation"].as_u64()).await;
        for node in &nodes {
            let (status, body) = node
                .post("/v1/credentials/user/report", json!({ "generation": generation, "upstream_status": 401 }))
                .await;
            assert!(status < 300, "{body}");
        }
        for node in &nodes {
            until("the next generation", async || {
                (node.token("user").await.1["generation"].as_u64() > Some(generation)).then_some(())
            })
            .await;
        }
        assert_eq!(tokens(&nodes).await.len(), 1, "one token for all");
        let score = server.score();
        assert_eq!((score.refreshes, score.reuses, score.families_revoked), (window, 0, 0));
    }
    for node in &nodes {
        let log = node.log_text();
        assert!(!log.contains("refresh-1") && !log.contains("client-secret"), "a secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_killed_between_the_answer_and_the_commit_leave_it_to_an_operator() {
    let server = server().await;
    let place = Place::new();
    let config = place.config(&agent(&place, &server));
    let first = place.node(&config, "first", &[]);
    let old = first.token_text("user").await;
    // The server has rotated, and its answer is on the way for longer than the process lives.
    server.set_faults(Faults::slow(Duration::from_secs(2))).unwrap();
    until("the server has rotated", async || {
        let _ = first.post("/v1/credentials/user/renew", Value::Null).await;
        (server.score().refreshes == 2).then_some(())
    })
    .await;
    first.kill();
    server.set_faults(Faults::default()).unwrap();

    let second = place.node(&config, "second", &[]);
    assert_eq!(second.token_text("user").await, old, "what is valid is served on");
    until("it says so", async || (second.status("user").await == "needs-reauth").then_some(())).await;
    let (said, _, code) = place.cli(&second, &["credential", "history", "user"]);
    assert!(code == 0 && !said.contains("refresh-"), "{said}");
    let calls = server.score().calls;
    place.secret("refresh", &server.consent());
    until("it is resolved", async || {
        let (_, _, code) = place.cli(&second, &["credential", "resolve", "user", "reauthorize"]);
        (code == 0).then_some(())
    })
    .await;
    until("a new token", async || {
        let _ = second.post("/v1/credentials/user/renew", Value::Null).await;
        (second.token_text("user").await != old).then_some(())
    })
    .await;
    let score = server.score();
    assert_eq!((score.reuses, score.families_revoked), (0, 0));
    assert!(score.calls > calls && calls == 2, "nothing was tried meanwhile");
}

/// A role whose web identity is signed here.
fn lake(place: &Place, sts: &sts::Sts) -> String {
    let key = place.secret("issuer.pem", RSA);
    format!(
        "[credential.identity]\nsource = \"jwt\"\nkey = \"file:{}\"\nparams = {{ alg = \"RS256\", claims = {{ iss = \"https://issuer.example.org\", sub = \"keyreeve:lake\", aud = \"sts.amazonaws.com\", iat = \"{{iat}}\", exp = \"{{exp}}\" }} }}\n[credential.user]\nsource = \"aws-web-identity\"\nwait = \"1500ms\"\nparams = {{ role_arn = \"arn:aws:iam::123456789012:role/lake\", region = \"eu-central-1\", endpoint = \"{}\", assertion = \"credential:identity\" }}\nlife = {{ poll = \"100ms\" }}\n",
        key.display(),
        sts.url()
    )
}

async fn cloud() -> sts::Sts {
    sts::start(sts::Config { trusted: Key::all(RSA_PUBLIC).unwrap(), ..Default::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_cold_callers_on_several_processes_make_one_call_to_sts() {
    let sts = cloud().await;
    sts.set_faults(Faults::slow(Duration::from_millis(300))).unwrap();
    let place = Place::new();
    let config = place.config(&lake(&place, &sts));
    let mut nodes: Vec<Node> = (0..4).map(|n| place.spawn(&config, &format!("node-{n}"), &[])).collect();
    nodes.iter_mut().for_each(Node::wait_until_listening);
    let asked = nodes.iter().flat_map(|node| {
        (0..100).map(|_| crate::node::answer(node.request(http::Method::GET, "/v1/credentials/user/token")))
    });
    let answers = futures::future::join_all(asked).await;
    let keys: BTreeSet<String> =
        answers.iter().map(|(status, body)| format!("{status} {}", body["fields"]["AccessKeyId"])).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(keys.first().unwrap().contains("200 \"ASIA"), "{keys:?}");
    assert_eq!((sts.score().calls, sts.score().issued), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_sts_is_one_call_for_all_and_the_same_error_in_time() {
    let sts = cloud().await;
    let fail = Fault::Fail { status: 403, code: "AccessDenied".into(), retry_after_s: None };
    sts.set_faults(Faults::always(fail)).unwrap();
    let place = Place::new();
    let config = place.config(&lake(&place, &sts));
    let nodes: Vec<Node> = (0..2).map(|n| place.node(&config, &format!("node-{n}"), &[])).collect();
    let started = std::time::Instant::now();
    let asked = nodes.iter().flat_map(|node| {
        (0..50).map(|_| crate::node::answer(node.request(http::Method::GET, "/v1/credentials/user/token")))
    });
    let answers = futures::future::join_all(asked).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    let errors: BTreeSet<String> = answers.iter().map(|(_, body)| body["type"].to_string()).collect();
    assert_eq!(errors, BTreeSet::from(["\"urn:keyreeve:problem:upstream-rejected\"".to_owned()]), "{:?}", answers[0]);
    // The first hold after a refusal that will not pass by itself is 30 s.
    assert_eq!(sts.score().calls, 1);
    // The error is not kept as a credential: when STS agrees, a renewal brings keys.
    sts.set_faults(Faults::default()).unwrap();
    until("keys", async || {
        let _ = nodes[0].post("/v1/credentials/user/renew", Value::Null).await;
        (nodes[0].token("user").await.0 == 200).then_some(())
    })
    .await;
}

/// GitHub's replicas do not know a new token for some seconds: who is refused reports it, and that must not cost another token.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_that_github_does_not_know_yet_is_reported_by_processes_and_not_minted_again() {
    let config = github::Config {
        keys: Key::all(RSA_PUBLIC).unwrap(),
        replication: Duration::from_secs(2),
        ..Default::default()
    };
    let github = github::start(config).await.unwrap();
    let place = Place::new();
    let key = place.secret("app.pem", RSA);
    let config = place.config(&format!(
        "[credential.user]\nsource = \"github-app\"\nkey = \"file:{}\"\nparams = {{ app_id = \"Iv23liPICKY\", installation_id = 1, api_url = \"{}\" }}\n",
        key.display(),
        github.api_url()
    ));
    let nodes: Vec<Node> = (0..3).map(|n| place.node(&config, &format!("node-{n}"), &[])).collect();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = format!("{}/installation/repositories", github.api_url());
    let mut refused = 0;
    let token = until("the token is known", async || {
        let token = nodes[refused % nodes.len()].token_text("user").await;
        if client.get(&url).bearer_auth(&token).send().await.unwrap().status() == 204 {
            return Some(token);
        }
        refused += 1;
        for node in &nodes {
            let report = json!({ "generation": 1, "upstream_status": 401 });
            let (status, body) = node.post("/v1/credentials/user/report", report).await;
            assert!(status < 300 && body["result"] == "floor-wait", "{status} {body}");
        }
        None
    })
    .await;
    assert!(refused > 0, "nobody was refused");
    for node in &nodes {
        assert_eq!(node.token_text("user").await, token);
    }
    assert_eq!((github.score().calls, github.score().issued), (1, 1), "all reports together cost nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_issuers_run_from_the_command_line_and_print_their_score() {
    let place = Place::new();
    let public = place.secret("public.pem", RSA_PUBLIC);
    let public = public.display().to_string();
    let folder = place.path("mutual");
    let folder = folder.display().to_string();
    let cases: [(&[&str], &str); 5] = [
        (&["oauth", "--client", "me:secret", "--refresh-token", "first", "--rotation", "strict"], "/token"),
        (
            &[
                "sts",
                "--trust",
                &public,
                "--issuer",
                "https://i.example.org",
                "--role",
                "arn:aws:iam::123456789012:role/lake",
            ],
            "/",
        ),
        (&["github", "--key", &public, "--app-id", "1", "--installation", "2"], "/app/installations/2/access_tokens"),
        (
            &["google", "--trust", &public, "--account", "me@project.iam.gserviceaccount.com"],
            "/v1/projects/-/serviceAccounts/me@project.iam.gserviceaccount.com:generateAccessToken",
        ),
        (&["oauth", "--mutual-tls", &folder], "/token"),
    ];
    drop(crate::node::client());
    for (args, path) in cases {
        let mut child =
            Command::new(PROGRAM).arg("picky").args(args).arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let url = first["url"].as_str().unwrap().trim_end_matches('/').trim_end_matches("/token").to_owned();
        let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        if url.starts_with("https:") {
            let read = |name: &str| std::fs::read(place.path("mutual").join(name)).unwrap();
            client = client
                .tls_certs_only(reqwest::Certificate::from_pem_bundle(&read("ca.pem")).unwrap())
                .identity(reqwest::Identity::from_pem(&read("client.pem")).unwrap());
        }
        let client = client.build().unwrap();
        let status = client.post(format!("{url}{path}")).send().await.unwrap().status();
        assert!(status.is_client_error(), "{status}");
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let score: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!((score["calls"].as_u64(), score["issued"].as_u64()), (Some(1), Some(0)), "{score}");
        assert!(child.wait().unwrap().success());
    }
}
