//! Every setting: one TOML schema, text in, valid values out.
//!
//! [`types`] is what the rest of the crate works with: nothing in it needs to be checked again. [`Config::read`] makes
//! it, or says everything that is wrong at once. [`table`] has each setting once, with its kind, limits, default and
//! meaning; reading, `config explain`, the JSON Schema and the reference page all follow it.
//!
//! This module opens no file and no secret: it knows where secrets are, and never what they are.

mod access;
mod artifact;
mod asked;
mod bindings;
mod caller;
mod client;
mod credential;
mod environment;
mod gate;
mod hand_out;
mod inbound;
mod inject;
mod issuer;
mod parse;
mod plan;
mod postgres;
mod problem;
mod quiet;
mod read;
mod reference;
mod revocation;
mod schema;
mod scope;
mod settings;
mod sheet;
mod sources;
pub mod table;
mod tree;
pub mod types;
mod units;
mod value;
mod verifier;
mod via;

pub use access::FamilyConfig;
pub use artifact::{ArtifactConfig, Compat, Deliver, ObjectsConfig, ObjectsPlace};
pub use asked::{
    AskingClient, AskingProof, AssertionConfig, AwsConfig, ExchangeConfig, GcpConfig, GithubConfig, GoogleConfig,
    RefreshConfig, SignedAssertion, TokenConfig,
};
pub use bindings::Bindings;
pub use client::{ClientConfig, ClientProof, Grant, OWN_CLAIMS, Trusted};
pub use environment::PREFIX as ENVIRONMENT_PREFIX;
pub(crate) use gate::IDENTITY;
pub(crate) use hand_out::bare_resource;
pub use hand_out::{FileConfig, FileForm, MetadataConfig, MetadataKind};
pub use inbound::{FetchConfig, GateConfig, KeysConfig, KeysUrl, Proxy, VerifierConfig};
pub use inject::InjectConfig;
pub use issuer::IssuerConfig;
pub(crate) use parse::is_local_address;
pub use postgres::{PostgresUrl, Reach};
pub use problem::{Origin, PROBLEMS_MAX, Problem, Problems, Severity};
pub use read::{CONFIG_BYTES_MAX, ConfigRead, ReadOptions};
pub use reference::reference;
pub use revocation::{OnStale, RevocationConfig};
pub use schema::schema;
pub use settings::settings;
pub use sheet::Explained;
pub use types::*;
pub(crate) use units::duration;
