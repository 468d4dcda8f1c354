//! The log: standard error, text or JSON, what `RUST_LOG` asks for.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::cli::LogForm;

/// Starts the log. `default` is the filter where `RUST_LOG` is not set or makes no sense.
pub(crate) fn start(form: LogForm, default: &str) {
    let filter = std::env::var("RUST_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(default));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that was started before stays.
    let _ = match form {
        LogForm::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogForm::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
}
