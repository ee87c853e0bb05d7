//! The record layer as part of a live tunnel.

use zeroize::Zeroizing;

use super::protection::Direction;
use super::schedule::{Secret, Suite};
use super::session::Parts;
use crate::live::codec::{Malformed, Portable, Reader, Writer, portable};

portable!(enum Suite { 1 => Aes128GcmSha256, 2 => Aes256GcmSha384, 3 => Chacha20Poly1305Sha256 });
portable!(struct Parts { role, read, write, carry, message, idle, owes_update });

impl Portable for Direction {
    fn put(&self, to: &mut Writer) {
        self.secret().suite().put(to);
        to.octets(self.secret().octets());
        self.sequence().put(to);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let suite = Suite::take(from)?;
        let octets = Zeroizing::new(from.octets()?.to_vec());
        let secret = Secret::new(suite, octets).ok_or(Malformed("traffic secret"))?;
        Self::new(secret, u64::take(from)?).ok_or(Malformed("traffic secret"))
    }
}
