//! Listeners with TLS, and clients that prove themselves by their certificates (RFC 8705).

use std::fs;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyreeve::core::crypto::Crypto as _;
use keyreeve::crypto::LocalCrypto;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use reqwest::{Certificate, Client, Identity, StatusCode};
use serde_json::Value;

use crate::node::{Node, Place, until};

/// An authority, and what it signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate with its key, in PEM.
pub(crate) struct Certified {
    pub(crate) pem: String,
    pub(crate) key: String,
    sha256: [u8; 32],
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::default();
        // OpenSSL takes a certificate for self-signed whose issuer has the same name.
        wanted.distinguished_name.push(DnType::CommonName, "an authority");
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = wanted.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(wanted, key), pem }
    }

    pub(crate) fn sign(&self, wanted: &CertificateParams) -> Certified {
        let key = KeyPair::generate().unwrap();
        certified(&wanted.signed_by(&key, &self.issuer).unwrap(), &key)
    }

    /// A list by which one certificate is good no longer, in PEM.
    fn revoke(&self, serial: u64) -> String {
        let revoked = rcgen::RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: rcgen::date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2126, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A certificate for the node.
    fn server(&self) -> Certified {
        self.sign(&CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap())
    }
}

fn certified(certificate: &rcgen::Certificate, key: &KeyPair) -> Certified {
    let sha256 = LocalCrypto.sha256(&[certificate.der().as_ref()]);
    Certified { pem: certificate.pem(), key: key.serialize_pem(), sha256 }
}

/// A certificate for a client by this name.
fn wanted(common_name: &str, uri: &str) -> CertificateParams {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    wanted.distinguished_name.push(DnType::OrganizationName, "Example");
    wanted.distinguished_name.push(DnType::CommonName, common_name);
    wanted.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    wanted
}

fn self_signed(wanted: &CertificateParams) -> Certified {
    let key = KeyPair::generate().unwrap();
    certified(&wanted.self_signed(&key).unwrap(), &key)
}

/// A node that serves `oauth2` over TLS, and what its clients have.
struct World {
    node: Node,
    place: Place,
    url: String,
    server_ca: String,
    clients: Authority,
    named: Certified,
    listed: Certified,
    stranger: Certified,
}

const URI: &str = "spiffe://example.org/orders";

async fn world() -> World {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = authority.server();
    let (named, listed) = (clients.sign(&wanted("orders", URI)), self_signed(&wanted("billing", "urn:billing")));
    // It says the same, and nobody vouches for it.
    let stranger = self_signed(&wanted("orders", URI));
    let place = Place::new();
    for (name, text) in [("server.pem", &server.pem), ("server.key", &server.key), ("clients.pem", &clients.pem)] {
        place.secret(name, text);
    }
    let file = |name: &str| format!("\"file:{}\"", place.path(name).display());
    let hash: String = listed.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let config = format!(
        r#"
store.url = "memory:"
seal.keys = [{}]
[[listener]]
bind = "127.0.0.1:0"
serve = ["oauth2"]
tls = {{ certificate = {}, key = {}, client_ca = {} }}
[issuer.gateway]
url = "https://gateway.example.org"
audience = ["internal-api"]
[client.orders]
issuer = "gateway"
certificate_name = "uri:{URI}"
can = ["client-credentials"]
[client.audit]
issuer = "gateway"
certificate_name = "subject:CN=orders,O=Example"
can = ["client-credentials"]
[client.billing]
issuer = "gateway"
certificate_sha256 = "{hash}"
can = ["client-credentials"]
"#,
        file("seal.key"),
        file("server.pem"),
        file("server.key"),
        file("clients.pem"),
    );
    fs::write(place.path("keyreeve.toml"), config).unwrap();
    let node = place.node(&place.path("keyreeve.toml"), "n1", &[]);
    let url = node.url().replacen("127.0.0.1", "localhost", 1);
    assert!(url.starts_with("https://"), "{url}");
    World { node, place, url, server_ca: authority.pem, clients, named, listed, stranger }
}

impl World {
    fn http(&self, shows: Option<&Certified>) -> Client {
        Self::trusting(&self.server_ca, shows)
    }

    fn trusting(server_ca: &str, shows: Option<&Certified>) -> Client {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let ca = Certificate::from_pem(server_ca.as_bytes()).unwrap();
        let mut client = Client::builder().no_proxy().tls_certs_only([ca]);
        if let Some(shown) = shows {
            let both = format!("{}{}", shown.pem, shown.key);
            client = client.identity(Identity::from_pem(both.as_bytes()).unwrap());
        }
        client.build().unwrap()
    }

    /// What `client` is answered, with the certificate that it shows.
    async fn token(&self, client: &str, shows: Option<&Certified>) -> (StatusCode, Value) {
        self.token_over(&self.http(shows), client).await.unwrap()
    }

    /// The same over the connection that `http` has, if it has one.
    async fn token_over(&self, http: &Client, client: &str) -> Result<(StatusCode, Value), reqwest::Error> {
        let form = format!("grant_type=client_credentials&client_id={client}");
        let request = http.post(format!("{}/oauth2/token", self.url)).body(form);
        let answer = request.header("content-type", "application/x-www-form-urlencoded").send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap()))
    }

    /// Gives the node a certificate of another authority, and waits until handshakes show it. What a client of the first
    /// authority still hears, it hears over a connection from before.
    async fn replace_certificate(&self) {
        let authority = Authority::new();
        let server = authority.server();
        self.place.secret("server.pem", &server.pem);
        self.place.secret("server.key", &server.key);
        self.node.signal("HUP");
        until("a handshake shows the new certificate", async || {
            let http = Self::trusting(&authority.pem, Some(&self.named));
            self.token_over(&http, "nobody").await.ok()
        })
        .await;
        let refused = self.token_over(&self.http(None), "nobody").await;
        assert!(refused.is_err_and(|error| error.is_connect()), "no handshake shows the old one");
    }
}

fn thumbprint(answer: &Value) -> Value {
    let token = answer["access_token"].as_str().unwrap();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["cnf"]["x5t#S256"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_proves_itself_by_its_certificate_over_real_tls() {
    let world = world().await;
    let encoded = |certified: &Certified| URL_SAFE_NO_PAD.encode(certified.sha256);
    for (client, shown) in [("orders", &world.named), ("audit", &world.named), ("billing", &world.listed)] {
        let (status, answer) = world.token(client, Some(shown)).await;
        assert_eq!(status, 200, "{client}: {answer}");
        assert_eq!(thumbprint(&answer), encoded(shown), "{client}");
    }
    for (client, shown) in [
        ("orders", Some(&world.stranger)),
        ("audit", Some(&world.stranger)),
        ("orders", Some(&world.listed)),
        ("billing", Some(&world.named)),
        ("billing", Some(&world.stranger)),
        ("orders", None),
        ("billing", None),
        ("nobody", Some(&world.named)),
    ] {
        let (status, answer) = world.token(client, shown).await;
        assert_eq!((status.as_u16(), &answer["error"]), (401, &"invalid_client".into()), "{client}: {answer}");
    }
    let discovery = world.http(None).get(format!("{}/.well-known/openid-configuration", world.url));
    let discovery: Value = serde_json::from_str(&discovery.send().await.unwrap().text().await.unwrap()).unwrap();
    let methods = discovery["token_endpoint_auth_methods_supported"].as_array().unwrap();
    for method in ["tls_client_auth", "self_signed_tls_client_auth"] {
        assert!(methods.contains(&method.into()), "{discovery}");
    }
    assert_eq!(discovery["tls_client_certificate_bound_access_tokens"], true);
}

/// Somebody else's TLS: curl over its own library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_a_token_with_its_certificate_and_none_without() {
    let world = world().await;
    for (name, text) in [("ca.pem", &world.server_ca), ("c.pem", &world.named.pem), ("c.key", &world.named.key)] {
        fs::write(world.place.path(name), text).unwrap();
    }
    let path = |name: &str| world.place.path(name).display().to_string();
    let url = format!("{}/oauth2/token", world.url);
    let (ca, certificate, key) = (path("ca.pem"), path("c.pem"), path("c.key"));
    let common = ["-sS", "--cacert", &ca, "-d", "grant_type=client_credentials&client_id=orders", &url];
    let curl = |more: &[&str]| {
        let output = Command::new("curl").args(common).args(more).stdin(Stdio::null()).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    };
    for version in ["1.2", "1.3"] {
        let answer = curl(&["--cert", &certificate, "--key", &key, "--tls-max", version]);
        assert_eq!(thumbprint(&answer), URL_SAFE_NO_PAD.encode(world.named.sha256), "TLS {version}: {answer}");
    }
    assert_eq!(curl(&[])["error"], "invalid_client");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_cannot_be_used_is_named_and_nothing_of_the_key_is_said() {
    let place = Place::new();
    let good = self_signed(&wanted("x", "urn:x"));
    let other = self_signed(&wanted("y", "urn:y"));
    for (certificate, key, said) in [
        ("no pem", good.key.as_str(), "`certificate` holds no certificate in PEM"),
        (&good.pem, "no pem either", "`key` is no private key in PEM"),
        (&good.pem, &other.key, "`certificate` and `key` do not go together"),
    ] {
        let (pem, file) = (place.secret("s.pem", certificate), place.secret("s.key", key));
        let config = format!(
            "store.url = \"memory:\"\n[[listener]]\nbind = \"127.0.0.1:0\"\ntls = {{ certificate = \"file:{}\", key = \"file:{}\" }}\n",
            pem.display(),
            file.display()
        );
        fs::write(place.path("bad.toml"), config).unwrap();
        let mut command = Command::new(crate::node::PROGRAM);
        command.args(["serve", "-c"]).arg(place.path("bad.toml")).stdin(Stdio::null());
        let output = command.output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(&format!("`listener[0].tls`: {said}")), "{err}");
        assert!(!err.contains("PRIVATE") && !err.contains("either"), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_takes_a_new_certificate_and_open_connections_go_on() {
    let world = world().await;
    let kept = world.http(Some(&world.named));
    assert_eq!(world.token_over(&kept, "orders").await.unwrap().0, 200);
    world.replace_certificate().await;
    let (status, answer) = world.token_over(&kept, "orders").await.unwrap();
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_ends_with_its_authority_on_an_open_connection_too() {
    let world = world().await;
    let (named, listed) = (world.http(Some(&world.named)), world.http(Some(&world.listed)));
    assert_eq!(world.token_over(&named, "orders").await.unwrap().0, 200);
    assert_eq!(world.token_over(&listed, "billing").await.unwrap().0, 200);
    let next = Authority::new();
    world.place.secret("clients.pem", &next.pem);
    world.replace_certificate().await;
    let (status, answer) = world.token_over(&named, "orders").await.unwrap();
    assert_eq!((status.as_u16(), &answer["error"]), (401, &"invalid_client".into()), "{answer}");
    assert_eq!(world.token_over(&listed, "billing").await.unwrap().0, 200, "who is known by its hash needs nobody");
    // The old one back, beside the new one: the same connection is good again.
    world.place.secret("clients.pem", &format!("{}{}", world.clients.pem, next.pem));
    world.node.signal("HUP");
    until("the name is good again", async || {
        (world.token_over(&named, "orders").await.unwrap().0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_its_authority_revokes_is_nobody_on_an_open_connection_too() {
    let world = world().await;
    let key = KeyPair::generate().unwrap();
    let mut lost = wanted("orders", URI);
    lost.serial_number = Some(7.into());
    let lost = certified(&lost.signed_by(&key, &world.clients.issuer).unwrap(), &key);
    let (named, lost) = (world.http(Some(&world.named)), world.http(Some(&lost)));
    for http in [&named, &lost] {
        assert_eq!(world.token_over(http, "orders").await.unwrap().0, 200);
    }
    world.place.secret("clients.crl", &world.clients.revoke(7));
    let config = fs::read_to_string(world.place.path("keyreeve.toml")).unwrap();
    let crl = format!("clients.pem\", crl = [\"file:{}\"] }}", world.place.path("clients.crl").display());
    fs::write(world.place.path("keyreeve.toml"), config.replace("clients.pem\" }", &crl)).unwrap();
    world.node.signal("HUP");
    until("the revoked one is nobody", async || {
        (world.token_over(&lost, "orders").await.unwrap().0 == 401).then_some(())
    })
    .await;
    assert_eq!(world.token_over(&named, "orders").await.unwrap().0, 200, "the other one of the same name is not");
    assert!(world.node.log_text().contains("Revoked"), "{}", world.node.log_text());
    // Half a file is no list: everything stays as it was.
    world.place.secret("clients.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    world.node.signal("HUP");
    until("the log says why", async || world.node.log_text().contains("a list in `crl` cannot be used").then_some(()))
        .await;
    assert_eq!(world.token_over(&lost, "orders").await.unwrap().0, 401);
}
