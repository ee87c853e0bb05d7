//! What the dump, the metrics page and the kernel's tables show.

use super::probe::{Answer, Probe};
use super::*;

/// A tunnel to port 7000 that stays open.
fn tunnel(tls: Arc<rustls::ClientConfig>, headers: &[(&str, &str)]) -> Probe {
    let mut probe = Probe::connect(at("server", 15008), tls);
    let mut answer = Answer::default();
    let authority = at("server", 7000).to_string();
    let fields: Vec<_> = [(":method", "CONNECT"), (":authority", &authority)]
        .iter()
        .chain(headers)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    probe.request(1, &fields, false);
    probe.read(1, &mut answer, |answer| answer.status.is_some());
    assert_eq!(answer.status.as_deref(), Some("200"));
    probe
}

#[test]
fn tunnels_are_in_the_table_while_they_are_open() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let _echo = lab.echo("server", 7000);
            lab.replay("ST-19", async |_| {
                let tls = lab.tls("client");
                let open = inside(lab.pod("raw"), move || {
                    let forwarded = ("forwarded", "host=server.probes.svc.cluster.local");
                    [tunnel(Arc::clone(&tls), &[]), tunnel(tls, &[forwarded])]
                });
                let open = open.await;
                let entry = || {
                    let dump = serde_json::to_value(lab.node.list.dump()).unwrap();
                    let mut pod = dump["server"].clone();
                    for direction in ["inbound", "outbound"] {
                        pod["connections"][direction] = json!(lab.table("server", direction));
                    }
                    pod
                };
                let during = entry();
                drop(open);
                soon(|| lab.table("server", "inbound").is_empty()).await;
                json!({ "open": during, "after": entry()["connections"] })
            })
            .await;
            lab.assert_same();
        });
    });
}

#[test]
fn a_sample_has_the_recorded_labels_in_their_order() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let _echo = lab.echo("server", 7003);
            lab.replay("HD-28", async |recording| {
                let tls = lab.tls("peer");
                inside(lab.pod("peer"), move || {
                    let mut probe = Probe::connect(at("server", 15008), tls);
                    let mut answer = Answer::default();
                    probe.connect_to(1, &at("server", 7003).to_string());
                    probe.data(1, b"x", true);
                    probe.read(1, &mut answer, Answer::is_over);
                    assert_eq!(answer.data, b"x");
                    probe.close();
                })
                .await;
                // The first recorded sample is of an earlier connection, to a port of the service.
                let wanted = &recording.observed["opened_sample"];
                let page = lab.node.metrics.render();
                let names = |line: &str| line.rsplit_once(' ').map(|(name, _)| name.to_owned());
                let opened =
                    page.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total"));
                let opened: Vec<_> = opened.filter_map(names).collect();
                assert_eq!(json!(opened), json!([wanted[1]]));
                recording.observed.clone()
            })
            .await;
            lab.assert_same();
        });
    });
}

/// What listens in this thread's network: protocol, address, port.
pub(super) fn listening() -> Vec<String> {
    let mut all = std::collections::BTreeSet::new();
    for (file, protocol, state) in
        [("tcp", "tcp", "0A"), ("tcp6", "tcp", "0A"), ("udp", "udp", "07"), ("udp6", "udp", "07")]
    {
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (address, port) = fields[1].split_once(':').unwrap();
            if fields[3] == state {
                let port = u16::from_str_radix(port, 16).unwrap();
                let host = match address {
                    "0100007F" => "127.0.0.1",
                    "00000000000000000000000001000000" => "[::1]",
                    _ if address.bytes().all(|digit| digit == b'0') => "*",
                    other => other,
                };
                all.insert(format!("{protocol} {host}:{port}"));
            }
        }
    }
    all.into_iter().collect()
}

// The backlog is larger on purpose (W23).
#[test]
fn a_pod_has_the_recorded_sockets() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let wanted = Recording::load("AD-13").observed["listening"].clone();
            let wanted = wanted.as_array().unwrap().iter().map(|socket| {
                let (protocol, rest) = socket.as_str().unwrap().split_once(' ').unwrap();
                format!("{protocol} {}", rest.split_once(' ').unwrap().1)
            });
            assert_eq!(lab.pod("server").run(listening), wanted.collect::<Vec<_>>());
        });
    });
}

/// How much a peer may send when the application reads nothing.
const MOST: usize = 12 << 20;

// ST-10: a stream stops at its window, and the connection's others go on.
#[test]
fn an_application_that_does_not_read_stops_its_own_stream_only() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let listener = lab.listener("server", 7000);
            let _echo = lab.echo("server", 7001);
            let recorded = Recording::load("ST-10").observed;
            let tls = lab.tls("client");
            let told = inside(lab.pod("raw"), move || {
                let mut probe = Probe::connect(at("server", 15008), tls);
                probe.connect_to(1, &at("server", 7000).to_string());
                let mut answer = Answer::default();
                probe.read(1, &mut answer, |answer| answer.status.is_some());
                let _application = accept(&listener);
                let sent = probe.fill(1, MOST);
                let mut other = Answer::default();
                probe.connect_to(3, &at("server", 7001).to_string());
                probe.data(3, b"x", false);
                probe.read(3, &mut other, |answer| !answer.data.is_empty());
                assert_eq!(other.data, b"x");
                probe.settle(1, &mut answer);
                (sent, answer.rst)
            });
            let (sent, rst) = told.await;
            assert_eq!(json!(rst), recorded["reset"]);
            assert_eq!(json!(sent < MOST), recorded["blocked"]);
            // The stream's window and what the buffers behind it took; the application's side is one of `lo`, whose large
            // segments make the kernel's send buffer larger than the recorded one.
            let mebibytes = usize::try_from(recorded["sent_MiB"].as_u64().unwrap()).unwrap();
            assert!((4 << 20..=(mebibytes + 2) << 20).contains(&sent), "{sent}");
        });
    });
}
