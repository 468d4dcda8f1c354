//! A real HTTP/2 client over TLS, a plain one, and a signer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use keyreeve_picky::apns::{self, Apns, Config, Key};
use keyreeve_picky::clock::PickyClock;

pub(crate) const START_MS: i64 = 1_700_000_000_000;
pub(crate) const START_S: i64 = START_MS / 1000;
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const TEAM: &str = "TEAM000001";
pub(crate) const KEY: &str = "KEY0000001";
pub(crate) const OTHER_TEAM: &str = "TEAM000002";
pub(crate) const OTHER_KEY: &str = "KEY0000002";
pub(crate) const DEVICE: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
/// No wait in a test is longer than this; it ends a test that would hang, it is never waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

pub(crate) fn key(team_id: &str, key_id: &str, seed: u8) -> Key {
    Key { team_id: team_id.into(), key_id: key_id.into(), public_key: *signing_key(seed).verifying_key() }
}

/// A token as the rightful owner of `TEAM`'s first key makes it.
pub(crate) fn token(iat: i64) -> String {
    sign(1, &json!({"alg": "ES256", "kid": KEY}), &json!({"iss": TEAM, "iat": iat}))
}

pub(crate) fn sign(seed: u8, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature: Signature = signing_key(seed).sign(signed.as_bytes());
    format!("{signed}.{}", encode(signature.to_bytes()))
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A fake Apple with one key (`seed` 1), whose time is moved by hand, and which can be changed before it starts.
pub(crate) async fn apple(change: impl FnOnce(&mut Config)) -> (Apns, PickyClock) {
    let clock = PickyClock::manual(START_MS);
    let mut config = Config { keys: vec![key(TEAM, KEY, 1)], clock: clock.clone(), ..Config::default() };
    change(&mut config);
    (apns::start(config).await.unwrap(), clock)
}

pub(crate) async fn tls(apple: &Apns, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(apple.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(apple.addr()).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// One HTTP/2 connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Client(http2::SendRequest<Full<Bytes>>);

#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The status and the reason: `(200, "")` for a notification that was taken.
    pub(crate) fn said(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["reason"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn connect(apple: &Apns) -> Self {
        let stream = tls(apple, &["h2"]).await.unwrap();
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        tokio::time::timeout(PATIENCE, async {
            let mut send = self.0.clone();
            send.ready().await?;
            collect(send.send_request(request).await?).await
        })
        .await
        .expect("an answer or an error in time")
    }

    /// Sends a notification that is good in every way but perhaps its token.
    pub(crate) async fn push(&self, token: &str) -> (u16, String) {
        self.send(notification(token)).await.unwrap().said()
    }
}

async fn collect(response: http::Response<hyper::body::Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

pub(crate) fn notification(token: &str) -> Request<Full<Bytes>> {
    request(token).body(Full::from(r#"{"aps":{"alert":"hi"}}"#)).unwrap()
}

pub(crate) fn request(token: &str) -> http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(format!("https://localhost/3/device/{DEVICE}"))
        .header("authorization", format!("bearer {token}"))
        .header("apns-topic", "com.example.app")
}

pub(crate) fn ok() -> (u16, String) {
    (200, String::new())
}

pub(crate) fn no(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

/// One request over plain HTTP/1.1 on a connection of its own.
pub(crate) async fn plain(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, hyper::Error> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    tokio::time::timeout(PATIENCE, async {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        collect(send.send_request(request).await?).await
    })
    .await
    .expect("an answer or an error in time")
}

/// Waits until `is_true`, without waiting for a fixed time.
pub(crate) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}
