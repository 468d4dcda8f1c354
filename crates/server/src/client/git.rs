//! `keyreeve git-credential NAME get|store|erase`: a credential helper of git (gitcredentials(7)).

use std::io::Read as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keyreeve::core::secret::Secret;
use serde_json::{Value, json};

use super::ask::Node;
use super::{form, token_path};
use crate::cli::NodeArgs;
use crate::exit::{Code, Failure, say, tell};

/// The most that git may say, in bytes.
const ASKED_BYTES_MAX: u64 = 64 * 1024;

/// `keyreeve git-credential`.
#[derive(Debug, Args)]
pub(crate) struct GitArgs {
    /// The credential.
    pub(crate) name: String,
    /// The user name that goes with the token: GitHub wants this one, GitLab `oauth2`.
    #[arg(long, default_value = "x-access-token", value_name = "NAME")]
    pub(crate) username: String,
    /// Answer for this host only, with its port where git names one; without it for every host that git asks about.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// What git wants; git says this itself.
    pub(crate) wish: Wish,
}

/// What git wants of a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wish {
    /// The credential.
    Get,
    /// That it be kept, which nobody has to do.
    Store,
    /// That it be forgotten: the server refused it.
    Erase,
    /// What the helper can do.
    Capability,
}

/// What git says about what it needs.
struct Asked {
    protocol: String,
    host: String,
    password: Secret<String>,
}

/// Does what git wants. Where this helper has nothing to say it prints nothing, and git asks the next one.
pub(crate) async fn run(args: GitArgs) -> Result<(), Failure> {
    if matches!(args.wish, Wish::Store | Wish::Capability) {
        return Ok(());
    }
    let asked = read()?;
    if !is_for_us(&args, &asked) {
        return Ok(());
    }
    let node = Node::new(&args.node.url, args.node.api_key_file.as_deref(), Duration::from_secs(args.node.timeout))?;
    let answer = node.get(&token_path(&args.name)?).await?;
    let token = form::token(&args.name, &answer)?;
    if args.wish == Wish::Get {
        let expires_at = answer.get("expires_at").and_then(Value::as_str).and_then(|at| at.parse().ok());
        let expires_at: jiff::Timestamp = expires_at.unwrap_or_default();
        say(&format!("username={}\npassword={token}\npassword_expiry_utc={}", args.username, expires_at.as_second()));
        return Ok(());
    }
    // The token was refused. Another one, that is in use by now, was not.
    if asked.password.expose() == token {
        let generation = answer.get("generation").and_then(Value::as_u64).unwrap_or_default();
        let report = json!({ "generation": generation, "upstream_status": 401, "reason": "git" });
        let path = token_path(&args.name)?.replace("/token", "/report");
        if let Err(failure) = node.post(&path, Some(report)).await {
            tell(&format!("warning: the refusal was not reported: {}", failure.message));
        }
    }
    Ok(())
}

fn read() -> Result<Asked, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(ASKED_BYTES_MAX).read_to_end(&mut bytes);
    let bytes = Secret::new(bytes);
    read.map_err(|error| Failure::new(Code::Usage, format!("cannot read what git says: {error}")))?;
    let text = String::from_utf8_lossy(bytes.expose());
    let value = |name: &str| {
        let mut values = text.lines().filter_map(|line| line.split_once('='));
        values.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    Ok(Asked { protocol: value("protocol"), host: value("host"), password: Secret::new(value("password")) })
}

/// Whether the token may go there: to the host that was named, and never in clear.
fn is_for_us(args: &GitArgs, asked: &Asked) -> bool {
    let host = asked.host.split(':').next().unwrap_or_default();
    let is_loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_safe = asked.protocol == "https" || (asked.protocol == "http" && is_loopback);
    is_safe && args.host.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&asked.host))
}
