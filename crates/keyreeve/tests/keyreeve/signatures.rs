use keyreeve::config::Algorithm;
use keyreeve::crypto::{jws, signer};
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::DecodePublicKey as _;

use crate::support::{P256, base64url, json, secret, taken_apart};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

async fn signed(algorithm: Algorithm, key: &str, message: &[u8]) -> Vec<u8> {
    signer(algorithm, &secret(key)).unwrap().sign(message).await.unwrap()
}

/// The vector for "sample" has an `s` in the upper half, so it fails as soon as somebody normalizes.
#[tokio::test]
async fn es256_gives_the_signatures_of_rfc_6979() {
    assert_eq!(
        hex(&signed(Algorithm::Es256, P256, b"sample").await),
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716\
         F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
    );
    assert_eq!(
        hex(&signed(Algorithm::Es256, P256, b"test").await),
        "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367\
         019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083"
    );
}

#[tokio::test]
async fn eddsa_gives_the_signature_of_rfc_8037() {
    let key = r#"{"kty":"OKP","crv":"Ed25519",
        "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    assert_eq!(
        signed(Algorithm::EdDsa, key, input).await,
        base64url("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
    );
}

#[tokio::test]
async fn hs256_gives_the_signature_of_rfc_7515_a_1() {
    let key =
        r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
    let input = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    assert_eq!(signed(Algorithm::Hs256, key, input).await, base64url("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
}

/// RFC 4231 test case 6, whose key is long enough for both.
#[tokio::test]
async fn hs384_and_hs512_give_the_macs_of_rfc_4231() {
    let key = keyreeve::core::secret::Secret::new(vec![0xaa; 131]);
    let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
    for (algorithm, mac) in [
        (
            Algorithm::Hs384,
            "4ECE084485813E9088D2C63A041BC5B44F9EF1012A2B588F3CD11F05033AC4C60C2EF6AB4030FE8296248DF163F44952",
        ),
        (
            Algorithm::Hs512,
            "80B24263C7C1A3EBB71493C1DD7BE8B49B46D1F41B4AEEC1121B013783F8F3526B56D037E05F2598BD0FD2215D6A1E5295E64F73F63F0AEC8B915A985D786598",
        ),
    ] {
        let signer = signer(algorithm, &key).unwrap();
        assert_eq!(signer.algorithm(), algorithm);
        assert_eq!(hex(&signer.sign(message).await.unwrap()), mac);
    }
}

#[cfg(feature = "native")]
#[tokio::test]
async fn rs256_gives_the_signature_of_rfc_7515_a_2() {
    let input = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    assert_eq!(
        signed(Algorithm::Rs256, include_str!("keys/rfc7515-a2.jwk"), input).await,
        base64url(
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        )
    );
}

#[tokio::test]
async fn every_algorithm_gives_the_same_bytes_twice_on_two_instances() {
    let shared = "0123456789abcdef".repeat(4);
    let cases = [
        (Algorithm::Es256, P256),
        (Algorithm::EdDsa, include_str!("keys/ed25519-pkcs8.pem")),
        #[cfg(feature = "native")]
        (Algorithm::Rs256, include_str!("keys/rsa2048-pkcs8.pem")),
        (Algorithm::Hs256, &shared),
        (Algorithm::Hs384, &shared),
        (Algorithm::Hs512, &shared),
    ];
    for (algorithm, key) in cases {
        let one = signer(algorithm, &secret(key)).unwrap();
        let other = signer(algorithm, &secret(key)).unwrap();
        let first = one.sign(b"message").await.unwrap();
        assert_eq!(first, one.sign(b"message").await.unwrap(), "{algorithm:?}");
        assert_eq!(first, other.sign(b"message").await.unwrap(), "{algorithm:?}");
        assert_ne!(first, other.sign(b"another").await.unwrap(), "{algorithm:?}");
        assert_eq!(one.algorithm(), algorithm);
    }
}

#[tokio::test]
async fn a_compact_token_keeps_the_order_of_its_members_and_verifies() {
    let signer = signer(Algorithm::Es256, &secret(P256)).unwrap();
    let header = json(r#"{"typ":"JWT","alg":"ES256","a":1}"#);
    let claims = json(r#"{"z":1,"a":"\u00e9","n":{"y":true,"b":null}}"#);
    let token = jws::compact(signer.as_ref(), &header, &claims).await.unwrap();
    let (header, claims, input, signature) = taken_apart(&token);
    assert_eq!(header, r#"{"typ":"JWT","alg":"ES256","a":1}"#);
    assert_eq!(claims, r#"{"z":1,"a":"é","n":{"y":true,"b":null}}"#);
    let key = p256::ecdsa::VerifyingKey::from_public_key_pem(include_str!("keys/p256-public.pem")).unwrap();
    key.verify(&input, &p256::ecdsa::Signature::from_slice(&signature).unwrap()).unwrap();
}

#[tokio::test]
async fn a_token_that_fits_into_no_header_is_not_made() {
    let signer = signer(Algorithm::Es256, &secret(P256)).unwrap();
    let claims = |bytes: usize| json(&format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes)));
    let header = json(r#"{"alg":"ES256"}"#);
    let token = jws::compact(signer.as_ref(), &header, &claims(12_000)).await.unwrap();
    assert!(token.len() <= jws::TOKEN_BYTES_MAX);
    let error = jws::compact(signer.as_ref(), &header, &claims(12_300)).await.unwrap_err();
    assert!(error.to_string().ends_with("is larger than the limit of 16384"), "{error}");
}
