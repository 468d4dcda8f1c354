//! `keyreeve import hive`: takes over the tokens of GraphQL Hive's CDN by what its database and its bucket say, after having
//! counted both and compared some legacy hashes with the secret that they should be made with.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyreeve::access::{Access, Bcrypt as _, Foreign, Imported as _};
use keyreeve::artifact::hashes::{Hashes, LISTED_MAX, Listed};
use keyreeve::config::{Config, PostgresUrl, SecretRef};
use keyreeve::core::crypto::Crypto as _;
use keyreeve::core::id::NodeId;
use keyreeve::core::secret::Secret;
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::postgres::{HiveTable, Settings};
use keyreeve::system::bcrypt::Blocking;
use serde_json::json;

use crate::artifacts;
use crate::cli::{HiveArgs, LogForm};
use crate::exit::{Code, Failure, say};
use crate::load::{self, Ground};
use crate::logs;

/// How long Hive's database may take for a page, in milliseconds.
const ANSWER_MS: u64 = 30_000;
/// The most names that are printed of a kind.
const NAMED_MAX: usize = 5;

/// What was counted.
#[derive(Default)]
struct Counted {
    rows: Vec<Foreign>,
    unreadable: usize,
    /// Rows without a hash in the bucket: tokens that are refused, there and here.
    without_hash: Vec<String>,
    /// Hashes without a row: tokens that work and that nobody sees in a list.
    without_row: Vec<String>,
    legacy: usize,
    strange: usize,
    sampled: usize,
    wrong: Vec<String>,
    adopted: usize,
    known: usize,
}

/// Counts, compares, and takes over unless that is a dry run.
pub(crate) async fn hive(args: HiveArgs) -> Result<(), Failure> {
    logs::start(LogForm::Text, "error");
    let config = load::read_and_warn(&args.config)?;
    let ground = Ground::new()?;
    let family = family(&config, args.family.as_deref())?;
    let hashes = artifacts::hashes(&config, &ground);
    let mut hashes = hashes.map_err(|problems| Failure::new(Code::Usage, problems.join("\nerror: ")))?;
    let hashes = hashes.remove(&family).ok_or_else(|| {
        Failure::new(Code::Usage, format!("`token.{family}` has no `hashes`"))
            .hint("name Hive's bucket: `[objects.hive]`, and `hashes = \"hive\"`")
    })?;
    let table = table(&args, &ground).await?;
    let listed = hashes.list().await.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
    let mut counted = count(&table, &listed).await?;
    compare(&args, &ground, &hashes, &listed, &mut counted).await?;
    // Nothing is taken over by a secret that is not the one.
    if !args.dry_run && counted.wrong.is_empty() {
        let node = NodeId::parse("import").map_err(|_| Failure::new(Code::Usage, "`import` is no name of a node"))?;
        let (tokens, revocations) = load::tokens_alone(&config, &ground, &node).await?;
        let access = tokens.as_ref().and_then(|tokens| tokens.family(&family));
        let access = access.ok_or_else(|| Failure::new(Code::Usage, format!("there is no `token.{family}`")))?;
        let adopted = adopt(&access, &mut counted).await;
        tokens.iter().for_each(keyreeve::access::Tokens::stop);
        // Nobody is to wait for receipts of a node that was there for this alone.
        if let Some(revocations) = revocations {
            revocations.leave().await;
        }
        adopted?;
    }
    counted.print(&args);
    match counted.wrong.len() {
        0 => Ok(()),
        wrong => Err(Failure::new(
            Code::CheckFailed,
            format!(
                "{wrong} of {} legacy hashes were made with another secret than `--legacy-secret`",
                counted.sampled
            ),
        )
        .hint("it is the environment variable of Hive's own service that makes these tokens; nothing was changed")),
    }
}

fn family(config: &Config, named: Option<&str>) -> Result<String, Failure> {
    let mut names = config.tokens.keys();
    match (named, names.next(), names.next()) {
        (Some(name), ..) if config.tokens.contains_key(name) => Ok(name.to_owned()),
        (Some(name), ..) => Err(Failure::new(Code::Usage, format!("there is no `token.{name}`"))),
        (None, Some(only), None) => Ok(only.clone()),
        (None, ..) => Err(Failure::new(Code::Usage, "which family takes the tokens? name it by `--family`")),
    }
}

/// `env:NAME` or `file:PATH`, read.
fn secret(ground: &Ground, text: &str, option: &str) -> Result<(SecretRef, Secret<Vec<u8>>), Failure> {
    let reference = match text.split_once(':') {
        Some(("env", name)) => SecretRef::Env(name.to_owned()),
        Some(("file", path)) => SecretRef::File(path.into()),
        _ => return Err(Failure::new(Code::Usage, format!("`{option}` is `env:NAME` or `file:PATH`, not the secret"))),
    };
    let value = ground.secrets.read(&reference);
    let value = value.map_err(|cause| Failure::new(Code::Usage, format!("`{option}`: {cause}")))?;
    Ok((reference, value))
}

async fn table(args: &HiveArgs, ground: &Ground) -> Result<HiveTable, Failure> {
    let url = PostgresUrl::of_url(&args.postgres).map_err(|cause| Failure::new(Code::Usage, cause))?;
    let password = match &args.password {
        Some(text) => Some(secret(ground, text, "--password")?.0),
        None => None,
    };
    let settings = Settings { url, password, authorities: args.ca.clone(), answer_ms: ANSWER_MS };
    let opened = HiveTable::open(settings, Arc::clone(&ground.secrets), Arc::clone(&ground.host)).await;
    opened.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))
}

/// Reads the whole table, and holds it against the bucket.
async fn count(table: &HiveTable, listed: &Listed) -> Result<Counted, Failure> {
    let failed = |cause: String| Failure::new(Code::Unavailable, format!("Hive's database: {cause}"));
    let mut counted = Counted { legacy: listed.legacy.len(), strange: listed.strange, ..Counted::default() };
    let mut after = None;
    loop {
        let page = table.page(after).await.map_err(failed)?;
        let Some(last) = page.iter().flatten().last().map(|row| row.id) else {
            counted.unreadable += page.len();
            break;
        };
        after = Some(last);
        counted.unreadable += page.iter().filter(|row| row.is_none()).count();
        counted.rows.extend(page.into_iter().flatten());
        if counted.rows.len() > LISTED_MAX {
            return Err(failed(format!("there are more than {LISTED_MAX} tokens")));
        }
    }
    let there: BTreeSet<_> = listed.keys.iter().map(|(target, id)| (target.as_str(), id.0)).collect();
    let rows: BTreeSet<_> = counted.rows.iter().map(|row| (row.target.as_str(), row.id.0)).collect();
    let missing = counted.rows.iter().filter(|row| !there.contains(&(row.target.as_str(), row.id.0)));
    counted.without_hash = missing.map(|row| format!("{}/{}", row.target, row.id)).collect();
    let orphans = listed.keys.iter().filter(|(target, id)| !rows.contains(&(target.as_str(), id.0)));
    counted.without_row = orphans.map(|(target, id)| format!("{target}/{id}")).collect();
    Ok(counted)
}

/// Whether legacy hashes are those of the tokens that the secret gives.
async fn compare(
    args: &HiveArgs,
    ground: &Ground,
    hashes: &Hashes,
    listed: &Listed,
    counted: &mut Counted,
) -> Result<(), Failure> {
    let Some(text) = &args.legacy_secret else { return Ok(()) };
    let (_, key) = secret(ground, text, "--legacy-secret")?;
    let unavailable = |cause: String| Failure::new(Code::Unavailable, cause);
    let bcrypt = Blocking::new();
    for target in listed.legacy.iter().take(usize::from(args.sample)) {
        let hash = hashes.hash(target, None).await.map_err(|error| unavailable(error.to_string()))?;
        let token = STANDARD.encode(LocalCrypto.hmac_sha256(key.expose(), &[target.as_bytes()]));
        let is_right = match hash {
            Some(hash) => bcrypt.is_of(Secret::new(token.into_bytes()), hash).await,
            None => continue,
        };
        counted.sampled += 1;
        if !is_right.map_err(|error| unavailable(error.to_string()))? {
            counted.wrong.push(target.clone());
        }
    }
    Ok(())
}

async fn adopt(access: &Access, counted: &mut Counted) -> Result<(), Failure> {
    let lost: BTreeSet<_> = counted.without_hash.iter().collect();
    for row in counted.rows.iter().filter(|row| !lost.contains(&format!("{}/{}", row.target, row.id))) {
        let failed = |error: keyreeve::error::Error| {
            Failure::new(Code::Unavailable, format!("`{}`: {error}", row.id))
                .hint("run it again: what is there already is left as it is")
        };
        if access.adopt(row).await.map_err(failed)? {
            counted.adopted += 1;
        } else {
            counted.known += 1;
        }
    }
    Ok(())
}

impl Counted {
    fn print(&self, args: &HiveArgs) {
        let is_changed = !args.dry_run && self.wrong.is_empty();
        if args.json {
            let said = json!({
                "rows": self.rows.len(), "unreadable_rows": self.unreadable, "legacy_hashes": self.legacy,
                "rows_without_hash": self.without_hash, "hashes_without_row": self.without_row,
                "strange_objects": self.strange, "legacy_sampled": self.sampled, "legacy_wrong": self.wrong,
                "adopted": self.adopted, "known": self.known, "dry_run": args.dry_run,
            });
            say(&said.to_string());
            return;
        }
        let named = |names: &[String]| {
            let shown = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            if names.is_empty() {
                String::new()
            } else {
                format!(": {shown}{}", if names.len() > NAMED_MAX { ", .." } else { "" })
            }
        };
        say(&format!("rows in the database           {}", self.rows.len()));
        say(&format!("  that cannot be read          {}", self.unreadable));
        say(&format!("  without a hash (not taken)   {}{}", self.without_hash.len(), named(&self.without_hash)));
        say(&format!("hashes without a row           {}{}", self.without_row.len(), named(&self.without_row)));
        say(&format!("legacy hashes                  {}", self.legacy));
        if args.legacy_secret.is_some() {
            say(&format!(
                "  compared with the secret     {}, wrong {}{}",
                self.sampled,
                self.wrong.len(),
                named(&self.wrong)
            ));
        } else if self.legacy > 0 {
            say("  not compared: there is no `--legacy-secret`");
        }
        say(&format!("objects that are neither       {}", self.strange));
        if is_changed {
            say(&format!("taken over now                 {}, were there already {}", self.adopted, self.known));
        } else {
            say("nothing was changed");
        }
    }
}
