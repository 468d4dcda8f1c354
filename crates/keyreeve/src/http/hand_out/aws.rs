//! `GET /v1/credentials/{name}/aws`: container credentials, which boto3, the AWS CLI and the other SDKs fetch by
//! `AWS_CONTAINER_CREDENTIALS_FULL_URI` and `AWS_CONTAINER_AUTHORIZATION_TOKEN`.

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::request::Parts as Head;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Moment;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{expires_at, held, taken};
use crate::http::api::{Answering, Api};
use crate::http::input::{self, rfc3339};
use crate::http::problem::{Answer, CONFLICT, Problem};
use crate::http::route::Later;
use crate::outbound::Served;
use crate::source::{AwsKeys, Fields};

/// SDKs ask before every signature when less than this is left, in milliseconds.
const LIFE_MS: u64 = 15 * 60_000;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    /// Empty for keys without a session: some SDKs insist on text.
    token: &'a str,
    expiration: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<&'a str>,
}

/// The answer, if this node holds one.
///
/// # Errors
/// A query, of which there is none here; a credential that is no AWS key.
pub(in crate::http) fn now(api: &Api, live: &Answering, name: &str, head: &Head) -> Result<Option<Answer>, Problem> {
    input::query(head, [])?;
    held(api, live, name, LIFE_MS).map(|served| document(name, &served, api.host.now())).transpose()
}

/// The answer, when there is one.
///
/// # Errors
/// The refusal, after 1.8 s at the most.
pub(in crate::http) async fn wait(later: &Later) -> Result<Answer, Problem> {
    let served = taken(later, &later.name).await?;
    document(&later.name, &served, later.api.host.now())
}

fn document(name: &str, served: &Served, now: Moment) -> Result<Answer, Problem> {
    let keys = keys(name, served)?;
    let text = |secret: &'_ Secret<String>| secret.expose().len();
    let document = Document {
        access_key_id: keys.access_key_id.expose(),
        secret_access_key: keys.secret_access_key.expose(),
        token: keys.session_token.map_or("", |token| token.expose()),
        expiration: rfc3339(expires_at(served, now)),
        account_id: keys.account_id.map(|id| id.expose().as_str()),
    };
    let room = [keys.session_token, keys.account_id].into_iter().flatten().map(text).sum::<usize>();
    Ok(secret_json(&document, room.saturating_add(text(keys.secret_access_key)).saturating_add(512)))
}

/// The AWS keys of a credential: of an AWS source, or named as AWS names them by a script or service of the user's.
///
/// # Errors
/// 409 for any other credential.
pub(super) fn keys<'a>(name: &str, served: &'a Served) -> Result<AwsKeys<'a>, Problem> {
    let keys = match &served.material.secret {
        Fields::Named(named) => {
            named.get("AccessKeyId").zip(named.get("SecretAccessKey")).map(|(id, secret)| AwsKeys {
                access_key_id: id,
                secret_access_key: secret,
                session_token: named.get("SessionToken"),
                account_id: named.get("AccountId"),
            })
        }
        Fields::Token(_) => None,
    };
    keys.ok_or_else(|| {
        let hint = "AWS clients can use `aws-web-identity`, or an `http` or `exec` source with `AccessKeyId` and `SecretAccessKey`";
        Problem::new(CONFLICT, format!("`{name}` is no AWS credential\nhint: {hint}"))
    })
}

/// An answer whose text holds a secret; `room` bytes are enough for it, so that no copy is left behind.
pub(super) fn secret_json(document: &impl Serialize, room: usize) -> Answer {
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    // Strings always serialize, and a Vec takes them all.
    let _ = serde_json::to_writer(&mut *bytes, document);
    let mut answer = Answer::new(Bytes::from_owner(bytes).into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
