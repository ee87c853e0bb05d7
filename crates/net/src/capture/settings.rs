//! Settings of the namespace's kernel with which an application's sockets answer under the mark they were called with.
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::Capture;
use crate::{NetNamespace, NetlinkError};

/// One setting; each is on with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// An accepted socket has the mark of the packet that opened it (both families).
    Accept,
    /// What answers without a socket, as a refusal does, has the mark of what it answers (IPv4).
    ReflectV4,
    /// The same for IPv6.
    ReflectV6,
}

impl Setting {
    const ALL: [Self; 3] = [Self::Accept, Self::ReflectV4, Self::ReflectV6];

    /// As `sysctl` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "net.ipv4.tcp_fwmark_accept",
            Self::ReflectV4 => "net.ipv4.fwmark_reflect",
            Self::ReflectV6 => "net.ipv6.fwmark_reflect",
        }
    }

    /// Shows the namespace of the thread that opens it.
    fn path(self) -> PathBuf {
        format!("/proc/sys/{}", self.name().replace('.', "/")).into()
    }

    fn read(self) -> io::Result<u8> {
        let text = fs::read_to_string(self.path())?;
        text.trim().parse().map_err(|_| io::Error::other(format!("{:?} is no setting", text.trim())))
    }

    /// The file is there already or the setting does not exist: nothing is ever created.
    fn write(self, value: u8) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path())?.write_all(format!("{value}\n").as_bytes())
    }
}

/// What the settings were before they were turned on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Before(BTreeMap<Setting, u8>);

impl Before {
    /// Reads what [`Self::to_string`] made; what else is there is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let values = text.split_whitespace().filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            let setting = Setting::ALL.into_iter().find(|setting| setting.name() == name)?;
            Some((setting, value.parse().ok()?))
        });
        values.collect()
    }
}

impl FromIterator<(Setting, u8)> for Before {
    fn from_iter<I: IntoIterator<Item = (Setting, u8)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl std::fmt::Display for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "before:")?;
        self.0.iter().try_for_each(|(setting, value)| write!(f, " {}={value}", setting.name()))
    }
}

/// A setting cannot be turned on, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot turn on {}: {source}", setting.name())]
pub struct SettingRefused {
    /// Which.
    pub setting: Setting,
    /// Why.
    pub source: io::Error,
}

fn needed(capture: &Capture) -> impl Iterator<Item = Setting> {
    let ipv6 = capture.ipv6;
    Setting::ALL.into_iter().filter(move |setting| ipv6 || *setting != Setting::ReflectV6)
}

/// Turns on what the capture needs, all or nothing. `known` is what an earlier call returned.
pub(super) fn turn_on(
    namespace: &NetNamespace,
    capture: &Capture,
    known: &Before,
) -> Result<Result<Before, SettingRefused>, NetlinkError> {
    let result = namespace.run(|| {
        let mut before = known.clone();
        let mut changed = Vec::new();
        for setting in needed(capture) {
            let turned = setting.read().and_then(|value| {
                before.0.entry(setting).or_insert(value);
                if value == 1 {
                    return Ok(());
                }
                setting.write(1)?;
                changed.push((setting, value));
                Ok(())
            });
            if let Err(source) = turned {
                for (setting, value) in changed {
                    let _ = setting.write(value);
                }
                return Err(SettingRefused { setting, source });
            }
        }
        Ok(before)
    })?;
    Ok(result)
}

/// Is all on that the capture needs?
pub(super) fn are_on(namespace: &NetNamespace, capture: &Capture) -> Result<bool, NetlinkError> {
    Ok(namespace.run(|| needed(capture).all(|setting| setting.read().is_ok_and(|value| value == 1)))?)
}

/// Could [`turn_on`] do it? Changes nothing.
pub(super) fn can_be_turned_on(namespace: &NetNamespace, capture: &Capture) -> Result<bool, NetlinkError> {
    let writable = |setting: Setting| OpenOptions::new().write(true).open(setting.path()).is_ok();
    Ok(namespace.run(|| needed(capture).all(writable))?)
}

/// Puts the settings back.
pub(super) fn put_back(namespace: &NetNamespace, before: &Before) -> Result<(), NetlinkError> {
    namespace.run(|| {
        for (setting, value) in &before.0 {
            let refused = |source| NetlinkError::Refused {
                operation: format!("put {} back to {value}", setting.name()),
                source,
            };
            if setting.read().map_err(refused)? != *value {
                setting.write(*value).map_err(refused)?;
            }
        }
        Ok(())
    })?
}
