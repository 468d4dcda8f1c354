//! `keyreeve dev`: keys, state and a configuration in one folder, and a node over it.
//!
//! The node is the same as `serve`'s: what is made here is a configuration with references to files, no special case.

mod folder;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use keyreeve::config::Bind;

use crate::cli::DevArgs;
use crate::exit::{Code, Failure, tell};
use crate::listen::{self, Bound};
use crate::serve::{Node, Settings, signals};

use folder::Folder;

/// The first port that is tried, and how many.
const FIRST_PORT: u16 = 7070;
const PORTS: u16 = 100;

/// Runs a node with seeded data until it is told to stop.
pub(crate) async fn run(args: DevArgs) -> Result<(), Failure> {
    let mut signals = signals()?;
    let folder = Folder::open(data_folder(args.data)?)?;
    let (address, bound) = bound(args.bind).await?;
    let config = folder.write_config(address)?;
    let settings = Settings { config, node: None, bind: Some(address), log: args.log };
    let node = Node::start(settings, "info", Some(bound)).await?;
    let url = node.urls().next().unwrap_or_default().to_owned();
    folder.write_summary(&url)?;
    node.announce(&introduction(&folder, &url));
    node.run(&mut signals).await;
    Ok(())
}

fn data_folder(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match given {
        Some(folder) => Ok(folder),
        None => tempfile::Builder::new()
            .prefix("keyreeve-dev-")
            .tempdir()
            // It stays: a second node may want it, and so may whoever looks at what was stored.
            .map(tempfile::TempDir::keep)
            .map_err(|error| Failure::new(Code::Unavailable, format!("no temporary folder: {error}"))),
    }
}

/// Binds what was asked for, or the first free port; the port that was bound is in the address.
async fn bound(asked: Option<SocketAddr>) -> Result<(SocketAddr, Bound), Failure> {
    let refuse = |error: &dyn std::fmt::Display| Failure::new(Code::Unavailable, error.to_string());
    let ports = FIRST_PORT..FIRST_PORT.saturating_add(PORTS);
    let candidates: Vec<_> = match asked {
        Some(address) => vec![address],
        None => ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect(),
    };
    let mut last = None;
    for address in candidates {
        match Bound::new(&Bind::Tcp(address)).await {
            Ok(bound) => {
                let address = bound.tcp_address().unwrap_or(address);
                if last.is_some() {
                    tell(&format!("port {FIRST_PORT} is taken: listening on {} instead", address.port()));
                }
                return Ok((address, bound));
            }
            Err(error) if asked.is_none() && listen::is_taken(&error) => last = Some(error),
            Err(error) => return Err(refuse(&error).hint("`--bind 127.0.0.1:0` takes a free port")),
        }
    }
    let last = last.map_or_else(String::new, |error| error.to_string());
    Err(refuse(&last).hint("`--bind 127.0.0.1:0` takes a free port"))
}

/// What somebody who sees this for the first time can do with it.
fn introduction(folder: &Folder, url: &str) -> String {
    let (key, credential) = (folder.api_key(), folder::CREDENTIAL);
    let data = folder.path().display();
    let keyreeve = program();
    format!(
        "data in {data}

take the token that the whole fleet shares:
  curl -s -H 'Authorization: Bearer {key}' {url}/v1/credentials/{credential}/token

what to try next, in another terminal:
  export KEYREEVE_URL={url} KEYREEVE_API_KEY={key}
  {keyreeve} credential ls
      all credentials, and where each one stands
  {keyreeve} credential history {credential}
      who minted which generation, and when
  {keyreeve} credential renew {credential}
      refused with a sentence: the last mint is too recent
  {keyreeve} dev --data {data}
      a second node: the same token
  {keyreeve} serve -c {data}/keyreeve.toml --bind 127.0.0.1:0
      a third one, from the configuration that this one runs with
  {keyreeve} demo fleet
      eight nodes, a strict upstream, and nodes that die on purpose"
    )
}

/// This program, as it can be typed here.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("keyreeve"));
    let here = std::env::current_dir().ok();
    let path = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf)).unwrap_or(path);
    path.display().to_string()
}
