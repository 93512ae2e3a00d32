//! A range that is read in pages, all at one revision, so that neither side holds more than a page.
//!
//! Pages and not `RangeStream`, because a page can be asked for again when a connection breaks, and
//! etcd before 3.7 knows nothing else. The number of keys of a page follows from the bytes of the one
//! before.

use std::time::Duration;

use bytes::Bytes;
use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::RangeRequest;
use retcd_proto::mvccpb::KeyValue;

use super::context::failed;
use crate::cli::Exit;

/// Bytes that a page is meant to have.
const PAGE_BYTES: usize = 4 << 20;
/// Keys of the first page; a value has 1.5 MiB at most by default.
const FIRST_KEYS: usize = 16;
/// Keys of a page: more make no difference, and members count what lies behind a page for each.
const PAGE_KEYS_MAX: usize = 10_000;

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// A reader of pages.
pub(super) struct Pages {
    client: Client,
    timeout: Duration,
    /// The next key to read; `None` behind the last page.
    next: Option<Bytes>,
    range_end: Bytes,
    revision: i64,
    limit: usize,
}

/// Keys of a range, in order.
pub(super) struct Page {
    pub(super) kvs: Vec<KeyValue>,
    /// The number of keys in the pages behind this one.
    pub(super) left: u64,
}

impl Pages {
    /// Reads a range as of `revision`, or as of the moment of the first page for 0. Each page has the
    /// timeout.
    pub(super) fn new(
        client: &Client,
        timeout: Duration,
        (key, range_end): (Vec<u8>, Vec<u8>),
        revision: i64,
    ) -> Pages {
        Pages {
            client: client.clone(),
            timeout,
            next: Some(key.into()),
            range_end: range_end.into(),
            revision,
            limit: FIRST_KEYS,
        }
    }

    /// The revision of all pages; the asked one before the first page.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// The next page; `None` at the end. The first page may be empty.
    ///
    /// # Errors
    /// A request failed. The text has the next step where there is one.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, Exit> {
        let Some(key) = self.next.take() else {
            return Ok(None);
        };
        let request = RangeRequest {
            key,
            range_end: self.range_end.clone(),
            limit: self.limit as i64,
            revision: self.revision,
            ..RangeRequest::default()
        };
        let client = self.client.with_timeout(self.timeout);
        let response = client.range(request).await.map_err(explained)?;
        if self.revision == 0 {
            self.revision = response.header.map_or(0, |header| header.revision);
        }
        if let Some(last) = response.kvs.last().filter(|_| response.more) {
            let mut next = last.key.to_vec();
            next.push(0);
            self.next = Some(next.into());
        }
        let bytes = response.kvs.iter().map(bytes_of).sum();
        self.limit = next_limit(response.kvs.len(), bytes);
        let count = u64::try_from(response.count).unwrap_or(0);
        Ok(Some(Page {
            left: count.saturating_sub(response.kvs.len() as u64),
            kvs: response.kvs,
        }))
    }
}

/// The bytes that a key and its value take.
pub(super) fn bytes_of(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

/// The number of keys for the next page, if they are about as large as those of the last one.
fn next_limit(keys: usize, bytes: usize) -> usize {
    let fits = (PAGE_BYTES * keys.max(1)) / bytes.max(1);
    // A page of small keys says little about what comes.
    fits.clamp(1, PAGE_KEYS_MAX).min(keys.max(1) * 8)
}

fn explained(error: Error) -> Exit {
    let step = match &error {
        _ if error.is_answer(COMPACTED) => {
            "The revision has been compacted. Without --rev the newest one is read; if that is \
             compacted while it is read, run the command again, or stop the compaction for the time."
        }
        Error::ResponseTooLarge { .. } => "Raise --max-recv-bytes.",
        Error::DeadlineExceeded { .. } => "Raise --command-timeout, the time for each page.",
        _ => return failed(error),
    };
    let exit = failed(error);
    Exit {
        message: exit.message.map(|text| format!("{text}\n{step}")),
        ..exit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_size_of_keys() {
        // Small keys: more of them, step by step.
        assert_eq!(next_limit(16, 1600), 128);
        assert_eq!(next_limit(5_000, 500_000), PAGE_KEYS_MAX);
        // Large ones: fewer, but always one.
        assert_eq!(next_limit(16, 16 << 20), 4);
        assert_eq!(next_limit(1, 100 << 20), 1);
        assert_eq!(next_limit(0, 0), 8);
    }
}
