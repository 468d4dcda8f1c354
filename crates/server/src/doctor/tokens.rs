//! What doctor looks at where GraphQL Hive judges the tokens of a family as well: hashes without a token and tokens without a
//! hash, what targets leave behind, and the secret of legacy tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keyreeve::artifact::hashes::{Hashes, Listed};
use keyreeve::config::{Config, FamilyConfig};
use keyreeve::core::time::Timestamp;
use keyreeve::core::token::hash::legacy_id;
use keyreeve::core::token::{Format, Mode, ModeRecord, Record, State, TokenId};
use keyreeve::crypto::LocalCrypto;
use keyreeve::port::{Key, LIST_MAX};

use super::Findings;
use crate::artifacts;
use crate::cli::DoctorArgs;
use crate::hive::{self, Database, named};
use crate::load::{Ground, Store};

/// How many legacy hashes are compared with the secret.
const SAMPLE: usize = 20;
/// The most records that are read.
const RECORDS_MAX: usize = 100_000;
/// The most targets whose artifacts are looked for.
const TARGETS_MAX: usize = 100;

/// Looks at every family whose hashes Hive has.
pub(super) async fn at(config: &Config, ground: &Ground, store: &Store, args: &DoctorArgs, findings: &mut Findings) {
    let opened = match artifacts::hashes(config, ground) {
        Ok(opened) => opened,
        Err(problems) => {
            for problem in problems {
                findings.fail("token", problem, "a node does not start without its buckets");
            }
            return;
        }
    };
    for (name, hashes) in &opened {
        let Some(family) = config.tokens.get(name) else { continue };
        let subject = format!("token.{name}");
        let listed = match hashes.list().await {
            Ok(listed) => listed,
            Err(error) => {
                findings.fail(
                    &subject,
                    error.to_string(),
                    "see that `hashes` names Hive's bucket, and that its key may list it",
                );
                continue;
            }
        };
        secret(&subject, (name, family), ground, hashes, &listed, findings).await;
        mode(&subject, name, store, findings).await;
        match records(name, store).await {
            Ok(records) => {
                compared(&subject, name, &records, &listed, ground, findings);
                left_behind(&subject, &records, hashes, ground.host.now().latest(), findings).await;
            }
            Err(cause) => findings.fail(&subject, cause, "tokens that nobody can read open nothing"),
        }
        if let Some(url) = &args.hive_postgres {
            let database = Database {
                url,
                password: args.hive_password.as_deref(),
                authorities: args.hive_ca.as_ref(),
                option: "--hive-password",
            };
            table(&subject, &database, ground, &listed, findings).await;
        }
    }
}

/// Whether legacy hashes are those of the tokens that the secret gives.
async fn secret(
    subject: &str,
    (name, family): (&str, &FamilyConfig),
    ground: &Ground,
    hashes: &Hashes,
    listed: &Listed,
    findings: &mut Findings,
) {
    let key = match &family.legacy_key {
        None if listed.legacy.is_empty() => return,
        None => {
            let said = format!("{} legacy hashes, compared with nothing", listed.legacy.len());
            return findings.warn(subject, said, "`legacy = { hmac_key = .. }` says what legacy tokens are made with");
        }
        Some(reference) => ground.secrets.read(reference),
    };
    let sampled = match key {
        Ok(key) => hive::sample(hashes, listed, &key, SAMPLE).await,
        Err(cause) => Err(format!("`token.{name}.legacy.hmac_key`: {cause}")),
    };
    match sampled {
        Ok(sampled) if sampled.wrong.is_empty() => {
            findings.ok(
                subject,
                format!("{} legacy hashes of {} are of `legacy.hmac_key`", sampled.compared, listed.legacy.len()),
            );
        }
        Ok(sampled) => {
            let said = format!(
                "{} of {} legacy hashes were made with another secret than `legacy.hmac_key`{}",
                sampled.wrong.len(),
                sampled.compared,
                named(&sampled.wrong)
            );
            findings.fail(
                subject,
                said,
                "it is the environment variable of Hive's own service that makes these tokens",
            );
        }
        Err(cause) => findings.fail(subject, cause, "see that the bucket answers, and that the secret can be read"),
    }
}

/// Whose verdict counts, and whether the verdicts were the same.
async fn mode(subject: &str, name: &str, store: &Store, findings: &mut Findings) {
    let Some(key) = Key::new(format!("tm/{name}")) else { return };
    let found = match store.register.read(&key).await {
        Ok(None) => return,
        Ok(Some(entry)) => ModeRecord::decode(&entry.bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(record) if record.mode == Mode::Shadow => {
            let different: u64 = record.differences().map(|tally| tally.count).sum();
            if different == 0 {
                findings.ok(subject, "in shadow: Hive's verdict counts, and no other was found beside it");
            } else {
                let said = format!("in shadow: Hive's verdict counts, and {different} times ours was another");
                findings.warn(subject, said, "`keyreeve token mode` tells the causes, and what helps");
            }
        }
        Ok(record) => findings.ok(subject, format!("mode {}", record.mode)),
        Err(cause) => findings.fail(subject, cause, "nobody can tell whose verdict on these tokens counts"),
    }
}

/// The tokens of a family, read past every node.
async fn records(family: &str, store: &Store) -> Result<BTreeMap<TokenId, Record>, String> {
    let mut records = BTreeMap::new();
    let mut after: Option<Key> = None;
    loop {
        let keys = store.register.list("tk/", after.as_ref(), LIST_MAX).await.map_err(|error| error.to_string())?;
        for key in &keys {
            let Some(entry) = store.register.read(key).await.map_err(|error| error.to_string())? else { continue };
            let record = Record::decode(&entry.bytes).map_err(|error| format!("`{key}`: {error}"))?;
            if record.family == family {
                records.insert(record.id, record);
            }
        }
        if records.len() > RECORDS_MAX {
            return Err(format!("there are more than {RECORDS_MAX} tokens: too many to look at"));
        }
        if keys.len() < LIST_MAX {
            return Ok(records);
        }
        after = keys.last().cloned();
    }
}

/// Holds tokens and hashes against each other.
fn compared(
    subject: &str,
    family: &str,
    records: &BTreeMap<TokenId, Record>,
    listed: &Listed,
    ground: &Ground,
    findings: &mut Findings,
) {
    let now = ground.host.now().latest();
    let keys = listed.keys.iter().map(|(target, id)| (target.as_str(), *id));
    let legacy = listed.legacy.iter().map(|target| (target.as_str(), legacy_id(&LocalCrypto, family, target)));
    let there: BTreeSet<(&str, TokenId)> = keys.clone().chain(legacy).collect();
    let of = |target: &str, id: TokenId| records.get(&id).filter(|record| record.target == target);
    let named_here = |(target, id): &(&str, TokenId)| format!("{target}/{id}");

    let unlisted: Vec<String> =
        keys.filter(|(target, id)| of(target, *id).is_none()).map(|key| named_here(&key)).collect();
    if !unlisted.is_empty() {
        let said = format!(
            "{} hashes have no token here: they open their target, and no list shows them{}",
            unlisted.len(),
            named(&unlisted)
        );
        findings.warn(
            subject,
            said,
            "`keyreeve import hive` takes over what Hive lists; delete hashes that nobody knows",
        );
    }
    let is_over = |(target, id): &&(&str, TokenId)| {
        of(target, *id).is_some_and(|record| matches!(record.state(now), State::Revoked | State::Expired))
    };
    let over: Vec<String> = there.iter().filter(is_over).map(named_here).collect();
    if !over.is_empty() {
        let said = format!(
            "{} hashes are of tokens that are over here, and Hive's workers take them{}",
            over.len(),
            named(&over)
        );
        findings.fail(subject, said, "`keyreeve token revoke ID` takes the hash away");
    }
    let is_alone = |record: &&Record| {
        record.format != Format::Native
            && matches!(record.state(now), State::Active | State::Rolling)
            && !there.contains(&(record.target.as_str(), record.id))
    };
    let (taken, unread): (Vec<&Record>, Vec<&Record>) =
        records.values().filter(is_alone).partition(|record| record.import.is_some());
    for (alone, said) in [
        (taken, "tokens have lost their hash, and are refused"),
        (unread, "tokens have no hash, and Hive's workers refuse them"),
    ] {
        let names: Vec<String> = alone.iter().map(|record| named_here(&(record.target.as_str(), record.id))).collect();
        if !names.is_empty() {
            let said = format!("{} {said}{}", names.len(), named(&names));
            findings.warn(subject, said, "`keyreeve token revoke ID` clears them up; who needs one gets a new token");
        }
    }
    let active = records.values().filter(|record| matches!(record.state(now), State::Active | State::Rolling)).count();
    findings
        .ok(subject, format!("{active} tokens, {} hashes, {} legacy hashes", listed.keys.len(), listed.legacy.len()));
}

/// Targets whose tokens were all taken back, and whose artifacts nobody can have any more.
async fn left_behind(
    subject: &str,
    records: &BTreeMap<TokenId, Record>,
    hashes: &Arc<Hashes>,
    now: Timestamp,
    findings: &mut Findings,
) {
    let mut targets: BTreeMap<&str, bool> = BTreeMap::new();
    for record in records.values() {
        let is_revoked = record.state(now) == State::Revoked;
        let all = targets.entry(&record.target).or_insert(true);
        *all = *all && is_revoked;
    }
    let mut left = Vec::new();
    for target in targets.iter().filter(|(_, is_dropped)| **is_dropped).map(|(target, _)| *target).take(TARGETS_MAX) {
        match hashes.has_artifacts(target).await {
            Ok(true) => left.push(target.to_owned()),
            Ok(false) => {}
            Err(error) => {
                return findings.warn(
                    subject,
                    error.to_string(),
                    "its key may not list artifacts: see to them yourself",
                );
            }
        }
    }
    if !left.is_empty() {
        let said = format!("{} targets have no token left, and artifacts still{}", left.len(), named(&left));
        findings.warn(subject, said, "delete `artifact/TARGET/` in the bucket if the target is gone");
    }
}

/// Holds Hive's database against its bucket.
async fn table(subject: &str, database: &Database<'_>, ground: &Ground, listed: &Listed, findings: &mut Findings) {
    let looked = async {
        let table = hive::table(database, ground).await?;
        let rows = hive::rows(&table).await?;
        let targets: BTreeSet<&str> = listed
            .keys
            .iter()
            .map(|(target, _)| target.as_str())
            .chain(listed.legacy.iter().map(String::as_str))
            .collect();
        let targets: Vec<&str> = targets.into_iter().collect();
        let gone = table.gone(&targets).await;
        let gone = gone.map_err(|cause| crate::exit::Failure::new(crate::exit::Code::Unavailable, cause))?;
        Ok::<_, crate::exit::Failure>((rows, gone))
    };
    let (rows, gone) = match looked.await {
        Ok(found) => found,
        Err(failure) => {
            return findings.fail(subject, failure.message, "see that `--hive-postgres` is right, and answers");
        }
    };
    let apart = hive::apart(&rows.rows, listed);
    let (lost, orphans) = (&apart.without_hash, &apart.without_row);
    if !lost.is_empty() {
        let said = format!(
            "{} rows of Hive's have no hash: their tokens are refused, there and here{}",
            lost.len(),
            named(lost)
        );
        findings.warn(subject, said, "delete the rows in Hive, or make the tokens anew");
    }
    if !orphans.is_empty() {
        let said = format!(
            "{} hashes have no row in Hive: their tokens work, and Hive shows them to nobody{}",
            orphans.len(),
            named(orphans)
        );
        findings.warn(subject, said, "delete the hashes that nobody needs");
    }
    match gone {
        Some(gone) if !gone.is_empty() => {
            let said = format!(
                "{} targets are deleted in Hive, and their hashes stay: their tokens still open them{}",
                gone.len(),
                named(&gone)
            );
            findings.fail(
                subject,
                said,
                "`keyreeve token drop-target TARGET` refuses their tokens and deletes the hashes",
            );
        }
        Some(_) => findings.ok(subject, "every hash is of a target that Hive has"),
        None => findings.ok(subject, "Hive's table of targets cannot be read: deleted targets were not looked for"),
    }
    let unreadable = rows.unreadable;
    if unreadable > 0 {
        findings.warn(subject, format!("{unreadable} rows of Hive's cannot be read"), "their ids are no UUIDs");
    }
    findings.ok(subject, format!("{} rows in Hive's database", rows.rows.len()));
}
