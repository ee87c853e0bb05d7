use std::time::Duration;

use runtime::environment::Environment;
use serde_json::Value;

use super::variables::{VARIABLES, page};
use super::*;

fn inputs(variables: &[(&str, &str)]) -> Inputs {
    Inputs {
        environment: variables.iter().copied().collect(),
        mesh_file: None,
        resolv_conf: "nameserver 10.255.255.53\n".into(),
        n_cpus: 2,
        ipv6_loopback: true,
        arguments: "proxy ztunnel".into(),
    }
}

fn loaded(variables: &[(&str, &str)]) -> Config {
    Config::load(&inputs(variables)).unwrap()
}

fn mistakes(variables: &[(&str, &str)]) -> String {
    Config::load(&inputs(variables)).unwrap_err().to_string()
}

const RECORDED_ENVIRONMENT: &[(&str, &str)] = &[
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ("NODE_NAME", "ambient-worker"),
    ("POD_NAME", "ztunnel-b6rz9"),
    ("POD_NAMESPACE", "istio-system"),
    ("SERVICE_ACCOUNT", "ztunnel"),
];

/// CO-11.5-2: the `config` section of the recorded dump, value for value.
#[test]
fn config_section_equals_the_recorded_one() {
    let text = include_str!("../../../tests/data/page/config_dump-n1.json");
    let recorded: Value = serde_json::from_str(text).unwrap();
    let mut recorded = recorded["config"].clone();
    let ports = recorded["illegalPorts"].as_array_mut().unwrap();
    ports.sort_by_key(Value::as_u64);
    assert_eq!(loaded(RECORDED_ENVIRONMENT).to_json(), recorded);
}

#[test]
fn node_id_names_pod_and_namespace() {
    let config = loaded(RECORDED_ENVIRONMENT);
    assert_eq!(config.node_id(), "ztunnel~1.1.1.1~ztunnel-b6rz9.istio-system~istio-system.svc.cluster.local");
    assert_eq!(loaded(&[]).node_id(), "ztunnel~1.1.1.1~.~.svc.cluster.local");
}

// CO-11.4-1, A-MI-14
#[test]
fn environment_goes_before_proxy_config_before_mesh_file() {
    let mut inputs = inputs(&[
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("ISTIO_META_BOTH", "environment"),
        ("OTHER", "ignored"),
        ("ISTIO_META_CLUSTER_ID", "c-meta"),
        ("CLUSTER_ID", "c-plain"),
        (
            "PROXY_CONFIG",
            "{proxyAdminPort: 15099, proxyMetadata: {ISTIO_META_BOTH: env, ISTIO_META_MID: m}, unknownKey: 1}",
        ),
    ]);
    inputs.mesh_file = Some(Ok(concat!(
        "rootNamespace: istio-system\ndefaultConfig:\n  discoveryAddress: istiod-x.istio-system.svc:15012\n",
        "  proxyAdminPort: 1\n  statsPort: 15888\n  concurrency: 3\n",
        "  proxyMetadata:\n    ISTIO_META_MID: mesh\n    NO_PREFIX: kept\n",
    )
    .into()));
    let config = Config::load(&inputs).unwrap();
    assert_eq!(config.listen.admin.port, 15099);
    assert_eq!(config.listen.stats.port(), 15888);
    assert_eq!(config.n_traffic_threads, 3);
    assert_eq!(config.xds.address.as_deref(), Some("https://istiod-x.istio-system.svc:15012"));
    assert_eq!(config.ca.address.as_deref(), Some("https://localhost:15012"));
    assert!(!config.dns_proxy);
    assert_eq!(config.cluster_id, "c-meta");
    let metadata: Vec<(&str, &str)> = config.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected = [
        ("BOTH", "environment"),
        ("CLUSTER_ID", "c-meta"),
        ("DNS_CAPTURE", "false"),
        ("MID", "m"),
        ("NO_PREFIX", "kept"),
    ];
    assert_eq!(metadata, expected);
}

// CO-11.4-1
#[test]
fn headers_are_split_by_prefix_and_hidden_in_the_dump() {
    let config = loaded(&[("XDS_HEADER_X_TEAM", "Blue"), ("CA_HEADER_AUTH", "s3same")]);
    assert_eq!(config.xds.headers, [(HeaderName::from_static("x_team"), HeaderValue::from_static("Blue"))]);
    assert_eq!(config.ca.headers.len(), 1);
    assert!(!config.to_json().to_string().contains("s3same"));
}

// CO-11.4-3, A-MI-14
#[test]
fn all_mistakes_are_reported_together_with_their_texts() {
    let text = mistakes(&[
        ("ENABLE_PROXY", "yes"),
        ("KEEPALIVE_RETRIES", "-3"),
        ("SECRET_TTL", "soon"),
        ("XDS_ADDRESS", "http://"),
        ("ISTIO_META_DNS_PROXY_ADDR", "localhost:dns"),
        ("PROXY_CONFIG", "{concurrency: lots}"),
        ("PROXY_MODE", "alone"),
        ("XDS_ON_DEMAND", "true"),
        ("LOCAL_XDS", "{}"),
        ("LOCAL_XDS_PATH", "x.yaml"),
        ("CA_HEADER_A B", "x"),
        ("CA_ADDRESS", ""),
    ]);
    for line in [
        "Error: invalid env var ENABLE_PROXY=yes (provided string was not `true` or `false`)",
        "Error: invalid env var KEEPALIVE_RETRIES=-3 (invalid digit found in string)",
        "Error: invalid env var SECRET_TTL=soon (",
        "Error: invalid uri: ",
        "Error: invalid configuration: failed to parse DNS_PROXY_ADDR: localhost:dns (invalid digit found in string)",
        "Error: error parsing proxy config: failed parsing proxy config env: ",
        "Error: invalid env var PROXY_MODE=alone (PROXY_MODE must be one of dedicated, shared)",
        "Error: error parsing proxy config: DNS proxy does not currently support on-demand mode",
        "Error: invalid configuration: only one of LOCAL_XDS_PATH or LOCAL_XDS may be set",
        "Error: failed to parse header key: CA_HEADER_A B",
        "Error: ca_address must be set to use CA",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} is missing in\n{text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("Error: ")).count(), 11, "{text}");
}

#[test]
fn single_mistakes_have_their_texts_and_codes() {
    type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);
    let cases: [Case; 7] = [
        (
            &[("ENABLE_PROXY", "false"), ("ISTIO_META_DNS_CAPTURE", "off")],
            "error parsing proxy config: ztunnel run without any servers enabled",
            "config-no-servers",
        ),
        (
            &[("PROXY_MODE", "dedicated")],
            "invalid configuration: PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set",
            "config-no-workload-info",
        ),
        (
            &[("ISTIO_META_DNS_PROXY_ADDR", "1.2.3.4")],
            "invalid configuration: failed to parse DNS_PROXY_ADDR: 1.2.3.4 (invalid socket address syntax)",
            "config-invalid-dns-address",
        ),
        (&[("CA_HEADER_X", "a\nb")], "failed to parse header value: a\nb", "config-invalid-header"),
        (
            &[("IPV6_ENABLED", "")],
            "invalid env var IPV6_ENABLED= (provided string was not `true` or `false`)",
            "config-invalid-env",
        ),
        (
            &[("PROXY_WORKLOAD_INFO", "a/b")],
            "invalid env var PROXY_WORKLOAD_INFO=a/b (expected namespace/name/service-account)",
            "config-invalid-env",
        ),
        (
            &[("FAKE_CA", "true")],
            "FAKE_CA=true is not supported: run `culvert control` for a certificate authority of your own",
            "config-fake-ca",
        ),
    ];
    for (variables, text, code) in cases {
        let errors = Config::load(&inputs(variables)).unwrap_err().0;
        assert_eq!((errors[0].to_string().as_str(), errors[0].code()), (text, code));
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}

#[test]
fn unreadable_mesh_file_is_a_mistake() {
    let mut inputs = inputs(&[]);
    inputs.mesh_file = Some(Err("permission denied".into()));
    let text = Config::load(&inputs).unwrap_err().to_string();
    let path = "./etc/istio/config/mesh";
    let expected = format!(
        "Error: error parsing proxy config: failed parsing mesh config file {path}: permission denied"
    );
    assert_eq!(text, expected);
}

#[test]
fn grace_period_leaves_time_to_stop() {
    let deadline = |variables: &[(&str, &str)]| loaded(variables).termination_deadline;
    let cases = [("0", 0), ("1", 1), ("2", 1), ("10", 9), ("11", 6), ("30", 25)];
    for (grace, seconds) in cases {
        let variables = [("TERMINATION_GRACE_PERIOD_SECONDS", grace)];
        assert_eq!(deadline(&variables), Duration::from_secs(seconds), "{grace}");
    }
    assert_eq!(deadline(&[]), Duration::from_secs(5));
    let both = [("TERMINATION_GRACE_PERIOD_SECONDS", "30"), ("CONNECTION_TERMINATION_DEADLINE", "90ms")];
    assert_eq!(deadline(&both), Duration::from_millis(90));
}

#[test]
fn roots_and_credentials_are_told_apart() {
    let roots = |text: &str| loaded(&[("CA_ROOT_CA", text)]).ca.roots;
    assert_eq!(roots("/missing/root.pem"), RootSource::File("/missing/root.pem".into()));
    assert_eq!(roots("SYSTEM"), RootSource::System);
    assert!(matches!(roots("-----BEGIN CERTIFICATE-----\n"), RootSource::Static(_)));

    let token = tempfile::NamedTempFile::new().unwrap();
    let path = token.path().to_str().unwrap();
    assert_eq!(loaded(&[("AUTH_TOKEN", path)]).credential, Credential::File(path.into()));
    let literal = loaded(&[("AUTH_TOKEN", "abc.def")]);
    assert_eq!(literal.credential, Credential::Literal("abc.def".into()));
    assert!(!format!("{literal:?}").contains("abc.def"));

    let joined = loaded(&[("AUTH_TOKEN", "abc"), ("CULVERT_JOIN_TOKEN", "/t"), ("XDS_ROOT_CA", "/root.pem")]);
    assert_eq!((joined.credential, joined.join_token), (Credential::None, Some("/t".into())));
    assert_eq!(
        (joined.ca.roots, joined.xds.roots),
        (RootSource::Joined, RootSource::File("/root.pem".into()))
    );
}

#[test]
fn components_get_what_is_theirs() {
    let config = loaded(&[
        ("KUBERNETES_SERVICE_HOST", "x"),
        ("NODE_NAME", "n1"),
        ("NETWORK", "net"),
        ("XDS_HEADER_A", "b"),
        ("ALT_XDS_HOSTNAME", "other"),
        ("SECRET_TTL", "1h"),
        ("TLS12_ENABLED", "true"),
        ("ISTIO_METAJSON_LABELS", r#"{"a": 1}"#),
        ("PREFERED_SERVICE_NAMESPACE", "shop"),
    ]);
    let certs = config.certs(None).unwrap();
    assert_eq!(
        (certs.ca.address.as_str(), certs.secret_ttl),
        ("https://istiod.istio-system.svc:15012", Duration::from_secs(3600))
    );
    assert!(certs.impersonate && certs.tls.tls12);
    let sync = config.sync(None);
    let control = sync.control.unwrap();
    assert_eq!(control.headers, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(
        (control.alternative_name.as_deref(), control.cluster_id.as_str()),
        (Some("other"), "Kubernetes")
    );
    assert_eq!(sync.node.structured_metadata["LABELS"]["a"], 1);
    assert_eq!((&*sync.mesh.network, sync.mesh.node.as_deref()), ("net", Some("n1")));
    assert_eq!(config.dns().preferred_namespace.as_deref(), Some("shop"));
    assert!(loaded(&[("XDS_ADDRESS", "")]).sync(None).control.is_none());
}

#[test]
fn dedicated_mode_has_one_workload_and_no_mark() {
    let config = loaded(&[("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "shop/cart-0/cart")]);
    let dump = config.to_json();
    assert_eq!(dump["proxyMode"], "Dedicated");
    assert_eq!(dump["proxyWorkloadInformation"]["serviceAccount"], "cart");
    assert_eq!(config.packet_mark, None);
}

#[test]
fn socks5_and_ipv4_change_addresses() {
    let config = loaded(&[("UNSTABLE_ENABLE_SOCKS5", "true"), ("IPV6_ENABLED", "false")]);
    assert!(config.illegal_ports.contains(&SOCKS5_PORT));
    assert_eq!(config.listen.stats.to_string(), "0.0.0.0:15020");
    assert_eq!(config.listen.admin.addresses().count(), 1);
}

#[test]
fn documentation_page_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/environment.md");
    if std::fs::read_to_string(path).unwrap_or_default() != page() {
        let fresh = std::env::temp_dir().join("culvert-environment.md");
        std::fs::write(&fresh, page()).unwrap();
        panic!(
            "docs/environment.md is not what the list of variables says: copy {} over it",
            fresh.display()
        );
    }
}

#[test]
fn resolv_conf_is_read_with_its_options() {
    let text =
        "# x\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a.b c\noptions ndots:5 timeout:2 edns0\n";
    let settings = ResolverSettings::parse(text);
    assert_eq!(settings.name_servers.len(), 2);
    assert_eq!(settings.search, ["a.b", "c"]);
    assert_eq!((settings.n_dots, settings.timeout_seconds, settings.edns0), (5, 2, true));
}

#[test]
fn every_variable_is_listed_once() {
    let mut names: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    names.sort_unstable();
    let n = names.len();
    names.dedup();
    assert_eq!(names.len(), n);
    let _: Environment = VARIABLES.iter().map(|variable| (variable.name, "")).collect();
}
