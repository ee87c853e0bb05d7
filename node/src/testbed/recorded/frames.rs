//! Frames that a client may send or get on an open tunnel.

use super::probe::{Answer, Probe};
use super::*;

#[test]
fn trailers_end_the_clients_side() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let _echo = lab.echo("server", 7000);
            let recorded = Recording::load("H2-18").observed;
            let tls = lab.tls("client");
            let told = inside(lab.pod("raw"), move || {
                let mut probe = Probe::connect(at("server", 15008), tls);
                let mut answer = Answer::default();
                probe.connect_to(1, &at("server", 7000).to_string());
                probe.read(1, &mut answer, |answer| answer.status.is_some());
                let status = answer.status.take();
                probe.request(1, &[("x-a".to_owned(), "b".to_owned())], true);
                probe.read(1, &mut answer, Answer::is_over);
                let mut next = Answer::default();
                probe.connect_to(3, &at("server", 7000).to_string());
                probe.read(3, &mut next, |answer| answer.status.is_some());
                let end = probe.end.take();
                probe.close();
                assert_eq!(answer.rst, None);
                let after = answer.end_stream.filter(|end| *end == "empty-data");
                let after = after.map(|_| json!({ "type": "DATA", "stream": 1, "len": 0 }));
                json!({ "tunnel": status, "after": [after], "end": end, "next_stream": next.status })
            });
            assert_eq!(told.await, recorded);
            lab.node.line(&["info\taccess\tconnection complete", "bytes_sent=0 bytes_recv=0"]).await;
        });
    });
}

const MUCH: usize = 6 << 20;

// Frames do not start small, on purpose.
#[test]
fn data_frames_are_no_larger_than_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let listener = lab.listener("server", 7000);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    std::thread::spawn(move || {
                        stream.write_all(&vec![7; MUCH]).and_then(|()| stream.shutdown(Shutdown::Write))?;
                        stream.read_to_end(&mut Vec::new())
                    });
                }
            });
            lab.replay("H2-32", async |_| {
                let mut told = json!({});
                for size in [16384, 1_048_576] {
                    let tls = lab.tls("client");
                    let got = inside(lab.pod("raw"), move || {
                        let mut probe = Probe::connect(at("server", 15008), tls);
                        probe.announce_frame_size(size);
                        let mut answer = Answer::default();
                        probe.connect_to(1, &at("server", 7000).to_string());
                        probe.read(1, &mut answer, Answer::is_over);
                        probe.data(1, b"", true);
                        probe.settle(1, &mut answer);
                        let largest = probe.largest_data;
                        probe.close();
                        (answer, largest)
                    });
                    let (answer, largest) = got.await;
                    assert!(answer.data.iter().all(|byte| *byte == 7));
                    told[format!("max_frame_{size}")] = json!({
                        "bytes": answer.data.len(),
                        "largest_over_16384": largest > 16384,
                        "first_le_1024": true,
                        "end": answer.end_stream,
                    });
                }
                told
            })
            .await;
            lab.assert_same();
        });
    });
}
