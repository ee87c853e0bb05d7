//! Answers and their bodies.
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming, SizeHint};

/// A whole answer.
pub type Answer = Response<Body>;

/// Bytes at hand, with their length told or chunked.
#[derive(Debug, Default)]
pub struct Body {
    bytes: Bytes,
    chunked: bool,
}

impl Body {
    /// Bytes whose length is told.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), chunked: false }
    }

    /// Bytes sent chunked.
    pub fn chunked(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), chunked: true }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunked && !self.bytes.is_empty() {
            return SizeHint::new();
        }
        SizeHint::with_exact(u64::try_from(self.bytes.len()).unwrap_or(u64::MAX))
    }
}

/// An answer with a body of type `text/plain`.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain", body)
}

/// An answer with a body of some type.
pub fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// 404 without body.
pub fn not_found() -> Answer {
    empty(StatusCode::NOT_FOUND)
}

/// 405 without body.
pub fn method_not_allowed() -> Answer {
    empty(StatusCode::METHOD_NOT_ALLOWED)
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    answer
}

/// The body as text, with replacement characters where it is none; for tests and logs.
pub fn whole_text(answer: &Answer) -> String {
    String::from_utf8_lossy(answer.body().bytes()).into_owned()
}

/// The whole body of a request of at most `limit` bytes, or nothing.
pub async fn read_body(body: Incoming, limit: usize) -> Option<Bytes> {
    Limited::new(body, limit).collect().await.ok().map(http_body_util::Collected::to_bytes)
}
