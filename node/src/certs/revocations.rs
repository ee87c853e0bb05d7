//! Follows the file of revocation lists (`CRL_PATH`, data-path 4.9).
//!
//! A file that is missing or makes no sense never ends what is in force: it is told at error level and looked at again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use identity::{RevocationError, RevocationLists};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::sync::watch;

/// The file is looked at this often; a mounted ConfigMap changes by a swap of links, which no watch of one file sees.
const INTERVAL: Duration = Duration::from_secs(2);
/// A longer file is not read.
const LONGEST: u64 = 16 << 20;

/// The lists and the file they come from.
#[derive(Debug)]
pub(crate) struct Revocations {
    path: PathBuf,
    lists: RevocationLists,
    /// Counts the lists that came into force.
    revision: watch::Sender<u64>,
    /// What the file held when it was last looked at.
    seen: Option<Result<Vec<u8>, io::ErrorKind>>,
}

/// Counts the lists that came into force, for those who judge by them. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Revision {
    count: watch::Receiver<u64>,
    /// The last one that turned out untrustworthy.
    untrusted: Arc<AtomicU64>,
}

impl Revision {
    pub(crate) fn new(count: watch::Receiver<u64>) -> Self {
        Self { count, untrusted: Arc::default() }
    }

    /// The current one.
    pub(crate) fn now(&self) -> u64 {
        *self.count.borrow()
    }

    /// Waits for another one; `false` if none will ever come.
    pub(crate) async fn changed(&mut self) -> bool {
        self.count.changed().await.is_ok()
    }

    /// A list cannot be trusted; whether nobody has said so of this revision.
    pub(crate) fn is_first_doubt(&self) -> bool {
        let now = self.now();
        self.untrusted.fetch_max(now, Ordering::Relaxed) < now
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error(transparent)]
    Invalid(#[from] RevocationError),
}

impl Unusable {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "config-crl-unreadable",
            Self::Invalid(error) => error.code(),
        }
    }
}

impl Revocations {
    /// Reads the file for the first time.
    pub(crate) fn open(path: PathBuf) -> Self {
        let (lists, revision) = (RevocationLists::default(), watch::Sender::new(0));
        let mut revocations = Self { path, lists, revision, seen: None };
        revocations.look();
        revocations
    }

    /// What handshakes ask.
    pub(crate) fn lists(&self) -> RevocationLists {
        self.lists.clone()
    }

    /// Which lists are in force: when others are, what is open already has to be judged again.
    pub(crate) fn revision(&self) -> Revision {
        Revision::new(self.revision.subscribe())
    }

    /// Takes up changes for as long as it is polled.
    pub(crate) async fn follow(mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(again) => self = again,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The process is stopping.
                    Err(_) => return,
                },
            }
        }
    }

    /// Takes up what the file holds, if that is something new.
    fn look(&mut self) {
        let read = read(&self.path);
        let seen = read.as_ref().map(Clone::clone).map_err(io::Error::kind);
        if self.seen.as_ref() == Some(&seen) {
            return;
        }
        self.seen = Some(seen);
        let path = self.path.display();
        match read.map_err(Unusable::from).and_then(|content| Ok(self.lists.replace(&content)?)) {
            Ok(n_lists) => {
                tracing::info!(%path, n_lists, "certificate revocation lists are in force");
                self.revision.send_modify(|revision| *revision += 1);
            }
            // Istio's chart names a file that usually does not exist.
            Err(Unusable::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(%path, code = "config-crl-unreadable", "there is no file of revocation lists");
            }
            Err(error) => {
                let code = error.code();
                tracing::error!(%path, code, %error, "failed to initialize crl manager: the lists in force stay");
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut content = Vec::new();
    let n = std::fs::File::open(path)?.take(LONGEST + 1).read_to_end(&mut content)?;
    if n as u64 > LONGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(content) }
}

/// `istio_crl_policy_rejections_total`, read when somebody looks.
#[derive(Debug)]
pub(crate) struct Rejections(pub(crate) RevocationLists);

impl Collector for Rejections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "istio_crl_policy_rejections",
            "The total number of connections rejected due to CRL policy (unstable)",
            None,
            MetricType::Counter,
        )?;
        let counts = [("destination", self.0.n_refused_clients()), ("source", self.0.n_refused_servers())];
        for (reporter, n) in counts {
            ConstCounter::new(n).encode(family.encode_family(&[("reporter", reporter)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(by: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>) -> String {
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2026, 2, 1),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(by).unwrap().pem().unwrap()
    }

    // A-MI-06
    #[tokio::test(start_paused = true)]
    async fn the_file_is_taken_up_when_it_appears_and_kept_when_it_breaks() {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca-crl.pem");

        let mut revocations = Revocations::open(path.clone());
        assert!(matches!(revocations.seen, Some(Err(io::ErrorKind::NotFound))));
        std::fs::write(&path, list(&authority)).unwrap();
        revocations.look();
        assert_eq!(revocations.lists.n_lists(), 1);
        std::fs::write(&path, "nonsense").unwrap();
        revocations.look();
        assert_eq!(revocations.lists.n_lists(), 1, "kept");
        assert_eq!(revocations.revision().now(), 1, "told once");
        std::fs::write(&path, list(&authority) + &list(&authority)).unwrap();
        let lists = revocations.lists();
        let following = revocations.follow();
        let taken_up = async {
            while lists.n_lists() != 2 {
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            () = following => panic!("it goes on"),
            () = taken_up => {}
        }
    }
}
