//! The commands that talk to a running node.
//!
//! - `ask`: one request, one bounded answer, problems as failures
//! - `credential`, `keys`: the commands
//! - `form`: secrets as shells, HTTP and AWS tools read them
//! - `show`: tables for people

mod ask;
mod credential;
mod form;
mod keys;
mod show;

pub(crate) use credential::run;
pub(crate) use keys::run as run_keys;
