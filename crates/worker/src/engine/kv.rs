//! Workers KV as a shared cache: one namespace in all data centres.
//!
//! It may be a minute behind, also with "there is nothing", and takes one write a second for one key. It compares nothing
//! when it writes, so it can be no register.

use async_trait::async_trait;
use bytes::Bytes;
use keyreeve::port::{Key, Shared};
use worker::Env;
use worker::kv::{KvError, KvStore};
use worker::send::SendFuture;
use worker::wasm_bindgen::JsValue;

use super::entry;
use crate::js;

/// Before the key: a namespace may hold other things.
const FOLDER: &str = "keyreeve/";
/// KV keeps nothing for less. Whoever reads looks at the expiry inside the entry.
const TTL_SECONDS_MIN: u64 = 60;

/// A KV namespace.
pub struct Kv {
    store: KvStore,
}

impl Kv {
    /// Takes the namespace that is bound to `binding`.
    ///
    /// # Errors
    /// A sentence that names the binding.
    pub fn new(env: &Env, binding: &str) -> Result<Self, String> {
        js::binding_with(env, binding, "getWithMetadata", "KV namespace")?;
        Ok(Self { store: KvStore::from_this(env, binding).map_err(reason)? })
    }
}

#[async_trait]
impl Shared for Kv {
    fn kind(&self) -> &'static str {
        "kv"
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, String> {
        SendFuture::new(async {
            let Some(stream) = self.store.get(&name(key)).stream().await.map_err(reason)? else { return Ok(None) };
            entry(&stream).await.map(Some)
        })
        .await
    }

    async fn put(&self, key: &Key, bytes: Bytes, ttl_ms: u64) -> Result<(), String> {
        SendFuture::new(async {
            let put = self.store.put_bytes(&name(key), &bytes).map_err(reason)?;
            put.expiration_ttl(ttl_ms.div_ceil(1000).max(TTL_SECONDS_MIN)).execute().await.map_err(reason)
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<(), String> {
        SendFuture::new(async { self.store.delete(&name(key)).await.map_err(reason) }).await
    }
}

fn name(key: &Key) -> String {
    format!("{FOLDER}{key}")
}

fn reason(error: KvError) -> String {
    js::reason(&JsValue::from(error))
}
