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

/// What a mint leaves for the next one, such as a refresh token. Sealed with the credential, and never handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(pub BTreeMap<String, Secret<String>>);

impl Kept {
    /// Reads what was left in the sealed form of a credential; `None` where nothing was.
    ///
    /// # Errors
    /// A sentence without any of the content.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, String> {
        let mut stored = Material::stored(bytes)?;
        let kept = std::mem::take(&mut stored.kept);
        let kept = kept.into_iter().map(|(name, value)| (name, Secret::new(value))).collect::<BTreeMap<_, _>>();
        Ok((!kept.is_empty()).then_some(Self(kept)))
    }
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
    /// Layout 2.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    kept: BTreeMap<String, String>,
}

impl Drop for StoredMaterial {
    fn drop(&mut self) {
        self.kept.values_mut().for_each(zeroize::Zeroize::zeroize);
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
    /// Without anything kept, so that an older keyreeve can read it too.
    const LAYOUT: u8 = 1;
    const LAYOUT_KEPT: u8 = 2;

    /// A bearer token.
    #[must_use]
    pub fn bearer(token: String) -> Self {
        Self { secret: Fields::Token(Secret::new(token)), kind: Self::BEARER.into() }
    }

    /// Nothing that anybody could use.
    pub(crate) fn nothing() -> Self {
        Self { secret: Fields::Named(BTreeMap::new()), kind: Self::FIELDS.into() }
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
        self.to_bytes_with(None)
    }

    /// As [`to_bytes`](Self::to_bytes), with what the next mint needs.
    #[must_use]
    pub fn to_bytes_with(&self, kept: Option<&Kept>) -> Secret<Vec<u8>> {
        let (token, fields) = match &self.secret {
            Fields::Token(token) => (Some(token.expose().clone()), BTreeMap::new()),
            Fields::Named(named) => {
                (None, named.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect())
            }
        };
        let kept: BTreeMap<String, String> = kept
            .map(|kept| kept.0.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect())
            .unwrap_or_default();
        let v = if kept.is_empty() { Self::LAYOUT } else { Self::LAYOUT_KEPT };
        let stored = StoredMaterial { v, kind: self.kind.clone(), token, fields, kept };
        // Strings and maps of strings always serialize.
        Secret::new(serde_json::to_vec(&stored).unwrap_or_default())
    }

    /// Reads the form that was in a seal envelope, without what is kept for the next mint.
    ///
    /// # Errors
    /// A sentence without any of the content.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut stored = Self::stored(bytes)?;
        let fields = std::mem::take(&mut stored.fields);
        let secret = match stored.token.take() {
            Some(token) => Fields::Token(Secret::new(token)),
            None => Fields::Named(fields.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()),
        };
        Ok(Self { secret, kind: std::mem::take(&mut stored.kind) })
    }

    fn stored(bytes: &[u8]) -> Result<StoredMaterial, String> {
        #[derive(Deserialize)]
        struct Layout {
            v: u8,
        }
        let unreadable = |_| String::from("the opened envelope holds no credential");
        // The layout first: a newer one may have members that this one refuses.
        let Layout { v } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if ![Self::LAYOUT, Self::LAYOUT_KEPT].contains(&v) {
            let most = Self::LAYOUT_KEPT;
            return Err(format!("the sealed credential has layout {v}, this keyreeve reads 1 to {most}"));
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }
}
