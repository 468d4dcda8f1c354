//! Credentials in the forms that unmodified clients ask for.
//!
//! - `aws`: `GET /v1/credentials/{name}/aws`, the container credentials of AWS SDKs
//! - `metadata`: what clouds serve at a link-local address, on a listener of its own
//! - `local`: whether a request was made on this machine, by a program that meant it
//!
//! Clients give up after two seconds, so answers come within [`WAIT_MS_MAX`], errors too. A credential that is valid is handed
//! out whatever happens to its renewal; its expiry is told as it is, in UTC.

mod aws;
mod local;
mod metadata;

use keyreeve_core::time::{Moment, Timestamp};

use super::api::{Answering, Api};
use super::problem::Problem;
use super::route::Later;
use super::routes::Endpoint;
use crate::outbound::Served;

pub(super) use aws::{now as aws_now, wait as aws_wait};
pub(super) use local::check as check_local;
pub(super) use local::{is_local, made_elsewhere};
pub(super) use metadata::Metadata;
pub(super) use metadata::{Asked, IDENTITY, answer as metadata, check as check_metadata};

/// The longest wait for a credential, in milliseconds: boto3 gives up after two seconds.
const WAIT_MS_MAX: u64 = 1800;
/// An expired credential that may still be served says that it lives this much longer, in milliseconds: the AWS SDKs renew a
/// quarter of an hour ahead, and would otherwise ask before every single use.
pub(super) const STALE_LIFE_MS: u64 = 16 * 60_000;

/// When the client is to take it as expired.
fn expires_at(served: &Served, now: Moment) -> Timestamp {
    if served.is_stale { now.latest().plus(STALE_LIFE_MS) } else { served.expires_at }
}

/// The credential, if this node holds a valid one: with `life_ms` left if possible, else with what it has.
fn held(api: &Api, live: &Answering, name: &str, life_ms: u64) -> Option<Served> {
    let now = api.host.now();
    live.outbound.held(name, now, life_ms).or_else(|| live.outbound.held(name, now, 0))
}

/// The credential, when there is one.
async fn taken(later: &Later, name: &str) -> Result<Served, Problem> {
    let wait_ms = later.live.wait_ms(name).min(WAIT_MS_MAX);
    let deadline = later.api.host.now().mono.plus(wait_ms);
    later.live.outbound.token(name, 0, deadline).await.map_err(|error| Problem::of_token(name, error))
}

/// A problem with the members that the clients of an endpoint look for.
pub(super) fn dressed(problem: Problem, endpoint: Option<Endpoint>) -> Problem {
    match endpoint {
        Some(Endpoint::Aws) => {
            let (code, message) = (problem.kind_name(), problem.sentence());
            problem.member("Code", code.into()).member("Message", message.into())
        }
        Some(Endpoint::Metadata(asked)) if !cfg!(target_arch = "wasm32") => metadata::dressed(problem, asked),
        _ => problem,
    }
}
