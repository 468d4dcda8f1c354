//! Fake upstreams that enforce the real rules and keep score.
