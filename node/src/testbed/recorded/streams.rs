//! Data and ends of tunnels.

use super::probe::{Answer, CODES, Probe};
use super::*;

fn state(answer: &Answer) -> Value {
    json!({
        "data": text(&answer.data),
        "len": answer.data.len(),
        "end": answer.end_stream.map_or(json!(false), |end| json!(end)),
        "rst": answer.rst,
        "connection": null,
        "goaway": !answer.goaways.is_empty(),
    })
}

fn seen((bytes, end): (Vec<u8>, &'static str)) -> Value {
    json!({ "bytes": bytes.len(), "text": text(&bytes), "end": end })
}

/// A tunnel to port 7000 on stream 1.
fn tunnel(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> (Probe, Answer, TcpStream) {
    let mut probe = Probe::connect(at("server", 15008), tls);
    let mut answer = Answer::default();
    probe.connect_to(1, &at("server", 7000).to_string());
    probe.read(1, &mut answer, |answer| answer.status.is_some());
    (probe, answer, accept(listener))
}

type Leave = fn(TcpStream);
type Script = fn(Arc<rustls::ClientConfig>, &TcpListener) -> Value;

fn the_peer_ends_first(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> Value {
    let (mut probe, mut answer, mut app) = tunnel(tls, listener);
    probe.data(1, b"req", true);
    let request = seen(read_out(&mut app));
    app.write_all(b"late").unwrap();
    probe.read(1, &mut answer, |answer| answer.data.len() == 4);
    let between = state(&answer);
    app.write_all(b"r").unwrap();
    drop(app);
    probe.read(1, &mut answer, Answer::is_over);
    probe.close();
    json!({ "app": request, "between": between, "peer": state(&answer) })
}

fn the_application_ends_first(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> Value {
    let (mut probe, mut answer, mut app) = tunnel(tls, listener);
    app.write_all(b"bye").unwrap();
    probe.read(1, &mut answer, |answer| answer.data.len() == 3);
    app.shutdown(Shutdown::Write).unwrap();
    probe.read(1, &mut answer, Answer::is_over);
    let half = state(&answer);
    probe.data(1, b"more", false);
    let mut more = [0; 4];
    app.read_exact(&mut more).unwrap();
    probe.data(1, b"", true);
    let end = seen(read_out(&mut app));
    drop(app);
    probe.settle(1, &mut answer);
    probe.close();
    json!({
        "peer_after_half_close": half,
        "data_frames": [[3, 0], [0, 1]],
        "app_then_read": text(&more),
        "app_end": end,
        "peer": state(&answer),
    })
}

fn the_application_resets(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> Value {
    let (mut probe, mut answer, mut app) = tunnel(tls, listener);
    app.write_all(b"abc").unwrap();
    probe.read(1, &mut answer, |answer| answer.data.len() == 3);
    reset(app);
    probe.read(1, &mut answer, Answer::is_over);
    let after_rst = state(&answer);
    probe.data(1, b"x", false);
    probe.settle(1, &mut answer);
    probe.close();
    json!({ "after_rst": after_rst, "after_peer_sent": state(&answer) })
}

fn the_peer_resets(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> Value {
    let mut told = json!({});
    for code in [0u32, 1, 2, 5, 7, 8, 11] {
        let (mut probe, mut answer, mut app) = tunnel(Arc::clone(&tls), listener);
        probe.data(1, b"abc", false);
        app.read_exact(&mut [0; 3]).unwrap();
        probe.reset(1, code);
        let (more, end) = read_out(&mut app);
        let name = CODES[usize::try_from(code).unwrap()];
        told[name] = json!({ "app_reads": end, "bytes": 3 + more.len(), "app_writes": "ok" });
        drop(app);
        probe.settle(1, &mut answer);
        probe.close();
    }
    told
}

fn the_application_leaves_at_once(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> Value {
    let ways: [(&str, Leave); 2] = [("close", drop), ("rst", reset)];
    let mut told = json!({});
    for (name, leave) in ways {
        let (mut probe, mut answer, app) = tunnel(Arc::clone(&tls), listener);
        leave(app);
        probe.read(1, &mut answer, Answer::is_over);
        told[name] = answer.told();
        probe.data(1, b"", true);
        probe.settle(1, &mut answer);
        probe.close();
    }
    told
}

fn data_comes_before_the_answer(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> Value {
    let mut probe = Probe::connect(at("server", 15008), tls);
    let mut answer = Answer::default();
    probe.connect_to(1, &at("server", 7000).to_string());
    probe.data(1, b"early", true);
    let mut app = accept(listener);
    let (early, end) = read_out(&mut app);
    app.write_all(b"ok").unwrap();
    drop(app);
    probe.read(1, &mut answer, Answer::is_over);
    probe.close();
    json!({ "app": [text(&early), end], "peer": answer.told(), "data": text(&answer.data) })
}

fn the_application_sees_its_client(tls: Arc<rustls::ClientConfig>, listener: &TcpListener) -> Value {
    let (mut probe, mut answer, app) = tunnel(tls, listener);
    let (client, own) = (app.peer_addr().unwrap(), app.local_addr().unwrap());
    drop(app);
    probe.data(1, b"", true);
    probe.settle(1, &mut answer);
    let differs = probe.local_port() != client.port();
    probe.close();
    json!({
        "peer_address": named(&client.ip().to_string()),
        "port_differs": differs,
        "local": named(&own.ip().to_string()),
    })
}

#[test]
fn tunnels_carry_data_and_ends_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let listener = Arc::new(lab.listener("server", 7000));
            let scripts: [(&str, Script); 4] = [
                ("ST-01", the_peer_ends_first),
                ("ST-02", the_application_ends_first),
                ("ST-15", data_comes_before_the_answer),
                ("ST-16", the_application_sees_its_client),
            ];
            for (id, script) in scripts {
                lab.replay(id, async |_| {
                    let (tls, listener) = (lab.tls("client"), Arc::clone(&listener));
                    inside(lab.pod("raw"), move || script(tls, &listener)).await
                })
                .await;
            }
            lab.assert_same();
        });
    });
}

// ST-03, ST-04 and the second half of ST-08 on purpose otherwise (W10, W92): what was cut never looks complete.
#[test]
fn what_was_cut_is_cut_on_the_other_side_too() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let listener = Arc::new(lab.listener("server", 7000));
            let told = async |script: Script| {
                let (tls, listener) = (lab.tls("client"), Arc::clone(&listener));
                inside(lab.pod("raw"), move || script(tls, &listener)).await
            };
            let reset = told(the_application_resets).await;
            assert_eq!(reset["after_rst"]["data"], "abc");
            assert_eq!(reset["after_rst"]["end"], false);
            assert_eq!(reset["after_rst"]["rst"], "CONNECT_ERROR");
            lab.node
                .line(&["error\taccess\tconnection complete", "bytes_sent=3 bytes_recv=0", "code="])
                .await;
            for (code, seen) in told(the_peer_resets).await.as_object().unwrap() {
                assert_eq!((&seen["app_reads"], &seen["bytes"]), (&json!("rst"), &json!(3)), "{code}");
            }
            let left = told(the_application_leaves_at_once).await;
            let recorded = Recording::load("ST-08").observed;
            assert_eq!(left["close"], recorded["close"]);
            assert_eq!(
                (&left["rst"]["status"], &left["rst"]["rst"]),
                (&json!("200"), &json!("CONNECT_ERROR"))
            );
        });
    });
}

// LC-03, A-DI-03: a peer whose tunnel is open hears that no more streams are taken, and the tunnel goes on.
#[test]
fn a_peer_is_told_of_the_drain() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let listener = lab.listener("server", 7000);
            let tls = lab.tls("client");
            let open = inside(lab.pod("raw"), move || tunnel(tls, &listener)).await;
            lab.node.drain();
            let goaways = inside(lab.pod("raw"), move || {
                let (mut probe, mut answer, mut app) = open;
                probe.read(1, &mut answer, |answer| answer.goaways.len() == 2);
                probe.data(1, b"more", true);
                assert_eq!(read_out(&mut app), (b"more".to_vec(), "fin"));
                drop(app);
                probe.read(1, &mut answer, Answer::is_over);
                assert_eq!(answer.end_stream, Some("empty-data"));
                answer.goaways
            });
            let recorded = Recording::load("LC-03").observed;
            let frames = recorded["tunnel_connection"].as_array().unwrap().iter();
            let wanted: Vec<_> = frames.filter_map(|frame| frame["last"].as_u64()).collect();
            assert_eq!(goaways.await.into_iter().map(u64::from).collect::<Vec<_>>(), wanted);
        });
    });
}
