//! `keyreeve revoke`: tokens refused from now on, and which node refuses them since when.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use keyreeve::core::time::Span;
use serde_json::{Map, Value, json};

use super::ask::Node;
use super::show::{self, text};
use crate::cli::NodeArgs;
use crate::exit::{Code, Failure, say, tell};

/// The largest token, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
const COLUMNS: [(&str, &str); 3] = [("node", "NODE"), ("state", "STATE"), ("after_ms", "AFTER MS")];

/// `keyreeve revoke`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["token_file", "jti", "subject", "kid", "issued_before", "answer_loss"]))]
pub(crate) struct RevokeArgs {
    /// A file with one token, `-` for standard input: tokens on a command line are seen by others.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["jti", "subject", "kid", "issued_before", "issuer", "answer_loss"])]
    token_file: Option<PathBuf>,
    /// The `jti` of one JWT.
    #[arg(long, value_name = "ID", conflicts_with_all = ["subject", "kid", "issued_before", "answer_loss"])]
    jti: Option<String>,
    /// All JWTs of this subject that were issued up to now, or before `--issued-before`.
    #[arg(long, value_name = "SUBJECT", conflicts_with_all = ["kid", "answer_loss"])]
    subject: Option<String>,
    /// All JWTs that this key signed.
    #[arg(long, value_name = "KID", conflicts_with_all = ["issued_before", "answer_loss"])]
    kid: Option<String>,
    /// All JWTs of the issuer that were issued before this: `2026-11-22T12:00:00Z`.
    #[arg(long, value_name = "TIME", conflicts_with = "answer_loss")]
    issued_before: Option<String>,
    /// Whose: `issuer:NAME`, `verifier:NAME`, or the `iss`; not needed where there is only one.
    #[arg(long, value_name = "ISSUER", conflicts_with = "answer_loss")]
    issuer: Option<String>,
    /// Say that what a store had forgotten has been revoked again: nodes are no longer degraded for it.
    #[arg(long)]
    answer_loss: bool,
    /// Wait this long for every node to refuse it, in seconds.
    #[arg(long, default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=10))]
    wait: u64,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command. Exit code 1 where some node has not said that it refuses.
pub(crate) async fn run(args: RevokeArgs) -> Result<(), Failure> {
    let node = &args.node;
    let ask = Node::new(&node.url, node.api_key_file.as_deref(), Duration::from_secs(node.timeout))?;
    let revoked = ask.post("/v1/revocations", Some(asked(&args)?)).await?;
    let Some(id) = revoked.get("id").and_then(Value::as_str) else {
        say(&if node.json { revoked.to_string() } else { "answered".to_owned() });
        return Ok(());
    };
    let receipts = ask.get(&format!("/v1/revocations/{id}?wait={}s", args.wait)).await?;
    if node.json {
        say(&receipts.to_string());
    } else {
        let mut rows = vec![COLUMNS.map(|(_, title)| title.to_owned()).to_vec()];
        for node in receipts.get("nodes").and_then(Value::as_array).into_iter().flatten() {
            rows.push(COLUMNS.map(|(field, _)| text(node.get(field))).to_vec());
        }
        say(show::table(&rows).trim_end());
    }
    if receipts.get("complete") == Some(&Value::Bool(true)) {
        return Ok(());
    }
    let bound = Span(revoked.get("bound_ms").and_then(Value::as_u64).unwrap_or_default());
    tell(&format!(
        "some nodes have not said that they refuse it; each that can read the store does within {bound}\nhint: `silent` is a node that may be gone, or goes on without the store"
    ));
    Err(Failure::quiet(Code::CheckFailed))
}

fn asked(args: &RevokeArgs) -> Result<Value, Failure> {
    if args.answer_loss {
        return Ok(json!({ "answer_loss": true }));
    }
    let token = args.token_file.as_deref().map(token).transpose()?;
    let fields = [
        ("token", token),
        ("jti", args.jti.clone()),
        ("subject", args.subject.clone()),
        ("kid", args.kid.clone()),
        ("issued_before", args.issued_before.clone()),
        ("issuer", args.issuer.clone()),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::String(value?))));
    Ok(Value::Object(given.collect::<Map<_, _>>()))
}

/// The token in a file.
fn token(path: &Path) -> Result<String, Failure> {
    let refuse = |error: std::io::Error| {
        Failure::new(Code::Usage, format!("cannot read the token from `{}`: {error}", path.display()))
    };
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text),
        _ => std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(refuse)?;
    Ok(text.trim().to_owned())
}
