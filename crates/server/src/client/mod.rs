//! The commands that talk to a running node.
//!
//! - `ask`: one request, one bounded answer, problems as failures
//! - `credential`, `keys`, `revoke`, `tokens`, `artifacts`: the commands
//! - `form`: secrets as shells, HTTP, AWS and Kubernetes tools read them
//! - `git`: a credential helper of git
//! - `show`: tables for people

mod artifacts;
mod ask;
mod credential;
pub(crate) mod form;
mod git;
mod keys;
mod revoke;
mod show;
mod tokens;

pub(crate) use artifacts::{ArtifactCommand, run as run_artifact};
pub(crate) use ask::{KEY_VARIABLE, Node};
pub(crate) use credential::{run, run_aws_process, token_path};
pub(crate) use git::{GitArgs, run as run_git};
pub(crate) use keys::run as run_keys;
pub(crate) use revoke::{RevokeArgs, run as run_revoke};
pub(crate) use tokens::{TokenCommand, run as run_token};
