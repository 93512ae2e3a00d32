//! Writes a database with a random history to a file, the same for the same seed, so that other
//! implementations of the format can judge it.
//!
//! `bolt_workload SEED FILE` creates FILE, which must not exist, and prints the hash of its
//! content, its size and the number of pairs in each bucket. Bucket `key` holds a real history:
//! ascending revisions with encoded key-value records, of which old ones are deleted; leases, users
//! and roles come and go.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use prost::Message;
use retcd_proto::authpb::{Role, User};
use retcd_proto::leasepb::Lease;
use retcd_proto::mvccpb::KeyValue;
use retcd_storage::backend::{Backend, BackendError, Bucket, WriteBatch};
use retcd_storage::bolt::Options;
use retcd_storage::disk::OsDisk;

const ROUNDS: usize = 150;

/// Bucket, key and value.
type Change = (Bucket, Vec<u8>, Vec<u8>);

struct Workload {
    rng: Rng,
    revision: i64,
    /// Revisions that have not been deleted, oldest first.
    live: VecDeque<Vec<u8>>,
}

impl Workload {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.rng.u8(..)).collect()
    }

    fn put_revision(&mut self, batch: &mut WriteBatch) {
        self.revision += 1;
        let len = match self.rng.u8(..40) {
            0 => self.rng.usize(..20_000),
            1..4 => self.rng.usize(..2_000),
            _ => self.rng.usize(..300),
        };
        let record = KeyValue {
            key: format!("/registry/pods/{}", self.rng.u32(..500)).into(),
            create_revision: self.revision,
            mod_revision: self.revision,
            version: 1,
            value: self.bytes(len).into(),
            lease: 0,
        };
        let mut revision = self.revision.to_be_bytes().to_vec();
        revision.push(b'_');
        revision.extend(0i64.to_be_bytes());
        batch.put(Bucket::Key, &revision, record.encode_to_vec().into());
        self.live.push_back(revision);
    }

    /// As a compaction deletes: most of the oldest revisions, in order.
    fn compact(&mut self, batch: &mut WriteBatch) {
        let scanned = self.live.len() * self.rng.usize(..100) / 100;
        let mut kept = Vec::new();
        for revision in self.live.drain(..scanned) {
            match self.rng.u8(..10) {
                0 => kept.push(revision),
                _ => batch.delete(Bucket::Key, &revision),
            }
        }
        kept.into_iter()
            .rev()
            .for_each(|revision| self.live.push_front(revision));
    }

    fn change_other(&mut self, batch: &mut WriteBatch) {
        let (bucket, key, value) = match self.rng.u8(..3) {
            0 => self.lease(),
            1 => self.user(),
            _ => self.role(),
        };
        match self.rng.u8(..3) {
            0 => batch.delete(bucket, &key),
            _ => batch.put(bucket, &key, value.into()),
        }
    }

    fn lease(&mut self) -> Change {
        let id = self.rng.i64(1..3000).wrapping_mul(0x1e37_79b9_7f4a_7c15) & i64::MAX;
        let ttl = self.rng.i64(100..1 << 40);
        let lease = Lease {
            id,
            ttl,
            ..Lease::default()
        };
        (
            Bucket::Lease,
            id.to_be_bytes().to_vec(),
            lease.encode_to_vec(),
        )
    }

    fn user(&mut self) -> Change {
        let name = self.name();
        let len = self.rng.usize(..100);
        let user = User {
            name: name.clone().into(),
            password: self.bytes(len).into(),
            ..User::default()
        };
        (Bucket::AuthUsers, name, user.encode_to_vec())
    }

    fn role(&mut self) -> Change {
        let name = self.name();
        let role = Role {
            name: name.clone().into(),
            ..Role::default()
        };
        (Bucket::AuthRoles, name, role.encode_to_vec())
    }

    /// A name of up to 200 bytes.
    fn name(&mut self) -> Vec<u8> {
        let width = self.rng.usize(1..200);
        format!("{:0width$}", self.rng.u16(..200)).into_bytes()
    }

    fn round(&mut self, backend: &Backend) -> Result<(), BackendError> {
        for _ in 0..self.rng.usize(1..30) {
            let mut batch = WriteBatch::default();
            for _ in 0..self.rng.usize(1..40) {
                match self.rng.u8(..5) {
                    0 => self.change_other(&mut batch),
                    _ => self.put_revision(&mut batch),
                }
            }
            let index = self.revision as u64;
            batch.put(
                Bucket::Meta,
                b"consistent_index",
                index.to_be_bytes().as_slice().into(),
            );
            backend.write(batch);
        }
        if self.rng.u8(..12) == 0 {
            let mut batch = WriteBatch::default();
            self.compact(&mut batch);
            backend.write(batch);
        }
        backend.commit().map(|_| ())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(seed), Some(path)) = (args.next(), args.next()) else {
        return Err("usage: bolt_workload SEED FILE".into());
    };
    let path = Path::new(&path);
    if path.exists() {
        return Err(format!("{} exists", path.display()).into());
    }
    let mut workload = Workload {
        rng: Rng::with_seed(seed.parse()?),
        revision: 1,
        live: VecDeque::new(),
    };
    let mut backend = Backend::open(Arc::new(OsDisk), path, Options::default())?;
    let mut readers = VecDeque::new();
    for _ in 0..ROUNDS {
        workload.round(&backend)?;
        match workload.rng.u8(..20) {
            0 => backend.defragment().map(|_| ())?,
            1 => {
                readers.clear();
                drop(backend);
                backend = Backend::open(Arc::new(OsDisk), path, Options::default())?;
            }
            2..5 => readers.push_back(backend.reader()),
            5..8 => _ = readers.pop_front(),
            _ => {}
        }
    }
    println!("hash {}", backend.hash(false)?);
    println!(
        "size {} in use {}",
        backend.size_bytes(),
        backend.size_in_use_bytes()
    );
    for bucket in Bucket::ALL {
        let pairs = backend.reader().range(bucket, &[], None).count();
        println!("{} {pairs}", String::from_utf8_lossy(bucket.name()));
    }
    Ok(())
}
