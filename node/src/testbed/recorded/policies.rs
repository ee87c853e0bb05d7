//! Policies of the server's pod: what HBONE with two accounts and plaintext come to.

use super::probe::{Answer, Probe};
use super::*;

const PORT_7000: &str = "[[[{destinationPorts: [7000]}]]]";
const ANONYMOUS: &str = "[[[{notPrincipals: [{Presence: []}]}]]]";

fn policy(key: &str, action: &str, scope: &str, rules: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap();
    format!(
        "policies:\n- {{name: {name}, namespace: {namespace}, scope: {scope}, action: {action}, dryRun: false, \
         rules: {rules}}}\n"
    )
}

/// One byte there and back.
async fn hbone(lab: &Lab, name: &str, authority: &str) -> String {
    let (tls, authority) = (lab.tls(name), authority.to_owned());
    let asked = inside(lab.pod("raw"), move || {
        let mut probe = Probe::connect(at("server", 15008), tls);
        let mut answer = Answer::default();
        probe.connect_to(1, &authority);
        probe.data(1, b"x", true);
        probe.read(1, &mut answer, Answer::is_over);
        probe.close();
        answer.status.unwrap()
    });
    asked.await
}

async fn plaintext(lab: &Lab, port: u16, bytes: &'static [u8]) -> (bool, &'static str) {
    inside(lab.pod("raw"), move || {
        let mut stream = connect(at("server", port)).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = vec![0; bytes.len()];
        match stream.read_exact(&mut answer) {
            Ok(()) => (answer == bytes, "open"),
            Err(_) => (false, "closed"),
        }
    })
    .await
}

#[test]
fn policies_decide_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let _echoes = [7000, 7001].map(|port| lab.echo("server", port));
            let by_ip = format!("[[[{{sourceIps: [{}/32]}}]]]", role("raw"));
            let strict_port = "[[[{destinationPorts: [7000]}], [{notPrincipals: [{Presence: []}]}]]]";
            let principal = "[[[{principals: [{Exact: cluster.local/ns/probes/sa/client}]}]]]";
            let written = "[[[{principals: [{Exact: \"spiffe://cluster.local/ns/probes/sa/client\"}]}]]]";
            for (id, key, action, rules) in [
                ("PO-01", "probes/allow", "Allow", principal),
                ("PO-02", "probes/allow", "Allow", written),
                ("PO-04", "probes/allow", "Allow", "[]"),
                ("PO-06", "probes/deny-7000", "Deny", PORT_7000),
                ("PO-08", "probes/deny-anonymous", "Deny", ANONYMOUS),
                ("PO-10", "probes/deny-ip", "Deny", &*by_ip),
                ("PO-15", "istio-system/istio_converted_static_strict", "Deny", ANONYMOUS),
                ("PO-16", "probes/converted_peer_authentication_pa-port", "Deny", strict_port),
            ] {
                lab.world(&policy(key, action, "WorkloadSelector", rules), key);
                let authority = match id {
                    "PO-06" => "server.probes.svc.cluster.local:80".to_owned(),
                    _ => at("server", 7000).to_string(),
                };
                lab.replay(id, async |recording| {
                    let client = hbone(&lab, "client", &authority).await;
                    let peer = hbone(&lab, "peer", &authority).await;
                    let (echo, end) = plaintext(&lab, 7000, b"x").await;
                    let plain = json!({ "echo": echo, "end": end });
                    let mut told = json!({ "hbone_client": client, "hbone_peer": peer, "plaintext": plain });
                    if recording.observed.get("plaintext_7001").is_some() {
                        let (echo, end) = plaintext(&lab, 7001, b"hello").await;
                        told["plaintext_7001"] = json!({ "echo": echo, "end": end });
                    }
                    told
                })
                .await;
            }
            lab.replay("PO-18", async |_| {
                lab.world(&policy("probes/gone", "Allow", "WorkloadSelector", "[]"), "probes/gone");
                let tls = lab.tls("client");
                let ask = |mut probe: Probe, stream: u32| {
                    inside(lab.pod("raw"), move || {
                        let mut answer = Answer::default();
                        probe.connect_to(stream, &at("server", 7000).to_string());
                        probe.read(stream, &mut answer, |answer| answer.status.is_some());
                        (probe, answer.status)
                    })
                };
                let probe = inside(lab.pod("raw"), || Probe::connect(at("server", 15008), tls)).await;
                let (probe, during) = ask(probe, 1).await;
                lab.world("", "");
                let (probe, after) = ask(probe, 3).await;
                probe.close();
                json!({ "during": during, "after": after })
            })
            .await;
            lab.assert_same();
        });
    });
}

/// Two tunnels and one plaintext connection of the peer, and what the applications have of them.
struct Open {
    probe: Probe,
    denied: Answer,
    plain: TcpStream,
    app_of_stream: TcpStream,
    app_of_plain: TcpStream,
}

fn open(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> Open {
    let mut probe = Probe::connect(at("server", 15008), tls);
    let mut denied = Answer::default();
    probe.connect_to(1, &at("server", 7000).to_string());
    probe.data(1, b"abc", false);
    probe.read(1, &mut denied, |answer| answer.status.is_some());
    let mut app_of_stream = accept(listener);
    app_of_stream.read_exact(&mut [0; 3]).unwrap();
    let mut plain = connect(at("server", 7000)).unwrap();
    plain.write_all(b"x").unwrap();
    let mut app_of_plain = accept(listener);
    app_of_plain.read_exact(&mut [0]).unwrap();
    probe.connect_to(3, &at("server", 7001).to_string());
    probe.read(3, &mut Answer::default(), |answer| answer.status.is_some());
    Open { probe, denied, plain, app_of_stream, app_of_plain }
}

fn see_the_cut(mut open: Open) -> Value {
    open.probe.read(1, &mut open.denied, Answer::is_over);
    let app_of_stream = read_out(&mut open.app_of_stream).1;
    let plain = read_out(&mut open.plain).1;
    let app_of_plain = read_out(&mut open.app_of_plain).1;
    let mut still = Answer::default();
    open.probe.data(3, b"still", false);
    open.probe.read(3, &mut still, |answer| answer.data.len() >= 5);
    let mut new = Answer::default();
    open.probe.connect_to(5, &at("server", 7000).to_string());
    open.probe.read(5, &mut new, |answer| answer.status.is_some());
    open.probe.close();
    json!({
        "stream_7000": open.denied.told(),
        "app_of_stream_7000": app_of_stream,
        "plaintext_client": plain,
        "app_of_plaintext": app_of_plain,
        "stream_7001_echo": text(&still.data),
        "new_stream_7000": new.status,
    })
}

#[test]
fn changes_cut_what_they_cut() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let listener = Arc::new(lab.listener("server", 7000));
            let _echo = lab.echo("server", 7001);
            let change = |port: u16| {
                let rules = format!("[[[{{destinationPorts: [{port}]}}]]]");
                policy("probes/cut-chg", "Deny", "WorkloadSelector", &rules)
            };
            for (id, named, before, after) in [
                ("PO-20", "", String::new(), policy("probes/cut-ns", "Deny", "Namespace", PORT_7000)),
                ("PO-21", "probes/cut-chg", change(9), change(7000)),
            ] {
                lab.world(&before, named);
                let mut recording = Recording::load(id);
                // What was cut must not look complete: a reset where there it was FIN (W10).
                for app in ["app_of_stream_7000", "plaintext_client", "app_of_plaintext"] {
                    recording.observed[app] = json!("rst");
                }
                lab.expect(id, recording, async |_| {
                    let (tls, listener) = (lab.tls("client"), Arc::clone(&listener));
                    let open = inside(lab.pod("raw"), move || open(tls, &listener)).await;
                    lab.world(&after, named);
                    inside(lab.pod("raw"), move || see_the_cut(open)).await
                })
                .await;
            }
            lab.assert_same();
        });
    });
}
