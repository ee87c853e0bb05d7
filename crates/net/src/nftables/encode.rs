//! A rule as the kernel's expressions: load something into the register, mask it, compare it; count; act.
use std::net::IpAddr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

use super::{Action, Bits, Is, Match, Rule, Transport};

/// `enum nft_ct_keys`.
pub(super) const CT_MARK: u32 = 3;
pub(super) const CT_ZONE: u32 = 17;
/// `enum nft_ct_attributes`.
pub(super) const CT_DESTINATION_REGISTER: u16 = 1;
pub(super) const CT_KEY: u16 = 2;
pub(super) const CT_SOURCE_REGISTER: u16 = 4;
/// `enum nft_redir_attributes`.
pub(super) const REDIRECT_FIRST_PORT: u16 = 1;
/// `enum nft_payload_bases`.
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;
/// Protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
/// `NF_ACCEPT`.
pub(super) const ACCEPT: Verdict = Verdict::Other(1);
/// `IFNAMSIZ`: a whole name is compared with its padding.
pub(super) const NAME: usize = 16;

/// `enum nft_socket_attributes`, `enum nft_socket_keys`.
pub(super) const SOCKET_KEY: u16 = 1;
pub(super) const SOCKET_DESTINATION_REGISTER: u16 = 2;
pub(super) const SOCKET_MARK: u32 = 1;
/// `NFTNL_UDATA_TABLE_COMMENT`.
pub(super) const COMMENT: u8 = 0;

const R: Register = Register::Reg1;

pub(super) fn rule(rule: &Rule) -> Vec<ListAttribute<ExpressionAttribute>> {
    let mut out = Vec::new();
    for one in &rule.matches {
        encode_match(one, &mut out);
    }
    out.push(other("counter", vec![]));
    encode_action(&rule.action, &mut out);
    out.into_iter().map(ListAttribute::from).collect()
}

/// A comment as `nft` keeps it: type, length, text with its final zero. What is longer than it can say is cut.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let text: Vec<u8> = text.bytes().take(usize::from(u8::MAX) - 1).chain([0]).collect();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [vec![COMMENT, length], text].concat()
}

fn encode_match(one: &Match, out: &mut Vec<Expressions>) {
    match one {
        Match::InLink(is, name) => out.extend([meta(MetaKey::Iifname), compare(*is, padded(name))]),
        Match::OutLink(is, name) => out.extend([meta(MetaKey::Oifname), compare(*is, padded(name))]),
        Match::Protocol(transport) => {
            let number = if *transport == Transport::Tcp { TCP } else { UDP };
            out.extend([meta(MetaKey::L4Proto), compare(Is::Equal, vec![number])]);
        }
        Match::SourcePort(is, port) => {
            out.extend([payload(TRANSPORT, 0, 2), compare(*is, port.to_be_bytes().to_vec())]);
        }
        Match::DestinationPort(is, port) => {
            out.extend([payload(TRANSPORT, 2, 2), compare(*is, port.to_be_bytes().to_vec())]);
        }
        Match::Mark(is, bits) => out.extend([meta(MetaKey::Mark), keep(bits.mask), compare_mark(*is, *bits)]),
        Match::ConnectionMark(is, bits) => {
            out.extend([load_ct_mark(), keep(bits.mask), compare_mark(*is, *bits)]);
        }
        Match::SocketMark(is, bits) => {
            let attributes = vec![(SOCKET_KEY, SOCKET_MARK), (SOCKET_DESTINATION_REGISTER, u32::from(R))];
            out.extend([other("socket", attributes), keep(bits.mask), compare_mark(*is, *bits)]);
        }
        Match::Source(is, address) => address_at(address, 12, 8, *is, out),
        Match::Destination(is, address) => address_at(address, 16, 24, *is, out),
    }
}

fn encode_action(action: &Action, out: &mut Vec<Expressions>) {
    match action {
        Action::Redirect(port) => {
            out.push(immediate(port.to_be_bytes().to_vec()));
            out.push(other("redir", vec![(REDIRECT_FIRST_PORT, u32::from(R))]));
        }
        Action::Accept => out.push(verdict(vec![VerdictAttribute::Code(ACCEPT)])),
        Action::Return => out.push(verdict(vec![VerdictAttribute::Code(Verdict::Return)])),
        Action::Jump(chain) => out.push(verdict(vec![
            VerdictAttribute::Code(Verdict::Jump),
            VerdictAttribute::Chain(chain.clone()),
        ])),
        Action::SetConnectionMark(bits) => {
            out.extend([load_ct_mark(), bitwise(!bits.mask, bits.value), store_ct(CT_MARK)]);
        }
        Action::RestoreMark => {
            out.extend([load_ct_mark(), store_mark()]);
        }
        Action::Zone(zone) => out.extend([immediate(zone.to_ne_bytes().to_vec()), store_ct(CT_ZONE)]),
        Action::Untrack => {
            out.extend([other("notrack", vec![]), verdict(vec![VerdictAttribute::Code(ACCEPT)])]);
        }
        Action::MarkUntracked(bits) => {
            out.extend([meta(MetaKey::Mark), bitwise(!bits.mask, bits.value), store_mark()]);
            encode_action(&Action::Untrack, out);
        }
        // Never written: it only comes out of the decoder.
        Action::Unknown(_) => {}
    }
}

fn address_at(address: &IpAddr, v4: u32, v6: u32, is: Is, out: &mut Vec<Expressions>) {
    let (family, offset, bytes) = match address {
        IpAddr::V4(address) => (IPV4, v4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, v6, address.octets().to_vec()),
    };
    let length = if family == IPV4 { 4 } else { 16 };
    out.extend([meta(MetaKey::Nfproto), compare(Is::Equal, vec![family])]);
    out.extend([payload(NETWORK, offset, length), compare(is, bytes)]);
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(R)])
}

fn store_mark() -> Expressions {
    Expressions::Meta(vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(R)])
}

fn payload(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(R),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn compare(is: Is, bytes: Vec<u8>) -> Expressions {
    let operator = if is == Is::Equal { Operator::Equal } else { Operator::NotEqual };
    Expressions::Cmp(vec![Cmp::SourceRegister(R), Cmp::Op(operator), Cmp::Data(DataAttribute::Value(bytes))])
}

fn compare_mark(is: Is, bits: Bits) -> Expressions {
    compare(is, bits.value.to_ne_bytes().to_vec())
}

fn keep(mask: u32) -> Expressions {
    bitwise(mask, 0)
}

/// register = (register & mask) ^ xor
fn bitwise(mask: u32, xor: u32) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(R),
        Bitwise::DestinationRegister(R),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_ne_bytes().to_vec())),
        Bitwise::Xor(DataAttribute::Value(xor.to_ne_bytes().to_vec())),
    ])
}

fn immediate(bytes: Vec<u8>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(R),
        Immediate::Data(DataAttribute::Value(bytes)),
    ])
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

fn load_ct_mark() -> Expressions {
    other("ct", vec![(CT_KEY, CT_MARK), (CT_DESTINATION_REGISTER, u32::from(R))])
}

fn store_ct(key: u32) -> Expressions {
    other("ct", vec![(CT_KEY, key), (CT_SOURCE_REGISTER, u32::from(R))])
}

/// Expressions the message library has no type for; their attributes are big-endian numbers.
fn other(name: &str, attributes: Vec<(u16, u32)>) -> Expressions {
    let attributes =
        attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value.to_be_bytes().to_vec()));
    Expressions::Other { expression_type: name.to_owned(), attributes: attributes.collect() }
}

fn padded(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(NAME, 0);
    bytes
}
