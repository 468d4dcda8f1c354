//! Tokens signed and verified per CPU second of one thread: ours, Rust peers, and the raw libraries as the limit.
//!
//! Rows of one algorithm take turns, so that a ratio holds whatever the machine is doing. `bench/jwt.mjs` and `bench/pyjwt.py`
//! measure jose, fast-jwt and PyJWT on the same tokens, which this command writes for them.

use std::hint::black_box;

use futures::FutureExt as _;
use keyreeve::core::jwt::{Curve, base64url};
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Timestamp;
use keyreeve::crypto::{any_signer, check};
use keyreeve::jwt::{Algorithm, Expected, Key, KeySet, PublicKey, SigningKey, Verifier};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::jwt_peers;

const ROUNDS: usize = 7;
const ROUND_MS: f64 = 120.0;

pub const RSA: &str = include_str!("../../crates/keyreeve/tests/keyreeve/keys/rsa2048-pkcs8.pem");
pub const P256: &str = include_str!("../../crates/keyreeve/tests/keyreeve/keys/p256-pkcs8.pem");
pub const ED25519: &str = include_str!("../../crates/keyreeve/tests/keyreeve/keys/ed25519-pkcs8.pem");
pub const SECRET: &[u8; 64] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Claims as an API's access token has them; 500 to 800 bytes as a token, by algorithm.
#[derive(Clone, Serialize, Deserialize)]
pub struct Body {
    pub iss: String,
    pub aud: String,
    pub sub: String,
    pub iat: u64,
    pub nbf: u64,
    pub exp: u64,
    pub jti: String,
    pub permissions: Vec<String>,
    pub roles: Vec<String>,
    pub email: String,
    pub tid: String,
}

pub fn body() -> Body {
    let now = now_s();
    Body {
        iss: "https://gateway.example.com".into(),
        aud: "internal-api".into(),
        sub: "user-7c9e6679-7425-40de-944b-e07fc1f90ae7".into(),
        iat: now,
        nbf: now,
        exp: now + 3600,
        jti: "0b0f8a52-7b3c-4b1e-9a55-1f2f3d4c5b6a".into(),
        permissions: ["orders:read", "orders:write", "billing:read"].map(Into::into).to_vec(),
        roles: ["editor", "auditor"].map(Into::into).to_vec(),
        email: "somebody@example.com".into(),
        tid: "tenant-42".into(),
    }
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// One row: who, and what it does once.
pub struct Row {
    pub who: &'static str,
    pub act: Box<dyn FnMut()>,
}

pub fn row(who: &'static str, act: impl FnMut() + 'static) -> Row {
    Row { who, act: Box::new(act) }
}

pub fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1000.0 + time.tv_nsec as f64 / 1e6
}

/// Times per CPU second, the median of rounds in which the rows take turns.
fn measure(rows: &mut [Row]) -> Vec<f64> {
    let mut rates = vec![Vec::new(); rows.len()];
    for round in 0..=ROUNDS {
        for (row, rates) in rows.iter_mut().zip(&mut rates) {
            let (start, mut count, mut batch) = (cpu_ms(), 0_u64, 1_u64);
            let spent = loop {
                (0..batch).for_each(|_| (row.act)());
                count += batch;
                let spent = cpu_ms() - start;
                if spent >= ROUND_MS {
                    break spent;
                }
                batch = (batch * 2).min(1 + (count as f64 / spent.max(0.001)) as u64);
            };
            // The first round warms caches and branch predictors.
            if round > 0 {
                rates.push(count as f64 * 1000.0 / spent);
            }
        }
    }
    rates.into_iter().map(|mut rates| { rates.sort_by(f64::total_cmp); rates[rates.len() / 2] }).collect()
}

fn material(algorithm: Algorithm) -> (Secret<Vec<u8>>, PublicKey) {
    match algorithm {
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
            let secret = Secret::new(SECRET.to_vec());
            (secret.clone(), PublicKey::Secret(secret))
        }
        Algorithm::Es256 => (Secret::new(P256.into()), jwt_peers::p256_public(Curve::P256)),
        Algorithm::EdDsa => (Secret::new(ED25519.into()), PublicKey::Ed25519(jwt_peers::ed25519_public())),
        _ => (Secret::new(RSA.into()), jwt_peers::rsa_public()),
    }
}

pub struct Ours {
    pub signing: SigningKey,
    pub verifier: Verifier,
    pub token: String,
}

pub fn ours(algorithm: Algorithm) -> Ours {
    let (private, public) = material(algorithm);
    let signing = SigningKey::new(any_signer(algorithm, &private).unwrap(), Some("key-1"));
    let key = Key::new(Some("key-1"), algorithm, check(&public, algorithm).unwrap());
    let expected = Expected::new([body().iss], [body().aud]).unwrap();
    let token = signing.sign(&serde_json::to_string(&body()).unwrap()).now_or_never().unwrap().unwrap();
    Ours { signing, verifier: Verifier::with_keys(expected, KeySet::new(vec![key])), token }
}

/// `only` names algorithms; none of them is all of them.
pub fn run(only: &[&str]) {
    println!("tokens per CPU second of one thread, median of {ROUNDS} rounds of {ROUND_MS} ms in turn\n");
    println!("{:<8} {:<8} {:<28} {:>12} {:>10}", "", "", "", "per second", "of ours");
    let mut tokens = serde_json::Map::new();
    for algorithm in [
        Algorithm::Hs256,
        Algorithm::Hs512,
        Algorithm::Rs256,
        Algorithm::Ps256,
        Algorithm::Es256,
        Algorithm::EdDsa,
    ] {
        if !only.is_empty() && !only.contains(&algorithm.as_str()) {
            continue;
        }
        let ours = ours(algorithm);
        tokens.insert(algorithm.to_string(), ours.token.clone().into());
        let (message, signature) = ours.token.rsplit_once('.').unwrap();
        let (message, signature) = (message.as_bytes().to_vec(), base64url::decode(signature).unwrap());

        let (verifier, token) = (ours.verifier, ours.token.clone());
        let now = Timestamp(now_s() * 1000);
        let mut verify = vec![row("keyreeve", move || {
            let claims = verifier.verify_at_once(&token, now).unwrap();
            black_box(claims.claims().list("permissions").count());
        })];
        verify.extend(jwt_peers::verify(algorithm, &ours.token, &message, &signature));
        print(algorithm, "verify", &mut verify);

        let signing = ours.signing;
        let claims = body();
        let mut sign = vec![row("keyreeve", move || {
            let claims = serde_json::to_string(&claims).unwrap();
            black_box(signing.sign(&claims).now_or_never().unwrap().unwrap());
        })];
        sign.extend(jwt_peers::sign(algorithm, &message));
        print(algorithm, "sign", &mut sign);
    }
    let bytes = tokens.values().map(|token| token.as_str().unwrap().len());
    println!("tokens of {} to {} bytes", bytes.clone().min().unwrap(), bytes.max().unwrap());
    let keys = serde_json::json!({ "rsa": RSA, "p256": P256, "ed25519": ED25519, "secret": base64url::encode(SECRET) });
    let for_others = serde_json::json!({ "tokens": tokens, "claims": body(), "keys": keys });
    let place = std::env::temp_dir().join("keyreeve-bench-jwt.json");
    std::fs::write(&place, for_others.to_string()).unwrap();
    println!("the same for others: node bench/jwt.mjs {0}; python3 bench/pyjwt.py {0}", place.display());
}

fn print(algorithm: Algorithm, what: &str, rows: &mut [Row]) {
    let rates = measure(rows);
    for (row, rate) in rows.iter().zip(&rates) {
        println!("{:<8} {:<8} {:<28} {:>12.0} {:>9.2}x", algorithm.as_str(), what, row.who, rate, rates[0] / rate);
    }
}
