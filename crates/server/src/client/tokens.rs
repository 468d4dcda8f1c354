//! `keyreeve token ..`: access tokens on a running node. A secret is printed by what makes one, and by nothing else.

use std::io::Read as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use keyreeve::core::secret::Secret;
use keyreeve::core::token::{TEXT_BYTES_MAX, TokenId, is_target};
use serde_json::{Map, Value, json};

use super::ask::Node;
use super::show;
use crate::cli::NodeArgs;
use crate::exit::{Code, Failure, say, tell};

/// The most pages of a list that are read.
const PAGES_MAX: usize = 1000;
const COLUMNS: [(&str, &str); 6] = [
    ("id", "TOKEN"),
    ("alias", "ALIAS"),
    ("state", "STATE"),
    ("created_at", "CREATED"),
    ("expires_at", "EXPIRES"),
    ("used_at", "USED"),
];

/// The commands on access tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for a target, and print it: the only time that anybody sees it.
    Create(CreateArgs),
    /// List the tokens of a target, the newest first, without their secrets.
    Ls(TargetArgs),
    /// Show a token, without its secret.
    Show(OneArgs),
    /// Make a token that takes the place of another one, and print it; the old one goes on for a while.
    Roll(RollArgs),
    /// Make another token like this one, with a secret of its own, and print it.
    Duplicate(DuplicateArgs),
    /// Take a token back: it is refused from now on.
    Revoke(RevokeArgs),
    /// Check a token on standard input: print what is known of it, or say why it is refused and end with 1.
    Verify(VerifyArgs),
    /// Take all tokens of a target back, at once and in every store.
    DropTarget(TargetArgs),
    /// While tokens move here from GraphQL Hive: say whose verdict counts, or show it with what came of comparing.
    Mode(ModeArgs),
}

/// `keyreeve token mode`.
#[derive(Debug, Args)]
pub(crate) struct ModeArgs {
    /// `shadow`: Hive's verdict counts, ours is compared with it, from nothing. `enforce`: ours counts, refused while they
    /// disagree. `off`: ours counts, with bcrypt for legacy tokens.
    #[arg(value_parser = ["off", "shadow", "enforce"])]
    pub(crate) mode: Option<String>,
    /// The family: the name of a `[token.NAME]` table; where there is only one, that.
    #[arg(long)]
    pub(crate) family: Option<String>,
    /// Also where the verdicts disagree, or nothing was compared.
    #[arg(long, requires = "mode")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
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
    /// How it is spelt: `native`, `hv2`, or `legacy`, of which a target has one; without it as its family says.
    #[arg(long, value_parser = ["native", "hv2", "legacy"])]
    pub(crate) format: Option<String>,
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

/// `keyreeve token ls` and `keyreeve token drop-target`: the tokens of one target.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// The target.
    pub(crate) target: String,
    /// The family: the name of a `[token.NAME]` table; where there is only one, that.
    #[arg(long)]
    pub(crate) family: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// `keyreeve token roll`.
#[derive(Debug, Args)]
pub(crate) struct RollArgs {
    /// The id of the old one.
    pub(crate) id: String,
    /// How long the old one goes on, such as `2h`, or `0s`; without it as long as its family says.
    #[arg(long, value_name = "TIME")]
    pub(crate) grace: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// `keyreeve token duplicate`.
#[derive(Debug, Args)]
pub(crate) struct DuplicateArgs {
    /// The id of the one it is to be like.
    pub(crate) id: String,
    /// What people call the new one; without it as the other.
    #[arg(long)]
    pub(crate) alias: Option<String>,
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

/// `keyreeve token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Its id.
    pub(crate) id: String,
    /// Its target: needed for a token that was made elsewhere and has never been used here.
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// The family of the target: the name of a `[token.NAME]` table; where there is only one, that.
    #[arg(long, requires = "target")]
    pub(crate) family: Option<String>,
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
        TokenCommand::Ls(args) => ls(args).await,
        TokenCommand::Roll(args) => {
            let mut body = Map::new();
            put(&mut body, "grace", args.grace);
            let made = node(&args.node)?.post(&path(&args.id, "/roll")?, Some(body.into())).await?;
            print_made(&made, args.node.json)
        }
        TokenCommand::Duplicate(args) => {
            let mut body = Map::new();
            put(&mut body, "alias", args.alias);
            let made = node(&args.node)?.post(&path(&args.id, "/duplicate")?, Some(body.into())).await?;
            print_made(&made, args.node.json)
        }
        TokenCommand::DropTarget(args) => {
            let mut body = Map::new();
            body.insert("target".into(), args.target.into());
            put(&mut body, "family", args.family);
            let answer = node(&args.node)?.post("/v1/tokens/drop-target", Some(body.into())).await?;
            print(&answer, args.node.json);
            Ok(())
        }
        TokenCommand::Show(args) => {
            let answer = node(&args.node)?.get(&path(&args.id, "")?).await?;
            print(&answer, args.node.json);
            Ok(())
        }
        TokenCommand::Revoke(args) => {
            let mut body = Map::new();
            put(&mut body, "target", args.target);
            put(&mut body, "family", args.family);
            let answer = node(&args.node)?.post(&path(&args.id, "/revoke")?, Some(body.into())).await?;
            print(&answer, args.node.json);
            Ok(())
        }
        TokenCommand::Verify(args) => verify(args).await,
        TokenCommand::Mode(args) => mode(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let mut body = Map::new();
    body.insert("target".into(), args.target.into());
    body.insert("alias".into(), args.alias.into());
    put(&mut body, "family", args.family);
    put(&mut body, "life", args.life);
    put(&mut body, "format", args.format);
    body.insert("scope".into(), json!({ "paths": args.paths, "types": args.kinds, "networks": args.networks }));
    let answer = node(&args.node)?.post("/v1/tokens", Some(body.into())).await?;
    print_made(&answer, args.node.json)
}

async fn ls(args: TargetArgs) -> Result<(), Failure> {
    let node = node(&args.node)?;
    if !is_target(&args.target) {
        return Err(Failure::new(Code::Usage, format!("`{}` is no name of a target", args.target)));
    }
    let family = args.family.map_or_else(String::new, |family| format!("&family={family}"));
    let mut all = Vec::new();
    let mut cursor = String::new();
    for _ in 0..PAGES_MAX {
        let path = format!("/v1/tokens?target={}&limit=100{family}{cursor}", args.target);
        let mut page = node.get(&path).await?;
        if let Some(tokens) = page.get_mut("tokens").and_then(Value::as_array_mut) {
            all.append(tokens);
        }
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    if args.node.json {
        say(&json!({ "tokens": all }).to_string());
        return Ok(());
    }
    let mut rows = vec![COLUMNS.map(|(_, title)| title.to_owned()).to_vec()];
    rows.extend(all.iter().map(|one| COLUMNS.map(|(field, _)| show::text(one.get(field))).to_vec()));
    say(show::table(&rows).trim_end());
    Ok(())
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

async fn mode(args: ModeArgs) -> Result<(), Failure> {
    let node = node(&args.node)?;
    let answer = match args.mode {
        None => {
            let query = args.family.map_or_else(String::new, |family| format!("?family={family}"));
            node.get(&format!("/v1/tokens/mode{query}")).await?
        }
        Some(mode) => {
            let mut body = Map::new();
            body.insert("mode".into(), mode.into());
            put(&mut body, "family", args.family);
            if args.force {
                body.insert("force".into(), true.into());
            }
            node.post("/v1/tokens/mode", Some(body.into())).await?
        }
    };
    say(if args.node.json { answer.to_string() } else { mode_text(&answer) }.trim_end());
    Ok(())
}

/// Whose verdict counts, and what came of comparing, for people.
fn mode_text(answer: &Value) -> String {
    let field = |name: &str| show::text(answer.get(name));
    let means = match answer.get("mode").and_then(Value::as_str) {
        Some("shadow") => "Hive's verdict counts, ours is compared with it",
        Some("enforce") => "ours counts, legacy tokens are computed from their secret",
        _ => "ours counts, legacy tokens are compared by bcrypt once",
    };
    let mut rows = vec![
        vec!["family".to_owned(), field("family")],
        vec!["mode".to_owned(), format!("{}: {means}", field("mode"))],
        vec!["since".to_owned(), format!("{} by {}", field("since"), field("by"))],
        vec!["both accept".to_owned(), field("accepted_by_both")],
        vec!["both refuse".to_owned(), field("refused_by_both")],
        vec!["not compared".to_owned(), field("not_compared")],
        vec!["disagree".to_owned(), field("disagree")],
    ];
    let mut hints = String::new();
    for cause in answer.get("causes").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| show::text(cause.get(name));
        let examples = cause.get("examples").and_then(Value::as_array).into_iter().flatten();
        let examples: Vec<&str> = examples.filter_map(Value::as_str).collect();
        rows.push(vec![format!("  {}", part("cause")), part("count")]);
        hints.push_str(&format!("{}: {}\n  seen at {}\n", part("cause"), part("advice"), examples.join(", ")));
    }
    format!("{}{hints}", show::table(&rows))
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
