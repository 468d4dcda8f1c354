//! Stores behind the register port. One file an engine.
