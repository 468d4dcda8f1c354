//! `keyreeve credential`: data on standard output, everything else on standard error.

use std::time::Duration;

use keyreeve::core::id::CredentialName;
use serde_json::{Value, json};

use super::ask::Node;
use super::{form, show};
use crate::cli::{AwsProcessArgs, CredentialArgs, CredentialCommand, GetForm};
use crate::exit::{Code, Failure, say};

/// The most pages of a list that are read.
const PAGES_MAX: usize = 1000;

/// Runs one command.
pub(crate) async fn run(args: CredentialArgs) -> Result<(), Failure> {
    let node = Node::new(&args.url, args.api_key_file.as_deref(), Duration::from_secs(args.timeout))?;
    let is_json = args.json;
    match args.command {
        CredentialCommand::Ls => ls(&node, is_json).await,
        CredentialCommand::Show { name } => {
            let answer = node.get(&path(&name, "")?).await?;
            print(&answer, is_json, show::credential);
            Ok(())
        }
        CredentialCommand::Get { name, output, min_ttl } => {
            let form = output.unwrap_or(if is_json { GetForm::Json } else { GetForm::Raw });
            let query = min_ttl.map_or_else(String::new, |seconds| format!("?min_ttl={seconds}s"));
            let answer = node.get(&path(&name, &format!("/token{query}"))?).await?;
            say(&form::write(form, &name, &answer)?);
            Ok(())
        }
        CredentialCommand::Renew { name } => {
            let answer = node.post(&path(&name, "/renew")?, None).await?;
            print(&answer, is_json, show::result);
            Ok(())
        }
        CredentialCommand::Resolve { name, decision } => {
            let body = json!({ "decision": decision.as_str() });
            let answer = node.post(&path(&name, "/resolve")?, Some(body)).await?;
            print(&answer, is_json, show::result);
            Ok(())
        }
        CredentialCommand::History { name } => {
            let answer = node.get(&path(&name, "/history")?).await?;
            print(&answer, is_json, show::history);
            Ok(())
        }
        CredentialCommand::Report { name, generation, upstream_status, reason } => {
            let mut body = json!({ "generation": generation, "upstream_status": upstream_status });
            if let (Some(reason), Some(members)) = (reason, body.as_object_mut()) {
                members.insert("reason".into(), reason.into());
            }
            let answer = node.post(&path(&name, "/report")?, Some(body)).await?;
            print(&answer, is_json, show::result);
            Ok(())
        }
    }
}

/// `keyreeve aws-credential-process NAME`: what AWS SDKs run by `credential_process`.
pub(crate) async fn run_aws_process(args: AwsProcessArgs) -> Result<(), Failure> {
    let node = Node::new(&args.node.url, args.node.api_key_file.as_deref(), Duration::from_secs(args.node.timeout))?;
    let answer = node.get(&token_path(&args.name)?).await?;
    say(&form::write(GetForm::Aws, &args.name, &answer)?);
    Ok(())
}

/// Where a credential's secret is.
pub(crate) fn token_path(name: &str) -> Result<String, Failure> {
    path(name, "/token")
}

async fn ls(node: &Node, is_json: bool) -> Result<(), Failure> {
    let mut all = Vec::new();
    let mut path = "/v1/credentials".to_owned();
    for _ in 0..PAGES_MAX {
        let mut page = node.get(&path).await?;
        if let Some(credentials) = page.get_mut("credentials").and_then(Value::as_array_mut) {
            all.append(credentials);
        }
        match page.get("next_after").and_then(Value::as_str) {
            Some(after) => path = format!("/v1/credentials?after={}", escaped(after)),
            None => break,
        }
    }
    print(&json!({ "credentials": all }), is_json, show::list);
    Ok(())
}

fn print(answer: &Value, is_json: bool, show: fn(&Value) -> String) {
    if is_json {
        say(&answer.to_string());
    } else {
        say(show(answer).trim_end());
    }
}

/// The path of something about a credential.
fn path(name: &str, rest: &str) -> Result<String, Failure> {
    let name = CredentialName::parse(name)
        .map_err(|error| Failure::new(Code::Usage, format!("`{name}` is no name of a credential: {error}")))?;
    Ok(format!("/v1/credentials/{}{rest}", escaped(name.as_str())))
}

/// A name in a URL: the tenant's separator is the only character of a name that means something there.
fn escaped(name: &str) -> String {
    name.replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_before_it_becomes_a_path() {
        assert_eq!(path("a/b", "/token").unwrap(), "/v1/credentials/a%2Fb/token");
        assert_eq!(path("../etc", "").unwrap_err().code, Code::Usage);
        assert_eq!(path("a?b", "").unwrap_err().code, Code::Usage);
    }
}
