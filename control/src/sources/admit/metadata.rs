//! Names, namespaces, labels.

use serde_json::{Map, Value};

use super::super::Reason;
use super::super::objects::{Kind, Name};
use super::{invalid, require};

const MAX_LABEL_VALUE: usize = 63;
const MAX_SUBDOMAIN: usize = 253;

/// Namespace and name as far as they can be told, to report a bad object by.
pub(super) fn name_of(kind: Kind, value: &Value) -> Option<Name> {
    let metadata = value.get("metadata")?;
    let text = |key| metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let namespace = if kind.is_namespaced() { text("namespace").unwrap_or("default") } else { "" };
    Some(Name::new(namespace, text("name")?))
}

pub(super) fn check(kind: Kind, value: &Value) -> Result<(), Reason> {
    let metadata = value.get("metadata").and_then(Value::as_object);
    let metadata = metadata.ok_or_else(|| invalid("metadata", "is required"))?;
    let name = text(metadata, "name")?.ok_or_else(|| invalid("metadata.name", "is required"))?;
    let is_label = matches!(kind, Kind::Namespace | Kind::Service);
    let name_is_good = if is_label { is_dns_label(name) } else { is_dns_subdomain(name) };
    require(
        name_is_good,
        || "metadata.name".to_owned(),
        "is no DNS name of lower-case letters, digits, '-' and '.'",
    )?;
    if let Some(namespace) = text(metadata, "namespace")?.filter(|namespace| !namespace.is_empty()) {
        require(is_dns_label(namespace), || "metadata.namespace".to_owned(), "is no DNS label")?;
    }
    for (key, value) in map(metadata, "labels")? {
        let field = || format!("metadata.labels[{key}]");
        require(is_qualified_name(key), field, "the key is no qualified name")?;
        let value = value.as_str().ok_or_else(|| invalid(field(), "must be a string"))?;
        require(
            is_label_value(value),
            field,
            "must be at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends",
        )?;
    }
    for (key, value) in map(metadata, "annotations")? {
        let field = || format!("metadata.annotations[{key}]");
        require(is_qualified_name(&key.to_ascii_lowercase()), field, "the key is no qualified name")?;
        require(value.is_string() || value.is_null(), field, "must be a string")?;
    }
    Ok(())
}

fn text<'v>(metadata: &'v Map<String, Value>, key: &str) -> Result<Option<&'v str>, Reason> {
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("metadata.{key}"), "must be a string")),
    }
}

fn map<'v>(
    metadata: &'v Map<String, Value>,
    key: &str,
) -> Result<impl Iterator<Item = (&'v String, &'v Value)>, Reason> {
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(None.into_iter().flatten()),
        Some(Value::Object(map)) => Ok(Some(map).into_iter().flatten()),
        Some(_) => Err(invalid(format!("metadata.{key}"), "must be a map of strings")),
    }
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// RFC 1123 label.
pub(super) fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()]
        .into_iter()
        .all(|end| end.is_some_and(|byte| is_lower_alphanumeric(*byte)));
    ends && bytes.len() <= MAX_LABEL_VALUE
        && bytes.iter().all(|byte| is_lower_alphanumeric(*byte) || *byte == b'-')
}

/// Labels joined by dots.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.into_iter().all(|end| end.is_some_and(|byte| is_lower_alphanumeric(*byte)))
            && bytes.iter().all(|byte| is_lower_alphanumeric(*byte) || *byte == b'-')
    };
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_part)
}

/// `prefix/name` or `name`.
pub(super) fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

/// Empty, or letters, digits, `-`, `_`, `.` between letters or digits.
pub(super) fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()].into_iter().flatten().all(u8::is_ascii_alphanumeric);
    let inside = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    bytes.len() <= MAX_LABEL_VALUE && ends && inside
}
