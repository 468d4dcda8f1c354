//! What the document says about hand-out.

use serde_json::Value;
use serde_json::json;

use super::{PLAIN, Said, moment, object, text};
use crate::http::hand_out::Asked;

pub(super) const AWS: Said = Said {
    id: "takeAwsKeys",
    summary: "The credential as container credentials of AWS SDKs. The key may stand in `Authorization` as it is. Answers within 1.8 s; problems have `Code` and `Message` too.",
    answer: Ok("AwsContainerCredentials"),
    problems: &["404", "409", "503"],
    ..PLAIN
};

pub(super) const INJECT: Said = Said {
    id: "passOn",
    summary: "Everything at the listener of an `inject` gate, with every method: sent on to its upstream with the credential. Answers are those of the upstream.",
    answer: Err("*/*"),
    problems: &["403", "409", "413", "429", "503"],
    ..PLAIN
};

pub(super) fn said_of_metadata(asked: Asked) -> Said {
    let plain = |id, summary| Said { id, summary, answer: Err("text/plain"), problems: &["403", "404"], ..PLAIN };
    let token =
        |id, summary, answer| Said { id, summary, answer: Ok(answer), problems: &["403", "404", "503"], ..PLAIN };
    match asked {
        Asked::ImdsSession => plain("imdsSession", "A token to ask for keys with (IMDSv2)."),
        Asked::ImdsRoles => plain("imdsRoles", "The name of the role."),
        Asked::ImdsKeys => token("imdsKeys", "The keys of the role.", "ImdsKeys"),
        Asked::GceRoot => plain("gceRoot", "Whether this is a metadata server."),
        Asked::GceInstance => plain("gceInstance", "What there is about the instance."),
        Asked::GceProject => plain("gceProject", "The id of the project."),
        Asked::GceUniverse => plain("gceUniverse", "The domain of Google's services."),
        Asked::GceAccount => token("gceAccount", "The service account.", "GceAccount"),
        Asked::GceEmail => plain("gceEmail", "The address of the service account."),
        Asked::GceToken => token("gceToken", "An access token of the service account.", "GceToken"),
        Asked::GceIdentity => Said {
            query: &[("audience", "For whom it is: one of `audiences`.")],
            ..plain("gceIdentity", "An identity token.")
        },
        Asked::AzureToken => Said {
            query: &[("resource", "For what it is: one of `resources`.")],
            ..token("azureToken", "An access token, as Azure's machines get one.", "AzureToken")
        },
        Asked::AzureAppToken => Said {
            query: &[("resource", "For what it is: one of `resources`.")],
            ..token(
                "azureAppToken",
                "An access token, as App Service gives one: for the API key of a caller in `X-IDENTITY-HEADER`.",
                "AzureToken",
            )
        },
    }
}

pub(super) fn schemas() -> serde_json::Map<String, Value> {
    let keys = [("AccessKeyId", text()), ("SecretAccessKey", text()), ("Token", text()), ("Expiration", moment())];
    let mut all = serde_json::Map::new();
    let container: Vec<_> = keys.iter().cloned().chain([("AccountId", text())]).collect();
    all.insert("AwsContainerCredentials".into(), object(4, &container));
    let imds = [("Code", text()), ("LastUpdated", moment()), ("Type", text())];
    let imds: Vec<_> = keys.into_iter().chain(imds).collect();
    all.insert("ImdsKeys".into(), object(7, &imds));
    let account = [
        ("aliases", json!({ "type": "array", "items": text() })),
        ("email", text()),
        ("scopes", json!({ "type": "array", "items": text() })),
    ];
    all.insert("GceAccount".into(), object(3, &account));
    let gce = [("access_token", text()), ("expires_in", super::number()), ("token_type", text())];
    all.insert("GceToken".into(), object(3, &gce));
    let azure = [
        ("access_token", text()),
        ("expires_on", json!({ "type": "string", "description": "Seconds since 1970." })),
        ("expires_in", json!({ "type": "string", "description": "Seconds." })),
        ("resource", text()),
        ("token_type", text()),
    ];
    all.insert("AzureToken".into(), object(5, &azure));
    all
}
