//! What can go wrong with a tunnel, by phase, each with its stable code.

use std::io;

use thiserror::Error;

/// An HTTP/2 error code (RFC 9113 section 7), kept as the number the peer sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// Graceful end.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke a rule that has no code of its own.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// The sender met a fault of its own.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// A flow-control window was overrun or overflowed.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// SETTINGS were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    /// A frame for a stream that was already over.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame of impossible or forbidden length.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The stream was not processed at all; it may be tried elsewhere.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// The stream is no longer wanted.
    pub const CANCEL: Self = Self(0x8);
    /// A header block that does not decode.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The TCP connection behind a CONNECT was reset.
    pub const CONNECT_ERROR: Self = Self(0xa);
    /// The peer sent more of something than its budget allows.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);

    /// The name the RFC gives it, or the number.
    fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(usize::try_from(self.0).ok()?).copied()
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl std::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Why a whole HBONE connection ended.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// We closed it: drained, idle, or nobody holds it any more.
    #[error("connection closed")]
    Closed,
    /// The peer said GOAWAY and everything it still allowed has ended.
    #[error("peer is going away: {code}")]
    GoAway {
        /// What the GOAWAY said.
        code: ErrorCode,
    },
    /// The peer sent close_notify.
    #[error("peer closed the connection")]
    PeerClosed,
    /// The peer's TCP connection ended without a close_notify.
    #[error("peer closed connection without sending TLS close_notify")]
    Vanished,
    /// The socket failed.
    #[error("{0}")]
    Io(String, io::ErrorKind),
    /// A record did not decrypt or the peer sent an alert.
    #[error("{0}")]
    Tls(String),
    /// The peer broke HTTP/2; `what` names the rule.
    #[error("connection error detected: {code}: {what}")]
    Protocol {
        /// The code our GOAWAY carried.
        code: ErrorCode,
        /// The rule that was broken.
        what: &'static str,
    },
    /// We closed it: a certificate of the peer was revoked.
    #[error("connection closed: peer certificate revoked by CRL")]
    Revoked,
    /// It goes on in another engine; nothing is lost.
    #[error("connection moved")]
    Moved,
    /// The peer did not answer a PING in time.
    #[error("HBONE ping timeout/error, peer may have shutdown")]
    PingTimeout,
    /// The peer did not send its HTTP/2 preface in time.
    #[error("no HTTP/2 preface within {0:?}")]
    PrefaceTimeout(std::time::Duration),
}

impl ConnectionEnd {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Closed => "hbone-connection-closed",
            Self::GoAway { .. } => "hbone-peer-going-away",
            Self::PeerClosed => "hbone-peer-closed",
            Self::Vanished => "hbone-peer-vanished",
            Self::Io(..) => "hbone-io-error",
            Self::Tls(_) => "hbone-tls-record-error",
            Self::Protocol { code: ErrorCode::ENHANCE_YOUR_CALM, .. } => "hbone-peer-flood",
            Self::Protocol { .. } => "hbone-protocol-error",
            Self::Revoked => "tls-certificate-revoked",
            Self::Moved => "hbone-connection-moved",
            Self::PingTimeout => "hbone-ping-timeout",
            Self::PrefaceTimeout(_) => "hbone-preface-timeout",
        }
    }
}

/// Why an outbound HBONE connection did not come up. Reaching the peer by TCP is the caller's phase.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The handshake failed: a certificate was refused by either side, or the peer does not speak our TLS.
    #[error("io error: {0}")]
    Tls(#[source] rustls::Error),
    /// The socket failed or ended during the handshake.
    #[error("io error: {0}")]
    Io(#[source] io::Error),
    /// TLS was not done in time.
    #[error("io error: tls handshake not finished within {0:?}")]
    Timeout(std::time::Duration),
    /// HTTP/2 could not start.
    #[error("http2 handshake failed: {0}")]
    Http2(ConnectionEnd),
}

impl ConnectError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tls(e) => tls_code(e),
            Self::Io(_) => "tls-peer-closed",
            Self::Timeout(_) => "tls-handshake-timeout",
            Self::Http2(_) => "hbone-http2-handshake",
        }
    }
}

/// Why an inbound HBONE connection did not come up.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// The handshake failed; the peer was told by an alert.
    #[error("tls handshake error: {0}")]
    Tls(#[source] rustls::Error),
    /// The socket failed or ended during the handshake.
    #[error("tls handshake error: {0}")]
    Io(#[source] io::Error),
    /// TLS was not done in time.
    #[error("tls handshake error: not finished within {0:?}")]
    Timeout(std::time::Duration),
}

impl AcceptError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tls(e) => tls_code(e),
            Self::Io(_) => "tls-peer-closed",
            Self::Timeout(_) => "tls-handshake-timeout",
        }
    }
}

fn tls_code(e: &rustls::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    match e {
        Error::InvalidCertificate(
            CertificateError::Other(_) | CertificateError::ApplicationVerificationFailure,
        ) => "tls-unexpected-identity",
        Error::InvalidCertificate(CertificateError::Revoked) => "tls-certificate-revoked",
        Error::InvalidCertificate(_) => "tls-untrusted-certificate",
        Error::NoCertificatesPresented => "tls-no-client-certificate",
        Error::AlertReceived(_) => "tls-refused-by-peer",
        _ => "tls-handshake-failed",
    }
}

/// Why a CONNECT did not become a tunnel.
#[derive(Debug, Clone, Error)]
pub enum OpenError {
    /// The peer answered with anything but 200.
    #[error("http status: {}", StatusText(*.0))]
    Status(u16),
    /// The peer reset the stream instead of answering.
    #[error("h2 failed: stream error received: {0}")]
    Reset(ErrorCode),
    /// The peer is going away and has not processed the request; another connection may take it.
    #[error("h2 failed: request not processed, peer is going away: {0}")]
    NotProcessed(ErrorCode),
    /// The answer broke HTTP/2.
    #[error("h2 failed: stream error detected: {what}")]
    BadAnswer {
        /// The rule that was broken.
        what: &'static str,
    },
    /// The connection ended before its HTTP/2 handshake was complete.
    #[error("http2 handshake failed: {0}")]
    Http2(ConnectionEnd),
    /// The connection ended before the answer came.
    #[error("h2 failed: {0}")]
    ConnectionEnded(ConnectionEnd),
    /// No answer in time.
    #[error("h2 failed: no answer to CONNECT within {0:?}")]
    AnswerTimeout(std::time::Duration),
    /// The request does not fit what HTTP/2 or this peer can carry.
    #[error("h2 failed: request headers too large")]
    RequestTooLarge,
    /// The application failed, usually because it reset, before the answer came.
    #[error("{0}")]
    AppRead(String, io::ErrorKind),
    /// The tunnels of this process hold more than its [`crate::Memory`] allows, and this connection more than its share:
    /// no new ones on it.
    #[error("h2 failed: tunnels hold too much memory")]
    OutOfMemory,
}

impl OpenError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Status(401) => "hbone-connect-denied",
            Self::Status(_) => "hbone-connect-status",
            Self::Reset(ErrorCode::REFUSED_STREAM) => "hbone-stream-refused",
            Self::Reset(_) => "hbone-stream-reset",
            Self::NotProcessed(_) => "hbone-peer-going-away",
            Self::BadAnswer { .. } => "hbone-bad-answer",
            Self::Http2(ConnectionEnd::Tls(_)) => "tls-refused-by-peer",
            Self::Http2(_) => "hbone-http2-handshake",
            Self::ConnectionEnded(end) => end.code(),
            Self::AnswerTimeout(_) => "hbone-answer-timeout",
            Self::RequestTooLarge => "hbone-request-too-large",
            Self::AppRead(..) => "tunnel-app-reset",
            Self::OutOfMemory => "hbone-out-of-memory",
        }
    }
}

/// `503 Service Unavailable`, as the log wants it.
struct StatusText(u16);

impl std::fmt::Display for StatusText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match reason(self.0) {
            Some(reason) => write!(f, "{} {reason}", self.0),
            None => write!(f, "{} <unknown status code>", self.0),
        }
    }
}

/// Registered reason phrase of a status.
fn reason(status: u16) -> Option<&'static str> {
    Some(match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => return None,
    })
}

/// How a tunnel ended when it did not end by both sides saying so.
#[derive(Debug, Clone, Error)]
pub enum TunnelError {
    /// The peer reset the stream. The application at our end is reset too.
    #[error("stream error received: {0}")]
    PeerReset(ErrorCode),
    /// The peer broke the rules of this stream and was reset by us.
    #[error("stream error detected: {code}: {what}")]
    PeerFault {
        /// The code our RST_STREAM carried.
        code: ErrorCode,
        /// The rule that was broken.
        what: &'static str,
    },
    /// The application took too little of what the peer sent, while tunnels held more memory than they may: both have
    /// been reset.
    #[error("application does not read, and tunnels hold too much memory")]
    SlowReader,
    /// The HBONE connection ended under the tunnel: what was transferred may be incomplete (W10, W92).
    #[error("{0}")]
    ConnectionEnded(ConnectionEnd),
    /// Reading from the application failed, usually because it reset. The peer was told by RST_STREAM.
    #[error("{0}")]
    AppRead(String, io::ErrorKind),
    /// Writing to the application failed. The peer was told by RST_STREAM.
    #[error("{0}")]
    AppWrite(String, io::ErrorKind),
    /// This side cut the tunnel.
    #[error("tunnel aborted")]
    Aborted,
}

impl TunnelError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PeerReset(_) => "tunnel-peer-reset",
            Self::PeerFault { .. } => "tunnel-peer-fault",
            Self::SlowReader => "tunnel-slow-reader",
            Self::ConnectionEnded(end) => end.code(),
            Self::AppRead(..) => "tunnel-app-reset",
            Self::AppWrite(..) => "tunnel-app-gone",
            Self::Aborted => "tunnel-aborted",
        }
    }
}
