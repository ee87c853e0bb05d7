//! The application traffic secrets of one handshake, taken from where rustls would log them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::KeyLog;
use zeroize::Zeroizing;

/// Passes everything on to the configuration's own key log, and keeps the two secrets our record layer starts from.
pub(crate) struct Capture {
    own_log: Arc<dyn KeyLog>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    client: Option<Zeroizing<Vec<u8>>>,
    server: Option<Zeroizing<Vec<u8>>>,
}

/// Both secrets of a connection.
pub(crate) struct Secrets {
    pub(crate) client: Zeroizing<Vec<u8>>,
    pub(crate) server: Zeroizing<Vec<u8>>,
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

impl Capture {
    pub(crate) fn new(own_log: Arc<dyn KeyLog>) -> Arc<Self> {
        Arc::new(Self { own_log, kept: Mutex::default() })
    }

    /// The client's and the server's secret, once.
    pub(crate) fn take(&self) -> Option<Secrets> {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        Some(Secrets { client: kept.client?, server: kept.server? })
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Capture")
    }
}

impl KeyLog for Capture {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if self.own_log.will_log(label) {
            self.own_log.log(label, client_random, secret);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match label {
            CLIENT => kept.client = Some(Zeroizing::new(secret.to_vec())),
            SERVER => kept.server = Some(Zeroizing::new(secret.to_vec())),
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == CLIENT || label == SERVER || self.own_log.will_log(label)
    }
}
