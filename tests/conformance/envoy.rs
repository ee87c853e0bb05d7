//! Envoy's CONNECT listener, set up as Istio's gateways and waypoints are: mutual TLS 1.3, the trust domain checked,
//! the destination taken from `:authority`.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::credentials::Authority;
use crate::process::{LIMIT, Process, culvert, folder, judge};

const CONFIG: &str = include_str!("envoy.yaml");

fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/conform/sa/{account}")
}

#[test]
#[ignore = "minutes, and needs an Envoy: a stage of its own in .ci/run"]
fn envoy_deviates_as_known() {
    let program = std::env::var_os("CULVERT_ENVOY").expect("CULVERT_ENVOY names an Envoy binary");
    let own = folder("envoy");
    let authority = Authority::new(&own);
    let [certificate, key] = authority.issue("server", &id("server"));
    let admin = own.join("admin-address");
    let config = CONFIG
        .replace("@CERTIFICATE@", &certificate)
        .replace("@KEY@", &key)
        .replace("@ROOT@", &authority.root());
    std::fs::write(own.join("envoy.yaml"), config).unwrap();
    let mut command = std::process::Command::new(program);
    command.arg("--config-path").arg(own.join("envoy.yaml")).arg("--admin-address-path").arg(&admin);
    command.args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]);
    let mut envoy = Process::start_quiet(&mut command);
    let target = listener(&mut envoy, &admin);

    let listen = |address: &str| {
        Process::start(&mut culvert(&["conformance", "destination", "--listen", address]), |said| {
            said.trim().strip_prefix("listening on ").map(str::to_owned)
        })
    };
    let (_v4, destination) = listen("127.0.0.1:0");
    let (_v6, v6) = listen("[::1]:0");
    // A port that was free a moment ago, and that nobody is told of.
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();

    let mut suite = culvert(&["conformance", "--level", "must", "--all", "--target", &target]);
    suite.arg("--identity").args(authority.issue("client", &id("client")));
    suite
        .arg("--wrong-domain")
        .args(authority.issue("foreign", "spiffe://elsewhere.local/ns/conform/sa/client"));
    suite.arg("--expired").args(authority.issue_expired("expired", &id("client")));
    suite.arg("--no-spiffe").args(authority.issue_nameless("nameless"));
    suite.args(["--ca", &authority.root(), "--server-id", &id("server")]);
    suite.args(["--destination", &destination, "--v6", &v6, "--refusing", &refusing]);
    suite
        .arg("--expectations")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/expectations/envoy.yaml"));
    judge(&mut suite);
    std::fs::remove_dir_all(own).unwrap();
}

/// The listener's address, once Envoy serves it.
fn listener(envoy: &mut Process, admin: &std::path::Path) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = std::fs::read_to_string(admin).ok().and_then(|address| ask(address.trim()));
        if let Some(address) = found {
            return address;
        }
        assert!(!envoy.ended(), "Envoy has ended");
        assert!(Instant::now() < deadline, "Envoy does not listen after {LIMIT:?}");
        // Envoy writes a file and opens a port: looking again is the only notice there is.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `GET /listeners` of the admin interface: `hbone::127.0.0.1:PORT`.
fn ask(admin: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut socket = TcpStream::connect(admin).ok()?;
    socket.write_all(b"GET /listeners HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.trim().strip_prefix("hbone::")).map(str::to_owned)
}
