use super::*;

fn read_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Task, ConfigErrors> {
    let home = [("HOME", "/home/x")];
    let environment: Environment = variables.iter().chain(&home).copied().collect();
    read(arguments.iter().map(OsString::from).collect(), &environment)
}

fn config(arguments: &[&str], variables: &[(&str, &str)]) -> Config {
    match read_with(arguments, variables) {
        Ok(Task::Serve(config)) => *config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_the_references() {
    let config = config(&["--config", "d", "--state", "s"], &[]);
    assert_eq!(config.listen.grpc.map(|a| a.to_string()).as_deref(), Some("[::]:15010"));
    assert_eq!(config.listen.secure_grpc.map(|a| a.port()), Some(15012));
    assert_eq!(config.listen.monitoring.map(|a| a.port()), Some(15014));
    assert_eq!(config.listen.http.map(|a| a.port()), Some(8080));
    assert_eq!(config.keepalive.interval, Duration::from_secs(30));
    assert_eq!(config.debounce, Duration::from_millis(100));
    assert_eq!(config.trusted_accounts, [Account::ztunnel()]);
    assert_eq!(config.plaintext, Plaintext::LoopbackOnly);
    assert!(config.authenticate && config.check_identity && config.debug.authenticate);
    assert!(config.authority.server_names.iter().any(|name| name == "istiod.istio-system.svc"));
}

#[test]
fn flags_and_variables_are_read() {
    let config = config(
        &["--config", "d", "--state", "s", "--name", "a.example", "--name", "10.0.0.1", "--grpcAddr", ""],
        &[
            ("XDS_AUTH_PLAINTEXT", "false"),
            ("CA_TRUSTED_NODE_ACCOUNTS", "a/b, c/d"),
            ("PILOT_DEBOUNCE_AFTER", "1.5s"),
            ("PILOT_PUSH_THROTTLE", "7"),
            ("POD_NAMESPACE", "mesh"),
            ("ISTIOD_CUSTOM_HOST", "x.example,y.example"),
            ("DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES", "ops"),
        ],
    );
    assert_eq!(config.listen.grpc, None);
    assert_eq!(config.plaintext, Plaintext::Open);
    let accounts: Vec<String> = config.trusted_accounts.iter().map(ToString::to_string).collect();
    assert_eq!(accounts, ["a/b", "c/d"]);
    assert_eq!(config.debounce, Duration::from_millis(1500));
    assert_eq!(config.limits.concurrent_pushes, 7);
    assert!(config.debug.namespaces.contains("mesh") && config.debug.namespaces.contains("ops"));
    for name in ["istiod.mesh.svc", "a.example", "10.0.0.1", "x.example", "localhost"] {
        assert!(config.authority.server_names.iter().any(|known| known == name), "{name}");
    }
}

#[test]
fn all_mistakes_are_reported_together() {
    let result = read_with(
        &["--grpcAddr", "nonsense", "--state", "s"],
        &[("XDS_AUTH", "maybe"), ("PILOT_DEBOUNCE_AFTER", "soon"), ("CA_TRUSTED_NODE_ACCOUNTS", "x")],
    );
    let text = result.expect_err("mistakes").to_string();
    for part in [
        "--config is required",
        "invalid value \"nonsense\" for --grpcAddr",
        "invalid env var XDS_AUTH=maybe (must be true or false)",
        "PILOT_DEBOUNCE_AFTER=soon",
        "CA_TRUSTED_NODE_ACCOUNTS=x",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn a_token_is_asked_for_with_a_node() {
    match read_with(&["token", "--node", "n1", "--bearer", "--ttl", "90m", "--state", "s"], &[]) {
        Ok(Task::Token(request)) => {
            assert_eq!(request.kind, TokenKind::Bearer);
            assert_eq!(request.ttl, Duration::from_secs(5400));
            assert_eq!(request.account, Account::ztunnel());
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(read_with(&["token"], &[]), Err(ConfigErrors::Usage(_))));
    assert!(read_with(&["token", "--node", "n", "--ttl", "0s"], &[]).is_err());
}

#[test]
fn durations_are_the_references() {
    let parse = |text: &str| environment::duration(text).map(|duration| duration.as_millis());
    assert_eq!(parse("100ms"), Some(100));
    assert_eq!(parse("1h30m"), Some(5_400_000));
    assert_eq!(parse("1.5s"), Some(1500));
    assert_eq!(parse("0"), Some(0));
    for bad in ["", "5", "s", "1x", "-1s", "1..s", "999999999999999999999h"] {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
}

#[test]
fn the_cluster_domain_is_a_dns_name() {
    for domain in ["", ".", "a..b", "a-.b", "Cluster.Local", "a b", ".cluster.local"] {
        let result = read_with(&["--config", "d", "--state", "s", "--domain", domain], &[]);
        let text = result.expect_err("a mistake").to_string();
        assert!(text.contains("for --domain") && text.contains("config-invalid-flag"), "{domain:?}: {text}");
    }
    assert_eq!(
        config(&["--config", "d", "--state", "s", "--domain", "k8s.example.com"], &[])
            .switches
            .cluster_domain,
        "k8s.example.com"
    );
}

#[test]
fn the_documentation_page_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/environment-control.md");
    if std::fs::read_to_string(path).unwrap_or_default() != variables::page() {
        let fresh = std::env::temp_dir().join("culvert-environment-control.md");
        std::fs::write(&fresh, variables::page()).unwrap();
        panic!("the page is not what the list of variables says: copy {} over it", fresh.display());
    }
}
