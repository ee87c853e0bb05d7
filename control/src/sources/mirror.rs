//! Endpoints to endpoint slices, in place of the controller that mirrors them in a cluster.

use std::net::IpAddr;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::objects::{
    Endpoint, EndpointAddress, EndpointConditions, EndpointSlice, EndpointSubset, Endpoints, Metadata, Name,
    Objects,
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";

/// Adds the slices of all Endpoints that belong to a service without selector and were not mirrored
/// by a cluster already (a folder may hold its output).
pub(super) fn mirror(objects: &mut Objects) {
    let mut slices = Vec::new();
    for (name, endpoints) in &objects.endpoints {
        let service = objects.services.get(name);
        let wanted = service.is_some_and(|service| service.spec.selector.is_empty())
            && endpoints.metadata.label(SKIP_MIRROR) != Some("true");
        let is_mirror = |slice: &Arc<EndpointSlice>| {
            let meta = &slice.metadata;
            meta.label(MANAGED_BY) == Some(CONTROLLER)
                && meta.label(SERVICE_NAME) == Some(&name.name)
                && meta.namespace == name.namespace
        };
        if wanted && !objects.endpoint_slices.values().any(is_mirror) {
            slices.extend(mirrored(endpoints));
        }
    }
    for slice in slices {
        let name = Name::new(&slice.metadata.namespace, &slice.metadata.name);
        objects.endpoint_slices.entry(name).or_insert_with(|| Arc::new(slice));
    }
}

/// One slice per subset and family that has addresses.
fn mirrored(endpoints: &Endpoints) -> impl Iterator<Item = EndpointSlice> {
    let subsets = endpoints.subsets.iter().enumerate();
    subsets.flat_map(move |(i, subset)| {
        ["IPv4", "IPv6"].into_iter().filter_map(move |family| slice(&endpoints.metadata, i, subset, family))
    })
}

fn slice(meta: &Metadata, index: usize, subset: &EndpointSubset, family: &str) -> Option<EndpointSlice> {
    let endpoint = |address: &EndpointAddress, ready: bool| {
        let ip = address.ip.parse::<IpAddr>().ok()?;
        (ip.is_ipv4() == (family == "IPv4")).then(|| Endpoint {
            addresses: vec![address.ip.clone()],
            conditions: EndpointConditions { ready: Some(ready) },
            target_ref: address.target_ref.clone(),
        })
    };
    let ready = subset.addresses.iter().filter_map(|address| endpoint(address, true));
    let not_ready = subset.not_ready_addresses.iter().filter_map(|address| endpoint(address, false));
    let found: Vec<Endpoint> = ready.chain(not_ready).collect();
    if found.is_empty() {
        return None;
    }
    let mut labels = meta.labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), meta.name.clone());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let suffix = suffix(&format!("{}/{}/{index}/{family}", meta.namespace, meta.name));
    let metadata = Metadata {
        name: format!("{}-{suffix}", meta.name),
        namespace: meta.namespace.clone(),
        labels,
        creation_timestamp: meta.creation_timestamp,
        ..Metadata::default()
    };
    Some(EndpointSlice {
        metadata,
        address_type: family.to_owned(),
        endpoints: found,
        ports: subset.ports.clone(),
    })
}

/// Five characters as a cluster appends, but the same each time.
fn suffix(text: &str) -> String {
    const CHARACTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = xxh64(text.as_bytes(), 0);
    let mut next = || {
        let index = usize::try_from(hash % 27).unwrap_or_default();
        hash /= 27;
        CHARACTERS.get(index).map_or('b', |byte| char::from(*byte))
    };
    (0..5).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::folder::{File, Folder};
    use super::*;

    #[test]
    fn endpoints_of_a_service_without_selector_become_slices() {
        let text = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: d}
spec: {clusterIP: 10.96.0.9, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: db, namespace: d}
subsets:
- addresses: [{ip: 192.0.2.1}, {ip: 'fd00::1'}]
  notReadyAddresses: [{ip: 192.0.2.2}]
  ports: [{name: sql, port: 5432}]
";
        let file = File { path: "db.yaml".into(), content: Ok(text.into()) };
        let snapshot = Folder::default().apply(vec![file], None, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(snapshot.problems, []);
        let slices: Vec<_> = snapshot.objects.endpoint_slices.values().collect();
        assert_eq!(slices.len(), 2);
        let v4 = slices.iter().find(|slice| slice.address_type == "IPv4").expect("a slice");
        let ready: Vec<_> = v4.endpoints.iter().map(|endpoint| endpoint.conditions.ready).collect();
        assert_eq!(ready, [Some(true), Some(false)]);
        assert_eq!(v4.metadata.label(SERVICE_NAME), Some("db"));
    }
}
