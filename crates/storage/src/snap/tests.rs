//! Snapshot files against those of etcd, and on a disk that loses power.

use std::io::Read as _;

use super::*;
use crate::disk::{Fault, MemDisk};

/// Snapshot files as etcd wrote them, with what they hold.
const SAMPLES: [(&str, u64, u64, &[u8]); 3] = [
    (
        "3.4.23",
        2,
        408,
        include_bytes!("../../tests/data/snap/3.4.23-snapshots.snap.gz"),
    ),
    (
        "3.5.30",
        2,
        408,
        include_bytes!("../../tests/data/snap/3.5.30-snapshots.snap.gz"),
    ),
    (
        "3.7.1",
        2,
        408,
        include_bytes!("../../tests/data/snap/3.7.1-snapshots.snap.gz"),
    ),
];

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn dir() -> &'static Path {
    Path::new("/snap")
}

fn disk() -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir_all(dir()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn put(disk: &MemDisk, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir().join(name);
    let file = disk.open(&path, OpenMode::Create { mode: 0o600 }).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
    path
}

fn get(disk: &MemDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn names(disk: &MemDisk) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    disk.read_dir(dir()).unwrap().iter().map(name).collect()
}

fn snapshot(term: u64, index: u64) -> raftpb::Snapshot {
    raftpb::Snapshot {
        data: Some(Bytes::from_static(b"data")),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(raftpb::ConfState {
                voters: vec![1],
                ..Default::default()
            }),
            index: Some(index),
            term: Some(term),
        }),
    }
}

#[test]
fn samples_are_read_and_written_byte_for_byte() {
    for (version, term, index, packed) in SAMPLES {
        let disk = disk();
        let original = unpack(packed);
        let name = format!("{term:016x}-{index:016x}.snap");
        let path = put(&disk, &name, &original);
        let snapshot = read(&disk, &path).unwrap();
        let metadata = snapshot.metadata.as_ref().unwrap();
        assert_eq!(
            (metadata.term(), metadata.index()),
            (term, index),
            "{version}"
        );
        assert_eq!(
            metadata.conf_state.as_ref().unwrap().voters.len(),
            1,
            "{version}"
        );

        disk.remove_file(&path).unwrap();
        assert_eq!(write(&disk, dir(), &snapshot).unwrap(), path);
        assert_eq!(get(&disk, &path), original, "{version}");
    }
}

#[test]
fn documents_of_all_versions_are_read_and_those_of_3_7_written() {
    for (version, _, _, packed) in SAMPLES {
        let disk = disk();
        let snapshot = read(&disk, &put(&disk, "sample", &unpack(packed))).unwrap();
        let voter = snapshot
            .metadata
            .as_ref()
            .unwrap()
            .conf_state
            .as_ref()
            .unwrap()
            .voters[0];
        let document = snapshot.data.unwrap();
        let membership = Membership::from_document(&document).unwrap();
        let member = &membership.members[0];
        assert_eq!(
            (member.id, member.name.as_str()),
            (voter, "m1"),
            "{version}"
        );
        assert_eq!(
            (member.peer_urls.len(), member.client_urls.len()),
            (1, 1),
            "{version}"
        );
        let minor = version.rsplit_once('.').unwrap().0;
        assert_eq!(membership.version, Some(format!("{minor}.0")));
        assert!(!membership.has_v2_keys, "{version}");
        if version == "3.7.1" {
            assert_eq!(membership.to_document(), document);
        }
    }
}

/// Two voters, a learner that has not started, and a removed member, which etcd 3.7.1 wrote in the
/// order of one of its maps.
#[test]
fn a_document_of_several_members_is_written_as_etcd_writes_it() {
    let disk = disk();
    let packed = include_bytes!("../../tests/data/snap/3.7.1-members.snap.gz");
    let snapshot = read(&disk, &put(&disk, "sample", &unpack(packed))).unwrap();
    let document = snapshot.data.unwrap();
    let mut membership = Membership::from_document(&document).unwrap();
    let client = |n| vec![format!("http://127.0.0.1:4239{n}?a=1&b=<c>")];
    let peer = |n| vec![format!("http://127.0.0.1:4238{n}")];
    let member = |id, n: u8, name: &str| Member {
        id,
        peer_urls: peer(n),
        is_learner: name.is_empty(),
        name: name.to_owned(),
        client_urls: if name.is_empty() { vec![] } else { client(n) },
    };
    let expected = Membership {
        members: vec![
            member(0x1de1_0955_cefb_9815, 1, "m1"),
            member(0x509e_a555_5c9f_57f4, 4, ""),
            member(0x0089_8903_9837_59ef, 2, "m2"),
        ],
        removed: vec![0x9e8d_c786_2cd9_3fe3],
        version: Some("3.7.0".to_owned()),
        has_v2_keys: false,
    };
    assert_eq!(membership, expected);
    let conf_state = snapshot.metadata.unwrap().conf_state.unwrap();
    let learners: Vec<u64> = vec![0x509e_a555_5c9f_57f4];
    assert_eq!(
        (conf_state.voters.len(), conf_state.learners),
        (2, learners)
    );

    let json: serde_json::Value = serde_json::from_slice(&document).unwrap();
    let tree = &json["Root"]["Children"]["0"]["Children"]["members"]["Children"];
    membership
        .members
        .sort_by_key(|member| tree[format!("{:x}", member.id)]["CreatedIndex"].as_u64());
    assert_eq!(membership.to_document(), document);
}

#[test]
fn memberships_survive_a_document() {
    let member = |id: u64| Member {
        id,
        peer_urls: vec![format!("http://peer-{id}:2380"), "http://b".to_owned()],
        ..Member::default()
    };
    let membership = Membership {
        members: vec![
            Member {
                name: "<m1> & \"co\"".to_owned(),
                client_urls: vec!["x".to_owned()],
                ..member(1)
            },
            Member {
                is_learner: true,
                ..member(0xabc)
            },
        ],
        removed: (0x1000..0x1000 + 1500).collect(),
        version: Some("3.7.0".to_owned()),
        has_v2_keys: false,
    };
    let document = membership.to_document();
    assert_eq!(Membership::from_document(&document).unwrap(), membership);

    // 1504 changes in a ring of 1000.
    let json: serde_json::Value = serde_json::from_slice(&document).unwrap();
    let history = &json["WatcherHub"]["EventHistory"];
    let (queue, last) = (&history["Queue"], json["CurrentIndex"].as_u64().unwrap());
    assert_eq!(last, 3 + 1500 + 1);
    assert_eq!(history["StartIndex"], last - 999);
    let front = queue["Front"].as_u64().unwrap() as usize;
    let events = queue["Events"].as_array().unwrap();
    assert_eq!(
        (queue["Size"].as_u64(), queue["Back"].as_u64()),
        (Some(1000), Some(front as u64))
    );
    for offset in 0..1000 {
        let event = &events[(front + offset) % 1000];
        assert_eq!(event["node"]["modifiedIndex"], last - 999 + offset as u64);
    }
    let empty = Membership::default();
    assert_eq!(
        Membership::from_document(&empty.to_document()).unwrap(),
        empty
    );
}

#[test]
fn keys_of_api_v2_are_noticed_at_any_depth() {
    let deep = [
        &r#"{"Children":{"a":"#.repeat(500),
        "null",
        &"}}".repeat(500),
    ]
    .concat();
    for (tree, has_keys) in [
        (
            r#"{"0":{"Children":{}},"1":{"Children":{}}}"#.to_owned(),
            false,
        ),
        (
            r#"{"1":{"Children":{"foo":{"Value":"bar","Children":null}}}}"#.to_owned(),
            true,
        ),
        (r#"{"2":{"Children":{}}}"#.to_owned(), true),
        (format!(r#"{{"1":{deep}}}"#), true),
        ("{}".to_owned(), false),
    ] {
        let document = format!(r#"{{"Root":{{"Children":{tree}}},"CurrentVersion":2}}"#);
        let membership = Membership::from_document(document.as_bytes()).unwrap();
        assert_eq!(membership.has_v2_keys, has_keys, "{tree:.80}");
    }
    for wrong in [
        "",
        "null",
        r#"{"Root":null}"#,
        r#"{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"xyz":{}}}}}}}}"#,
        r#"{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"1":{}}}}}}}}"#,
    ] {
        assert!(
            Membership::from_document(wrong.as_bytes()).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn the_newest_acceptable_file_is_loaded_and_broken_ones_are_set_aside() {
    let disk = disk();
    let paths: Vec<PathBuf> = (1..=4)
        .map(|index| write(&disk, dir(), &snapshot(2, index)).unwrap())
        .collect();
    assert_eq!(
        list(&disk, dir()).unwrap(),
        paths.iter().rev().cloned().collect::<Vec<_>>()
    );

    let mut flipped = get(&disk, &paths[3]);
    *flipped.last_mut().unwrap() ^= 1;
    put(&disk, "0000000000000002-0000000000000004.snap", &flipped);
    put(&disk, "0000000000000003-0000000000000001.snap", b"");
    put(&disk, "0000000000000003-0000000000000002.snap", b"\xff\xff");
    let loaded = load(&disk, dir(), |found| {
        found.metadata.as_ref().unwrap().index() < 3
    })
    .unwrap();
    assert_eq!(loaded.snapshot, Some(snapshot(2, 2)));
    assert!(matches!(
        loaded.broken[..],
        [
            SnapError::Undecodable { .. },
            SnapError::Empty { .. },
            SnapError::Checksum { .. }
        ]
    ));
    let broken: Vec<String> = names(&disk)
        .into_iter()
        .filter(|name| name.ends_with(".snap.broken"))
        .collect();
    assert_eq!(broken.len(), 3, "{broken:?}");
    assert_eq!(list(&disk, dir()).unwrap().len(), 3);
    assert!(load(&disk, dir(), |_| false).unwrap().snapshot.is_none());
}

#[test]
fn old_files_and_leftovers_are_removed() {
    let disk = disk();
    for index in 1..=4 {
        write(&disk, dir(), &snapshot(1, index)).unwrap();
        put(
            &disk,
            database_path(dir(), index)
                .file_name()
                .unwrap()
                .to_str()
                .unwrap(),
            b"db",
        );
    }
    for name in ["db", "tmp123", "db.tmp.456", "x.snap.db"] {
        put(&disk, name, b"");
    }
    assert_eq!(purge(&disk, dir(), 5).unwrap(), [] as [PathBuf; 0]);
    let removed = purge(&disk, dir(), 3).unwrap();
    assert_eq!(
        removed,
        [dir().join("0000000000000001-0000000000000001.snap")]
    );
    let found = |index| find_database(&disk, dir(), index).unwrap();
    assert_eq!(found(2), Some(dir().join("0000000000000002.snap.db")));
    assert_eq!(remove_databases_before(&disk, dir(), 3).unwrap().len(), 2);
    assert_eq!(found(2), None);
    assert_eq!(remove_leftovers(&disk, dir()).unwrap().len(), 2);
    assert_eq!(
        names(&disk),
        [
            "0000000000000001-0000000000000002.snap",
            "0000000000000001-0000000000000003.snap",
            "0000000000000001-0000000000000004.snap",
            "0000000000000003.snap.db",
            "0000000000000004.snap.db",
            "db",
            "x.snap.db",
        ]
    );
}

#[test]
fn a_file_is_whole_or_absent_whenever_the_power_goes() {
    for seed in 0..100 {
        let mut finished = false;
        for point in 1.. {
            let disk = disk();
            write(&disk, dir(), &snapshot(1, 1)).unwrap();
            disk.inject(Fault::PowerLoss(point));
            finished = write(&disk, dir(), &snapshot(1, 2)).is_ok();
            disk.crash(seed);
            let found = list(&disk, dir()).unwrap();
            for path in &found {
                read(&disk, path).unwrap();
            }
            assert!(
                found.len() == 2 || (!finished && found.len() == 1),
                "seed {seed}"
            );
            if finished {
                assert!(point > 4, "{point}");
                break;
            }
        }
        assert!(finished);
    }
}
