//! A throw-away certificate authority and a server certificate for this machine.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

/// What a server needs to speak TLS on loopback, and what its clients need to trust it.
pub(crate) struct Identity {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) ca_pem: String,
}

/// Makes a new authority and a certificate for `localhost`, `127.0.0.1` and `::1`, and offers `h2` only.
///
/// The keys live in this process and nowhere else. Validity is unlimited on purpose: clients of a simulation may run
/// with skewed clocks, and certificates are not what is being tested.
pub(crate) fn identity() -> io::Result<Identity> {
    let authority = Authority::new()?;
    let (certificate, key) = authority.server()?;
    let mut config = builder()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Identity { acceptor: TlsAcceptor::from(Arc::new(config)), ca_pem: authority.ca_pem })
}

/// What a server needs that demands a certificate of its clients, and an authority that makes them.
pub(crate) struct Mutual {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) authority: Authority,
}

/// As [`identity`], for `http/1.1`, and for clients only that have a certificate of the same authority.
pub(crate) fn mutual() -> io::Result<Mutual> {
    let authority = Authority::new()?;
    let (certificate, key) = authority.server()?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.clone()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let mut config = builder()?
        .with_client_cert_verifier(verifier.map_err(io::Error::other)?)
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Mutual { acceptor: TlsAcceptor::from(Arc::new(config)), authority })
}

fn builder() -> io::Result<rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)
}

/// A throw-away certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pub(crate) ca_pem: String,
}

impl Authority {
    fn new() -> io::Result<Self> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "keyreeve picky (for tests only)");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = authority.self_signed(&key).map_err(io::Error::other)?;
        let (ca_pem, der) = (certificate.pem(), certificate.der().clone());
        Ok(Self { issuer: Issuer::new(authority, key), certificate: der, ca_pem })
    }

    fn server(&self) -> io::Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>)> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let (certificate, key) = self.signed("localhost", &names)?;
        Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    /// A certificate for a client and its private key, in PEM.
    pub(crate) fn client(&self, name: &str) -> io::Result<String> {
        let (certificate, key) = self.signed(name, &[])?;
        Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
    }

    fn signed(&self, name: &str, names: &[String]) -> io::Result<(Certificate, KeyPair)> {
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok((certificate, key))
    }
}
