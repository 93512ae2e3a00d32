//! The backend as its owner sees it, on a disk in memory.

use super::*;

fn value(bytes: &[u8]) -> Value {
    bytes.into()
}

fn put(backend: &Backend, bucket: Bucket, key: &[u8], bytes: &[u8]) {
    let mut batch = WriteBatch::default();
    batch.put(bucket, key, value(bytes));
    backend.write(batch);
}

fn all(reader: &Reader, bucket: Bucket) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = reader.range(bucket, &[], None);
    pairs
        .map(|pair| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .unwrap()
        })
        .collect()
}

#[test]
fn a_reader_sees_what_was_written_before_it_and_nothing_after() {
    let backend = Backend::default();
    put(&backend, Bucket::Meta, b"a", b"1");
    let before = backend.reader();
    put(&backend, Bucket::Meta, b"a", b"2");
    put(&backend, Bucket::Meta, b"b", b"2");
    let pending = backend.reader();
    backend.commit().unwrap();
    put(&backend, Bucket::Meta, b"a", b"3");
    backend.commit().unwrap();
    for _ in 0..2 {
        assert_eq!(all(&before, Bucket::Meta), [(b"a".to_vec(), b"1".to_vec())]);
        assert_eq!(pending.get(Bucket::Meta, b"a").unwrap(), Some(value(b"2")));
        assert_eq!(all(&pending, Bucket::Meta).len(), 2);
        assert_eq!(
            backend.reader().get(Bucket::Meta, b"a").unwrap(),
            Some(value(b"3"))
        );
        backend.defragment().unwrap();
    }
}
