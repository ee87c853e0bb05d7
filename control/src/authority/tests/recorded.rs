//! The recorded calls of `CreateCertificate`, replayed. A bearer token stands for the recorded caller's
//! Kubernetes token.
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

/// Recorded cases that mean something only for Kubernetes tokens, or below the service.
const NOT_APPLICABLE: [&str; 5] = [
    "trusted account, token not bound to a pod",
    "caller pod deleted",
    "caller pod re-created under the same name: old token (UID differs)",
    "request bytes are not protobuf",
    "two audiences, one right",
];

/// Where we differ on purpose; see docs/compatibility.md.
const REFUSED_HERE: [&str; 1] = ["other trust domain"];
const GRANTED_HERE: [&str; 2] = ["no clusterid metadata, impersonation", "clusterid empty string"];

fn recording() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/control/ca.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bearer(world: &World, account: &str) -> Option<String> {
    Some(format!("Bearer {}", world.token(TokenKind::Bearer, "n1", account)))
}

fn with_audience(world: &World, audience: &str) -> Option<String> {
    let key = StateFolder::existing(&world.state()).unwrap().token_key().unwrap();
    let claims = wire::token::Claims {
        id: "0".repeat(32),
        audience: audience.to_owned(),
        node: "n1".to_owned(),
        account: "istio-system/ztunnel".to_owned(),
        expires: u64::MAX / 2,
        root: "00".repeat(32),
    };
    Some(format!("Bearer {}", tokens::sign(&key, wire::token::BEARER, &claims)))
}

fn csr_with_common_name(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["foreign.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "foreign");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "foreign");
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn call(world: &World, recorded: &Value) -> Call {
    let (case, request) = (recorded["case"].as_str().unwrap(), &recorded["request"]);
    let headers: Vec<&str> =
        request["request_metadata"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let mut call = Call::of(world);
    call.validity = request["validity_duration"].as_i64().unwrap_or(0);
    let impersonated = request["metadata"]["ImpersonatedIdentity"].as_str();
    call.impersonated = impersonated.map(|text| Kind::StringValue(text.to_owned()));
    if !headers.contains(&"clusterid") {
        call.cluster = None;
    }
    if !headers.contains(&"authorization") {
        call.authorization = None;
    }
    match case {
        "granted, again with RSA key in the request, CN and organization and a foreign SAN in the request" => {
            call.csr = csr_with_common_name(&rcgen::PKCS_RSA_SHA256);
        }
        "CN requested, short SAN" | "CN requested, first SAN longer than 64 characters" => {
            call.csr = csr_with_common_name(&rcgen::PKCS_ECDSA_P256_SHA256);
        }
        "no impersonation: own identity" | "untrusted workload impersonates itself" => {
            call.authorization = bearer(world, "cax/front");
        }
        "service account not trusted impersonates" => call.authorization = bearer(world, "cax/oth"),
        "garbage token" => call.authorization = Some("Bearer garbage".to_owned()),
        "token without Bearer prefix" => {
            call.authorization = call.authorization.map(|header| header.replacen("Bearer ", "", 1));
        }
        "wrong audience" => call.authorization = with_audience(world, "other"),
        "API server audience" => call.authorization = with_audience(world, "https://kubernetes.default.svc"),
        "clusterid of an unknown cluster" => call.cluster = Some("nosuch".to_owned()),
        "clusterid empty string" => call.cluster = Some(String::new()),
        "CSR empty" => call.csr = String::new(),
        "CSR garbage" => {
            call.csr =
                "-----BEGIN CERTIFICATE REQUEST-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE REQUEST-----\n"
                    .to_owned();
        }
        _ => {}
    }
    call
}

/// A certificate in the words of the recording.
fn describe(world: &World, pem: &str) -> Value {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let now = world.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let (begins, ends) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let signature = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.11" => "sha256WithRSAEncryption",
        other => panic!("signature {other}"),
    };
    let extensions: Vec<_> = parsed
        .iter_extensions()
        .map(|extension| {
            use x509_parser::extensions::ParsedExtension as Parsed;
            let (name, value) = match extension.parsed_extension() {
                Parsed::KeyUsage(usage) => ("keyUsage", key_usages(usage)),
                Parsed::ExtendedKeyUsage(usage) => {
                    assert!(usage.server_auth && usage.client_auth && usage.other.is_empty());
                    ("extendedKeyUsage", serde_json::json!(["serverAuth", "clientAuth"]))
                }
                Parsed::BasicConstraints(constraints) => {
                    assert!(constraints.path_len_constraint.is_none());
                    let is_ca = if constraints.ca { "True" } else { "False" };
                    ("basicConstraints", format!("ca={is_ca} path_length=None").into())
                }
                Parsed::AuthorityKeyIdentifier(_) => ("authorityKeyIdentifier", "present".into()),
                Parsed::SubjectKeyIdentifier(_) => ("subjectKeyIdentifier", "present".into()),
                Parsed::SubjectAlternativeName(names) => {
                    ("subjectAltName", general_names(&names.general_names))
                }
                other => panic!("extension {other:?}"),
            };
            serde_json::json!({"name": name, "critical": extension.critical, "value": value})
        })
        .collect();
    serde_json::json!({
        "subject": parsed.subject().to_string(),
        "issuer": parsed.issuer().to_string(),
        "not_before_minus_now_s": begins - now,
        "not_after_minus_now_s": ends - now,
        "lifetime_s": ends - begins,
        "signature_algorithm": signature,
        "version": format!("v{}", parsed.version().0 + 1),
        "extensions": extensions,
        "san": [extensions.iter().find(|extension| extension["name"] == "subjectAltName").map(|found| found["value"].clone())],
    })
}

fn key_usages(usage: &x509_parser::extensions::KeyUsage) -> Value {
    let flags = [
        ("digital_signature", usage.digital_signature()),
        ("key_encipherment", usage.key_encipherment()),
        ("key_cert_sign", usage.key_cert_sign()),
        ("crl_sign", usage.crl_sign()),
    ];
    flags.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect()
}

fn general_names(names: &[x509_parser::extensions::GeneralName<'_>]) -> Value {
    use x509_parser::extensions::GeneralName;
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => format!("UniformResourceIdentifier:{uri}"),
        GeneralName::DNSName(dns) => format!("DNSName:{dns}"),
        other => format!("{other:?}"),
    };
    names.iter().map(text).collect()
}

fn assert_described(case: &str, recorded: &Value, ours: &Value, left_out: &[&str]) {
    for (key, wanted) in recorded.as_object().unwrap() {
        if !left_out.contains(&key.as_str()) {
            assert_eq!(&ours[key], wanted, "{case}: {key}");
        }
    }
}

// CP-J-03, CP-J-05, CP-J-06
#[tokio::test]
async fn recorded_calls_are_answered_as_recorded() {
    let world = World::new();
    for recorded in recording()["calls"].as_array().unwrap() {
        let case = recorded["case"].as_str().unwrap();
        if NOT_APPLICABLE.contains(&case) {
            continue;
        }
        let result = world.create(call(&world, recorded)).await;
        if REFUSED_HERE.contains(&case) {
            assert_eq!(unauthenticated(result), NOT_YOURS, "{case}");
        } else if GRANTED_HERE.contains(&case) {
            assert!(result.is_ok(), "{case}");
        } else if let Some(error) = recorded.get("error") {
            let status = result.expect_err(case);
            let code = match status.code() {
                Code::Unauthenticated => "UNAUTHENTICATED",
                Code::InvalidArgument => "INVALID_ARGUMENT",
                other => panic!("{case}: {other:?}"),
            };
            assert_eq!(
                (code, status.message()),
                (error["code"].as_str().unwrap(), error["message"].as_str().unwrap()),
                "{case}"
            );
        } else {
            let (chain, ok) = (result.expect(case), &recorded["ok"]);
            assert_eq!(chain.len(), ok["cert_chain_elements"], "{case}");
            assert!(chain.iter().all(|element| element.ends_with('\n')), "{case}");
            assert_eq!(chain.last().unwrap(), &world.authority.root_bundle(), "{case}");
            // Key kinds are the caller's; serials are random, so a leading zero bit may be missing.
            assert_described(case, &ok["leaf"], &describe(&world, &chain[0]), &["public_key", "serial_bits"]);
            if let Some(root) = ok.get("root") {
                let left_out =
                    ["public_key", "serial_bits", "not_before_minus_now_s", "not_after_minus_now_s"];
                assert_described(case, root, &describe(&world, &chain[1]), &left_out);
            }
        }
    }
}

// Control-plane 1.3
#[test]
fn server_certificate_is_as_recorded_with_this_machines_names_besides() {
    let world = World::new();
    let recorded = &recording()["server_certificate_15012"]["leaf"];
    let shared = &world.authority.shared;
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf =
        leaf::Leaf::server(&shared.config.server_names, key, world.clock.wall(), Duration::from_secs(60));
    let ours = describe(&world, &leaf.sign_leaf(&shared.material()).unwrap().pem());
    let names = |description: &Value| -> Vec<String> {
        let extension =
            description["extensions"].as_array().unwrap().iter().find(|e| e["name"] == "subjectAltName");
        extension.unwrap()["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    let ours = names(&ours);
    for name in names(recorded) {
        assert!(ours.contains(&name), "{name}");
    }
    assert!(ours.contains(&"DNSName:localhost".to_owned()));
}
