//! nginx with `auth_request` in front of a service, set up as the guide says, and a real node that it asks.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keyreeve_picky::oidc::{self, Config, Fault, Faults, Oidc};
use serde_json::{Value, json};

use crate::node::{Node, Place};
use crate::support::{Parrot, http};

/// A running nginx; killed when the test ends.
struct Nginx {
    child: Child,
    socket: PathBuf,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    /// Starts nginx with the locations of the guide, between these two addresses.
    fn start(folder: &Path, keyreeve: &str, service: &str) -> Self {
        let guide = include_str!("../../../../docs/guide/gate-auth.md");
        let locations = guide.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let at = folder.display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log warn;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n access_log off;\n client_body_temp_path {at}/body;\n proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/fastcgi;\n uwsgi_temp_path {at}/uwsgi;\n scgi_temp_path {at}/scgi;\n\
             upstream keyreeve {{ server {keyreeve}; keepalive 16; }}\n upstream service {{ server {service}; }}\n\
             server {{\n listen unix:{at}/nginx.sock;\n{locations}\n}}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, text).unwrap();
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let program = program.expect("nginx is missing: scripts/setup installs it");
        let log = fs::File::create(folder.join("nginx.out")).unwrap();
        let mut command = Command::new(program);
        command.arg("-p").arg(folder).arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let nginx = Self { child: command.spawn().unwrap(), socket: folder.join("nginx.sock") };
        let began = Instant::now();
        while UnixStream::connect(&nginx.socket).is_err() {
            let said = || fs::read_to_string(folder.join("nginx.out")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(20), "nginx does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
        nginx
    }

    /// Sends a request, and returns status, head and body of the answer.
    fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: orders.example\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn token(issuer: &Oidc, claims: &Value) -> String {
    issuer.token("orders", None, claims.as_object().unwrap())
}

fn node(place: &Place, issuer: &Oidc) -> Node {
    let gate = format!(
        r#"
[verifier.picky]
issuer = "{}"
audience = "orders"
cooldown = "1s"
[gate.orders]
kind = "auth"
proxy = "nginx"
[[policy]]
who = "verifier:picky[permissions has 'orders:write']"
can = ["POST /orders/*"]
on = "gate:orders"
[[policy]]
who = "verifier:picky"
can = "GET /orders/**"
on = "gate:orders"
"#,
        issuer.issuer()
    );
    place.node(&place.config(&gate), "gate", &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_lets_through_whom_the_rules_allow_and_says_who_it_is() {
    let place = Place::new();
    let issuer = oidc::start(Config::default()).await.unwrap();
    let node = node(&place, &issuer);
    // A service that answers with the head of what reaches it.
    let service = Parrot::start(|head| http("200 OK", "connection: close\r\n", head)).await;
    let address = node.url().strip_prefix("http://").unwrap().to_owned();
    let nginx = Nginx::start(&place.switches("nginx"), &address, &service.addr.to_string());
    let reader = token(&issuer, &json!({ "permissions": ["orders:read"] }));
    let writer = token(&issuer, &json!({ "permissions": ["orders:read", "orders:write"], "roles": ["a", "b"] }));

    // 200, and what the client says about itself is replaced or gone.
    let forged = "x-auth-subject: root\r\nx-auth-actor: root\r\nx-auth-roles: root\r\nx-original-uri: /orders/7\r\nx-original-method: GET\r\n";
    let (status, _, seen) = nginx.ask("POST", "/orders/7?draft=1", &format!("{}{forged}", bearer(&writer)));
    assert_eq!(status, 200, "{seen}");
    let seen = seen.to_ascii_lowercase();
    for line in [
        "post /orders/7?draft=1 http/1.0",
        "x-auth-subject: ann",
        "x-auth-permissions: orders:read,orders:write",
        "x-auth-roles: a,b",
        &format!("x-auth-issuer: {}", issuer.issuer()),
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} in {seen}");
    }
    assert!(!seen.contains("root") && !seen.contains("x-auth-actor"), "{seen}");
    assert_eq!(nginx.ask("GET", "/orders/7/items", &bearer(&reader)).0, 200);

    // 401 with the challenge.
    let (status, head, _) = nginx.ask("GET", "/orders/7", "");
    assert!(status == 401 && head.lines().any(|line| line == "www-authenticate: bearer"), "{head}");
    let (status, head, _) = nginx.ask("GET", "/orders/7", &bearer("nonsense"));
    assert!(status == 401 && head.contains("www-authenticate: bearer error=\"invalid_token\""), "{head}");
    let old = token(&issuer, &json!({ "exp": 1_700_000_000 }));
    let (status, head, _) = nginx.ask("GET", "/orders/7", &bearer(&old));
    assert!(status == 401 && head.contains("the token has expired"), "{head}");

    // 403: another method, another path, and ways around them.
    let before = service.heard();
    for (method, path, headers) in [
        ("POST", "/orders/7", bearer(&reader)),
        ("DELETE", "/orders/7", bearer(&writer)),
        ("GET", "/admin", bearer(&writer)),
        ("GET", "/orders/../admin", bearer(&writer)),
        ("GET", "/orders/%2e%2e/admin", bearer(&writer)),
        ("GET", "//orders/7", bearer(&writer)),
        ("GET", "/admin", format!("{}{forged}", bearer(&writer))),
    ] {
        let (status, _, body) = nginx.ask(method, path, &headers);
        assert_eq!(status, 403, "{method} {path}: {body}");
    }
    assert_eq!(service.heard(), before, "nothing that was refused reached the service");
    // The operator finds why.
    let log = node.log_text();
    assert!(log.contains("rule 1 would if `permissions` had 'orders:write'"), "{log}");
    assert!(!log.contains(&reader) && !log.contains(&writer), "a token is in the log");

    // The issuer is away: known keys go on, and a node that is away is neither 401 nor 403.
    issuer.set_faults(Faults::always(Fault::Drop)).unwrap();
    assert_eq!(nginx.ask("GET", "/orders/8", &bearer(&token(&issuer, &json!({})))).0, 200);
    node.kill();
    assert_eq!(nginx.ask("GET", "/orders/8", &bearer(&reader)).0, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_keys_nginx_is_told_of_an_outage_and_of_no_refusal() {
    let place = Place::new();
    let issuer = oidc::start(Config { faults: Faults::always(Fault::Status { status: 500 }), ..Config::default() })
        .await
        .unwrap();
    let node = node(&place, &issuer);
    let service = Parrot::start(|head| http("200 OK", "connection: close\r\n", head)).await;
    let address = node.url().strip_prefix("http://").unwrap().to_owned();
    let nginx = Nginx::start(&place.switches("nginx"), &address, &service.addr.to_string());
    let good = token(&issuer, &json!({}));
    assert_eq!(nginx.ask("GET", "/orders/7", &bearer(&good)).0, 500);
    assert_eq!(nginx.ask("GET", "/orders/7", "").0, 401);
    issuer.set_faults(Faults::default()).unwrap();
    let began = Instant::now();
    while nginx.ask("GET", "/orders/7", &bearer(&good)).0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "the keys are not fetched again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
