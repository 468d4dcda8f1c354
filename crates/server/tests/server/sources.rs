//! Every source that asks somebody, and everything that goes wrong there: one table for all of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyreeve::core::id::{CredentialName, NodeId};
use keyreeve::core::record::FaultClass;
use keyreeve::core::seal::{KeyRing, SealKey};
use keyreeve::core::time::Span;
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::error::ErrorKind;
use keyreeve::outbound::{Credential, Drive, Outbound, Parts};
use keyreeve::port::Host as _;
use keyreeve::source::{Before, Fields, Kept, MintError, Minting, build};
use keyreeve_picky::clock::PickyClock;
use keyreeve_picky::issuers::github::{self, Github};
use keyreeve_picky::issuers::google::{self, Google};
use keyreeve_picky::issuers::oauth::{self, Client, Server};
use keyreeve_picky::issuers::sts::{self, Sts};
use keyreeve_picky::issuers::{Fault, Faults, Key, Score, WrongExpiry};
use keyreeve_server::host::OsHost;
use keyreeve_server::secrets::OsSecrets;

use crate::issuers::{Asking, P256_PUBLIC, RSA, RSA_PUBLIC, config, tools, with_identity};
use crate::support::{order, until};

/// Who is asked.
enum Issuer {
    Oauth(Box<Server>),
    Sts(Sts),
    Github(Github),
    /// Faults and score of the STS, or of what comes after it.
    Google(Google, Service),
}

#[derive(Clone, Copy, PartialEq)]
enum Service {
    Sts,
    Iam,
}

impl Issuer {
    fn set(&self, faults: Faults) {
        match self {
            Self::Oauth(server) => server.set_faults(faults),
            Self::Sts(sts) => sts.set_faults(faults),
            Self::Github(github) => github.set_faults(faults),
            Self::Google(google, Service::Sts) => google.set_sts_faults(faults),
            Self::Google(google, Service::Iam) => google.set_faults(faults),
        }
        .unwrap();
    }

    fn score(&self) -> Score {
        match self {
            Self::Oauth(server) => server.score(),
            Self::Sts(sts) => sts.score(),
            Self::Github(github) => github.score(),
            Self::Google(google, Service::Sts) => google.sts_score(),
            Self::Google(google, Service::Iam) => google.score(),
        }
    }

    /// All calls, whoever got them.
    fn calls(&self) -> u64 {
        match self {
            Self::Google(google, _) => google.sts_score().calls + google.score().calls,
            other => other.score().calls,
        }
    }
}

/// One source, and the one that it asks.
struct Case {
    what: &'static str,
    issuer: Issuer,
    text: String,
    asking: Asking,
    /// The file that a refresh token is read from, and what the last mint has left.
    refresh: Option<tempfile::NamedTempFile>,
    kept: Mutex<Option<Kept>>,
    /// Whether what is asked for is signed with a time.
    is_signed: bool,
}

impl Case {
    fn new(what: &'static str, issuer: Issuer, text: String) -> Self {
        let is_signed = !text.contains("client_secret") || text.contains("credential:identity");
        let asking = Asking::new(&text);
        Self { what, issuer, text, asking, refresh: None, kept: Mutex::new(None), is_signed }
    }

    /// A mint that cannot be spoiled by what the one before it has left: a refresh token that may be used up.
    async fn mint(&self, answer_ms: u64) -> Result<Minting, MintError> {
        let Some(file) = &self.refresh else { return self.asking.mint_within(answer_ms).await };
        let Issuer::Oauth(server) = &self.issuer else { panic!("no consent") };
        std::fs::write(file, server.consent()).unwrap();
        let order = order(&self.asking.host, answer_ms);
        let kept = self.kept.lock().unwrap().clone();
        let before = Before { kept: kept.as_ref(), ..Before::default() };
        let before = Before { announced: self.asking.source.uses(before), ..before };
        let (minting, kept) = self.asking.source.mint_after(&order, "k", before).await?;
        *self.kept.lock().unwrap() = kept;
        Ok(minting)
    }
}

fn keys(pem: &str) -> Vec<Key> {
    Key::all(pem).unwrap()
}

async fn server(clock: &PickyClock, client: Client) -> Server {
    let trusted = [keys(P256_PUBLIC), keys(RSA_PUBLIC)].concat();
    oauth::start(oauth::Config { clients: vec![client], trusted, clock: clock.clone(), ..Default::default() })
        .await
        .unwrap()
}

const SECRET: &str = "client_secret = \"client-secret\"\n";

fn client(secret: Option<&str>) -> Client {
    let keys = if secret.is_some() { Vec::new() } else { keys(RSA_PUBLIC) };
    Client { id: "me".into(), secret: secret.map(str::to_owned), keys }
}

fn oauth_params(source: &str, url: &str, more: &str) -> String {
    format!(
        "[credential.c]\nsource = \"{source}\"\nLIFE\n[credential.c.params]\ntoken_url = \"{url}\"\nclient_id = \"me\"\n{more}"
    )
}

/// Every source that asks somebody, with `life` in its settings, at a clock of the other side's.
async fn all(clock: &PickyClock, life: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what, issuer, text: String| cases.push(Case::new(what, issuer, text.replace("LIFE", life)));

    let found = server(clock, client(Some("client-secret"))).await;
    let text = oauth_params("oauth2-client", &found.token_url(), SECRET);
    add("oauth2-client", Issuer::Oauth(Box::new(found)), text);

    let found = server(clock, client(None)).await;
    let text = oauth_params("oauth2-client", &found.token_url(), &format!("client_key = '''{RSA}'''\n"));
    add("oauth2-client that signs", Issuer::Oauth(Box::new(found)), text);

    let found = server(clock, client(Some("client-secret"))).await;
    let more = format!("{SECRET}assertion = \"credential:identity\"\n");
    let text = oauth_params("token-exchange", &found.token_url(), &more);
    add("token-exchange", Issuer::Oauth(Box::new(found)), with_identity("anybody", &text));

    let found = server(clock, client(Some("client-secret"))).await;
    let file = serde_json::json!({
        "type": "service_account", "client_email": "me@project.iam.gserviceaccount.com", "private_key": RSA,
        "token_uri": found.token_url(),
    });
    let file = file.to_string();
    let text = format!("[credential.c]\nsource = \"google-service-account\"\nkey = '''{file}'''\nLIFE\n");
    add("google-service-account", Issuer::Oauth(Box::new(found)), text);

    let found = server(clock, client(Some("client-secret"))).await;
    let authority = found.token_url().replace("/token", "");
    let text = format!(
        "[credential.c]\nsource = \"azure-federated\"\nLIFE\n[credential.c.params]\ntenant_id = \"contoso\"\nclient_id = \"me\"\nscopes = [\"https://graph.microsoft.com/.default\"]\nassertion = \"credential:identity\"\nauthority = \"{authority}\"\n"
    );
    add("azure-federated", Issuer::Oauth(Box::new(found)), with_identity("api://AzureADTokenExchange", &text));

    let config = sts::Config { trusted: keys(P256_PUBLIC), clock: clock.clone(), ..Default::default() };
    let found = sts::start(config).await.unwrap();
    let text = format!(
        "[credential.c]\nsource = \"aws-web-identity\"\nLIFE\n[credential.c.params]\nrole_arn = \"arn:aws:iam::123456789012:role/lake\"\nregion = \"eu-central-1\"\nendpoint = \"{}\"\nassertion = \"credential:identity\"\n",
        found.url()
    );
    add("aws-web-identity", Issuer::Sts(found), with_identity("sts.amazonaws.com", &text));

    let config = github::Config { keys: keys(RSA_PUBLIC), clock: clock.clone(), ..Default::default() };
    let found = github::start(config).await.unwrap();
    let text = format!(
        "[credential.c]\nsource = \"github-app\"\nkey = '''{RSA}'''\nLIFE\n[credential.c.params]\napp_id = \"Iv23liPICKY\"\ninstallation_id = 1\napi_url = \"{}\"\n",
        found.api_url()
    );
    add("github-app", Issuer::Github(found), text);

    for (what, service, account) in [
        ("gcp-workload-identity", Service::Sts, ""),
        (
            "gcp-workload-identity as an account",
            Service::Iam,
            "service_account = \"lake@project.iam.gserviceaccount.com\"\n",
        ),
    ] {
        let config = google::Config { trusted: keys(P256_PUBLIC), clock: clock.clone(), ..Default::default() };
        let (provider, audience) = (config.provider.clone(), config.audience.clone());
        let found = google::start(config).await.unwrap();
        let text = format!(
            "[credential.c]\nsource = \"gcp-workload-identity\"\nLIFE\n[credential.c.params]\nprovider = \"{provider}\"\nsts_url = \"{}\"\niam_url = \"{}\"\nassertion = \"credential:identity\"\n{account}",
            found.sts_url(),
            found.iam_url()
        );
        add(what, Issuer::Google(found, service), with_identity(&audience, &text));
    }

    let found = server(clock, client(Some("client-secret"))).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, found.consent()).unwrap();
    let more = format!("{SECRET}refresh_token = \"file:{}\"\n", file.path().display());
    let text = oauth_params("oauth2-refresh", &found.token_url(), &more);
    add("oauth2-refresh", Issuer::Oauth(Box::new(found)), text);
    if let Some(case) = cases.last_mut() {
        case.refresh = Some(file);
    }
    cases
}

#[tokio::test]
async fn every_source_tells_what_went_wrong_and_whether_something_may_have_been_minted() {
    let fail = |status| Fault::Fail { status, code: "TOO_MUCH".into(), retry_after_s: Some(7) };
    // Class, whether something may have been minted, and the wish of whoever was asked.
    let table = [
        (Fault::DropAfterIssue, FaultClass::Transient, true, None),
        (Fault::DropBefore, FaultClass::Transient, true, None),
        (Fault::Empty, FaultClass::Transient, true, None),
        (Fault::Garbage, FaultClass::Transient, true, None),
        (Fault::Expiry { wrong: WrongExpiry::Absent }, FaultClass::Transient, true, None),
        (Fault::Expiry { wrong: WrongExpiry::Zero }, FaultClass::Transient, true, None),
        (Fault::Expiry { wrong: WrongExpiry::Absurd }, FaultClass::Misconfigured, true, None),
        (Fault::Expiry { wrong: WrongExpiry::Nonsense }, FaultClass::Misconfigured, true, None),
        (fail(429), FaultClass::Throttled, false, Some(7000)),
        (fail(503), FaultClass::Transient, false, Some(7000)),
        (Fault::Plain { status: 502 }, FaultClass::Transient, true, None),
    ];
    for case in all(&PickyClock::real(), "").await {
        let what = case.what;
        for (fault, class, may_have_minted, retry_after_ms) in &table {
            case.issuer.set(Faults::always(fault.clone()));
            let calls = case.issuer.score().calls;
            let result = case.mint(20_000).await;
            assert_eq!(case.issuer.score().calls, calls + 1, "{what}, {fault:?}: asked once");
            if matches!(fault, Fault::Expiry { .. }) && case.refresh.is_some() {
                // Its refresh token is the only one: it is kept, with the access token for a time that is safe.
                let left_ms = result.unwrap().expires_at.since(case.asking.host.now().wall);
                assert!(left_ms <= 3_600_000, "{what}, {fault:?}: {}", Span(left_ms));
                continue;
            }
            let error = result.expect_err(&format!("{what}, {fault:?}"));
            let found = (error.class, error.may_have_minted, error.retry_after_ms);
            // A 503 may be a gateway's, whatever it says besides: a token that is good for one use may have been used.
            let may_have_minted = *may_have_minted || (case.refresh.is_some() && *fault == fail(503));
            assert_eq!(found, (*class, may_have_minted, *retry_after_ms), "{what}, {fault:?}: {}", error.message);
        }
        case.issuer.set(Faults::always(Fault::Hang { issued: true }));
        let error = case.mint(300).await.expect_err(what);
        assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, true), "{what}: {}", error.message);
        case.issuer.set(Faults::slow(Duration::from_millis(100)));
        case.mint(20_000).await.unwrap_or_else(|error| panic!("{what}, slowly: {error:?}"));
    }
}

#[tokio::test]
async fn every_source_copes_with_a_clock_five_minutes_off() {
    for offset_ms in [300_000, -300_000] {
        let clock = PickyClock::manual(PickyClock::real().now_ms() + offset_ms);
        for case in all(&clock, "").await {
            let what = case.what;
            // What is asked of Google for an account comes after what is asked of its STS.
            let needed = if what.ends_with("account") && what.starts_with("gcp") { 2 } else { 1 };
            case.mint(20_000).await.unwrap_or_else(|error| panic!("{what}, {offset_ms}: {error:?}"));
            let first = case.issuer.calls();
            let most = if case.is_signed { needed + 1 } else { needed };
            assert!((needed..=most).contains(&first), "{what}, {offset_ms}: {first} calls");
            // What has been learnt is used from then on.
            case.mint(20_000).await.unwrap_or_else(|error| panic!("{what}, {offset_ms}, again: {error:?}"));
            assert_eq!(case.issuer.calls(), first + needed, "{what}, {offset_ms}");
        }
    }
}

/// A fleet of one for the credential of a case.
fn node(case: &Case) -> Outbound {
    let host = Arc::new(OsHost::new());
    let config = config(&case.text);
    let name = CredentialName::parse("c").unwrap();
    let source = build(&config, &name, &OsSecrets, &tools(&host)).unwrap();
    let parts = Parts {
        node: NodeId::parse("node").unwrap(),
        host,
        register: Some(Arc::new(Memory::new())),
        crypto: Arc::new(LocalCrypto),
        keys: Some(KeyRing::new(SealKey::new(&LocalCrypto, [7; 32]), Vec::new())),
        store_ms: 60_000,
        drive: Drive::Timer,
        tick_ms: 0,
    };
    Outbound::start(parts, vec![Credential { name, source, plan: Arc::new(config.plan), keep: config.keep }], None)
}

/// R20: whoever answers from a cache of its own has not renewed anything.
#[tokio::test(flavor = "multi_thread")]
async fn r20_no_source_takes_the_same_token_for_a_new_one_or_asks_in_a_loop() {
    let life =
        "life = { min_interval = \"1ms\", hold = \"300ms\", poll = \"20ms\", skew = \"100ms\", jitter = \"0s\" }";
    for case in all(&PickyClock::real(), life).await {
        let what = case.what;
        let node = node(&case);
        let first = node
            .token("c", 0, OsHost::new().now().mono.plus(20_000))
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        case.issuer.set(Faults::always(Fault::Same));
        let calls = case.issuer.score().calls;
        // Asked for once; it is the fleet that tries again.
        let started = Instant::now();
        while let Err(error) = node.renew("c").await {
            let is_too_soon = error.kind == ErrorKind::RenewalTooSoon && started.elapsed() < Duration::from_secs(10);
            assert!(is_too_soon, "{what}: {error:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        until(&format!("{what} was asked three times"), || case.issuer.score().calls >= calls + 3).await;
        let served = node.get("c").unwrap();
        assert_eq!((served.generation, text(&served.material.secret)), (1, text(&first.material.secret)), "{what}");
        let record = node.record("c").await.unwrap().unwrap();
        let failure = record.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
        assert!(failure.contains("returned before"), "{what}: {failure}");
        let list = case.issuer.score().call_list;
        let list = &list[usize::try_from(calls).unwrap()..];
        let pauses: Vec<u64> = list.windows(2).map(|pair| pair[1].real_ms - pair[0].real_ms).collect();
        assert!(pauses.iter().all(|pause| *pause >= 290), "{what}: not a loop: {pauses:?}");
        case.issuer.set(Faults::default());
        until(&format!("{what} brings something new"), || {
            node.get("c").is_some_and(|served| text(&served.material.secret) != text(&first.material.secret))
        })
        .await;
        node.stop();
    }
}

fn text(fields: &Fields) -> String {
    match fields {
        Fields::Token(token) => token.expose().clone(),
        Fields::Named(named) => named["AccessKeyId"].expose().clone(),
    }
}
