//! Services as dumped.
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::GatewayAddress;
use super::lenient::{null_is_default, text_or_nothing};

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// The one of several with this hostname that answers.
    #[serde(deserialize_with = "null_is_default")]
    pub canonical: bool,
    /// Address ranges.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub cidr_vips: Vec<CidrVip>,
    /// Endpoints by workload uid.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Host name.
    pub hostname: String,
    /// `IPv4`, `IPv6` or `Dual`; absent when automatic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_families: Option<String>,
    /// Choice among endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service port → target port.
    #[serde(serialize_with = "by_text", deserialize_with = "null_is_default")]
    pub ports: BTreeMap<u16, u16>,
    /// Identities a server may show.
    #[serde(deserialize_with = "null_is_default")]
    pub subject_alt_names: Vec<String>,
    /// `<network>/<ip>` in the order received.
    #[serde(deserialize_with = "null_is_default")]
    pub vips: Vec<String>,
    /// `Public` or `Namespace`.
    #[serde(deserialize_with = "null_is_default")]
    pub visibility: String,
    /// Waypoint of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<GatewayAddress>,
    /// Several waypoints by weight.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub weighted_waypoints: Vec<WeightedWaypoint>,
}

/// A range of virtual addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CidrVip {
    /// `240.0.0.0/24`.
    pub cidr: String,
    /// Its network.
    pub network: String,
}

/// Either form: `{cidr, network}` or `"<network>/<cidr>"`.
impl<'de> Deserialize<'de> for CidrVip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Object {
                #[serde(default)]
                cidr: String,
                #[serde(default)]
                network: String,
            },
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Object { cidr, network } => Self { cidr, network },
            Form::Text(text) => {
                let (network, cidr) = text.split_once('/').unwrap_or(("", &text));
                Self { cidr: cidr.to_owned(), network: network.to_owned() }
            }
        })
    }
}

/// How endpoints are chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// `OnlyHealthy` or `AllowAll`.
    #[serde(deserialize_with = "null_is_default")]
    pub health_policy: String,
    /// `Standard`, `Strict`, `Failover` or `Passthrough`.
    #[serde(deserialize_with = "null_is_default")]
    pub mode: String,
    /// `Region`, `Zone`, …, most important first.
    #[serde(deserialize_with = "null_is_default")]
    pub routing_preferences: Vec<String>,
}

/// One of several waypoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightedWaypoint {
    /// Where it is.
    pub destination: GatewayAddress,
    /// Its share.
    pub weight: u32,
}

/// One endpoint of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Address; only older dumps have it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "text_or_nothing")]
    pub address: String,
    /// Service port → target port.
    #[serde(serialize_with = "by_text", deserialize_with = "null_is_default")]
    pub port: BTreeMap<u16, u16>,
    /// Service; only older dumps have it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "text_or_nothing")]
    pub service: String,
    /// `Healthy` or `Unhealthy`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "text_or_nothing")]
    pub status: String,
    /// Uid of its workload.
    #[serde(deserialize_with = "null_is_default")]
    pub workload_uid: String,
}

/// Keys of a map are text in JSON, and sorted as text.
fn by_text<S: Serializer>(ports: &BTreeMap<u16, u16>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut pairs: Vec<(String, u16)> =
        ports.iter().map(|(port, target)| (port.to_string(), *target)).collect();
    pairs.sort_unstable();
    serializer.collect_map(pairs)
}
