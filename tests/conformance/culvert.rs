//! Our node: a mesh of one captured pod, judged from a pod outside the mesh, over the network as a peer would.

use crate::credentials::Authority;
use crate::process::{Process, culvert, folder, judge, not_run};

const MESH: &str = include_str!("mesh.yaml");
const ECHO: &str = "10.244.1.10";

fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/conform/sa/{account}")
}

#[test]
#[ignore = "minutes: a stage of its own in .ci/run"]
fn culvert_conforms() {
    let own = folder("culvert");
    std::fs::create_dir(own.join("mesh")).unwrap();
    std::fs::write(own.join("mesh/mesh.yaml"), MESH).unwrap();
    let mesh = own.join("mesh");
    let (demo, facts) =
        Process::start(culvert(&["demo", "--only-mesh", "--json", "--config"]).arg(&mesh), |said| {
            serde_json::from_str::<serde_json::Value>(said).ok()
        });
    let state = std::path::Path::new(facts["folder"].as_str().unwrap()).join("control");
    let authority = Authority::read(&state.join("ca-cert.pem"), &state.join("ca-key.pem"), &own);
    let inside = |pod: &str| {
        let mut command = culvert(&["demo", "exec", "--demo", &demo.id(), pod, "--"]);
        command.arg(env!("CARGO_BIN_EXE_culvert")).arg("conformance");
        command
    };
    let (_destination, _) = Process::start(
        inside("echo").args(["destination", "--listen", "0.0.0.0:7100", "--silent", "0.0.0.0:7300"]),
        |said| said.contains("listening").then_some(()),
    );

    let mut suite = inside("outside");
    suite.args(["--target", &format!("{ECHO}:15008")]);
    suite.arg("--identity").args(authority.issue("client", &id("client")));
    suite.arg("--denied").args(authority.issue("denied", &id("denied")));
    suite
        .arg("--wrong-domain")
        .args(authority.issue("foreign", "spiffe://elsewhere.local/ns/conform/sa/client"));
    suite.arg("--expired").args(authority.issue_expired("expired", &id("client")));
    suite.arg("--no-spiffe").args(authority.issue_nameless("nameless"));
    suite.args(["--ca", &authority.root(), "--server-id", &id("echo")]);
    for (flag, authority) in [
        ("--destination", format!("{ECHO}:7100")),
        ("--refusing", format!("{ECHO}:7999")),
        ("--forbidden", format!("{ECHO}:7200")),
        ("--silent", format!("{ECHO}:7300")),
        ("--foreign", "10.244.1.20:7000".to_owned()),
        ("--hostname", "echo.conform.svc.cluster.local:80".to_owned()),
    ] {
        suite.args([flag, &authority]);
    }
    let document = judge(&mut suite);
    // The demo joins its pods over IPv4.
    assert_eq!(not_run(&document), ["HB-AUTH-01"]);
    std::fs::remove_dir_all(own).unwrap();
}
