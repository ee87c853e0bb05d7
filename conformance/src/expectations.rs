//! Known deviations of a target: case id to the reason, as YAML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cases;

/// What is wrong with a file of expectations.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpectationsError {
    /// Cannot be read.
    #[error("{file}: {reason}")]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// Is no map of ids to reasons.
    #[error("{file}: {reason}")]
    Parse {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// Names a case that does not exist.
    #[error("{file}: there is no case {id}")]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The id.
        id: String,
    },
    /// A deviation without an argument is a deviation unseen.
    #[error("{file}: {id} has no reason")]
    Unargued {
        /// The file.
        file: PathBuf,
        /// The id.
        id: String,
    },
}

/// Cases that are known to fail, and why that is accepted.
#[derive(Debug, Default)]
pub(crate) struct Expectations(BTreeMap<String, String>);

impl Expectations {
    pub(crate) fn read(file: &Path) -> Result<Self, ExpectationsError> {
        let owned = || file.to_owned();
        let text = std::fs::read_to_string(file)
            .map_err(|reason| ExpectationsError::Read { file: owned(), reason })?;
        let known: BTreeMap<String, String> = serde_saphyr::from_str(&text)
            .map_err(|error| ExpectationsError::Parse { file: owned(), reason: error.to_string() })?;
        for (id, reason) in &known {
            if !cases::all().any(|case| case.id == id) {
                return Err(ExpectationsError::Unknown { file: owned(), id: id.clone() });
            }
            if reason.trim().is_empty() {
                return Err(ExpectationsError::Unargued { file: owned(), id: id.clone() });
            }
        }
        Ok(Self(known))
    }

    /// Why the case is known to fail.
    pub(crate) fn reason(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_ship_name_real_cases_with_reasons() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("expectations");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Expectations::read(&entry.unwrap().path()).unwrap();
            read += 1;
        }
        assert!(read > 0);
    }

    #[test]
    fn a_case_that_does_not_exist_is_a_mistake() {
        let file = std::env::temp_dir().join(format!("culvert-expectations-{}.yaml", std::process::id()));
        std::fs::write(&file, "HB-NONE-99: because\n").unwrap();
        let error = Expectations::read(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(error, ExpectationsError::Unknown { .. }), "{error}");
    }
}
