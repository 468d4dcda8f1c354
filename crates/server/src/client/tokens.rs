//! `keyreeve token ..`: access tokens on a running node. A secret is printed by `create`, and by nothing that looks.

use std::io::Read as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use keyreeve::core::secret::Secret;
use keyreeve::core::token::{TEXT_BYTES_MAX, TokenId};
use serde_json::{Map, Value, json};

use super::ask::Node;
use super::show;
use crate::cli::NodeArgs;
use crate::exit::{Code, Failure, say, tell};

/// The commands on access tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for a target, and print it: the only time that anybody sees it.
    Create(CreateArgs),
    /// Show a token, without its secret.
    Show(OneArgs),
    /// Take a token back: it is refused from now on.
    Revoke(OneArgs),
    /// Check a token on standard input: print what is known of it, or say why it is refused and end with 1.
    Verify(VerifyArgs),
}

/// `keyreeve token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What it is to open.
    pub(crate) target: String,
    /// What people call it.
    #[arg(long)]
    pub(crate) alias: String,
    /// The family: the name of a `[token.NAME]` table; where there is only one, that.
    #[arg(long)]
    pub(crate) family: Option<String>,
    /// How long it lives, such as `90d`; without it as long as its family says.
    #[arg(long, value_name = "TIME")]
    pub(crate) life: Option<String>,
    /// Only for paths such as `/version/**`, below the target. May be given several times.
    #[arg(long = "path", value_name = "PATTERN")]
    pub(crate) paths: Vec<String>,
    /// Only for this type of artifact. May be given several times.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kinds: Vec<String>,
    /// Only from this network, such as `10.0.0.0/8`. May be given several times.
    #[arg(long = "network", value_name = "CIDR")]
    pub(crate) networks: Vec<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// One token.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// Its id.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// `keyreeve token verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// What it is to open.
    pub(crate) target: String,
    /// The family: the name of a `[token.NAME]` table; where there is only one, that.
    #[arg(long)]
    pub(crate) family: Option<String>,
    /// The path below the target.
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// The type of the artifact.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// The IP address that asks.
    #[arg(long)]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Runs one command.
pub(crate) async fn run(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::Show(args) => {
            let answer = node(&args.node)?.get(&path(&args.id, "")?).await?;
            print(&answer, args.node.json);
            Ok(())
        }
        TokenCommand::Revoke(args) => {
            let answer = node(&args.node)?.post(&path(&args.id, "/revoke")?, None).await?;
            print(&answer, args.node.json);
            Ok(())
        }
        TokenCommand::Verify(args) => verify(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let mut body = Map::new();
    body.insert("target".into(), args.target.into());
    body.insert("alias".into(), args.alias.into());
    put(&mut body, "family", args.family);
    put(&mut body, "life", args.life);
    body.insert("scope".into(), json!({ "paths": args.paths, "types": args.kinds, "networks": args.networks }));
    let answer = node(&args.node)?.post("/v1/tokens", Some(body.into())).await?;
    print_made(&answer, args.node.json)
}

async fn verify(args: VerifyArgs) -> Result<(), Failure> {
    let token = token_on_stdin()?;
    let mut body = Map::new();
    body.insert("token".into(), token.expose().as_str().into());
    body.insert("target".into(), args.target.into());
    body.insert("path".into(), args.path.into());
    put(&mut body, "family", args.family);
    put(&mut body, "type", args.kind);
    put(&mut body, "address", args.address);
    let answer = node(&args.node)?.post("/v1/tokens/verify", Some(body.into())).await?;
    print(&answer, args.node.json);
    let is_valid = answer.get("valid").and_then(Value::as_bool) == Some(true);
    if is_valid { Ok(()) } else { Err(Failure::quiet(Code::CheckFailed)) }
}

/// The secret alone on standard output; what people want to know besides, on standard error.
fn print_made(answer: &Value, is_json: bool) -> Result<(), Failure> {
    if is_json {
        say(&answer.to_string());
        return Ok(());
    }
    let token = answer.get("token").and_then(Value::as_str);
    let token = token.ok_or_else(|| Failure::new(Code::Unavailable, "the node's answer has no token in it"))?;
    say(token);
    tell(&format!("id {}; the token is not shown again", show::text(answer.get("id"))));
    Ok(())
}

/// A token from standard input, so that it is in nobody's list of processes.
fn token_on_stdin() -> Result<Secret<String>, Failure> {
    let refuse = |why: &str| Failure::new(Code::Usage, format!("no token on standard input: {why}"));
    let mut text = String::new();
    let most = u64::try_from(TEXT_BYTES_MAX * 8).unwrap_or(u64::MAX);
    let read = std::io::stdin().lock().take(most).read_to_string(&mut text);
    let text = Secret::new(text);
    read.map_err(|error| refuse(&error.to_string()))?;
    Ok(Secret::new(text.expose().trim().to_owned()))
}

fn put(body: &mut Map<String, Value>, name: &str, value: Option<String>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value.into());
    }
}

fn print(answer: &Value, is_json: bool) {
    if is_json {
        say(&answer.to_string());
    } else {
        say(show::credential(answer).trim_end());
    }
}

fn node(args: &NodeArgs) -> Result<Node, Failure> {
    Node::new(&args.url, args.api_key_file.as_deref(), Duration::from_secs(args.timeout))
}

fn path(id: &str, rest: &str) -> Result<String, Failure> {
    let id = TokenId::parse(id).ok_or_else(|| {
        Failure::new(Code::Usage, format!("`{id}` is no id of a token")).hint("`keyreeve token ls TARGET` lists them")
    })?;
    Ok(format!("/v1/tokens/{id}{rest}"))
}
