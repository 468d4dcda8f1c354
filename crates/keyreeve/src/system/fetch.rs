//! HTTP to the outside, as the [`Http`] port: reqwest over rustls.
//!
//! No redirects, no retries, no connection kept for the next request unless configured (one that has gone stale meanwhile would
//! leave in doubt what a fresh one makes certain), no proxy unless configured.
//!
//! Client certificates and authorities in files are read for each request, and a client is kept for as long as they are
//! the same: whoever replaces a file is obeyed by the next request.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use keyreeve_core::crypto::Crypto as _;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Mono;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Proxy};

use super::secrets::OsSecrets;
use crate::config::SecretRef;
use crate::crypto::LocalCrypto;
use crate::port::{Host, Http, HttpAnswer, HttpError, HttpRequest, Secrets as _, Via};

/// How HTTP leaves this machine.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Certificate authorities besides the system's, in PEM.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// A proxy for all requests, by URL.
    pub proxy: Option<String>,
    /// How long a connection may take to make, TLS included, in real milliseconds. A request whose connection was not
    /// made in time was certainly not sent.
    pub connect_ms: u64,
    /// How many connections to one host are kept for later requests.
    pub kept_max: usize,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self { extra_ca_pem: None, proxy: None, connect_ms: 3000, kept_max: 0 }
    }
}

/// The largest file of certificates that is read, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 1024 * 1024;
/// How many clients with certificates of their own are kept.
const DOORS_MAX: usize = 256;

/// An HTTP client.
pub struct Fetch {
    client: Client,
    settings: FetchSettings,
    doors: Mutex<BTreeMap<Via, Door>>,
    host: Arc<dyn Host>,
}

/// A client with certificates from files, and what they held.
struct Door {
    held: [u8; 32],
    client: Client,
}

impl Fetch {
    /// Makes a client; deadlines are measured by `host`.
    ///
    /// The system's certificate authorities are used (or those of `SSL_CERT_FILE`). Where there are none, only hosts
    /// under `extra_ca_pem` can be reached by `https`, and a warning is logged.
    ///
    /// # Errors
    /// A sentence about a certificate or a proxy that cannot be used.
    pub fn new(host: Arc<dyn Host>, settings: &FetchSettings) -> Result<Self, String> {
        // For the whole process, and at most once: whoever was first chose the same library.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let extra = match &settings.extra_ca_pem {
            Some(pem) => {
                Certificate::from_pem_bundle(pem).map_err(|_| "the extra certificate authorities are not PEM")?
            }
            None => Vec::new(),
        };
        if settings.extra_ca_pem.is_some() && extra.is_empty() {
            return Err("there is no certificate among the extra certificate authorities".into());
        }
        let client = match builder(settings)?.tls_certs_merge(extra.clone()).build() {
            Ok(client) => client,
            Err(cause) => {
                let client = builder(settings)?.tls_certs_only(extra).build().map_err(|cause| reason(&cause))?;
                tracing::warn!(cause = reason(&cause), "the system's certificate authorities cannot be used");
                client
            }
        };
        Ok(Self { client, settings: settings.clone(), doors: Mutex::default(), host })
    }

    /// The client for a request.
    ///
    /// # Errors
    /// A sentence about a file that cannot be used.
    pub fn client(&self, via: Option<&Via>) -> Result<Client, String> {
        let (certificate, authorities) = match via {
            None => return Ok(self.client.clone()),
            Some(Via::Binding(name)) => return Err(format!("the certificate binding `{name}` exists on Workers only")),
            Some(Via::Files { certificate, authorities }) => (certificate.as_deref(), authorities.as_deref()),
        };
        let certificate = certificate
            // With a private key in it, so with the rules for secrets.
            .map(|path| OsSecrets.read(&SecretRef::File(path.to_owned())).map_err(|cause| format!("`via`: {cause}")))
            .transpose()?;
        let authorities = authorities.map(|path| file(path).map_err(|cause| format!("`ca`: {cause}"))).transpose()?;
        let held = LocalCrypto.sha256(&[
            certificate.as_ref().map_or(&[][..], |pem| pem.expose()),
            &[0],
            authorities.as_deref().unwrap_or_default(),
        ]);
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((door, via)) = via.and_then(|via| Some((doors.get(via)?, via))) {
            if door.held == held {
                return Ok(door.client.clone());
            }
            tracing::info!(?via, "the certificates have changed");
        }
        let client = door(&self.settings, certificate.as_ref(), authorities.as_deref())?;
        if doors.len() >= DOORS_MAX {
            doors.clear();
        }
        doors.extend(via.map(|via| (via.clone(), Door { held, client: client.clone() })));
        Ok(client)
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpAnswer, HttpError> {
        let client = self.client(request.via.as_ref()).map_err(HttpError::NotSent)?;
        let answer_bytes_max = request.answer_bytes_max;
        let mut builder = client.request(request.method, &request.url);
        for (name, value) in &request.headers {
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
                HttpError::NotSent(format!("the value of `{name}` has characters that no header may carry"))
            })?;
            value.set_sensitive(true);
            builder = builder.header(name, value);
        }
        if !request.body.expose().is_empty() {
            builder = builder.body(request.body.expose().clone());
        }
        let mut response = builder.send().await.map_err(|error| failed(&error))?;
        let too_large = || HttpError::TooLarge(answer_bytes_max);
        let limit = u64::try_from(answer_bytes_max).unwrap_or(u64::MAX);
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Secret::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| HttpError::NoAnswer(reason(&error)))? {
            if body.expose().len().saturating_add(chunk.len()) > answer_bytes_max {
                return Err(too_large());
            }
            body = Secret::new([body.expose().as_slice(), &chunk].concat());
        }
        Ok(HttpAnswer { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }
}

#[async_trait]
impl Http for Fetch {
    async fn send(&self, request: HttpRequest, deadline: Mono) -> Result<HttpAnswer, HttpError> {
        if self.host.now().mono >= deadline {
            return Err(HttpError::NotSent("the deadline was over".into()));
        }
        tokio::select! {
            answer = self.answer(request) => answer,
            () = self.host.sleep_until(deadline) => Err(HttpError::NoAnswer("none came before the deadline".into())),
        }
    }

    fn check(&self, via: &Via) -> Result<(), String> {
        self.client(Some(via)).map(drop)
    }
}

/// A client with a certificate, or with authorities of its own.
fn door(
    settings: &FetchSettings,
    certificate: Option<&Secret<Vec<u8>>>,
    authorities: Option<&[u8]>,
) -> Result<Client, String> {
    let mut builder = builder(settings)?;
    if let Some(pem) = certificate {
        let identity = Identity::from_pem(pem.expose());
        builder = builder.identity(identity.map_err(|_| {
            "`via`: the file has to hold a certificate, its chain and its private key in PEM".to_owned()
        })?);
    }
    if let Some(pem) = authorities {
        let authorities = Certificate::from_pem_bundle(pem).ok().filter(|found| !found.is_empty());
        builder = builder.tls_certs_only(authorities.ok_or("`ca`: there is no certificate in PEM in the file")?);
    }
    builder.build().map_err(|cause| reason(&cause))
}

/// A file that everybody may read.
fn file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |cause: std::io::Error| format!("cannot read `{}`: {cause}", path.display());
    // Before opening: opening a pipe would wait for somebody to write.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > CERTIFICATES_BYTES_MAX {
        return Err(format!("`{}` is no regular file of at most {CERTIFICATES_BYTES_MAX} bytes", path.display()));
    }
    std::fs::read(path).map_err(failed)
}

fn builder(settings: &FetchSettings) -> Result<ClientBuilder, String> {
    let mut builder = Client::builder()
        .user_agent(concat!("keyreeve/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_max_idle_per_host(settings.kept_max)
        .connect_timeout(Duration::from_millis(settings.connect_ms))
        .no_proxy();
    if let Some(url) = &settings.proxy {
        // A proxy's URL may hold a password, so it is not repeated.
        builder = builder.proxy(Proxy::all(url).map_err(|_| "the proxy is not a URL")?);
    }
    Ok(builder)
}

/// Whether a request that failed may have been acted on.
#[must_use]
pub fn failed(error: &reqwest::Error) -> HttpError {
    if error.is_connect() || error.is_builder() || is_refused_handshake(error) {
        HttpError::NotSent(reason(error))
    } else {
        HttpError::NoAnswer(reason(error))
    }
}

/// Whether the other side has ended the handshake because of our certificate. In TLS 1.3 that is heard only after the
/// request has been written (RFC 8446 4.4.2.4), and nobody has read it.
fn is_refused_handshake(error: &reqwest::Error) -> bool {
    use rustls::AlertDescription as Alert;

    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = cause {
        let of_io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = of_io.and_then(|inner| inner.downcast_ref()).or_else(|| inner.downcast_ref());
        if let Some(rustls::Error::AlertReceived(alert)) = found {
            return matches!(
                alert,
                Alert::CertificateRequired
                    | Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::AccessDenied
                    | Alert::DecryptError
                    | Alert::HandshakeFailure
            );
        }
        cause = inner.source();
    }
    false
}

/// The innermost causes, which say something, without the URL, which may hold a secret.
fn reason(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    causes.dedup();
    let from = causes.len().saturating_sub(2);
    match causes.get(from..) {
        Some(last) if !last.is_empty() => last.join(": "),
        _ if error.is_timeout() => "it took too long".into(),
        _ => "the request could not be made".into(),
    }
}
