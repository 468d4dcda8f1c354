//! `keyreeve artifact ..`: artifacts of a gate, by way of a running node.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use keyreeve::core::crypto::Crypto as _;
use keyreeve::crypto::LocalCrypto;
use serde_json::Value;

use super::ask::Node;
use super::show;
use crate::cli::NodeArgs;
use crate::exit::{Code, Failure, say, tell};

/// The largest file that is read in order to be published, in bytes; the gate has a limit of its own.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The most pages of a list.
const PAGES_MAX: usize = 1000;

/// The commands on artifacts.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    /// Publish a file, or standard input as `-`.
    Put(PutArgs),
    /// Write an artifact to standard output.
    Get(GetArgs),
    /// List the artifacts of a target.
    Ls(LsArgs),
}

/// `keyreeve artifact put`.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    one: One,
    /// The file, or `-`.
    file: PathBuf,
    /// What it is: `application/json`. A folder keeps no types; they follow from the name there.
    #[arg(long = "type", value_name = "MEDIA TYPE")]
    kind: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// `keyreeve artifact get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    node: NodeArgs,
}

/// `keyreeve artifact ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// The gate: the name of a `[gate.NAME]` table.
    gate: String,
    /// Whose artifacts.
    target: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// One artifact.
#[derive(Debug, Args)]
struct One {
    /// The gate: the name of a `[gate.NAME]` table.
    gate: String,
    /// Whose artifact it is.
    target: String,
    /// Its path below the target, such as `sdl` or `version/1f0c/sdl`.
    path: String,
}

/// Runs one command.
pub(crate) async fn run(command: ArtifactCommand) -> Result<(), Failure> {
    match command {
        ArtifactCommand::Put(args) => put(args).await,
        ArtifactCommand::Get(args) => {
            let path = path(&[&args.one.gate, &args.one.target, &args.one.path])?;
            let mut out = std::io::stdout();
            let failed = |error: std::io::Error| Failure::new(Code::Unavailable, format!("standard output: {error}"));
            node(&args.node)?.download(&path, |piece| out.write_all(piece).map_err(failed)).await?;
            out.flush().map_err(failed)
        }
        ArtifactCommand::Ls(args) => ls(args).await,
    }
}

async fn put(args: PutArgs) -> Result<(), Failure> {
    let path = path(&[&args.one.gate, &args.one.target, &args.one.path])?;
    let body = content(&args.file)?;
    let digest = format!("sha-256=:{}:", STANDARD.encode(LocalCrypto.sha256(&[&body])));
    let mut headers = vec![("content-digest", digest)];
    headers.extend(args.kind.map(|kind| ("content-type", kind)));
    let answer = node(&args.node)?.put(&path, headers, body).await?;
    if args.node.json {
        say(&answer.to_string());
        return Ok(());
    }
    let what = if answer.get("unchanged") == Some(&Value::Bool(true)) { "was there already" } else { "published" };
    say(&format!("{what}: {} sha256:{}", show::text(answer.get("path")), show::text(answer.get("sha256"))));
    for mirror in answer.get("missing_on").and_then(Value::as_array).into_iter().flatten() {
        tell(&format!("warning: `{}` does not have it\nhint: publish it again", show::text(Some(mirror))));
    }
    Ok(())
}

async fn ls(args: LsArgs) -> Result<(), Failure> {
    let base = path(&[&args.gate, &args.target])?;
    let node = node(&args.node)?;
    let mut after = String::new();
    let (mut strange, mut example) = (0_usize, String::new());
    for _ in 0..PAGES_MAX {
        let page = node.get(&format!("{base}?limit=1000&after={}", escaped(&after))).await?;
        let artifacts = page.get("artifacts").and_then(Value::as_array).cloned().unwrap_or_default();
        for one in &artifacts {
            if args.node.json {
                say(&one.to_string());
            } else {
                let (size, modified) = (show::text(one.get("size")), show::text(one.get("modified_at")));
                say(&format!("{size:>12}  {modified}  {}", show::text(one.get("path"))));
            }
        }
        let others = page.get("strange").and_then(Value::as_array).cloned().unwrap_or_default();
        strange = strange.saturating_add(others.len());
        if let Some(other) = others.last() {
            example = show::text(Some(other));
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => {
                if strange > 0 {
                    let hint = "hint: the gate can hand out none of them; rename them with the bucket's own tools";
                    tell(&format!(
                        "warning: {strange} more have names that no artifact has, such as `{example}`\n{hint}"
                    ));
                }
                return Ok(());
            }
        }
    }
    Err(Failure::new(Code::Unavailable, format!("there are more artifacts: this list ends at `{after}`")))
}

fn content(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let refuse = |cause: String| Failure::new(Code::Usage, format!("cannot read `{}`: {cause}", file.display()));
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| refuse(error.to_string()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(refuse(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// A path of the API. What is in it besides letters, digits and `._-:/` would be taken for something else.
fn path(parts: &[&str]) -> Result<String, Failure> {
    let joined = parts.join("/");
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-:/".contains(letter);
    if let Some(other) = joined.chars().find(|letter| !is_plain(*letter)) {
        let text = format!("`{joined}` has `{other}` in it, which no name of an artifact has");
        return Err(Failure::new(Code::Usage, text));
    }
    // `..` would be another target by the time the node hears of it.
    if joined.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        let text = format!("`{joined}` has a part that is empty or begins with `.`, which no name of an artifact has");
        return Err(Failure::new(Code::Usage, text));
    }
    Ok(format!("/v1/artifacts/{joined}"))
}

/// A text in a query: others may have named objects as they liked.
fn escaped(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}

fn node(args: &NodeArgs) -> Result<Node, Failure> {
    Node::new(&args.url, args.api_key_file.as_deref(), Duration::from_secs(args.timeout))
}
