//! The files of `ROOT_CA_DIR`: complete, or nothing. Half a set must not end in a root of our own.
use super::*;

/// `cacerts` layout: signer, key, root, chain.
const OWN: [&str; 4] = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"];
/// `kubernetes.io/tls` layout: signer, key, root.
const TLS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// What was found.
pub(in crate::authority) enum PluggedFiles {
    /// No file of either layout.
    None,
    /// Only `root-cert.pem`: published beside a root of our own.
    ExtraRoots(String),
    /// A whole set, PEM texts.
    Complete { signer: String, key: String, chain: String, roots: String },
}

impl PluggedFiles {
    pub(in crate::authority) fn read(folder: &Path) -> Result<Self, MaterialError> {
        let found = |names: &[&'static str]| {
            names.iter().map(|name| read(folder, name)).collect::<Result<Vec<_>, _>>()
        };
        let own = found(&OWN)?;
        let tls = found(&TLS)?;
        match (<[_; 4]>::try_from(own), <[_; 3]>::try_from(tls)) {
            (Ok([Some(signer), Some(key), Some(roots), Some(chain)]), _) => {
                Ok(Self::Complete { signer, key, chain, roots })
            }
            (Ok([None, None, Some(extra), None]), Ok([None, None, None])) => Ok(Self::ExtraRoots(extra)),
            (Ok([None, None, None, None]), Ok([None, None, None])) => Ok(Self::None),
            (Ok([None, None, None, None]), Ok([Some(signer), Some(key), Some(roots)])) => {
                Ok(Self::Complete { chain: format!("{signer}\n{roots}"), signer, key, roots })
            }
            (Ok([None, None, None, None]), Ok(tls)) => Err(partial(folder, &TLS, &tls)),
            (Ok(own), _) => Err(partial(folder, &OWN, &own)),
            (Err(_), _) => Ok(Self::None),
        }
    }

    /// Changes when a file does; nothing when the folder cannot be read.
    pub(in crate::authority) fn fingerprint(folder: &Path) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        for name in OWN.iter().chain(&TLS) {
            read(folder, name).ok()?.hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

fn read(folder: &Path, name: &str) -> Result<Option<String>, MaterialError> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(MaterialError::Io { path, source }),
    }
}

fn partial(folder: &Path, names: &[&'static str], found: &[Option<String>]) -> MaterialError {
    let missing = names.iter().zip(found).filter(|(_, text)| text.is_none()).map(|(name, _)| *name).collect();
    MaterialError::Partial { folder: folder.to_owned(), missing }
}
