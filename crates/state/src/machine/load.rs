//! What a database holds, read and checked as a whole before anything relies on it.

use retcd_storage::backend::{self, WriteBatch};

use super::{MachineOptions, OpenError};
use crate::alarm::Alarms;
use crate::auth::AuthStore;
use crate::lease::Lessor;
use crate::membership::Membership;
use crate::meta::{self, AppliedIndex};
use crate::{mvcc, version};

/// The parts of a machine.
pub(super) struct Loaded {
    pub(super) applied: AppliedIndex,
    pub(super) lessor: Lessor,
    pub(super) keyspace: mvcc::Loaded,
    pub(super) alarms: Alarms,
    pub(super) auth: AuthStore,
    pub(super) membership: Membership,
    pub(super) is_v2_written: bool,
    /// What the parts want to be written with the first entry.
    pub(super) batch: WriteBatch,
}

impl Loaded {
    /// Reads all of it. The cheap parts come first, so that a database that is not for us is
    /// refused soon.
    pub(super) fn read(
        reader: &backend::Reader,
        options: MachineOptions,
    ) -> Result<Loaded, OpenError> {
        if let Some(version) = version::detect(reader)? {
            version::check(version)?;
        }
        let mut batch = WriteBatch::default();
        let mut auth = AuthStore::open(reader)?;
        auth.initialize(&mut batch);
        let applied = meta::applied(reader)?;
        let alarms = Alarms::open(reader)?;
        let membership = Membership::open(reader, options.learners_max)?;
        let mut lessor = Lessor::open(reader, options.lessor)?;
        let keyspace = mvcc::Loaded::read(reader, options.value_bytes_max, options.jobs)?;
        if !lessor.is_empty() {
            // A lease that a file does not have is none: the key stays.
            keyspace.visit_leased(|lease, key| _ = lessor.attach(lease, key));
        }
        Ok(Loaded {
            applied,
            lessor,
            keyspace,
            alarms,
            auth,
            membership,
            is_v2_written: meta::is_v2_written(reader)?,
            batch,
        })
    }
}
