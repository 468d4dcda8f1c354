//! What a node listens for besides its API, and the files it keeps: made from the configuration, made anew at a reload.

use std::collections::BTreeSet;
use std::sync::Arc;

use keyreeve::config::{Bind, Config, FileConfig, FileForm, InjectConfig, MetadataKind, Surface, TlsConfig};
use keyreeve::core::secret::Secret;
use keyreeve::http::{self, Api, Inject, Site};
use keyreeve::outbound::{Outbound, Served};
use keyreeve::port::Host;
use keyreeve::source::Fields;
use keyreeve_server::passage::Streams;
use keyreeve_server::written::write_whole;
use serde_json::json;
use tokio::task::AbortHandle;

use crate::listen::Bound;

/// A socket, and what is to be found behind it.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) bind: Bind,
    pub(crate) behind: Behind,
    /// What it proves itself with, where it speaks TLS.
    pub(crate) tls: Option<TlsConfig>,
}

/// What a listener serves.
#[derive(Clone)]
pub(crate) enum Behind {
    /// Groups of routes.
    Surfaces(BTreeSet<Surface>),
    /// A stand-in for the metadata service of a cloud.
    Metadata(MetadataKind),
    /// A gate that adds a credential.
    Inject(Box<InjectConfig>),
    /// The gate of artifacts of this name.
    Artifact(String),
}

impl Door {
    /// Everything that a configuration has besides its listeners.
    pub(crate) fn of(config: &Config) -> impl Iterator<Item = Self> {
        let metadata = config.metadata.values().map(|one| Self {
            bind: one.bind.clone(),
            behind: Behind::Metadata(one.kind.clone()),
            tls: None,
        });
        let injects = config.injects.values().map(|one| Self {
            bind: one.bind.clone(),
            behind: Behind::Inject(Box::new(one.clone())),
            tls: None,
        });
        let artifacts = config.artifacts.iter().map(|(name, one)| Self {
            bind: one.bind.clone(),
            behind: Behind::Artifact(name.clone()),
            tls: one.tls.clone(),
        });
        metadata.chain(injects).chain(artifacts)
    }

    /// What answers.
    pub(crate) fn site(&self, api: &Arc<Api>, streams: &Streams) -> Site {
        let api = Arc::clone(api);
        match &self.behind {
            Behind::Surfaces(surfaces) => Site::new(api, surfaces),
            Behind::Metadata(kind) => Site::metadata(api, kind.clone()),
            Behind::Artifact(name) => Site::artifacts(api, name),
            Behind::Inject(config) => {
                let passage: Arc<dyn http::Passage> = Arc::new(streams.by(config.via.clone()));
                Site::inject(api, Inject::new((**config).clone(), passage))
            }
        }
    }

    /// Sees to it that keys do not travel further than to the next machine, as AWS has it.
    pub(crate) fn prepare(&self, bound: &Bound) {
        if matches!(self.behind, Behind::Metadata(MetadataKind::Aws { .. })) {
            bound.stay_near();
        }
    }
}

/// How often a file is looked at for a new generation: no more often, and no less, in milliseconds.
const LOOK_MS_MIN: u64 = 1000;
const LOOK_MS_MAX: u64 = 30_000;

/// The tasks that keep files up to date; they end when this is dropped. The files stay.
#[derive(Default)]
pub(crate) struct Files(Vec<AbortHandle>);

impl Drop for Files {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Files {
    /// Keeps every configured file up to date from now on.
    pub(crate) fn keep(config: &Config, outbound: &Outbound, host: &Arc<dyn Host>) -> Self {
        let tasks = config.files.iter().map(|(name, file)| {
            let (outbound, host) = (outbound.clone(), Arc::clone(host));
            tokio::spawn(keep(name.clone(), file.clone(), outbound, host)).abort_handle()
        });
        Self(tasks.collect())
    }
}

async fn keep(name: String, file: FileConfig, outbound: Outbound, host: Arc<dyn Host>) {
    let mut written = None;
    let mut notices = outbound.notices();
    loop {
        let deadline = host.now().mono.plus(LOOK_MS_MAX);
        let mut wait_ms = LOOK_MS_MIN;
        let taken = outbound.token(file.credential.as_str(), 0, deadline).await;
        let taken = taken.map_err(|error| error.message).and_then(|served| {
            let generation = (served.generation, served.is_stale);
            wait_ms = served.keep_ms(host.now()).clamp(LOOK_MS_MIN, LOOK_MS_MAX);
            if written == Some(generation) && std::fs::symlink_metadata(&file.path).is_ok() {
                return Ok(());
            }
            write_whole(&file.path, &content(&file, &served)?)?;
            written = Some(generation);
            tracing::info!(file = name, credential = %file.credential, generation = served.generation, "written");
            Ok(())
        });
        if let Err(error) = taken {
            tracing::warn!(file = name, credential = %file.credential, "the file is not up to date: {error}");
        }
        let until = host.now().mono.plus(wait_ms);
        tokio::select! {
            // About whichever credential: looking costs nothing. One that was missed is made up for by the next look.
            _ = notices.recv() => {}
            () = host.sleep_until(until) => {}
        }
    }
}

fn content(file: &FileConfig, served: &Served) -> Result<Secret<Vec<u8>>, String> {
    let at = i64::try_from(served.expires_at.0).unwrap_or(i64::MAX);
    let expires_at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::MAX).to_string();
    let name = file.credential.as_str();
    let text = match (file.form, &served.material.secret) {
        (FileForm::Raw, Fields::Token(token)) => token.expose().clone(),
        (FileForm::Raw, Fields::Named(_)) => {
            return Err(format!("`{name}` has named fields and is no token: use another `form`"));
        }
        (FileForm::Json, Fields::Token(token)) => {
            json!({ "name": name, "generation": served.generation, "token": token.expose(), "expires_at": expires_at })
                .to_string()
        }
        (FileForm::Json, Fields::Named(fields)) => {
            let fields: serde_json::Map<_, _> =
                fields.iter().map(|(name, value)| (name.clone(), value.expose().clone().into())).collect();
            json!({ "name": name, "generation": served.generation, "fields": fields, "expires_at": expires_at })
                .to_string()
        }
        (FileForm::Aws, Fields::Named(fields)) => {
            let field = |field: &str| fields.get(field).map(|value| value.expose().as_str());
            let (Some(id), Some(secret)) = (field("AccessKeyId"), field("SecretAccessKey")) else {
                return Err(format!("`{name}` is no AWS credential"));
            };
            let token = field("SessionToken").map_or(String::new(), |token| format!("aws_session_token = {token}\n"));
            format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n{token}")
        }
        (FileForm::Aws, Fields::Token(_)) => return Err(format!("`{name}` is no AWS credential")),
    };
    Ok(Secret::new(text.into_bytes()))
}
