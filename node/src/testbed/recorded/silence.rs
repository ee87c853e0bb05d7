//! Those who answer nothing at all: what is said after ten seconds.

use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::probe::{Answer, Probe};
use super::*;

/// A port that swallows every SYN: its listener's queue is full, and nobody takes anything out of it.
struct Deaf {
    _listener: tokio::net::TcpListener,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    fn listen(host: &Host, port: u16) -> Self {
        host.run(|| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new([0, 0, 0, 0].into(), port)).unwrap();
            let listener = socket.listen(0).unwrap();
            let inside = SocketAddr::new([127, 0, 0, 1].into(), port);
            let brief = Duration::from_millis(300);
            let queue = std::iter::from_fn(|| TcpStream::connect_timeout(&inside, brief).ok()).collect();
            Self { _listener: listener, _queue: queue }
        })
    }
}

/// The time of one dial, and of no second one.
fn assert_one_dial(since: Instant) {
    let took = since.elapsed();
    assert!((Duration::from_millis(9900)..Duration::from_secs(19)).contains(&took), "{took:?}");
}

#[test]
fn an_application_that_does_not_accept_is_given_up() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let _deaf = Deaf::listen(lab.pod("server"), 7997);
            let started = Instant::now();
            lab.replay("CN-49", async |_| {
                let tls = lab.tls("client");
                let request = inside(lab.pod("raw"), move || {
                    let mut probe = Probe::connect(at("server", 15008), tls);
                    let mut answer = Answer::default();
                    probe.connect_to(1, &at("server", 7997).to_string());
                    probe.read(1, &mut answer, Answer::is_over);
                    probe.settle(1, &mut answer);
                    probe.close();
                    answer.told()
                });
                request.await
            })
            .await;
            assert_one_dial(started);
            lab.assert_same();
        });
    });
}

#[test]
fn a_tunnel_that_nobody_accepts_is_given_up() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let _deaf = Deaf::listen(lab.pod("frozen"), 15008);
            let started = Instant::now();
            lab.replay("OB-13", async |recording| {
                outbound::hello(&lab, recording, at("frozen", 7000), None).await
            })
            .await;
            assert_one_dial(started);
            lab.assert_same();
        });
    });
}

// On purpose otherwise (W25): there the three failed after 10, 20 and 30 s.
#[test]
fn those_who_wait_for_one_dial_share_its_failure() {
    sandboxed(|mut sandbox| {
        run(async {
            // One traffic thread: one pool.
            let lab = Lab::with(&mut sandbox, &[("ZTUNNEL_WORKER_THREADS", "1")]).await;
            let _deaf = Deaf::listen(lab.pod("frozen"), 15008);
            let started = Instant::now();
            lab.replay("CL-31", async |recording| {
                let three = inside(lab.pod("client"), || {
                    let open = [(); 3].map(|()| connect(at("frozen", 7000)).unwrap());
                    open.map(|mut stream| read_out(&mut stream)).map(|(answer, _)| answer.len())
                });
                assert_eq!(three.await, [0; 3]);
                recording.observed.clone()
            })
            .await;
            assert_one_dial(started);
            lab.assert_same();
        });
    });
}
