//! Answers of the API for people: columns and sentences, never a secret.

use serde_json::Value;

const COLUMNS: [(&str, &str); 7] = [
    ("name", "NAME"),
    ("source", "SOURCE"),
    ("mode", "MODE"),
    ("status", "STATUS"),
    ("generation", "GENERATION"),
    ("expires_at", "EXPIRES"),
    ("refresh_at", "RENEWS"),
];

/// The list of credentials.
pub(super) fn list(answer: &Value) -> String {
    let credentials = answer.get("credentials").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut rows = vec![COLUMNS.map(|(_, title)| title.to_owned()).to_vec()];
    rows.extend(credentials.iter().map(|one| COLUMNS.map(|(field, _)| text(one.get(field))).to_vec()));
    table(&rows)
}

/// One credential, a line a fact.
pub(super) fn credential(answer: &Value) -> String {
    let mut rows = Vec::new();
    facts("", answer, &mut rows);
    table(&rows)
}

/// The facts of `value`, each under its path.
fn facts(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (member, value) in members {
                let path = if path.is_empty() { member.clone() } else { format!("{path}.{member}") };
                facts(&path, value, rows);
            }
        }
        value => rows.push(vec![format!("{path}:"), text(Some(value))]),
    }
}

/// What became of a renewal, a report, a verdict.
pub(super) fn result(answer: &Value) -> String {
    let mut said = text(answer.get("result"));
    if let Some(decision) = answer.get("decision").and_then(Value::as_str) {
        said.push_str(": ");
        said.push_str(decision);
    }
    if let Some(ms) = answer.get("retry_after_ms").and_then(Value::as_u64) {
        said.push_str(&format!(", the upstream allows it in {}", keyreeve::core::time::Span(ms)));
    }
    said
}

/// The history, oldest first, under what holds now.
pub(super) fn history(answer: &Value) -> String {
    let field = |name: &str| text(answer.get(name));
    let mut said = format!(
        "{}: {}, generation {}, epoch {}, last holder {}\n",
        field("name"),
        field("status"),
        field("generation"),
        field("epoch"),
        field("holder")
    );
    for (title, fields) in [("intent", ["node", "started_at", "doubt"]), ("failure", ["class", "at", "message"])] {
        if let Some(found) = answer.get(title).filter(|found| !found.is_null()) {
            let facts = fields.map(|field| text(found.get(field))).join(", ");
            said.push_str(&format!("{title}: {facts}\n"));
        }
    }
    let entries = answer.get("history").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let columns = ["at", "kind", "generation", "epoch", "node", "detail"];
    let mut rows = vec![columns.map(str::to_ascii_uppercase).to_vec()];
    rows.extend(entries.iter().map(|entry| columns.map(|column| text(entry.get(column))).to_vec()));
    said.push_str(&table(&rows));
    said
}

pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) if text.is_empty() => "-".into(),
        // A history's detail may have line breaks, and one line is one entry.
        Some(Value::String(text)) => text.replace(['\n', '\r', '\t', '\u{1b}'], " "),
        Some(other) => other.to_string(),
    }
}

/// Left-aligned columns, two spaces apart.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut said = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        said.push_str(line.trim_end());
        said.push('\n');
    }
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_has_columns_and_a_dash_for_what_is_not_there() {
        let one = json!({
            "name": "apns-prod", "source": "apns", "mode": "replay", "status": "ready", "generation": 7,
            "expires_at": "2026-01-01T00:00:00Z", "refresh_at": null,
        });
        let said = list(&json!({ "credentials": [one] }));
        assert_eq!(
            said,
            "NAME       SOURCE  MODE    STATUS  GENERATION  EXPIRES               RENEWS\n\
             apns-prod  apns    replay  ready   7           2026-01-01T00:00:00Z  -\n"
        );
    }

    #[test]
    fn a_history_names_the_doubt_and_keeps_an_entry_on_its_line() {
        let answer = json!({
            "name": "a", "status": "in-doubt", "generation": 2, "epoch": 3, "holder": "n1",
            "intent": { "generation": 2, "node": "n1", "started_at": "t", "is_replay": false, "doubt": "no answer" },
            "failure": null,
            "history": [{ "at": "t", "kind": "minted", "generation": 1, "epoch": 1, "node": "n1", "detail": "a\nb" }],
        });
        let said = history(&answer);
        assert!(said.starts_with("a: in-doubt, generation 2, epoch 3, last holder n1\nintent: n1, t, no answer\n"));
        assert!(said.ends_with("t   minted  1           1      n1    a b\n"), "{said}");
    }
}
