//! `keyreeve keys ls|rotate|retire|jwks`: the keys of issuers on a running node.

use std::time::Duration;

use keyreeve::core::id::IssuerName;
use serde_json::{Value, json};

use super::ask::Node;
use super::show::{self, text};
use crate::cli::{IssuerKeysCommand, NodeArgs};
use crate::exit::{Code, Failure, say, tell};

const COLUMNS: [(&str, &str); 5] =
    [("kid", "KEY"), ("alg", "ALG"), ("phase", "PHASE"), ("use_from", "SIGNS FROM"), ("leaves_at", "LEAVES")];

/// Runs one command.
pub(crate) async fn run(command: IssuerKeysCommand) -> Result<(), Failure> {
    match command {
        IssuerKeysCommand::Ls { issuer, node: args } => {
            let node = node(&args)?;
            let answer = match issuer {
                Some(issuer) => json!({ "issuers": [node.get(&path(&issuer, "")?).await?] }),
                None => node.get("/v1/issuers").await?,
            };
            print(&answer, args.json);
        }
        IssuerKeysCommand::Rotate { issuer, node: args } => {
            let answer = node(&args)?.post(&path(&issuer, "/rotate")?, None).await?;
            print(&json!({ "issuers": [answer] }), args.json);
            tell("the next key is published; it signs by itself when every verifier can know it");
        }
        IssuerKeysCommand::Retire { issuer, kid, node: args } => {
            let answer = node(&args)?.post(&path(&issuer, "/retire")?, Some(json!({ "kid": kid }))).await?;
            let bound_ms = answer.get("bound_ms").and_then(Value::as_u64).unwrap_or_default();
            print(&json!({ "issuers": [answer] }), args.json);
            let bound = keyreeve::core::time::Span(bound_ms);
            tell(&format!("`{kid}` is gone; nodes that can read the register refuse its tokens within {bound}"));
        }
        IssuerKeysCommand::Jwks { issuer, node: args } => {
            let answer = node(&args)?.get(&format!("/issuer/{}/.well-known/jwks.json", name(&issuer)?)).await?;
            let pretty = serde_json::to_string_pretty(&answer);
            say(&pretty.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?);
        }
    }
    Ok(())
}

fn node(args: &NodeArgs) -> Result<Node, Failure> {
    Node::new(&args.url, args.api_key_file.as_deref(), Duration::from_secs(args.timeout))
}

fn print(answer: &Value, is_json: bool) {
    if is_json {
        return say(&answer.to_string());
    }
    let mut rows = vec![std::iter::once("ISSUER").chain(COLUMNS.map(|(_, title)| title)).map(str::to_owned).collect()];
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    for issuer in list(answer, "issuers") {
        for key in list(&issuer, "keys") {
            let name = text(issuer.get("name"));
            rows.push(std::iter::once(name).chain(COLUMNS.map(|(field, _)| text(key.get(field)))).collect());
        }
        if let Some(fault) = issuer.get("fault").and_then(Value::as_str) {
            tell(&format!("warning: issuer `{}` is not read: {fault}", text(issuer.get("name"))));
        }
    }
    say(show::table(&rows).trim_end());
}

fn name(issuer: &str) -> Result<IssuerName, Failure> {
    IssuerName::parse(issuer)
        .map_err(|error| Failure::new(Code::Usage, format!("`{issuer}` is no name of an issuer: {error}")))
}

fn path(issuer: &str, rest: &str) -> Result<String, Failure> {
    Ok(format!("/v1/issuers/{}{rest}", name(issuer)?))
}
