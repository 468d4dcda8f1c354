//! Artifacts: named objects in a folder or a bucket, for whoever has a token for their target.
//!
//! - [`objects`]: a folder or a bucket, opened

pub mod objects;
