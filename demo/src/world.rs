//! What the demo has to build, read from the mesh's own YAML: nodes, pods with their addresses, services.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// The mesh as the demo sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    /// Nodes that run a proxy, by node name.
    pub(crate) nodes: Vec<Node>,
    /// Pods that run an application.
    pub(crate) pods: Vec<Pod>,
    /// Address of the control plane's pod.
    pub(crate) control: IpAddr,
    /// Name (`service.namespace`) to virtual address of every service that has one.
    pub(crate) services: BTreeMap<String, IpAddr>,
}

/// A machine: the pod of its node proxy names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Pod name of the node proxy.
    pub(crate) proxy: String,
    pub(crate) address: IpAddr,
}

/// A pod with an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) address: IpAddr,
    pub(crate) service_account: String,
    /// Label `app`, else the pod's name.
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) ports: Vec<u16>,
    /// In the mesh: captured by the node's agent.
    pub(crate) captured: bool,
}

impl World {
    /// The pod a person means: its name, `app`, `namespace/app`, or `name.namespace`.
    pub(crate) fn pod(&self, wanted: &str) -> Option<&Pod> {
        let matches = |pod: &&Pod| {
            wanted == pod.name
                || wanted == pod.app
                || wanted == format!("{}/{}", pod.namespace, pod.app)
                || wanted == format!("{}.{}", pod.name, pod.namespace)
                || wanted == format!("{}-{}", pod.app, pod.version)
        };
        self.pods.iter().find(matches)
    }

    /// Reads every `.yaml` and `.yml` file of `folder`.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .with_context(|| format!("reading the mesh folder {}", folder.display()))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
            })
            .collect();
        files.sort();
        let mut objects = Vec::new();
        for file in files {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let parsed: Vec<Object> = serde_saphyr::from_multiple(&text)
                .with_context(|| format!("{} is not the YAML of Kubernetes objects", file.display()))?;
            objects.extend(parsed.into_iter().flat_map(Object::flatten));
        }
        Self::from_objects(&objects)
    }

    fn from_objects(objects: &[Object]) -> anyhow::Result<Self> {
        let of = |kind: &'static str| objects.iter().filter(move |object| object.kind == kind);
        let mut nodes = Vec::new();
        let mut pods = Vec::new();
        let mut control = None;
        for object in of("Pod") {
            let Some(address) = object.status.pod_ip else { continue };
            let label = |name: &str| object.metadata.labels.get(name).cloned().unwrap_or_default();
            match label("app").as_str() {
                "ztunnel" => nodes.push(Node {
                    name: object.spec.node_name.clone(),
                    proxy: object.metadata.name.clone(),
                    address,
                }),
                "istiod" => control = Some(address),
                app => pods.push(Pod {
                    name: object.metadata.name.clone(),
                    namespace: object.namespace(),
                    uid: object
                        .metadata
                        .uid
                        .clone()
                        .unwrap_or_else(|| format!("{}-{}", object.namespace(), object.metadata.name)),
                    node: object.spec.node_name.clone(),
                    address,
                    service_account: object
                        .spec
                        .service_account_name
                        .clone()
                        .unwrap_or_else(|| "default".to_owned()),
                    app: if app.is_empty() { object.metadata.name.clone() } else { app.to_owned() },
                    version: label("version"),
                    ports: object
                        .spec
                        .containers
                        .iter()
                        .flat_map(|c| &c.ports)
                        .map(|p| p.container_port)
                        .collect(),
                    captured: object
                        .metadata
                        .annotations
                        .get("ambient.istio.io/redirection")
                        .is_some_and(|value| value == "enabled"),
                }),
            }
        }
        let Some(control) = control else {
            bail!("the mesh has no Pod with label app=istiod: where would control run?")
        };
        if nodes.is_empty() {
            bail!("the mesh has no Pod with label app=ztunnel: there is no node to run a proxy on");
        }
        pods.retain(|pod| !pod.ports.is_empty() && nodes.iter().any(|node| node.name == pod.node));
        let services = of("Service")
            .filter_map(|object| {
                let address: IpAddr = object.spec.cluster_ip.as_deref()?.parse().ok()?;
                Some((format!("{}.{}", object.metadata.name, object.namespace()), address))
            })
            .collect();
        Ok(Self { nodes, pods, control, services })
    }
}

/// The fields of Kubernetes objects that the demo reads; everything else is for the control plane.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    kind: String,
    metadata: Metadata,
    spec: Spec,
    status: Status,
    /// Of a `List`.
    items: Vec<Self>,
}

impl Object {
    fn flatten(mut self) -> Vec<Self> {
        let items = std::mem::take(&mut self.items);
        if self.kind.ends_with("List") { items } else { vec![self] }
    }

    fn namespace(&self) -> String {
        self.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
    service_account_name: Option<String>,
    containers: Vec<Container>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Vec<ContainerPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerPort {
    container_port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_nodes_and_services_are_read_and_found_by_the_names_people_use() {
        let text = r#"
kind: Pod
metadata: {name: istiod-0, namespace: istio-system, labels: {app: istiod}}
spec: {nodeName: cp}
status: {podIP: 10.0.0.1}
---
kind: Pod
metadata: {name: ztunnel-a, namespace: istio-system, labels: {app: ztunnel}}
spec: {nodeName: n1}
status: {podIP: 10.0.0.11}
---
kind: Pod
metadata: {name: sleep-1, namespace: default, labels: {app: sleep}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, serviceAccountName: sleep, containers: [{name: c, ports: [{containerPort: 80}]}]}
status: {podIP: 10.244.1.11}
---
kind: Pod
metadata: {name: old-1, namespace: legacy, labels: {app: old}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}]}]}
status: {podIP: 10.244.1.12}
---
kind: Service
metadata: {name: sleep, namespace: default}
spec: {clusterIP: 10.96.0.11}
---
kind: Service
metadata: {name: headless, namespace: default}
spec: {clusterIP: None}
"#;
        let objects: Vec<Object> = serde_saphyr::from_multiple(text).unwrap();
        let world = World::from_objects(&objects).unwrap();
        assert_eq!(world.nodes.len(), 1);
        assert!(world.pod("sleep").unwrap().captured);
        assert!(!world.pod("legacy/old").unwrap().captured);
        assert_eq!(world.pod("old-1.legacy").unwrap().service_account, "default");
        assert!(world.pod("nobody").is_none());
        assert_eq!(world.services.len(), 1);
    }
}
