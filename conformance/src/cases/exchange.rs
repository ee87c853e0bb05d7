//! What many cases do: ask once, or say something wrong, and judge the answer.

use crate::case::{Failure, Got, deviates};
use crate::http2::frame::Frame;
use crate::http2::hpack;
use crate::http2::peer::{Answer, Peer};
use crate::lab::Lab;

/// Fields as text; names and values may be anything.
pub(super) type Fields<'a> = &'a [(&'a str, &'a str)];

/// A connection with one request that has been answered, or not.
pub(super) fn ask(lab: &Lab, fields: Fields<'_>) -> Result<(Peer, u32, Answer), Failure> {
    let mut peer = lab.open()?;
    let stream = peer.request_fields(fields);
    let answer = peer.answer(stream);
    Ok((peer, stream, answer))
}

/// CONNECT with an authority.
pub(super) fn to(authority: &str) -> [(&str, &str); 2] {
    [(":method", "CONNECT"), (":authority", authority)]
}

/// An ordinary CONNECT to the echo with more fields behind it.
pub(super) fn echo_with<'a>(lab: &'a Lab, more: Fields<'a>) -> Result<Vec<(&'a str, &'a str)>, Failure> {
    let mut fields = to(lab.echo()?).to_vec();
    fields.extend(more);
    Ok(fields)
}

/// The tunnel must open and echo.
pub(super) fn accepted(lab: &Lab, fields: Fields<'_>) -> Got {
    let (mut peer, stream, answer) = ask(lab, fields)?;
    if answer != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"hello")?;
    Ok("200, and the echo".to_owned())
}

/// The answer must have this status, and an end.
pub(super) fn status(lab: &Lab, fields: Fields<'_>, wanted: u16) -> Got {
    let (mut peer, stream, answer) = ask(lab, fields)?;
    peer.wait(std::time::Duration::from_secs(2), |seen| {
        seen.stream(stream).is_some_and(|stream| stream.over())
    });
    let state = peer.seen.state(stream);
    let over = peer.seen.stream(stream).is_some_and(|stream| stream.over());
    if answer == Answer::Status(wanted) && over {
        peer.must_live()?;
        return Ok(state);
    }
    deviates(state)
}

/// The target must say no, in whatever way.
pub(super) fn refused(lab: &Lab, fields: Fields<'_>) -> Got {
    let (mut peer, stream, answer) = ask(lab, fields)?;
    judge_refusal(&mut peer, stream, answer.refused())
}

/// The target must take the request for malformed (RFC 9113 section 8.1.1).
pub(super) fn malformed(lab: &Lab, fields: Fields<'_>) -> Got {
    let (mut peer, stream, answer) = ask(lab, fields)?;
    judge_refusal(&mut peer, stream, answer.malformed())
}

fn judge_refusal(peer: &mut Peer, stream: u32, right: bool) -> Got {
    let state = peer.seen.state(stream);
    if !right {
        return deviates(state);
    }
    // Whoever did not end the connection goes on serving it.
    if peer.seen.lives() {
        peer.must_live()?;
    }
    Ok(state)
}

/// A header block as it is, instead of plain literals.
pub(super) fn block(fields: Fields<'_>) -> Vec<u8> {
    hpack::block(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

/// Sends frames on a fresh connection without tunnels; the connection must end with one of these errors.
pub(super) fn fatal(lab: &Lab, frames: &[Frame], codes: &[u32]) -> Got {
    let mut peer = lab.open()?;
    peer.send_all(frames);
    peer.connection_error(codes)
}

/// Opens a tunnel, sends frames about it, and wants it to carry on as if nothing had been.
pub(super) fn harmless(lab: &Lab, frames: impl FnOnce(u32) -> Vec<Frame>) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let frames = frames(stream);
    peer.send_all(&frames);
    peer.echo(stream, b"still here")?;
    peer.must_live()?;
    Ok("the tunnel goes on".to_owned())
}

/// Opens a tunnel, sends frames about it, and wants it, or the connection, to end with one of these errors.
pub(super) fn stream_fatal(lab: &Lab, frames: impl FnOnce(u32) -> Vec<Frame>, codes: &[u32]) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let frames = frames(stream);
    peer.send_all(&frames);
    let state = peer.stream_error(stream, codes)?;
    if peer.seen.lives() {
        peer.must_live()?;
    }
    Ok(state)
}
