//! The `http` source against the counting issuer, through the real client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use keyreeve::config::{CredentialConfig, HttpMapping, Keep, Plan, SecretRef, SourceConfig};
use keyreeve::core::id::CredentialName;
use keyreeve::core::record::FaultClass;
use keyreeve::core::schedule::Slots;
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Mono;
use keyreeve::port::{Host as _, Http, HttpAnswer, HttpError, HttpRequest, Via};
use keyreeve::source::{MintError, Minting, Nature, Source, Tools, build};
use keyreeve_picky::upstream::{self, ExpiryForm, Fault, Faults, Upstream, WrongExpiry};
use keyreeve_server::fetch::{Fetch, FetchSettings};
use keyreeve_server::host::OsHost;
use keyreeve_server::secrets::OsSecrets;

use crate::support::{Parrot, host, http, order, token};

const ANSWER_BYTES_MAX: usize = 4096;

fn settings(url: &str) -> SourceConfig {
    SourceConfig::Http {
        url: url.into(),
        method: "POST".into(),
        headers: BTreeMap::new(),
        secret_headers: [("x-api-key".into(), SecretRef::Literal(Secret::new("s3cr3t-value".into())))].into(),
        body: Some(r#"{"generation": {generation}, "key": "{idempotency_key}", "until": "{expires_at}"}"#.into()),
        mapping: HttpMapping {
            token: Some("/token".into()),
            fields: BTreeMap::new(),
            expires_at: Some("/expires_at".into()),
            expires_in: None,
        },
        is_idempotent: true,
        answer_bytes_max: ANSWER_BYTES_MAX,
    }
}

fn built(host: &Arc<OsHost>, source: SourceConfig) -> Result<Arc<dyn Source>, String> {
    built_over(host, Arc::new(Fetch::new(host.clone(), &FetchSettings::default()).unwrap()), source)
}

fn built_over(host: &Arc<OsHost>, http: Arc<dyn Http>, source: SourceConfig) -> Result<Arc<dyn Source>, String> {
    built_via(host, http, source, None)
}

fn built_via(
    host: &Arc<OsHost>,
    http: Arc<dyn Http>,
    source: SourceConfig,
    via: Option<Via>,
) -> Result<Arc<dyn Source>, String> {
    let slots = Slots {
        period_ms: 1,
        backdate_ms: 0,
        life_ms: 1,
        skew_ms: 0,
        upstream_skew_ms: 0,
        flight_ms: 0,
        min_interval_ms: 0,
    };
    let config = CredentialConfig { source, plan: Plan::Slot(slots), keep: Keep::Always, wait_ms: 1000, via };
    let tools = Tools {
        host: host.clone(),
        http,
        programs: None,
        signer: keyreeve::crypto::signer,
        secrets: Arc::new(OsSecrets),
    };
    build(&config, &CredentialName::parse("lake").unwrap(), &OsSecrets, &tools)
}

struct Service {
    issuer: Upstream,
    host: Arc<OsHost>,
    source: Arc<dyn Source>,
}

impl Service {
    async fn start(config: upstream::Config) -> Self {
        let issuer = upstream::start(config).await.unwrap();
        let host = host();
        let source = built(&host, settings(&issuer.mint_url())).unwrap();
        Self { issuer, host, source }
    }

    async fn mint(&self, key: &str) -> Result<Minting, MintError> {
        self.source.mint(&order(&self.host, 20_000), key).await
    }

    async fn failed(&self, fault: Fault) -> MintError {
        self.issuer.set_faults(Faults::always(fault)).unwrap();
        self.mint("k").await.unwrap_err()
    }
}

async fn plain() -> Service {
    Service::start(upstream::Config::default()).await
}

#[tokio::test]
async fn a_service_mints_and_a_repetition_brings_the_same() {
    let service = Service::start(upstream::Config { honours_idempotency: true, ..Default::default() }).await;
    assert_eq!((service.source.kind(), service.source.nature()), ("http", Nature::Idempotent));
    let first = service.mint("lake/9").await.unwrap();
    assert_eq!(token(&first), "t-1");
    assert!(first.expires_at > service.host.now().wall.plus(3_500_000));
    assert_eq!(token(&service.mint("lake/9").await.unwrap()), "t-1");
    assert_eq!(token(&service.mint("lake/10").await.unwrap()), "t-2");
    assert_eq!(service.issuer.score().mints, 2);
}

#[tokio::test]
async fn an_end_in_seconds_since_1970_is_understood() {
    let service = Service::start(upstream::Config { expiry: ExpiryForm::UnixSeconds, ..Default::default() }).await;
    assert!(service.mint("k").await.unwrap().expires_at > service.host.now().wall.plus(3_500_000));
}

#[tokio::test]
async fn a_refusal_says_what_helps_and_that_nothing_was_minted() {
    let service = plain().await;
    for (status, class) in [
        (400, FaultClass::Terminal),
        (401, FaultClass::Terminal),
        (403, FaultClass::Terminal),
        (404, FaultClass::Terminal),
        (422, FaultClass::Terminal),
        (408, FaultClass::Transient),
        (425, FaultClass::Transient),
        (503, FaultClass::Transient),
        (429, FaultClass::Throttled),
    ] {
        let error = service.failed(Fault::Fail { status, retry_after_s: Some(30) }).await;
        assert_eq!((error.class, error.may_have_minted), (class, false), "{status}");
        assert_eq!(error.message, format!("the service answered {status}: injected"));
        let retry_after_ms = matches!(status, 408 | 425 | 429 | 503).then_some(30_000);
        assert_eq!(error.retry_after_ms, retry_after_ms, "{status}");
    }
    assert_eq!(service.issuer.score().mints, 0);
}

#[tokio::test]
async fn a_broken_service_may_have_minted() {
    let service = plain().await;
    for status in [500, 502, 504, 599] {
        let error = service.failed(Fault::Fail { status, retry_after_s: None }).await;
        assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, true), "{status}");
        assert_eq!(error.retry_after_ms, None);
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_may_have_been_minted() {
    let service = plain().await;
    let missing = "an answer in which `/expires_at` is missing: a credential without an end is not taken";
    for (fault, class, message) in [
        (Fault::Empty, FaultClass::Transient, "the service answered 200 with nothing".to_owned()),
        (
            Fault::Garbage,
            FaultClass::Transient,
            "the service answered 200 with 32 bytes that are not JSON (line 1, column 1)".into(),
        ),
        (
            Fault::Expiry { wrong: WrongExpiry::Absent },
            FaultClass::Transient,
            format!("the service answered 200 with {missing}"),
        ),
        (
            Fault::Expiry { wrong: WrongExpiry::Zero },
            FaultClass::Transient,
            "the service answered 200 with an answer in which `/expires_at` is zero".into(),
        ),
        (Fault::Expiry { wrong: WrongExpiry::Past }, FaultClass::Transient, "in the past, by 1h".into()),
        (
            Fault::Expiry { wrong: WrongExpiry::Nonsense },
            FaultClass::Misconfigured,
            "`/expires_at` is not RFC 3339 text or seconds since 1970".into(),
        ),
        (
            Fault::TooBig { bytes: 2 * ANSWER_BYTES_MAX },
            FaultClass::Misconfigured,
            "the service answered with more than 4096 bytes".into(),
        ),
    ] {
        let minted_before = service.issuer.score().mints;
        let error = service.failed(fault.clone()).await;
        assert!(error.message.contains(&message), "{fault:?}: {}", error.message);
        assert_eq!((error.class, error.may_have_minted), (class, true), "{fault:?}");
        assert_eq!(service.issuer.score().mints, minted_before + 1, "and in fact something was");
    }
}

#[tokio::test]
async fn a_lost_answer_may_have_been_minted_and_is_not_asked_for_again() {
    let service = plain().await;
    for (fault, mints) in [(Fault::DropAfterCount, 1), (Fault::DropBefore, 1)] {
        let error = service.failed(fault).await;
        assert!(error.message.starts_with("the service did not answer: "), "{}", error.message);
        assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, true));
        assert_eq!(service.issuer.score().mints, mints);
    }
    assert_eq!(service.issuer.score().calls, 2, "one call each");
}

#[tokio::test]
async fn a_service_that_hangs_is_cut_off_at_the_deadline() {
    let service = plain().await;
    service.issuer.set_faults(Faults::always(Fault::Hang { minted: true })).unwrap();
    let error = service.source.mint(&order(&service.host, 500), "k").await.unwrap_err();
    assert_eq!(error.message, "the service did not answer: none came before the deadline");
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, true));
    assert_eq!(service.issuer.score().mints, 1);
}

#[tokio::test]
async fn a_service_that_is_not_there_has_minted_nothing() {
    let service = plain().await;
    let source = Arc::clone(&service.source);
    let order = order(&service.host, 20_000);
    service.issuer.shutdown().await;
    let error = source.mint(&order, "k").await.unwrap_err();
    assert!(error.message.starts_with("the service was not reached: "), "{}", error.message);
    assert!(error.message.contains("refused"), "{}", error.message);
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, false));
}

#[tokio::test]
async fn nothing_is_sent_after_the_lease_was_over() {
    let service = plain().await;
    let mut late = order(&service.host, 5000);
    late.send_by = keyreeve::core::time::Mono(0);
    crate::support::until("the clock has moved", || service.host.now().mono.0 > 0).await;
    let error = service.source.mint(&late, "k").await.unwrap_err();
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, false));
    assert_eq!(service.issuer.score().calls, 0);
}

#[tokio::test]
async fn a_request_carries_what_was_configured() {
    let parrot = Parrot::start(|head| {
        let lines: Vec<_> = head.lines().filter(|line| !line.starts_with("host:")).collect();
        http("400 Bad Request", "content-type: text/plain\r\n", &lines.join(" | "))
    })
    .await;
    let host = host();
    let source = SourceConfig::Http {
        url: format!("{}?g={{generation}}&k={{idempotency_key}}", parrot.url()),
        method: "GET".into(),
        headers: [("x-until".into(), "in {generation}".into())].into(),
        secret_headers: [("x-api-key".into(), SecretRef::Literal(Secret::new("plain words".into())))].into(),
        body: None,
        mapping: HttpMapping {
            token: Some("/t".into()),
            fields: BTreeMap::new(),
            expires_at: Some("/e".into()),
            expires_in: None,
        },
        is_idempotent: false,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let source = built(&host, source).unwrap();
    assert_eq!(source.nature(), Nature::Opaque);
    let error = source.mint(&order(&host, 20_000), "a b").await.unwrap_err();
    for part in ["GET /mint?g=7&k=***", "x-until: in 7", "idempotency-key: ***", "accept: application/json"] {
        let redacted = part.replace("***", if part.starts_with("GET") { "a%20b" } else { "a b" });
        assert!(error.message.contains(part) || error.message.contains(&redacted), "{part}: {}", error.message);
    }
    // The service repeats the key, as some do; the history must not.
    assert!(error.message.contains("x-api-key: ***") && !error.message.contains("plain"), "{}", error.message);
    assert!(error.message.len() < 300);
}

/// Keeps what it is asked to send, and sends nothing.
#[derive(Default)]
struct Kept(Mutex<Vec<HttpRequest>>);

#[async_trait]
impl Http for Kept {
    async fn send(&self, request: HttpRequest, _deadline: Mono) -> Result<HttpAnswer, HttpError> {
        self.0.lock().unwrap().push(request);
        Err(HttpError::NotSent("kept".into()))
    }
}

#[tokio::test]
async fn another_worker_and_a_client_certificate_are_named_to_the_platform() {
    let (host, kept) = (host(), Arc::new(Kept::default()));
    let named = |url: &str, binding: Option<&str>| {
        let via = binding.map(|name| Via::Binding(name.to_owned()));
        built_via(&host, kept.clone(), settings(url), via)
    };
    let service = named("service:RENEWAL/renew/{generation}?k={idempotency_key}", None).unwrap();
    let bank = named("https://bank.example.org/token", Some("BANK_CERTIFICATE")).unwrap();
    for source in [service, bank] {
        assert!(!source.mint(&order(&host, 20_000), "a b").await.unwrap_err().may_have_minted);
    }
    let asked: Vec<_> = kept.0.lock().unwrap().iter().map(|it| (it.url.clone(), it.via.clone())).collect();
    assert_eq!(asked[0], ("service:RENEWAL/renew/7?k=a%20b".into(), None));
    assert_eq!(asked[1], ("https://bank.example.org/token".into(), Some(Via::Binding("BANK_CERTIFICATE".into()))));
    for wrong in ["service:/renew", "service:RENEWAL/a b"] {
        assert_eq!(named(wrong, None).err().unwrap(), "credential `lake`: `url` is not `service:NAME/path`");
    }
}

#[tokio::test]
async fn an_error_document_is_quoted_short_and_redacted() {
    let parrot = Parrot::start(|_| {
        let body = format!(
            r#"{{"error":"invalid_grant","error_description":"token ghp_16C7e42F292c6912E7710c838347Ae178B4a {}"}}"#,
            "is long ".repeat(100)
        );
        http("400 Bad Request", "content-type: application/json\r\n", &body)
    })
    .await;
    let host = host();
    let source = built(&host, settings(&parrot.url())).unwrap();
    let error = source.mint(&order(&host, 20_000), "k").await.unwrap_err();
    assert!(
        error.message.starts_with("the service answered 400: invalid_grant: token *** is long"),
        "{}",
        error.message
    );
    assert!(error.message.ends_with("...") && error.message.len() < 300);
}

#[tokio::test]
async fn an_html_page_is_not_quoted() {
    let parrot = Parrot::start(|_| http("403 Forbidden", "content-type: text/html\r\n", "<html>hello</html>")).await;
    let host = host();
    let source = built(&host, settings(&parrot.url())).unwrap();
    let error = source.mint(&order(&host, 20_000), "k").await.unwrap_err();
    assert_eq!(error.message, "the service answered 403");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Parrot::start(|_| http("200 OK", "", "{}")).await;
    let to = elsewhere.url();
    for (status, may_have_minted) in [("302 Found", false), ("307 Temporary Redirect", false), ("303 See Other", true)]
    {
        let to = to.clone();
        let parrot = Parrot::start(move |_| http(status, &format!("location: {to}\r\n"), "")).await;
        let host = host();
        let source = built(&host, settings(&parrot.url())).unwrap();
        let error = source.mint(&order(&host, 20_000), "k").await.unwrap_err();
        assert_eq!((error.class, error.may_have_minted), (FaultClass::Misconfigured, may_have_minted));
        assert_eq!(
            error.message,
            format!("the service answered {}, and redirects are not followed", &status.split(' ').next().unwrap())
        );
        assert_eq!(parrot.heard(), 1);
    }
    assert_eq!(elsewhere.heard(), 0);
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let error = |change: fn(&mut SourceConfig)| {
        let mut source = settings("https://example.com/mint");
        change(&mut source);
        built(&host(), source).err().unwrap()
    };
    macro_rules! set {
        ($field:ident = $value:expr) => {
            |source| {
                if let SourceConfig::Http { $field, .. } = source {
                    *$field = $value;
                }
            }
        };
    }
    assert_eq!(
        error(set!(url = "http://example.com/mint".into())),
        "credential `lake`: `url` must be `https`, except to this machine"
    );
    assert!(error(set!(url = "https://a:b@example.com/".into())).contains("must not hold a user or password"));
    assert_eq!(error(set!(url = "ftp://example.com".into())), "credential `lake`: `url` must be `https`, not `ftp`");
    assert!(error(set!(url = "example".into())).ends_with("`url` must be absolute"));
    assert!(error(set!(method = "PUT".into())).ends_with("`method` must be `GET` or `POST`, not `PUT`"));
    assert!(error(set!(body = Some("{generaton}".into()))).contains("`body`: no such placeholder: `{generaton}`"));
    assert!(
        error(|source| {
            if let SourceConfig::Http { mapping, .. } = source {
                mapping.expires_at = None;
            }
        })
        .contains("either `expires_at` or `expires_in`")
    );
    assert!(
        error(|source| {
            if let SourceConfig::Http { mapping, .. } = source {
                mapping.token = Some("token".into());
            }
        })
        .ends_with("`token` is no JSON pointer\nhint: `/token` may be meant")
    );
    assert!(
        error(|source| {
            *source = SourceConfig::Exec {
                argv: vec!["true".into()],
                pass: Vec::new(),
                secrets: BTreeMap::new(),
                output_bytes_max: 1,
            };
        })
        .ends_with("source `exec` cannot run programs on this platform")
    );
}
