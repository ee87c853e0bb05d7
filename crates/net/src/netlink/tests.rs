//! Lists: those that cannot be read as a whole, that end early, or that change while they are told.
use netlink_packet_core::{DoneMessage, NLM_F_MULTIPART};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;

use super::*;

const QUESTION: u32 = 7;

fn packed(payload: NetlinkPayload<RouteNetlinkMessage>, flags: u16) -> Vec<u8> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
    message.header.flags = NLM_F_MULTIPART | flags;
    message.header.sequence_number = QUESTION;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

fn route(flags: u16) -> Vec<u8> {
    packed(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(RouteMessage::default())), flags)
}

/// A route that says of an attribute that it is longer than the message.
fn unreadable(flags: u16) -> Vec<u8> {
    let mut bytes = route(flags);
    bytes.extend_from_slice(&[200, 0, 1, 0]);
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

fn done(code: i32) -> Vec<u8> {
    let mut end = DoneMessage::default();
    end.code = code;
    packed(NetlinkPayload::Done(end), 0)
}

fn told(packets: &[Vec<u8>], most: usize) -> Result<Option<End<RouteNetlinkMessage>>, NetlinkError> {
    let mut answers = Answers::new("list the routes", QUESTION, most);
    answers.add(messages(&packets.concat()))
}

#[track_caller]
fn dump(packets: &[Vec<u8>], most: usize) -> Dump<RouteNetlinkMessage> {
    match told(packets, most) {
        Ok(Some(End::Told(dump))) => dump,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_message_that_cannot_be_read_does_not_cost_the_others() {
    let found = dump(&[route(0), unreadable(0), route(0), done(0)], usize::MAX);
    assert_eq!((found.read.len(), found.unread, found.cut), (2, 1, false));
    assert_eq!(found.whole("list").unwrap_err().code(), "netlink-answer");
    assert_eq!(dump(&[route(0), done(0)], usize::MAX).whole("list").unwrap().len(), 1);
}

/// Of somebody else's question nothing counts.
#[test]
fn answers_to_another_question_are_passed_over() {
    let mut answers = Answers::<RouteNetlinkMessage>::new("list the routes", QUESTION + 1, usize::MAX);
    assert!(answers.add(messages(&[route(0), unreadable(0), done(0)].concat())).unwrap().is_none());
    assert_eq!((answers.dump.read.len(), answers.dump.unread), (0, 0));
}

#[test]
fn a_list_that_breaks_off_is_refused_and_one_that_changed_is_not_complete() {
    let error = told(&[route(0), done(-libc::ENOMEM)], usize::MAX).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOMEM));
    for first in [route(NLM_F_DUMP_INTR), unreadable(NLM_F_DUMP_INTR)] {
        let changed = told(&[first, route(0), done(0)], usize::MAX).unwrap();
        assert!(matches!(changed, Some(End::Changed)), "{changed:?}");
    }
    assert!(told(&[route(0)], usize::MAX).unwrap().is_none());
}

#[test]
fn more_than_were_asked_for_are_not_read_to_the_end() {
    let found = dump(&[route(0), route(0), route(0)], 2);
    assert!(found.cut);
    assert!(found.whole("list").is_err());
    assert!(!dump(&[route(0), route(0), done(0)], 2).cut);
}

/// An end that cannot be read would be waited for without end.
#[test]
fn an_end_that_cannot_be_read_is_an_error() {
    let mut end = done(0);
    end.truncate(18);
    end[..4].copy_from_slice(&18_u32.to_ne_bytes());
    assert_eq!(told(&[end], usize::MAX).unwrap_err().code(), "netlink-answer");
}
