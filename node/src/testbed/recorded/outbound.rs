//! Connections of an application in a captured pod.

use super::plaintext::half_closes;
use super::*;

/// "hello", half-close, read to the end.
pub(super) async fn hello(lab: &Lab, recording: &Recording, to: SocketAddr, echo: Option<&Echo>) -> Value {
    let (answer, end) = inside(lab.pod("client"), move || {
        let mut stream = connect(to).unwrap();
        // A refusal may be there before it is written.
        let _ = stream.write_all(b"hello").and_then(|()| stream.shutdown(Shutdown::Write));
        read_out(&mut stream)
    })
    .await;
    let mut told = json!({ "connect": "ok", "echo": answer == b"hello", "end": recording.end("/end", end) });
    if let Some(echo) = echo {
        told["source_seen_by_app"] = json!(echo.callers());
    }
    told
}

#[test]
fn applications_reach_what_they_reached() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let vip = |name: &str| SocketAddr::new(vip(name).parse().unwrap(), 80);
            let cases = [
                ("OB-01", at("remote", 7000), Some("remote")),
                ("OB-02", at("server", 7000), Some("server")),
                ("OB-03", at("raw", 7000), Some("raw")),
                ("OB-06", vip("remote"), Some("remote")),
                ("OB-07", at("vip-empty", 80), None),
                ("OB-09", at("plainpod", 7000), Some("plainpod")),
                ("OB-12", vip("client"), Some("client")),
                ("OB-15", at("remote", 7999), None),
                ("OB-16", at("server", 15008), None),
                ("OB-17", address("127.0.0.1:15001"), None),
            ];
            let apps = ["remote", "server", "raw", "plainpod", "client"];
            let echoes: BTreeMap<_, _> = apps.iter().map(|name| (*name, lab.echo(name, 7000))).collect();
            for (id, to, app) in cases {
                let echo = app.map(|name| &echoes[name]);
                lab.replay(id, async |recording| hello(&lab, recording, to, echo).await).await;
            }
            let deny = "policies:\n- {name: ob-deny, namespace: probes, scope: WorkloadSelector, \
                        action: Deny, dryRun: false, rules: [[]]}\n";
            lab.world(deny, "probes/ob-deny");
            lab.replay("OB-27", async |recording| hello(&lab, recording, at("server", 7000), None).await)
                .await;
            lab.assert_same();
        });
    });
}

#[test]
fn half_closes_pass_two_proxies() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let listener = lab.listener("remote", 7000);
            lab.replay("OB-22", async |_| {
                inside(lab.pod("client"), move || half_closes(at("remote", 7000), &listener)).await
            })
            .await;
            lab.assert_same();
        });
    });
}

#[test]
fn the_table_of_connections_is_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let _echoes = ["remote", "plainpod", "raw"].map(|name| lab.echo(name, 7000));
            lab.replay("OB-26", async |_| {
                let open = inside(lab.pod("client"), || {
                    let service = SocketAddr::new(vip("remote").parse().unwrap(), 80);
                    [service, at("plainpod", 7000), at("raw", 7000)].map(|to| {
                        let mut stream = connect(to).unwrap();
                        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).unwrap();
                        stream
                    })
                });
                let open = open.await;
                let table = lab.table("client", "outbound");
                drop(open);
                soon(|| lab.table("client", "outbound").is_empty()).await;
                json!({ "open": table, "after": lab.table("client", "outbound") })
            })
            .await;
            lab.assert_same();
        });
    });
}
