//! From settings to a source.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use keyreeve_core::id::CredentialName;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Mono, Span};

use super::apns::Apns;
use super::aws_web_identity::AwsWebIdentity;
use super::exec::{Exec, ExecSettings};
use super::gcp_workload_identity::GcpWorkloadIdentity;
use super::github_app::GithubApp;
use super::google_service_account::GoogleServiceAccount;
use super::http::{HttpService, HttpSettings};
use super::identity::{Identified, Identity};
use super::jwt::Jwt;
use super::oauth2_client::Oauth2Client;
use super::oauth2_refresh::Oauth2Refresh;
use super::token_exchange::TokenExchange;
use super::upstream::Upstream;
use super::{MintError, Source};
use crate::config::{CredentialConfig, Plan, SecretRef, SourceConfig};
use crate::crypto::MakeSigner;
use crate::port::{Host, Http, Programs, Secrets, Via};

/// What sources reach the world with.
#[derive(Clone)]
pub struct Tools {
    /// Clocks.
    pub host: Arc<dyn Host>,
    /// HTTP to the outside.
    pub http: Arc<dyn Http>,
    /// Programs, where the platform can run any.
    pub programs: Option<Arc<dyn Programs>>,
    /// Reads private keys.
    pub signer: MakeSigner,
    /// Reads what is read anew for each mint: tokens that somebody else replaces.
    pub secrets: Arc<dyn Secrets>,
}

/// What a source is made with.
pub(super) struct Made<'a> {
    pub(super) name: &'a CredentialName,
    pub(super) skew_ms: u64,
    pub(super) via: Option<&'a Via>,
    pub(super) tools: &'a Tools,
    pub(super) given: &'a dyn Secrets,
}

impl Made<'_> {
    pub(super) fn upstream(&self, who: &'static str) -> Upstream {
        Upstream {
            name: self.name.clone(),
            who,
            skew_ms: self.skew_ms,
            via: self.via.cloned(),
            host: Arc::clone(&self.tools.host),
            http: Arc::clone(&self.tools.http),
            offset_ms: AtomicI64::new(0),
        }
    }

    /// A secret, by the setting that names it.
    pub(super) fn secret(&self, setting: &str, reference: &SecretRef) -> Result<Secret<Vec<u8>>, String> {
        self.given.read(reference).map_err(|cause| format!("`{setting}`: {cause}"))
    }

    /// A secret that is text.
    pub(super) fn text(&self, setting: &str, reference: &SecretRef) -> Result<Secret<String>, String> {
        super::exec::text(setting, &self.secret(setting, reference)?)
    }
}

/// Makes the source of a credential. Keys and secrets are read here, once; a changed key file needs a reload.
///
/// # Errors
/// A sentence that begins with the credential's name, names the setting and holds no secret.
pub fn build(
    config: &CredentialConfig,
    name: &CredentialName,
    secrets: &dyn Secrets,
    tools: &Tools,
) -> Result<Arc<dyn Source>, String> {
    let source = source(config, name, secrets, tools).map_err(|cause| format!("credential `{name}`: {cause}"))?;
    Ok(match Identity::of(config) {
        Some(identity) => Arc::new(Identified { source, identity }),
        None => source,
    })
}

fn source(
    config: &CredentialConfig,
    name: &CredentialName,
    secrets: &dyn Secrets,
    tools: &Tools,
) -> Result<Arc<dyn Source>, String> {
    let skew_ms = match &config.plan {
        Plan::Fleet(rules) => rules.skew_ms,
        Plan::Slot(slots) => slots.skew_ms,
    };
    let via = config.via.as_ref();
    via.map_or(Ok(()), |via| tools.http.check(via))?;
    let made = Made { name, skew_ms, via, tools, given: secrets };
    Ok(match &config.source {
        SourceConfig::Apns { key, team_id, key_id } => Arc::new(Apns::new(&secrets.read(key)?, team_id, key_id)?),
        SourceConfig::Jwt { key, algorithm, header, claims } => {
            let key = secrets.read(key)?;
            let signer = (tools.signer)(*algorithm, &key).map_err(|cause| format!("`key`: {cause}"))?;
            Arc::new(Jwt::new(signer, header, claims)?)
        }
        SourceConfig::Exec { argv, pass, secrets: references, output_bytes_max } => {
            let programs = tools.programs.clone().ok_or("source `exec` cannot run programs on this platform")?;
            let settings = ExecSettings { argv, pass, references, output_bytes_max: *output_bytes_max };
            Arc::new(Exec::new(name, settings, secrets, Arc::clone(&tools.host), programs)?)
        }
        SourceConfig::Http { url, method, headers, secret_headers, body, mapping, is_idempotent, answer_bytes_max } => {
            let settings = HttpSettings {
                name,
                skew_ms,
                url,
                via,
                method,
                headers,
                secret_headers,
                body: body.as_deref(),
                mapping,
                is_idempotent: *is_idempotent,
                answer_bytes_max: *answer_bytes_max,
            };
            Arc::new(HttpService::new(settings, secrets, Arc::clone(&tools.host), Arc::clone(&tools.http))?)
        }
        SourceConfig::Oauth2Client(token) | SourceConfig::AzureFederated(token) => {
            Arc::new(Oauth2Client::new(config.source.kind(), token, &made)?)
        }
        SourceConfig::Oauth2Refresh(refresh) => Arc::new(Oauth2Refresh::new(refresh, &made)?),
        SourceConfig::TokenExchange(exchange) => Arc::new(TokenExchange::new(exchange, &made)?),
        SourceConfig::GithubApp(github) => Arc::new(GithubApp::new(github, &made)?),
        SourceConfig::GoogleServiceAccount(google) => Arc::new(GoogleServiceAccount::new(google, &made)?),
        SourceConfig::AwsWebIdentity(aws) => Arc::new(AwsWebIdentity::new(aws, &made)?),
        SourceConfig::GcpWorkloadIdentity(gcp) => Arc::new(GcpWorkloadIdentity::new(gcp, &made)?),
    })
}

/// When a source gives up: shortly before `order.answer_by`, at which its caller stops listening. Else nobody would hear
/// what a program that hangs had complained about.
pub(super) fn cut_off(host: &dyn Host, order: &Order) -> Mono {
    const MARGIN_MS_MAX: u64 = 500;
    let left_ms = order.answer_by.since(host.now().mono);
    Mono(order.answer_by.0.saturating_sub(MARGIN_MS_MAX.min(left_ms / 10)))
}

/// Refuses to send after `order.send_by`: by then somebody else may hold the lease.
pub(super) fn check_send_by(host: &dyn Host, order: &Order) -> Result<(), MintError> {
    let late_ms = host.now().mono.since(order.send_by);
    if late_ms > 0 {
        let message = format!("not sent: the lease was over for {}", Span(late_ms));
        return Err(MintError::nothing_minted(FaultClass::Transient, message));
    }
    Ok(())
}
