//! Logs of older members have entries about users and roles, also while authentication is off. What
//! etcd's backend has of them afterwards, ours must have, and nothing may be served once
//! authentication is on.

// For clippy, which lets tests unwrap.
#![cfg(test)]

use base64::Engine;
use bcrypt::BASE_64;
use prost::Message;
use retcd_proto::authpb::User;
use retcd_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGetRequest,
    AuthRoleListRequest, AuthStatusRequest, AuthUserAddRequest, AuthUserDeleteRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, InternalAuthenticateRequest,
    InternalRaftRequest, PutRequest,
};
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::Time;
use retcd_state::auth::{AuthError, AuthReply};
use retcd_state::machine::{ApplyError, FatalProblem, Machine, MachineOptions, OpenError, Reply};
use retcd_storage::backend::{Backend, Bucket, WriteBatch};

const BUCKETS: [(&str, Bucket); 3] = [
    ("auth", Bucket::Auth),
    ("authRoles", Bucket::AuthRoles),
    ("authUsers", Bucket::AuthUsers),
];

type Rows = Vec<(&'static str, Vec<u8>, Vec<u8>)>;

fn rows(backend: &Backend) -> Rows {
    let reader = backend.reader();
    let mut rows = Rows::new();
    for (name, bucket) in BUCKETS {
        for row in reader.range(bucket, b"", None) {
            let (key, value) = row.unwrap();
            rows.push((name, key.to_vec(), value.to_vec()));
        }
    }
    rows
}

fn open(backend: &Backend) -> Result<Machine, OpenError> {
    Machine::open(backend.clone(), MachineOptions::default())
}

/// Applies `requests` as one batch, as the entries behind those already applied.
fn apply(
    machine: &mut Machine,
    requests: &[InternalRaftRequest],
) -> Result<Vec<Result<Reply, ApplyError>>, FatalProblem> {
    let first = machine.applied().index + 1;
    let entry = |(index, request): (u64, &InternalRaftRequest)| Entry {
        index: Some(index),
        term: Some(2),
        r#type: Some(EntryType::EntryNormal as i32),
        data: Some(request.encode_to_vec().into()),
    };
    let entries: Vec<Entry> = (first..).zip(requests).map(entry).collect();
    let applied = machine.apply(Time::default(), &entries);
    let applied = applied.map_err(|fatal| fatal.problem)?;
    Ok(applied
        .replies
        .into_iter()
        .map(|(_, reply)| reply)
        .collect())
}

fn ask(machine: &mut Machine, request: InternalRaftRequest) -> Result<Reply, ApplyError> {
    apply(machine, &[request]).unwrap().remove(0)
}

fn user_add(name: &str, password: &str, hashed_password: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        auth_user_add: Some(AuthUserAddRequest {
            name: name.into(),
            password: password.into(),
            hashed_password: hashed_password.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn grant_root() -> InternalRaftRequest {
    InternalRaftRequest {
        auth_user_grant_role: Some(AuthUserGrantRoleRequest {
            user: "root".into(),
            role: "root".into(),
        }),
        ..Default::default()
    }
}

fn role_add(name: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        auth_role_add: Some(AuthRoleAddRequest { name: name.into() }),
        ..Default::default()
    }
}

fn enable() -> InternalRaftRequest {
    InternalRaftRequest {
        auth_enable: Some(AuthEnableRequest {}),
        ..Default::default()
    }
}

/// What one version of etcd logged, and what it made of it.
#[derive(Default)]
struct Sample {
    version: &'static str,
    /// Without the one that switches authentication on, which changes `authEnabled` alone.
    requests: Vec<InternalRaftRequest>,
    enable: Option<InternalRaftRequest>,
    rows: Rows,
}

fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    for line in include_str!("data/auth.txt").lines() {
        let words: Vec<&'static str> = line.split(' ').collect();
        if let ["version", version] = words[..] {
            samples.push(Sample {
                version,
                ..Default::default()
            });
            continue;
        }
        let Some(sample) = samples.last_mut() else {
            continue;
        };
        let request = |hex| InternalRaftRequest::decode(&bytes(hex)[..]).unwrap();
        match words[..] {
            ["entry", hex] => sample.requests.push(request(hex)),
            ["enable", hex] => sample.enable = Some(request(hex)),
            [bucket, key, hex] => {
                let (bucket, _) = BUCKETS.iter().find(|(name, _)| *name == bucket).unwrap();
                if key != "authEnabled" {
                    sample.rows.push((*bucket, key.into(), bytes(hex)));
                }
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!(samples.len(), 3);
    samples
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// The rows with each password hash taken out, since only 3.5 and later log it.
fn without_passwords(rows: &Rows) -> Rows {
    let mut rows = rows.clone();
    for (bucket, _, value) in &mut rows {
        if *bucket == "authUsers" {
            let mut user = User::decode(&value[..]).unwrap();
            user.password.clear();
            *value = user.encode_to_vec();
        }
    }
    rows
}

#[test]
fn entries_of_older_versions_leave_their_rows() {
    for sample in samples() {
        let backend = Backend::default();
        let mut machine = open(&backend).unwrap();
        // Nobody can log in as long as authentication is off; all else succeeded.
        let replies = apply(&mut machine, &sample.requests).unwrap();
        for (request, reply) in sample.requests.iter().zip(&replies) {
            match request.authenticate {
                Some(_) => assert_eq!(reply, &Err(ApplyError::Auth(AuthError::NotEnabled))),
                None => assert!(matches!(reply, Ok(Reply::Auth(_))), "{request:?}"),
            }
        }
        let rows = rows(&backend);
        if sample.version == "3.4.23" {
            assert_eq!(without_passwords(&rows), without_passwords(&sample.rows));
        } else {
            assert_eq!(rows, sample.rows, "{}", sample.version);
        }
        let enable = apply(&mut machine, &[sample.enable.unwrap()]);
        assert!(matches!(enable, Err(FatalProblem::AuthEnabled)));
    }
}

#[test]
fn a_password_in_the_log_is_hashed_the_same_way_each_time() {
    let stored = || {
        let backend = Backend::default();
        let mut machine = open(&backend).unwrap();
        apply(&mut machine, &[user_add("u", "pw", "")]).unwrap();
        rows(&backend).pop().unwrap().2
    };
    let row = stored();
    assert_eq!(row, stored());
    // name, password of 60 bytes, and `options`, present and empty.
    assert_eq!(&row[..12], b"\x0a\x01u\x12\x3c$2a$10$");
    assert_eq!(&row[65..], b"\x22\x00");
    let (salt, hash) = row[12..65].split_at(22);
    let salt = BASE_64.decode(salt).unwrap().try_into().unwrap();
    let again = bcrypt::bcrypt(10, salt, b"pw\0");
    assert_eq!(BASE_64.encode(&again[..23]).as_bytes(), hash);
}

#[test]
fn a_new_store_has_revision_1() {
    let backend = Backend::default();
    let mut machine = open(&backend).unwrap();
    assert_eq!(machine.auth_store().read().revision(), 1);
    // To open a file does not change it.
    assert_eq!(rows(&backend), Rows::new());
    let put = InternalRaftRequest {
        put: Some(PutRequest {
            key: b"k".to_vec().into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    apply(&mut machine, &[put]).unwrap();
    let revision = (
        "auth",
        b"authRevision".to_vec(),
        b"\0\0\0\0\0\0\0\x01".to_vec(),
    );
    assert_eq!(rows(&backend), [revision]);
    assert_eq!(open(&backend).unwrap().auth_store().read().revision(), 1);
}

#[test]
fn questions_are_answered_and_change_nothing() {
    let backend = Backend::default();
    let mut machine = open(&backend).unwrap();
    let setup = [
        user_add("root", "", ""),
        grant_root(),
        role_add("z"),
        role_add("root"),
    ];
    apply(&mut machine, &setup).unwrap();
    let before = rows(&backend);
    let mut check = |request: InternalRaftRequest, answer: Result<AuthReply, AuthError>| {
        let answer = answer.map(Reply::Auth).map_err(ApplyError::Auth);
        assert_eq!(ask(&mut machine, request), answer);
    };
    let status = AuthReply::Status {
        enabled: false,
        revision: 5,
    };
    check(
        InternalRaftRequest {
            auth_status: Some(AuthStatusRequest {}),
            ..Default::default()
        },
        Ok(status),
    );
    check(
        InternalRaftRequest {
            auth_disable: Some(AuthDisableRequest {}),
            ..Default::default()
        },
        Ok(AuthReply::Done),
    );
    check(
        InternalRaftRequest {
            authenticate: Some(InternalAuthenticateRequest::default()),
            ..Default::default()
        },
        Err(AuthError::NotEnabled),
    );
    check(
        InternalRaftRequest {
            auth_user_list: Some(AuthUserListRequest {}),
            ..Default::default()
        },
        Ok(AuthReply::Users(vec!["root".into()])),
    );
    check(
        InternalRaftRequest {
            auth_role_list: Some(AuthRoleListRequest {}),
            ..Default::default()
        },
        Ok(AuthReply::Roles(vec!["root".into(), "z".into()])),
    );
    let user = |name: &str| InternalRaftRequest {
        auth_user_get: Some(AuthUserGetRequest { name: name.into() }),
        ..Default::default()
    };
    check(user("root"), Ok(AuthReply::User(vec!["root".into()])));
    check(user("nobody"), Err(AuthError::UserNotFound));
    let role = |role: &str| InternalRaftRequest {
        auth_role_get: Some(AuthRoleGetRequest { role: role.into() }),
        ..Default::default()
    };
    check(role("z"), Ok(AuthReply::Role(Vec::new())));
    check(role("none"), Err(AuthError::RoleNotFound));
    let everything = retcd_proto::authpb::Permission {
        perm_type: 2,
        key: Default::default(),
        range_end: b"\0".to_vec().into(),
    };
    check(role("root"), Ok(AuthReply::Role(vec![everything])));
    assert_eq!(rows(&backend), before);
}

#[test]
fn nothing_is_served_once_authentication_is_on() {
    let backend = Backend::default();
    let mut machine = open(&backend).unwrap();
    // Not yet possible: an error like others, and the member goes on.
    let refused = |error| Err(ApplyError::Auth(error));
    assert_eq!(
        ask(&mut machine, enable()),
        refused(AuthError::RootUserNotFound)
    );
    ask(&mut machine, user_add("root", "", "")).unwrap();
    assert_eq!(
        ask(&mut machine, enable()),
        refused(AuthError::RootRoleNotGranted)
    );
    ask(&mut machine, grant_root()).unwrap();
    let before = (machine.applied(), rows(&backend));

    let problem = apply(&mut machine, &[role_add("r"), enable(), role_add("s")]).unwrap_err();
    assert!(matches!(problem, FatalProblem::AuthEnabled));
    assert_eq!(
        problem.to_string(),
        "authentication was switched on, which this version cannot enforce"
    );
    // The entries stay for a version that can.
    let mut reopened = open(&backend).unwrap();
    assert_eq!((reopened.applied(), rows(&backend)), before);
    let again = apply(&mut reopened, &[role_add("r"), enable()]);
    assert!(matches!(again, Err(FatalProblem::AuthEnabled)));
}

#[test]
fn data_with_authentication_on_or_damaged_is_refused() {
    let put = |bucket, key: &[u8], value: &[u8]| {
        let backend = Backend::default();
        let mut batch = WriteBatch::default();
        batch.put(bucket, key, value.into());
        backend.write(batch);
        open(&backend).err()
    };
    let enabled = |value: &[u8]| put(Bucket::Auth, b"authEnabled", value);
    assert!(enabled(&[0]).is_none());
    assert!(matches!(enabled(&[1]), Some(OpenError::AuthEnabled)));
    let damaged = [
        enabled(&[]),
        enabled(&[2]),
        enabled(&[1, 0]),
        put(Bucket::Auth, b"authRevision", &[1]),
        put(Bucket::AuthUsers, b"u", b"\x0a\x01v"),
        put(Bucket::AuthUsers, b"u", b"\x0a\x09u"),
        put(Bucket::AuthRoles, b"r", b"\x0a\x01v"),
        put(Bucket::AuthRoles, b"r", b"\xff"),
    ];
    for error in damaged {
        assert!(matches!(error, Some(OpenError::Auth(_))), "{error:?}");
    }
    let text = put(Bucket::AuthRoles, b"r", b"\xff").unwrap().to_string();
    assert_eq!(text, "damaged value of \"r\" in bucket authRoles: [ff]");
}

#[test]
fn names_that_no_key_can_hold_are_refused() {
    let backend = Backend::default();
    let mut machine = open(&backend).unwrap();
    for (length, fits) in [(32768, true), (32769, false)] {
        let name = "n".repeat(length);
        let too_long = (!fits).then_some(ApplyError::Auth(AuthError::NameTooLong));
        let user = ask(&mut machine, user_add(&name, "", ""));
        assert_eq!(user.err(), too_long);
        assert_eq!(ask(&mut machine, role_add(&name)).err(), too_long);
        let user_delete = InternalRaftRequest {
            auth_user_delete: Some(AuthUserDeleteRequest { name }),
            ..Default::default()
        };
        let not_found = (!fits).then_some(ApplyError::Auth(AuthError::UserNotFound));
        assert_eq!(ask(&mut machine, user_delete).err(), not_found);
    }
}
