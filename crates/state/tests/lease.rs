//! Leases: rows as etcd writes them, deadlines on a primary only, and random scripts against a
//! naive list of leases.

// For clippy, which lets tests unwrap.
#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use retcd_state::Time;
use retcd_state::lease::{GrantError, LeaseLoadError, Lessor, LessorOptions, RenewError, Renewed};
use retcd_storage::backend::{Backend, Bucket, WriteBatch};

const OPTIONS: LessorOptions = LessorOptions {
    ttl_min: 2,
    checkpoint: true,
    extend: Duration::from_secs(1),
};

fn lessor() -> Lessor {
    Lessor::open(&Backend::default().reader(), OPTIONS).unwrap()
}

fn seconds(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

fn grant(lessor: &mut Lessor, id: i64, ttl: i64, now: u64) -> Result<i64, GrantError> {
    lessor.grant(id, ttl, seconds(now), &mut WriteBatch::default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn rows_are_etcds_and_come_back() {
    let backend = Backend::default();
    let mut lessor = Lessor::open(&backend.reader(), OPTIONS).unwrap();
    let mut batch = WriteBatch::default();
    lessor
        .grant(0x5cf1_a1fd_ac04_5409, 1000, Time::default(), &mut batch)
        .unwrap();
    lessor.grant(-1, 1000, Time::default(), &mut batch).unwrap();
    lessor.grant(7, 100, Time::default(), &mut batch).unwrap();
    lessor.checkpoint(
        0x5cf1_a1fd_ac04_5409,
        500,
        Time::default(),
        false,
        &mut batch,
    );
    lessor.checkpoint(-1, 400, Time::default(), true, &mut batch);
    assert_eq!(lessor.revoke(7, &mut batch).map(|keys| keys.len()), Some(0));
    backend.write(batch);
    let reader = backend.reader();
    let rows: Vec<_> = reader
        .range(Bucket::Lease, b"", None)
        .map(|row| row.map(|(key, value)| (hex(&key), hex(&value))).unwrap())
        .collect();
    let expected = [
        ("5cf1a1fdac045409", "0889a891e0dabfe8f85c10e807"),
        ("ffffffffffffffff", "08ffffffffffffffffff0110e807189003"),
    ];
    assert_eq!(
        rows,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );

    let mut reopened = Lessor::open(
        &reader,
        LessorOptions {
            ttl_min: 2000,
            ..OPTIONS
        },
    )
    .unwrap();
    assert_eq!(reopened.len(), 2);
    reopened.promote(seconds(10), Duration::ZERO);
    // The floor counts for what is loaded, and a checkpoint for what is left.
    let left = |id| {
        reopened
            .time_to_live(id, seconds(10), false)
            .map(|left| (left.granted_ttl, left.ttl))
    };
    assert_eq!(left(0x5cf1_a1fd_ac04_5409), Some((2000, 2000)));
    assert_eq!(left(-1), Some((2000, 400)));
    assert_eq!(left(7), None);
}

#[test]
fn a_damaged_row_is_an_error() {
    let backend = Backend::default();
    let mut batch = WriteBatch::default();
    batch.put(Bucket::Lease, b"12345678", b"\x08"[..].into());
    backend.write(batch);
    assert!(matches!(
        Lessor::open(&backend.reader(), OPTIONS),
        Err(LeaseLoadError::Damaged(_))
    ));
}

#[test]
fn grants_have_bounds() {
    let mut lessor = lessor();
    assert_eq!(grant(&mut lessor, 0, 10, 0), Err(GrantError::NoId));
    assert_eq!(grant(&mut lessor, 1, -1, 0), Ok(2));
    assert_eq!(grant(&mut lessor, 1, 10, 0), Err(GrantError::Exists));
    assert_eq!(grant(&mut lessor, 2, 9_000_000_000, 0), Ok(9_000_000_000));
    assert_eq!(
        grant(&mut lessor, 3, 9_000_000_001, 0),
        Err(GrantError::TtlTooLarge)
    );
    assert_eq!(lessor.list(), [(None, 1), (None, 2)]);
}

#[test]
fn only_a_primary_has_deadlines() {
    let mut lessor = lessor();
    grant(&mut lessor, 1, 5, 0).unwrap();
    assert_eq!(lessor.renew(1, seconds(1)), Err(RenewError::NotPrimary));
    assert_eq!(
        (lessor.next_expiry(), lessor.expired(seconds(1000), 10)),
        (None, vec![])
    );

    lessor.promote(seconds(100), Duration::from_secs(3));
    assert_eq!(lessor.next_expiry(), Some(seconds(108)));
    let left = lessor.time_to_live(1, seconds(100), false).unwrap();
    assert_eq!((left.granted_ttl, left.ttl), (5, 8));
    assert_eq!(lessor.expired(seconds(107), 10), [0i64; 0]);
    assert_eq!(
        lessor.renew(1, seconds(107)),
        Ok(Renewed {
            ttl: 5,
            clear_checkpoint: false
        })
    );
    assert_eq!(lessor.expired(seconds(111), 10), [0i64; 0]);
    assert_eq!(lessor.expired(seconds(112), 10), [1]);
    // Too late to renew; the revocation is asked for again until it comes.
    assert_eq!(lessor.renew(1, seconds(112)), Err(RenewError::Expired));
    assert_eq!(lessor.expired(seconds(114), 10), [0i64; 0]);
    assert_eq!(lessor.expired(seconds(115), 10), [1]);
    lessor.revoke(1, &mut WriteBatch::default()).unwrap();
    assert_eq!(lessor.renew(1, seconds(115)), Err(RenewError::NotFound));
    assert_eq!(lessor.expired(seconds(1000), 10), [0i64; 0]);

    grant(&mut lessor, 2, 5, 200).unwrap();
    lessor.demote();
    assert_eq!(lessor.next_expiry(), None);
    assert!(lessor.contains(2));
}

#[test]
fn long_leases_are_checkpointed() {
    let mut lessor = lessor();
    lessor.promote(seconds(0), Duration::ZERO);
    grant(&mut lessor, 1, 300, 0).unwrap();
    grant(&mut lessor, 2, 1000, 0).unwrap();
    assert_eq!(lessor.due_checkpoints(seconds(299), 10), []);
    assert_eq!(lessor.due_checkpoints(seconds(300), 10), [(2, 700)]);
    assert_eq!(
        lessor.due_checkpoints(seconds(309), 10),
        [],
        "the next follows the entry of this one"
    );
    lessor.checkpoint(2, 700, seconds(301), true, &mut WriteBatch::default());
    assert_eq!(lessor.due_checkpoints(seconds(601), 10), [(2, 399)]);

    // The second entry does not come: the lease is told again.
    assert_eq!(lessor.due_checkpoints(seconds(610), 10), []);
    assert_eq!(lessor.next_checkpoint(), Some(seconds(611)));
    assert_eq!(lessor.due_checkpoints(seconds(611), 10), [(2, 389)]);
    lessor.checkpoint(2, 389, seconds(612), true, &mut WriteBatch::default());
    assert_eq!(lessor.due_checkpoints(seconds(912), 10), [(2, 88)]);
    lessor.checkpoint(2, 88, seconds(912), true, &mut WriteBatch::default());
    assert_eq!(lessor.next_checkpoint(), None, "it has too little left");
}

#[test]
fn a_checkpoint_holds_until_its_clearing_is_applied() {
    let mut lessor = lessor();
    grant(&mut lessor, 2, 1000, 0).unwrap();
    let checkpoint = |lessor: &mut Lessor, left, now| {
        lessor.checkpoint(2, left, seconds(now), true, &mut WriteBatch::default());
    };
    checkpoint(&mut lessor, 200, 0);
    lessor.promote(seconds(100), Duration::ZERO);
    let left = |lessor: &Lessor, now| lessor.time_to_live(2, seconds(now), false).unwrap().ttl;
    assert_eq!(left(&lessor, 100), 200, "not the full time again");
    assert_eq!(lessor.next_checkpoint(), None);
    let renewed = |clear_checkpoint| Renewed {
        ttl: 1000,
        clear_checkpoint,
    };
    assert_eq!(lessor.renew(2, seconds(150)), Ok(renewed(true)));
    assert_eq!(left(&lessor, 150), 1000);
    // The proposal failed, and the client tried again.
    assert_eq!(lessor.renew(2, seconds(160)), Ok(renewed(true)));
    // A primary that takes over now does not know of the renewals.
    let mut next = Lessor::open(&Backend::default().reader(), OPTIONS).unwrap();
    grant(&mut next, 2, 1000, 0).unwrap();
    checkpoint(&mut next, 200, 0);
    next.promote(seconds(160), Duration::ZERO);
    assert_eq!(left(&next, 160), 200);

    checkpoint(&mut lessor, 0, 161);
    assert_eq!(lessor.renew(2, seconds(170)), Ok(renewed(false)));
    assert_eq!(lessor.next_checkpoint(), Some(seconds(461)));
    assert_eq!(lessor.due_checkpoints(seconds(461), 10), [(2, 709)]);
}

#[test]
fn what_was_renewed_this_moment_is_checkpointed_later() {
    let mut lessor = lessor();
    lessor.promote(seconds(0), Duration::ZERO);
    grant(&mut lessor, 1, 1000, 0).unwrap();
    grant(&mut lessor, 2, 1000, 0).unwrap();
    lessor.renew(1, seconds(300)).unwrap();
    assert_eq!(lessor.due_checkpoints(seconds(300), 10), [(2, 700)]);
    lessor.revoke(2, &mut WriteBatch::default()).unwrap();
    assert_eq!(lessor.next_checkpoint(), Some(seconds(600)));
    assert_eq!(lessor.due_checkpoints(seconds(600), 10), [(1, 700)]);
    lessor.demote();
    assert_eq!(lessor.next_checkpoint(), None);
    assert_eq!(lessor.due_checkpoints(seconds(9000), 10), []);
}

#[test]
fn checkpoints_can_be_off_and_still_count() {
    let options = LessorOptions {
        checkpoint: false,
        ..OPTIONS
    };
    let mut lessor = Lessor::open(&Backend::default().reader(), options).unwrap();
    grant(&mut lessor, 1, 1000, 0).unwrap();
    lessor.checkpoint(1, 400, seconds(0), true, &mut WriteBatch::default());
    lessor.promote(seconds(0), Duration::ZERO);
    assert_eq!(lessor.next_expiry(), Some(seconds(400)));
    assert_eq!(lessor.next_checkpoint(), None);
    // Somebody has noted it, and has to be told that it is not true any more.
    assert!(lessor.renew(1, seconds(1)).unwrap().clear_checkpoint);
    assert_eq!(lessor.next_expiry(), Some(seconds(1001)));
}

/// When each lease runs out, by id, in milliseconds.
fn expiries(lessor: &mut Lessor) -> BTreeMap<i64, u64> {
    let mut expiries = BTreeMap::new();
    while let Some(at) = lessor.next_expiry().filter(|at| *at < seconds(10_000)) {
        for id in lessor.expired(at, usize::MAX) {
            expiries
                .entry(id)
                .or_insert(at.since_start().as_millis() as u64);
            lessor.revoke(id, &mut WriteBatch::default()).unwrap();
        }
    }
    expiries
}

#[test]
fn a_new_primary_gives_each_lease_what_it_has_left() {
    // Granted, left at the last checkpoint, what it gets.
    let table = [
        (1, 1000, 0, 1000),
        (2, 1000, 400, 400),
        (3, 1, 0, 2),
        (4, 60, 70, 70),
    ];
    for extend in [0, 1, 30] {
        let mut lessor = lessor();
        for (id, ttl, left, _) in table {
            grant(&mut lessor, id, ttl, 0).unwrap();
            lessor.checkpoint(id, left, seconds(0), true, &mut WriteBatch::default());
        }
        lessor.promote(seconds(500), Duration::from_secs(extend));
        let expected = table.map(|(id, _, _, gets)| (id, (500 + gets + extend) * 1000));
        assert_eq!(expiries(&mut lessor), BTreeMap::from(expected));
    }
}

#[test]
fn a_new_primary_spreads_expiries() {
    for (leases, extend) in [(999, 0), (1000, 0), (5000, 0), (5000, 3)] {
        let mut lessor = lessor();
        (1..=leases).for_each(|id| _ = grant(&mut lessor, id, 10, 0).unwrap());
        // A second pile, too far away to be in the way of the first.
        (1..=leases).for_each(|id| _ = grant(&mut lessor, 10_000 + id, 1000, 0).unwrap());
        // What the revocation of many leaves behind is no pile.
        if leases < 1000 {
            (1..=leases).for_each(|id| _ = lessor.revoke(10_000 + id, &mut WriteBatch::default()));
        }
        lessor.promote(seconds(100), Duration::from_secs(extend));
        let found = expiries(&mut lessor);
        for id in 1..=leases {
            // 750 at once, then as many in each second.
            let delay = match leases >= 1000 && id > 750 {
                true => id as u64 * 1000 / 750,
                false => 0,
            };
            let expected = 110_000 + extend * 1000 + delay;
            assert_eq!(found[&id], expected, "lease {id} of {leases}");
            if let Some(second) = found.get(&(10_000 + id)) {
                // The pile's first lease opens the window and counts in it.
                assert_eq!(*second, expected + 990_000, "lease {id} of {leases}");
            }
        }
    }
}

/// A lease of the naive model: the granted time, when it runs out, when to tell so, and its keys.
type Naive = (i64, Option<Time>, Option<Time>, Vec<Vec<u8>>);

#[test]
fn agrees_with_a_list() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let mut lessor = lessor();
        let mut model: BTreeMap<i64, Naive> = BTreeMap::new();
        let (mut now, mut primary) = (Time::default(), false);
        for _ in 0..600 {
            now = now + Duration::from_millis(rng.u64(0..1500));
            let id = rng.i64(1..12);
            let key = vec![rng.u8(b'a'..b'f')];
            match rng.u8(..10) {
                0 | 1 => {
                    let ttl = rng.i64(0..20);
                    let result = lessor.grant(id, ttl, now, &mut WriteBatch::default());
                    let known = model.contains_key(&id);
                    if known {
                        assert_eq!(result, Err(GrantError::Exists));
                    } else {
                        let ttl = ttl.max(2);
                        assert_eq!(result, Ok(ttl));
                        let expiry = primary.then(|| now + Duration::from_secs(ttl as u64));
                        model.insert(id, (ttl, expiry, expiry, vec![]));
                    }
                }
                2 => {
                    let found = lessor.revoke(id, &mut WriteBatch::default());
                    let expected = model.remove(&id).map(|(.., mut keys)| {
                        keys.sort();
                        keys.dedup();
                        keys
                    });
                    let found =
                        found.map(|keys| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>());
                    assert_eq!(found, expected);
                }
                // As the machine does: what is attached already is not attached, nor what is not
                // detached.
                3 | 4 => {
                    let attached = model.get(&id).is_some_and(|lease| lease.3.contains(&key));
                    match attached {
                        true => lessor.detach(id, &key),
                        false => assert_eq!(lessor.attach(id, &key), model.contains_key(&id)),
                    }
                    model.entry(id).and_modify(|lease| match attached {
                        true => lease.3.retain(|k| *k != key),
                        false => lease.3.push(key),
                    });
                }
                5 if rng.u8(..4) == 0 => {
                    primary = !primary;
                    let extend = Duration::from_secs(1);
                    if primary {
                        lessor.promote(now, extend)
                    } else {
                        lessor.demote()
                    }
                    for (ttl, expiry, due, _) in model.values_mut() {
                        *expiry = primary.then(|| now + Duration::from_secs(*ttl as u64 + 1));
                        *due = *expiry;
                    }
                }
                6 | 7 => {
                    let expected = match model.get_mut(&id) {
                        _ if !primary => Err(RenewError::NotPrimary),
                        None => Err(RenewError::NotFound),
                        Some((_, expiry, ..)) if expiry.unwrap() <= now => Err(RenewError::Expired),
                        Some((ttl, expiry, due, _)) => {
                            *expiry = Some(now + Duration::from_secs(*ttl as u64));
                            *due = *expiry;
                            Ok(Renewed {
                                ttl: *ttl,
                                clear_checkpoint: false,
                            })
                        }
                    };
                    assert_eq!(lessor.renew(id, now), expected);
                }
                _ => {
                    let due = model.iter().filter_map(|(id, lease)| Some((lease.2?, *id)));
                    let mut due: Vec<_> = due.filter(|(due, _)| *due <= now).collect();
                    due.sort();
                    due.truncate(3);
                    for (_, id) in &due {
                        model.get_mut(id).unwrap().2 = Some(now + Duration::from_secs(3));
                    }
                    let expected: Vec<i64> = due.into_iter().map(|(_, id)| id).collect();
                    assert_eq!(lessor.expired(now, 3), expected);
                }
            }
            let listed: Vec<_> = model.iter().map(|(id, lease)| (lease.1, *id)).collect();
            assert_eq!(lessor.list(), listed);
            assert_eq!(
                lessor.next_expiry(),
                model.values().filter_map(|lease| lease.2).min()
            );
        }
    }
}
