use keyreeve_core::json::{DEPTH_MAX, Fault, Json, JsonError, Node, Value};
use proptest::prelude::*;

fn fault(text: &str) -> (Fault, usize) {
    let error = Json::parse(text.as_bytes().to_vec()).unwrap_err();
    (error.fault, error.at)
}

#[test]
fn a_document_says_what_was_written() {
    let text = r#" { "a" : [ 1 , -2.5e3 , true , false , null , {} , [] ] , "b\u00e9\n\ud83d\ude00" : "c\"\\\/" } "#;
    let json = Json::parse(text.as_bytes().to_vec()).unwrap();
    let root = json.root();
    assert_eq!(format!("{root:?}"), r#"{"a":[1,-2.5e3,true,false,null,{},[]],"bé\n😀":"c\"\\/"}"#);
    assert_eq!(root.member("bé\n😀").and_then(Node::text), Some("c\"\\/"));
    let list = root.member("a").unwrap();
    assert_eq!(
        list.items().unwrap().map(Node::whole).collect::<Vec<_>>(),
        [Some(1), None, None, None, None, None, None]
    );
    assert!(matches!(list.items().unwrap().nth(1).unwrap().value(), Value::Number("-2.5e3")));
    assert_eq!(list.items().unwrap().nth(3).unwrap().boolean(), Some(false));
    assert!(root.member("c").is_none() && list.member("a").is_none() && list.text().is_none());
    assert_eq!(json.at(list.place()).items().unwrap().count(), 7);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, wanted) in [
        ("", (Fault::End, 0)),
        ("{", (Fault::End, 1)),
        ("[1", (Fault::End, 2)),
        ("\"a", (Fault::End, 2)),
        ("{\"a\"", (Fault::End, 4)),
        ("[1,]", (Fault::Unexpected, 3)),
        ("{,}", (Fault::Unexpected, 1)),
        ("{\"a\":1,}", (Fault::Unexpected, 7)),
        ("{a:1}", (Fault::Unexpected, 1)),
        ("01", (Fault::Trailing, 1)),
        ("1.", (Fault::End, 2)),
        ("-", (Fault::End, 1)),
        ("+1", (Fault::Unexpected, 0)),
        ("NaN", (Fault::Unexpected, 0)),
        ("nul", (Fault::Unexpected, 0)),
        ("1 2", (Fault::Trailing, 2)),
        ("{}x", (Fault::Trailing, 2)),
        ("\"\n\"", (Fault::Unexpected, 1)),
        ("\"12345678\u{1}\"", (Fault::Unexpected, 9)),
        (r#""\x""#, (Fault::Escape, 1)),
        (r#""\ud83d""#, (Fault::Escape, 1)),
        (r#""\ud83dx\ude00""#, (Fault::Escape, 1)),
        (r#""\ude00""#, (Fault::Escape, 1)),
        (r#""\u12""#, (Fault::Escape, 1)),
        ("\u{feff}{}", (Fault::Unexpected, 0)),
        (r#"{"a":1,"a":2}"#, (Fault::Duplicate, 7)),
        (r#"{"a":1,"b":[{}],"\u0061":2}"#, (Fault::Duplicate, 16)),
        (r#"{"":1,"":2}"#, (Fault::Duplicate, 6)),
    ] {
        assert_eq!(fault(text), wanted, "{text}");
    }
    assert_eq!(Json::parse(b"\"\xff\"".to_vec()).unwrap_err().fault, Fault::NotText);
}

#[test]
fn a_name_said_twice_is_found_among_few_and_among_many() {
    for count in [2, 15, 16, 17, 18, 500] {
        let members = |last: &str| {
            let all: Vec<String> =
                (1..count).map(|n| format!("\"n{n}\":{n}")).chain([format!("\"{last}\":0")]).collect();
            format!("{{{}}}", all.join(","))
        };
        assert!(Json::parse(members("n0").into_bytes()).is_ok(), "{count}");
        assert_eq!(fault(&members("n1")).0, Fault::Duplicate, "{count}");
        assert_eq!(fault(&members("\\u006e1")).0, Fault::Duplicate, "{count}");
    }
}

#[test]
fn depth_ends_at_its_limit() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(Json::parse(nested(DEPTH_MAX).into_bytes()).is_ok());
    assert_eq!(fault(&nested(DEPTH_MAX + 1)), (Fault::TooDeep, DEPTH_MAX));
}

/// The same value as somebody else's parser sees.
fn same(node: Node<'_>, value: &serde_json::Value) -> bool {
    match (node.value(), value) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Bool(a), serde_json::Value::Bool(b)) => a == *b,
        (Value::Text(a), serde_json::Value::String(b)) => a == b,
        (Value::Number(a), serde_json::Value::Number(b)) => {
            a.parse::<f64>().ok() == b.as_f64()
                && node.whole() == b.as_u64().filter(|_| !a.contains(['.', 'e', 'E', '-']))
        }
        (Value::List(a), serde_json::Value::Array(b)) => {
            a.clone().count() == b.len() && a.zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), serde_json::Value::Object(b)) => {
            a.clone().count() == b.len() && a.zip(b).all(|((name, a), (its, b))| name == its && same(a, b))
        }
        _ => false,
    }
}

fn deep(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(deep).max().unwrap_or(0),
        serde_json::Value::Object(members) => 1 + members.values().map(deep).max().unwrap_or(0),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// serde_json takes what we take and sees the same in it; what it takes and we do not is too deep or said twice.
    #[test]
    fn another_parser_agrees(words in prop::collection::vec(prop_oneof![
        Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\"a\""), Just("\"b\\u0041\\n\""), Just("\"é\""),
        Just("\"0123456789\\\"abcdef\""), Just("1"), Just("-0.5e+7"), Just("12345678901"), Just("true"), Just("null"), Just(" "),
        Just("\"a\":1"), Just("\"b\":[1,2]"), Just(",\"c\":{}"), Just("\\"), Just("\""),
    ], 0..14)) {
        let text = words.concat();
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match Json::parse(text.clone().into_bytes()) {
            Ok(ours) => {
                let mut again = String::new();
                ours.root().write(&mut again);
                match theirs {
                    Ok(theirs) => {
                        prop_assert!(same(ours.root(), &theirs), "{text}");
                        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&again).unwrap(), theirs);
                    }
                    // Ours leaves a number as it was written; theirs has to fit it into a double.
                    Err(error) => prop_assert!(error.to_string().contains("number out of range"), "{text}: {error}"),
                }
            }
            // What comes after the second one is not looked at any more.
            Err(JsonError { fault: Fault::Duplicate, .. }) => {}
            Err(error) => prop_assert!(theirs.is_err(), "{text}: {error}"),
        }
    }

    /// Values that somebody else wrote are read as they were meant.
    #[test]
    fn what_another_writer_writes_is_read(value in values()) {
        let text = value.to_string();
        match Json::parse(text.clone().into_bytes()) {
            Ok(ours) => prop_assert!(same(ours.root(), &value), "{text}"),
            Err(error) => prop_assert!(error.fault == Fault::TooDeep && deep(&value) > DEPTH_MAX, "{text}: {error}"),
        }
    }
}

fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
        "[\\x00-\\x7f]{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..20)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}
