//! The HTTP client on real sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use keyreeve::core::secret::Secret;
use keyreeve::port::{Host as _, Http as _, HttpAnswer, HttpError, HttpRequest, Via};
use keyreeve_server::fetch::{Fetch, FetchSettings};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Parrot, host, http, reply};

fn get(url: &str) -> HttpRequest {
    HttpRequest {
        method: Method::GET,
        url: url.into(),
        via: None,
        headers: Vec::new(),
        body: Secret::new(Vec::new()),
        answer_bytes_max: 1000,
    }
}

async fn send(settings: &FetchSettings, request: HttpRequest, within_ms: u64) -> Result<HttpAnswer, HttpError> {
    let host = host();
    let deadline = host.now().mono.plus(within_ms);
    Fetch::new(host, settings).unwrap().send(request, deadline).await
}

async fn fetch(request: HttpRequest) -> Result<HttpAnswer, HttpError> {
    send(&FetchSettings::default(), request, 20_000).await
}

fn not_sent(result: Result<HttpAnswer, HttpError>) -> String {
    match result {
        Err(HttpError::NotSent(cause)) => cause,
        Err(other) => panic!("{other}"),
        Ok(answer) => panic!("{}", answer.status),
    }
}

/// A TLS server for `localhost` under an authority of its own; gives the port and the authority in PEM.
async fn private_server() -> (u16, Vec<u8>) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                reply(stream, |_| http("200 OK", "", "over tls")).await;
            }
        }
    });
    (port, ca_certificate.pem().into_bytes())
}

#[tokio::test]
async fn a_private_authority_is_believed_only_where_it_is_configured() {
    let (port, authority) = private_server().await;
    let request = get(&format!("https://localhost:{port}/"));
    let cause = not_sent(fetch(request.clone()).await);
    assert!(cause.contains("certificate"), "{cause}");
    let settings = FetchSettings { extra_ca_pem: Some(authority), ..FetchSettings::default() };
    let answer = send(&settings, request, 20_000).await.unwrap();
    assert_eq!((answer.status, answer.body.expose().as_slice()), (200, &b"over tls"[..]));
    // The certificate is for another name.
    let cause = not_sent(send(&settings, get(&format!("https://127.0.0.1:{port}/")), 20_000).await);
    assert!(cause.contains("certificate"), "{cause}");
}

#[test]
fn an_authority_that_is_none_is_refused() {
    for pem in [&b""[..], b"hunter2", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let settings = FetchSettings { extra_ca_pem: Some(pem.to_vec()), ..FetchSettings::default() };
        let error = Fetch::new(host(), &settings).err().expect("it was taken");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_made_was_not_sent() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(not_sent(fetch(get(&format!("http://{closed}/"))).await).contains("refused"));
    assert!(!not_sent(fetch(get("http://no such host/?token=hunter2")).await).contains("hunter2"));
    not_sent(fetch(get("gopher://localhost/")).await);
    let mut request = get("http://127.0.0.1:9/");
    request.headers.push((http::header::ACCEPT, Secret::new("a\nb".into())));
    assert_eq!(not_sent(fetch(request).await), "the value of `accept` has characters that no header may carry");
    assert_eq!(not_sent(send(&FetchSettings::default(), get("http://127.0.0.1:9/"), 0).await), "the deadline was over");
}

#[tokio::test]
async fn a_handshake_that_hangs_was_not_sent() {
    // Accepts connections and says nothing, so that TLS never begins.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let settings = FetchSettings { connect_ms: 200, ..FetchSettings::default() };
    let started = Instant::now();
    not_sent(send(&settings, get(&format!("https://{addr}/")), 20_000).await);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_answer_that_never_comes_or_stops_half_way_is_no_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let error = send(&FetchSettings::default(), get(&url), 300).await.err();
    assert_eq!(error, Some(HttpError::NoAnswer("none came before the deadline".into())));
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let parrot = Parrot::start(move |_| answer.into()).await;
        let error = fetch(get(&parrot.url())).await.err();
        assert!(matches!(error, Some(HttpError::NoAnswer(_))), "{answer}: {error:?}");
        assert_eq!(parrot.heard(), 1, "asked once");
    }
}

#[tokio::test]
async fn an_answer_is_bounded_whether_or_not_it_says_its_length() {
    let body = |bytes: usize| http("200 OK", "", &"x".repeat(bytes));
    let exact = Parrot::start(move |_| body(1000)).await;
    assert_eq!(fetch(get(&exact.url())).await.unwrap().body.expose().len(), 1000);
    let large = Parrot::start(move |_| body(1001)).await;
    assert_eq!(fetch(get(&large.url())).await.err(), Some(HttpError::TooLarge(1000)));
    let unsaid =
        |bytes: usize| format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(bytes)).into_bytes();
    let exact = Parrot::start(move |_| unsaid(1000)).await;
    assert_eq!(fetch(get(&exact.url())).await.unwrap().body.expose().len(), 1000);
    let large = Parrot::start(move |_| unsaid(100_000)).await;
    assert_eq!(fetch(get(&large.url())).await.err(), Some(HttpError::TooLarge(1000)));
}

#[tokio::test]
async fn a_proxy_is_used_where_it_is_configured() {
    let proxy = Parrot::start(|head| http("200 OK", "", head.lines().next().unwrap())).await;
    let settings = FetchSettings { proxy: Some(format!("http://{}", proxy.addr)), ..FetchSettings::default() };
    let answer = send(&settings, get("http://service.invalid/mint"), 20_000).await.unwrap();
    assert_eq!(answer.body.expose().as_slice(), b"GET http://service.invalid/mint HTTP/1.1");
    let settings = FetchSettings { proxy: Some("http://a:hunter2@[".into()), ..FetchSettings::default() };
    assert_eq!(Fetch::new(host(), &settings).err().unwrap(), "the proxy is not a URL");
}

#[tokio::test]
async fn a_certificate_binding_or_another_worker_is_nothing_that_a_native_node_could_reach() {
    let settings = FetchSettings::default();
    let via = HttpRequest { via: Some(Via::Binding("BANK".into())), ..get("http://127.0.0.1:1/") };
    let error = send(&settings, via, 5000).await.err().unwrap();
    assert_eq!(error, HttpError::NotSent("the certificate binding `BANK` exists on Workers only".into()));
    let error = send(&settings, get("service:RENEWAL/renew"), 5000).await.err().unwrap();
    assert!(matches!(error, HttpError::NotSent(_)), "{error}");
}
