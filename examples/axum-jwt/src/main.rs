//! A service that signs tokens (`POST /token/{user}`) and one that asks for them (`GET /orders`), in one program: which of
//! the two it can be is in its environment.
//!
//! ```text
//! # Both with one secret (HS512); the secret is in the variable that JWT_SECRET_NAME names.
//! JWT_ISS=https://gateway.example JWT_AUD=orders JWT_SECRET_NAME=ORDERS_SECRET ORDERS_SECRET=$(keyreeve keys secret) axum-jwt
//! # With a key pair (EdDSA): the producer has the private half, the consumer the public one.
//! keyreeve keys generate --alg EdDSA > pair.json
//! JWT_ISS=https://gateway.example JWT_AUD=orders JWT_PRIVATE_JWK_PATH=pair.json axum-jwt
//! JWT_ISS=https://gateway.example JWT_AUD=orders JWT_PUBLIC_JWK="$(jq .publicJwk pair.json)" axum-jwt
//! ```

use std::io::Write as _;
use std::process::ExitCode;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, serve};
use keyreeve::jwt::{Bearer, Kit, RequireToken};
use serde_json::json;

#[tokio::main]
async fn main() -> ExitCode {
    let kit = match Kit::from_environment() {
        Ok(kit) => kit,
        Err(problems) => {
            tell(&format!("error: {problems}"));
            return ExitCode::from(2);
        }
    };
    let bind = std::env::var("BIND").unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let Ok(listener) = tokio::net::TcpListener::bind(&bind).await else {
        tell(&format!("error: cannot listen on `{bind}`"));
        return ExitCode::FAILURE;
    };
    if let Ok(address) = listener.local_addr() {
        tell(&format!("listening on {address}"));
    }
    if serve(listener, app(kit)).await.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn app(kit: Kit) -> Router {
    let asks = RequireToken::new(kit.clone())
        .admitting(|caller| caller.claims().list("permissions").any(|p| p == "orders:read"));
    Router::new().route("/orders", get(orders).layer(asks)).route("/token/{user}", post(token)).with_state(kit)
}

async fn orders(Bearer(caller): Bearer) -> String {
    format!("orders of {}", caller.claims().subject().unwrap_or("nobody"))
}

/// Real services ask for a password first.
async fn token(State(kit): State<Kit>, Path(user): Path<String>) -> Result<String, (StatusCode, String)> {
    let permissions = if user == "guest" { vec![] } else { vec!["orders:read"] };
    let claims = json!({ "sub": user, "permissions": permissions });
    kit.sign(&claims).await.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn tell(text: &str) {
    let _told = writeln!(std::io::stderr(), "{text}");
}
