//! Reading dumps of other versions: null is empty, a map may stand for a list, keys match in any case.
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use serde_json::{Map, Value};

/// `null` is the default value.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list of maps, or a map whose values are the list; `null` is empty.
pub(super) fn list_or_map<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let items: Vec<Value> = match Value::deserialize(deserializer)? {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        Value::Object(map) => map.into_iter().map(|(_, item)| item).collect(),
        other => return Err(Error::custom(format_args!("expected a list or a map, found {}", kind(&other)))),
    };
    let read = |item: Value| match item {
        Value::Object(_) => serde_json::from_value(item).map_err(Error::custom),
        other => Err(Error::custom(format_args!("expected a map, found {}", kind(&other)))),
    };
    items.into_iter().map(read).collect()
}

/// Text; anything else (older dumps hold objects here) is empty.
pub(super) fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        _ => String::new(),
    })
}

/// Renames keys that differ from a known one only in case; the exact key wins over others.
pub(super) fn fold_keys(map: &mut Map<String, Value>, known: &[&str]) {
    let renames: Vec<(String, &str)> = map
        .keys()
        .filter_map(|key| {
            let exact = known.iter().find(|name| name.eq_ignore_ascii_case(key))?;
            (key != exact).then(|| (key.clone(), *exact))
        })
        .collect();
    for (key, exact) in renames {
        if let Some(item) = map.remove(&key) {
            map.entry(exact).or_insert(item);
        }
    }
}

/// Removes, below these keys, every field that is `null`.
pub(super) fn drop_nulls(map: &mut Map<String, Value>, keys: &[&str]) {
    fn drop_in(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|_, item| !item.is_null());
                map.values_mut().for_each(drop_in);
            }
            Value::Array(items) => items.iter_mut().for_each(drop_in),
            _ => {}
        }
    }
    for key in keys {
        map.get_mut(*key).into_iter().for_each(drop_in);
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
