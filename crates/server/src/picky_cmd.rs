//! `keyreeve picky`: a fake upstream in the foreground.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyreeve_picky::apns::{self, Key, Scope, Score};
use keyreeve_picky::clock::PickyClock;
use keyreeve_picky::oidc;
use serde_json::json;

use crate::cli::{PickyApnsArgs, PickyOidcArgs, PickyScope};
use crate::exit::{Code, Failure, say};
use crate::signal::Signals;

/// The largest public key file that is read.
const PEM_BYTES_MAX: u64 = 16 * 1024;

/// Runs the fake Apple until it is told to stop, then prints its score.
pub(crate) async fn apns(args: PickyApnsArgs) -> Result<(), Failure> {
    let is_json = args.json;
    let config = config_of(&args)?;
    let clock = config.clock.clone();
    let mut signals = Signals::new().map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
    let apple = apns::start(config)
        .await
        .map_err(|error| Failure::new(Code::Unavailable, format!("cannot listen on `{}`: {error}", args.bind)))?;
    let ca = CaFile::write(args.ca_file.as_deref(), apple.ca_pem())?;
    if is_json {
        let control = apple.control_addr().map(|addr| format!("http://{addr}"));
        say(&json!({
            "url": apple.url(), "ca_file": ca.path(), "control": control,
            "clock": { "epoch_unix_ms": clock.epoch_unix_ms(), "scale": clock.scale() },
        })
        .to_string());
    } else {
        say(&format!("listening on {}", apple.url()));
        say(&format!("certificate authority: {}", ca.path().display()));
        if let Some(control) = apple.control_addr() {
            say(&format!("score and faults: http://{control}/score, PUT http://{control}/faults"));
        }
    }
    signals.until_stop().await;
    let score = apple.score();
    apple.shutdown().await;
    if is_json {
        say(&serde_json::to_string(&score).unwrap_or_default());
    } else {
        print_score(&score);
    }
    Ok(())
}

/// Runs the fake issuer until it is told to stop, then prints its score.
pub(crate) async fn oidc(args: PickyOidcArgs) -> Result<(), Failure> {
    let usage = |text: String| Failure::new(Code::Usage, text);
    let faults = match &args.fault {
        None => oidc::Faults::default(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            usage(format!("`--fault` is not a plan of faults: {error}")).hint(
                "for example `{\"fault\":{\"kind\":\"hang-body\"},\"next\":5}`; kinds are status, redirect, hang, hang-body, drop, garbage, too-big, no-keys, bad-keys, other-issuer",
            )
        })?,
    };
    let clock = scaled_clock(args.scale)?;
    let mut signals = Signals::new().map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
    let config = oidc::Config { bind: args.bind, clock, max_age_s: args.max_age, faults };
    let issuer = oidc::start(config)
        .await
        .map_err(|error| Failure::new(Code::Unavailable, format!("cannot listen on `{}`: {error}", args.bind)))?;
    if args.json {
        say(&json!({ "url": issuer.issuer(), "jwks_url": issuer.jwks_url() }).to_string());
    } else {
        say(&format!("listening on {}", issuer.issuer()));
        say("POST /token makes a token, POST /keys rotates, PUT /faults spoils, GET /score counts");
    }
    signals.until_stop().await;
    let score = issuer.score();
    issuer.shutdown().await;
    if args.json {
        say(&serde_json::to_string(&score).unwrap_or_default());
    } else {
        say(&format!(
            "score: {} tokens, {} requests for the keys, {} for the document, {} at once at the most",
            score.tokens, score.jwks_fetches, score.discoveries, score.in_flight_max
        ));
        for (kind, count) in &score.faults {
            say(&format!("  {count:>6} x {kind}"));
        }
    }
    Ok(())
}

/// Simulated and real time start together, so that tokens of real clocks are good at scale 1.
fn scaled_clock(scale: f64) -> Result<PickyClock, Failure> {
    if scale.is_finite() && scale > 0.0 {
        return Ok(PickyClock::scaled(PickyClock::real().now_ms(), scale));
    }
    Err(Failure::new(Code::Usage, format!("`--scale` must be greater than 0: `{scale}`")))
}

fn config_of(args: &PickyApnsArgs) -> Result<apns::Config, Failure> {
    let usage = |text: String| Failure::new(Code::Usage, text);
    let clock = scaled_clock(args.scale)?;
    let keys = args.keys.iter().map(|key| key_of(key)).collect::<Result<_, _>>()?;
    let faults = match &args.fault {
        None => apns::Faults::default(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            usage(format!("`--fault` is not a plan of faults: {error}"))
                .hint("for example `{\"fault\":{\"kind\":\"hang\"},\"next\":5}`; kinds are hang, drop, status, garbage")
        })?,
    };
    let scope = match args.scope {
        PickyScope::Team => Scope::Team,
        PickyScope::Connection => Scope::Connection,
    };
    Ok(apns::Config {
        bind: args.bind,
        control: args.control,
        keys,
        scope,
        clock,
        faults,
        handover: Duration::from_secs(args.handover),
        ..apns::Config::default()
    })
}

fn key_of(text: &str) -> Result<Key, Failure> {
    let usage = |text: String| Failure::new(Code::Usage, text);
    let mut parts = text.splitn(3, ':');
    let (Some(team), Some(key_id), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(usage(format!("`--key` is TEAM:KEYID:PEMFILE, not `{text}`")));
    };
    let refuse = |error: &dyn std::fmt::Display| usage(format!("cannot read the public key `{path}`: {error}"));
    let size = std::fs::metadata(path).map_err(|error| refuse(&error))?.len();
    if size > PEM_BYTES_MAX {
        return Err(refuse(&format!("{size} bytes are more than {PEM_BYTES_MAX}")));
    }
    let pem = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
    Key::from_pem(team, key_id, &pem).map_err(|error| refuse(&error))
}

/// The authority's certificate on disk; a temporary one goes with the process.
enum CaFile {
    Given(PathBuf),
    Temporary(tempfile::NamedTempFile),
}

impl CaFile {
    fn write(path: Option<&Path>, pem: &str) -> Result<Self, Failure> {
        let refuse = |path: &Path, error: std::io::Error| {
            Failure::new(Code::Unavailable, format!("cannot write `{}`: {error}", path.display()))
        };
        if let Some(path) = path {
            std::fs::write(path, pem).map_err(|error| refuse(path, error))?;
            return Ok(Self::Given(path.to_owned()));
        }
        let file = tempfile::Builder::new().prefix("picky-ca-").suffix(".pem").tempfile();
        let file = file.map_err(|error| refuse(&std::env::temp_dir(), error))?;
        std::fs::write(file.path(), pem).map_err(|error| refuse(file.path(), error))?;
        Ok(Self::Temporary(file))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(file) => file.path(),
        }
    }
}

fn print_score(score: &Score) {
    say(&format!(
        "score: {} requests, {} ok, {} tokens minted, {} allowed, {} valid at once at the most",
        score.requests, score.ok, score.minted, score.allowed, score.most_valid_at_once
    ));
    for (reason, count) in &score.by_reason {
        say(&format!("  {count:>6} x {reason}"));
    }
    let verdict = if score.is_clean() { "clean: one token at a time" } else { "NOT clean: more tokens than one" };
    say(verdict);
}
