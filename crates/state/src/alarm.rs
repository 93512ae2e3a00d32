//! Alarms: which member has raised which.
//!
//! ```text
//! bucket alarm:   etcdserverpb.AlarmMember { 1 memberID, 2 alarm } → (empty)
//! ```

use std::collections::BTreeSet;

use prost::Message;
use retcd_proto::etcdserverpb::{AlarmMember, AlarmType};
use retcd_storage::backend::{self, BackendError, Bucket, WriteBatch};

/// A row of bucket `alarm` that is none.
#[derive(Debug, thiserror::Error)]
pub enum AlarmLoadError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The key cannot be read.
    #[error("damaged alarm in bucket alarm: key {0:02x?}")]
    Damaged(Box<[u8]>),
}

/// All raised alarms, by type and then by member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(i32, u64)>);

impl Alarms {
    /// Reads bucket `alarm`.
    pub fn open(reader: &backend::Reader) -> Result<Alarms, AlarmLoadError> {
        let mut alarms = Alarms::default();
        for row in reader.range(Bucket::Alarm, b"", None) {
            let (key, _) = row?;
            let alarm = AlarmMember::decode(&key[..])
                .map_err(|_| AlarmLoadError::Damaged(key[..].into()))?;
            alarms.0.insert((alarm.alarm, alarm.member_id));
        }
        Ok(alarms)
    }

    /// Whether any member has raised `alarm`.
    pub fn is_raised(&self, alarm: AlarmType) -> bool {
        self.0
            .range((alarm as i32, 0)..=(alarm as i32, u64::MAX))
            .next()
            .is_some()
    }

    /// The raised alarms of type `alarm`, or all for `NONE` (0).
    pub fn list(&self, alarm: i32) -> Vec<AlarmMember> {
        let wanted = self
            .0
            .iter()
            .filter(|(raised, _)| alarm == AlarmType::None as i32 || *raised == alarm);
        wanted
            .map(|&(alarm, member_id)| AlarmMember { member_id, alarm })
            .collect()
    }

    /// Raises `alarm`; raising it again changes nothing.
    pub(crate) fn activate(
        &mut self,
        member_id: u64,
        alarm: i32,
        batch: &mut WriteBatch,
    ) -> AlarmMember {
        let raised = AlarmMember { member_id, alarm };
        if self.0.insert((alarm, member_id)) {
            batch.put(
                Bucket::Alarm,
                &raised.encode_to_vec(),
                backend::Value::from(&b""[..]),
            );
        }
        raised
    }

    /// Takes `alarm` back; `None` if it is not raised.
    pub(crate) fn deactivate(
        &mut self,
        member_id: u64,
        alarm: i32,
        batch: &mut WriteBatch,
    ) -> Option<AlarmMember> {
        if !self.0.remove(&(alarm, member_id)) {
            return None;
        }
        let raised = AlarmMember { member_id, alarm };
        batch.delete(Bucket::Alarm, &raised.encode_to_vec());
        Some(raised)
    }
}

#[cfg(test)]
mod tests {
    use retcd_storage::backend::Backend;

    use super::*;

    #[test]
    fn rows_are_etcds_and_come_back() {
        let backend = Backend::default();
        let mut batch = WriteBatch::default();
        let mut alarms = Alarms::default();
        alarms.activate(0x9939_5b41_7465_4d87, AlarmType::Nospace as i32, &mut batch);
        alarms.activate(7, AlarmType::Corrupt as i32, &mut batch);
        alarms.activate(7, AlarmType::Corrupt as i32, &mut batch);
        backend.write(batch);
        let rows: Vec<_> = backend
            .reader()
            .range(Bucket::Alarm, b"", None)
            .map(|row| row.unwrap())
            .collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(&rows[0].0[..], b"\x08\x07\x10\x02");
        assert_eq!(
            &rows[1].0[..],
            b"\x08\x87\x9b\x95\xa3\x97\xe8\xd6\x9c\x99\x01\x10\x01"
        );
        assert!(rows.iter().all(|(_, value)| value.is_empty()));

        let mut reopened = Alarms::open(&backend.reader()).unwrap();
        assert_eq!(reopened, alarms);
        assert!(reopened.is_raised(AlarmType::Corrupt));
        let mut batch = WriteBatch::default();
        assert_eq!(reopened.deactivate(8, 2, &mut batch), None);
        assert!(reopened.deactivate(7, 2, &mut batch).is_some());
        backend.write(batch);
        let reopened = Alarms::open(&backend.reader()).unwrap();
        assert!(!reopened.is_raised(AlarmType::Corrupt));
        assert_eq!(reopened.list(0).len(), 1);
        assert_eq!(reopened.list(2), vec![]);
    }

    #[test]
    fn a_damaged_row_is_an_error() {
        let backend = Backend::default();
        let mut batch = WriteBatch::default();
        batch.put(Bucket::Alarm, b"\xff", backend::Value::from(&b""[..]));
        backend.write(batch);
        assert!(
            matches!(Alarms::open(&backend.reader()), Err(AlarmLoadError::Damaged(key)) if *key == b"\xff"[..])
        );
    }
}
