//! Applications for tests: each listens on a thread of its own, in the namespace it is made in.
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

/// No application waits longer for anybody.
const LIMIT: Duration = Duration::from_secs(30);

/// A listening application. It accepts until the process ends.
#[derive(Debug)]
pub struct Application {
    /// Where it listens.
    pub address: SocketAddr,
    /// The client of each connection, as the application sees it.
    clients: mpsc::Receiver<SocketAddr>,
}

impl Application {
    /// Sends back twice what it receives: 11 bytes are answered with 22.
    pub fn doubling(address: SocketAddr) -> io::Result<Self> {
        Self::serve(address, |mut stream| {
            let mut buffer = [0; 4096];
            loop {
                let n = stream.read(&mut buffer)?;
                if n == 0 {
                    return stream.shutdown(Shutdown::Write);
                }
                stream.write_all(&buffer[..n])?;
                stream.write_all(&buffer[..n])?;
            }
        })
    }

    /// Says its name and closes, whatever is sent.
    pub fn naming(address: SocketAddr, name: &'static str) -> io::Result<Self> {
        Self::serve(address, move |mut stream| {
            stream.write_all(name.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(|_| ())
        })
    }

    /// Answers one HTTP request per connection with this body.
    pub fn http(address: SocketAddr, body: &'static str) -> io::Result<Self> {
        Self::serve(address, move |mut stream| {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
                stream.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        })
    }

    fn serve(
        address: SocketAddr,
        answer: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let (told, clients) = mpsc::channel();
        std::thread::Builder::new().name(format!("application {address}")).spawn(move || {
            while let Ok((stream, client)) = listener.accept() {
                // A test that does not ask who called does not hear it.
                let _ = told.send(client);
                let answer = answer.clone();
                std::thread::spawn(move || {
                    let limited = stream
                        .set_read_timeout(Some(LIMIT))
                        .and_then(|()| stream.set_write_timeout(Some(LIMIT)));
                    // How a connection ends is the other side's business.
                    let _ = limited.and_then(|()| answer(stream));
                });
            }
        })?;
        Ok(Self { address, clients })
    }

    /// The client of the next connection that has not been asked about.
    pub fn client(&self) -> SocketAddr {
        self.clients.recv_timeout(LIMIT).expect("a connection")
    }
}

/// Sends `request`, ends its side and reads to the end.
pub fn exchange(to: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(to)?;
    stream.write_all(request)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A client's connection, with limits.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}
