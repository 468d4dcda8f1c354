//! Compact JSON web signatures (RFC 7515 3.1): made here, never verified here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::sign::{SignError, Signer};

/// The largest token that is signed, in bytes; what is larger fits into no request header anywhere.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Signs `claims` under `header`, both written in the order given. The same input gives the same bytes on every
/// machine, because serialization keeps the order and all [`Signer`]s are deterministic.
///
/// # Errors
/// [`SignError`]: the signer failed, or the token would be larger than [`TOKEN_BYTES_MAX`].
pub async fn compact(
    signer: &dyn Signer,
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
) -> Result<String, SignError> {
    let json = |part: &Map<String, Value>| {
        serde_json::to_vec(part).map_err(|cause| SignError(format!("not serializable: {cause}")))
    };
    let mut token = URL_SAFE_NO_PAD.encode(json(header)?);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(json(claims)?, &mut token);
    let signature = signer.sign(token.as_bytes()).await?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    if token.len() > TOKEN_BYTES_MAX {
        return Err(SignError(format!(
            "a token of {} bytes is larger than the limit of {TOKEN_BYTES_MAX}",
            token.len()
        )));
    }
    Ok(token)
}
