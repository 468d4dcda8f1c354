//! The OpenAPI document.
use serde_json::Value;
/// d
#[must_use]
pub fn openapi() -> Value {
    Value::Null
}
