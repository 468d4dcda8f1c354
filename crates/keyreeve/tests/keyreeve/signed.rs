//! The two sources that sign here: `apns` and `jwt`.

use std::sync::Arc;

use keyreeve::config::Algorithm;
use keyreeve::core::lifecycle::Order;
use keyreeve::core::time::Timestamp;
use keyreeve::crypto::{Signer, signer};
use keyreeve::source::apns::Apns;
use keyreeve::source::jwt::Jwt;
use keyreeve::source::{Fields, Minting, Nature, Source};
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::DecodePublicKey as _;

use crate::support::{P256, json, order, secret, taken_apart};

fn es256() -> Arc<dyn Signer> {
    signer(Algorithm::Es256, &secret(P256)).unwrap()
}

fn apns() -> Apns {
    Apns::new(&secret(P256), "DEF123GHIJ", "ABC123DEFG").unwrap()
}

fn token(minting: &Minting) -> String {
    match &minting.material.secret {
        Fields::Token(token) => token.expose().clone(),
        Fields::Named(_) => panic!("not a token"),
    }
}

async fn minted(source: &dyn Source, order: &Order) -> String {
    token(&source.mint(order, "apns-prod/9").await.unwrap())
}

fn jwt(claims: &str) -> Result<Jwt, String> {
    Jwt::new(es256(), &json(r#"{"kid":"K1","typ":"JWT"}"#), &json(claims))
}

fn error(result: Result<impl Source, String>) -> String {
    match result {
        Ok(_) => panic!("the settings were taken"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_provider_token_is_what_apple_asks_for() {
    let minting = apns().mint(&order(), "any").await.unwrap();
    let (header, claims, input, signature) = taken_apart(&token(&minting));
    assert_eq!(header, r#"{"alg":"ES256","kid":"ABC123DEFG"}"#);
    assert_eq!(claims, r#"{"iss":"DEF123GHIJ","iat":1795262340}"#);
    assert_eq!(minting.expires_at, order().expires_at);
    let key = p256::ecdsa::VerifyingKey::from_public_key_pem(include_str!("keys/p256-public.pem")).unwrap();
    key.verify(&input, &p256::ecdsa::Signature::from_slice(&signature).unwrap()).unwrap();
}

#[tokio::test]
async fn two_nodes_make_the_same_provider_token_and_another_one_in_the_next_second() {
    let (one, other) = (apns(), apns());
    assert_eq!(one.nature(), Nature::Deterministic);
    let first = minted(&one, &order()).await;
    assert_eq!(first, minted(&other, &order()).await);
    let same_second = Order { issued_at: order().issued_at.plus(200), ..order() };
    assert_eq!(first, minted(&other, &same_second).await);
    let next_second = Order { issued_at: order().issued_at.plus(211), ..order() };
    assert_ne!(first, minted(&other, &next_second).await);
}

#[test]
fn identifiers_that_apple_does_not_give_out_are_refused() {
    let make = |team: &str, key: &str| error(Apns::new(&secret(P256), team, key));
    assert_eq!(make("DEF123", "ABC123DEFG"), "`team_id` must be 10 characters of A-Z and 0-9, not `DEF123`");
    assert_eq!(make("DEF123GHIJ", "abc123defg"), "`key_id` must be 10 characters of A-Z and 0-9, not `abc123defg`");
    let key = secret(include_str!("keys/rsa2048-pkcs8.pem"));
    assert_eq!(
        error(Apns::new(&key, "DEF123GHIJ", "ABC123DEFG")),
        "`key`: expected a P-256 private key in PEM (PKCS#8 `.p8`, SEC1) or JWK, found an RSA key in PKCS#8 PEM"
    );
}

#[tokio::test]
async fn claims_are_filled_in_the_order_they_were_written() {
    let source = jwt(
        r#"{"iss":"me","iat":"{iat}","exp":"{exp}","jti":"{jti}","n":["{generation}",{"t":"g{generation} of {iat}"}],"x":true,"j":"{not a placeholder}"}"#,
    )
    .unwrap();
    let minting = source.mint(&order(), "apns-prod/9").await.unwrap();
    let (header, claims, ..) = taken_apart(&token(&minting));
    assert_eq!(header, r#"{"alg":"ES256","kid":"K1","typ":"JWT"}"#);
    assert_eq!(
        claims,
        r#"{"iss":"me","iat":1795262340,"exp":1795265640,"jti":"JTI","n":[7,{"t":"g7 of 1795262340"}],"x":true,"j":"{not a placeholder}"}"#
            .replace("JTI", &jti("apns-prod/9"))
    );
    assert_eq!(minting.expires_at, Timestamp(1_795_265_640_000), "what the token says, not a fraction later");
}

fn jti(key: &str) -> String {
    use keyreeve::core::crypto::Crypto as _;
    let hash = keyreeve::crypto::LocalCrypto.sha256(&[key.as_bytes()]);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_repeated_mint_has_the_same_token_id_on_every_node_and_another_mint_has_not() {
    let (one, other) = (jwt(r#"{"jti":"{jti}"}"#).unwrap(), jwt(r#"{"jti":"{jti}"}"#).unwrap());
    assert_eq!(one.nature(), Nature::Deterministic);
    let of = async |source: &Jwt, key: &str| token(&source.mint(&order(), key).await.unwrap());
    assert_eq!(of(&one, "a/1").await, of(&other, "a/1").await);
    assert_ne!(of(&one, "a/1").await, of(&other, "a/2").await);
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    assert_eq!(
        error(jwt(r#"{"exp":1795265640}"#)),
        "`claims.exp` must be \"{exp}\": a fixed time is wrong after a while"
    );
    assert!(error(jwt(r#"{"iat":"{exp}"}"#)).starts_with("`claims.iat` must be \"{iat}\""));
    assert_eq!(
        error(jwt(r#"{"a":{"b":["{expp}"]}}"#)),
        "`claims.a.b`: no such placeholder: `{expp}`\nhint: there are `{iat}`, `{exp}`, `{generation}`, `{jti}`"
    );
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(18), "]".repeat(18));
    assert_eq!(error(jwt(&deep)), "`claims.a` is nested deeper than 16 levels");
    let with = |header: &str| Jwt::new(es256(), &json(header), &json("{}"));
    assert_eq!(error(with(r#"{"alg":"none"}"#)), "`header.alg` must be `ES256`, as `algorithm` says");
    assert_eq!(error(with(r#"{"crit":["b64"]}"#)), "`header.crit` is not supported");
    assert_eq!(error(with(r#"{"b64":false}"#)), "`header.b64` is not supported");
    assert!(with(r#"{"alg":"ES256"}"#).is_ok());
}
