//! `keyreeve picky oauth`, `sts`, `github` and `google`: fake issuers in the foreground.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use keyreeve_picky::clock::PickyClock;
use keyreeve_picky::issuers::{Faults, Key, Score, github, google, oauth, sts};
use serde_json::json;

use crate::exit::{Code, Failure, say};
use crate::signal::Signals;

/// The largest file of public keys that is read.
const KEYS_BYTES_MAX: u64 = 256 * 1024;

/// What all fake issuers are told.
#[derive(Debug, Args)]
pub(crate) struct IssuerArgs {
    /// Where to listen, over plain HTTP; loopback only. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    bind: SocketAddr,
    /// Simulated seconds per real second.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// What goes wrong, as JSON: `{"fault":{"kind":"drop-after-issue"},"next":1}`.
    #[arg(long = "fault", value_name = "JSON")]
    fault: Option<String>,
    /// Print address and score as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// `keyreeve picky oauth`.
#[derive(Debug, Args)]
pub(crate) struct PickyOauthArgs {
    #[command(flatten)]
    issuer: IssuerArgs,
    /// A client and its secret. May be given several times; without any there is `keyreeve:client-secret`.
    #[arg(long = "client", value_name = "ID:SECRET")]
    clients: Vec<String>,
    /// A client and the file with its public key, PEM or a JWK set. May be given several times.
    #[arg(long = "client-key", value_name = "ID:FILE")]
    client_keys: Vec<String>,
    /// A refresh token that exists from the start. `POST /consent` makes another one.
    #[arg(long = "refresh-token", value_name = "TOKEN")]
    refresh_tokens: Vec<String>,
    /// What becomes of a refresh token that was used.
    #[arg(long, value_enum, default_value_t, value_name = "RULE")]
    rotation: PickyRotation,
    /// How many simulated seconds an access token lives.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    life: u64,
    /// Whose assertions are taken for tokens: public keys in PEM, or a JWK set.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Speak TLS, and only with clients that show a certificate. The folder gets `ca.pem`, the authority to believe, and
    /// `client.pem`, a certificate with its private key.
    #[arg(long, value_name = "FOLDER")]
    mutual_tls: Option<PathBuf>,
}

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum PickyRotation {
    /// It is used up; another use revokes its family.
    #[default]
    Strict,
    /// Nothing.
    None,
}

/// `keyreeve picky sts`.
#[derive(Debug, Args)]
pub(crate) struct PickyStsArgs {
    #[command(flatten)]
    issuer: IssuerArgs,
    /// The identity provider's public keys: PEM, or a JWK set.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// The `iss` that web identities must have.
    #[arg(long = "issuer", value_name = "URL")]
    provider: String,
    /// The `aud` that web identities must have.
    #[arg(long, default_value = "sts.amazonaws.com", value_name = "AUDIENCE")]
    audience: String,
    /// The `sub` that web identities must have; without it any.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// A role that may be assumed. May be given several times.
    #[arg(long = "role", value_name = "ARN", required = true)]
    roles: Vec<String>,
}

/// `keyreeve picky github`.
#[derive(Debug, Args)]
pub(crate) struct PickyGithubArgs {
    #[command(flatten)]
    issuer: IssuerArgs,
    /// The app's public key: PEM, or a JWK set.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The app's id.
    #[arg(long, value_name = "ID")]
    app_id: String,
    /// The installation.
    #[arg(long, value_name = "ID")]
    installation: String,
    /// How many simulated seconds the replicas do not know a new token.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    replication: u64,
}

/// `keyreeve picky google`.
#[derive(Debug, Args)]
pub(crate) struct PickyGoogleArgs {
    #[command(flatten)]
    issuer: IssuerArgs,
    /// The identity provider's public keys: PEM, or a JWK set.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// The provider of the pool that identities come from.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "projects/1/locations/global/workloadIdentityPools/pool/providers/provider"
    )]
    provider: String,
    /// The `aud` that subject tokens must have; without it `https://iam.googleapis.com/PROVIDER`.
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// A service account that may be acted as. May be given several times.
    #[arg(long = "account", value_name = "EMAIL")]
    accounts: Vec<String>,
}

/// Runs the fake authorization server until it is told to stop, then prints its score.
pub(crate) async fn oauth(args: PickyOauthArgs) -> Result<(), Failure> {
    let (clock, faults) = common(&args.issuer)?;
    let mut clients = Vec::new();
    for client in &args.clients {
        let (id, secret) = pair("client", client)?;
        clients.push(oauth::Client { id, secret: Some(secret), keys: Vec::new() });
    }
    for client in &args.client_keys {
        let (id, file) = pair("client-key", client)?;
        clients.push(oauth::Client { id, secret: None, keys: keys(Path::new(&file))? });
    }
    let usual = oauth::Config::default();
    let server = oauth::start(oauth::Config {
        bind: args.issuer.bind,
        clock,
        life: Duration::from_secs(args.life),
        clients: if clients.is_empty() { usual.clients } else { clients },
        rotation: match args.rotation {
            PickyRotation::Strict => oauth::Rotation::Strict,
            PickyRotation::None => oauth::Rotation::None,
        },
        refresh_tokens: args.refresh_tokens,
        trusted: args.trust.as_deref().map(keys).transpose()?.unwrap_or_default(),
        is_mutual: args.mutual_tls.is_some(),
        faults,
    });
    let server = server.await.map_err(|error| not_listening(&args.issuer, &error))?;
    if let Some(folder) = &args.mutual_tls {
        certify(&server, folder).map_err(|error| {
            Failure::new(Code::Unavailable, format!("cannot write certificates to `{}`: {error}", folder.display()))
        })?;
    }
    until_stop(&args.issuer, &server.token_url(), || server.score()).await
}

fn certify(server: &oauth::Server, folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("ca.pem"), server.authority_pem().unwrap_or_default())?;
    let path = folder.join("client.pem");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, server.client_certificate()?.as_bytes())
}

/// Runs the fake STS until it is told to stop, then prints its score.
pub(crate) async fn sts(args: PickyStsArgs) -> Result<(), Failure> {
    let (clock, faults) = common(&args.issuer)?;
    let server = sts::start(sts::Config {
        bind: args.issuer.bind,
        clock,
        trusted: keys(&args.trust)?,
        issuer: args.provider,
        audience: args.audience,
        subject: args.subject,
        roles: args.roles,
        faults,
    });
    let server = server.await.map_err(|error| not_listening(&args.issuer, &error))?;
    until_stop(&args.issuer, &server.url(), || server.score()).await
}

/// Runs the fake GitHub until it is told to stop, then prints its score.
pub(crate) async fn github(args: PickyGithubArgs) -> Result<(), Failure> {
    let (clock, faults) = common(&args.issuer)?;
    let server = github::start(github::Config {
        bind: args.issuer.bind,
        clock,
        app_id: args.app_id,
        keys: keys(&args.key)?,
        installation_id: args.installation,
        replication: Duration::from_secs(args.replication),
        faults,
    });
    let server = server.await.map_err(|error| not_listening(&args.issuer, &error))?;
    until_stop(&args.issuer, &server.api_url(), || server.score()).await
}

/// Runs the fake Google until it is told to stop, then prints the score of its IAM credentials API.
pub(crate) async fn google(args: PickyGoogleArgs) -> Result<(), Failure> {
    let (clock, faults) = common(&args.issuer)?;
    let audience = args.audience.unwrap_or_else(|| format!("https://iam.googleapis.com/{}", args.provider));
    let server = google::start(google::Config {
        bind: args.issuer.bind,
        clock,
        trusted: keys(&args.trust)?,
        provider: args.provider,
        audience,
        accounts: args.accounts,
        faults,
    });
    let server = server.await.map_err(|error| not_listening(&args.issuer, &error))?;
    until_stop(&args.issuer, &server.iam_url(), || server.score()).await
}

fn usage(text: String) -> Failure {
    Failure::new(Code::Usage, text)
}

fn not_listening(args: &IssuerArgs, error: &std::io::Error) -> Failure {
    Failure::new(Code::Unavailable, format!("cannot listen on `{}`: {error}", args.bind))
}

fn common(args: &IssuerArgs) -> Result<(PickyClock, Faults), Failure> {
    let is_scale_good = args.scale.is_finite() && args.scale > 0.0;
    if !is_scale_good {
        return Err(usage(format!("`--scale` must be greater than 0: `{}`", args.scale)));
    }
    let faults = match &args.fault {
        None => Faults::default(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            usage(format!("`--fault` is not a plan of faults: {error}")).hint(
                "for example `{\"fault\":{\"kind\":\"fail\",\"status\":400,\"code\":\"Throttling\"},\"next\":5}`; kinds are fail, plain, hang, drop-after-issue, drop-before, garbage, empty, bad-token, same, expiry",
            )
        })?,
    };
    Ok((PickyClock::scaled(PickyClock::real().now_ms(), args.scale), faults))
}

fn pair(option: &str, text: &str) -> Result<(String, String), Failure> {
    let pair = text.split_once(':').map(|(left, right)| (left.to_owned(), right.to_owned()));
    pair.ok_or_else(|| usage(format!("`--{option}` is two parts with a colon between them")))
}

fn keys(path: &Path) -> Result<Vec<Key>, Failure> {
    let refuse = |error: &dyn std::fmt::Display| usage(format!("cannot read keys from `{}`: {error}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| refuse(&error))?.len();
    if size > KEYS_BYTES_MAX {
        return Err(refuse(&format!("{size} bytes are more than {KEYS_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
    Key::all(&text).map_err(|error| refuse(&error))
}

/// Says where the issuer is, waits for the signal to stop, and prints the score.
async fn until_stop(args: &IssuerArgs, url: &str, score: impl Fn() -> Score) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
    if args.json {
        say(&json!({ "url": url }).to_string());
    } else {
        say(&format!("listening on {url}"));
        say("score and faults: GET /score, PUT /faults");
    }
    signals.until_stop().await;
    let score = score();
    if args.json {
        say(&serde_json::to_string(&score).unwrap_or_default());
    } else {
        print_score(&score);
    }
    Ok(())
}

fn print_score(score: &Score) {
    say(&format!("score: {} calls, {} issued, {} at once at the most", score.calls, score.issued, score.in_flight_max));
    for (code, count) in &score.refused {
        say(&format!("  {count:>6} x {code}"));
    }
    for (kind, count) in &score.faults {
        say(&format!("  {count:>6} x fault {kind}"));
    }
    if score.refreshes > 0 || score.reuses > 0 {
        say(&format!(
            "refresh tokens: {} used, {} used again, {} families revoked",
            score.refreshes, score.reuses, score.families_revoked
        ));
    }
}
