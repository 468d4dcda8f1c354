//! The Flarelette kit's quick start, its environment unchanged, in an axum service that runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// 64 bytes.
const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZg";
/// The example of RFC 8037, as `keyreeve keys generate` prints a pair.
const PAIR: &str = r#"{
  "publicJwk": { "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kty": "OKP", "kid": "k1", "alg": "EdDSA", "use": "sig" },
  "privateJwk": { "crv": "Ed25519", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kty": "OKP", "kid": "k1" }
}"#;
const PUBLIC: &str = r#"{"crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kty":"OKP","kid":"k1","alg":"EdDSA","use":"sig"}"#;

struct Service {
    child: Child,
    address: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_axum-jwt"));
    command.env_clear().env("JWT_ISS", "https://gateway.example").env("JWT_AUD", "orders");
    command.envs(variables.iter().copied()).stderr(Stdio::piped());
    command
}

impl Service {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut child = command(variables).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, address }
    }

    /// The status, the head and the body of an answer.
    fn ask(&self, request: &str, token: Option<&str>) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n{token}\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    fn token(&self, user: &str) -> String {
        let (status, _, token) = self.ask(&format!("POST /token/{user}"), None);
        assert_eq!(status, 200, "{token}");
        token
    }
}

fn check(producer: &Service, consumer: &Service) {
    let token = producer.token("u1");
    assert_eq!(consumer.ask("GET /orders", Some(&token)).2, "orders of u1");
    let (status, head, body) = consumer.ask("GET /orders", None);
    assert!(status == 401 && head.contains("www-authenticate: bearer\r\n"), "{head}");
    assert_eq!(body, r#"{"code":"unauthenticated","detail":"a bearer token is needed","status":401}"#);
    let (status, head, body) = consumer.ask("GET /orders", Some(&token.replacen("eyJ", "eyK", 1)));
    assert!(
        status == 401 && head.contains("bearer error=\"invalid_token\", error_description=\"the token is not valid\""),
        "{head}"
    );
    assert_eq!(body, r#"{"code":"unauthenticated","detail":"the token is not valid","status":401}"#);
    let (status, head, _) = consumer.ask("GET /orders", Some(&producer.token("guest")));
    assert!(status == 403 && head.contains("bearer error=\"insufficient_scope\""), "{head}");
}

/// What a service says that does not start.
fn refused(variables: &[(&str, &str)]) -> String {
    let output = command(variables).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn hs512_with_the_secret_under_another_name() {
    let both = Service::start(&[("JWT_SECRET_NAME", "ORDERS_SECRET"), ("ORDERS_SECRET", SECRET)]);
    check(&both, &both);
    let direct = Service::start(&[("JWT_SECRET", SECRET)]);
    check(&both, &direct);
}

#[test]
fn eddsa_with_the_private_half_here_and_the_public_half_there() {
    let producer = Service::start(&[("JWT_PRIVATE_JWK", PAIR)]);
    let consumer = Service::start(&[("JWT_PUBLIC_JWK", PUBLIC)]);
    check(&producer, &consumer);
    // The whole pair serves too, since that is what people pipe; a consumer cannot sign.
    let consumer = Service::start(&[("JWT_PUBLIC_JWK_NAME", "PAIR"), ("PAIR", PAIR)]);
    check(&producer, &consumer);
    let (status, _, body) = consumer.ask("POST /token/u1", None);
    assert_eq!(
        (status, body.as_str()),
        (500, "this kit has no key to sign with: set `JWT_PRIVATE_JWK` or `JWT_SECRET`")
    );
    // A key for the one is no key for the other.
    let secret = Service::start(&[("JWT_SECRET", SECRET)]);
    assert_eq!(secret.ask("GET /orders", Some(&producer.token("u1"))).0, 401);
    assert_eq!(consumer.ask("GET /orders", Some(&secret.token("u1"))).0, 401);
}

#[test]
fn a_secret_and_a_public_key_together_are_a_mistake() {
    assert_eq!(
        refused(&[("JWT_SECRET", SECRET), ("JWT_PUBLIC_JWK", PUBLIC)]),
        "error: a shared secret and a public key are both configured (`JWT_SECRET` and `JWT_PUBLIC_JWK`): tokens of either kind \
         would be accepted, and a forger could choose; keep one of them\n"
    );
    let text = refused(&[("JWT_SECRET_NAME", "NOWHERE"), ("JWT_LEEWAY", "90s")]);
    assert_eq!(
        text,
        "error: `JWT_LEEWAY` must be whole seconds from 0 to 300, without a unit, not `90s`\n\
         `JWT_SECRET_NAME` says that the value is in `NOWHERE`, and `NOWHERE` is not set\n"
    );
}
