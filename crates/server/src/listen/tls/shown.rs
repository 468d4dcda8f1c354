//! The certificate that a client has shown, for as long as its connection lasts.
//!
//! A connection may outlive a certificate, its authority, or what a list says about it. So the chain is kept, and judged for each
//! request: by the listener's present authorities, at the present time.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use keyreeve::core::crypto::Crypto as _;
use keyreeve::core::time::Timestamp;
use keyreeve::crypto::LocalCrypto;
use keyreeve::http::ClientCertificate;
use rustls::pki_types::CertificateDer;

use super::Tls;

/// How long a verdict holds at the most, in milliseconds.
const HOLDS_MS: u64 = 60_000;

/// A chain that a client has shown, its own certificate first, and what was found about it.
pub(in crate::listen) struct Shown {
    chain: Box<[CertificateDer<'static>]>,
    sha256: [u8; 32],
    verdict: ArcSwapOption<Verdict>,
}

/// What was found about the names of a certificate.
struct Verdict {
    names: Arc<[String]>,
    at: Timestamp,
    holds_ms: u64,
    /// Whose verdict it is: that of no other TLS, however alike. A reload makes one.
    by: Weak<Tls>,
}

impl Shown {
    /// The chain of a handshake, where there is one.
    pub(super) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let sha256 = LocalCrypto.sha256(&[chain.first()?.as_ref()]);
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        Some(Self { chain, sha256, verdict: ArcSwapOption::empty() })
    }

    /// The certificate with those of its names that somebody vouches for, as far as its listener knows at the moment.
    pub(in crate::listen) fn certificate(&self, tls: Option<&Arc<Tls>>) -> ClientCertificate {
        let names = tls.map_or_else(|| Arc::from([]), |tls| self.names(tls, tls.host.now().latest()));
        ClientCertificate { sha256: self.sha256, names }
    }

    fn names(&self, tls: &Arc<Tls>, now: Timestamp) -> Arc<[String]> {
        if let Some(known) = &*self.verdict.load()
            && std::ptr::eq(known.by.as_ptr(), Arc::as_ptr(tls))
            && known.at <= now
            && now.since(known.at) < known.holds_ms
        {
            return Arc::clone(&known.names);
        }
        let verdict = Arc::new(self.judge(tls, now));
        self.verdict.store(Some(Arc::clone(&verdict)));
        Arc::clone(&verdict.names)
    }

    fn judge(&self, tls: &Arc<Tls>, now: Timestamp) -> Verdict {
        let by = Arc::downgrade(tls);
        match tls.vouched(&self.chain, now) {
            Ok(names) => {
                // Whoever is not vouched for at the end of that time is judged by the request until then.
                let is_lasting = tls.vouched(&self.chain, now.plus(HOLDS_MS)).is_ok();
                Verdict { names: names.into(), at: now, holds_ms: if is_lasting { HOLDS_MS } else { 0 }, by }
            }
            Err(cause) => {
                tracing::info!("nobody vouches for the certificate of a client: {cause}");
                Verdict { names: Arc::from([]), at: now, holds_ms: HOLDS_MS, by }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use keyreeve::config::{SecretRef, TlsConfig};
    use keyreeve::core::secret::Secret;
    use keyreeve_server::host::OsHost;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    type Authority = Issuer<'static, KeyPair>;

    /// Midnight of 2030-01-01 and of the days after it.
    const fn day(days: u64) -> Timestamp {
        Timestamp(1_893_456_000_000 + days * 86_400_000)
    }

    /// An authority that ends on this day of January 2030, and its certificate; its own authority where there is none.
    fn authority(name: &str, ends: u8, above: Option<&Authority>) -> (Authority, rcgen::Certificate) {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.not_after = date_time_ymd(2030, 1, ends);
        let certificate = match above {
            Some(above) => wanted.signed_by(&key, above),
            None => wanted.self_signed(&key),
        };
        (Issuer::new(wanted, key), certificate.unwrap())
    }

    /// A chain for `orders.internal` that ends on this day of January 2030.
    fn chain(ends: u8, by: &Authority, between: &[&rcgen::Certificate]) -> Shown {
        let mut wanted = CertificateParams::new(vec!["orders.internal".to_owned()]).unwrap();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        wanted.not_after = date_time_ymd(2030, 1, ends);
        let own = wanted.signed_by(&KeyPair::generate().unwrap(), by).unwrap();
        let chain: Vec<_> = [&own].iter().chain(between).map(|one| one.der().clone()).collect();
        Shown::new(&chain).unwrap()
    }

    /// The TLS of a listener that believes in this authority and in these lists.
    fn tls(authority: &rcgen::Certificate, lists: &[String]) -> Arc<Tls> {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let literal = |text: String| SecretRef::Literal(Secret::new(text));
        let config = TlsConfig {
            certificate: literal(own.cert.pem()),
            key: literal(own.signing_key.serialize_pem()),
            client_ca: Some(literal(authority.pem())),
            crl: lists.iter().cloned().map(literal).collect(),
        };
        Arc::new(Tls::new(&config, true, &keyreeve_server::secrets::OsSecrets, Arc::new(OsHost::new())).unwrap())
    }

    fn is_known(shown: &Shown, tls: &Arc<Tls>, at: Timestamp) -> bool {
        let names = shown.names(tls, at);
        assert!(names.is_empty() || *names == ["dns:orders.internal".to_owned()], "{names:?}");
        !names.is_empty()
    }

    #[test]
    fn a_verdict_holds_for_a_minute_and_for_one_configuration() {
        let (root, certificate) = authority("root", 20, None);
        let (first, second) = (tls(&certificate, &[]), tls(&certificate, &[]));
        let shown = chain(10, &root, &[]);
        let begin = shown.names(&first, day(1));
        let is_kept = |tls, at| Arc::ptr_eq(&begin, &shown.names(tls, at));
        assert!(is_kept(&first, day(1)) && is_kept(&first, day(1).plus(HOLDS_MS - 1)));
        assert!(!is_kept(&first, day(1).plus(HOLDS_MS)), "a minute has passed");
        let begin = shown.names(&first, day(2));
        assert!(!Arc::ptr_eq(&begin, &shown.names(&first, day(1))), "somebody has set the clock");
        let begin = shown.names(&first, day(2));
        assert!(!Arc::ptr_eq(&begin, &shown.names(&second, day(2))), "the configuration was read again");
        let other = tls(&authority("root", 20, None).1, &[]);
        assert!(!is_known(&shown, &other, day(2)), "its authority is another one of the same name");
        assert!(is_known(&shown, &first, day(2)));
        assert_eq!(shown.certificate(None).names.len(), 0, "the listener speaks no TLS any more");
    }

    #[test]
    fn no_verdict_outlives_the_certificate_or_an_authority_above_it() {
        let (root, certificate) = authority("root", 20, None);
        let (between, middle) = authority("between", 5, Some(&root));
        let tls = tls(&certificate, &[]);
        for (shown, ends) in [(chain(10, &root, &[]), day(9)), (chain(10, &between, &[&middle]), day(4))] {
            for before_ms in [HOLDS_MS * 3 / 2, HOLDS_MS / 2, 1] {
                assert!(is_known(&shown, &tls, ends.minus(before_ms)));
            }
            assert!(!is_known(&shown, &tls, ends.plus(1000)));
        }
        let early = chain(10, &root, &[]);
        assert!(is_known(&early, &tls, day(9).minus(HOLDS_MS)));
        assert!(!is_known(&early, &tls, day(9).plus(1000)), "61 s later");
    }

    #[test]
    fn where_there_are_lists_an_authority_needs_one_that_is_up_to_date() {
        let (root, certificate) = authority("root", 20, None);
        let (between, middle) = authority("between", 20, Some(&root));
        let list = |by: &Authority, until: u8| {
            let wanted = rcgen::CertificateRevocationListParams {
                this_update: date_time_ymd(2026, 1, 1),
                next_update: date_time_ymd(2030, 1, until),
                crl_number: 1.into(),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: rcgen::KeyIdMethod::Sha256,
            };
            wanted.signed_by(by).unwrap().pem().unwrap()
        };
        let (below, direct) = (chain(10, &between, &[&middle]), chain(10, &root, &[]));
        let both = format!("{}{}", list(&root, 3), list(&between, 3));
        for (lists, is_direct, is_below) in [
            (vec![], true, true),
            (vec![list(&root, 3), list(&between, 3)], true, true),
            (vec![both], true, true),
            (vec![list(&root, 3)], true, false),
            (vec![list(&between, 3)], false, false),
        ] {
            let tls = tls(&certificate, &lists);
            let found = (is_known(&direct, &tls, day(1)), is_known(&below, &tls, day(1)));
            assert_eq!(found, (is_direct, is_below), "{lists:?}");
            assert_eq!(is_known(&direct, &tls, day(2).plus(1000)), lists.is_empty(), "the lists are out of date");
        }
    }
}
