//! The secret part of a credential, and its stored form.

use std::collections::BTreeMap;

use keyreeve_core::secret::Secret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// The secret part of a credential, as stored inside the seal envelope (JSON, `v` is the layout).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// One token, or named fields.
    pub secret: Fields,
    /// `bearer`, `aws`, or what the source calls it.
    pub kind: String,
}

/// The secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields {
    /// A single token.
    Token(Secret<String>),
    /// Several named values, such as an AWS key pair with its session token.
    Named(BTreeMap<String, Secret<String>>),
}

/// An AWS key pair with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct AwsKeys<'a> {
    /// `AccessKeyId`.
    pub access_key_id: &'a Secret<String>,
    /// `SecretAccessKey`.
    pub secret_access_key: &'a Secret<String>,
    /// `SessionToken`; absent for long-lived keys.
    pub session_token: Option<&'a Secret<String>>,
    /// `AccountId`.
    pub account_id: Option<&'a Secret<String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMaterial {
    v: u8,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, String>,
}

impl Drop for StoredMaterial {
    fn drop(&mut self) {
        self.token.zeroize();
        self.fields.values_mut().for_each(zeroize::Zeroize::zeroize);
    }
}

impl Material {
    /// The kind of a single bearer token.
    pub const BEARER: &str = "bearer";
    /// The kind of AWS keys.
    pub const AWS: &str = "aws";
    /// The kind of named fields that are nothing in particular.
    pub const FIELDS: &str = "fields";
    const LAYOUT: u8 = 1;

    /// A bearer token.
    #[must_use]
    pub fn bearer(token: String) -> Self {
        Self { secret: Fields::Token(Secret::new(token)), kind: Self::BEARER.into() }
    }

    /// The request header that carries this credential, name and value; `None` unless it is a bearer token.
    #[must_use]
    pub fn header(&self) -> Option<(&'static str, Secret<String>)> {
        match &self.secret {
            Fields::Token(token) if self.kind == Self::BEARER => {
                Some(("authorization", Secret::new(format!("bearer {}", token.expose()))))
            }
            _ => None,
        }
    }

    /// The AWS keys; `None` unless it is an AWS credential.
    #[must_use]
    pub fn aws(&self) -> Option<AwsKeys<'_>> {
        match &self.secret {
            Fields::Named(named) if self.kind == Self::AWS => Some(AwsKeys {
                access_key_id: named.get("AccessKeyId")?,
                secret_access_key: named.get("SecretAccessKey")?,
                session_token: named.get("SessionToken"),
                account_id: named.get("AccountId"),
            }),
            _ => None,
        }
    }

    /// The form that goes into the seal envelope.
    #[must_use]
    pub fn to_bytes(&self) -> Secret<Vec<u8>> {
        let (token, fields) = match &self.secret {
            Fields::Token(token) => (Some(token.expose().clone()), BTreeMap::new()),
            Fields::Named(named) => {
                (None, named.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect())
            }
        };
        let stored = StoredMaterial { v: Self::LAYOUT, kind: self.kind.clone(), token, fields };
        // Strings and maps of strings always serialize.
        Secret::new(serde_json::to_vec(&stored).unwrap_or_default())
    }

    /// Reads the form that was in a seal envelope.
    ///
    /// # Errors
    /// A sentence without any of the content.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Layout {
            v: u8,
        }
        let unreadable = |_| String::from("the opened envelope holds no credential");
        // The layout first: a newer one may have members that this one refuses.
        let Layout { v } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if v != Self::LAYOUT {
            return Err(format!("the sealed credential has layout {v}, this keyreeve reads {}", Self::LAYOUT));
        }
        let mut stored: StoredMaterial = serde_json::from_slice(bytes).map_err(unreadable)?;
        let fields = std::mem::take(&mut stored.fields);
        let secret = match stored.token.take() {
            Some(token) => Fields::Token(Secret::new(token)),
            None => Fields::Named(fields.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()),
        };
        Ok(Self { secret, kind: std::mem::take(&mut stored.kind) })
    }
}
