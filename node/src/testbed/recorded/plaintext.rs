//! Connections to a captured pod from outside the mesh.

use super::*;

/// Sends `bytes`, reads to the end.
fn say(to: SocketAddr, bytes: &[u8]) -> (Vec<u8>, &'static str) {
    let mut stream = connect(to).unwrap();
    // The end may be there first.
    let _ = stream.write_all(bytes);
    read_out(&mut stream)
}

#[test]
fn plaintext_is_passed_or_ended_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let echo = lab.echo("server", 7000);
            let raw = lab.pod("raw");
            lab.replay("PT-01", async |_| {
                let answer = inside(raw, || {
                    let mut stream = connect(at("server", 7000)).unwrap();
                    stream.write_all(b"hello").and_then(|()| stream.shutdown(Shutdown::Write)).unwrap();
                    read_out(&mut stream)
                });
                let (answer, end) = answer.await;
                json!({ "echo": text(&answer), "end": end, "source_seen_by_app": echo.callers() })
            })
            .await;
            lab.replay("PT-03", async |recording| {
                let (_, silent) = inside(raw, || say(at("server", 7999), b"")).await;
                let (_, with_data) = inside(raw, || say(at("server", 7999), b"x")).await;
                json!({
                    "silent": recording.end("/silent", silent),
                    "with_data": recording.end("/with_data", with_data),
                })
            })
            .await;
            lab.replay("PT-04", async |recording| {
                let mut told = json!({});
                for port in [15001, 15006, 15000, 15020, 15021, 15053, 15080] {
                    let (bytes, end) = inside(raw, move || say(at("server", port), b"x")).await;
                    let end = recording.end(&format!("/{port}/end"), end);
                    told[port.to_string()] = json!({ "bytes": bytes.len(), "end": end });
                }
                told
            })
            .await;
            lab.replay("PT-07", async |_| {
                let open = inside(raw, || {
                    let mut stream = connect(at("server", 7000)).unwrap();
                    stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).unwrap();
                    stream
                });
                let open = open.await;
                let parsed = |direction| {
                    let table = lab.table("server", direction);
                    table.iter().map(|entry| serde_json::from_str(entry).unwrap()).collect::<Vec<Value>>()
                };
                let told = json!({ "connections": { "inbound": parsed("inbound"), "outbound": parsed("outbound") } });
                drop(open);
                told
            })
            .await;
            lab.assert_same();
        });
    });
}

#[test]
fn half_closes_pass() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let listener = lab.listener("server", 7000);
            lab.replay("PT-05", async |_| {
                inside(lab.pod("raw"), move || half_closes(at("server", 7000), &listener)).await
            })
            .await;
            lab.assert_same();
        });
    });
}

/// Half-closes in both orders.
pub(super) fn half_closes(to: SocketAddr, listener: &TcpListener) -> Value {
    let mut client = connect(to).unwrap();
    client.write_all(b"req").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut app = accept(listener);
    let (request, end_of_request) = read_out(&mut app);
    app.write_all(b"late").unwrap();
    drop(app);
    let (late, end) = read_out(&mut client);

    let mut client = connect(to).unwrap();
    client.write_all(b"x").unwrap();
    let mut app = accept(listener);
    app.read_exact(&mut [0]).unwrap();
    app.shutdown(Shutdown::Write).unwrap();
    let (_, half_close) = read_out(&mut client);
    client.write_all(b"more").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (more, end_of_more) = read_out(&mut app);
    json!({
        "app_reads": [text(&request), end_of_request],
        "client_reads": [text(&late), end],
        "client_sees_half_close": half_close,
        "app_then_reads": [text(&more), end_of_more],
    })
}
