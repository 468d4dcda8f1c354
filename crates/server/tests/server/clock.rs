//! Nodes on machines whose clock is wrong, judged by a world whose clock is right.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyreeve_picky::{apns, upstream};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::node::{Node, PATIENCE, PROGRAM, Place, http_credential};

const TEAM: &str = "DEF123GHIJ";
const KEY: &str = "ABC123DEFG";
const RSA_KEY: &str = include_str!("../../../keyreeve/tests/keyreeve/keys/rsa2048-pkcs8.pem");
const MINUTE_S: i64 = 60;

/// Every kind of JWT that is signed here, and who says what time it is.
fn credentials(place: &Place, clock_url: Option<&str>) -> String {
    let rsa = place.secret("github.pem", RSA_KEY);
    let p8 = place.path("apns.p8");
    let clock = clock_url.map(|url| format!("[clock]\nurl = \"{url}\"\n")).unwrap_or_default();
    format!(
        r#"
{clock}
[credential.push]
source = "apns"
key = "file:{p8}"
params = {{ team_id = "{TEAM}", key_id = "{KEY}" }}
wait = "30s"
[credential.store]
source = "jwt"
preset = "app-store-connect"
key = "file:{p8}"
params = {{ issuer_id = "57246542-96fe-1a63-e053-0824d011072a", key_id = "{KEY}" }}
wait = "30s"
[credential.github]
source = "jwt"
preset = "github-app-jwt"
key = "file:{rsa}"
params = {{ app_id = 12345 }}
wait = "30s"
"#,
        p8 = p8.display(),
        rsa = rsa.display(),
    )
}

fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// `iat` and `exp` of a token, and the time it is judged at.
struct Times {
    iat: i64,
    exp: i64,
    now: i64,
}

impl Times {
    fn of(token: &str) -> Self {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let at = |name: &str| claims[name].as_i64().unwrap_or_else(|| panic!("no `{name}`"));
        Self { iat: at("iat"), exp: at("exp"), now: now_s() }
    }
}

/// App Store Connect: not from the future, not over, and for 20 minutes at the most.
fn is_taken_by_app_store_connect(token: &str) -> bool {
    let Times { iat, exp, now } = Times::of(token);
    iat <= now && exp > now && exp - iat <= 20 * MINUTE_S
}

/// GitHub: not from the future, not over, and over in 10 minutes at the most; of these 9 and a backdating are used.
fn is_taken_by_github(token: &str) -> bool {
    let Times { iat, exp, now } = Times::of(token);
    iat <= now && exp > now && exp <= now + 10 * MINUTE_S && exp - iat <= 9 * MINUTE_S + MINUTE_S
}

/// A fake Apple that takes nothing from the future, and the status of a notification with `token`.
async fn apples_answer(place: &Place, token: &str) -> u16 {
    let public = std::fs::read_to_string(place.path("apns-public.pem")).unwrap();
    let keys = vec![apns::Key::from_pem(TEAM, KEY, &public).unwrap()];
    let config = apns::Config { keys, max_skew_future: Duration::ZERO, ..apns::Config::default() };
    let apple = apns::start(config).await.unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(apple.ca_pem().as_bytes()).unwrap()])
        .http2_prior_knowledge()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let request = client.post(format!("{}/3/device/{}", apple.url(), "ab".repeat(32)));
    let request = request.header("apns-topic", "org.example.app").bearer_auth(token).body("{}");
    let status = request.send().await.unwrap().status().as_u16();
    assert_eq!(apple.score().requests, 1);
    status
}

/// Who takes a token of this node: Apple's push service, App Store Connect, GitHub.
async fn who_takes(place: &Place, node: &Node) -> [bool; 3] {
    [
        apples_answer(place, &node.token_text("push").await).await == 200,
        is_taken_by_app_store_connect(&node.token_text("store").await),
        is_taken_by_github(&node.token_text("github").await),
    ]
}

/// The value of a metric without labels.
fn metric(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

fn offset_of(offset_ms: i64) -> String {
    format!("offset={offset_ms}")
}

/// R17. The issuer is asked for nothing but its `Date`.
#[tokio::test(flavor = "multi_thread")]
async fn r17_five_minutes_of_host_skew_are_corrected_and_every_kind_of_jwt_is_accepted() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let clock_url = format!("http://{}/", issuer.addr());
    for offset_ms in [300_000, -300_000, 0] {
        let place = Place::new();
        let config = place.config(&credentials(&place, Some(&clock_url)));
        let node = place.node(&config, "skewed", &[("KEYREEVE_TEST_CLOCK", &offset_of(offset_ms))]);
        assert_eq!(who_takes(&place, &node).await, [true; 3], "{offset_ms}\n{}", node.log_text());
        let measured = metric(&node.metrics().await, "keyreeve_clock_offset_ms").unwrap();
        // What has to be added to the clock, so the other way round; a `Date` and a busy machine may be off by a while.
        assert!((measured + offset_ms as f64).abs() < 3000.0, "{offset_ms}: {measured}");
        assert_eq!(node.log_text().contains(": corrected"), offset_ms != 0, "{offset_ms}\n{}", node.log_text());
        // Tokens are backdated by a minute, and so by the right clock.
        let age_s = now_s() - Times::of(&node.token_text("github").await).iat;
        assert!((57..=60 + 63).contains(&age_s), "{offset_ms}: issued {age_s} s ago");
    }
    let score = issuer.score();
    assert_eq!((score.calls, score.mints), (0, 0));
}

/// R17, the teeth: what the judges say about a node that trusts a clock that is five minutes ahead.
#[tokio::test(flavor = "multi_thread")]
async fn r17_a_right_clock_needs_no_measuring_and_one_that_is_ahead_is_found_out() {
    for (offset_ms, taken) in [(0, [true; 3]), (300_000, [false; 3])] {
        let place = Place::new();
        let config = place.config(&credentials(&place, None));
        let node = place.node(&config, "trusting", &[("KEYREEVE_TEST_CLOCK", &offset_of(offset_ms))]);
        assert_eq!(who_takes(&place, &node).await, taken, "{offset_ms}\n{}", node.log_text());
        assert_eq!(metric(&node.metrics().await, "keyreeve_clock_offset_ms"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_although_nobody_says_what_time_it_is() {
    // Accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::new();
    let config = place.config(&credentials(&place, Some(&format!("http://{}/", silent.local_addr().unwrap()))));
    let node = place.node(&config, "alone", &[]);
    assert_eq!(who_takes(&place, &node).await, [true; 3], "{}", node.log_text());
    assert!(node.log_text().contains("none came before the deadline"), "{}", node.log_text());
}

/// What doctor says about the clock under this switch.
fn doctor(place: &Place, clock_url: Option<&str>, offset_ms: i64) -> String {
    let output = Command::new(PROGRAM)
        .args(["doctor", "-c"])
        .arg(place.config(&credentials(place, clock_url)))
        .env("KEYREEVE_TEST_CLOCK", offset_of(offset_ms))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find(|line| line.contains(" clock: ")).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_how_wrong_the_clock_is() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let origin = format!("http://{}", issuer.addr());
    let url = format!("{origin}/?token=hunter2");
    let place = Place::new();
    assert_eq!(doctor(&place, Some(&url), 0), format!("OK    clock: system clock agrees with {origin}"));
    for (offset_ms, direction) in [(-300_000, "behind"), (300_000, "ahead of")] {
        let said = doctor(&place, Some(&url), offset_ms);
        assert!(said.starts_with("WARN  clock: system clock is "), "{said}");
        assert!(said.ends_with(&format!("{direction} {origin}; corrected")), "{said}");
    }
    let said = doctor(&place, Some(&url), -90_000_000);
    assert!(said.starts_with("FAIL  clock: system clock is 1d 1h") && said.contains("too far"), "{said}");
    assert!(doctor(&place, None, 300_000).contains("not measured"));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let said = doctor(&place, Some(&format!("http://{closed}/")), 0);
    assert!(said.starts_with("WARN  clock: not measured by "), "{said}");
}

/// What a source's own answers say about the clock is exported and warned about, and corrects nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_date_of_a_service_is_compared_with_the_declared_skew() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    for (offset_ms, is_warned) in [(20_000, true), (0, false)] {
        let place = Place::new();
        let life = "life = { max = \"2h\", skew = \"10s\" }";
        let config = place.config(&http_credential(&issuer.mint_url(), life));
        let node = place.node(&config, "compared", &[("KEYREEVE_TEST_CLOCK", &offset_of(offset_ms))]);
        node.token_text("up").await;
        let measured = metric(&node.metrics().await, "keyreeve_clock_offset_ms{credential=\"up\"}").unwrap();
        assert!((measured + offset_ms as f64).abs() < 3000.0, "{offset_ms}: {measured}");
        let log = node.log_text();
        assert_eq!(log.contains("the clock of the service is"), is_warned, "{offset_ms}\n{log}");
    }
}
