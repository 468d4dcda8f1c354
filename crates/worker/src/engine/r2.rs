//! A register in an R2 bucket, for deployments without a Durable Object.
//!
//! A swap is a conditional put on the ETag of the object that the expected write left. The write id is part of the object's
//! bytes: an ETag is a hash of those, and two writes of one value must not have the same. R2 is strongly consistent, and
//! checks the condition where it writes.
//!
//! R2 takes about one write a second for one key, and a swap costs a read besides: enough for credentials, no more.

use async_trait::async_trait;
use bytes::Bytes;
use keyreeve::core::id::WriteId;
use keyreeve::engine::{VALUE_BYTES_MAX, check_value};
use keyreeve::port::{Capabilities, Entry, Key, LIST_MAX, Register, StoreError, Swap};
use worker::send::{SendFuture, SendWrapper};
use worker::wasm_bindgen::JsCast as _;
use worker::{Bucket, Conditional, Env};

use crate::js;

/// Before the key, in the name of each object: a bucket may hold other things.
const FOLDER: &str = "keyreeve/register/";
/// The layout of an object: this byte, sixteen of the write id, the value.
const LAYOUT: u8 = 1;
const HEAD_BYTES: usize = 17;

/// A bucket.
pub struct R2 {
    bucket: SendWrapper<Bucket>,
}

struct Found {
    entry: Entry,
    etag: String,
}

impl R2 {
    /// Takes the bucket that is bound to `binding`.
    ///
    /// # Errors
    /// A sentence that names the binding.
    pub fn new(env: &Env, binding: &str) -> Result<Self, String> {
        let bucket = js::binding_with(env, binding, "createMultipartUpload", "R2 bucket")?;
        Ok(Self { bucket: SendWrapper::new(Bucket::unchecked_from_js(bucket)) })
    }

    async fn find(&self, key: &Key) -> Result<Option<Found>, StoreError> {
        let foreign = |what: &str| {
            Err(StoreError::Refused(format!("the object `{}` {what}\nhint: delete it to start anew", name(key))))
        };
        let Some(object) = self.bucket.get(name(key)).execute().await.map_err(unread)? else { return Ok(None) };
        if object.size() > (HEAD_BYTES + VALUE_BYTES_MAX) as u64 {
            return foreign("is too large to be keyreeve's");
        }
        let Some(body) = object.body() else { return foreign("has no content") };
        let bytes = Bytes::from(body.bytes().await.map_err(unread)?);
        let head = bytes.first_chunk::<HEAD_BYTES>().map(|[layout, op @ ..]| (*layout, *op));
        match head {
            Some((LAYOUT, op)) => {
                let entry = Entry { op: WriteId(op), bytes: bytes.slice(HEAD_BYTES..) };
                Ok(Some(Found { entry, etag: object.etag() }))
            }
            _ => foreign("was not written by this version of keyreeve"),
        }
    }

    async fn put(&self, key: &Key, condition: Conditional, next: &Entry) -> Result<Swap, StoreError> {
        let bytes = [&[LAYOUT], next.op.0.as_slice(), &next.bytes].concat();
        match self.bucket.put(name(key), bytes).only_if(condition).execute().await {
            Ok(Some(_)) => Ok(Swap::Done),
            Ok(None) => Ok(Swap::Lost),
            // It may have been written all the same.
            Err(error) => Err(StoreError::Unknown(js::reason(&error.into()))),
        }
    }

    async fn swap_found(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        let condition = match expected {
            None => Conditional { etag_does_not_match: Some("*".to_owned()), ..Conditional::default() },
            Some(expected) => match self.find(key).await {
                Ok(Some(found)) if found.entry.op == expected => {
                    Conditional { etag_matches: Some(found.etag), ..Conditional::default() }
                }
                Ok(_) => return Ok(Swap::Lost),
                // Nothing has been sent that could write.
                Err(StoreError::Unknown(cause)) => return Err(StoreError::Refused(cause)),
                Err(error) => return Err(error),
            },
        };
        self.put(key, condition, &next).await
    }

    async fn list_all(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let mut keys: Vec<Key> = Vec::new();
        let mut after = after.map(name);
        while keys.len() < limit {
            let left = u32::try_from(limit.saturating_sub(keys.len())).unwrap_or(u32::MAX);
            let mut page = self.bucket.list().prefix(format!("{FOLDER}{prefix}")).limit(left);
            if let Some(after) = &after {
                page = page.start_after(after);
            }
            let page = page.execute().await.map_err(unread)?;
            let names: Vec<String> = page.objects().iter().map(worker::Object::key).collect();
            keys.extend(names.iter().filter_map(|name| Key::new(name.strip_prefix(FOLDER)?)));
            after = names.into_iter().next_back();
            if !page.truncated() || after.is_none() {
                break;
            }
        }
        Ok(keys)
    }
}

#[async_trait]
impl Register for R2 {
    fn capabilities(&self) -> Capabilities {
        Capabilities { is_swap_atomic: true, is_durable: true, forgets_on_failover: false, is_shared: true }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(SendFuture::new(self.find(key)).await?.map(|found| found.entry))
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        check_value(&next)?;
        SendFuture::new(self.swap_found(key, expected, next)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        SendFuture::new(self.list_all(prefix, after, limit.min(LIST_MAX))).await
    }
}

fn name(key: &Key) -> String {
    format!("{FOLDER}{key}")
}

fn unread(error: worker::Error) -> StoreError {
    StoreError::Unknown(js::reason(&error.into()))
}
