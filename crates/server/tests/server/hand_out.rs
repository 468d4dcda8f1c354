//! Credentials reach programs that know nothing of keyreeve: through a gate, in files, by `keyreeve run`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use keyreeve_picky::upstream;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::node::{Node, PATIENCE, PROGRAM, Place, http_credential, until};

/// What an upstream saw of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    version: Version,
    line: String,
    authorization: String,
    body_bytes: usize,
}

/// An upstream over TLS that demands a client certificate and a bearer token.
struct Picky {
    port: u16,
    /// The authority of its certificate, and of those that it accepts.
    ca: PathBuf,
    /// A client certificate with its key.
    client: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Picky {
    async fn start(place: &Place, protocols: &[&str]) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let client_key = rcgen::KeyPair::generate().unwrap();
        let mut client = rcgen::CertificateParams::new(vec!["client".into()]).unwrap();
        client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let client = client.signed_by(&client_key, &issuer).unwrap();
        let client = place.secret("client.pem", &format!("{}{}", client.pem(), client_key.serialize_pem()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca_certificate.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![leaf.der().clone()],
                rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, notes) = (acceptor.clone(), Arc::clone(&notes));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, Arc::clone(&notes)));
                    drop(
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await,
                    );
                });
            }
        });
        Self { port, ca: place.secret("upstream-ca.pem", &ca_certificate.pem()), client, seen }
    }

    /// What a gate has to say to be let in.
    fn via(&self) -> String {
        format!("via = \"file:{}\"\nca = \"file:{}\"\n", self.client.display(), self.ca.display())
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn answer(request: Request<Incoming>, notes: Arc<Mutex<Vec<Seen>>>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    let line = format!("{} {}", head.method, head.uri.path_and_query().unwrap());
    let body_bytes = body.collect().await?.to_bytes().len();
    let is_right = authorization.starts_with("Bearer t-");
    notes.lock().unwrap().push(Seen { version: head.version, line, authorization, body_bytes });
    let mut answer = Response::new(Body::from("x".repeat(300_000)));
    if !is_right {
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(answer)
}

/// A node with a gate to an upstream; the address of the gate.
fn gate(place: &Place, issuer: &upstream::Upstream, host: &str, more: &str) -> (Node, String) {
    let credential = http_credential(&issuer.mint_url(), "");
    let gate = "[gate.up]\nkind = \"inject\"\nbind = \"127.0.0.2:0\"\ncredential = \"up\"";
    let config = place.config(&format!("{credential}\n{gate}\nupstreams = \"https://{host}\"\n{more}"));
    let mut node = place.node(&config, "one", &[]);
    node.wait_until_listening();
    let url = node.urls()[1].clone();
    (node, url)
}

fn plain() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_anything_reaches_an_upstream_that_demands_a_certificate_and_a_token() {
    for (protocols, version) in [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11)] {
        let place = Place::new();
        let issuer = upstream::start(upstream::Config::default()).await.unwrap();
        let picky = Picky::start(&place, protocols).await;
        let (node, url) = gate(&place, &issuer, &format!("localhost:{}", picky.port), &picky.via());
        let body = "y".repeat(1_000_000);
        let answer = plain().post(format!("{url}/orders?a=b")).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", node.log_text());
        assert_eq!(answer.bytes().await.unwrap().len(), 300_000);
        let expected = Seen {
            version,
            line: "POST /orders?a=b".into(),
            authorization: "Bearer t-1".into(),
            body_bytes: 1_000_000,
        };
        assert_eq!(picky.seen(), [expected]);
        // The same by `http_proxy`, as an unmodified program has it, and over HTTP/2 to the gate.
        let proxy = reqwest::Proxy::http(&url).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([]).proxy(proxy).timeout(PATIENCE).build().unwrap();
        let answer = client.get(format!("http://localhost:{}/by-proxy", picky.port)).send().await.unwrap();
        assert_eq!((answer.status(), picky.seen()[0].line.as_str()), (StatusCode::OK, "GET /by-proxy"));
        let elsewhere = client.get("http://elsewhere.example/").send().await.unwrap();
        assert_eq!(elsewhere.status(), 403);
        assert_eq!(client.get("https://localhost/").send().await.ok().map(|answer| answer.status()), None, "CONNECT");
        let answer = crate::node::client().get(format!("{url}/h2")).send().await.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
        assert_eq!(picky.seen().len(), 1, "what was refused has not been sent");
        assert_eq!(issuer.score().mints, 1);
        let log = node.log_text();
        assert!(!log.contains("t-1"), "the token is in the log: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_cannot_be_trusted_gets_no_credential() {
    let place = Place::new();
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let picky = Picky::start(&place, &["http/1.1"]).await;
    let localhost = format!("localhost:{}", picky.port);
    let certificate = format!("via = \"file:{}\"\n", picky.client.display());
    let authority = format!("ca = \"file:{}\"\n", picky.ca.display());
    for (host, more, why) in [
        // Its certificate is for another name, or of an authority that nobody knows; or it demands one of us.
        (&format!("127.0.0.1:{}", picky.port), &picky.via(), "certificate"),
        (&localhost, &certificate, "certificate"),
        (&localhost, &authority, "certificate"),
    ] {
        let (node, url) = gate(&place, &issuer, host, more);
        let answer = plain().get(format!("{url}/x")).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{more}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("upstream-failed") && text.contains("nothing was sent"), "{text}");
        let log = node.log_text();
        assert!(!text.contains("t-1") && !log.contains("t-1") && log.to_lowercase().contains(why), "{log}");
    }
    assert!(picky.seen().is_empty());
    // A file that is no certificate is found at start.
    let credential = http_credential(&issuer.mint_url(), "");
    let gate =
        "[gate.up]\nkind = \"inject\"\nbind = \"127.0.0.2:0\"\ncredential = \"up\"\nupstreams = \"https://localhost\"";
    let path = place.secret("nonsense.pem", "hunter2");
    let config = place.config(&format!("{credential}\n{gate}\nvia = \"file:{}\"\n", path.display()));
    let mut node = place.spawn(&config, "two", &[]);
    assert_eq!(node.ended().await.code(), Some(2));
    let log = node.log_text();
    assert!(log.contains("`gate.up`") && log.contains("`via`") && !log.contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metadata_service_listens_beside_the_api_and_goes_with_a_reload() {
    let place = Place::new();
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let credential = http_credential(&issuer.mint_url(), "");
    let gce = "[metadata.google]\nbind = \"127.0.0.2:0\"\nkind = \"gce\"\ncredential = \"up\"\n";
    let mut node = place.node(&place.config(&format!("{credential}{gce}")), "one", &[]);
    node.wait_until_listening();
    let url = node.urls()[1].clone();
    let token = format!("{url}/computeMetadata/v1/instance/service-accounts/default/token");
    let ask = || plain().get(&token).header("metadata-flavor", "Google").send();
    let answer = ask().await.unwrap();
    assert!(answer.text().await.unwrap().contains("\"access_token\":\"t-1\""));
    assert_eq!(plain().get(&token).send().await.unwrap().status(), 403);
    assert_eq!(plain().get(format!("{url}/v1/credentials/up/token")).send().await.unwrap().status(), 404);
    place.config(&credential);
    node.signal("HUP");
    until("nobody listens there any more", async || ask().await.is_err().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_always_holds_the_credential_and_nothing_else() {
    let place = Place::new();
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let credential = http_credential(&issuer.mint_url(), "life = { min_interval = \"1s\" }");
    let path = place.path("token");
    let file = format!("[file.up]\ncredential = \"up\"\npath = \"{}\"\n", path.display());
    let json = format!("[file.json]\ncredential = \"up\"\npath = \"{}.json\"\nform = \"json\"\n", path.display());
    let node = place.node(&place.config(&format!("{credential}{file}{json}")), "one", &[]);
    let holds = async |text: &str| {
        until(text, async || fs::read_to_string(&path).is_ok_and(|found| found == text).then_some(())).await;
    };
    holds("t-1").await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let body: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path.with_extension("json")).unwrap()).unwrap();
    assert_eq!((body["token"].as_str(), body["generation"].as_u64()), (Some("t-1"), Some(1)));
    until("a renewal", async || {
        (node.post("/v1/credentials/up/renew", serde_json::Value::Null).await.0 == 202).then_some(())
    })
    .await;
    holds("t-2").await;
    assert!(!node.log_text().contains("t-2"));
}

// --- keyreeve run -----------------------------------------------------------------------------------------------

fn run(place: &Place, node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["run", "--credential", "up"])
        .args(arguments)
        .env("KEYREEVE_URL", node.url())
        .env("KEYREEVE_API_KEY", &place.api_key)
        .stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> (String, String, Option<i32>) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

async fn renewable(place: &Place) -> (upstream::Upstream, Node) {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let credential = http_credential(&issuer.mint_url(), "life = { min_interval = \"1s\" }");
    let node = place.node(&place.config(&credential), "one", &[]);
    (issuer, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_finds_the_token_in_its_environment_or_file_and_its_exit_code_is_ours() {
    let place = Place::new();
    let (_issuer, node) = renewable(&place).await;
    let script = "printf '%s|%s|%s' \"$UP_TOKEN\" \"$MY_TOKEN\" \"${KEYREEVE_API_KEY-none}\"; exit 7";
    let (out, err, code) = output(run(&place, &node, &["--", "sh", "-c", script]));
    assert_eq!((out.as_str(), code), ("t-1||none", Some(7)), "{err}");
    let (out, _, _) = output(run(&place, &node, &["--env", "MY_TOKEN", "--", "sh", "-c", script]));
    assert_eq!(out, "|t-1|none");
    let path = place.path("run-token");
    let file = path.to_str().unwrap();
    let (out, err, code) =
        output(run(&place, &node, &["--file", file, "--", "sh", "-c", &format!("cat {file}; printf \"|$UP_TOKEN\"")]));
    assert_eq!((out.as_str(), code), ("t-1|", Some(0)), "{err}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Ended by a signal, as shells count it; not there; no credential.
    assert_eq!(output(run(&place, &node, &["--", "sh", "-c", "kill -KILL $$"])).2, Some(137));
    let (_, err, code) = output(run(&place, &node, &["--", "/nonexistent/program"]));
    assert!(code == Some(2) && err.contains("cannot be started"), "{code:?} {err}");
    let mut absent = Command::new(PROGRAM);
    absent
        .args(["run", "--credential", "absent", "--url", node.url(), "--", "true"])
        .env("KEYREEVE_API_KEY", &place.api_key);
    let (_, err, code) = output(absent);
    assert!(code == Some(3) && err.contains("`absent`"), "{code:?} {err}");
}

/// Waits for lines of a file that a program writes.
async fn lines(path: &Path, wanted: &[&str]) {
    until(&format!("{wanted:?}"), async || {
        let found = fs::read_to_string(path).unwrap_or_default();
        (found.lines().collect::<Vec<_>>() == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_hears_of_a_renewal_by_sighup_or_is_started_anew() {
    let place = Place::new();
    let (_issuer, node) = renewable(&place).await;
    let (token, said) = (place.path("token"), place.path("said"));
    let (token, out) = (token.to_str().unwrap(), said.to_str().unwrap());
    let script = format!(
        "trap 'cat {token} >> {out}; echo >> {out}' HUP; trap 'echo ended >> {out}; exit 9' TERM; cat {token} > {out}; echo >> {out}; while :; do sleep 0.05; done"
    );
    let mut told =
        run(&place, &node, &["--file", token, "--on-renewal", "hup", "--", "sh", "-c", &script]).spawn().unwrap();
    lines(&said, &["t-1"]).await;
    until("a renewal", async || {
        (node.post("/v1/credentials/up/renew", serde_json::Value::Null).await.0 == 202).then_some(())
    })
    .await;
    let renewed_at = std::time::Instant::now();
    lines(&said, &["t-1", "t-2"]).await;
    assert!(renewed_at.elapsed() < std::time::Duration::from_secs(6), "{:?}", renewed_at.elapsed());
    // What we are told, the program is told; its exit code is ours.
    let status = Command::new("kill").args(["-TERM", &told.id().to_string()]).status().unwrap();
    assert!(status.success());
    let ended = until("it ends", async || told.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(9));
    lines(&said, &["t-1", "t-2", "ended"]).await;

    let again = place.path("again");
    let out = again.to_str().unwrap();
    let script = format!("echo $UP_TOKEN >> {out}; while :; do sleep 0.05; done");
    let mut restarted = run(&place, &node, &["--on-renewal", "restart", "--", "sh", "-c", &script]).spawn().unwrap();
    lines(&again, &["t-2"]).await;
    until("a renewal", async || {
        (node.post("/v1/credentials/up/renew", serde_json::Value::Null).await.0 == 202).then_some(())
    })
    .await;
    lines(&again, &["t-2", "t-3"]).await;
    let status = Command::new("kill").args(["-TERM", &restarted.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(until("it ends", async || restarted.try_wait().unwrap()).await.code(), Some(143));
}
