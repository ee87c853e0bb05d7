//! The pages of 15014 and 8080.

use serde_json::Value;
use wire::discovery::DeltaDiscoveryRequest;
use wire::security::AUTHORIZATION_TYPE;
use wire::workload::ADDRESS_TYPE;

use super::client::{get, plaintext};
use super::*;

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// Asks until the answer is as wanted.
async fn until(rig: &Rig, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let address = rig.control.addresses().monitoring.unwrap();
    let asking = async {
        loop {
            let (status, _, body) = get(address, path).await;
            if status == 200 && wanted(&json(&body)) {
                return json(&body);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("{path} never became as wanted"))
}

// CP-6.3, CP-6.4, CP-11-26
#[tokio::test(flavor = "multi_thread")]
async fn the_dump_of_a_proxy_is_what_it_was_sent_and_has_accepted() {
    let rig = Rig::start(&[]).await;
    let mut stream = plaintext(&rig).await.open("n1").await;
    stream.ask(ADDRESS_TYPE, &[], &[]).await;
    let first = stream.next_unanswered().await;
    let dump = "/debug/config_dump?proxyID=zt1.istio-system";
    let empty = until(&rig, dump, |_| true).await;
    assert_eq!(empty["configs"], serde_json::json!([]), "sent is not accepted");
    stream
        .send(DeltaDiscoveryRequest {
            type_url: ADDRESS_TYPE.to_owned(),
            response_nonce: first.nonce.clone(),
            ..Default::default()
        })
        .await;
    stream.ask(AUTHORIZATION_TYPE, &[], &[]).await;
    stream.next().await;
    let full = until(&rig, dump, |dump| dump["configs"].as_array().unwrap().len() == 4).await;
    let configs = full["configs"].as_array().unwrap();
    let p1 = &configs[0];
    assert_eq!(p1["@type"], ADDRESS_TYPE);
    assert_eq!(p1["workload"]["uid"], "Kubernetes//Pod/xp/p1");
    assert_eq!(p1["workload"]["addresses"], serde_json::json!(["Ch4AAQ=="]));
    assert_eq!(configs[3]["@type"], AUTHORIZATION_TYPE);
    assert_eq!(configs[3]["name"], "sel");
    for types in [
        "wads",
        "istio.security.Authorization",
        "type.googleapis.com/istio.security.Authorization",
        "authorization",
    ] {
        let only = until(&rig, &format!("{dump}&types={types}"), |_| true).await;
        assert_eq!(only["configs"].as_array().unwrap().len(), 1, "{types}");
    }
    let sync = until(&rig, "/debug/syncz", |_| true).await;
    assert_eq!(sync[0]["proxy"], "zt1.istio-system");
    assert_eq!(sync[0]["proxy_type"], "ztunnel");
    assert_eq!(sync[0]["cluster_id"], "Kubernetes");
    let address = &sync[0]["resources"][ADDRESS_TYPE];
    assert_eq!(address["sent"], first.nonce);
    assert_eq!(address["acked"], first.nonce);
    assert!(address["sentTime"].is_string());
    let connections = until(&rig, "/debug/connections", |_| true).await;
    assert_eq!(connections["totalClients"], 1);
    assert_eq!(connections["clients"][0]["connectionId"], "zt1.istio-system-1");
    drop(stream);
    until(&rig, "/debug/connections", |connections| connections["totalClients"] == 0).await;
}

// The recording `control/debug`.
#[tokio::test(flavor = "multi_thread")]
async fn pages_answer_as_recorded() {
    let rig = Rig::start(&[]).await;
    let addresses = rig.control.addresses();
    let (monitoring, http) = (addresses.monitoring.unwrap(), addresses.http.unwrap());
    let plain = "text/plain; charset=utf-8";
    let cases = [
        (monitoring, "/debug", 200, "text/html; charset=utf-8", None),
        (monitoring, "/debug/list", 200, "application/json", None),
        (monitoring, "/debug/ambientz", 200, "application/json", None),
        (monitoring, "/debug/conditions", 200, "application/json", None),
        (monitoring, "/debug/mesh", 200, "application/json", None),
        (monitoring, "/debug/clusterz", 200, "application/json", None),
        (monitoring, "/debug/networkz", 200, "application/json", Some("null")),
        (monitoring, "/debug/", 404, plain, Some("404 page not found\n")),
        (monitoring, "/debug/nosuch", 404, plain, Some("404 page not found\n")),
        (monitoring, "/debug/force_disconnect?proxyID=x", 404, plain, Some("404 page not found\n")),
        (monitoring, "/ready", 404, plain, Some("404 page not found\n")),
        (
            monitoring,
            "/debug/config_dump",
            400,
            plain,
            Some("You must provide a proxyID in the query string\n"),
        ),
        (
            monitoring,
            "/debug/config_dump?proxyID=nosuch.x",
            404,
            plain,
            Some("Proxy not connected to this Pilot instance. It may be connected to another instance.\n"),
        ),
        (monitoring, "/version", 200, plain, None),
        (monitoring, "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", None),
        (http, "/ready", 200, "", Some("")),
        (http, "/debug", 200, "text/html; charset=utf-8", None),
        (http, "/debug/syncz", 200, "application/json", Some("[]")),
        (http, "/metrics", 404, plain, Some("404 page not found\n")),
        (http, "/version", 404, plain, Some("404 page not found\n")),
    ];
    for (address, path, status, content_type, body) in cases {
        let (got_status, got_type, got_body) = get(address, path).await;
        assert_eq!((got_status, got_type.as_str()), (status, content_type), "{path}: {got_body}");
        if let Some(body) = body {
            assert_eq!(got_body, body, "{path}");
        }
    }
    let (_, _, ambient) = get(monitoring, "/debug/ambientz").await;
    let ambient = json(&ambient);
    assert_eq!(ambient["workloads"][0]["addresses"], serde_json::json!(["10.30.0.1"]));
    assert_eq!(
        ambient["services"][0]["ports"][0],
        serde_json::json!({"servicePort": 80, "targetPort": 8080})
    );
    assert_eq!(ambient["policies"][0]["scope"], "WORKLOAD_SELECTOR");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_source_is_shown_and_counted() {
    let rig = Rig::start(&[]).await;
    assert_eq!(until(&rig, "/debug/problems", |_| true).await, serde_json::json!([]));
    rig.write("p2.yaml", "{ no: [yaml");
    let problems =
        until(&rig, "/debug/problems", |problems| problems.as_array().is_some_and(|list| !list.is_empty()))
            .await;
    assert_eq!(problems[0]["file"], "p2.yaml");
    assert_eq!(problems[0]["code"], "source-malformed-yaml");
    let monitoring = rig.control.addresses().monitoring.unwrap();
    let (_, _, page) = get(monitoring, "/debug").await;
    assert!(page.contains("1 problem in the source"), "{page}");
    let (_, _, metrics) = get(monitoring, "/metrics").await;
    assert!(metrics.contains("culvert_control_source_problems 1\n"), "{metrics}");
    assert!(metrics.contains("culvert_control_records{kind=\"workload\"} 2\n"), "{metrics}");
    rig.write("p2.yaml", &pod("p2", "n2", "10.30.0.2"));
    until(&rig, "/debug/problems", |problems| problems == &serde_json::json!([])).await;
}

// CP-7.1: names and types of the recording, for the parts that exist.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_recorded_names_and_types() {
    let rig = Rig::start(&[]).await;
    let mut stream = plaintext(&rig).await.open("n1").await;
    stream.ask(ADDRESS_TYPE, &[], &[]).await;
    stream.next().await;
    stream.ask(AUTHORIZATION_TYPE, &[], &[]).await;
    stream.next().await;
    rig.write("p5.yaml", &pod("p5", "n1", "10.30.0.5"));
    let pushed = stream.next_unanswered().await;
    let mut nack = DeltaDiscoveryRequest {
        type_url: ADDRESS_TYPE.to_owned(),
        response_nonce: "bogus".to_owned(),
        ..Default::default()
    };
    stream.send(nack.clone()).await;
    nack.response_nonce = pushed.nonce;
    nack.error_detail = Some(wire::discovery::Status { message: "no".to_owned(), ..Default::default() });
    stream.send(nack).await;
    until(&rig, "/debug/syncz", |sync| sync[0]["resources"][ADDRESS_TYPE]["lastError"] == "no").await;

    let (_, _, page) = get(rig.control.addresses().monitoring.unwrap(), "/metrics").await;
    let text = include_str!("../../../../tests/data/control/metrics.json");
    let recorded: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
    let elsewhere = |name: &str| {
        // Sidecars, Envoy types, per-RPC transport counters, Kubernetes informers: parts that do not exist here.
        let prefixes = [
            "pilot_k8s_",
            "grpc_",
            "pilot_vserv",
            "pilot_virt",
            "pilot_conflict",
            "pilot_dup",
            "pilot_eds_",
            "pilot_endpoint",
            "endpoint_no_pod",
            "pilot_destrule",
            "pilot_dns_",
            "pilot_no_ip",
            "pilot_debounce_time",
            "pilot_xds_send_time",
        ];
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, about) in &recorded {
        if elsewhere(name) {
            continue;
        }
        let kind = about["type"].as_str().unwrap();
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name} {kind} is missing in:\n{page}");
    }
    for sample in [
        "pilot_xds{version=",
        "pilot_xds_pushes{type=\"wds\"} 2\n",
        "pilot_xds_pushes{type=\"wads\"} 1\n",
        "pilot_total_xds_rejects{type=\"wds\"} 1\n",
        "pilot_xds_expired_nonce{type=\"wds\"} 1\n",
        "pilot_services 1\n",
        "istiod_managed_clusters{cluster_type=\"local\"} 1\n",
        "pilot_push_triggers{type=\"ambient\"} 1\n",
    ] {
        assert!(page.contains(sample), "{sample} is missing in:\n{page}");
    }
}
