//! Header blocks: put together, decoded, and judged as request, answer or trailers.

use std::time::Instant;

use super::frame::{self, Head, flag, kind};
use super::receive::{Fatal, Outcome};
use super::{Action, Core, Drain, OpenBlock, Over, Role, fields, hpack};
use crate::{ErrorCode, Limit};

impl Core {
    /// HEADERS or CONTINUATION begin: what is no part of a block, or of one that is too large, is not collected.
    pub(super) fn block_start(&mut self, head: Head) -> Outcome {
        let before = match (&self.open_block, head.kind) {
            (None, kind::HEADERS) => 0,
            (Some(open), kind::CONTINUATION) if open.stream == head.stream => open.block.len(),
            (Some(_), kind::HEADERS) => {
                return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "frame inside a header block"));
            }
            _ => return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "CONTINUATION without a header block")),
        };
        let is_allowed = match self.role {
            Role::Server => !head.stream.is_multiple_of(2),
            Role::Client => !self.is_idle(head.stream),
        };
        if !is_allowed {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "HEADERS on a stream the peer must not use"));
        }
        self.block_limit(before + head.length)
    }

    pub(super) fn headers(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
        actions: &mut Vec<Action<'_>>,
    ) -> Outcome {
        let mut block = payload;
        if head.has(flag::PADDED) {
            let (padding, rest) = block
                .split_first()
                .ok_or(Fatal(ErrorCode::FRAME_SIZE_ERROR, "HEADERS without its pad length"))?;
            let kept = rest.len().checked_sub(usize::from(*padding));
            block = kept
                .and_then(|kept| rest.get(..kept))
                .ok_or(Fatal(ErrorCode::PROTOCOL_ERROR, "too much padding"))?;
        }
        if head.has(flag::PRIORITY) {
            block =
                block.get(5..).ok_or(Fatal(ErrorCode::FRAME_SIZE_ERROR, "HEADERS without its priority"))?;
        }
        let end_stream = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.header_block(now, head.stream, end_stream, block, actions);
        }
        self.open_block =
            Some(OpenBlock { stream: head.stream, end_stream, block: block.to_vec(), continuations: 0 });
        Ok(())
    }

    pub(super) fn continuation(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
        actions: &mut Vec<Action<'_>>,
    ) -> Outcome {
        let Some(mut open) = self.open_block.take() else {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "CONTINUATION without a header block"));
        };
        open.continuations += 1;
        if open.continuations > self.settings.budgets.continuations {
            // No other frame can come before the block ends: there is nobody to spare.
            self.note_excess(Limit::Continuations);
            return Err(Fatal(ErrorCode::ENHANCE_YOUR_CALM, "too many CONTINUATION frames"));
        }
        open.block.extend_from_slice(payload);
        if head.has(flag::END_HEADERS) {
            return self.header_block(now, open.stream, open.end_stream, &open.block, actions);
        }
        self.open_block = Some(open);
        Ok(())
    }

    /// A block is read as far as one frame may go. What is longer cannot be decoded, and no other frame can come before
    /// it ends: there is nobody to spare.
    fn block_limit(&mut self, length: usize) -> Outcome {
        if u32::try_from(length).is_ok_and(|length| length <= self.settings.budgets.header_block) {
            return Ok(());
        }
        self.note_excess(Limit::HeaderBlock);
        Err(Fatal(ErrorCode::ENHANCE_YOUR_CALM, "header block too large"))
    }

    fn header_block(
        &mut self,
        now: Instant,
        stream: u32,
        end_stream: bool,
        block: &[u8],
        actions: &mut Vec<Action<'_>>,
    ) -> Outcome {
        let limit = match self.role {
            Role::Server => self.settings.server_header_list,
            Role::Client => self.settings.client_header_list,
        };
        // Always decoded, whatever becomes of the stream: the tables are the connection's.
        let list = self
            .decoder
            .decode(block, usize::try_from(limit).unwrap_or(usize::MAX))
            .map_err(|hpack::BadBlock(what)| Fatal(ErrorCode::COMPRESSION_ERROR, what))?;
        if list.oversized {
            self.note_excess(Limit::HeaderList);
        }
        if let Some(state) = self.streams.get(&stream) {
            let first = self.role == Role::Client && !state.answered;
            let fault = if !state.recv_open {
                Some((ErrorCode::STREAM_CLOSED, "HEADERS after END_STREAM"))
            } else if list.oversized {
                Some((ErrorCode::PROTOCOL_ERROR, "header list too large"))
            } else {
                None
            };
            match fault {
                Some((code, what)) => self.fail_stream(stream, code, what, actions),
                None if first => self.answer_block(stream, end_stream, list.fields, actions),
                None => self.trailer_block(stream, end_stream, list.fields, actions),
            }
            return Ok(());
        }
        if self.role == Role::Server && stream > self.highest_seen {
            return self.request_block(now, stream, end_stream, list, actions);
        }
        self.stale_headers(now, stream, actions)
    }

    /// HEADERS on a stream that is over. Late ones are read over, within a budget: the other streams of the connection
    /// are innocent. It ends only for a peer that goes on after it has ended the stream itself, or that takes an id
    /// which it has passed by (RFC 9113 sections 5.1 and 5.1.1).
    fn stale_headers(&mut self, now: Instant, stream: u32, actions: &mut Vec<Action<'_>>) -> Outcome {
        match self.how_over(stream) {
            Some(Over::Ended) => {
                return Err(Fatal(ErrorCode::STREAM_CLOSED, "HEADERS on a stream that is over"));
            }
            None if self.role == Role::Server && stream > self.forgotten => {
                return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "stream id below an earlier one"));
            }
            Some(Over::ResetByPeer) => {
                frame::rst_stream(&mut self.out, stream, ErrorCode::STREAM_CLOSED);
                self.remember(stream, Over::ResetByUs);
            }
            Some(Over::ResetByUs | Over::Refused) | None => {}
        }
        self.spend_stale(now, actions);
        Ok(())
    }

    fn request_block(
        &mut self,
        now: Instant,
        stream: u32,
        end_stream: bool,
        list: hpack::FieldList,
        actions: &mut Vec<Action<'_>>,
    ) -> Outcome {
        self.highest_seen = stream;
        let over = if self.open_streams >= self.settings.server_streams {
            Some(Limit::Streams)
        } else if self.is_pressed() {
            Some(Limit::ProcessMemory)
        } else if self.is_full() {
            Some(Limit::TunnelMemory)
        } else {
            None
        };
        // Until the last stream is fixed, a request may have crossed the first GOAWAY (RFC 9113 section 6.8).
        if self.shedding || matches!(self.drain, Drain::Final) || over.is_some() {
            self.stats.refused += 1;
            over.into_iter().for_each(|limit| self.note_excess(limit));
            frame::rst_stream(&mut self.out, stream, ErrorCode::REFUSED_STREAM);
            self.remember(stream, if end_stream { Over::ResetByUs } else { Over::Refused });
            self.spend_stale(now, actions);
            return Ok(());
        }
        self.highest_accepted = stream;
        self.insert(stream, now);
        if list.oversized {
            let mut block = self.start_block();
            hpack::encode(":status", b"431", &mut block);
            frame::headers(&mut self.out, stream, &block, true);
            self.reset(stream, ErrorCode::PROTOCOL_ERROR);
            self.spend_stale(now, actions);
            return Ok(());
        }
        match fields::request(list.fields) {
            Ok(mut head) => {
                if let Some(state) = self.streams.get_mut(&stream) {
                    state.content_left = head.content_length.take().map(Box::new);
                    state.request = u32::try_from(head.octets()).unwrap_or(u32::MAX);
                    self.requests += u64::from(state.request);
                }
                actions.push(Action::Request { stream, head });
                if end_stream {
                    self.end_of_stream(stream, actions);
                }
                Ok(())
            }
            Err(_) => {
                self.reset(stream, ErrorCode::PROTOCOL_ERROR);
                self.spend_stale(now, actions);
                Ok(())
            }
        }
    }

    fn answer_block(
        &mut self,
        stream: u32,
        end_stream: bool,
        list: Vec<hpack::Field>,
        actions: &mut Vec<Action<'_>>,
    ) {
        match fields::answer(list) {
            Ok(head) if head.status < 200 && !end_stream => {}
            Ok(head) if head.status < 200 => {
                self.fail_stream(
                    stream,
                    ErrorCode::PROTOCOL_ERROR,
                    "interim answer with END_STREAM",
                    actions,
                );
            }
            Ok(head) => {
                if let Some(state) = self.streams.get_mut(&stream) {
                    state.answered = true;
                    // A 2xx to CONNECT has no content; what a length says is ignored (RFC 9110 section 9.3.6).
                    let told = head.content_length.filter(|_| !(200..300).contains(&head.status));
                    state.content_left = told.map(Box::new);
                }
                actions.push(Action::Answer { stream, head });
                if end_stream {
                    self.end_of_stream(stream, actions);
                }
            }
            Err(what) => self.fail_stream(stream, ErrorCode::PROTOCOL_ERROR, what, actions),
        }
    }

    fn trailer_block(
        &mut self,
        stream: u32,
        end_stream: bool,
        list: Vec<hpack::Field>,
        actions: &mut Vec<Action<'_>>,
    ) {
        let fault = match fields::trailers(list) {
            Err(what) => what,
            Ok(()) if end_stream => return self.end_of_stream(stream, actions),
            Ok(()) => "trailers without END_STREAM",
        };
        self.fail_stream(stream, ErrorCode::PROTOCOL_ERROR, fault, actions);
    }
}
