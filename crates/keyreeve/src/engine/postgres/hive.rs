//! The table in which GraphQL Hive lists the tokens of its CDN, read and never written.

use std::sync::Arc;

use keyreeve_core::time::Timestamp;
use keyreeve_core::token::TokenId;
use tokio::time::timeout_at;
use tokio_postgres::types::{ToSql, Type};

use super::pool::{Link, Pool, Unready};
use super::{OpenError, Settings, explain, size, text};
use crate::access::Foreign;
use crate::port::{Host, Secrets};

/// The most rows of a page.
pub const PAGE_MAX: i32 = 1000;
const ROWS: &str = "SELECT id::text, target_id::text, coalesce(alias, ''), coalesce(first_characters, ''),
    coalesce(last_characters, ''), (extract(epoch FROM created_at) * 1000)::bigint, s3_key LIKE 'cdn-legacy-keys/%'
    FROM cdn_access_tokens WHERE id > $1::uuid ORDER BY id LIMIT $2";

const MAY_READ_TARGETS: &str = "SELECT has_table_privilege(to_regclass('targets'), 'SELECT')";
/// The most targets that are asked about at once.
const TARGETS_MAX: usize = 1000;
const GONE: &str = "SELECT name FROM unnest($1) AS name WHERE NOT EXISTS
    (SELECT 1 FROM targets WHERE targets.id::text = name)";

/// A connection to Hive's database that cannot change it.
pub struct HiveTable {
    pool: Pool,
    link: Link,
}

impl HiveTable {
    /// Connects.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(settings: Settings, secrets: Arc<dyn Secrets>, host: Arc<dyn Host>) -> Result<Self, OpenError> {
        let url = settings.url.to_string();
        let unusable = |cause: String| OpenError::Unusable { url: url.clone(), cause };
        let pool = Pool::new(settings, secrets, host).map_err(unusable)?;
        let begun = async {
            let link = pool.dial(None).await?;
            let only = format!("SET default_transaction_read_only = on; SET statement_timeout = {}", pool.answer_ms());
            link.client.batch_execute(&only).await.map_err(|error| Unready::of(&error))?;
            Ok(link)
        };
        let link = match timeout_at(pool.deadline(), begun).await {
            Ok(Ok(link)) => link,
            Ok(Err(Unready::Away(cause))) => return Err(OpenError::Away { url, cause }),
            Ok(Err(unready)) => return Err(unusable(unready.to_string())),
            Err(_) => return Err(OpenError::Away { url, cause: "no connection was made in time".into() }),
        };
        Ok(Self { pool, link })
    }

    /// At most [`PAGE_MAX`] tokens with ids after `after`, in the order of their ids. A row whose id is none comes as none.
    ///
    /// # Errors
    /// A sentence.
    pub async fn page(&self, after: Option<TokenId>) -> Result<Vec<Option<Foreign>>, String> {
        let after = after.unwrap_or(TokenId([0; 16])).to_string();
        let after = after.as_str();
        let parameters = [text(&after), size(&PAGE_MAX)];
        let rows = timeout_at(self.pool.deadline(), self.link.client.query_typed(ROWS, &parameters)).await;
        let rows = rows.map_err(|_| "no answer in time".to_owned())?.map_err(|error| explain(&error))?;
        Ok(rows.iter().map(foreign).collect())
    }

    /// Those of `targets` that Hive has no longer. `None` where its table of targets is not to be read.
    ///
    /// # Errors
    /// A sentence.
    pub async fn gone(&self, targets: &[&str]) -> Result<Option<Vec<String>>, String> {
        let asked = timeout_at(self.pool.deadline(), self.link.client.query_typed(MAY_READ_TARGETS, &[])).await;
        let rows = asked.map_err(|_| "no answer in time".to_owned())?.map_err(|error| explain(&error))?;
        if !rows.first().is_some_and(|row| matches!(row.try_get(0), Ok(Some(true)))) {
            return Ok(None);
        }
        let mut gone = Vec::new();
        for some in targets.chunks(TARGETS_MAX) {
            let some = some.to_vec();
            let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&some, Type::TEXT_ARRAY)];
            let asked = timeout_at(self.pool.deadline(), self.link.client.query_typed(GONE, &parameters)).await;
            let rows = asked.map_err(|_| "no answer in time".to_owned())?.map_err(|error| explain(&error))?;
            gone.extend(rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok()));
        }
        Ok(Some(gone))
    }
}

fn foreign(row: &tokio_postgres::Row) -> Option<Foreign> {
    let text = |at: usize| row.try_get::<_, String>(at).ok();
    Some(Foreign {
        id: TokenId::parse(&text(0)?)?,
        target: text(1)?,
        alias: text(2)?,
        first: text(3)?,
        last: text(4)?,
        is_legacy: row.try_get(6).ok()?,
        created_at: Timestamp(u64::try_from(row.try_get::<_, i64>(5).ok()?).ok()?),
    })
}
