//! Requests that a peer has not looked at (RFC 9113 section 8.7) go to another connection. The peers are scripts.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use culvert_hbone::{
    ClientConnection, ConnectError, ConnectRequest, ErrorCode, OpenError, Pool, PoolError, Settings, Tunnel,
    client,
};
use support::{Tls, eventually, pair, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a peer does with a request.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// RST_STREAM with this code, once that many octets have come ahead of the answer.
    Reset(ErrorCode, usize),
    /// GOAWAY that does not cover it, once that many octets have come ahead of the answer.
    GoAway(usize),
    /// 200, and its payload comes back.
    Echo,
    /// No streams are allowed any more, and this one is refused.
    Bar,
    /// The same, and GOAWAY follows when the peer knows.
    BarAndGo,
    /// Not an answer: from the start no streams are allowed, and GOAWAY follows when the peer knows.
    Shut,
}

/// Identifiers and values.
type Says = [(u16, u32)];

/// SETTINGS, and what is done with the requests of one connection.
type Script<'a> = (&'a Says, &'a [Way]);

/// A server that plays a script of its own on each connection, request by request, and closes at one more.
struct Scripted {
    address: SocketAddr,
    tls: Tls,
    scripts: RefCell<VecDeque<(Box<Says>, Vec<Way>)>>,
    dials: Cell<usize>,
    /// CONNECTs it has seen.
    requests: Cell<usize>,
    /// SETTINGS of its own that were acknowledged.
    acknowledged: Cell<usize>,
}

fn settings(says: &Says) -> Vec<u8> {
    let values = says.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &values.collect::<Vec<_>>())
}

fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

fn go_away() -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0; 8])
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Scripted {
    async fn start(says: &Says, scripts: &[&[Way]]) -> Rc<Self> {
        Self::start_with(&scripts.iter().map(|script| (says, *script)).collect::<Vec<_>>()).await
    }

    async fn start_with(scripts: &[Script<'_>]) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Rc::new(Self {
            address: listener.local_addr().unwrap(),
            tls: tls(),
            scripts: RefCell::new(
                scripts.iter().map(|(says, script)| ((*says).into(), script.to_vec())).collect(),
            ),
            dials: Cell::default(),
            requests: Cell::default(),
            acknowledged: Cell::default(),
        });
        let this = peer.clone();
        spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (says, script) = this.scripts.borrow_mut().pop_front().unwrap_or_default();
                spawn(this.clone().serve(tcp, says, script));
            }
        });
        peer
    }

    async fn serve(self: Rc<Self>, tcp: TcpStream, says: Box<Says>, script: Vec<Way>) -> io::Result<()> {
        let mut tls = tokio_rustls::TlsAcceptor::from(self.tls.server.clone()).accept(tcp).await?;
        let mut leaves = matches!(script[..], [Way::Shut]);
        let none = leaves.then_some(streams(0));
        tls.write_all(&settings(&says.iter().copied().chain(none).collect::<Vec<_>>())).await?;
        tls.read_exact(&mut [0; 24]).await?;
        let mut script = script.into_iter();
        // For so many octets on that stream, to say this.
        let mut waits: Option<(u32, usize, Vec<u8>)> = None;
        loop {
            let mut head = [0; 9];
            tls.read_exact(&mut head).await?;
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
            tls.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes([s0, s1, s2, s3]);
            self.requests.set(self.requests.get() + usize::from(kind == HEADERS));
            let mut after = |octets: usize, said: Vec<u8>| {
                if octets == 0 {
                    return said;
                }
                waits = Some((stream, octets, said));
                Vec::new()
            };
            let answer = match kind {
                SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
                SETTINGS => {
                    self.acknowledged.set(self.acknowledged.get() + 1);
                    if leaves { go_away() } else { Vec::new() }
                }
                HEADERS => match script.next() {
                    Some(Way::Reset(code, octets)) => after(octets, reset(stream, code)),
                    Some(Way::GoAway(octets)) => after(octets, go_away()),
                    // ":status: 200" of the static table.
                    Some(Way::Echo) => frame(HEADERS, END_HEADERS, stream, &[0x88]),
                    Some(way @ (Way::Bar | Way::BarAndGo)) => {
                        leaves = matches!(way, Way::BarAndGo);
                        [settings(&[streams(0)]), reset(stream, ErrorCode::REFUSED_STREAM)].concat()
                    }
                    Some(Way::Shut) | None => return tls.shutdown().await,
                },
                DATA => match &mut waits {
                    Some((refused, octets, said)) if *refused == stream => {
                        *octets = octets.saturating_sub(payload.len());
                        if *octets == 0 { std::mem::take(said) } else { Vec::new() }
                    }
                    _ => frame(DATA, flags, stream, &payload),
                },
                _ => continue,
            };
            tls.write_all(&answer).await?;
        }
    }

    fn dial(self: &Rc<Self>) -> impl Future<Output = Result<ClientConnection, ConnectError>> + use<> {
        let this = self.clone();
        async move { this.dial_with(&Settings::default()).await }
    }

    async fn dial_with(&self, settings: &Settings) -> Result<ClientConnection, ConnectError> {
        self.dials.set(self.dials.get() + 1);
        let tcp = TcpStream::connect(self.address).await.map_err(ConnectError::Io)?;
        client::connect(tcp, self.tls.client.clone(), settings).await
    }

    async fn open(self: &Rc<Self>, pool: &Pool<u32, ConnectError>) -> Result<Tunnel, OpenError> {
        match pool.open(&1, || self.dial(), request()).await {
            Ok((_, tunnel)) => Ok(tunnel),
            Err(PoolError::Open(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    /// For an application that has said something.
    async fn open_for(self: &Rc<Self>, pool: &Pool<u32, ConnectError>, said: &[u8]) -> (TcpStream, Opened) {
        let (mut app, proxy) = pair().await;
        app.write_all(said).await.unwrap();
        let opened = match pool.open_for(&1, || self.dial(), request(), &proxy).await {
            Ok((_, tunnel)) => Ok((tunnel, proxy)),
            Err(PoolError::Open(error)) => Err(error),
            Err(other) => panic!("{other}"),
        };
        (app, opened)
    }
}

type Opened = Result<(Tunnel, TcpStream), OpenError>;

fn request() -> ConnectRequest {
    ConnectRequest { authority: "10.0.0.1:80".into(), headers: vec![] }
}

fn pool() -> Pool<u32, ConnectError> {
    Pool::new(100, Duration::from_secs(300))
}

/// Ends a tunnel in order.
async fn finish(mut tunnel: Tunnel) {
    tunnel.shutdown().await.unwrap();
    tunnel.read_to_end(&mut Vec::new()).await.unwrap();
}

async fn echoes(tunnel: &mut Tunnel) {
    tunnel.write_all(b"hello").await.unwrap();
    let mut five = [0; 5];
    tunnel.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"hello");
}

const REFUSED: Way = Way::Reset(ErrorCode::REFUSED_STREAM, 0);

#[test]
fn what_a_peer_has_not_looked_at_goes_to_another_connection() {
    run(async {
        for way in [REFUSED, Way::GoAway(0)] {
            let peer = Scripted::start(&[], &[&[Way::Echo, way, Way::Echo], &[Way::Echo]]).await;
            let pool = pool();
            let mut first = peer.open(&pool).await.unwrap();
            let mut second = peer.open(&pool).await.unwrap();
            assert_eq!(peer.dials.get(), 2, "{way:?}");
            echoes(&mut second).await;
            // This GOAWAY does not cover it either.
            if !matches!(way, Way::GoAway(_)) {
                echoes(&mut first).await;
            }
        }
    });
}

#[test]
fn it_is_asked_once_more_and_not_for_ever() {
    run(async {
        for (ways, code) in [
            ([REFUSED, REFUSED], "hbone-stream-refused"),
            ([Way::GoAway(0), Way::GoAway(0)], "hbone-peer-going-away"),
        ] {
            let scripts = ways.map(|way| vec![way; 2]);
            let scripts = [&scripts[0][..], &scripts[1], &[Way::Echo]];
            let peer = Scripted::start(&[], &scripts).await;
            assert_eq!(peer.open(&pool()).await.unwrap_err().code(), code);
            assert_eq!(peer.dials.get(), 2);
        }
    });
}

// Data-path 4.4: what the peer may have acted on is never sent again.
#[test]
fn other_ends_are_not_asked_again() {
    run(async {
        let cancelled = Way::Reset(ErrorCode::CANCEL, 0);
        let peer = Scripted::start(&[], &[&[cancelled], &[Way::Echo]]).await;
        let error = peer.open(&pool()).await.unwrap_err();
        assert!(matches!(error, OpenError::Reset(ErrorCode::CANCEL)), "{error}");
        // Closed without an answer.
        let peer = Scripted::start(&[], &[&[], &[Way::Echo]]).await;
        let error = peer.open(&pool()).await.unwrap_err();
        assert!(matches!(error, OpenError::ConnectionEnded(_) | OpenError::Http2(_)), "{error}");
        assert_eq!(peer.dials.get(), 1);
    });
}

// What has just refused it may be the newest connection, which allows no streams any more: that is no other one.
#[test]
fn the_second_time_is_not_on_the_connection_that_has_refused() {
    run(async {
        let peer = Scripted::start(&[], &[&[Way::Echo, Way::BarAndGo], &[Way::Echo]]).await;
        let pool = pool();
        let _acquainted = peer.open(&pool).await.unwrap();
        echoes(&mut peer.open(&pool).await.unwrap()).await;
        assert_eq!((peer.dials.get(), peer.requests.get()), (2, 3));
    });
}

// 4.4: that the newest connection allows no streams says nothing of the others.
#[test]
fn who_waits_for_room_notices_it_on_an_older_connection() {
    run(async {
        let scripts: [Script; 2] = [(&[streams(1)], &[Way::Echo, Way::Echo]), (&[streams(0)], &[REFUSED])];
        let peer = Scripted::start_with(&scripts).await;
        let pool = Rc::new(pool());
        let first = peer.open(&pool).await.unwrap();
        let (this, shared) = (peer.clone(), pool.clone());
        let second = spawn(async move { this.open(&shared).await.unwrap() });
        eventually("the newest is known", || peer.acknowledged.get() == 2).await;
        finish(first).await;
        echoes(&mut second.await.unwrap()).await;
        assert_eq!(peer.dials.get(), 2);
    });
}

#[test]
fn who_waits_for_room_notices_it_on_a_connection_that_others_dial() {
    run(async {
        let peer = Scripted::start(&[], &[&[Way::Echo, Way::Bar], &[Way::Echo, Way::Echo]]).await;
        let (pool, waits) = (Rc::new(pool()), Rc::new(Notify::new()));
        let _acquainted = peer.open(&pool).await.unwrap();
        let (this, shared, waiting) = (peer.clone(), pool.clone(), waits.clone());
        let refused = spawn(async move {
            let dial = || {
                let (peer, waiting) = (this.clone(), waiting.clone());
                async move {
                    waiting.notified().await;
                    peer.dial().await
                }
            };
            shared.open(&1, dial, request()).await.unwrap().1
        });
        eventually("no streams are allowed", || peer.acknowledged.get() == 2).await;
        let (this, shared) = (peer.clone(), pool.clone());
        let second = spawn(async move {
            let mut waiting = pin!(this.open(&shared));
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("there is no room yet"),
                () = std::future::ready(()) => waits.notify_one(),
            }
            waiting.await.unwrap()
        });
        echoes(&mut second.await.unwrap()).await;
        echoes(&mut refused.await.unwrap()).await;
        assert_eq!(peer.dials.get(), 2);
    });
}

/// Takes payload ahead of its answers.
const EARLY: (u16, u32) = (0xf0ea, 1);

/// MAX_CONCURRENT_STREAMS.
fn streams(n: u32) -> (u16, u32) {
    (3, n)
}

/// INITIAL_WINDOW_SIZE.
fn window(octets: u32) -> (u16, u32) {
    (4, octets)
}

#[test]
fn what_an_application_has_said_is_said_again() {
    run(async {
        let refused = Way::Reset(ErrorCode::REFUSED_STREAM, 5);
        let peer = Scripted::start(&[EARLY], &[&[Way::Echo, refused], &[Way::Echo]]).await;
        let pool = pool();
        let _acquainted = peer.open(&pool).await.unwrap();
        let (mut app, opened) = peer.open_for(&pool, b"hello").await;
        assert_eq!(peer.dials.get(), 2);
        let (tunnel, proxy) = opened.unwrap();
        let _relay = spawn(culvert_hbone::relay(tunnel, proxy, &Default::default()));
        app.write_all(b" again").await.unwrap();
        app.shutdown().await.unwrap();
        let mut said = String::new();
        app.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hello again", "once, and in order");
    });
}

async fn says_hello(app: &mut TcpStream, opened: Opened) {
    let (tunnel, proxy) = opened.unwrap();
    let _relay = spawn(culvert_hbone::relay(tunnel, proxy, &Default::default()));
    app.shutdown().await.unwrap();
    let mut said = String::new();
    app.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello", "once");
}

// What is to be said again takes no place before the peer is known. Whoever finds it taken then goes on.
#[test]
fn what_is_said_again_looks_on_where_others_have_taken_the_room() {
    run(async {
        for (says, limit) in [(&[EARLY, streams(1)][..], 100), (&[EARLY], 1)] {
            let leaves = [Way::Echo, Way::GoAway(5)];
            let peer = Scripted::start(says, &[&leaves, &leaves, &[Way::Echo], &[Way::Echo]]).await;
            let pool = Rc::new(Pool::<u32, ConnectError>::new(limit, Duration::from_secs(300)));
            let acquainted = [peer.open(&pool).await.unwrap(), peer.open(&pool).await.unwrap()];
            assert_eq!(peer.dials.get(), 2);
            for tunnel in acquainted {
                finish(tunnel).await;
            }
            // Both share one dial: it waits until both have to go elsewhere.
            let dial = || {
                let (peer, pool) = (peer.clone(), pool.clone());
                async move {
                    if peer.dials.get() == 2 {
                        eventually("both connections are spent", || pool.connections() == 0).await;
                    }
                    peer.dial().await
                }
            };
            let one = || async {
                let (mut app, proxy) = pair().await;
                app.write_all(b"hello").await.unwrap();
                let (_, tunnel) = pool.open_for(&1, dial, request(), &proxy).await.unwrap();
                says_hello(&mut app, Ok((tunnel, proxy))).await;
            };
            tokio::join!(one(), one());
            assert_eq!((peer.dials.get(), peer.requests.get()), (4, 6));
        }
    });
}

// Nor does it wait for the first SETTINGS of a connection where these leave no room.
#[test]
fn what_is_said_again_waits_for_room_on_any_connection() {
    run(async {
        let scripts: [Script; 3] = [
            (&[EARLY, streams(1)], &[Way::Echo, Way::Echo]),
            (&[EARLY, streams(1)], &[Way::Echo, Way::GoAway(5)]),
            (&[EARLY, streams(0)], &[]),
        ];
        let peer = Scripted::start_with(&scripts).await;
        let pool = Rc::new(pool());
        let oldest = peer.open(&pool).await.unwrap();
        finish(peer.open(&pool).await.unwrap()).await;
        let (this, shared) = (peer.clone(), pool.clone());
        let opening = spawn(async move { this.open_for(&shared, b"hello").await });
        eventually("the newest is known", || peer.acknowledged.get() == 3).await;
        finish(oldest).await;
        let (mut app, opened) = opening.await.unwrap();
        says_hello(&mut app, opened).await;
        assert_eq!((peer.dials.get(), peer.requests.get()), (3, 4));
    });
}

// What goes away before anything was sent is not the second time; but nobody is asked for ever.
#[test]
fn a_connection_that_goes_away_unused_is_not_the_second_time() {
    run(async {
        for unused in [1, 2] {
            let refused = [Way::Echo, Way::Reset(ErrorCode::REFUSED_STREAM, 5)];
            let mut scripts = vec![&[Way::Shut][..]; unused];
            scripts.insert(0, &refused);
            scripts.push(&[Way::Echo]);
            let peer = Scripted::start(&[EARLY], &scripts).await;
            let pool = pool();
            let _acquainted = peer.open(&pool).await.unwrap();
            let (mut app, opened) = peer.open_for(&pool, b"hello").await;
            assert_eq!(peer.dials.get(), 3);
            if unused == 1 {
                says_hello(&mut app, opened).await;
            } else {
                assert!(matches!(opened, Err(OpenError::ConnectionEnded(_))), "{opened:?}");
                assert_eq!(peer.requests.get(), 2);
            }
        }
    });
}

// The time for the answer is one for all attempts, and runs on while another connection is dialled.
#[test]
fn a_request_that_goes_elsewhere_gets_no_time_of_its_own_there() {
    run(async {
        let refused = Way::Reset(ErrorCode::REFUSED_STREAM, 5);
        let peer = Scripted::start(&[EARLY], &[&[Way::Echo, refused], &[Way::Echo]]).await;
        let pool = pool();
        let dial = || {
            let peer = peer.clone();
            async move {
                if peer.dials.get() == 1 {
                    std::future::pending::<()>().await;
                }
                let answer_timeout = Duration::from_millis(300);
                peer.dial_with(&Settings { answer_timeout, ..Settings::default() }).await
            }
        };
        let _acquainted = pool.open(&1, dial, request()).await.unwrap();
        let (mut app, proxy) = pair().await;
        app.write_all(b"hello").await.unwrap();
        let opened = pool.open_for(&1, dial, request(), &proxy).await;
        assert!(matches!(opened, Err(PoolError::Open(OpenError::AnswerTimeout(_)))), "{opened:?}");
        assert_eq!(peer.requests.get(), 2);
    });
}

// More than is kept: nothing is sent that is not all of it.
#[test]
fn what_is_not_kept_is_not_said_again() {
    run(async {
        let refused = Way::Reset(ErrorCode::REFUSED_STREAM, 10_000);
        let peer = Scripted::start(&[EARLY], &[&[Way::Echo, refused], &[Way::Echo]]).await;
        let pool = pool();
        let _acquainted = peer.open(&pool).await.unwrap();
        let (mut app, opened) = peer.open_for(&pool, &[7; 10_000]).await;
        assert!(matches!(opened, Err(OpenError::Reset(ErrorCode::REFUSED_STREAM))));
        assert_eq!(peer.dials.get(), 1);
        let end = app.read(&mut [0]).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

// A connection that does not take payload ahead of the answer, or not so much, sees no request: the refusal stands.
#[test]
fn what_was_said_is_not_said_to_a_peer_that_does_not_take_it() {
    run(async {
        for says in [&[][..], &[EARLY, window(4)]] {
            let taking = Scripted::start(&[EARLY], &[&[Way::Echo, Way::GoAway(5)]]).await;
            let other = Scripted::start(says, &[&[Way::Echo]]).await;
            let pool = pool();
            let _acquainted = taking.open(&pool).await.unwrap();
            // The same name, another server behind it.
            let (mut app, opened) = other.open_for(&pool, b"hello").await;
            assert!(matches!(opened, Err(OpenError::NotProcessed(_))), "{opened:?}");
            let end = app.read(&mut [0]).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            // Nothing came ahead of this one.
            other.open(&pool).await.unwrap();
            assert_eq!((other.dials.get(), other.requests.get()), (1, 1));
        }
    });
}
