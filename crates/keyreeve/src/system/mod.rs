//! The operating system behind the ports, for programs that run on tokio.
//!
//! - [`host`]: clocks, chance and tasks
//! - [`bcrypt`]: hashes that take their time
//! - [`fetch`]: HTTP to the outside
//! - [`secrets`]: secrets by reference
//! - [`keys`]: keys that somebody else serves, for a program that verifies

pub mod bcrypt;
pub mod fetch;
pub mod host;
pub mod secrets;

use std::sync::Arc;

use crate::inbound::Fetched;
use crate::jwt::{Keys, Remote};
use fetch::{Fetch, FetchSettings};
use host::OsHost;

/// The keys that an environment names, over the HTTP client and the clock of this process. They are fetched when they are
/// first needed, on the tokio runtime of whoever needs them.
///
/// # Errors
/// A sentence: there is no such thing outside of a Worker, or no client can be made.
pub fn keys(remote: &Remote) -> Result<Arc<dyn Keys>, String> {
    if let Remote::Service { binding, .. } = remote {
        return Err(format!("the service binding `{binding}` exists on Workers only: set `JWT_JWKS_URL`"));
    }
    let host = Arc::new(OsHost::new());
    let http = Fetch::new(Arc::clone(&host) as _, &FetchSettings::default())?;
    Ok(Arc::new(Fetched::remote(remote, host, Arc::new(http), crate::crypto::check)))
}
