//! The pool over loopback, with one thread as the node's traffic threads have.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails says so")]

mod support;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use culvert_hbone::{
    ClientConnection, ConnectError, ConnectRequest, ConnectionEnd, OpenError, Pool, PoolError,
    ServerConnection, Settings, Tunnel, client, server,
};
use support::{Tls, eventually, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A server that answers every request with 200 and echoes.
struct Echo {
    address: std::net::SocketAddr,
    tls: Tls,
    settings: Settings,
    /// Those of whom it is dialled by.
    near: Settings,
    connections: RefCell<Vec<Rc<ServerConnection>>>,
    /// How the connections that are over ended.
    ends: RefCell<Vec<ConnectionEnd>>,
    dials: Cell<usize>,
}

impl Echo {
    async fn start(settings: Settings) -> Rc<Self> {
        Self::start_for(settings, Settings::default()).await
    }

    async fn start_for(settings: Settings, near: Settings) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let echo = Rc::new(Self {
            address: listener.local_addr().unwrap(),
            tls: tls(),
            settings,
            near,
            connections: RefCell::default(),
            ends: RefCell::default(),
            dials: Cell::default(),
        });
        let this = echo.clone();
        spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                spawn(this.clone().serve(tcp));
            }
        });
        echo
    }

    async fn serve(self: Rc<Self>, tcp: TcpStream) {
        let connection = Rc::new(server::accept(tcp, self.tls.server.clone(), &self.settings).await.unwrap());
        self.connections.borrow_mut().push(connection.clone());
        while let Some(incoming) = connection.next().await {
            let tunnel = incoming.accept(&[]);
            spawn(async move {
                let (mut read, mut write) = tokio::io::split(tunnel);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
        self.ends.borrow_mut().push(connection.ended().unwrap());
    }

    fn dial(self: &Rc<Self>) -> impl Future<Output = Result<ClientConnection, ConnectError>> + use<> {
        let this = self.clone();
        async move {
            this.dials.set(this.dials.get() + 1);
            let tcp = TcpStream::connect(this.address).await.map_err(ConnectError::Io)?;
            client::connect(tcp, this.tls.client.clone(), &this.near).await
        }
    }

    async fn open(self: &Rc<Self>, pool: &Pool<u32, ConnectError>, key: u32) -> Tunnel {
        let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: vec![] };
        pool.open(&key, || self.dial(), request).await.unwrap().1
    }
}

async fn echo_once(tunnel: &mut Tunnel) {
    tunnel.write_all(b"hello").await.unwrap();
    let mut five = [0; 5];
    tunnel.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"hello");
}

/// Ends a tunnel in order.
async fn finish(mut tunnel: Tunnel) {
    tunnel.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tunnel.read_to_end(&mut rest).await.unwrap();
}

const LONG: Duration = Duration::from_secs(300);

// A-PO-01
#[test]
fn streams_share_a_connection_that_closes_with_the_pool() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::new(3, LONG);
        let (mut a, mut b) = tokio::join!(echo.open(&pool, 1), echo.open(&pool, 1));
        echo_once(&mut a).await;
        echo_once(&mut b).await;
        finish(a).await;
        finish(b).await;
        let c = echo.open(&pool, 1).await;
        assert_eq!(echo.dials.get(), 1);
        finish(c).await;
        drop(pool);
        eventually("the connection closes", || echo.ends.borrow().len() == 1).await;
        // W31: with GOAWAY and close_notify
        assert!(matches!(echo.ends.borrow()[0], ConnectionEnd::GoAway { .. } | ConnectionEnd::PeerClosed));
    });
}

// A-PO-03
#[test]
fn keys_do_not_share() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::new(100, LONG);
        let tunnels = [echo.open(&pool, 1).await, echo.open(&pool, 2).await, echo.open(&pool, 1).await];
        assert_eq!(echo.dials.get(), 2);
        drop(tunnels);
    });
}

// A-PO-04 where every connection is at its limit; W9: one that got room again is used again.
#[test]
fn a_full_connection_is_left_alone_until_it_has_room() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::new(2, LONG);
        let mut tunnels = Vec::new();
        for _ in 0..4 {
            tunnels.push(echo.open(&pool, 1).await);
        }
        assert_eq!(echo.dials.get(), 2);
        for _ in 0..5 {
            tunnels.push(echo.open(&pool, 1).await);
        }
        assert_eq!(echo.dials.get(), 5);
        for tunnel in tunnels.drain(..) {
            finish(tunnel).await;
        }
        finish(echo.open(&pool, 1).await).await;
        assert_eq!(echo.dials.get(), 5);
    });
}

// A-PO-05
#[test]
fn after_a_goaway_the_next_stream_uses_a_new_connection() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::new(100, LONG);
        let mut old = echo.open(&pool, 1).await;
        echo.connections.borrow()[0].drain();
        eventually("the goaway has come", || pool.connections() == 0).await;
        let mut new = echo.open(&pool, 1).await;
        assert_eq!(echo.dials.get(), 2);
        echo_once(&mut old).await;
        echo_once(&mut new).await;
        finish(old).await;
        eventually("the old one closes", || echo.ends.borrow().len() == 1).await;
    });
}

// A-PO-06
#[test]
fn a_limit_of_one_gives_one_connection_per_stream() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::new(1, LONG);
        let mut tunnels = Vec::new();
        for _ in 0..5 {
            let mut tunnel = echo.open(&pool, 1).await;
            echo_once(&mut tunnel).await;
            tunnels.push(tunnel);
        }
        assert_eq!(echo.dials.get(), 5);
    });
}

/// That many requests for one key at once, all of which stay open.
async fn burst(echo: &Rc<Echo>, pool: &Rc<Pool<u32, ConnectError>>, n: usize) -> Vec<Tunnel> {
    let open = || {
        let (echo, pool) = (echo.clone(), pool.clone());
        spawn(async move { echo.open(&pool, 1).await })
    };
    let opening: Vec<_> = (0..n).map(|_| open()).collect();
    let mut tunnels = Vec::new();
    for one in opening {
        tunnels.push(one.await.unwrap());
    }
    tunnels
}

// A-PO-06, A-PO-04: whoever finds no room dials, and those behind share what is dialled.
#[test]
fn a_burst_gets_the_connections_it_needs_and_no_more() {
    run(async {
        for (limit, n, dials) in [(1, 9, 9), (2, 9, 5), (100, 550, 6)] {
            let echo = Echo::start(Settings { server_streams: 400, ..Settings::default() }).await;
            let pool = Rc::new(Pool::new(limit, LONG));
            let mut tunnels = burst(&echo, &pool, n).await;
            assert_eq!(echo.dials.get(), dials, "{n} requests, {limit} to a connection");
            echo_once(tunnels.last_mut().unwrap()).await;
        }
    });
}

// 4.4: the first connection is filled before the peer has said what it takes. Those it refuses need not wait for it.
#[test]
fn a_burst_above_the_peers_limit_gets_the_connections_it_needs_and_no_more() {
    run(async {
        let echo = Echo::start(Settings { server_streams: 2, ..Settings::default() }).await;
        let pool = Rc::new(Pool::new(100, LONG));
        let mut tunnels = burst(&echo, &pool, 9).await;
        assert_eq!(echo.dials.get(), 5);
        for tunnel in &mut tunnels {
            echo_once(tunnel).await;
        }
    });
}

#[test]
fn a_peer_that_allows_no_streams_is_not_dialled_again() {
    run(async {
        let near = Settings { answer_timeout: Duration::from_millis(50), ..Settings::default() };
        let echo = Echo::start_for(Settings { server_streams: 0, ..Settings::default() }, near).await;
        let pool = Pool::<u32, ConnectError>::new(100, LONG);
        for _ in 0..3 {
            let open = || pool.open(&1, || echo.dial(), ConnectRequest::default());
            let both = tokio::join!(open(), open());
            for opened in [both.0, both.1] {
                assert!(matches!(opened, Err(PoolError::Open(OpenError::AnswerTimeout(_)))), "{opened:?}");
            }
        }
        assert_eq!(echo.dials.get(), 1);
    });
}

// Nor does it keep whoever has waited there and left.
#[test]
fn who_has_waited_for_room_and_left_is_forgotten() {
    struct Flag;
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {}
    }
    run(async {
        let near = Settings { answer_timeout: Duration::from_millis(50), ..Settings::default() };
        let echo = Echo::start_for(Settings { server_streams: 0, ..Settings::default() }, near).await;
        let pool = Pool::<u32, ConnectError>::new(100, LONG);
        let open = || pool.open(&1, || echo.dial(), ConnectRequest::default());
        open().await.unwrap_err();
        let flag = Arc::new(Flag);
        let waker = Waker::from(flag.clone());
        {
            let mut waiting = pin!(open());
            assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert!(Arc::strong_count(&flag) > 2, "it waits");
        }
        assert_eq!(Arc::strong_count(&flag), 2, "with the waker of this test");
    });
}

// A-PO-07
#[test]
fn many_streams_and_many_sources() {
    run(async {
        let echo = Echo::start(Settings { server_streams: 400, ..Settings::default() }).await;
        let pool = Rc::new(Pool::new(101, LONG));
        let all = |keys: Vec<u32>| {
            let (pool, echo) = (pool.clone(), echo.clone());
            async move {
                let tasks: Vec<_> = keys
                    .into_iter()
                    .map(|key| {
                        let (pool, echo) = (pool.clone(), echo.clone());
                        spawn(async move { echo.open(&pool, key).await })
                    })
                    .collect();
                let mut tunnels = Vec::new();
                for task in tasks {
                    tunnels.push(task.await.unwrap());
                }
                tunnels
            }
        };
        let one = all(vec![0; 100]).await;
        assert_eq!(echo.dials.get(), 1);
        let many = all((1..=20).collect()).await;
        assert_eq!(echo.dials.get(), 21);
        let few = all((0..300).map(|n| 1000 + n % 3).collect()).await;
        assert_eq!(echo.dials.get(), 24);
        drop((one, many, few));
    });
}

// A-PO-08
#[test]
fn idle_connections_are_released() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::new(4, Duration::from_millis(100));
        finish(echo.open(&pool, 1).await).await;
        eventually("released", || echo.ends.borrow().len() == 1).await;
        let mut long = echo.open(&pool, 1).await;
        finish(echo.open(&pool, 1).await).await;
        finish(echo.open(&pool, 1).await).await;
        // What falls idle later tells that the time of the first would be over.
        finish(echo.open(&pool, 2).await).await;
        eventually("the idle one is released", || echo.ends.borrow().len() == 2).await;
        echo_once(&mut long).await;
        assert_eq!(echo.ends.borrow().len(), 2, "nothing closes while a stream lives");
        assert_eq!(pool.connections(), 1);
        let mut more = Vec::new();
        for _ in 0..4 {
            more.push(echo.open(&pool, 1).await);
        }
        assert_eq!(echo.dials.get(), 4);
        for tunnel in more {
            finish(tunnel).await;
        }
        eventually("the second is released", || echo.ends.borrow().len() == 3).await;
        finish(long).await;
        eventually("the first is released", || echo.ends.borrow().len() == 4).await;
    });
}

#[test]
fn the_peers_limit_counts_once_it_is_known() {
    run(async {
        let echo = Echo::start(Settings { server_streams: 2, ..Settings::default() }).await;
        let pool = Pool::new(100, LONG);
        let mut tunnels = Vec::new();
        for _ in 0..6 {
            let mut tunnel = echo.open(&pool, 1).await;
            echo_once(&mut tunnel).await;
            tunnels.push(tunnel);
        }
        assert_eq!(echo.dials.get(), 3);
    });
}

// W25
#[test]
fn those_who_wait_for_a_dial_share_its_failure() {
    run(async {
        let pool = Rc::new(Pool::<u32, ConnectError>::new(100, LONG));
        let dials = Rc::new(Cell::new(0));
        let fails = Rc::new(Notify::new());
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let (pool, dials, fails) = (pool.clone(), dials.clone(), fails.clone());
                spawn(async move {
                    let dial = || {
                        let (dials, fails) = (dials.clone(), fails.clone());
                        async move {
                            dials.set(dials.get() + 1);
                            fails.notified().await;
                            Err::<ClientConnection, _>(ConnectError::Timeout(Duration::from_secs(10)))
                        }
                    };
                    pool.open(&1, dial, ConnectRequest::default()).await.map(drop)
                })
            })
            .collect();
        // The one who began the dial goes away, and the one who drove it last: the others take it over.
        eventually("dialled", || dials.get() == 1).await;
        tasks[0].abort();
        tasks[4].abort();
        fails.notify_one();
        for task in tasks.into_iter().skip(1).take(3) {
            assert!(matches!(task.await.unwrap(), Err(PoolError::Dial(_))));
        }
        assert_eq!(dials.get(), 1);
    });
}

#[test]
fn a_closed_pool_refuses() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::<u32, ConnectError>::new(100, LONG);
        let mut tunnel = echo.open(&pool, 1).await;
        pool.close();
        let refused = pool.open(&1, || echo.dial(), ConnectRequest::default()).await.unwrap_err();
        assert_eq!(refused.to_string(), "pool draining");
        let mut one = [0; 1];
        assert!(tunnel.read(&mut one).await.is_err());
    });
}

/// The inode of the socket with this local address.
fn inode(local: std::net::SocketAddr) -> String {
    let port = format!("0100007F:{:04X}", local.port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let socket = lines.find(|fields| fields.get(1) == Some(&port.as_str())).unwrap();
    format!("socket:[{}]", socket[9])
}

/// Whether this process has a descriptor of it.
fn has_descriptor(inode: &str) -> bool {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    descriptors.filter_map(|entry| entry.unwrap().path().read_link().ok()).any(|to| to.as_os_str() == inode)
}

// Whoever still holds a tunnel, and whether or not anybody asks for the key again.
#[test]
fn a_connection_that_has_ended_keeps_no_descriptor_and_no_place() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::new(100, LONG);
        let tunnels = [echo.open(&pool, 1).await, echo.open(&pool, 2).await, echo.open(&pool, 2).await];
        let sockets = [inode(tunnels[0].local_addr()), inode(tunnels[1].local_addr())];
        assert_eq!((echo.dials.get(), pool.keys()), (2, 2));
        assert!(sockets.iter().all(|inode| has_descriptor(inode)));
        for connection in &*echo.connections.borrow() {
            connection.close();
        }
        eventually("no key is left", || pool.keys() == 0).await;
        eventually("no descriptor is left", || !sockets.iter().any(|inode| has_descriptor(inode))).await;
        drop(tunnels);
    });
}

#[test]
fn idle_connections_leave_nothing_in_the_pool() {
    run(async {
        let echo = Echo::start(Settings::default()).await;
        let pool = Pool::new(100, Duration::from_millis(20));
        for key in 0..40 {
            finish(echo.open(&pool, key).await).await;
        }
        eventually("nothing is left", || pool.keys() == 0).await;
    });
}

#[test]
fn dials_that_fail_or_are_given_up_leave_nothing_in_the_pool() {
    run(async {
        let pool = Pool::<u32, ConnectError>::new(100, LONG);
        let fails = || async { Err::<ClientConnection, _>(ConnectError::Timeout(LONG)) };
        assert!(pool.open(&1, fails, ConnectRequest::default()).await.is_err());
        assert_eq!(pool.keys(), 0);
        let never = std::future::pending::<Result<ClientConnection, ConnectError>>;
        let given_up = pool.open(&1, never, ConnectRequest::default());
        assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
        assert_eq!(pool.keys(), 0);
    });
}
