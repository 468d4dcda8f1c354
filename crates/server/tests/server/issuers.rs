//! The sources that ask an authorization server or a cloud, against strict ones, through the real client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyreeve::config::{Config, CredentialConfig, ReadOptions};
use keyreeve::core::id::CredentialName;
use keyreeve::core::record::FaultClass;
use keyreeve::port::Host as _;
use keyreeve::source::{Fields, MintError, Minting, Nature, Source, Tools, build};
use keyreeve_picky::clock::PickyClock;
use keyreeve_picky::issuers::github::{self, Github};
use keyreeve_picky::issuers::google::{self, Google};
use keyreeve_picky::issuers::oauth::{self, Client, Server};
use keyreeve_picky::issuers::sts::{self, Sts};
use keyreeve_picky::issuers::{Fault, Faults, Key, WrongExpiry};
use keyreeve_server::fetch::{Fetch, FetchSettings};
use keyreeve_server::host::OsHost;
use keyreeve_server::secrets::OsSecrets;

use crate::support::{Parrot, host, http, order, token};

pub(crate) const RSA: &str = include_str!("../../../keyreeve/tests/keyreeve/keys/rsa2048-pkcs8.pem");
pub(crate) const RSA_PUBLIC: &str = include_str!("../../../keyreeve/tests/keyreeve/keys/rsa2048-public.pem");
pub(crate) const P256: &str = include_str!("../../../keyreeve/tests/keyreeve/keys/p256-pkcs8.pem");
pub(crate) const P256_PUBLIC: &str = include_str!("../../../keyreeve/tests/keyreeve/keys/p256-public.pem");

/// The credential `c` of a configuration whose secrets stand in it.
pub(crate) fn config(text: &str) -> CredentialConfig {
    let options = ReadOptions { allow_literals: true, ..ReadOptions::default() };
    let text = format!("seal.keys = [\"env:SEAL\"]\n{text}");
    let read = Config::read(&text, "test.toml", &BTreeMap::new(), options).unwrap_or_else(|error| panic!("{error}"));
    read.config.credentials["c"].clone()
}

pub(crate) fn tools(host: &Arc<OsHost>) -> Tools {
    Tools {
        host: host.clone(),
        http: Arc::new(Fetch::new(host.clone(), &FetchSettings::default()).unwrap()),
        programs: None,
        signer: keyreeve::crypto::signer,
        secrets: Arc::new(OsSecrets),
    }
}

/// A source that asks, and whose turn it is.
pub(crate) struct Asking {
    pub(crate) host: Arc<OsHost>,
    pub(crate) source: Arc<dyn Source>,
    mints: AtomicU64,
}

impl Asking {
    pub(crate) fn new(text: &str) -> Self {
        let host = host();
        let name = CredentialName::parse("c").unwrap();
        let source = build(&config(text), &name, &OsSecrets, &tools(&host)).unwrap_or_else(|error| panic!("{error}"));
        Self { host, source, mints: AtomicU64::new(0) }
    }

    pub(crate) async fn mint(&self) -> Result<Minting, MintError> {
        self.mint_within(20_000).await
    }

    pub(crate) async fn mint_within(&self, answer_ms: u64) -> Result<Minting, MintError> {
        // As each mint has a key of its own.
        let number = self.mints.fetch_add(1, Ordering::Relaxed);
        self.source.mint(&order(&self.host, answer_ms), &format!("k{number}")).await
    }
}

fn keys(pem: &str) -> Vec<Key> {
    Key::all(pem).unwrap()
}

fn client(secret: Option<&str>, keys: Vec<Key>) -> Client {
    Client { id: "push & co".into(), secret: secret.map(str::to_owned), keys }
}

async fn server(change: impl FnOnce(&mut oauth::Config)) -> Server {
    let mut config = oauth::Config { clients: vec![client(Some("s3cr3t: x%"), Vec::new())], ..Default::default() };
    change(&mut config);
    oauth::start(config).await.unwrap()
}

/// A client with `more` in its `params`.
fn oauth2(source: &str, server: &Server, more: &str) -> Asking {
    let url = server.token_url();
    Asking::new(&format!(
        "[credential.c]\nsource = \"{source}\"\n[credential.c.params]\ntoken_url = \"{url}\"\nclient_id = \"push & co\"\n{more}"
    ))
}

const SECRET: &str = "client_secret = \"s3cr3t: x%\"\n";

#[tokio::test]
async fn a_client_shows_its_secret_in_the_header_or_in_the_body() {
    let server = server(|_| {}).await;
    for auth in ["basic", "post"] {
        let asking = oauth2("oauth2-client", &server, &format!("{SECRET}auth = \"{auth}\"\n"));
        let minting = asking.mint().await.unwrap();
        assert!(token(&minting).starts_with("t-"), "{auth}");
        assert!(minting.expires_at > asking.host.now().wall.plus(3_500_000));
        assert_eq!((asking.source.kind(), asking.source.nature()), ("oauth2-client", Nature::Opaque));
    }
    assert_eq!(server.score().issued, 2);
}

#[tokio::test]
async fn a_client_signs_an_assertion_of_its_own_and_never_the_same_twice() {
    for (alg, private, public) in [("RS256", RSA, RSA_PUBLIC), ("ES256", P256, P256_PUBLIC)] {
        let server = server(|config| config.clients = vec![client(None, keys(public))]).await;
        let asking =
            oauth2("oauth2-client", &server, &format!("client_key = '''{private}'''\nclient_alg = \"{alg}\"\n"));
        asking.mint().await.unwrap();
        // The server refuses a `jti` that it has seen.
        asking.mint().await.unwrap();
        assert_eq!(server.score().issued, 2, "{alg}");
    }
}

#[tokio::test]
async fn a_clock_that_is_five_minutes_off_costs_one_call_more() {
    for offset_ms in [300_000, -300_000] {
        let clock = PickyClock::scaled(PickyClock::real().now_ms(), 1.0);
        let now_ms = clock.now_ms() + offset_ms;
        let server = server(|config| {
            config.clients = vec![client(None, keys(RSA_PUBLIC))];
            config.clock = PickyClock::manual(now_ms);
        })
        .await;
        let asking = oauth2("oauth2-client", &server, &format!("client_key = '''{RSA}'''\n"));
        let minting = asking.mint().await.unwrap();
        assert!(token(&minting).starts_with("t-"));
        let first = server.score().calls;
        // A life in seconds does not depend on anybody's clock, and what has been learnt is used the next time.
        assert!(minting.expires_at > asking.host.now().wall.plus(3_500_000));
        asking.mint().await.unwrap();
        assert!(first <= 2 && server.score().calls == first + 1, "{first} calls, {offset_ms}");
    }
}

#[tokio::test]
async fn an_error_of_the_protocol_says_what_helps_and_that_nothing_was_minted() {
    let server = server(|_| {}).await;
    let asking = oauth2("oauth2-client", &server, SECRET);
    for (status, code, class) in [
        (400, "invalid_request", FaultClass::Misconfigured),
        (401, "invalid_client", FaultClass::Misconfigured),
        (400, "invalid_grant", FaultClass::Terminal),
        (400, "unauthorized_client", FaultClass::Misconfigured),
        (400, "unsupported_grant_type", FaultClass::Misconfigured),
        (400, "invalid_scope", FaultClass::Misconfigured),
        (400, "invalid_target", FaultClass::Misconfigured),
        (403, "access_denied", FaultClass::Terminal),
        (503, "temporarily_unavailable", FaultClass::Transient),
        (500, "temporarily_unavailable", FaultClass::Transient),
        (400, "slow_down", FaultClass::Throttled),
        (429, "something_else", FaultClass::Throttled),
        (418, "something_else", FaultClass::Terminal),
    ] {
        server.set_faults(Faults::always(Fault::Fail { status, code: code.into(), retry_after_s: Some(7) })).unwrap();
        let error = asking.mint().await.unwrap_err();
        assert_eq!((error.class, error.may_have_minted), (class, false), "{status} {code}");
        assert_eq!(error.message, format!("the token endpoint answered {status}: {code}: picky says {code}"));
        // AWS throttles with 400 too: what passes by itself is asked again when it says.
        let is_passing = matches!(class, FaultClass::Throttled | FaultClass::Transient);
        assert_eq!(error.retry_after_ms, is_passing.then_some(7000), "{status} {code}");
    }
    assert_eq!(server.score().issued, 0);
}

#[tokio::test]
async fn a_wrong_secret_is_a_mistake_of_this_side_and_is_in_no_message() {
    let server = server(|_| {}).await;
    let error = oauth2("oauth2-client", &server, "client_secret = \"another-secret\"\n").mint().await.unwrap_err();
    assert_eq!(error.class, FaultClass::Misconfigured);
    assert!(!error.message.contains("another"), "{}", error.message);
    // A server that repeats what it was sent.
    let parrot = Parrot::start(|head| {
        let body =
            format!(r#"{{"error":"invalid_client","error_description":"{}"}}"#, head.replace(['\r', '\n', '"'], " "));
        http("401 Unauthorized", "content-type: application/json\r\n", &body)
    })
    .await;
    let asking = Asking::new(&format!(
        "[credential.c]\nsource = \"oauth2-client\"\nparams = {{ token_url = \"{}\", client_id = \"me\", client_secret = \"plainword\" }}\n",
        parrot.url()
    ));
    let error = asking.mint().await.unwrap_err();
    // base64 of `me:plainword`.
    assert!(!error.message.contains("bWU6cGxhaW53b3Jk") && error.message.contains("***"), "{}", error.message);
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_may_have_been_minted() {
    let server = server(|_| {}).await;
    let asking = oauth2("oauth2-client", &server, SECRET);
    for (fault, class, message) in [
        (Fault::Empty, FaultClass::Transient, "answered 200 with nothing"),
        (Fault::Garbage, FaultClass::Transient, "bytes that are not JSON"),
        (Fault::DropAfterIssue, FaultClass::Transient, "did not answer"),
        (Fault::Expiry { wrong: WrongExpiry::Absent }, FaultClass::Transient, "`expires_in` is missing"),
        (Fault::Expiry { wrong: WrongExpiry::Zero }, FaultClass::Transient, "`expires_in` is zero"),
        (Fault::Expiry { wrong: WrongExpiry::Absurd }, FaultClass::Misconfigured, "longer than `life.max`"),
        (Fault::Expiry { wrong: WrongExpiry::Nonsense }, FaultClass::Misconfigured, "`expires_in` is not"),
    ] {
        let issued = server.score().issued;
        server.set_faults(Faults::always(fault.clone())).unwrap();
        let error = asking.mint().await.unwrap_err();
        assert!(error.message.contains(message), "{fault:?}: {}", error.message);
        assert_eq!((error.class, error.may_have_minted), (class, true), "{fault:?}");
        assert_eq!(server.score().issued, issued + 1, "and in fact something was");
    }
    let asking = oauth2("oauth2-client", &server, &format!("{SECRET}default_life = \"10m\"\n"));
    server.set_faults(Faults::always(Fault::Expiry { wrong: WrongExpiry::Absent })).unwrap();
    let left_ms = asking.mint().await.unwrap().expires_at.since(asking.host.now().wall);
    assert!((590_000..=600_000).contains(&left_ms), "the life that was configured: {left_ms}");
}

#[tokio::test]
async fn a_plain_error_of_a_proxy_is_judged_by_its_status() {
    let server = server(|_| {}).await;
    let asking = oauth2("oauth2-client", &server, SECRET);
    for (status, may_have_minted) in [(503, false), (502, true), (500, true)] {
        server.set_faults(Faults::always(Fault::Plain { status })).unwrap();
        let error = asking.mint().await.unwrap_err();
        assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, may_have_minted), "{status}");
        assert_eq!(error.message, format!("the token endpoint answered {status}"));
    }
}

/// A credential that signs, and `more` that shows what it signs.
pub(crate) fn with_identity(audience: &str, more: &str) -> String {
    format!(
        "[credential.identity]\nsource = \"jwt\"\nkey = '''{P256}'''\nparams = {{ alg = \"ES256\", header = {{ kid = \"k\" }}, claims = {{ iss = \"https://issuer.example.org\", sub = \"keyreeve:lake\", aud = \"{audience}\", iat = \"{{iat}}\", exp = \"{{exp}}\" }} }}\nlife = {{ max = \"9m\" }}\n{more}"
    )
}

#[tokio::test]
async fn a_token_is_exchanged_for_another() {
    let server = server(|config| config.trusted = keys(P256_PUBLIC)).await;
    let params = format!(
        "[credential.c]\nsource = \"token-exchange\"\nparams = {{ token_url = \"{}\", client_id = \"push & co\", client_secret = \"s3cr3t: x%\", assertion = \"credential:identity\", audience = \"api\" }}\n",
        server.token_url()
    );
    let asking = Asking::new(&with_identity("anybody", &params));
    assert!(token(&asking.mint().await.unwrap()).starts_with("t-"));
    assert_eq!(asking.source.kind(), "token-exchange");
}

#[tokio::test]
async fn a_service_account_signs_for_itself() {
    let server = server(|config| config.trusted = keys(RSA_PUBLIC)).await;
    let file = serde_json::json!({
        "type": "service_account", "client_email": "me@project.iam.gserviceaccount.com", "private_key_id": "1",
        "private_key": RSA, "token_uri": server.token_url(),
    });
    let asking = Asking::new(&format!("[credential.c]\nsource = \"google-service-account\"\nkey = '''{file}'''\n"));
    assert!(token(&asking.mint().await.unwrap()).starts_with("t-"));
    let name = CredentialName::parse("c").unwrap();
    for (file, message) in [
        ("{}", "has no `client_email`"),
        (r#"{"type":"authorized_user"}"#, "not that of a service account"),
        ("-----BEGIN PRIVATE KEY-----", "the JSON file that Google gave"),
    ] {
        let config = config(&format!("[credential.c]\nsource = \"google-service-account\"\nkey = '''{file}'''\n"));
        let error = build(&config, &name, &OsSecrets, &tools(&asking.host)).err().unwrap();
        assert!(error.contains(message), "{error}");
    }
}

#[tokio::test]
async fn entra_is_shown_somebody_elses_assertion() {
    let url = "http://127.0.0.1:1";
    let text = with_identity(
        "api://AzureADTokenExchange",
        &format!(
            "[credential.c]\nsource = \"azure-federated\"\nparams = {{ tenant_id = \"contoso\", client_id = \"app\", scopes = [\"https://graph.microsoft.com/.default\"], assertion = \"credential:identity\", authority = \"{url}\" }}\n"
        ),
    );
    let asking = Asking::new(&text);
    assert_eq!(asking.source.kind(), "azure-federated");
    let error = asking.mint().await.unwrap_err();
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, false));
    let parrot = Parrot::start(|head| {
        let is_right = head.starts_with("POST /contoso/oauth2/v2.0/token ");
        let body = format!(r#"{{"token_type":"Bearer","access_token":"eyJ{is_right}","expires_in":"3599"}}"#);
        http("200 OK", "content-type: application/json\r\n", &body)
    })
    .await;
    let asking = Asking::new(&text.replace(url, &format!("http://{}", parrot.addr)));
    assert_eq!(token(&asking.mint().await.unwrap()), "eyJtrue");
}

async fn aws(change: impl FnOnce(&mut sts::Config)) -> Sts {
    let mut config = sts::Config { trusted: keys(P256_PUBLIC), ..Default::default() };
    change(&mut config);
    sts::start(config).await.unwrap()
}

fn role(sts: &Sts, more: &str) -> Asking {
    let params = format!(
        "[credential.c]\nsource = \"aws-web-identity\"\n[credential.c.params]\nrole_arn = \"arn:aws:iam::123456789012:role/lake\"\nregion = \"eu-central-1\"\nendpoint = \"{}\"\nassertion = \"credential:identity\"\n{more}",
        sts.url()
    );
    Asking::new(&with_identity("sts.amazonaws.com", &params))
}

#[tokio::test]
async fn a_role_is_assumed_with_a_web_identity() {
    let sts = aws(|config| config.subject = Some("keyreeve:lake".into())).await;
    let asking =
        role(&sts, "policy = '{\"Version\":\"2012-10-17\",\"Statement\":[]}'\n[credential.c.life]\nmax = \"15m\"\n");
    let minting = asking.mint().await.unwrap();
    let aws = minting.material.aws().unwrap();
    assert_eq!(aws.access_key_id.expose(), "ASIA0000000000000001");
    assert_eq!(aws.session_token.unwrap().expose(), "session//of+ASIA0000000000000001==");
    assert_eq!(aws.account_id.unwrap().expose(), "123456789012");
    assert!(matches!(&minting.material.secret, Fields::Named(named) if named.len() == 4));
}

#[tokio::test]
async fn every_error_of_sts_says_what_helps() {
    let sts = aws(|_| {}).await;
    let asking = role(&sts, "");
    for (status, code, class) in [
        (400, "ExpiredTokenException", FaultClass::Terminal),
        (400, "InvalidIdentityToken", FaultClass::Terminal),
        (403, "IDPRejectedClaim", FaultClass::Terminal),
        (400, "IDPCommunicationError", FaultClass::Transient),
        (400, "MalformedPolicyDocument", FaultClass::Misconfigured),
        (400, "PackedPolicyTooLarge", FaultClass::Misconfigured),
        (403, "RegionDisabledException", FaultClass::Misconfigured),
        (403, "AccessDenied", FaultClass::Terminal),
        (400, "Throttling", FaultClass::Throttled),
        (503, "ServiceUnavailable", FaultClass::Transient),
        (400, "ValidationError", FaultClass::Misconfigured),
    ] {
        sts.set_faults(Faults::always(Fault::Fail { status, code: code.into(), retry_after_s: None })).unwrap();
        let error = asking.mint().await.unwrap_err();
        assert_eq!((error.class, error.may_have_minted), (class, false), "{status} {code}");
        assert_eq!(error.message, format!("STS answered {status}: {code}: picky says no"));
    }
    sts.set_faults(Faults::always(Fault::Plain { status: 503 })).unwrap();
    let error = asking.mint().await.unwrap_err();
    assert_eq!((error.class, error.message.as_str()), (FaultClass::Transient, "STS answered 503"));
    assert_eq!(sts.score().issued, 0);
}

#[tokio::test]
async fn an_answer_of_sts_without_an_end_or_without_keys_is_not_taken() {
    let sts = aws(|_| {}).await;
    let asking = role(&sts, "");
    for (fault, message) in [
        (Fault::Empty, "STS answered 200 with nothing"),
        (Fault::Garbage, "STS answered 200 with 11 bytes that are not XML"),
        (Fault::Expiry { wrong: WrongExpiry::Absent }, "`Expiration` is missing"),
        (Fault::Expiry { wrong: WrongExpiry::Zero }, "`Expiration` is zero"),
        (Fault::Expiry { wrong: WrongExpiry::Absurd }, "longer than `life.max`"),
        (Fault::Expiry { wrong: WrongExpiry::Nonsense }, "`Expiration` is not RFC 3339"),
        (Fault::DropAfterIssue, "STS did not answer"),
    ] {
        sts.set_faults(Faults::always(fault.clone())).unwrap();
        let error = asking.mint().await.unwrap_err();
        assert!(error.message.contains(message) && error.may_have_minted, "{fault:?}: {}", error.message);
    }
    sts.set_faults(Faults::default()).unwrap();
    asking.mint().await.unwrap();
}

#[tokio::test]
async fn an_sts_that_hangs_is_cut_off_and_the_next_call_works() {
    let sts = aws(|_| {}).await;
    let asking = role(&sts, "");
    sts.set_faults(Faults::next(1, Fault::Hang { issued: false })).unwrap();
    let error = asking.source.mint(&order(&asking.host, 300), "k").await.unwrap_err();
    assert_eq!(error.message, "STS did not answer: none came before the deadline");
    asking.mint().await.unwrap();
}

#[tokio::test]
async fn a_web_identity_for_somebody_else_is_refused_by_sts_and_told() {
    for (change, message) in [
        (|config: &mut sts::Config| config.audience = "another".into(), "InvalidIdentityToken"),
        (|config: &mut sts::Config| config.subject = Some("another".into()), "AccessDenied"),
        (|config: &mut sts::Config| config.roles = Vec::new(), "AccessDenied"),
        (|config: &mut sts::Config| config.trusted = keys(RSA_PUBLIC), "InvalidIdentityToken"),
    ] as [(fn(&mut sts::Config), &str); 4]
    {
        let sts = aws(change).await;
        let error = role(&sts, "").mint().await.unwrap_err();
        assert!(error.message.contains(message) && error.class == FaultClass::Terminal, "{}", error.message);
    }
}

#[tokio::test]
async fn a_web_identity_in_a_file_is_read_for_each_mint() {
    let sts = aws(|_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let params = format!(
        "[credential.c]\nsource = \"aws-web-identity\"\nparams = {{ role_arn = \"arn:aws:iam::123456789012:role/lake\", region = \"eu-central-1\", endpoint = \"{}\", assertion = \"file:{}\" }}\n",
        sts.url(),
        file.display()
    );
    let asking = Asking::new(&params);
    let error = asking.mint().await.unwrap_err();
    assert!(error.message.starts_with("`params.assertion`: "), "{}", error.message);
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Misconfigured, false));
    let signer = Asking::new(&with_identity("sts.amazonaws.com", "").replace("credential.identity", "credential.c"));
    let write = |text: &str| {
        std::fs::write(&file, format!("{text}\n")).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    let mut order = order(&signer.host, 20_000);
    order.expires_at = order.issued_at.plus(60_000);
    write(token(&signer.source.mint(&order, "k").await.unwrap()));
    asking.mint().await.unwrap();
    write("not.a.token");
    let error = asking.mint().await.unwrap_err();
    assert!(
        error.message.contains("InvalidIdentityToken") && !error.message.contains("not.a.token"),
        "{}",
        error.message
    );
}

async fn hub(change: impl FnOnce(&mut github::Config)) -> Github {
    let mut config = github::Config { keys: keys(RSA_PUBLIC), installation_id: "42".into(), ..Default::default() };
    change(&mut config);
    github::start(config).await.unwrap()
}

fn app(github: &Github, more: &str) -> Asking {
    Asking::new(&format!(
        "[credential.c]\nsource = \"github-app\"\nkey = '''{RSA}'''\n[credential.c.params]\napp_id = \"Iv23liPICKY\"\ninstallation_id = 42\napi_url = \"{}\"\n{more}",
        github.api_url()
    ))
}

#[tokio::test]
async fn an_app_gets_a_token_of_its_installation_also_with_a_clock_five_minutes_off() {
    for offset_ms in [0, 300_000, -300_000] {
        let now_ms = PickyClock::real().now_ms() + offset_ms;
        let github = hub(|config| config.clock = PickyClock::manual(now_ms)).await;
        let asking = app(&github, "repositories = [\"keyreeve\"]\npermissions = { contents = \"read\" }\n");
        // The end is a moment of GitHub's clock, so with a clock that is behind it seems further away.
        let minting = asking.mint().await.unwrap();
        assert!(token(&minting).starts_with("ghs_picky"));
        assert!(github.score().calls <= 2, "{offset_ms}: {:?}", github.score());
    }
}

#[tokio::test]
async fn what_github_refuses_is_told() {
    let github = hub(|config| config.installation_id = "7".into()).await;
    let error = app(&github, "").mint().await.unwrap_err();
    assert_eq!(error.message, "GitHub answered 404: Not Found");
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Misconfigured, false));
    let github = hub(|config| config.keys = keys(P256_PUBLIC)).await;
    let error = app(&github, "").mint().await.unwrap_err();
    assert_eq!(error.message, "GitHub answered 401: A JSON web token could not be decoded");
    assert_eq!(github.score().calls, 1, "the same again would not help");
    let github = hub(|_| {}).await;
    let error = app(&github, "repositories = [\"forbidden\"]\n").mint().await.unwrap_err();
    assert!(error.class == FaultClass::Misconfigured && error.message.contains("422"), "{}", error.message);
    let limited =
        Fault::Fail { status: 403, code: "You have exceeded a secondary rate limit".into(), retry_after_s: Some(60) };
    github.set_faults(Faults::always(limited)).unwrap();
    let error = app(&github, "").mint().await.unwrap_err();
    assert_eq!((error.class, error.retry_after_ms), (FaultClass::Throttled, Some(60_000)));
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let server = server(|_| {}).await;
    server.set_faults(Faults::slow(Duration::from_millis(200))).unwrap();
    oauth2("oauth2-client", &server, SECRET).mint().await.unwrap();
}

async fn google(change: impl FnOnce(&mut google::Config)) -> Google {
    let mut config = google::Config { trusted: keys(P256_PUBLIC), ..Default::default() };
    change(&mut config);
    google::start(config).await.unwrap()
}

/// A workload identity, with `more` in its `params`.
fn federated(google: &Google, more: &str) -> Asking {
    let usual = google::Config::default();
    let params = format!(
        "[credential.c]\nsource = \"gcp-workload-identity\"\n[credential.c.params]\nprovider = \"{}\"\nsts_url = \"{}\"\niam_url = \"{}\"\nassertion = \"credential:identity\"\n{more}",
        usual.provider,
        google.sts_url(),
        google.iam_url()
    );
    Asking::new(&with_identity(&usual.audience, &params))
}

const ACCOUNT: &str = "service_account = \"lake@project.iam.gserviceaccount.com\"\n";

#[tokio::test]
async fn a_workload_identity_is_federated_and_acts_as_a_service_account() {
    let google = google(|_| {}).await;
    let minting = federated(&google, "").mint().await.unwrap();
    assert_eq!(token(&minting), "federated.1");
    assert_eq!((google.sts_score().issued, google.score().calls), (1, 0));
    let asking = federated(&google, ACCOUNT);
    let minting = asking.mint().await.unwrap();
    assert_eq!(token(&minting), "ya29.1");
    assert!(minting.expires_at > asking.host.now().wall.plus(3_500_000));
    assert_eq!((google.sts_score().issued, google.score().issued), (2, 1));
}

#[tokio::test]
async fn what_google_refuses_is_told_by_the_service_that_refused() {
    let stranger = google(|config| config.accounts = Vec::new()).await;
    let error = federated(&stranger, ACCOUNT).mint().await.unwrap_err();
    let said = "the IAM credentials API answered 403: PERMISSION_DENIED: picky says PERMISSION_DENIED";
    assert_eq!((error.class, error.may_have_minted, error.message.as_str()), (FaultClass::Terminal, false, said));
    let another = google(|config| config.audience = "another".into()).await;
    let error = federated(&another, ACCOUNT).mint().await.unwrap_err();
    assert_eq!(error.message, "the token endpoint answered 400: invalid_grant: picky says invalid_grant");
    assert_eq!((error.class, another.score().calls), (FaultClass::Terminal, 0));
    let google = google(|_| {}).await;
    for (status, code, class) in [
        (400, "INVALID_ARGUMENT", FaultClass::Misconfigured),
        (403, "PERMISSION_DENIED", FaultClass::Terminal),
        (429, "RESOURCE_EXHAUSTED", FaultClass::Throttled),
        (503, "UNAVAILABLE", FaultClass::Transient),
    ] {
        google.set_faults(Faults::always(Fault::Fail { status, code: code.into(), retry_after_s: None })).unwrap();
        let error = federated(&google, ACCOUNT).mint().await.unwrap_err();
        assert_eq!((error.class, error.may_have_minted), (class, false), "{code}");
    }
    assert_eq!(google.score().issued, 0);
}
