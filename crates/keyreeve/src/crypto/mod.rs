//! The primitives, by library.
