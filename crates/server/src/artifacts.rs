//! The gates of artifacts of a configuration, opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyreeve::access::Tokens;
use keyreeve::artifact::hashes::Hashes;
use keyreeve::artifact::{Artifacts, Objects, objects};
use keyreeve::config::{Config, FamilyConfig};
use keyreeve::http::{ArtifactGate, ArtifactGates};
use keyreeve_server::fetch::{Fetch, FetchSettings};

use crate::load::Ground;

/// How many connections are kept for the next read, per bucket.
const KEPT_MAX: usize = 64;

/// Opens every folder and bucket of a configuration, and the artifacts of each gate, by its name; they go on with what the gates
/// `before` a reload keep.
///
/// # Errors
/// A sentence for each that cannot be opened.
pub(crate) fn open(
    config: &Config,
    ground: &Ground,
    before: &ArtifactGates,
) -> Result<BTreeMap<String, Arc<Artifacts>>, Vec<String>> {
    let (opened, mut problems) = match buckets(config, ground) {
        Ok(opened) => (opened, Vec::new()),
        Err(problems) => (BTreeMap::new(), problems),
    };
    let before: Vec<_> = before.values().map(|gate| Arc::clone(gate.artifacts())).collect();
    let mut gates = BTreeMap::new();
    for (name, settings) in &config.artifacts {
        let origins = settings.origins.iter();
        let origins = origins.filter_map(|name| Some((name.clone(), opened.get(name.as_str())?.clone())));
        match Artifacts::open(name, settings, origins.collect(), Arc::clone(&ground.host), &before) {
            Ok(made) => drop(gates.insert(name.clone(), made)),
            Err(cause) => problems.push(format!("`gate.{name}`: {cause}")),
        }
    }
    if problems.is_empty() { Ok(gates) } else { Err(problems) }
}

/// Opens every folder and bucket of a configuration, by its name.
///
/// # Errors
/// A sentence for each that cannot be opened.
fn buckets(config: &Config, ground: &Ground) -> Result<BTreeMap<String, Objects>, Vec<String>> {
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

/// The buckets in which others have hashes of tokens, by the families that say so.
///
/// # Errors
/// A sentence for each that cannot be opened.
pub(crate) fn hashes(config: &Config, ground: &Ground) -> Result<BTreeMap<String, Arc<Hashes>>, Vec<String>> {
    if config.tokens.values().all(|family| family.hashes.is_none()) {
        return Ok(BTreeMap::new());
    }
    let opened = buckets(config, ground)?;
    let of = |(name, family): (&String, &FamilyConfig)| {
        let objects = opened.get(family.hashes.as_deref()?)?.clone();
        Some((name.clone(), Arc::new(Hashes::new(objects, Arc::clone(&ground.host)))))
    };
    Ok(config.tokens.iter().filter_map(of).collect())
}

/// Puts the artifacts of each gate behind its tokens.
pub(crate) fn gates(
    config: &Config,
    artifacts: BTreeMap<String, Arc<Artifacts>>,
    tokens: Option<&Tokens>,
) -> ArtifactGates {
    let gate = |(name, artifacts)| {
        // The configuration has its family, or it would have been refused.
        let access = tokens?.family(&config.artifacts.get(&name)?.tokens)?;
        Some((name, Arc::new(ArtifactGate::new(artifacts, Arc::new(access)))))
    };
    artifacts.into_iter().filter_map(gate).collect()
}
