//! A Worker that uses a credential of keyreeve's over a service binding:
//! `services = [{ binding = "KEYREEVE", service = "keyreeve" }]`.

use serde::Deserialize;
use worker::{Context, Env, Headers, Request, RequestInit, Response, Result, event};

#[derive(Deserialize)]
struct Credential {
    token: String,
    expires_at: String,
}

#[event(fetch)]
async fn fetch(_request: Request, env: Env, _context: Context) -> Result<Response> {
    let headers = Headers::new();
    headers.set("authorization", &format!("Bearer {}", env.secret("KEYREEVE_KEY")?))?;
    let init = RequestInit { headers, ..RequestInit::default() };
    // The host is not looked up: the binding says where it goes.
    let url = "https://keyreeve/v1/credentials/up/token?min_ttl=1m";
    let mut answer = Response::try_from(env.service("KEYREEVE")?.fetch(url, Some(init)).await?)?;
    if answer.status_code() != 200 {
        return Response::error("no credential", 503);
    }
    let Credential { token, expires_at } = answer.json().await?;
    // ... here it would call the upstream with `token`; this one shows that it has it.
    Response::ok(format!("{} until {expires_at}", token.chars().take(12).collect::<String>()))
}
