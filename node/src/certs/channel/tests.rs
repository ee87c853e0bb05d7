//! Addresses, tokens and roots before anything is dialled.
use super::*;

fn config(address: &str) -> ControlConfig {
    ControlConfig {
        address: address.to_owned(),
        alternative_name: None,
        roots: RootSource::System,
        credential: Credential::None,
        cluster_id: "Kubernetes".to_owned(),
        headers: Vec::new(),
        tls: TlsOptions::default(),
        node: None,
    }
}

#[test]
fn only_https_addresses_are_usable() {
    let endpoint = ControlEndpoint::new(config("istiod.istio-system.svc:15012")).unwrap();
    assert_eq!(endpoint.uri(), "https://istiod.istio-system.svc:15012");
    assert_eq!((endpoint.host.as_str(), endpoint.port), ("istiod.istio-system.svc", 15012));
    assert_eq!(ControlEndpoint::new(config("https://[::1]:15012")).unwrap().host, "::1");
    for address in ["http://localhost:15010", "https://", "https://:1", "::", ""] {
        assert_eq!(
            ControlEndpoint::new(config(address)).unwrap_err().code(),
            "control-invalid-address",
            "{address}"
        );
    }
}

// Control-and-operations 4.9
#[tokio::test]
async fn the_token_is_read_anew_and_never_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let setting = path.to_str().unwrap();
    let credential = Credential::from_setting(Some(setting));
    assert_eq!(credential, Credential::File(path.clone()));
    assert_eq!(Credential::from_setting(Some("text")), Credential::Literal("text".to_owned()));
    assert_eq!(Credential::from_setting(Some("")), Credential::None);
    assert!(!format!("{:?}", Credential::Literal("hush".to_owned())).contains("hush"));
    let endpoint = ControlEndpoint::new(ControlConfig { credential, ..config("localhost:1") }).unwrap();
    let authorization = async || {
        let mut metadata = MetadataMap::new();
        endpoint.authorize(&mut metadata).await?;
        Ok::<_, ChannelError>(metadata.get("authorization").unwrap().to_str().unwrap().to_owned())
    };
    assert_eq!(authorization().await.unwrap(), "Bearer one");
    std::fs::write(&path, "two").unwrap();
    assert_eq!(authorization().await.unwrap(), "Bearer two");
    std::fs::write(&path, " \n").unwrap();
    assert_eq!(authorization().await.unwrap_err().code(), "control-token-empty");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(authorization().await.unwrap_err().code(), "control-token-unreadable");
}

#[tokio::test]
async fn without_a_token_neither_header_is_sent() {
    let mut metadata = MetadataMap::new();
    ControlEndpoint::new(config("localhost:1")).unwrap().authorize(&mut metadata).await.unwrap();
    assert!(metadata.is_empty());
}

// CO-12.1-16: a missing root file is an error, not an empty store.
#[tokio::test]
async fn missing_and_empty_roots_are_errors() {
    let missing = RootSource::from_setting("/nonexistent/root-cert.pem");
    assert_eq!(missing.load(None).await.unwrap_err().code(), "control-roots-unreadable");
    let garbage = RootSource::from_setting("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----");
    assert_eq!(garbage.load(None).await.unwrap_err().code(), "control-roots-empty");
    assert_eq!(RootSource::from_setting("SYSTEM"), RootSource::System);
    assert_eq!(RootSource::Joined.load(None).await.unwrap_err().code(), "control-not-joined");
}
