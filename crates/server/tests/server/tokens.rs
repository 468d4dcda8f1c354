//! `keyreeve keys` and `keyreeve jwt`, as people and scripts use them.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::node::{PROGRAM, Place};

/// Standard output, standard error and exit code of a command that reads `input`.
pub(crate) fn run(args: &[&str], variables: &[(&str, &str)], input: &str) -> (String, String, i32) {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_clear().envs(variables.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may be gone already.
    let _written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

fn said(args: &[&str]) -> String {
    let (out, err, code) = run(args, &[], "");
    assert_eq!(code, 0, "{err}");
    out
}

const WHO: [&str; 4] = ["--issuer", "https://gateway.example", "--audience", "orders"];

#[test]
fn every_kind_of_key_pair_signs_what_its_public_half_verifies() {
    let place = Place::new();
    for alg in ["EdDSA", "ES256", "ES384", "ES512", "RS256", "RS512", "PS256", "PS384"] {
        let pair = said(&["keys", "generate", "--alg", alg, "--kid", "k1"]);
        let file = place.path(alg);
        fs::write(&file, &pair).unwrap();
        let file = file.to_str().unwrap();
        let (token, err, code) = run(&[&["jwt", "sign", "--key", file], &WHO[..]].concat(), &[], r#"{"sub":"u1"}"#);
        assert_eq!((err.as_str(), code), ("", 0), "{alg}");
        let (claims, err, code) = run(&[&["jwt", "verify", "--keys", file], &WHO[..]].concat(), &[], &token);
        assert_eq!((err.as_str(), code), ("", 0), "{alg}");
        let claims: Value = serde_json::from_str(&claims).unwrap();
        assert_eq!((claims["sub"].as_str(), claims["aud"].as_str()), (Some("u1"), Some("orders")), "{alg}");
        let wrong = ["jwt", "verify", "--keys", file, "--issuer", "https://gateway.example", "--audience", "billing"];
        let (out, err, code) = run(&wrong, &[], &token);
        assert_eq!(
            (out.as_str(), err.as_str(), code),
            ("", "error: refused: audience `orders`, wanted `billing`\n", 1)
        );
    }
}

/// What people pipe: two-space JSON with these members in this order, or lines for an environment file.
#[test]
fn key_pairs_print_as_the_flarelette_kit_prints_them() {
    let pair = said(&["keys", "generate"]);
    let lines: Vec<&str> = pair.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "{",
            "  \"publicJwk\"",
            "    \"crv\"",
            "    \"x\"",
            "    \"kty\"",
            "    \"kid\"",
            "    \"alg\"",
            "    \"use\"",
            "  },",
            "  \"privateJwk\"",
            "    \"crv\"",
            "    \"d\"",
            "    \"x\"",
            "    \"kty\"",
            "    \"kid\"",
            "  }",
            "}"
        ]
    );
    let pair: Value = serde_json::from_str(&pair).unwrap();
    let kid = pair["publicJwk"]["kid"].as_str().unwrap();
    assert!(kid.strip_prefix("eddsa-").unwrap().parse::<u64>().unwrap() > 1_700_000_000_000, "{kid}");
    assert_eq!(pair["privateJwk"]["x"], pair["publicJwk"]["x"]);
    assert_ne!(said(&["keys", "generate"]), said(&["keys", "generate"]));

    let lines = said(&["keys", "generate", "--alg", "ES512", "--kid", "k", "--dotenv"]);
    let [public, private] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
    let value = |line: &str, name: &str| -> Value {
        let quoted = line.strip_prefix(name).unwrap().strip_prefix("='").unwrap().strip_suffix('\'').unwrap();
        serde_json::from_str(quoted).unwrap()
    };
    assert_eq!(value(public, "JWT_PUBLIC_JWK")["alg"], "ES512");
    assert!(value(private, "JWT_PRIVATE_JWK")["d"].is_string());

    let secret = said(&["keys", "secret"]);
    assert_eq!(secret.trim().len(), 86, "64 bytes as base64url");
    assert!(said(&["keys", "secret", "--len", "96", "--dotenv"]).starts_with("JWT_SECRET="));
    assert!(said(&["keys", "secret", "--json"]).starts_with("{\"secret\":\""));
    let (_, err, code) = run(&["keys", "generate", "--alg", "HS512"], &[], "");
    assert!(code == 2 && err.contains("`keyreeve keys secret` makes one"), "{err}");
    let (_, err, code) = run(&["keys", "generate", "--alg", "RS1"], &[], "");
    assert!(code == 2 && err.starts_with("error: `RS1` is no algorithm with key pairs\nhint: one of RS256, "), "{err}");
}

#[test]
fn the_environment_signs_and_verifies_and_decoding_warns() {
    let secret = said(&["keys", "secret"]);
    let variables = [
        ("JWT_ISS", "https://gateway.example"),
        ("JWT_AUD", "orders"),
        ("JWT_SECRET_NAME", "ORDERS"),
        ("ORDERS", secret.trim()),
    ];
    let (token, _, code) = run(&["jwt", "sign", "--ttl", "60"], &variables, r#"{"sub":"u1","permissions":["a"]}"#);
    assert_eq!(code, 0);
    let (claims, _, code) = run(&["jwt", "verify"], &variables, &token);
    let claims: Value = serde_json::from_str(&claims).unwrap();
    assert_eq!((code, claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap()), (0, 60));

    let (out, err, code) = run(&["jwt", "decode"], &[], &token);
    assert_eq!((code, err.as_str()), (0, "warning: nothing was verified: anybody can write such a token\n"));
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((out["header"]["alg"].as_str(), out["claims"]["sub"].as_str()), (Some("HS512"), Some("u1")));

    let (_, err, code) = run(&["jwt", "verify"], &variables, &token.replacen("eyJ", "eyK", 1));
    assert!(code == 1 && err.starts_with("error: refused: the header is not good JSON: "), "{err}");
    let (_, err, code) = run(&["jwt", "verify"], &[], &token);
    assert!(code == 2 && err.starts_with("error: `JWT_ISS` is not set: "), "{err}");
    let (_, err, code) = run(&["jwt", "sign"], &variables, "[]");
    assert_eq!((code, err.as_str()), (2, "error: claims must be a JSON object: found a list\n"));
}
