//! `keyreeve keys generate|secret` and `keyreeve jwt`: keys and tokens without a node.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use keyreeve::core::json::{Json, Node};
use keyreeve::core::time::Timestamp;
use keyreeve::jwt::{Algorithm, Kit, Platform, SignOptions, Unverified, VerifyError, generate};
use serde_json::Value;

use crate::cli::{JwtCommand, JwtWho, NewKeysCommand};
use crate::exit::{Code, Failure, say, tell};

/// The most that is read from standard input, in bytes.
const INPUT_BYTES_MAX: u64 = 64 * 1024;
/// The largest file with keys, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Makes keys.
pub(crate) fn keys(command: NewKeysCommand) -> Result<(), Failure> {
    let mut chance = Ok(());
    let mut fill = |bytes: &mut [u8]| {
        if let Err(error) = getrandom::fill(bytes) {
            chance = Err(Failure::new(Code::Unavailable, format!("the system gives no random bytes: {error}")));
        }
    };
    let lines = match command {
        NewKeysCommand::Generate { alg, kid, dotenv } => {
            let algorithm = Algorithm::named(&alg).ok_or_else(|| unknown(&alg))?;
            let kid = kid.unwrap_or_else(|| generate::usual_id(algorithm, now().0));
            let pair = generate::generate(algorithm, &kid, &mut fill)
                .map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
            let private: Value = serde_json::from_str(pair.private.expose()).unwrap_or_default();
            if dotenv {
                format!("JWT_PUBLIC_JWK='{}'\nJWT_PRIVATE_JWK='{private}'", Value::Object(pair.public))
            } else {
                let both = serde_json::json!({ "publicJwk": pair.public, "privateJwk": private });
                serde_json::to_string_pretty(&both).unwrap_or_default()
            }
        }
        NewKeysCommand::Secret { len, dotenv, json } => {
            let secret = generate::secret(usize::from(len), &mut fill);
            match (dotenv, json) {
                (true, _) => format!("JWT_SECRET={}", secret.expose()),
                (_, true) => serde_json::json!({ "secret": secret.expose() }).to_string(),
                _ => secret.expose().clone(),
            }
        }
    };
    chance?;
    say(&lines);
    Ok(())
}

fn unknown(alg: &str) -> Failure {
    let all: Vec<&str> = Algorithm::ALL.iter().filter(|a| !a.is_symmetric()).map(|a| a.as_str()).collect();
    Failure::new(Code::Usage, format!("`{alg}` is no algorithm with key pairs"))
        .hint(&format!("one of {}", all.join(", ")))
}

/// Signs, verifies or decodes.
pub(crate) async fn run(command: JwtCommand) -> Result<(), Failure> {
    match command {
        JwtCommand::Sign { key, ttl, who } => {
            let kit = kit(&who, "JWT_PRIVATE_JWK", key.as_deref())?;
            let claims = serde_json::from_str::<Value>(&input()?)
                .map_err(|error| Failure::new(Code::Usage, format!("standard input is not JSON: {error}")))?;
            let options = SignOptions { ttl_s: ttl, ..SignOptions::default() };
            let token = kit.sign_with(&claims, &options).await;
            say(&token.map_err(|error| Failure::new(Code::Usage, error.to_string()))?);
        }
        JwtCommand::Verify { keys, who } => {
            let kit = kit(&who, "JWT_PUBLIC_JWK", keys.as_deref())?;
            match kit.verify(input()?.trim()).await {
                Ok(verified) => say(&pretty(verified.claims().json())),
                Err(error @ VerifyError::Unavailable(_)) => {
                    return Err(Failure::new(Code::Unavailable, error.to_string()));
                }
                Err(error) => return Err(Failure::new(Code::CheckFailed, format!("refused: {error}"))),
            }
        }
        JwtCommand::Decode => decode(input()?.trim())?,
    }
    Ok(())
}

fn decode(token: &str) -> Result<(), Failure> {
    let refused = |refusal: keyreeve::jwt::Refusal| Failure::new(Code::CheckFailed, refusal.to_string());
    let parsed = Unverified::parse(token).map_err(refused)?;
    let (header, claims) = (parsed.header_json().map_err(refused)?, parsed.unverified_claims().map_err(refused)?);
    say(&format!("{{\n  \"header\": {},\n  \"claims\": {}\n}}", indented(&header), indented(&claims)));
    tell("warning: nothing was verified: anybody can write such a token");
    if let Some(ends_s) = claims.root().member("exp").and_then(Node::whole) {
        let now_s = now().seconds();
        if ends_s <= now_s {
            tell(&format!("note: it says that it ended {}s ago", now_s - ends_s));
        }
    }
    Ok(())
}

fn pretty(json: &Json) -> String {
    let value = serde_json::from_str::<Value>(json.text()).unwrap_or_default();
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

fn indented(json: &Json) -> String {
    pretty(json).replace('\n', "\n  ")
}

/// A kit from the environment, with what was given on the command line in front.
fn kit(who: &JwtWho, key_variable: &str, key: Option<&Path>) -> Result<Kit, Failure> {
    let key = key.map(read).transpose()?;
    let variable = |name: &str| {
        let given = match name {
            "JWT_ISS" => who.issuer.clone(),
            "JWT_AUD" => who.audience.clone(),
            name if name == key_variable => key.clone(),
            // Whoever gives a key means that key, and no other one of the environment.
            name if key.is_some() && name.starts_with("JWT_") && is_a_key(name) => return None,
            _ => None,
        };
        given.or_else(|| std::env::var(name).ok())
    };
    let platform = Platform {
        variable: &variable,
        file: &|path| read(Path::new(path)).map_err(|failure| failure.message),
        remote: &keyreeve::system::keys,
        signer: keyreeve::crypto::any_signer,
        check: keyreeve::crypto::check,
    };
    Kit::from_platform(&platform, Arc::new(now)).map_err(|problems| Failure::new(Code::Usage, problems.to_string()))
}

fn is_a_key(variable: &str) -> bool {
    ["SECRET", "JWK", "JWKS"].iter().any(|part| variable.contains(part))
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |cause: String| Failure::new(Code::Usage, format!("cannot read `{}`: {cause}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    Ok(text)
}

fn input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::new(Code::Usage, format!("standard input is not text: {error}")))?;
    Ok(text)
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
