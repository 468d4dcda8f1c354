//! The gates of artifacts of a configuration, opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyreeve::access::Tokens;
use keyreeve::artifact::{Artifacts, Objects, objects};
use keyreeve::config::Config;
use keyreeve::http::{ArtifactGate, ArtifactGates};
use keyreeve_server::fetch::{Fetch, FetchSettings};

use crate::load::Ground;

/// How many connections are kept for the next read, per bucket.
const KEPT_MAX: usize = 64;

/// Opens every folder and bucket of a configuration, by name.
///
/// # Errors
/// A sentence for each that cannot be opened.
pub(crate) fn open(config: &Config, ground: &Ground) -> Result<BTreeMap<String, Objects>, Vec<String>> {
    if config.objects.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Its own: of one bucket more is read at once than is asked of others.
    let settings = FetchSettings { kept_max: KEPT_MAX, ..FetchSettings::default() };
    let fetch = Fetch::new(Arc::clone(&ground.host), &settings).map_err(|cause| vec![cause])?;
    let mut opened = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, settings) in &config.objects {
        match objects::open(settings, &fetch, ground.secrets.as_ref()) {
            Ok(objects) => drop(opened.insert(name.clone(), objects)),
            Err(cause) => problems.push(format!("`objects.{name}`: {cause}")),
        }
    }
    if problems.is_empty() { Ok(opened) } else { Err(problems) }
}

/// Makes the gates.
///
/// # Errors
/// A sentence for each that cannot be made.
pub(crate) fn gates(
    config: &Config,
    ground: &Ground,
    objects: &BTreeMap<String, Objects>,
    tokens: Option<&Tokens>,
) -> Result<ArtifactGates, Vec<String>> {
    let mut gates = ArtifactGates::new();
    let mut problems = Vec::new();
    for (name, settings) in &config.artifacts {
        let origins = settings.origins.iter().filter_map(|name| Some((name.clone(), objects.get(name)?.clone())));
        let made = Artifacts::open(name, settings, origins.collect(), Arc::clone(&ground.host));
        let access = tokens.and_then(|tokens| tokens.family(&settings.tokens)).ok_or("there are no tokens".to_owned());
        match made.and_then(|made| Ok(ArtifactGate::new(made, Arc::new(access?)))) {
            Ok(gate) => drop(gates.insert(name.clone(), Arc::new(gate))),
            Err(cause) => problems.push(format!("`gate.{name}`: {cause}")),
        }
    }
    if problems.is_empty() { Ok(gates) } else { Err(problems) }
}
