//! How requests leave: a client certificate, and authorities of one's own.

use std::path::PathBuf;

use super::parse;
use super::problem::{Fault, shown};
use super::scope::Scope;
use super::types::Home;
use crate::port::Via;

/// Reads `via` and `ca` of a table.
pub(super) fn read(scope: &mut Scope<'_>) -> Option<Via> {
    let home = scope.sheet.home;
    let certificate = scope.parsed("via", |text| certificate(text, home), shown_via);
    let authorities = scope.parsed("ca", file, |path| format!("file:{}", path.display()));
    match (certificate, authorities) {
        (None, None) => None,
        (Some(Via::Files { certificate, .. }), authorities) => Some(Via::Files { certificate, authorities }),
        (Some(binding @ Via::Binding(_)), _) => Some(binding),
        (None, authorities) => Some(Via::Files { certificate: None, authorities }),
    }
}

fn shown_via(via: &Via) -> String {
    match via {
        Via::Binding(name) => format!("binding:{name}"),
        Via::Files { certificate, .. } => {
            certificate.as_ref().map(|path| format!("file:{}", path.display())).unwrap_or_default()
        }
    }
}

fn certificate(text: &str, home: Home) -> Result<Via, Fault> {
    match home {
        Home::Worker => parse::certificate(text).map(Via::Binding),
        Home::Native => file(text).map(|path| Via::Files { certificate: Some(path), authorities: None }),
    }
}

pub(super) fn file(text: &str) -> Result<PathBuf, Fault> {
    match text.strip_prefix("file:") {
        Some(path) if !path.is_empty() && !path.contains('\0') => Ok(PathBuf::from(path)),
        _ => Err(Fault::plain(format!("must be `file:PATH`, not {}", shown(text)))),
    }
}
