//! History as watchers that fell behind read it.

use super::reader::View;
use super::{Event, Record, StorageError};
use crate::watch::{History, HistoryError};

impl History for View {
    type Error = StorageError;

    /// Previous records are left out: who wants them asks [`History::record_at`].
    fn changes(
        &self,
        from: i64,
        to: i64,
        each: &mut dyn FnMut(Event) -> bool,
    ) -> Result<(), HistoryError<StorageError>> {
        if from < self.compacted {
            return Err(HistoryError::Compacted(self.compacted));
        }
        for change in self.rows(from, to) {
            let (_, kind, record) = change.map_err(HistoryError::Failed)?;
            if !each(Event {
                kind,
                record,
                prev: None,
            }) {
                break;
            }
        }
        Ok(())
    }

    fn record_at(&self, key: &[u8], revision: i64) -> Result<Option<Record>, StorageError> {
        if revision < self.compacted {
            return Ok(None);
        }
        View::record_at(self, key, revision)
    }
}
