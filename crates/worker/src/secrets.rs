//! Secrets by reference: from the bindings of a Worker.
//!
//! Plain secrets and variables are texts and are read where they are needed. A secret of the Secrets Store has to be fetched,
//! once, by [`BoundSecrets::with_stored`].

use std::collections::BTreeMap;

use futures::future::{Either, select};
use keyreeve::config::SecretRef;
use keyreeve::core::secret::Secret;
use keyreeve::port::{Host, Secrets};
use worker::Env;
use worker::send::SendFuture;

use crate::js;

/// The largest secret that is read, in bytes: that of the Secrets Store.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// A Secrets Store that has not answered after this long, in milliseconds, is away.
const STORE_MS: u64 = 5000;

/// The bindings of this Worker.
pub struct BoundSecrets {
    env: Env,
    /// What was fetched from the Secrets Store, by binding.
    stored: BTreeMap<String, Secret<Vec<u8>>>,
}

impl BoundSecrets {
    /// Reads texts only: secrets and variables.
    #[must_use]
    pub const fn new(env: Env) -> Self {
        Self { env, stored: BTreeMap::new() }
    }

    /// Fetches those of `names` that are bound to the Secrets Store; the others, bound or not, are left for later.
    ///
    /// # Errors
    /// A sentence that names the binding.
    pub async fn with_stored(
        mut self,
        host: &dyn Host,
        names: impl IntoIterator<Item = String>,
    ) -> Result<Self, String> {
        for name in names {
            if js::binding(&self.env, &name).is_none() {
                continue;
            }
            // A text has no store behind it; whatever else it is, `read` will say.
            let Ok(store) = self.env.secret_store(&name) else { continue };
            let fetched = SendFuture::new(async move { store.get().await });
            let until = host.now().mono.plus(STORE_MS);
            let secret = match select(Box::pin(fetched), host.sleep_until(until)).await {
                Either::Left((Ok(Some(text)), _)) => Ok(Secret::new(text.into_bytes())),
                Either::Left((Ok(None), _)) => Err("it is not there".to_owned()),
                Either::Left((Err(error), _)) => Err(js::reason(&error.into())),
                Either::Right(_) => Err(format!("no answer within {STORE_MS}ms")),
            };
            let secret = secret.map_err(|cause| format!("the secret bound to `{name}` cannot be read: {cause}"))?;
            self.stored.insert(name, secret);
        }
        Ok(self)
    }

    fn text(&self, name: &str) -> Result<Secret<Vec<u8>>, String> {
        if let Some(secret) = self.stored.get(name) {
            return Ok(secret.clone());
        }
        let value = js::binding(&self.env, name)
            .ok_or_else(|| format!("the binding `{name}` is missing\nhint: wrangler secret put {name}"))?;
        match value.as_string() {
            Some(text) => Ok(Secret::new(text.into_bytes())),
            None => Err(format!("the binding `{name}` is neither a secret nor a variable")),
        }
    }
}

impl Secrets for BoundSecrets {
    fn read(&self, reference: &SecretRef) -> Result<Secret<Vec<u8>>, String> {
        let (name, secret) = match reference {
            // Variables are bindings too.
            SecretRef::Binding(name) | SecretRef::Env(name) => (name.as_str(), self.text(name)?),
            SecretRef::NameIn(holder) => {
                let name = self.text(holder)?;
                let name = std::str::from_utf8(name.expose()).unwrap_or_default().trim();
                // Whoever mistakes `name-in` for `binding` has the secret itself there: it is not shown.
                let secret =
                    self.text(name).map_err(|_| format!("`{holder}` does not hold the name of a secret binding"))?;
                (holder.as_str(), secret)
            }
            SecretRef::File(path) => {
                let path = path.display();
                return Err(format!("`file:{path}` cannot be read: a Worker has no files\nhint: use `binding:NAME`"));
            }
            SecretRef::Literal(text) => ("literal", Secret::new(text.expose().clone().into_bytes())),
        };
        if secret.expose().len() > SECRET_BYTES_MAX {
            return Err(format!("the secret `{name}` is larger than {SECRET_BYTES_MAX} bytes"));
        }
        let secret = without_line_break(secret);
        if secret.expose().is_empty() {
            return Err(format!("the secret `{name}` is empty"));
        }
        Ok(secret)
    }
}

/// `wrangler secret put` from a file keeps the line break at its end, which nobody means.
fn without_line_break(secret: Secret<Vec<u8>>) -> Secret<Vec<u8>> {
    let bytes = secret.expose().as_slice();
    let Some(line) = bytes.strip_suffix(b"\n") else { return secret };
    Secret::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}
