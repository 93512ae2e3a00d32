//! Entries about users and roles: what etcd's backend has of them afterwards, ours must have,
//! whoever wrote the log; who asks is checked when an entry is applied; what it means for tokens is
//! told.

// For clippy, which lets tests unwrap.
#![cfg(test)]

use base64::Engine;
use bcrypt::BASE_64;
use prost::Message;
use retcd_proto::authpb::{Permission, User, UserAddOptions};
use retcd_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthStatusRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, InternalAuthenticateRequest,
    InternalRaftRequest, PutRequest, RequestHeader,
};
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::Time;
use retcd_state::auth::{AuthError, AuthReply, TokenChange, password};
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

/// What a reply says of users and roles.
fn told(reply: Reply) -> AuthReply {
    match reply {
        Reply::Auth { reply, .. } => reply,
        other => panic!("a request about users was answered with {other:?}"),
    }
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
    requests: Vec<InternalRaftRequest>,
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
            ["entry" | "enable", hex] => sample.requests.push(request(hex)),
            [bucket, key, hex] => {
                let (bucket, _) = BUCKETS.iter().find(|(name, _)| *name == bucket).unwrap();
                sample.rows.push((*bucket, key.into(), bytes(hex)));
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
        let replies = apply(&mut machine, &sample.requests).unwrap();
        for (request, reply) in sample.requests.iter().zip(&replies) {
            assert!(
                matches!(reply, Ok(Reply::Auth { .. })),
                "{request:?}: {reply:?}"
            );
        }
        let rows = rows(&backend);
        if sample.version == "3.4.23" {
            assert_eq!(without_passwords(&rows), without_passwords(&sample.rows));
        } else {
            assert_eq!(rows, sample.rows, "{}", sample.version);
        }
        let auth = open(&backend).unwrap().auth_store();
        assert_eq!(*auth.read(), *machine.auth_store().read());
        assert!(auth.read().is_enabled());
        let root = &auth.read().user("root").unwrap().password.clone();
        assert!(password::verify(b"rootpw", root), "{}", sample.version);
        assert!(!password::verify(b"alicepw", root));
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
        let answer = answer.map_err(ApplyError::Auth);
        assert_eq!(ask(&mut machine, request).map(told), answer);
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

/// A request in the name of `user`, identified at `revision`.
fn by(user: &str, revision: u64, request: InternalRaftRequest) -> InternalRaftRequest {
    InternalRaftRequest {
        header: Some(RequestHeader {
            id: 1,
            username: user.into(),
            auth_revision: revision,
        }),
        ..request
    }
}

/// Authentication is on; `root` has everything, `u` has no role. The store's revision is 4.
fn locked() -> (Backend, Machine) {
    let backend = Backend::default();
    let mut machine = open(&backend).unwrap();
    let refused = |error| Err(ApplyError::Auth(error));
    let missing = refused(AuthError::RootUserNotFound);
    assert_eq!(ask(&mut machine, enable()), missing);
    ask(&mut machine, user_add("root", "", "")).unwrap();
    let missing = refused(AuthError::RootRoleNotGranted);
    assert_eq!(ask(&mut machine, enable()), missing);
    for request in [grant_root(), user_add("u", "", ""), enable()] {
        ask(&mut machine, request).unwrap();
    }
    (backend, machine)
}

#[test]
fn only_root_manages_users_whatever_its_revision() {
    let (_, mut machine) = locked();
    let refused = |error| Err(ApplyError::Auth(error));
    let list = InternalRaftRequest {
        auth_user_list: Some(AuthUserListRequest {}),
        ..Default::default()
    };
    for request in [role_add("r"), enable(), list, user_add("v", "", "")] {
        let mut by = |user, revision| ask(&mut machine, by(user, revision, request.clone()));
        assert_eq!(by("", 0), refused(AuthError::UserEmpty));
        assert_eq!(by("nobody", 4), refused(AuthError::UserNotFound));
        assert_eq!(by("u", 4), refused(AuthError::PermissionDenied));
        assert!(by("root", 1).is_ok());
    }
}

#[test]
fn a_user_sees_itself_and_its_roles() {
    let (_, mut machine) = locked();
    let grant = AuthUserGrantRoleRequest {
        user: "u".into(),
        role: "r".into(),
    };
    let grant = InternalRaftRequest {
        auth_user_grant_role: Some(grant),
        ..Default::default()
    };
    for request in [role_add("r"), role_add("s"), grant] {
        ask(&mut machine, by("root", 4, request)).unwrap();
    }
    let mut user = |caller, name: &str| {
        let get = Some(AuthUserGetRequest { name: name.into() });
        let request = InternalRaftRequest {
            auth_user_get: get,
            ..Default::default()
        };
        let answer = ask(&mut machine, by(caller, 1, request));
        answer.map(told).map_err(|error| error.to_string())
    };
    let own = AuthReply::User(vec!["r".into()]);
    assert_eq!(user("u", "u"), Ok(own.clone()));
    assert_eq!(user("root", "u"), Ok(own));
    assert_eq!(user("u", "root"), Err("permission denied".into()));
    assert_eq!(user("x", "u"), Err("user name not found".into()));
    assert_eq!(user("", "u"), Err("user name is empty".into()));
    let mut role = |caller, role: &str| {
        let get = Some(AuthRoleGetRequest { role: role.into() });
        let request = InternalRaftRequest {
            auth_role_get: get,
            ..Default::default()
        };
        ask(&mut machine, by(caller, 1, request)).map_err(|error| error.to_string())
    };
    assert!(role("u", "r").is_ok() && role("root", "s").is_ok());
    assert_eq!(role("u", "s"), Err("permission denied".into()));
}

fn token_changes(machine: &mut Machine, request: InternalRaftRequest) -> Vec<TokenChange> {
    let entry = Entry {
        index: Some(machine.applied().index + 1),
        term: Some(2),
        r#type: Some(EntryType::EntryNormal as i32),
        data: Some(request.encode_to_vec().into()),
    };
    let applied = machine.apply(Time::default(), &[entry]).unwrap();
    applied.token_changes
}

fn log_in(name: &str, simple_token: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        authenticate: Some(InternalAuthenticateRequest {
            name: name.into(),
            simple_token: simple_token.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn tokens_follow_the_log() {
    let (_, mut machine) = locked();
    let index = machine.applied().index + 1;
    assert_eq!(
        token_changes(&mut machine, log_in("u", "drawn")),
        [TokenChange::Login {
            drawn: "drawn".into(),
            index,
            user: "u".into()
        }]
    );
    assert_eq!(
        ask(&mut machine, log_in("u", "drawn")).map(told),
        Ok(AuthReply::LoggedIn {
            token: format!("drawn.{index}"),
            revision: 4
        })
    );
    // No token is drawn where tokens are signed.
    assert_eq!(token_changes(&mut machine, log_in("u", "")), []);
    assert_eq!(token_changes(&mut machine, log_in("nobody", "drawn")), []);
    let refused = Err(ApplyError::Auth(AuthError::Failed));
    assert_eq!(ask(&mut machine, log_in("nobody", "drawn")), refused);

    let change_password = InternalRaftRequest {
        auth_user_change_password: Some(AuthUserChangePasswordRequest {
            name: "u".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let user_delete = InternalRaftRequest {
        auth_user_delete: Some(AuthUserDeleteRequest { name: "u".into() }),
        ..Default::default()
    };
    let logout = [TokenChange::Logout("u".into())];
    for request in [change_password, user_delete.clone()] {
        let refused = by("u", 4, request.clone());
        assert_eq!(token_changes(&mut machine, refused), []);
        assert_eq!(token_changes(&mut machine, by("root", 4, request)), logout);
    }
    let again = by("root", 4, user_delete);
    assert_eq!(token_changes(&mut machine, again), []);
    let disable = InternalRaftRequest {
        auth_disable: Some(AuthDisableRequest {}),
        ..Default::default()
    };
    assert_eq!(
        token_changes(&mut machine, by("root", 4, disable)),
        [TokenChange::LogoutAll]
    );
    assert_eq!(token_changes(&mut machine, log_in("root", "drawn")), []);
}

#[test]
fn who_has_no_password_cannot_log_in() {
    let (_, mut machine) = locked();
    let mut add = user_add("c", "", "");
    add.auth_user_add.as_mut().unwrap().options = Some(UserAddOptions { no_password: true });
    ask(&mut machine, by("root", 4, add)).unwrap();
    let refused = Err(ApplyError::Auth(AuthError::Failed));
    assert_eq!(ask(&mut machine, log_in("c", "drawn")), refused);
}

/// What was proposed before a change and is applied behind it is checked against the change.
#[test]
fn an_entry_is_judged_by_the_state_at_its_place() {
    let (_, mut machine) = locked();
    let put = || InternalRaftRequest {
        put: Some(PutRequest {
            key: b"k".to_vec().into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let permit = |key: &str| InternalRaftRequest {
        auth_role_grant_permission: Some(AuthRoleGrantPermissionRequest {
            name: "r".into(),
            perm: Some(Permission {
                perm_type: 1,
                key: key.as_bytes().to_vec().into(),
                range_end: Default::default(),
            }),
        }),
        ..Default::default()
    };
    let grant = InternalRaftRequest {
        auth_user_grant_role: Some(AuthUserGrantRoleRequest {
            user: "u".into(),
            role: "r".into(),
        }),
        ..Default::default()
    };
    let batch = [
        by("u", 4, put()),
        by("root", 4, role_add("r")),
        by("root", 4, grant),
        by("u", 6, put()),
        by("root", 4, permit("k")),
        by("u", 6, put()),
        by("u", 7, put()),
        by("", 0, put()),
        put(),
        by("root", 6, put()),
        by("root", 7, put()),
    ];
    let replies = apply(&mut machine, &batch).unwrap();
    let outcome = |reply: &Result<Reply, ApplyError>| match reply {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    let outcomes: Vec<String> = replies.iter().map(outcome).collect();
    let expected = [
        "permission denied",
        "ok",
        "ok",
        "permission denied",
        "ok",
        "revision of auth store is old",
        "ok",
        "user name is empty",
        "user name is empty",
        "revision of auth store is old",
        "ok",
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn damaged_data_is_refused() {
    let put = |bucket, key: &[u8], value: &[u8]| {
        let backend = Backend::default();
        let mut batch = WriteBatch::default();
        batch.put(bucket, key, value.into());
        backend.write(batch);
        open(&backend).err()
    };
    let enabled = |value: &[u8]| put(Bucket::Auth, b"authEnabled", value);
    assert!(enabled(&[0]).is_none());
    assert!(enabled(&[1]).is_none());
    // A role's name of bytes that are no text, as older lines took it; a field of the options that
    // nobody knows.
    assert!(put(Bucket::AuthUsers, b"u", b"\x0a\x01u\x1a\x01\xff").is_none());
    assert!(
        put(
            Bucket::AuthUsers,
            b"u",
            b"\x0a\x01u\x22\x05\x0a\x01x\x10\x01"
        )
        .is_none()
    );
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
    assert_eq!(text, "damaged value of \"r\" in bucket authRoles (1 bytes)");
    // A user's row holds the hash of a password, and errors end up in logs.
    let row = b"\x0a\x01v\x12\x07$2a$10$";
    let error = put(Bucket::AuthUsers, b"u", row).unwrap();
    assert_eq!(
        error.to_string(),
        "damaged value of \"u\" in bucket authUsers (12 bytes)"
    );
    assert!(!format!("{error:?}").contains("24, "), "{error:?}");
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

/// Who has just been permitted to read must not find what was there before: so it is in etcd, where
/// each entry is visible before the next one is executed.
#[test]
fn keys_are_visible_before_later_changes_of_users_are() {
    let backend = Backend::default();
    let mut machine = open(&backend).unwrap();
    let (reader, store) = (machine.reader(), machine.auth_store());
    let put = InternalRaftRequest {
        put: Some(PutRequest {
            key: "k".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let unchanged = store.read();
    std::thread::scope(|scope| {
        scope.spawn(move || apply(&mut machine, &[put, role_add("r")]).unwrap());
        // Nobody else gets the lock any more once the machine waits for it with its change.
        while store.try_read().is_some() {
            std::thread::yield_now();
        }
        let revision = reader.revision();
        drop(unchanged);
        assert_eq!(revision, 2);
    });
    assert!(store.read().role("r").is_some());
}
