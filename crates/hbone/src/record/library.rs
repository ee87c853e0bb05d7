//! TLS by rustls, without buffers of its own: every handshake, and the records of TLS 1.2.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets, ProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use zeroize::Zeroizing;

use super::capture::{Capture, Secrets};
use super::protection::Direction;
use super::schedule::{Secret, Suite};
use super::{Records, Secured, Session};
use crate::core::Role;

/// What a record adds to at most 16,384 octets of content in TLS 1.3 and 1.2, generously.
const RECORD_OVERHEAD: usize = 64;

/// Largest content of a record.
const RECORD_CONTENT: usize = 16_384;

/// One side of one TLS connection.
pub(crate) struct Library {
    tls: Tls,
    capture: Arc<Capture>,
    /// Received bytes that could not be opened yet: the start of a record, or records that hold the start of a
    /// handshake message. rustls keeps positions in them, so it must see them with every call.
    pub(crate) carry: Vec<u8>,
}

enum Tls {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.tls {
            Tls::Client(_) => "Library::Client",
            Tls::Server(_) => "Library::Server",
        })
    }
}

/// What one step of rustls asks for.
enum Step {
    Again,
    NeedInput,
    Closed,
}

impl Library {
    /// A client. No server name is sent: who the peer must be is in the configuration's verifier.
    pub(crate) fn client(config: Arc<rustls::ClientConfig>) -> Result<Self, Error> {
        let nobody = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let capture = Capture::new(config.key_log.clone());
        let mut config = Arc::unwrap_or_clone(config);
        config.key_log = capture.clone();
        config.enable_secret_extraction = true;
        let tls = UnbufferedClientConnection::new(Arc::new(config), nobody)?;
        Ok(Self { tls: Tls::Client(Box::new(tls)), capture, carry: Vec::new() })
    }

    pub(crate) fn server(config: Arc<rustls::ServerConfig>) -> Result<Self, Error> {
        let capture = Capture::new(config.key_log.clone());
        let mut config = Arc::unwrap_or_clone(config);
        config.key_log = capture.clone();
        config.enable_secret_extraction = true;
        let tls = UnbufferedServerConnection::new(Arc::new(config))?;
        Ok(Self { tls: Tls::Server(Box::new(tls)), capture, carry: Vec::new() })
    }

    /// The handshake is complete and everything it had to say is sent: from here on the records are our own, if we
    /// know how. `rest` was received behind the handshake and not shown to rustls.
    pub(crate) fn secured(mut self, rest: Vec<u8>, records_per_key: u64) -> Result<Secured, Error> {
        let chain = self.peer_chain();
        let (version, suite) = match &self.tls {
            Tls::Client(tls) => (tls.protocol_version(), tls.negotiated_cipher_suite()),
            Tls::Server(tls) => (tls.protocol_version(), tls.negotiated_cipher_suite()),
        };
        let suite = suite.and_then(|suite| Suite::of(suite.suite()));
        let records = match (version, suite, self.capture.take()) {
            // A carry would be part of a message that rustls has begun to read.
            (Some(ProtocolVersion::TLSv1_3), Some(suite), Some(Secrets { client, server }))
                if self.carry.is_empty() =>
            {
                let (role, extracted) = match self.tls {
                    Tls::Client(tls) => (Role::Client, tls.dangerous_into_kernel_connection()?.0),
                    Tls::Server(tls) => (Role::Server, tls.dangerous_into_kernel_connection()?.0),
                };
                let (read, write) = match role {
                    Role::Client => (server, client),
                    Role::Server => (client, server),
                };
                let ExtractedSecrets { tx: (sent, tx), rx: (received, rx) } = extracted;
                let read = direction(suite, read, received, &rx).ok_or_else(no_secrets)?;
                let write = direction(suite, write, sent, &tx).ok_or_else(no_secrets)?;
                let mut session = Session::after_handshake(role, read, write, records_per_key);
                session.set_carry(rest);
                Records::Own(Box::new(session))
            }
            _ => {
                self.carry.extend_from_slice(&rest);
                Records::Library(Box::new(self))
            }
        };
        Ok(Secured { records, chain })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match &self.tls {
            Tls::Client(tls) => tls.is_handshaking(),
            Tls::Server(tls) => tls.is_handshaking(),
        }
    }

    fn peer_chain(&self) -> Arc<[CertificateDer<'static>]> {
        let chain = match &self.tls {
            Tls::Client(tls) => tls.peer_certificates(),
            Tls::Server(tls) => tls.peer_certificates(),
        };
        chain.unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect()
    }

    /// Opens the whole records at the front of `wire`, which begins with what was carried: their content is appended
    /// to `plain`; what TLS itself has to say (handshake, key update, alert) is appended to `out`, also when the
    /// result is an error. What cannot be opened yet is carried. `true` if the peer has sent close_notify.
    pub(crate) fn open(
        &mut self,
        wire: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let mut consumed = 0;
        let closed = loop {
            let rest = wire.get_mut(consumed..).unwrap_or_default();
            let (discard, step) = self.step(rest, plain, out);
            consumed += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::NeedInput) => break false,
                Ok(Step::Closed) => break true,
                Err(error) => {
                    // rustls has an alert for the peer; asked once more than that it would fail once more.
                    while self.has_output() {
                        let rest = wire.get_mut(consumed..).unwrap_or_default();
                        consumed += self.step(rest, plain, out).0;
                    }
                    return Err(error);
                }
            }
        };
        let rest = wire.get(consumed..).unwrap_or_default();
        if rest.is_empty() {
            self.carry = Vec::new();
        } else {
            self.carry.clear();
            self.carry.extend_from_slice(rest);
        }
        Ok(closed)
    }

    fn step(
        &mut self,
        rest: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        match &mut self.tls {
            Tls::Client(tls) => take_step(tls.process_tls_records(rest), plain, out),
            Tls::Server(tls) => take_step(tls.process_tls_records(rest), plain, out),
        }
    }

    fn has_output(&self) -> bool {
        match &self.tls {
            Tls::Client(tls) => tls.wants_write(),
            Tls::Server(tls) => tls.wants_write(),
        }
    }

    /// Seals `plain` into records of full size and appends them to `out`.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let records = plain.len().div_ceil(RECORD_CONTENT) + 1;
        self.write(Output::Data(plain), plain.len() + records * RECORD_OVERHEAD, out)
    }

    /// Appends a close_notify to `out`.
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) {
        // A connection that failed cannot say goodbye.
        let _ = self.write(Output::CloseNotify, 2 * RECORD_OVERHEAD, out);
    }

    fn write(&mut self, output: Output<'_>, room: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut end = out.len();
        out.resize(end + room, 0);
        let result = loop {
            let space = out.get_mut(end..).unwrap_or_default();
            let carry = &mut self.carry;
            let step = match &mut self.tls {
                Tls::Client(tls) => write_step(tls.process_tls_records(carry), &output, space),
                Tls::Server(tls) => write_step(tls.process_tls_records(carry), &output, space),
            };
            match step {
                Ok((written, done)) => {
                    end += written;
                    if done {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
        };
        out.truncate(end);
        result
    }
}

enum Output<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

/// Handles one state while receiving; returns how much of the input is done with.
fn take_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Again),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut message)) => {
            let start = out.len();
            if let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) {
                out.resize(start + size.required_size, 0);
                // Cannot fail: the room is what was asked for.
                let _ = message.encode(out.get_mut(start..).unwrap_or_default());
            }
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(sent)) => {
            // What was encoded lies in `out`, in order; the caller sends it before anything else.
            sent.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
        Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => Ok(Step::NeedInput),
        // Early data is never offered nor accepted.
        Ok(_) => Err(Error::General("early data".into())),
    };
    (discard, step)
}

/// Handles one state while sending; returns how much was written, and whether it was the wanted output.
fn write_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    output: &Output<'_>,
    space: &mut [u8],
) -> Result<(usize, bool), Error> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => match output {
            Output::Data(plain) => traffic.encrypt(plain, space),
            Output::CloseNotify => traffic.queue_close_notify(space),
        }
        .map(|written| (written, true))
        .map_err(|_| Error::EncryptError),
        ConnectionState::EncodeTlsData(mut message) => {
            message.encode(space).map(|written| (written, false)).map_err(|_| Error::EncryptError)
        }
        ConnectionState::TransmitTlsData(sent) => {
            sent.done();
            Ok((0, false))
        }
        ConnectionState::PeerClosed => Ok((0, false)),
        _ => Err(Error::EncryptError),
    }
}

/// Never seen: what we derive is not what rustls derives.
fn no_secrets() -> Error {
    Error::General("traffic secrets do not match the connection".into())
}

/// One direction from its traffic secret; `None` unless the key schedule leads from it to the keys rustls uses.
fn direction(
    suite: Suite,
    secret: Zeroizing<Vec<u8>>,
    sequence: u64,
    used: &ConnectionTrafficSecrets,
) -> Option<Direction> {
    let secret = Secret::new(suite, secret)?;
    let (key, iv) = secret.material()?;
    let same = match used {
        ConnectionTrafficSecrets::Aes128Gcm { key: k, iv: i }
        | ConnectionTrafficSecrets::Aes256Gcm { key: k, iv: i }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key: k, iv: i } => {
            k.as_ref() == key.as_slice() && i.as_ref() == iv
        }
        _ => false,
    };
    let keys = secret.keys_of(&key, iv).filter(|_| same)?;
    Some(Direction::with_keys(secret, keys, sequence))
}
