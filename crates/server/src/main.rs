//! The keyreeve binary.
fn main() {}
