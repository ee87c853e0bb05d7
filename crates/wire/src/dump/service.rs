//! Services as dumped.
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::GatewayAddress;
use super::lenient::{null_is_default, text_or_nothing};

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Host name.
    pub hostname: String,
    /// `<network>/<ip>` in the order received.
    #[serde(deserialize_with = "null_is_default")]
    pub vips: Vec<String>,
    /// Address ranges.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub cidr_vips: Vec<CidrVip>,
    /// Service port → target port.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: BTreeMap<u16, u16>,
    /// Choice among endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Waypoint of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<GatewayAddress>,
    /// Several waypoints by weight.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// Endpoints by workload uid.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Identities a server may show.
    #[serde(deserialize_with = "null_is_default")]
    pub subject_alt_names: Vec<String>,
    /// `IPv4`, `IPv6` or `Dual`; absent when automatic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_families: Option<String>,
    /// The one of several with this hostname that answers.
    #[serde(deserialize_with = "null_is_default")]
    pub canonical: bool,
    /// `Public` or `Namespace`.
    #[serde(deserialize_with = "null_is_default")]
    pub visibility: String,
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
    /// `Region`, `Zone`, …, most important first.
    #[serde(deserialize_with = "null_is_default")]
    pub routing_preferences: Vec<String>,
    /// `Standard`, `Strict`, `Failover` or `Passthrough`.
    #[serde(deserialize_with = "null_is_default")]
    pub mode: String,
    /// `OnlyHealthy` or `AllowAll`.
    #[serde(deserialize_with = "null_is_default")]
    pub health_policy: String,
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
    /// Uid of its workload.
    #[serde(deserialize_with = "null_is_default")]
    pub workload_uid: String,
    /// Service; only older dumps have it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "text_or_nothing")]
    pub service: String,
    /// Address; only older dumps have it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "text_or_nothing")]
    pub address: String,
    /// Service port → target port.
    #[serde(deserialize_with = "null_is_default")]
    pub port: BTreeMap<u16, u16>,
    /// `Healthy` or `Unhealthy`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "text_or_nothing")]
    pub status: String,
}
