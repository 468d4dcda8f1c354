//! TLS of a listener: what it proves itself with, and who its clients are.
//!
//! Any certificate of a client is taken, if its private key signed the handshake: whether it means anything is for the
//! issuer's clients to say, by its hash, or by names that an authority of this listener vouches for.

mod names;
mod shown;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyreeve::config::TlsConfig;
use keyreeve::core::time::Timestamp;
use keyreeve::port::{Host, Secrets};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(super) use shown::Shown;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The TLS of one listener.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// Says whether an authority vouches for a certificate.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    host: Arc<dyn Host>,
}

impl Tls {
    /// Reads certificates and keys. Clients are asked for a certificate where `asks`; none has to have one.
    ///
    /// # Errors
    /// A sentence that names the setting, and nothing of the key.
    pub(crate) fn new(
        config: &TlsConfig,
        asks: bool,
        secrets: &dyn Secrets,
        host: Arc<dyn Host>,
    ) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = certificates("certificate", secrets.read(&config.certificate)?.expose())?;
        let key = PrivateKeyDer::from_pem_slice(secrets.read(&config.key)?.expose())
            .map_err(|_| "`key` is no private key in PEM".to_owned())?;
        let mut revoked = Vec::new();
        for place in &config.crl {
            revoked.extend(revocations(secrets.read(place)?.expose())?);
        }
        let authorities = match &config.client_ca {
            Some(place) => Some(authorities(secrets.read(place)?.expose(), revoked, &provider)?),
            None => None,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match asks {
            true => builder.with_client_cert_verifier(Arc::new(Anybody(provider.signature_verification_algorithms))),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("`certificate` and `key` do not go together: {error}"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), authorities, host })
    }

    /// Shakes hands, [`HANDSHAKE`] at the most; answers with the certificate that the client showed.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Option<Shown>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await??;
        let shown = stream.get_ref().1.peer_certificates().and_then(Shown::new);
        Ok((stream, shown))
    }

    /// The names in the first certificate of `chain`, if an authority vouches for it at `now`; none without authorities.
    fn vouched(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Vec<String>, Error> {
        let (Some(authorities), Some((own, between))) = (&self.authorities, chain.split_first()) else {
            return Ok(Vec::new());
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        authorities.verify_client_cert(own, between, now).map(|_| names::of(own))
    }
}

fn certificates(setting: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(format!("`{setting}` holds no certificate in PEM")),
    }
}

/// The lists in a file: of certificates that are good no longer (RFC 5280 5).
fn revocations(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    lists.ok().filter(|lists| !lists.is_empty()).ok_or_else(|| "`crl` holds no revocation list in PEM".to_owned())
}

/// Where there are lists, an authority vouches for nothing without a list of its own that is up to date.
fn authorities(
    pem: &[u8],
    revoked: Vec<CertificateRevocationListDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("client_ca", pem)? {
        roots.add(authority).map_err(|error| format!("`client_ca` holds a certificate of no authority: {error}"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = builder.with_crls(revoked).enforce_revocation_expiration().build();
    verifier.map(|verifier| verifier as _).map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(error) => format!("a list in `crl` cannot be used: {error:?}"),
        error => format!("`client_ca` cannot be used: {error}"),
    })
}

/// Takes any certificate, of whoever has its private key.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
