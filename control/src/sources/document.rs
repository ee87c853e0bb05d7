//! Text to documents: YAML streams, JSON, and lists taken apart.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::{DuplicateKeyPolicy, Error, Options, Spanned};

use super::Reason;

/// Bounds of one file; generous for `kubectl get … -o yaml` of a large cluster.
const MAX_EVENTS: usize = 16_000_000;
const MAX_REPLAYED: usize = 100_000;
const MAX_DEPTH: usize = 100;
const MAX_DOCUMENTS: usize = 100_000;
/// Enough for [`MAX_DEPTH`] levels of recursion even without optimisation, wherever this is called from.
const STACK_BYTES: usize = 32 << 20;

/// One object as written, and the line it starts in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) line: u64,
    pub(super) value: Value,
}

/// Takes a file apart. A syntax error anywhere is an error of the whole file.
pub(super) fn parse(text: &str) -> Result<Vec<Document>, (Option<u64>, Reason)> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("parse".to_owned()).stack_size(STACK_BYTES);
        let unusable = |reason: &str| (None, Reason::Unreadable(reason.to_owned()));
        let parsing =
            builder.spawn_scoped(scope, || parse_here(text)).map_err(|error| unusable(&error.to_string()))?;
        parsing.join().unwrap_or_else(|_| Err(unusable("the parser failed")))
    })
}

fn parse_here(text: &str) -> Result<Vec<Document>, (Option<u64>, Reason)> {
    let parsed = serde_saphyr::from_multiple_with_options::<Spanned<Top>>(text, options());
    let tops = match parsed {
        Ok(tops) => tops,
        // JSON is not quite YAML: surrogate pairs, tabs.
        Err(error) => match parse_json(text) {
            Some(top) => vec![top],
            None => return Err(refusal(&error)),
        },
    };
    Ok(tops.into_iter().flat_map(into_documents).collect())
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: MAX_EVENTS,
            max_nodes: MAX_EVENTS,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: MAX_DOCUMENTS,
            max_total_scalar_bytes: super::files::MAX_FILE_BYTES,
            max_aliases: MAX_REPLAYED,
            max_anchors: MAX_REPLAYED,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // YAML 1.2: a label `y` or `no` is text.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn refusal(error: &Error) -> (Option<u64>, Reason) {
    let line = error.location().map(|location| location.line());
    let message = error.to_string();
    let first_line = message.lines().next().unwrap_or_default().to_owned();
    (line, Reason::Malformed(first_line))
}

fn parse_json(text: &str) -> Option<Spanned<Top>> {
    text.trim_start().starts_with('{').then_some(())?;
    let top = serde_json::from_str::<Top>(text).ok()?;
    Some(Spanned::new(top, serde_saphyr::Location::UNKNOWN, serde_saphyr::Location::UNKNOWN))
}

fn into_documents(top: Spanned<Top>) -> Vec<Document> {
    let line = top.referenced.line().max(1);
    match top.value {
        Top::Other(value) => vec![Document { line, value }],
        Top::Mapping { mut fields, items } => {
            let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default();
            match items {
                Some(items) if kind.ends_with("List") => {
                    let item_kind = kind.strip_suffix("List").unwrap_or_default().to_owned();
                    let api_version = fields.get("apiVersion").cloned();
                    items
                        .into_iter()
                        .map(|item| item_document(item, line, &item_kind, api_version.as_ref()))
                        .collect()
                }
                Some(items) => {
                    let items = items.into_iter().map(|item| item.value).collect();
                    fields.insert("items".to_owned(), Value::Array(items));
                    vec![Document { line, value: Value::Object(fields) }]
                }
                None => vec![Document { line, value: Value::Object(fields) }],
            }
        }
    }
}

/// Items of a typed list (`PodList`) may leave out what the list says.
fn item_document(item: Spanned<Value>, list_line: u64, kind: &str, api_version: Option<&Value>) -> Document {
    let line = match item.referenced.line() {
        0 => list_line,
        line => line,
    };
    let mut value = item.value;
    if let (Value::Object(fields), false) = (&mut value, kind.is_empty()) {
        fields.entry("kind").or_insert_with(|| Value::from(kind));
        if let Some(api_version) = api_version {
            fields.entry("apiVersion").or_insert_with(|| api_version.clone());
        }
    }
    Document { line, value }
}

/// A document whose `items`, if any, know their lines.
enum Top {
    Mapping { fields: Map<String, Value>, items: Option<Vec<Spanned<Value>>> },
    Other(Value),
}

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TopVisitor)
    }
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
        let mut fields = Map::new();
        let mut items = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                items = map.next_value::<Option<Vec<Spanned<Value>>>>()?;
            } else {
                fields.insert(key, map.next_value()?);
            }
        }
        Ok(Top::Mapping { fields, items })
    }

    fn visit_bool<E>(self, value: bool) -> Result<Top, E> {
        Ok(Top::Other(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Top, E> {
        Ok(Top::Other(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Top, E> {
        Ok(Top::Other(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Top, E> {
        Ok(Top::Other(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Top, E> {
        Ok(Top::Other(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Top, E> {
        Ok(Top::Other(Value::Null))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Top, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Top::Other(Value::Array(values)))
    }
}
