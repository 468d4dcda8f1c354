//! `keyreeve import hive`: takes over the tokens of GraphQL Hive's CDN by what its database and its bucket say, after having
//! counted both and compared some legacy hashes with the secret that they should be made with.

use std::collections::BTreeSet;

use keyreeve::access::Access;
use keyreeve::config::Config;
use keyreeve::core::id::NodeId;
use keyreeve::core::secret::Secret;
use serde_json::json;

use crate::artifacts;
use crate::cli::{HiveArgs, LogForm};
use crate::exit::{Code, Failure, say};
use crate::hive::{self, Apart, Database, Rows, Sampled, named};
use crate::load::{self, Ground};
use crate::logs;

/// What was counted.
struct Counted {
    table: Rows,
    apart: Apart,
    legacy: usize,
    strange: usize,
    /// None where there is no secret to compare with.
    sampled: Option<Sampled>,
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
    let database = Database {
        url: &args.postgres,
        password: args.password.as_deref(),
        authorities: args.ca.as_ref(),
        option: "--password",
    };
    let table = hive::table(&database, &ground).await?;
    let unavailable = |cause: String| Failure::new(Code::Unavailable, cause);
    let listed = hashes.list().await.map_err(|error| unavailable(error.to_string()))?;
    let table = hive::rows(&table).await?;
    let apart = hive::apart(&table.rows, &listed);
    let (legacy, strange) = (listed.legacy.len(), listed.strange);
    let sampled = match legacy_secret(&args, &config, &family, &ground)? {
        Some(key) => Some(hive::sample(&hashes, &listed, &key, args.sample.into()).await.map_err(unavailable)?),
        None => None,
    };
    let mut counted = Counted { table, apart, legacy, strange, sampled, adopted: 0, known: 0 };
    // Nothing is taken over by a secret that is not the one.
    if !args.dry_run && counted.wrong().is_empty() {
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
    match counted.wrong().len() {
        0 => Ok(()),
        wrong => Err(Failure::new(
            Code::CheckFailed,
            format!(
                "{wrong} of {} legacy hashes were made with another secret than {}",
                counted.compared(),
                if args.legacy_secret.is_some() { "`--legacy-secret`" } else { "`legacy.hmac_key`" }
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

/// What legacy tokens should be made with: as the command line or else the configuration has it.
fn legacy_secret(
    args: &HiveArgs,
    config: &Config,
    family: &str,
    ground: &Ground,
) -> Result<Option<Secret<Vec<u8>>>, Failure> {
    match &args.legacy_secret {
        Some(text) => Ok(Some(hive::secret(ground, text, "--legacy-secret")?.1)),
        None => Ok(load::legacy_keys(config, ground)?.remove(family)),
    }
}

async fn adopt(access: &Access, counted: &mut Counted) -> Result<(), Failure> {
    let lost: BTreeSet<_> = counted.apart.without_hash.iter().collect();
    for row in counted.table.rows.iter().filter(|row| !lost.contains(&hive::name_of(row))) {
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
    fn wrong(&self) -> &[String] {
        self.sampled.as_ref().map_or(&[], |sampled| &sampled.wrong)
    }

    fn compared(&self) -> usize {
        self.sampled.as_ref().map_or(0, |sampled| sampled.compared)
    }

    fn print(&self, args: &HiveArgs) {
        let is_changed = !args.dry_run && self.wrong().is_empty();
        let Apart { without_hash, without_row } = &self.apart;
        if args.json {
            let said = json!({
                "rows": self.table.rows.len(), "unreadable_rows": self.table.unreadable, "legacy_hashes": self.legacy,
                "rows_without_hash": without_hash, "hashes_without_row": without_row,
                "strange_objects": self.strange, "legacy_sampled": self.compared(), "legacy_wrong": self.wrong(),
                "adopted": self.adopted, "known": self.known, "dry_run": args.dry_run,
            });
            say(&said.to_string());
            return;
        }
        say(&format!("rows in the database           {}", self.table.rows.len()));
        say(&format!("  that cannot be read          {}", self.table.unreadable));
        say(&format!("  without a hash (not taken)   {}{}", without_hash.len(), named(without_hash)));
        say(&format!("hashes without a row           {}{}", without_row.len(), named(without_row)));
        say(&format!("legacy hashes                  {}", self.legacy));
        if self.sampled.is_some() {
            say(&format!(
                "  compared with the secret     {}, wrong {}{}",
                self.compared(),
                self.wrong().len(),
                named(self.wrong())
            ));
        } else if self.legacy > 0 {
            say("  not compared: there is neither `--legacy-secret` nor `legacy.hmac_key`");
        }
        say(&format!("objects that are neither       {}", self.strange));
        if is_changed {
            say(&format!("taken over now                 {}, were there already {}", self.adopted, self.known));
        } else {
            say("nothing was changed");
        }
    }
}
