//! Tables, JSON and YAML. Pure: values in, text out.
mod table;
mod yaml;

pub(crate) use table::Table;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Short,
    Json,
    Yaml,
}

impl Output {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "short" => Some(Self::Short),
            "json" => Some(Self::Json),
            "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// A value as JSON (four spaces) or YAML (keys sorted, one more line at the end).
pub(crate) fn data(value: &impl Serialize, output: Output) -> anyhow::Result<String> {
    if output == Output::Yaml {
        let mut value = serde_json::to_value(value)?;
        value.sort_all_objects();
        return Ok(format!("{}\n", yaml::document(&value)));
    }
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))?;
    bytes.push(b'\n');
    Ok(String::from_utf8(bytes)?)
}
