//! What the answers and the ends of an HBONE server come to, for the application and on the wire.

use super::peers::{Peer, Way, hello, honest};
use super::probe::{Answer, CODES, HEADERS, Probe};
use super::*;

async fn lab(sandbox: &mut Sandbox) -> (Lab, Peer) {
    // One traffic thread: one pool.
    let lab = Lab::with(sandbox, &[("ZTUNNEL_WORKER_THREADS", "1")]).await;
    let peer = Peer::start(&lab, honest(&lab));
    (lab, peer)
}

async fn ask(lab: &Lab) -> (Vec<u8>, &'static str) {
    inside(lab.pod("client"), || hello(at("peer", 7000))).await
}

fn closed(end: &str) -> &str {
    if end == "open" { end } else { "closed" }
}

#[test]
fn a_status_ends_the_connection_and_is_not_asked_again() {
    sandboxed(|mut sandbox| {
        run(async {
            let (lab, peer) = lab(&mut sandbox).await;
            lab.replay("CL-13", async |recording| {
                let mut told = json!({});
                for status in recording.observed.as_object().unwrap().keys() {
                    peer.answers(Way::Status(status.parse().unwrap()));
                    let before = peer.n_requests();
                    let (answer, end) = ask(&lab).await;
                    assert_eq!(answer, b"");
                    let requests = peer.n_requests() - before;
                    told[status] = json!({ "app_end": closed(end), "under_1s": true, "requests": requests });
                }
                told
            })
            .await;
            lab.assert_same();
        });
    });
}

#[test]
fn the_body_of_a_refusal_is_not_waited_for() {
    sandboxed(|mut sandbox| {
        run(async {
            let (lab, peer) = lab(&mut sandbox).await;
            lab.replay("CL-14", async |_| {
                peer.answers(Way::Body);
                let (answer, end) = ask(&lab).await;
                let frames = peer.frames(1).await;
                let (_, second) = ask(&lab).await;
                json!({
                    "app": {
                        "bytes": answer.len(), "text": text(&answer), "end": closed(end), "under_1s": true,
                    },
                    "stream_frames": frames,
                    "second": closed(second),
                    "tcp_connections": peer.seen(|_| ()).len(),
                })
            })
            .await;
            lab.assert_same();
        });
    });
}

// On purpose otherwise: what was refused unprocessed (RFC 9113 section 8.7) is asked once more, on another connection.
#[test]
fn a_reset_instead_of_an_answer_is_not_asked_again_unless_it_is_a_refusal() {
    sandboxed(|mut sandbox| {
        run(async {
            let (lab, peer) = lab(&mut sandbox).await;
            lab.replay("CL-17", async |recording| {
                let (mut told, mut further) = (json!({}), 0);
                // One more request for each of the two, on a connection more.
                for name in recording.observed.as_object().unwrap().keys() {
                    let again = usize::from(name == "REFUSED_STREAM");
                    further = further.max(again);
                    let code = CODES.iter().position(|code| code == name).unwrap();
                    peer.answers(Way::Refuse(u32::try_from(code).unwrap()));
                    let before = peer.n_requests();
                    let ((_, end), (_, second)) = (ask(&lab).await, ask(&lab).await);
                    told[name] = json!({
                        "app_end": closed(end),
                        "second": closed(second),
                        "requests": peer.n_requests() - before - 2 * again,
                        "tcp_connections": peer.seen(|_| ()).len() - further,
                    });
                }
                told
            })
            .await;
            lab.assert_same();
        });
    });
}

// CL-19. On purpose otherwise (W93): a request whose application has gone is taken back at once.
#[test]
fn nothing_is_sent_before_the_answer() {
    sandboxed(|mut sandbox| {
        run(async {
            let (lab, peer) = lab(&mut sandbox).await;
            peer.answers(Way::Silence);
            let stream = inside(lab.pod("client"), || {
                let mut stream = connect(at("peer", 7000)).unwrap();
                stream.write_all(b"hello").unwrap();
                stream
            });
            let stream = stream.await;
            until("the request", || peer.n_requests() == 1).await;
            reset(stream);
            let frames = peer.frames(1).await;
            assert_eq!(json!(frames), json!([{ "type": "RST_STREAM", "stream": 1, "code": "CANCEL" }]));
        });
    });
}

/// Opens a tunnel, sends a byte and leaves; the frames of the stream.
async fn leaves(lab: &Lab, peer: &Peer, way: Way, leave: fn(&TcpStream), n_frames: usize) -> Vec<Value> {
    peer.answers(way);
    let n = peer.n_requests();
    let stream = inside(lab.pod("client"), || {
        let mut stream = connect(at("peer", 7000)).unwrap();
        stream.write_all(b"a").unwrap();
        stream
    });
    let stream = stream.await;
    soon(|| peer.n_requests() > n).await;
    assert_eq!(peer.frames(1).await.len(), 1);
    leave(&stream);
    if n_frames > 2 {
        drop(stream);
        return peer.frames(n_frames).await;
    }
    let frames = peer.frames(n_frames).await;
    drop(stream);
    frames
}

// In the last case on purpose otherwise (W10): what was cut does not look complete.
#[test]
fn the_applications_ends_are_written_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let (lab, peer) = lab(&mut sandbox).await;
            let recorded = Recording::load("CL-27").observed;
            // Streams are numbered as there, one connection each.
            let as_first = |mut frames: Vec<Value>| {
                frames.iter_mut().for_each(|frame| frame["stream"] = json!(1));
                json!(frames)
            };
            let half_close = |stream: &TcpStream| stream.shutdown(Shutdown::Write).unwrap();
            let seen = leaves(&lab, &peer, Way::Take, half_close, 2).await;
            assert_eq!(as_first(seen), recorded["half_close"]);
            let both = |stream: &TcpStream| stream.shutdown(Shutdown::Both).unwrap();
            let seen = leaves(&lab, &peer, Way::Take, both, 2).await;
            assert_eq!(as_first(seen), recorded["close"]);
            let seen = leaves(&lab, &peer, Way::Late, half_close, 3).await;
            assert_eq!(as_first(seen), recorded["close_then_server_writes"]);
            let cut = |stream: &TcpStream| net::socket::rst_on_close(stream).unwrap();
            let seen = leaves(&lab, &peer, Way::Take, cut, 3).await;
            let wanted = json!([
                { "type": "DATA", "stream": 1, "len": 1 },
                { "type": "RST_STREAM", "stream": 1, "code": "CONNECT_ERROR" },
            ]);
            assert_eq!(as_first(seen), wanted);
        });
    });
}

type Stage = fn(TcpStream, Arc<rustls::ServerConfig>) -> io::Result<()>;

/// As far as the stage before, then FIN.
fn leave(tcp: &TcpStream) -> io::Result<()> {
    tcp.shutdown(Shutdown::Write)?;
    let mut rest = tcp;
    rest.read_to_end(&mut Vec::new()).map(|_| ())
}

/// 200 and "abc", then the socket.
fn after_data(tcp: TcpStream, tls: Arc<rustls::ServerConfig>) -> io::Result<TcpStream> {
    let copy = tcp.try_clone()?;
    let mut probe = Probe::accept(tcp, tls)?;
    while let Some((kind, _, stream, _)) = probe.next() {
        if kind == HEADERS {
            probe.answer(stream, 200, false);
            probe.data(stream, b"abc", false);
            // Once they have arrived.
            probe.settle(stream, &mut Answer::default());
            break;
        }
    }
    Ok(copy)
}

// The last two on purpose otherwise (W10, W92): what was cut ends in a reset.
#[test]
fn a_server_that_vanishes_is_dialled_once() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::with(&mut sandbox, &[("ZTUNNEL_WORKER_THREADS", "1")]).await;
            let (listener, tls) = (Arc::new(lab.listener("peer", 15008)), honest(&lab));
            let recorded = Recording::load("CL-20").observed;
            let stages: [(&str, Stage); 7] = [
                ("fin_at_accept", |tcp, _| leave(&tcp)),
                ("rst_at_accept", |tcp, _| net::socket::rst_on_close(&tcp)),
                ("fin_after_hello", |mut tcp, _| tcp.read(&mut [0; 4096]).and_then(|_| leave(&tcp))),
                ("fin_after_tls", |mut tcp, tls| {
                    let mut tls = rustls::ServerConnection::new(tls).unwrap();
                    while tls.is_handshaking() {
                        tls.complete_io(&mut tcp)?;
                    }
                    leave(&tcp)
                }),
                ("fin_after_settings", |tcp, tls| {
                    let copy = tcp.try_clone()?;
                    let _probe = Probe::accept(tcp, tls)?;
                    leave(&copy)
                }),
                ("fin_after_data", |tcp, tls| leave(&after_data(tcp, tls)?)),
                ("rst_after_data", |tcp, tls| net::socket::rst_on_close(&after_data(tcp, tls)?)),
            ];
            for (name, stage) in stages {
                let (listener, tls) = (Arc::clone(&listener), Arc::clone(&tls));
                let dials = std::thread::spawn(move || {
                    let (tcp, _) = listener.accept().unwrap();
                    let _ = stage(tcp, tls);
                });
                let (answer, end) = ask(&lab).await;
                until("the server's part", || dials.is_finished()).await;
                let cut = name.ends_with("data");
                let told = json!({
                    "app": text(&answer),
                    "end": if cut && end == "rst" { "fin" } else { closed(end) },
                    // A second one would be counted at the next stage.
                    "dials": 1,
                });
                lab.compare(name, "observed", &recorded[name], &told);
            }
            let not_dialled = inside(lab.pod("peer"), move || {
                listener.set_nonblocking(true).unwrap();
                listener.accept().is_err()
            });
            assert!(not_dialled.await);
            lab.assert_same();
        });
    });
}
