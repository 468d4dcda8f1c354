//! How a command ends: its exit code, and what it says on standard error.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Exit codes other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Something was checked, and it is not in order.
    CheckFailed = 1,
    /// The command line or the configuration makes no sense.
    Usage = 2,
    /// No such credential.
    NotFound = 3,
    /// The caller may not do that.
    Denied = 4,
    /// The node, the store or the upstream does not answer.
    Unavailable = 5,
    /// Not now, or not in this state.
    Conflict = 6,
}

/// Why a command did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: Code,
    /// A sentence, lower case, no final stop; further lines are hints. Holds no secret.
    pub(crate) message: String,
    /// The message says itself what it is.
    is_explained: bool,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), is_explained: false }
    }

    /// A failure whose lines each say whether they are an error, a warning or a hint.
    pub(crate) fn explained(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), is_explained: true }
    }

    /// A failure about which all has been said on the way.
    pub(crate) const fn quiet(code: Code) -> Self {
        Self { code, message: String::new(), is_explained: true }
    }

    /// Adds a hint on a line of its own.
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        let _ = write!(self.message, "\nhint: {hint}");
        self
    }

    /// Says why, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match (self.message.is_empty(), self.is_explained) {
            (true, _) => {}
            (false, true) => tell(&self.message),
            (false, false) => tell(&format!("error: {}", self.message)),
        }
        ExitCode::from(self.code as u8)
    }
}

/// Writes a line to standard output. Whoever closed it has read enough.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
