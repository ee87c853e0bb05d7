//! What is served and to whom, as JSON (control-plane 6.3, 6.4).

use std::time::SystemTime;

use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Map, Value, json};
use wire::security::{AUTHORIZATION_TYPE, Authorization};
use wire::workload::{ADDRESS_TYPE, Address, WORKLOAD_TYPE, Workload, address};
use xds::Record;

use super::message_json::{self, Ip};
use crate::catalog::{Catalog, KINDS};
use crate::discovery::{Connection, Discovery};
use crate::sources::Problem;
use crate::translate::StatusCondition;

pub(super) fn syncz(discovery: &Discovery, namespace: Option<&str>) -> Value {
    let in_namespace = |connection: &Connection| {
        namespace.is_none_or(|wanted| {
            connection.node().proxy.rsplit_once('.').is_some_and(|(_, namespace)| namespace == wanted)
        })
    };
    let connections = discovery.connections().list();
    let entries = connections.iter().filter(|connection| in_namespace(connection)).map(|connection| {
        let node = connection.node();
        let mut entry = Map::new();
        if let Some(cluster) = node.metadata.get("CLUSTER_ID") {
            entry.insert("cluster_id".to_owned(), json!(cluster));
        }
        entry.insert("proxy".to_owned(), json!(node.proxy));
        entry.insert("proxy_type".to_owned(), json!(node.kind));
        if let Some(version) = node.metadata.get("ISTIO_VERSION") {
            entry.insert("proxy_version".to_owned(), json!(version));
            entry.insert("istio_version".to_owned(), json!(version));
        }
        entry.insert("resources".to_owned(), Value::Object(progress(connection)));
        Value::Object(entry)
    });
    entries.collect()
}

fn progress(connection: &Connection) -> Map<String, Value> {
    let mut progress = connection.session().lock().progress();
    progress.sort_by_key(|progress| progress.type_url);
    let entry = |progress: xds::server::Progress| {
        let mut entry = Map::new();
        for (key, value) in [("sent", &progress.sent), ("acked", &progress.acked)] {
            if !value.is_empty() {
                entry.insert(key.to_owned(), json!(value));
            }
        }
        if let Some(at) = connection.sent_at(progress.type_url) {
            entry.insert("sentTime".to_owned(), json!(time(at)));
        }
        if !progress.last_error.is_empty() {
            entry.insert("lastError".to_owned(), json!(progress.last_error));
        }
        (progress.type_url.to_owned(), Value::Object(entry))
    };
    progress.into_iter().map(entry).collect()
}

pub(super) fn connections(discovery: &Discovery, with_details: bool) -> Value {
    let connections = discovery.connections().list();
    let clients: Vec<Value> = connections
        .iter()
        .map(|connection| {
            let mut client = json!({
                "connectionId": connection.id(),
                "connectedAt": time(connection.connected_at()),
                "address": connection.peer(),
            });
            if with_details {
                let node = connection.node();
                let mut labels = Map::new();
                if let Some(name) = &node.node_name {
                    labels.insert("kubernetes.io/hostname".to_owned(), json!(name));
                }
                if let Some(cluster) = node.metadata.get("CLUSTER_ID") {
                    labels.insert("topology.istio.io/cluster".to_owned(), json!(cluster));
                }
                let watches = connection.session().lock().progress().into_iter();
                let watches: Map<String, Value> =
                    watches.map(|progress| (progress.type_url.to_owned(), json!(progress.names))).collect();
                client["labels"] = Value::Object(labels);
                client["metadata"] = json!(node.metadata);
                client["locality"] = json!({});
                client["watches"] = Value::Object(watches);
            }
            client
        })
        .collect();
    json!({"totalClients": clients.len(), "clients": clients})
}

pub(super) fn ambientz(catalog: &Catalog) -> Value {
    let records = catalog.records();
    let mut workloads = Vec::new();
    let mut services = Vec::new();
    for address in records.addresses.values() {
        match &address.r#type {
            Some(address::Type::Workload(workload)) => {
                workloads.push(message_json::workload(workload, Ip::Text))
            }
            Some(address::Type::Service(service)) => services.push(message_json::service(service, Ip::Text)),
            None => {}
        }
    }
    let policies: Vec<Value> =
        records.authorizations.values().map(|policy| message_json::authorization(policy, Ip::Text)).collect();
    json!({"workloads": workloads, "services": services, "policies": policies})
}

/// What nobody writes back to files: conditions of objects, and parts without effect.
pub(super) fn conditions(catalog: &Catalog) -> Value {
    let records = catalog.records();
    let objects: Vec<Value> = records
        .conditions
        .iter()
        .map(|(object, conditions)| {
            let condition = |condition: &StatusCondition| {
                let status = if condition.status { "True" } else { "False" };
                json!({
                    "type": condition.kind,
                    "status": status,
                    "reason": condition.reason,
                    "message": condition.message,
                })
            };
            json!({
                "object": object.to_string(),
                "conditions": conditions.iter().map(condition).collect::<Vec<_>>(),
            })
        })
        .collect();
    let remarks: Vec<Value> = records
        .remarks
        .iter()
        .map(|remark| {
            json!({"object": remark.object.to_string(), "code": remark.code, "message": remark.message})
        })
        .collect();
    json!({"objects": objects, "remarks": remarks})
}

pub(super) fn problems(problems: &[Problem]) -> Value {
    let entry = |problem: &Problem| {
        json!({
            "file": problem.file.display().to_string(),
            "line": problem.line,
            "object": problem.object.as_ref().map(ToString::to_string),
            "code": problem.code(),
            "message": problem.reason.to_string(),
        })
    };
    problems.iter().map(entry).collect()
}

/// What the client has been sent and has accepted. Without `types`: everything.
pub(super) fn config_dump(connection: &Connection, types: &str) -> Value {
    let wanted: Vec<&str> = types.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let mut configs = Vec::new();
    for kind in KINDS {
        if !wanted.is_empty() && !wanted.iter().any(|name| names_type(name, kind.type_url, kind.short)) {
            continue;
        }
        let records = connection.session().lock().acknowledged(kind.type_url);
        configs.extend(records.iter().filter_map(|record| config(kind.type_url, record)));
    }
    json!({"configs": configs})
}

/// Full, without the prefix, the message's name or the short name.
fn names_type(name: &str, type_url: &str, short: &str) -> bool {
    let message = type_url.rsplit('.').next().unwrap_or_default();
    name == type_url
        || type_url.strip_prefix("type.googleapis.com/") == Some(name)
        || name.eq_ignore_ascii_case(message)
        || name.eq_ignore_ascii_case(short)
}

fn config(type_url: &str, record: &Record) -> Option<Value> {
    let message = match type_url {
        ADDRESS_TYPE => match Address::decode(&*record.payload).ok()?.r#type? {
            address::Type::Workload(workload) => {
                json!({"workload": message_json::workload(&workload, Ip::Bytes)})
            }
            address::Type::Service(service) => json!({"service": message_json::service(&service, Ip::Bytes)}),
        },
        WORKLOAD_TYPE => message_json::workload(&Workload::decode(&*record.payload).ok()?, Ip::Bytes),
        AUTHORIZATION_TYPE => {
            message_json::authorization(&Authorization::decode(&*record.payload).ok()?, Ip::Bytes)
        }
        _ => return None,
    };
    let mut config = Map::from_iter([("@type".to_owned(), json!(type_url))]);
    if let Value::Object(fields) = message {
        config.extend(fields);
    }
    Some(Value::Object(config))
}

/// RFC 3339 with what precision there is.
fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| at.to_string())
}
