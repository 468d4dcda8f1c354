//! Programs and commands whose environment names keys at a URL.

use std::time::{Duration, Instant};

use futures::future::join_all;
use keyreeve::jwt::{Kit, Refusal, VerifyError};
use keyreeve_picky::oidc::{self, Config, Fault, Faults, Oidc};
use serde_json::{Map, Value};

use crate::tokens::run;

/// A kit with the environment of somebody who believes `issuer`, and with `more` of it.
fn kit(issuer: &Oidc, more: &[(&str, &str)]) -> Kit {
    let (iss, url) = (issuer.issuer(), issuer.jwks_url());
    let kit = Kit::from_variables(|name| {
        let other = more.iter().find(|(its, _)| *its == name).map(|(_, value)| *value);
        other
            .or(match name {
                "JWT_ISS" => Some(iss.as_str()),
                "JWT_AUD" => Some("orders"),
                "JWT_JWKS_URL" => Some(url.as_str()),
                _ => None,
            })
            .map(str::to_owned)
    });
    kit.unwrap_or_else(|problems| panic!("{problems}"))
}

fn token(issuer: &Oidc, kid: Option<&str>) -> String {
    issuer.token("orders", kid, &Map::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kit_fetches_the_keys_at_its_url_once_and_goes_on_while_the_issuer_is_away() {
    let issuer = oidc::start(Config::default()).await.unwrap();
    let kit = kit(&issuer, &[]);
    assert_eq!(issuer.score().jwks_fetches, 0, "nothing is fetched before there is a token");
    let (began, good) = (Instant::now(), token(&issuer, None));
    let all = join_all((0..50).map(|_| kit.verify(&good))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(issuer.score().jwks_fetches, 1);
    issuer.set_faults(Faults::always(Fault::Status { status: 503 })).unwrap();
    for number in 0..100 {
        let stranger = kit.verify(&token(&issuer, Some(&format!("made-up-{number}")))).await;
        assert!(matches!(stranger, Err(VerifyError::Refused(Refusal::UnknownKey { .. }))), "{stranger:?}");
    }
    assert!(issuer.score().jwks_fetches <= 1 + began.elapsed().as_secs() / 30);
    assert!(kit.verify(&good).await.is_ok());
    // Another kit knows nothing of the first one's keys, and says what is wrong.
    let other = self::kit(&issuer, &[]).verify(&good).await.unwrap_err().to_string();
    assert_eq!(other, "no keys to verify with: verifier `JWT_JWKS_URL`: it answered 503");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kit_with_a_short_memory_finds_a_rotation_soon() {
    let issuer = oidc::start(Config::default()).await.unwrap();
    let kit = kit(&issuer, &[("JWT_JWKS_CACHE_TTL_SECONDS", "1")]);
    assert!(kit.verify(&token(&issuer, None)).await.is_ok());
    issuer.publish().unwrap();
    issuer.switch();
    let began = Instant::now();
    while kit.verify(&token(&issuer, None)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "the new key is not found");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_service_binding_is_nothing_outside_of_a_worker() {
    let variable = |name: &str| {
        let value = match name {
            "JWT_ISS" | "JWT_AUD" => "x",
            "JWT_JWKS_SERVICE" => "AUTH",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let problems = Kit::from_variables(variable).err().expect("it was taken");
    assert_eq!(problems.to_string(), "the service binding `AUTH` exists on Workers only: set `JWT_JWKS_URL`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_verifies_with_the_keys_at_a_url() {
    let issuer = oidc::start(Config::default()).await.unwrap();
    let (iss, url) = (issuer.issuer(), issuer.jwks_url());
    let verify = async |token: String| {
        let variables = [("JWT_ISS", iss.clone()), ("JWT_JWKS_URL_NAME", "KEYS".into()), ("KEYS", url.clone())];
        let command = move || {
            let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
            run(&["jwt", "verify", "--audience", "orders"], &variables, &token)
        };
        tokio::task::spawn_blocking(command).await.unwrap()
    };
    let (claims, err, code) = verify(token(&issuer, None)).await;
    assert_eq!((err.as_str(), code), ("", 0));
    assert_eq!(serde_json::from_str::<Value>(&claims).unwrap()["sub"], "ann");
    let (out, err, code) = verify(token(&issuer, Some("nobody"))).await;
    assert_eq!((out.as_str(), err.as_str(), code), ("", "error: refused: unknown key id `nobody`\n", 1));
    issuer.set_faults(Faults::always(Fault::Redirect)).unwrap();
    let (_, err, code) = verify(token(&issuer, None)).await;
    assert!(code == 5 && err.contains("redirects are not followed"), "{code}: {err}");
}
