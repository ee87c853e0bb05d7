//! Collects what a translation has to say besides its records.

use std::collections::BTreeMap;

use super::{Remark, StatusCondition};
use crate::sources::objects::{Kind, Metadata, Name, ObjectRef};

#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) conditions: BTreeMap<ObjectRef, Vec<StatusCondition>>,
    pub(super) remarks: Vec<Remark>,
}

impl Notes {
    pub(super) fn condition(&mut self, kind: Kind, meta: &Metadata, condition: StatusCondition) {
        self.conditions.entry(object(kind, meta)).or_default().push(condition);
    }

    pub(super) fn remark(&mut self, kind: Kind, meta: &Metadata, code: &'static str, message: String) {
        self.remarks.push(Remark { object: object(kind, meta), code, message });
    }
}

fn object(kind: Kind, meta: &Metadata) -> ObjectRef {
    ObjectRef { kind, name: Name::new(&meta.namespace, &meta.name) }
}
