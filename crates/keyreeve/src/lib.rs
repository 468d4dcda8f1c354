//! keyreeve
