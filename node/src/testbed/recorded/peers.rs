//! The other end of the tunnel played by the test: what a captured application's connection becomes on the wire, and
//! what each answer comes to.

use super::probe::{self, DATA, END_STREAM, GOAWAY, HEADERS, PING, Probe, RST_STREAM, SETTINGS, Server};
use super::*;

/// How requests are answered.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// 200, and data comes back.
    Echo,
    /// 200, and data goes nowhere.
    Take,
    /// 200, and what is sent after the client's end comes too late.
    Late,
    /// This status and END_STREAM.
    Status(u16),
    /// 503 with a body and no end.
    Body,
    /// RST_STREAM with this code.
    Refuse(u32),
    /// Not at all.
    Silence,
}

/// What one TCP connection brought.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) requests: Vec<(u32, Vec<(String, String)>)>,
    /// DATA, RST_STREAM and GOAWAY, as the recordings write them.
    frames: Vec<Value>,
    pub(super) end: Option<String>,
    tcp: Option<TcpStream>,
}

/// A pod's HBONE server.
pub(super) struct Peer {
    way: Arc<Mutex<Way>>,
    tls: Arc<Mutex<Arc<rustls::ServerConfig>>>,
    seen: Arc<Mutex<Vec<Arc<Mutex<Seen>>>>>,
}

impl Peer {
    pub(super) fn start(lab: &Lab, tls: Arc<rustls::ServerConfig>) -> Self {
        let listener = lab.listener("peer", 15008);
        let (way, tls) = (Arc::new(Mutex::new(Way::Echo)), Arc::new(Mutex::new(tls)));
        let seen = Arc::<Mutex<Vec<Arc<Mutex<Seen>>>>>::default();
        let peer = Self { way: Arc::clone(&way), tls: Arc::clone(&tls), seen: Arc::clone(&seen) };
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let (tcp, tls, way) = (tcp.unwrap(), Arc::clone(&tls.lock()), Arc::clone(&way));
                let one = Arc::<Mutex<Seen>>::default();
                one.lock().tcp = tcp.try_clone().ok();
                seen.lock().push(Arc::clone(&one));
                std::thread::spawn(move || match Probe::accept(tcp, tls) {
                    Ok(probe) => serve(probe, &way, &one),
                    Err(error) => one.lock().end = Some(probe::alert(&error)),
                });
            }
        });
        peer
    }

    pub(super) fn answers(&self, way: Way) {
        *self.way.lock() = way;
    }

    /// Who it is for new connections.
    pub(super) fn serves(&self, tls: Arc<rustls::ServerConfig>) {
        *self.tls.lock() = tls;
    }

    /// Ends its side of every connection, and waits for the other side's end.
    pub(super) async fn hang_up(&self) {
        self.seen(|seen| seen.tcp.as_ref().map(|tcp| tcp.shutdown(Shutdown::Write)));
        let over = || self.seen(|seen| seen.end.is_some()).into_iter().all(|ended| ended);
        until("the end of the connections", over).await;
    }

    /// From each connection, in their order.
    pub(super) fn seen<T>(&self, part: impl Fn(&Seen) -> T) -> Vec<T> {
        self.seen.lock().iter().map(|seen| part(&seen.lock())).collect()
    }

    pub(super) fn n_requests(&self) -> usize {
        self.seen(|seen| seen.requests.len()).into_iter().sum()
    }

    /// All frames about the last request's stream, once there are as many.
    pub(super) async fn frames(&self, n: usize) -> Vec<Value> {
        let frames = || {
            let all: Vec<Vec<Value>> = self.seen(|seen| {
                let stream = seen.requests.last().map(|(stream, _)| *stream);
                seen.frames.iter().filter(|frame| frame["stream"] == json!(stream)).cloned().collect()
            });
            all.into_iter().next_back().unwrap_or_default()
        };
        soon(|| frames().len() >= n).await;
        frames()
    }
}

fn serve(mut probe: Probe<Server>, way: &Mutex<Way>, seen: &Mutex<Seen>) {
    let mut echoes = std::collections::BTreeSet::new();
    while let Some((kind, flags, stream, payload)) = probe.next() {
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let name = |code: u32| probe::CODES.get(usize::try_from(code).unwrap()).copied();
        match kind {
            SETTINGS if flags == 0 => probe.frame(SETTINGS, 1, 0, &[]),
            PING if flags == 0 => probe.frame(PING, 1, 0, &payload),
            HEADERS => {
                seen.lock().requests.push((stream, probe::fields(&payload)));
                match *way.lock() {
                    Way::Echo => {
                        echoes.insert(stream);
                        probe.answer(stream, 200, false);
                    }
                    Way::Take | Way::Late => probe.answer(stream, 200, false),
                    Way::Status(status) => probe.answer(stream, status, true),
                    Way::Body => {
                        probe.answer(stream, 503, false);
                        probe.frame(DATA, 0, stream, b"body");
                    }
                    Way::Refuse(code) => probe.reset(stream, code),
                    Way::Silence => {}
                }
            }
            DATA => {
                let mut frame = json!({ "type": "DATA", "stream": stream, "len": payload.len() });
                if flags & END_STREAM != 0 {
                    frame["end_stream"] = json!(true);
                }
                seen.lock().frames.push(frame);
                if echoes.contains(&stream) {
                    probe.frame(DATA, flags & END_STREAM, stream, &payload);
                } else if flags & END_STREAM != 0 && matches!(*way.lock(), Way::Late) {
                    probe.frame(DATA, 0, stream, b"late");
                }
            }
            RST_STREAM => seen
                .lock()
                .frames
                .push(json!({ "type": "RST_STREAM", "stream": stream, "code": name(code(0)) })),
            GOAWAY => seen.lock().frames.push(json!({
                "type": "GOAWAY", "stream": 0, "last": code(0), "code": name(code(4)), "debug": "",
            })),
            _ => {}
        }
    }
    seen.lock().end = probe.end;
}

/// "hello" and half-close of a captured application.
pub(super) fn hello(to: SocketAddr) -> (Vec<u8>, &'static str) {
    let mut stream = connect(to).unwrap();
    let _ = stream.write_all(b"hello").and_then(|()| stream.shutdown(Shutdown::Write));
    read_out(&mut stream)
}

async fn lab(sandbox: &mut Sandbox) -> Lab {
    // One traffic thread: one pool.
    Lab::with(sandbox, &[("ZTUNNEL_WORKER_THREADS", "1")]).await
}

pub(super) fn honest(lab: &Lab) -> Arc<rustls::ServerConfig> {
    lab.certificate("peer").server_config()
}

/// A request as the recordings mask it.
fn masked_request(fields: &[(String, String)]) -> Value {
    let field = |(name, value): &(String, String)| {
        let mut value = named(value);
        if name == "forwarded" {
            let (before, rest) = value.split_once(">:").unwrap();
            let (port, after) = rest.split_once('"').unwrap();
            assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{port}");
            value = format!("{before}>:E\"{after}");
        }
        if name == "traceparent" {
            let lengths: Vec<_> = value.split('-').map(str::len).collect();
            assert_eq!(lengths, [2, 32, 16, 2], "{value}");
            value = "00-TRACE-SPAN-00".to_owned();
        }
        json!([name, value])
    };
    fields.iter().map(field).collect()
}

#[test]
fn requests_are_written_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = lab(&mut sandbox).await;
            let peer = Peer::start(&lab, honest(&lab));
            let service = SocketAddr::new(vip("peer").parse().unwrap(), 80);
            lab.replay("CL-02", async |_| {
                let (answer, end) = inside(lab.pod("client"), move || hello(service)).await;
                let requests = peer.seen(|seen| masked_request(&seen.requests[0].1));
                json!({
                    "requests": requests,
                    "app": { "bytes": answer.len(), "text": text(&answer), "end": end, "under_1s": true },
                })
            })
            .await;
            lab.assert_same();
        });
    });
}

#[test]
fn requests_share_connections_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = lab(&mut sandbox).await;
            let peer = Peer::start(&lab, honest(&lab));
            lab.replay("CL-03", async |_| {
                let mut answers = Vec::new();
                for _ in 0..5 {
                    let (answer, _) = inside(lab.pod("client"), || hello(at("peer", 7000))).await;
                    answers.push(text(&answer));
                }
                let streams = peer.seen(|seen| seen.requests.iter().map(|r| r.0).collect::<Vec<_>>());
                json!({ "echo": answers, "tcp_connections": streams.len(), "streams": streams[0] })
            })
            .await;
            lab.assert_same();
        });
    });
}

/// So many tunnels at once, the first alone; then one after all have ended.
async fn many(lab: &Lab, peer: &Peer, n: usize) -> Value {
    let open = inside(lab.pod("client"), move || {
        let greet = |mut stream: TcpStream| {
            stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).map(|()| stream).unwrap()
        };
        let mut open = vec![greet(connect(at("peer", 7000)).unwrap())];
        let more: Vec<_> = (1..n).map(|_| connect(at("peer", 7000)).unwrap()).collect();
        open.extend(more.into_iter().map(greet));
        open
    });
    let open = open.await;
    let streams = peer.seen(|seen| seen.requests.iter().map(|r| r.0).collect::<Vec<_>>());
    let echoes = open.len();
    inside(lab.pod("client"), move || {
        for mut stream in open {
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_out(&mut stream), (vec![], "fin"));
        }
    })
    .await;
    let (last, _) = inside(lab.pod("client"), || hello(at("peer", 7000))).await;
    let lengths: Vec<_> = streams.iter().map(Vec::len).collect();
    let ascending = |ids: &[u32]| ids.is_sorted() && ids.iter().all(|id| id % 2 == 1);
    json!({
        "requests": lengths.iter().sum::<usize>(),
        "tcp_connections": streams.len(),
        "streams_per_connection": lengths,
        "echoes": echoes,
        "ids_odd_ascending": streams.iter().all(|ids| ascending(ids)),
        "one_more_uses_new_connection": peer.seen(|_| ()).len() > streams.len(),
        "one_more": text(&last),
    })
}

async fn shared(sandbox: &mut Sandbox, id: &str, n: usize) {
    let lab = lab(sandbox).await;
    let peer = Peer::start(&lab, honest(&lab));
    lab.replay(id, async |recording| {
        let mut told = many(&lab, &peer, n).await;
        let still_open = peer.seen(|seen| seen.end.is_none()).into_iter().all(|open| open);
        assert!(still_open, "an idle connection is kept, also one that was full (W9)");
        told["server_sees_after_all_closed"] = recording.observed["server_sees_after_all_closed"].clone();
        told
    })
    .await;
    lab.assert_same();
}

#[test]
fn ten_tunnels_share_a_connection() {
    sandboxed(|mut sandbox| run(async { shared(&mut sandbox, "CL-04", 10).await }));
}

// On purpose otherwise (W9): there the connection that had been full ended with its last tunnel.
#[test]
fn the_hundred_and_first_tunnel_gets_a_connection_of_its_own() {
    sandboxed(|mut sandbox| run(async { shared(&mut sandbox, "CL-05", 150).await }));
}
