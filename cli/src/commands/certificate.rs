//! `certificate`.
mod serial;

use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use wire::dump::{Certificate, CertificateState, ConfigDump};

use crate::render::Table;

const HEADER: [&str; 7] =
    ["CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"];

/// The table, in the order of the dump: each chain from its leaf up, then the roots.
pub(crate) fn table(dump: &ConfigDump, now: SystemTime) -> String {
    let mut table = Table::new(&HEADER, 5);
    let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
    for secret in &dump.certificates {
        if secret.cert_chain.is_empty() {
            let state = status(&secret.state).to_owned();
            let na = || "NA".to_owned();
            table.row([secret.identity.clone(), na(), state, "false".into(), na(), na(), na()]);
            continue;
        }
        let n = secret.cert_chain.len();
        for (index, certificate) in secret.cert_chain.iter().enumerate() {
            let kind = match index {
                0 => "Leaf",
                // Older dumps have the root at the end of the chain.
                _ if index + 1 == n && secret.root_certs.is_empty() => "Root",
                _ => "Intermediate",
            };
            table.row(row(secret, kind, certificate, now));
        }
        for certificate in &secret.root_certs {
            table.row(row(secret, "Root", certificate, now));
        }
    }
    table.render()
}

fn row(secret: &CertificateState, kind: &str, certificate: &Certificate, now: Timestamp) -> [String; 7] {
    let known = |text: &str| if text.is_empty() { "NA".to_owned() } else { text.to_owned() };
    [
        secret.identity.clone(),
        kind.to_owned(),
        status(&secret.state).to_owned(),
        is_valid(certificate, now).to_string(),
        serial::hexadecimal(&certificate.serial_number),
        known(&certificate.expiration_time),
        known(&certificate.valid_from),
    ]
}

fn status(state: &str) -> &str {
    if state.contains("Unavailable") { "Unavailable" } else { state }
}

fn is_valid(certificate: &Certificate, now: Timestamp) -> bool {
    let from: Result<Timestamp, _> = certificate.valid_from.parse();
    let until: Result<Timestamp, _> = certificate.expiration_time.parse();
    from.is_ok_and(|from| from < now) && until.is_ok_and(|until| now < until)
}

/// The list, in the order of the dump.
pub(crate) fn views(dump: &ConfigDump) -> Vec<View<'_>> {
    dump.certificates.iter().map(View::of).collect()
}

/// An identity in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View<'a> {
    identity: &'a str,
    state: &'a str,
    cert_chain: Vec<CertificateView<'a>>,
    root_certs: Vec<CertificateView<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateView<'a> {
    pem: &'a str,
    serial_number: &'a str,
    valid_from: &'a str,
    expiration_time: &'a str,
}

impl<'a> View<'a> {
    fn of(secret: &'a CertificateState) -> Self {
        let views = |certificates: &'a [Certificate]| certificates.iter().map(CertificateView::of).collect();
        Self {
            identity: &secret.identity,
            state: &secret.state,
            cert_chain: views(&secret.cert_chain),
            root_certs: views(&secret.root_certs),
        }
    }
}

impl<'a> CertificateView<'a> {
    fn of(certificate: &'a Certificate) -> Self {
        let Certificate { pem, serial_number, valid_from, expiration_time } = certificate;
        Self { pem, serial_number, valid_from, expiration_time }
    }
}
