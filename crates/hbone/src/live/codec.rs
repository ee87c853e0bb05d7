//! How the parts of a live tunnel become bytes and back.
//!
//! Numbers are big-endian and of fixed width; a `bool` or the tag of an enum is one octet; octets and sequences carry
//! their count in four octets; an option is a `bool` and, if set, its value; an instant is the signed number of
//! microseconds from the moment of export. Fields follow each other in the order of their declaration here.
//!
//! Reading never trusts a count: memory is taken for what is there.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::{ErrorCode, Settings};

/// The bytes are not a live tunnel of this version; `what` says where they are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Collects bytes. There are secrets among them, so buffers that were outgrown are wiped.
pub(crate) struct Writer {
    bytes: Zeroizing<Vec<u8>>,
    now: Instant,
}

impl Writer {
    pub(crate) fn new(now: Instant) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(4096)), now }
    }

    /// The moment of export.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed * 2));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn count(&mut self, count: usize) {
        u32::try_from(count).unwrap_or(u32::MAX).put(self);
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.count(octets.len());
        self.raw(octets);
    }
}

/// Takes bytes apart.
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
    now: Instant,
    /// What the importing side has set; the parts that were agreed with the peer come from the bytes.
    pub(crate) settings: &'b Settings,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8], now: Instant, settings: &'b Settings) -> Self {
        Self { bytes, now, settings }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn raw(&mut self, count: usize) -> Result<&'b [u8], Malformed> {
        let (front, rest) = self.bytes.split_at_checked(count).ok_or(Malformed("truncated"))?;
        self.bytes = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.raw(N)?.try_into().map_err(|_| Malformed("truncated"))
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(u32::take(self)?).map_err(|_| Malformed("count"))
    }

    pub(crate) fn octets(&mut self) -> Result<&'b [u8], Malformed> {
        let count = self.count()?;
        self.raw(count)
    }
}

/// Something a live tunnel consists of.
pub(crate) trait Portable: Sized {
    fn put(&self, to: &mut Writer);
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Portable for $number {
            fn put(&self, to: &mut Writer) {
                to.raw(&self.to_be_bytes());
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self::from_be_bytes(from.array()?))
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, i64);

impl Portable for usize {
    fn put(&self, to: &mut Writer) {
        u64::try_from(*self).unwrap_or(u64::MAX).put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::try_from(u64::take(from)?).map_err(|_| Malformed("number too large"))
    }
}

impl Portable for bool {
    fn put(&self, to: &mut Writer) {
        u8::from(*self).put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither true nor false")),
        }
    }
}

impl Portable for String {
    fn put(&self, to: &mut Writer) {
        to.octets(self.as_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::from_utf8(from.octets()?.to_vec()).map_err(|_| Malformed("not text"))
    }
}

impl Portable for Duration {
    fn put(&self, to: &mut Writer) {
        u64::try_from(self.as_micros()).unwrap_or(u64::MAX).put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self::from_micros(u64::take(from)?).min(FAR))
    }
}

/// No deadline of ours lies further away, and none that was read may.
const FAR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The clock stands still while a tunnel is on its way.
impl Portable for Instant {
    fn put(&self, to: &mut Writer) {
        let ahead = self.saturating_duration_since(to.now);
        let behind = to.now.saturating_duration_since(*self);
        let micros = |span: Duration| i64::try_from(span.min(FAR).as_micros()).unwrap_or(0);
        (micros(ahead) - micros(behind)).put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let micros = i64::take(from)?;
        let span = Duration::from_micros(micros.unsigned_abs()).min(FAR);
        let at = if micros < 0 { from.now.checked_sub(span) } else { from.now.checked_add(span) };
        // A machine that has not run that long has no such moment; the oldest it has will do.
        Ok(at.unwrap_or(from.now))
    }
}

impl Portable for ErrorCode {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(u32::take(from)?))
    }
}

impl<T: Portable> Portable for Option<T> {
    fn put(&self, to: &mut Writer) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if bool::take(from)? { T::take(from).map(Some) } else { Ok(None) }
    }
}

impl<A: Portable, B: Portable> Portable for (A, B) {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
        self.1.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl<T: Portable> Portable for Vec<T> {
    fn put(&self, to: &mut Writer) {
        to.count(self.len());
        self.iter().for_each(|item| item.put(to));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count()?;
        // Every item has an octet at least.
        let mut items = Self::with_capacity(count.min(from.bytes.len()).min(1 << 12));
        for _ in 0..count {
            items.push(T::take(from)?);
        }
        Ok(items)
    }
}

impl<T: Portable> Portable for VecDeque<T> {
    fn put(&self, to: &mut Writer) {
        to.count(self.len());
        self.iter().for_each(|item| item.put(to));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Vec::take(from).map(Self::from)
    }
}

impl<T: Portable> Portable for Box<T> {
    fn put(&self, to: &mut Writer) {
        T::put(self, to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::take(from).map(Self::new)
    }
}

impl<T: Portable> Portable for BTreeMap<u32, T> {
    fn put(&self, to: &mut Writer) {
        to.count(self.len());
        for (key, value) in self {
            key.put(to);
            value.put(to);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let entries: Vec<(u32, T)> = Vec::take(from)?;
        let count = entries.len();
        let map: Self = entries.into_iter().collect();
        if map.len() == count { Ok(map) } else { Err(Malformed("repeated key")) }
    }
}

/// Implements [`Portable`] for a structure or an enum. Every field has to be named: one that is added and forgotten
/// here does not compile.
macro_rules! portable {
    (struct $name:ty { $($field:ident),* $(,)? }) => {
        impl $crate::live::codec::Portable for $name {
            fn put(&self, to: &mut $crate::live::codec::Writer) {
                let Self { $($field),* } = self;
                $($crate::live::codec::Portable::put($field, to);)*
            }
            fn take(
                from: &mut $crate::live::codec::Reader<'_>,
            ) -> Result<Self, $crate::live::codec::Malformed> {
                $(let $field = $crate::live::codec::Portable::take(from)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
    (enum $name:ty {
        $($tag:literal => $variant:ident $(($value:ident))? $({ $($field:ident),* })?),* $(,)?
    }) => {
        impl $crate::live::codec::Portable for $name {
            fn put(&self, to: &mut $crate::live::codec::Writer) {
                match self {
                    $(Self::$variant $(($value))? $({ $($field),* })? => {
                        to.raw(&[$tag]);
                        $($crate::live::codec::Portable::put($value, to);)?
                        $($($crate::live::codec::Portable::put($field, to);)*)?
                    })*
                }
            }
            fn take(
                from: &mut $crate::live::codec::Reader<'_>,
            ) -> Result<Self, $crate::live::codec::Malformed> {
                match <u8 as $crate::live::codec::Portable>::take(from)? {
                    $($tag => {
                        $(let $value = $crate::live::codec::Portable::take(from)?;)?
                        $($(let $field = $crate::live::codec::Portable::take(from)?;)*)?
                        Ok(Self::$variant $(($value))? $({ $($field),* })?)
                    })*
                    _ => Err($crate::live::codec::Malformed("unknown variant")),
                }
            }
        }
    };
}

pub(crate) use portable;
