//! All cases, by subject.

use crate::case::Case;

/// A case in five lines.
macro_rules! case {
    ($id:literal $level:ident: $title:literal,
     spec: $spec:literal, sent: $sent:literal, wanted: $wanted:literal,
     needs: [$($need:ident),*], run: $run:expr $(,)?) => {
        $crate::case::Case {
            id: $id,
            title: $title,
            level: $crate::case::Level::$level,
            spec: $spec,
            sent: $sent,
            wanted: $wanted,
            needs: &[$($crate::case::Need::$need),*],
            run: $run,
        }
    };
}

mod authority;
mod connect;
mod exchange;
mod floods;
mod frames;
mod goaway;
mod half_close;
mod headers;
mod hpack;
mod identity;
mod pseudo;
mod resets;
mod status;
mod streams;
mod tls;
mod windows;

/// Cases of one subject.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) cases: &'static [Case],
}

/// In the order in which they run: what everything rests on first, what may hurt the target last.
pub(crate) const GROUPS: &[Group] = &[
    tls::GROUP,
    identity::GROUP,
    connect::GROUP,
    authority::GROUP,
    pseudo::GROUP,
    headers::GROUP,
    hpack::GROUP,
    status::GROUP,
    frames::GROUP,
    streams::GROUP,
    half_close::GROUP,
    resets::GROUP,
    goaway::GROUP,
    windows::GROUP,
    floods::GROUP,
];

/// All cases in that order.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    GROUPS.iter().flat_map(|group| group.cases)
}
