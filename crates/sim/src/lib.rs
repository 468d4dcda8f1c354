//! Checks of the renewal protocol that drive the shipped code: an exhaustive walk.

pub mod walk;
