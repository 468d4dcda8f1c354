//! Proofs that whoever sends a token has the key it is bound to (DPoP, RFC 9449).

use keyreeve_core::jwt::{Key, Possession, Proof, ProofExpected};
use keyreeve_core::time::Timestamp;

use super::Refusal;
use super::keys::Unavailable;
use super::verifier::{VerifyError, settled};
use crate::crypto::{KeyError, LocalCrypto, MakeCheck};

/// Checks the proof of a request: the value of its header `DPoP`. `make` is [`crate::crypto::check`], or the platform's own.
///
/// Then [`Claims::check_possession`](super::Claims::check_possession) compares it with an access token, and [`Possession::id`] must not come a second time before
/// [`Possession::until`]: remembering that is the caller's.
///
/// ```
/// # async fn run(header: &str, token: &str, access: &keyreeve::jwt::Verified<keyreeve::jwt::Claims>, now: keyreeve::core::time::Timestamp)
/// #     -> Result<(), keyreeve::jwt::VerifyError> {
/// use keyreeve::core::jwt::ProofExpected;
/// use keyreeve::jwt::possession::prove;
///
/// let url = "https://api.example/orders";
/// let expected = ProofExpected { method: "POST", url, access_token: Some(token), nonce: None, window_s: 60 };
/// let possession = prove(header, &expected, now, keyreeve::crypto::check).await?;
/// access.claims().check_possession(Some(&possession))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`VerifyError`].
pub async fn prove(
    header: &str,
    expected: &ProofExpected<'_>,
    now: Timestamp,
    make: MakeCheck,
) -> Result<Possession, VerifyError> {
    let proof = Proof::parse(header)?;
    let (public, algorithm) = (proof.key().clone(), proof.header().algorithm);
    let check = make(&public, algorithm).map_err(|error| match error {
        KeyError::Platform(what) => VerifyError::Unavailable(Unavailable(format!("this build does not verify {what}"))),
        _ => VerifyError::Refused(Refusal::Header { member: "jwk", why: "is no key" }),
    })?;
    let ready = Key::new(None, algorithm, check);
    Ok(settled(proof.select(&ready)?).await?.proof(&public, expected, now, &LocalCrypto)?)
}
