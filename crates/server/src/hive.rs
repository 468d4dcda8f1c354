//! What `import hive` and `doctor` look at: Hive's table held against its bucket, and legacy hashes against a secret.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use keyreeve::access::{Bcrypt as _, Foreign, Imported as _};
use keyreeve::artifact::hashes::{Hashes, LISTED_MAX, Listed};
use keyreeve::config::{PostgresUrl, SecretRef};
use keyreeve::core::secret::Secret;
use keyreeve::core::token::hash::legacy_token;
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::postgres::{HiveTable, Settings};
use keyreeve::system::bcrypt::Blocking;

use crate::exit::{Code, Failure};
use crate::load::Ground;

/// How long Hive's database may take for a page, in milliseconds.
const ANSWER_MS: u64 = 30_000;
/// The most names that are printed of a kind.
const NAMED_MAX: usize = 5;

/// Where Hive's database is, and how it is reached.
pub(crate) struct Database<'a> {
    pub(crate) url: &'a str,
    /// The role's password: `env:NAME` or `file:PATH`.
    pub(crate) password: Option<&'a str>,
    pub(crate) authorities: Option<&'a PathBuf>,
    /// What the option of the password is called.
    pub(crate) option: &'a str,
}

/// Hive's table.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Foreign>,
    pub(crate) unreadable: usize,
}

/// What is on one side only.
pub(crate) struct Apart {
    /// Rows without a hash in the bucket: tokens that are refused, there and here.
    pub(crate) without_hash: Vec<String>,
    /// Hashes without a row: tokens that work and that nobody sees in a list.
    pub(crate) without_row: Vec<String>,
}

/// Legacy hashes beside what a secret gives.
#[derive(Default)]
pub(crate) struct Sampled {
    pub(crate) compared: usize,
    /// The targets whose hashes were made with another secret.
    pub(crate) wrong: Vec<String>,
}

/// `env:NAME` or `file:PATH`, read.
pub(crate) fn secret(ground: &Ground, text: &str, option: &str) -> Result<(SecretRef, Secret<Vec<u8>>), Failure> {
    let reference = match text.split_once(':') {
        Some(("env", name)) => SecretRef::Env(name.to_owned()),
        Some(("file", path)) => SecretRef::File(path.into()),
        _ => return Err(Failure::new(Code::Usage, format!("`{option}` is `env:NAME` or `file:PATH`, not the secret"))),
    };
    let value = ground.secrets.read(&reference);
    let value = value.map_err(|cause| Failure::new(Code::Usage, format!("`{option}`: {cause}")))?;
    Ok((reference, value))
}

/// Connects to Hive's database, without a right to change it.
pub(crate) async fn table(database: &Database<'_>, ground: &Ground) -> Result<HiveTable, Failure> {
    let url = PostgresUrl::of_url(database.url).map_err(|cause| Failure::new(Code::Usage, cause))?;
    let password = match database.password {
        Some(text) => Some(secret(ground, text, database.option)?.0),
        None => None,
    };
    let settings = Settings { url, password, authorities: database.authorities.cloned(), answer_ms: ANSWER_MS };
    let opened = HiveTable::open(settings, Arc::clone(&ground.secrets), Arc::clone(&ground.host)).await;
    opened.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))
}

/// Reads the whole table.
pub(crate) async fn rows(table: &HiveTable) -> Result<Rows, Failure> {
    let failed = |cause: String| Failure::new(Code::Unavailable, format!("Hive's database: {cause}"));
    let mut found = Rows::default();
    let mut after = None;
    loop {
        let page = table.page(after).await.map_err(failed)?;
        let Some(last) = page.iter().flatten().last().map(|row| row.id) else {
            found.unreadable += page.len();
            return Ok(found);
        };
        after = Some(last);
        found.unreadable += page.iter().filter(|row| row.is_none()).count();
        found.rows.extend(page.into_iter().flatten());
        if found.rows.len() > LISTED_MAX {
            return Err(failed(format!("there are more than {LISTED_MAX} tokens")));
        }
    }
}

/// A row as `TARGET/ID`, or `TARGET/legacy`.
pub(crate) fn name_of(row: &Foreign) -> String {
    if row.is_legacy { format!("{}/legacy", row.target) } else { format!("{}/{}", row.target, row.id) }
}

/// Holds the table against the bucket. A legacy hash needs no row: most were made before there was a table.
pub(crate) fn apart(rows: &[Foreign], listed: &Listed) -> Apart {
    let keys: BTreeSet<_> = listed.keys.iter().map(|(target, id)| (target.as_str(), id.0)).collect();
    let legacy: BTreeSet<_> = listed.legacy.iter().map(String::as_str).collect();
    let is_there = |row: &&Foreign| match row.is_legacy {
        true => legacy.contains(row.target.as_str()),
        false => keys.contains(&(row.target.as_str(), row.id.0)),
    };
    let known: BTreeSet<_> = rows.iter().map(|row| (row.target.as_str(), row.id.0)).collect();
    let without_row = listed.keys.iter().filter(|(target, id)| !known.contains(&(target.as_str(), id.0)));
    Apart {
        without_hash: rows.iter().filter(|row| !is_there(row)).map(name_of).collect(),
        without_row: without_row.map(|(target, id)| format!("{target}/{id}")).collect(),
    }
}

/// Whether legacy hashes are those of the tokens that a secret gives: `count` of them, from all over the list.
pub(crate) async fn sample(
    hashes: &Hashes,
    listed: &Listed,
    key: &Secret<Vec<u8>>,
    count: usize,
) -> Result<Sampled, String> {
    let bcrypt = Blocking::new();
    let mut sampled = Sampled::default();
    let step = listed.legacy.len().div_ceil(count.max(1)).max(1);
    for target in listed.legacy.iter().step_by(step) {
        let Some(hash) = hashes.hash(target, None).await.map_err(|error| error.to_string())? else { continue };
        let token = legacy_token(&LocalCrypto, key.expose(), target);
        let token = Secret::new(token.expose().clone().into_bytes());
        sampled.compared += 1;
        if !bcrypt.is_of(token, hash).await.map_err(|error| error.to_string())? {
            sampled.wrong.push(target.clone());
        }
    }
    Ok(sampled)
}

/// The first of some names, after a colon.
pub(crate) fn named(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!(": {shown}{}", if names.len() > NAMED_MAX { ", .." } else { "" })
}
