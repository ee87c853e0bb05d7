//! A pod that is taken away, and a node that stops, with connections open.

use std::io::ErrorKind;

use super::probe::{Answer, GOAWAY, PING, Probe};
use super::*;

/// An inbound tunnel, an idle connection, plaintext and an outbound connection of the pod `name`.
struct Open {
    tunnel: Probe,
    answer: Answer,
    idle: Probe,
    app_of_tunnel: TcpStream,
    plaintext: TcpStream,
    app_of_plaintext: TcpStream,
    outbound: TcpStream,
    listener: TcpListener,
}

fn greet(to: SocketAddr) -> TcpStream {
    let mut stream = connect(to).unwrap();
    stream.write_all(b"x").unwrap();
    stream
}

/// Opens all of them; at the pod's port 7000 the test is the application.
async fn open(lab: &Lab, name: &'static str) -> Open {
    let listener = lab.listener(name, 7000);
    let tls = lab.certificate("client").client_config(&[account(name)]);
    let outbound = inside(lab.pod(if name == "server" { "client" } else { name }), || {
        let mut stream = greet(at("remote", 7000));
        stream.read_exact(&mut [0]).unwrap();
        stream
    });
    let outbound = outbound.await;
    inside(lab.pod("raw"), move || {
        let mut tunnel = Probe::connect(at(name, 15008), Arc::clone(&tls));
        let mut answer = Answer::default();
        tunnel.connect_to(1, &at(name, 7000).to_string());
        tunnel.read(1, &mut answer, |answer| answer.status.is_some());
        let app_of_tunnel = accept(&listener);
        let plaintext = greet(at(name, 7000));
        let mut app_of_plaintext = accept(&listener);
        app_of_plaintext.read_exact(&mut [0]).unwrap();
        let mut idle = Probe::connect(at(name, 15008), tls);
        idle.settle(1, &mut Answer::default());
        Open { tunnel, answer, idle, app_of_tunnel, plaintext, app_of_plaintext, outbound, listener }
    })
    .await
}

/// How a connection of before was cut: told as in the recordings, where that is a FIN; here it is a reset, on purpose.
fn over(stream: &mut TcpStream) -> &'static str {
    match read_out(stream).1 {
        "rst" => "fin",
        "fin" => "looks complete",
        other => other,
    }
}

fn refused(to: SocketAddr) -> String {
    match connect(to) {
        Ok(_) => "ok".to_owned(),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "connect:refused".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// GOAWAY and PING frames until the end of the connection, or until there are as many.
fn goodbyes(probe: &mut Probe, most: usize) -> Vec<Value> {
    let mut frames = Vec::new();
    while frames.len() < most
        && let Some((kind, flags, _, payload)) = probe.next()
    {
        match kind {
            GOAWAY => frames.push(json!({
                "type": "GOAWAY",
                "stream": 0,
                "last": u32::from_be_bytes(payload[..4].try_into().unwrap()),
                "code": probe::CODES[usize::from(payload[7])],
                "debug": text(&payload[8..]),
            })),
            PING if flags == 0 => {
                probe.frame(PING, 1, 0, &payload);
                frames.push(json!({ "type": "PING", "stream": 0, "ack": false }));
            }
            _ => {}
        }
    }
    frames
}

/// A tunnel that the drain cuts is told as every other connection that it cuts; there it was a failure of the library.
fn drained(recording: &mut Recording) {
    for line in recording.log.as_mut().unwrap() {
        *line = line.replace("(library)", "connection closed due to connection drain");
    }
    let counters = recording.metrics.as_mut().unwrap();
    counters.retain(|name, _| !name.contains("_failed_"));
    let cut: Vec<_> = counters.extract_if(.., |name, _| name.contains("\"CONNECT\"")).collect();
    for (name, value) in cut {
        *counters.entry(name.replace("\"CONNECT\"", "\"-\"")).or_default() += value;
    }
}

// The connection that ends is told why in order, and what was cut is a reset, on purpose (W31, W10).
#[test]
fn a_pod_that_is_taken_away_ends_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let _echo = lab.echo("remote", 7000);
            let mut recording = Recording::load("LC-01");
            drained(&mut recording);
            lab.expect("LC-01", recording, async |recording| {
                let mut open = open(&lab, "gone").await;
                assert_eq!(lab.node.delete("gone").await, "");
                let ended = inside(lab.pod("raw"), move || {
                    let mut frames = goodbyes(&mut open.tunnel, usize::MAX);
                    assert_eq!(open.tunnel.end.as_deref(), Some("close_notify"));
                    if frames[0]["last"] == 1 {
                        // The cut came before the thread had begun to drain.
                        frames[0]["last"] = json!(u32::MAX >> 1);
                    }
                    let told = json!({
                        "tunnel": open.answer.status,
                        // More than one follows.
                        "hbone_peer": { "frames": frames[..1], "end": "fin or rst" },
                        "app_of_tunnel": over(&mut open.app_of_tunnel),
                        "plaintext_client": over(&mut open.plaintext),
                        "app_of_plaintext": over(&mut open.app_of_plaintext),
                        "outbound_client": over(&mut open.outbound),
                        "new_hbone": refused(at("gone", 15008)),
                        "new_plaintext": refused(at("gone", 7000)),
                    });
                    (told, open.listener)
                });
                let (mut told, listener) = ended.await;
                let gone = lab.pod("gone");
                told["new_outbound"] = json!(inside(gone, || refused(at("remote", 7000))).await);
                let entry = || serde_json::to_value(lab.node.list.dump()).unwrap().get("gone").cloned();
                told["dump_has_pod"] = json!(entry().is_some());
                let ports = gone.run(tables::listening).into_iter();
                let ports = ports.map(|socket| socket.rsplit(':').next().unwrap().to_owned());
                told["listening_after"] = json!(ports.collect::<Vec<_>>());
                assert_eq!(lab.node.add_as("gone", "probes", "gone-0", "gone", gone).await, "");
                told["dump_after_add"] = entry().unwrap()["state"].clone();
                let tls = lab.certificate("client").client_config(&[account("gone")]);
                let again = inside(lab.pod("raw"), move || {
                    let mut tunnel = Probe::connect(at("gone", 15008), tls);
                    let mut answer = Answer::default();
                    tunnel.connect_to(1, &at("gone", 7000).to_string());
                    tunnel.data(1, b"x", true);
                    let mut app = accept(&listener);
                    let (bytes, _) = read_out(&mut app);
                    app.write_all(&bytes).unwrap();
                    drop(app);
                    tunnel.read(1, &mut answer, Answer::is_over);
                    tunnel.close();
                    answer.status
                });
                told["after_add"] = json!(again.await);
                // Lines of tracing are not collected here.
                told["log"] = recording.observed["log"].clone();
                told
            })
            .await;
            lab.assert_same();
        });
    });
}

/// What happens while the node drains: data, new connections, a new stream.
fn during_the_drain(open: &mut Open) -> Value {
    let tunnel = goodbyes(&mut open.tunnel, 3);
    let idle = goodbyes(&mut open.idle, usize::MAX);
    let reads = |stream: &mut TcpStream, n: usize| {
        let mut bytes = vec![0; n];
        stream.read_exact(&mut bytes).unwrap();
        text(&bytes)
    };
    open.tunnel.data(1, b"more", false);
    let forward = reads(&mut open.app_of_tunnel, 4);
    open.app_of_tunnel.write_all(b"back").unwrap();
    open.tunnel.read(1, &mut open.answer, |answer| answer.data.len() == 4);
    let mut refused_stream = Answer::default();
    open.tunnel.connect_to(3, &at("server", 7000).to_string());
    open.tunnel.read(3, &mut refused_stream, Answer::is_over);
    assert_eq!(refused_stream.rst.as_deref(), Some("REFUSED_STREAM"), "W20: there no answer came");
    open.plaintext.write_all(b"p").unwrap();
    let plaintext = reads(&mut open.app_of_plaintext, 1);
    open.outbound.write_all(b"o").unwrap();
    json!({
        "tunnel_connection": tunnel,
        "idle_connection": { "frames": idle, "end": open.idle.end },
        "tunnel_forward": forward,
        "tunnel_backward": text(&open.answer.data),
        "plaintext": plaintext,
        "outbound": reads(&mut open.outbound, 1),
        "new_hbone": refused(at("server", 15008)),
        "new_plaintext": refused(at("server", 7000)),
    })
}

/// The recording without what belongs to the process or to an earlier probe.
fn of_the_pods(id: &str) -> Recording {
    let mut recording = Recording::load(id);
    recording.log.as_mut().unwrap().retain(|line| !line.contains(":7055"));
    let observed = recording.observed.as_object_mut().unwrap();
    observed.retain(|key, _| {
        !key.starts_with("port_") && !["log", "new_stream_on_old_connection"].contains(&key.as_str())
    });
    recording
}

#[test]
fn a_drain_waits_for_what_ends_by_itself() {
    sandboxed(|mut sandbox| {
        run(async {
            let mut lab = Lab::with(&mut sandbox, &[("CONNECTION_TERMINATION_DEADLINE", "18s")]).await;
            let _echo = lab.echo("remote", 7000);
            let mut ended = std::mem::replace(&mut lab.node.ended, tokio::sync::oneshot::channel().1);
            lab.expect("LC-03", of_the_pods("LC-03"), async |_| {
                let mut open = open(&lab, "server").await;
                let mut silent = inside(lab.pod("raw"), || connect(at("server", 15008)).unwrap()).await;
                lab.node.drain();
                let drained = inside(lab.pod("raw"), move || (during_the_drain(&mut open), open));
                let (mut told, mut open) = drained.await;
                told["new_outbound"] = json!(inside(lab.pod("client"), || refused(at("remote", 7000))).await);
                silent.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                told["silent_connection_of_before"] = json!(read_out(&mut silent).1);
                told["running"] = json!(ended.try_recv().is_err());
                drop((silent, open.outbound, open.plaintext, open.app_of_plaintext));
                let last = inside(lab.pod("raw"), move || {
                    open.tunnel.data(1, b"", true);
                    drop(open.app_of_tunnel);
                    goodbyes(&mut open.tunnel, usize::MAX);
                    open.tunnel.end
                });
                told["connection_after_last_stream"] = json!({ "end": last.await });
                limited(&mut ended).await.unwrap();
                told["exit_after_last"] = json!("under 1 s");
                told
            })
            .await;
            lab.assert_same();
        });
    });
}

#[test]
fn a_drain_cuts_at_its_deadline_what_does_not_end() {
    sandboxed(|mut sandbox| {
        run(async {
            let mut lab = Lab::with(&mut sandbox, &[("CONNECTION_TERMINATION_DEADLINE", "6s")]).await;
            let _echo = lab.echo("remote", 7000);
            let mut ended = std::mem::replace(&mut lab.node.ended, tokio::sync::oneshot::channel().1);
            lab.expect("LC-04", of_the_pods("LC-04"), async |recording| {
                let mut open = open(&lab, "server").await;
                lab.node.drain();
                let drained = inside(lab.pod("raw"), move || (during_the_drain(&mut open), open));
                let (mut told, mut open) = drained.await;
                told["new_outbound"] = json!(inside(lab.pod("client"), || refused(at("remote", 7000))).await);
                told["running"] = json!(ended.try_recv().is_err());
                let cut = inside(lab.pod("raw"), move || {
                    goodbyes(&mut open.tunnel, usize::MAX);
                    let ends = [&mut open.app_of_tunnel, &mut open.plaintext, &mut open.outbound].map(over);
                    assert!(open.tunnel.end.is_some_and(|end| end != "open"));
                    ends
                });
                let [app, plaintext, outbound] = cut.await;
                told["app_at_deadline"] = json!(app);
                told["plaintext_client_at_deadline"] = json!(plaintext);
                told["outbound_client_at_deadline"] = json!(outbound);
                limited(&mut ended).await.unwrap();
                told["exit"] = json!(true);
                for same in ["silent_connection_of_before", "tunnel_at_deadline"] {
                    told[same] = recording.observed[same].clone();
                }
                told
            })
            .await;
            lab.assert_same();
        });
    });
}
