use keyreeve::source::redact::Redactor;
use proptest::prelude::*;

fn clean(text: &str) -> String {
    Redactor::default().clean(text)
}

#[test]
fn known_secrets_are_hidden_whole_in_lines_and_cut_off() {
    let redactor = Redactor::new(["p@ss w0rd", "line one\nline two", "ab", "p@ss w0rd and more"]);
    assert_eq!(redactor.clean("got p@ss w0rd."), "got ***.");
    assert_eq!(redactor.clean("got p@ss w0rd and more."), "got ***.");
    assert_eq!(redactor.clean("x line two x"), "x *** x");
    assert_eq!(redactor.clean("cut off: p@ss w"), "cut off: ***");
    assert_eq!(redactor.clean("ab is too short to be looked for"), "ab is too short to be looked for");
}

#[test]
fn what_looks_like_a_token_is_hidden() {
    for token in [
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UifQ.c2lnbmF0dXJl",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "550e8400-e29b-41d4-a716-446655440000",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "3b5d5c3712955042212316173ccf37be",
        "xoxb-2147483647-abcdefghij",
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    ] {
        assert_eq!(clean(&format!("before {token}, after")), "before ***, after");
    }
}

#[test]
fn what_is_named_like_a_secret_is_hidden() {
    for (text, cleaned) in [
        ("password=p@ss!word&x=1", "password=***&x=1"),
        ("DB_PASSWORD: hunter2", "DB_PASSWORD: ***"),
        (r#"{"client_secret":"a.b","x":"y"}"#, r#"{"client_secret":"***","x":"y"}"#),
        (r#"{"access_token": "short", "x": 1}"#, r#"{"access_token": "***", "x": 1}"#),
        ("?token=abc&next=1", "?token=***&next=1"),
        ("Authorization: Bearer abc123def", "Authorization: Bearer ***"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic ***"),
        ("X-Api-Key: k12345", "X-Api-Key: ***"),
        ("at https://user:hunter@example.com/x", "at https://user:***@example.com/x"),
    ] {
        assert_eq!(clean(text), cleaned);
    }
}

#[test]
fn what_an_operator_needs_is_kept() {
    for text in [
        "curl: (7) Failed to connect to vault.example.com port 8200: Connection refused",
        "403 ExpiredProviderToken",
        "429 TooManyProviderTokenUpdates",
        "ssl.SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED",
        "/usr/local/lib/python3.11/site-packages/requests/adapters.py, line 700",
        "invalid_grant: token: expired, unknown key: abc",
        "/bin/sh: 1: aws: not found",
        "2026-11-21T12:00:00Z deadline exceeded",
        "x86_64-unknown-linux-gnu",
    ] {
        assert_eq!(clean(text), text);
    }
}

#[test]
fn text_comes_out_on_one_bounded_line() {
    assert_eq!(clean("a\n\tb\u{1b}[31mc\0d\r\n"), "a b [31mc d");
    let redactor = Redactor::default();
    assert_eq!(redactor.start("one two three", 7), "one two...");
    assert_eq!(redactor.end("one two three", 9), "...two three");
    assert_eq!(redactor.start("é".repeat(10).as_str(), 3), "é...");
    assert_eq!(redactor.end("é".repeat(10).as_str(), 3), "...é");
}

proptest! {
    #[test]
    fn no_text_keeps_a_known_secret(before in ".{0,40}", secret in "[!-~]{3,30}", after in ".{0,40}") {
        let cleaned = Redactor::new([secret.as_str()]).clean(&format!("{before}{secret}{after}"));
        prop_assume!(!"***".contains(&secret));
        prop_assert!(!cleaned.contains(&secret), "{cleaned}");
    }

    #[test]
    fn no_text_keeps_a_random_key(key in "[A-Za-z0-9]{32,64}") {
        prop_assume!(key.bytes().filter(u8::is_ascii_digit).count() >= 1);
        prop_assume!(key.bytes().any(|b| b.is_ascii_uppercase()));
        let cleaned = clean(&format!("failed with {key} at the end"));
        prop_assert_eq!(cleaned, "failed with *** at the end");
    }
}
