//! Requests that a peer has not looked at (RFC 9113 section 8.7) go to another connection. The peers are scripts.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use culvert_hbone::{
    ClientConnection, ConnectError, ConnectRequest, ErrorCode, OpenError, Pool, PoolError, Settings, Tunnel,
    client,
};
use support::{Tls, pair, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
    /// GOAWAY that does not cover it.
    GoAway,
    /// 200, and its payload comes back.
    Echo,
}

/// A server that plays a script of its own on each connection, request by request, and then closes.
struct Scripted {
    address: SocketAddr,
    tls: Tls,
    /// Values of its SETTINGS.
    says: Vec<(u16, u32)>,
    scripts: RefCell<VecDeque<Vec<Way>>>,
    dials: Cell<usize>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Scripted {
    async fn start(says: &[(u16, u32)], scripts: &[&[Way]]) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Rc::new(Self {
            address: listener.local_addr().unwrap(),
            tls: tls(),
            says: says.to_vec(),
            scripts: RefCell::new(scripts.iter().map(|script| script.to_vec()).collect()),
            dials: Cell::default(),
        });
        let this = peer.clone();
        spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let script = this.scripts.borrow_mut().pop_front().unwrap_or_default();
                spawn(this.clone().serve(tcp, script));
            }
        });
        peer
    }

    async fn serve(self: Rc<Self>, tcp: TcpStream, script: Vec<Way>) -> io::Result<()> {
        let mut tls = tokio_rustls::TlsAcceptor::from(self.tls.server.clone()).accept(tcp).await?;
        let says: Vec<u8> = self
            .says
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        tls.write_all(&frame(SETTINGS, 0, 0, &says)).await?;
        tls.read_exact(&mut [0; 24]).await?;
        let mut script = script.into_iter();
        let mut waits: Option<(u32, ErrorCode, usize)> = None;
        loop {
            let mut head = [0; 9];
            tls.read_exact(&mut head).await?;
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
            tls.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes([s0, s1, s2, s3]);
            let answer = match kind {
                SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
                HEADERS => match script.next() {
                    Some(Way::Reset(code, 0)) => frame(RST_STREAM, 0, stream, &code.0.to_be_bytes()),
                    Some(Way::Reset(code, octets)) => {
                        waits = Some((stream, code, octets));
                        continue;
                    }
                    Some(Way::GoAway) => frame(GOAWAY, 0, 0, &[0; 8]),
                    // ":status: 200" of the static table.
                    Some(Way::Echo) => frame(HEADERS, END_HEADERS, stream, &[0x88]),
                    None => return tls.shutdown().await,
                },
                DATA => match &mut waits {
                    Some((refused, code, octets)) if *refused == stream => {
                        *octets = octets.saturating_sub(payload.len());
                        if *octets > 0 {
                            continue;
                        }
                        frame(RST_STREAM, 0, stream, &code.0.to_be_bytes())
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
        async move {
            this.dials.set(this.dials.get() + 1);
            let tcp = TcpStream::connect(this.address).await.map_err(ConnectError::Io)?;
            client::connect(tcp, this.tls.client.clone(), &Settings::default()).await
        }
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
        for way in [REFUSED, Way::GoAway] {
            let peer = Scripted::start(&[], &[&[Way::Echo, way, Way::Echo], &[Way::Echo]]).await;
            let pool = pool();
            let mut first = peer.open(&pool).await.unwrap();
            let mut second = peer.open(&pool).await.unwrap();
            assert_eq!(peer.dials.get(), 2, "{way:?}");
            echoes(&mut second).await;
            // This GOAWAY does not cover it either.
            if !matches!(way, Way::GoAway) {
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
            ([Way::GoAway, Way::GoAway], "hbone-peer-going-away"),
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

/// Takes payload ahead of its answers.
const EARLY: (u16, u32) = (0xf0ea, 1);

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

// A connection that does not take payload ahead of the answer is not guessed to: the refusal stands.
#[test]
fn what_was_said_is_not_said_to_a_peer_that_does_not_take_it() {
    run(async {
        let refused = Way::Reset(ErrorCode::REFUSED_STREAM, 5);
        let taking = Scripted::start(&[EARLY], &[&[Way::Echo, refused]]).await;
        let other = Scripted::start(&[], &[&[Way::Echo]]).await;
        let pool = pool();
        let _acquainted = taking.open(&pool).await.unwrap();
        let (mut app, proxy) = pair().await;
        app.write_all(b"hello").await.unwrap();
        // The same name, another server behind it.
        let opened = pool.open_for(&1, || other.dial(), request(), &proxy).await;
        assert!(matches!(opened, Err(PoolError::Open(OpenError::Reset(ErrorCode::REFUSED_STREAM)))));
        drop(proxy);
        let end = app.read(&mut [0]).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}
