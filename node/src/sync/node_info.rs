//! What the control plane is told about this node (control-and-operations 2.2).

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// Who this node proxy is.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeInfo {
    /// `INSTANCE_IP`; `1.1.1.1` when unknown.
    pub(crate) instance_ip: Option<String>,
    /// `POD_NAME`
    pub(crate) pod_name: String,
    /// `POD_NAMESPACE`
    pub(crate) pod_namespace: String,
    /// `NODE_NAME`
    pub(crate) node_name: String,
    /// The merged proxy metadata: `ISTIO_META_*` and the mesh configuration's.
    pub(crate) metadata: BTreeMap<String, String>,
    /// `ISTIO_METAJSON_*`, already parsed; wins over the rest.
    pub(crate) structured_metadata: BTreeMap<String, serde_json::Value>,
}

impl NodeInfo {
    /// The node as it stands in requests.
    pub(super) fn to_wire(&self) -> wire::discovery::Node {
        let ip = self.instance_ip.as_deref().unwrap_or("1.1.1.1");
        let (pod, namespace) = (&self.pod_name, &self.pod_namespace);
        let mut fields: BTreeMap<String, Value> = BTreeMap::new();
        let own = [
            ("NAME", pod.as_str()),
            ("NAMESPACE", namespace),
            ("INSTANCE_IPS", ip),
            ("NODE_NAME", &self.node_name),
        ];
        for (key, value) in own {
            fields.insert(key.to_owned(), text(value));
        }
        for (key, value) in &self.metadata {
            fields.insert(key.clone(), text(value));
        }
        for (key, value) in &self.structured_metadata {
            fields.insert(key.clone(), from_json(value));
        }
        wire::discovery::Node {
            id: format!("ztunnel~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(Struct { fields: fields.into_iter().collect() }),
            ..Default::default()
        }
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(from_json).collect() }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, value)| (key.clone(), from_json(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &Value) -> serde_json::Value {
        match value.kind.as_ref().expect("a kind") {
            Kind::NullValue(_) => serde_json::Value::Null,
            Kind::BoolValue(value) => (*value).into(),
            Kind::NumberValue(value) => (*value).into(),
            Kind::StringValue(value) => value.clone().into(),
            Kind::ListValue(list) => list.values.iter().map(json).collect(),
            Kind::StructValue(object) => {
                object.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
            }
        }
    }

    // CO-11.1-6: map, list, bool, number, null.
    #[test]
    fn json_metadata_becomes_a_struct() {
        let given =
            serde_json::json!({"m": {"k": "v"}, "l": [1.0, "x", true], "b": false, "n": 2.5, "z": null});
        assert_eq!(json(&from_json(&given)), given);
    }

    // CO-2.2
    #[test]
    fn later_layers_overwrite_earlier_ones() {
        let info = NodeInfo {
            pod_name: "zt".to_owned(),
            pod_namespace: "istio-system".to_owned(),
            node_name: "n1".to_owned(),
            metadata: BTreeMap::from([
                ("NODE_NAME".to_owned(), "n2".to_owned()),
                ("CLUSTER_ID".to_owned(), "c".to_owned()),
            ]),
            structured_metadata: BTreeMap::from([("CLUSTER_ID".to_owned(), 7.into())]),
            ..NodeInfo::default()
        };
        let node = info.to_wire();
        assert_eq!(node.id, "ztunnel~1.1.1.1~zt.istio-system~istio-system.svc.cluster.local");
        let fields = node.metadata.expect("metadata").fields;
        assert_eq!(json(&fields["NODE_NAME"]), "n2");
        assert_eq!(json(&fields["CLUSTER_ID"]), 7.0);
        assert_eq!(json(&fields["INSTANCE_IPS"]), "1.1.1.1");
        assert_eq!(json(&fields["NAME"]), "zt");
    }
}
