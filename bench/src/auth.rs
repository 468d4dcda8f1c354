//! A gate of a real keyreeve process beside a bare hyper "hello" process, by CPU time per request; and what it costs to find
//! a token that was verified before.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures::FutureExt as _;
use keyreeve::core::jwt::KeySet;
use keyreeve::core::policy::{Policy, Source};
use keyreeve::core::secret::Secret;
use keyreeve::core::time::{Mono, Moment, Timestamp};
use keyreeve::crypto::{any_signer, check};
use keyreeve::inbound::{Inbound, Trusted};
use keyreeve::jwt::{Algorithm, Expected, Key, PublicKey, SigningKey, Verifier};
use tokio::runtime::Runtime;

use crate::http::{Server, beside_hello, hello_server, start};
use crate::jwt::{SECRET, body, cpu_ms};

pub fn run(runtime: &Runtime, binary: &Path) {
    remembered();
    let folder = std::env::temp_dir().join(format!("keyreeve-bench-auth-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(binary);
    command.args(["picky", "oidc"]);
    let (child, issuer) = start(command);
    let issuer = Server { child, address: issuer, request: Vec::new() };
    let config = folder.join("keyreeve.toml");
    std::fs::write(&config, config_of(&issuer.address)).unwrap();
    let mut command = Command::new(binary);
    command.args(["serve", "-c"]).arg(&config);
    let (child, address) = start(command);
    let token = token_of(&issuer.address);
    let request = format!(
        "GET /auth/orders HTTP/1.1\r\nhost: {address}\r\nx-original-method: POST\r\nx-original-uri: /orders/7?draft=1\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let gate = Server { child, address, request: request.into_bytes() };
    let hello = hello_server();
    println!("\na token of {} bytes", token.len());
    beside_hello(runtime, ("keyreeve GET /auth", &gate), &hello);
    drop((gate, hello, issuer));
    let _ = std::fs::remove_dir_all(folder);
}

fn config_of(issuer: &str) -> String {
    format!(
        r#"
store.url = "memory:"
[[listener]]
bind = "127.0.0.1:0"
[verifier.picky]
issuer = "http://{issuer}"
audience = "internal-api"
[gate.orders]
kind = "auth"
proxy = "nginx"
[[policy]]
who = "verifier:picky[permissions has 'orders:write']"
can = ["POST /orders/*"]
on = "gate:orders"
"#
    )
}

/// A token of the picky issuer with the claims of the other benchmark.
fn token_of(issuer: &str) -> String {
    let body = body();
    let asked = serde_json::json!({
        "aud": body.aud, "sub": body.sub, "ttl_s": 3600,
        "claims": { "jti": body.jti, "permissions": body.permissions, "roles": body.roles, "email": body.email, "tid": body.tid },
    });
    let asked = asked.to_string();
    let mut stream = std::net::TcpStream::connect(issuer).unwrap();
    let request = format!(
        "POST /token HTTP/1.1\r\nhost: {issuer}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{asked}",
        asked.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let answer: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    answer["token"].as_str().unwrap().to_owned()
}

/// Finds 1,024 verified tokens again and again, on one thread.
fn remembered() {
    let secret = Secret::new(SECRET.to_vec());
    let key = Key::new(Some("h"), Algorithm::Hs256, check(&PublicKey::Secret(secret.clone()), Algorithm::Hs256).unwrap());
    let claims = body();
    let expected = Expected::new([claims.iss.clone()], [claims.aud.clone()]).unwrap();
    let verifier = Verifier::with_keys(expected, KeySet::new(vec![key]));
    let trusted = Trusted { source: Source::Verifier("bench".into()), verifier, revoked: None };
    let inbound = Inbound::new(vec![trusted], &BTreeMap::new(), Policy::default(), [7; 32]);
    let signing = SigningKey::new(any_signer(Algorithm::Hs256, &secret).unwrap(), Some("h"));
    let now = Moment::new(Timestamp(claims.iat * 1000), Mono(0));
    let tokens: Vec<String> = (0..1024)
        .map(|number| {
            let claims = crate::jwt::Body { jti: format!("{number:08}-7b3c-4b1e-9a55-1f2f3d4c5b6a"), ..claims.clone() };
            let token = signing.sign(&serde_json::to_string(&claims).unwrap()).now_or_never().unwrap().unwrap();
            assert!(inbound.accept(&token, now).now_or_never().unwrap().is_ok());
            token
        })
        .collect();
    let mut best = Vec::new();
    for _ in 0..7 {
        let began = cpu_ms();
        let mut count = 0_u64;
        while cpu_ms() - began < 200.0 {
            for token in &tokens {
                let found: Option<Arc<_>> = inbound.seen(black_box(token), now);
                assert!(found.is_some());
            }
            count += tokens.len() as u64;
        }
        best.push(count as f64 / (cpu_ms() - began) * 1000.0);
    }
    best.sort_by(f64::total_cmp);
    println!("a verified token of {} bytes found again: {:.0} per CPU second (median of 7)", tokens[0].len(), best[3]);
}
