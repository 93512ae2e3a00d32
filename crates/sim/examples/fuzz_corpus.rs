//! Writes what `fuzz/fuzz_targets/apply.rs` starts from: `fuzz_corpus DIR`.
//!
//! Logs that etcd wrote, from the fixtures of `storage`, a few entries a file, and entries as the
//! tests of hostile ones draw them. An entry is a byte for its kind, two for its length, and the
//! data.

use std::error::Error;
use std::io::{IoSlice, Read as _};
use std::path::Path;

use fastrand::Rng;
use retcd_proto::raftpb::EntryType;
use retcd_sim::hostile::draw;
use retcd_storage::disk::{Disk, MemDisk, OpenMode};
use retcd_storage::wal;

/// Entries in one file.
const TOGETHER: usize = 12;
/// Files of drawn entries.
const DRAWN: u64 = 200;

type Entries = Vec<(EntryType, Vec<u8>)>;

fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1).ok_or("fuzz_corpus DIR")?;
    let target = Path::new(&target);
    std::fs::create_dir_all(target)?;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/data/wal");
    let index = std::fs::read(fixtures.join("index.json"))?;
    let samples: Vec<serde_json::Value> = serde_json::from_slice(&index)?;
    let mut files = 0;
    for sample in &samples {
        let field = |name: &str| sample[name].as_str().ok_or("a sample without a name");
        let name = field("name")?;
        let packed = fixtures.join(format!("{name}.wal.gz"));
        // Damaged ones are there as well, and have nothing to give.
        let entries = read(&packed, field("segment")?).unwrap_or_default();
        for (number, together) in entries.chunks(TOGETHER).enumerate() {
            std::fs::write(target.join(format!("{name}-{number}")), encode(together))?;
            files += 1;
        }
    }
    for seed in 0..DRAWN {
        let mut rng = Rng::with_seed(seed);
        let drawn: Entries = (0..TOGETHER).map(|_| draw::entry(&mut rng)).collect();
        std::fs::write(target.join(format!("drawn-{seed}")), encode(&drawn))?;
        files += 1;
    }
    println!("{files} files");
    Ok(())
}

/// The entries of a packed segment.
fn read(packed: &Path, segment: &str) -> Result<Entries, Box<dyn Error>> {
    let packed = std::fs::read(packed)?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes)?;
    let (disk, dir) = (MemDisk::new(), Path::new("/wal"));
    disk.create_dir_all(dir)?;
    let file = disk.open(&dir.join(segment), OpenMode::CreateNew { mode: 0o600 })?;
    file.write_all_at(&[IoSlice::new(&bytes)], 0)?;
    // The zeros behind the last record were left out.
    file.set_len(bytes.len() as u64 + 4096)?;
    let start = wal::last_snapshot(&disk, dir)?.unwrap_or_else(wal::origin);
    let recovered = wal::read(&disk, dir, &start)?;
    let entries = recovered.entries.iter();
    Ok(entries
        .map(|entry| (entry.r#type(), entry.data().to_vec()))
        .collect())
}

fn encode(entries: &[(EntryType, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, data) in entries {
        // What the length cannot say is cut off.
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        bytes.push(u8::from(*kind == EntryType::EntryNormal));
        bytes.extend(length.to_be_bytes());
        bytes.extend(&data[..usize::from(length)]);
    }
    bytes
}
