//! The commands that talk to a running node.
//!
//! - `ask`: one request, one bounded answer, problems as failures
//! - `credential`: the commands
//! - `form`: secrets as shells, HTTP and AWS tools read them
//! - `show`: tables for people

mod ask;
mod credential;
mod form;
mod show;

pub(crate) use credential::run;
