//! YAML as istioctl prints it: block style, lists at the indent of their key, text quoted only where it must be.
use std::fmt::Write;

use serde_json::Value;

/// One document, ending in a line feed.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Array(items) if !items.is_empty() => list(&mut text, items, 0, false),
        Value::Object(map) if !map.is_empty() => object(&mut text, map, 0, false),
        other => {
            scalar(&mut text, other);
            text.push('\n');
        }
    }
    text
}

/// `inline`: the first item goes on the line that has been begun.
fn list(text: &mut String, items: &[Value], indent: usize, inline: bool) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !inline {
            push_indent(text, indent);
        }
        text.push_str("- ");
        match item {
            Value::Array(inner) if !inner.is_empty() => list(text, inner, indent + 2, true),
            Value::Object(map) if !map.is_empty() => object(text, map, indent + 2, true),
            other => line(text, other),
        }
    }
}

fn object(text: &mut String, map: &serde_json::Map<String, Value>, indent: usize, inline: bool) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || !inline {
            push_indent(text, indent);
        }
        string(text, key);
        text.push(':');
        match value {
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                list(text, items, indent, false);
            }
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                object(text, inner, indent + 2, false);
            }
            other => {
                text.push(' ');
                line(text, other);
            }
        }
    }
}

fn line(text: &mut String, value: &Value) {
    scalar(text, value);
    text.push('\n');
}

fn scalar(text: &mut String, value: &Value) {
    match value {
        Value::String(string_value) => string(text, string_value),
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

fn push_indent(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

fn string(text: &mut String, value: &str) {
    if looks_like_another_type(value) || value.chars().any(|c| c.is_control()) {
        // JSON's escapes are YAML's.
        let _ = write!(text, "{}", Value::from(value));
    } else if needs_quotes(value) {
        let _ = write!(text, "'{}'", value.replace('\'', "''"));
    } else {
        text.push_str(value);
    }
}

/// Plain, it would be read as nothing, a boolean, a number or a time.
fn looks_like_another_type(value: &str) -> bool {
    const WORDS: [&str; 14] =
        ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "<<"];
    let first_is_numeric = value.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    let digits = value.replace('_', "");
    let digits = digits.trim_start_matches(['+', '-']);
    let is_number = digits.parse::<f64>().is_ok()
        || ["0x", "0o", "0b"].iter().any(|prefix| digits.strip_prefix(prefix).is_some_and(is_hex));
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(value))
        || (first_is_numeric && (is_number || is_sexagesimal(digits) || is_time(value)))
}

fn is_hex(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// `1:30` was a number once: digits, then parts below sixty.
fn is_sexagesimal(value: &str) -> bool {
    let mut parts = value.split(':');
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let first = parts.next().is_some_and(all_digits);
    let rest: Vec<&str> = parts.map(|part| part.split('.').next().unwrap_or_default()).collect();
    let below_sixty = |part: &&str| all_digits(part) && part.parse().is_ok_and(|n: u8| n < 60);
    first && !rest.is_empty() && rest.iter().all(below_sixty)
}

fn is_time(value: &str) -> bool {
    let shape: String = value.chars().take(10).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00"
}

/// Plain, it would be read as something with structure.
fn needs_quotes(value: &str) -> bool {
    let dangerous_start = value.starts_with(|c: char| "!&*%@`\"'#|>[]{},".contains(c))
        || ["- ", "? ", ": "].iter().any(|start| value.starts_with(start))
        || matches!(value, "-" | "?" | ":");
    dangerous_start
        || value.contains(": ")
        || value.contains(" #")
        || value.ends_with(':')
        || value.trim() != value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::document;

    #[test]
    fn text_is_quoted_only_where_it_must_be() {
        let plain = ["10.0.0.1:80", "a/b", "1.2.3", "Kubernetes//Pod/a", "x:y", "::1", "a#b", "12:99"];
        for text in plain {
            assert_eq!(document(&json!(text)), format!("{text}\n"));
        }
        for text in ["", "true", "No", "12", "-1.5e3", "0x1f", "12:30", "2026-11-23", "null", "a\tb"] {
            assert_eq!(document(&json!(text)), format!("{}\n", json!(text)));
        }
        for text in ["[fd00::1]:80", "*", "a: b", "a #b", "- a", "it's: x", "%x", " a"] {
            assert_eq!(document(&json!(text)), format!("'{}'\n", text.replace('\'', "''")));
        }
    }
}
