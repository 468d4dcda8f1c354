//! What is said about each mistake. Every case is one snapshot, so that a change of wording is seen and meant.

use std::collections::BTreeMap;

use keyreeve::config::{Config, Origin, Problems, ReadOptions, Severity};

/// A right start: four lines, so that what follows starts on line 5.
const BASE: &str = "store.url = \"sqlite:/var/lib/keyreeve/state.db\"\n\
    seal.keys = [\"file:/etc/keyreeve/seal.key\"]\n\
    listener = [{ bind = \"127.0.0.1:7070\" }]\n\n";
/// A right credential but for its life: five lines more.
const APNS: &str = "[credential.apns-prod]\n\
    source = \"apns\"\n\
    key = \"file:/etc/keyreeve/AuthKey_ABC123DEFG.p8\"\n\
    params = { team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }\n";
const HTTP: &str = "[credential.vendor]\nsource = \"http\"\n";
const OAUTH: &str = "[credential.partner]\nsource = \"oauth2-client\"\nparams.token_url = \"https://auth.example.org/token\"\nparams.client_id = \"me\"\n";
const AWS: &str = "[credential.lake]\nsource = \"aws-web-identity\"\nparams.role_arn = \"arn:aws:iam::123456789012:role/lake\"\nparams.region = \"eu-central-1\"\n";
const EXEC: &str = "[credential.vendor]\nsource = \"exec\"\n";
const JWT: &str = "[credential.api]\nsource = \"jwt\"\nkey = \"env:API_KEY\"\n";

fn refused(text: &str, env: &[(&str, &str)]) -> Problems {
    let env: BTreeMap<String, String> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    match Config::read(text, "push.toml", &env, ReadOptions::default()) {
        Err(problems) => problems,
        Ok(read) => panic!("this was read as {:?}", read.config),
    }
}

/// What is said about a mistake, after the rules that hold for every message.
pub(crate) fn said(text: &str, env: &[(&str, &str)]) -> String {
    let problems = refused(text, env);
    for problem in &problems {
        assert_eq!(problem.severity, Severity::Error);
        assert!(!problem.hint.is_empty(), "no hint: {problem}");
        let first = problem.message.chars().next().unwrap();
        assert!(!first.is_uppercase() && !problem.message.ends_with('.'), "{problem}");
        assert_eq!(problem.to_string().lines().count(), 2, "{problem}");
        assert!(!problem.to_string().contains("hunter2"), "a secret is shown: {problem}");
    }
    problems.to_string()
}

macro_rules! mistakes {
    ($($name:ident: [$($part:expr),+ $(,)?] $(with $variable:literal = $value:literal)?;)+) => {
        const CASES: usize = [$(stringify!($name)),+].len();
        $(
            #[test]
            fn $name() {
                let env: &[(&str, &str)] = &[$(($variable, $value))?];
                insta::assert_snapshot!(stringify!($name), said(&[$($part),+].concat(), env));
            }
        )+
    };
}

mistakes! {
    // The file.
    a_line_that_is_not_toml: [BASE, "[credential.apns-prod]\nsource = apns\nkey = \"hunter2\n"];
    a_key_that_is_there_twice: [BASE, APNS, "source = \"jwt\"\n"];
    a_table_of_a_later_version: ["[revocation]\nmax_staleness = \"1s\"\n", BASE];
    a_mistyped_table: ["stroe.url = \"memory:\"\n", BASE];
    a_value_where_a_table_belongs: ["limits = 5\ncredential = []\nlistener = \"127.0.0.1:7070\"\n"];
    // Keys.
    a_mistyped_key: [BASE, APNS, "life = { max = \"55m\", leed = \"10m\" }\n"];
    a_key_from_another_table: [BASE, APNS, "lead = \"10m\"\n[credential.apns-prod.life]\nkeep = \"always\"\n"];
    a_key_nobody_knows: [BASE, "[limits]\ncolour = \"red\"\n"];
    a_key_of_another_source: [BASE, APNS, "command = [\"/bin/mint\"]\n"];
    a_missing_key: [BASE, "[credential.apns-prod]\nsource = \"apns\"\nparams.team_id = \"DEF123GHIJ\"\n"];
    // Kinds and limits.
    a_duration_without_a_unit: [BASE, APNS, "life.max = 55\nlife.lead = \"10\"\n"];
    a_duration_with_a_strange_unit: [BASE, APNS, "life.lead = \"10 minutes\"\n"];
    a_duration_beyond_its_limits: [BASE, APNS, "life.skew = \"1h\"\nlife.poll = \"1ms\"\n"];
    a_life_of_nothing: [BASE, APNS, "life.max = \"0s\"\n"];
    a_size_without_a_unit: [BASE, "limits.body = 65536\n"];
    a_size_beyond_its_limit: [BASE, "limits.body = \"1GiB\"\n"];
    a_count_beyond_its_limit: [BASE, "limits.connections = 0\n"];
    a_count_that_is_text: [BASE, "limits.event_streams = \"many\"\n"];
    a_flag_that_is_text: ["[[listener]]\nbind = \"127.0.0.1:0\"\nallow_plaintext = \"yes\"\n"];
    a_list_that_is_too_long: [BASE, "[caller.push]\nuid = 7\ncan = [\"metrics\"]\ncredentials = [", &"\"a\",".repeat(257), "]\n"];
    a_text_that_is_too_long: [BASE, "[credential.push]\nsource = \"apns\"\nkey = \"env:KEY\"\nparams = { team_id = \"DEF123GHIJ\", key_id = \"", &"A".repeat(300), "\" }\n"];
    a_caller_with_a_strange_name: [BASE, "[caller.\"Push Team\"]\nuid = -1\ncan = [\"tokn\"]\ncredentials = \"*\"\n"];
    // Store and seal.
    a_store_of_a_later_version: ["store.url = \"redis://keyreeve:hunter2@db/0\"\n"];
    a_password_in_the_url_of_a_store: ["store.url = \"postgres://keyreeve:hunter2@db/keyreeve\"\n"];
    a_password_in_the_file: ["store = { url = \"postgres://k@db/k\", password = \"hunter2\", ca = \"/etc/ca.pem\" }\n"];
    a_store_nobody_knows: ["store.url = \"mysql://keyreeve:hunter2@db/keyreeve\"\n"];
    a_sqlite_store_without_a_file: ["store.url = \"sqlite::memory:\"\n"];
    no_seal_key: [APNS];
    a_seal_key_in_the_file: ["seal.keys = [\"hunter2hunter2hunter2\", \"file:/etc/keyreeve/seal.key\"]\n"];
    a_seal_key_twice: ["seal.keys = [\"env:A\", \"env:B\", \"env:A\"]\n"];
    a_seal_key_that_is_a_table: ["seal.keys = { first = \"hunter2\" }\n"];
    a_store_timeout_beyond_its_limits: ["store = { url = \"memory:\", timeout = \"49ms\" }\n"];
    a_clock_over_plain_http: ["clock.url = \"http://time.example.org/?key=hunter2\"\n"];
    a_clock_that_is_no_url: ["clock.url = \"pool.ntp.org\"\n"];
    // A native node and a Worker.
    a_durable_object_outside_a_worker: ["store.url = \"do:KEYREEVE\"\n"];
    a_bucket_outside_a_worker: ["store.url = \"r2:RECORDS\"\n"];
    a_register_without_compare_and_swap: ["store.url = \"kv:hunter2\"\n"];
    a_worker_without_the_key: ["[store]\nurl = \"https://keyreeve.example.org\"\n"];
    a_worker_at_more_than_an_origin: ["store = { url = \"https://keyreeve.example.org/v1?key=hunter2\", key = \"env:KEY\" }\n"];
    a_worker_in_clear: ["store = { url = \"http://keyreeve.example.org\", key = \"env:KEY\" }\n"];
    a_worker_with_a_password: ["store = { url = \"https://me:hunter2@keyreeve.example.org\", key = \"env:KEY\" }\n"];
    a_register_key_in_the_file: ["store = { url = \"https://keyreeve.example.org\", key = \"hunter2hunter2\" }\n"];
    an_old_key_outside_a_worker: ["store = { url = \"https://keyreeve.example.org\", key = \"env:A\", old_key = \"env:B\" }\n"];
    caches_outside_a_worker: ["store.caches = [\"cache\"]\n"];
    a_secret_binding_outside_a_worker: ["seal.keys = [\"binding:SEAL_KEY\"]\n"];
    a_service_outside_a_worker: [BASE, HTTP, "url = \"service:RENEWAL/renew?key=hunter2\"\n"];
    a_certificate_binding_outside_a_worker: [BASE, HTTP, "url = \"https://tokens.example.org\"\nvia = \"binding:CERTIFICATE\"\n"];
    // Listeners and callers.
    a_listener_by_name: ["[[listener]]\nbind = \"localhost:7070\"\nserve = [\"api\", \"console\"]\n"];
    a_listener_in_clear: ["[[listener]]\nbind = \"0.0.0.0:7070\"\n"];
    two_listeners_on_one_address: ["[[listener]]\nbind = \"[::1]:7070\"\n[[listener]]\nbind = \"[::1]:7070\"\n"];
    a_socket_with_a_relative_path: ["[[listener]]\nbind = \"unix:keyreeve.sock\"\nserve = []\n"];
    a_literal_api_key: ["[caller.push]\nkey = \"hunter2\"\nkey_sha256 = \"hunter2\"\ncan = [\"token\"]\ncredentials = [\"*\"]\n"];
    a_caller_without_proof: ["[caller.push]\ncan = [\"token\"]\n"];
    a_caller_with_two_proofs: ["[caller.push]\nuid = 1000\nkey_sha256 = \"", SHA, "\"\ncan = []\n"];
    two_callers_with_one_key: ["[caller.a]\nuid = 7\ncan = [\"metrics\"]\n[caller.b]\nuid = 7\ncan = [\"metrics\"]\n"];
    a_pattern_with_a_star_inside: ["[caller.push]\nuid = 7\ncan = [\"token\"]\ncredentials = [\"apns-*-eu\", \"APNS\"]\n"];
    // Credentials.
    a_source_without_what_it_has_to_know: [BASE, "[credential.lake]\nsource = \"aws-web-identity\"\n"];
    a_client_that_shows_nothing: [BASE, OAUTH];
    a_client_with_two_proofs: [BASE, OAUTH, "params.client_secret = \"env:SECRET\"\nparams.client_key = \"env:KEY\"\n"];
    a_client_without_the_proof_it_names: [BASE, OAUTH, "params.auth = \"private-key-jwt\"\n"];
    a_client_without_a_certificate: [BASE, OAUTH, "params.auth = \"mtls\"\n"];
    a_token_endpoint_in_clear: [BASE, "[credential.partner]\nsource = \"oauth2-client\"\nparams = { token_url = \"http://auth.example.org/token?key=hunter2\", client_id = \"me\", client_secret = \"env:SECRET\" }\n"];
    a_client_secret_in_the_file: [BASE, OAUTH, "params.client_secret = \"hunter2\"\n"];
    scopes_in_one_text: [BASE, OAUTH, "params.client_secret = \"env:SECRET\"\nparams.scopes = [\"read write\", \"\"]\n"];
    a_refresh_token_in_the_file: [BASE, "[credential.user]\nsource = \"oauth2-refresh\"\nparams = { token_url = \"https://auth.example.org/token\", client_id = \"me\", refresh_token = \"hunter2\" }\n"];
    an_assertion_in_the_file: [BASE, AWS, "params.assertion = \"eyJhunter2\"\n"];
    an_assertion_of_a_credential_that_is_not_there: [BASE, AWS, "params.assertion = \"credential:identity\"\n"];
    an_assertion_of_a_credential_that_signs_nothing: [BASE, APNS, "life = { max = \"55m\" }\n", AWS, "params.assertion = \"credential:apns-prod\"\n"];
    a_role_that_sts_would_refuse: [BASE, "[credential.lake]\nsource = \"aws-web-identity\"\nparams = { role_arn = \"lake\", region = \"frankfurt\", session_name = \"x\", policy = \"[]\", policy_arns = [\"ReadOnlyAccess\"], assertion = \"file:/token\" }\nlife.max = \"10m\"\n"];
    a_session_longer_than_sts_allows: [BASE, AWS, "params.assertion = \"file:/token\"\nlife.max = \"13h\"\n"];
    an_installation_by_its_name: [BASE, "[credential.gh]\nsource = \"github-app\"\nkey = \"env:KEY\"\nparams = { app_id = 12345, installation_id = \"acme\", repositories = [\"acme/keyreeve\"], permissions = { contents = \"all\" } }\nlife.max = \"2h\"\n"];
    an_installation_whose_tokens_outlive_life_max: [BASE, "[credential.gh]\nsource = \"github-app\"\nkey = \"env:KEY\"\nparams = { app_id = 12345, installation_id = 1 }\nlife.max = \"45m\"\n"];
    a_service_account_whose_tokens_outlive_life_max: [BASE, "[credential.gcp]\nsource = \"google-service-account\"\nkey = \"env:KEY\"\nlife.max = \"59m\"\n"];
    a_default_life_longer_than_life_max: [BASE, OAUTH, "params.client_secret = \"env:SECRET\"\nparams.default_life = \"2h\"\nlife.max = \"30m\"\n"];
    a_provider_by_the_id_of_its_project: [BASE, "[credential.gcp]\nsource = \"gcp-workload-identity\"\nparams = { provider = \"projects/my-project/locations/global/workloadIdentityPools/p/providers/k\", service_account = \"lake\", assertion = \"file:/token\" }\n"];
    more_than_one_resource_at_entra: [BASE, "[credential.graph]\nsource = \"azure-federated\"\nparams = { tenant_id = \"contoso\", client_id = \"app\", scopes = [\"User.Read\", \"Mail.Read\"], assertion = \"file:/token\" }\n"];
    a_mistyped_source: [BASE, "[credential.push]\nsource = \"anps\"\n"];
    a_name_in_upper_case: [BASE, "[credential.APNS]\nsource = \"apns\"\n"];
    a_private_key_in_the_file: [BASE, JWT, "[credential.push]\nsource = \"apns\"\nkey = \"\"\"-----BEGIN PRIVATE KEY-----\nhunter2\n\"\"\"\n"];
    a_reference_with_a_mistyped_scheme: [BASE, "[credential.push]\nsource = \"apns\"\nkey = \"flie:/hunter2\"\n"];
    ids_that_are_not_apples: [BASE, "[credential.push]\nsource = \"apns\"\nkey = \"env:KEY\"\nparams = { team_id = \"def123ghij\", key_id = \"ABC123\" }\n"];
    an_algorithm_that_is_random: [BASE, JWT, "params = { alg = \"PS256\", claims = { exp = \"{exp}\" } }\n"];
    claims_that_cannot_be_signed: [BASE, JWT, "params = { alg = \"ES256\", header = { alg = \"none\" }, claims = { nbf = 2026-01-01T00:00:00Z, x = inf } }\n"];
    a_placeholder_that_stands_for_nothing: [BASE, JWT, "params = { alg = \"ES256\", claims = { iat = \"{ait}\", x = [\"{tenant}\"] } }\n"];
    a_token_with_fixed_times: [BASE, JWT, "params = { alg = \"ES256\", header = { crit = [\"x\"] }, claims = { iat = 5, exp = \"later\" } }\n"];
    a_script_with_our_variables: [BASE, EXEC, "command = []\npass = [\"KEYREEVE_KEY\", \"HOME\"]\nsecrets = { HOME = \"env:A\", \"B C\" = \"env:A\" }\n"];
    a_placeholder_that_no_request_has: [BASE, HTTP, "url = \"https://tokens.example.org/{generaton}\"\nbody = \"{hunter}\"\n"];
    claims_too_large_for_a_header: [BASE, JWT, "params = { alg = \"ES256\", claims = { x = \"", &"y".repeat(9000), "\" } }\n"];
    an_unknown_preset: [BASE, "[credential.gh]\nsource = \"jwt\"\npreset = \"github-app\"\n"];
    a_keep_of_no_lifetimes: [BASE, APNS, "keep = \"0 lifetimes\"\nwait = \"1m\"\n"];
    a_preset_with_a_life_too_long: [BASE, "[credential.gh]\nsource = \"jwt\"\npreset = \"github-app-jwt\"\nkey = \"env:KEY\"\nparams = { app_id = 12345, alg = \"RS256\" }\nlife.max = \"15m\"\n"];
    a_script_through_a_shell: [BASE, EXEC, "command = [\"mint --json\"]\npass = [\"PA TH\"]\nsecrets = { TOKEN = \"hunter2\" }\n"];
    a_service_in_clear: [BASE, HTTP, "url = \"http://tokens.example.org/renew?key=hunter2\"\n"];
    a_password_in_a_url: [BASE, HTTP, "url = \"https://me:hunter2@tokens.example.org/renew\"\n"];
    a_secret_in_a_plain_header: [BASE, HTTP, "url = \"https://tokens.example.org\"\nheaders = { Authorization = \"Bearer hunter2\", host = \"x\" }\n"];
    a_path_that_is_no_json_pointer: [BASE, HTTP, "url = \"https://tokens.example.org\"\nmap = { token = \"$.access_token\", expires_in = \"/a\", expires_at = \"/b\" }\n"];
    a_body_for_a_get: [BASE, HTTP, "url = \"https://tokens.example.org\"\nmethod = \"GET\"\nbody = \"hunter2\"\nkeep = \"never\"\n"];
    // Modes and sums.
    slots_for_a_script: [BASE, EXEC, "command = [\"/bin/mint\"]\nmode = \"slot\"\n"];
    replay_for_a_source_that_cannot: [BASE, HTTP, "url = \"https://tokens.example.org\"\nmode = \"replay\"\n"];
    retry_same_outside_replay: [BASE, EXEC, "command = [\"/bin/mint\"]\non_doubt = \"retry-same\"\n"];
    a_lead_longer_than_the_life: [BASE, APNS, "life = { max = \"55m\", lead = \"60m\" }\n"];
    a_renewal_before_the_upstream_allows_it: [BASE, APNS, "[credential.apns-prod.life]\nmax = \"55m\"\nlead = \"40m\"\n"];
    a_lead_that_absorbs_no_lost_answer: [BASE, EXEC, "command = [\"/bin/mint\"]\nmode = \"exclusive\"\nlife = { max = \"1h\", min_interval = \"20m\", lead = \"10m\" }\n"];
    a_share_that_is_none: [BASE, APNS, "life.lead = \"100%\"\n"];
    windows_that_are_none: [BASE, APNS, "life.quiet = [\"22:00\", \"weekend 00:00-24:00\", \"03:00-03:00\"]\n"];
    a_window_that_no_credential_lives_through: [BASE, APNS, "life.quiet = [\"22:00-06:00\"]\n"];
    a_lease_that_ends_before_the_call: [BASE, APNS, "life.timeout = \"30s\"\nlife.lease = \"20s\"\nlife.takeover = \"21s\"\n"];
    a_handover_after_expiry: [BASE, APNS, "life.handover = \"10m\"\n"];
    a_slot_that_outlives_its_token: [APNS, "mode = \"slot\"\nlife = { max = \"60m\", slot = \"58m\", skew = \"1m\" }\n"];
    a_slot_shorter_than_apple_allows: [APNS, "mode = \"slot\"\nlife = { slot = \"20m\", skew = \"10s\" }\n"];
    a_backdate_less_than_the_skews: [APNS, "mode = \"slot\"\nlife = { skew = \"1m\", upstream_skew = \"30s\", backdate = \"1m\" }\n"];
    stale_for_a_signed_token: [BASE, APNS, "life.stale = \"1h\"\n"];
    a_hold_beyond_the_longest: [BASE, APNS, "life.hold = \"2m\"\n"];
    // The environment.
    a_mistyped_variable: [BASE, APNS] with "KEYREEVE__STORE__ULR" = "memory:";
    a_variable_for_a_table: [BASE, APNS] with "KEYREEVE__CREDENTIAL__APNS_PROD__LIFE__LEED" = "5m";
    a_variable_with_a_wrong_value: [BASE, APNS] with "KEYREEVE__CREDENTIAL__APNS_PROD__LIFE__LEAD" = "90m";
    a_variable_that_fits_two_credentials: [BASE, APNS, "[credential.apns_prod]\nsource = \"apns\"\nkey = \"env:KEY\"\nparams = { team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }\n"] with "KEYREEVE__CREDENTIAL__APNS_PROD__KEY" = "env:OTHER";
    a_secret_in_a_variable: [BASE, APNS] with "KEYREEVE__CREDENTIAL__APNS_PROD__KEY" = "hunter2";
}

const SHA: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn there_are_at_least_thirty_mistakes() {
    const { assert!(CASES >= 30) };
}

/// Ten mistakes, on the lines that their comments say.
const TEN: &str = r#"store.url = "etcd://db"                        # 1
seal.keys = ["hunter2"]                        # 2
[[listener]]
bind = "0.0.0.0:7070"                          # 4
[limits]
body = "1TiB"                                  # 6
[caller.push]
key_sha256 = "hunter2"                         # 8
can = ["toekn"]                                # 9
credentials = ["*"]
[credential.apns-prod]
source = "apns"
key = "file:/etc/keyreeve/AuthKey.p8"
params = { team_id = "DEF123GHIJ", key_id = "ABC" }  # 14
life = { max = "55m", lead = "70m" }           # 15
mode = "reply"                                 # 16
[credential.ci]
source = "github-apps"                         # 18
"#;

#[test]
fn ten_mistakes_are_ten_problems_in_the_order_of_their_lines() {
    // A mistyped `mode` leaves no mode to do the sum of line 15 with; without it the sum is told.
    let text = TEN.replace("mode = \"reply\"", "moed = \"replay\"");
    let problems = refused(&text, &[]);
    let lines: Vec<Origin> = problems.iter().map(|problem| problem.origin.clone()).collect();
    let expected = [1, 2, 4, 6, 8, 9, 14, 15, 16, 18].map(Origin::Line);
    assert_eq!(lines, expected, "{problems}");
    insta::assert_snapshot!(said(&text, &[]));
}

#[test]
fn a_file_of_more_than_a_mebibyte_is_refused_and_one_of_exactly_that_is_read() {
    let comment = |bytes: usize| format!("#{}", "x".repeat(bytes - 1));
    assert!(Config::read(&comment(1 << 20), "big.toml", &BTreeMap::new(), ReadOptions::default()).is_ok());
    let problems = refused(&comment((1 << 20) + 1), &[]);
    assert_eq!(
        problems.to_string(),
        "error: the file is too large: 1048577B is more than 1MiB (push.toml)\n\
         hint: split the credentials over several fleets"
    );
}

#[test]
fn a_file_of_nothing_but_mistakes_is_answered_with_a_bounded_list() {
    let text: String = (0..5000).map(|n| format!("strange{n} = 1\n")).collect();
    let problems = refused(&text, &[]);
    assert_eq!(problems.iter().count(), keyreeve::config::PROBLEMS_MAX);
}
