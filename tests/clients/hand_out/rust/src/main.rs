//! What the AWS SDK for Rust makes of the credentials that its environment points to: one JSON object.

use std::time::Instant;

use aws_config::BehaviorVersion;
use aws_credential_types::provider::ProvideCredentials as _;
use serde_json::{Value, json};

async fn asked(times: usize) -> Result<Value, Box<dyn std::error::Error>> {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).region("eu-central-1").load().await;
    let provider = config.credentials_provider().ok_or("there is no provider")?;
    let mut said = Value::Null;
    for _ in 0..times {
        let found = provider.provide_credentials().await?;
        said = json!({
            "key": found.access_key_id(),
            "secret": found.secret_access_key(),
            "token": found.session_token(),
        });
    }
    Ok(said)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let times = std::env::args().nth(1).and_then(|times| times.parse().ok()).unwrap_or(1);
    let started = Instant::now();
    let mut said = match asked(times).await {
        Ok(said) => said,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            json!({ "error": text })
        }
    };
    said["seconds"] = started.elapsed().as_secs_f64().into();
    println!("{said}");
}
