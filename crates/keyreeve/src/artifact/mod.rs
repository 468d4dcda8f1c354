//! Artifacts: named objects in a folder or a bucket, for whoever has a token for their target.
//!
//! - [`checks`]: who may have which
//! - [`objects`]: a folder or a bucket, opened
//! - [`name`]: which object a path stands for; no path stands for one of another target
//! - [`origins`]: the primary and its mirrors, asked one after the other
//! - [`kept`]: what was read, in memory
//! - [`disk`]: the same on disk, for times when no origin answers
//! - [`gate`]: all of them together
//! - [`shape`]: what GraphQL Hive makes of the bytes of some
//! - [`hashes`]: hashes of tokens that GraphQL Hive has in its bucket
//!
//! What a request looks like, and its answer, is [`http::artifacts`](crate::http)'s business.

pub mod checks;
pub mod disk;
pub mod gate;
pub mod hashes;
pub mod kept;
pub mod name;
pub mod objects;
pub mod origins;
pub mod read;
pub mod shape;

pub use gate::{Artifacts, Found};
pub use objects::Objects;
