//! Data directories that the Go etcd left behind, opened by the built `etcd` program.
//!
//! `data/dirs/VERSION-CASE.tar.gz` holds the files of one member as etcd of that version wrote them, save that
//! the zeros behind the end of a preallocated WAL segment and behind the database's high water page are cut
//! off. `data/dirs/index.json` tells for each what its writer answered before it ended (for torn and restored
//! directories: after it had started on them), or the text with which it must be refused.
//!
//! An opened directory is read, ended by SIGTERM and opened again: both times it must show the same state. A
//! refused one must be left as it was, byte for byte.

#![cfg(test)]

#[path = "process/place.rs"]
#[expect(dead_code, reason = "these tests need only a part of it")]
mod place;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use place::{Place, Server, program};
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::auth_client::AuthClient;
use rustix::process::Signal;
use serde::Deserialize;
use tonic::transport::Channel;

/// What a directory must come to.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Refused { refused: String },
    Opened(State),
}

/// What a member answers; compared as a whole.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Hexadecimal; absent where the directory's maker did not tell it.
    cluster_id: Option<String>,
    /// Hexadecimal, as above.
    member_id: Option<String>,
    revision: i64,
    keys: i64,
    /// `HashKV` at `revision`: keys, values, revisions, versions and leases.
    hash: u32,
    /// -1, if never compacted.
    compact_revision: i64,
    #[serde(default)]
    alarms: Vec<String>,
    #[serde(default)]
    leases: Vec<Lease>,
    /// If authentication is on.
    auth: Option<Auth>,
}

/// Users and roles.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    revision: u64,
    users: Vec<User>,
    roles: Vec<Role>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    name: String,
    roles: Vec<String>,
    /// With which the user can log in, and with no other.
    password: Option<String>,
    /// Key and end of ranges, and how many keys the user sees there; none where it may not look.
    #[serde(default)]
    reads: Vec<(String, String, Option<i64>)>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    name: String,
    /// Type, key and end.
    permissions: Vec<(String, String, String)>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    id: i64,
    /// Seconds granted; absent where the directory's maker did not tell it.
    ttl: Option<i64>,
    keys: Option<Vec<String>>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/dirs")
        .join(name)
}

fn index() -> BTreeMap<String, Outcome> {
    let text = fs::read(data("index.json")).expect("the index lies beside the directories");
    serde_json::from_slice(&text).expect("the index is well-formed")
}

/// Unpacks a gzipped ustar archive of plain files.
///
/// ```text
/// 0    100        124    136        156       257     512
/// | name | ... | size | ... | type | ... | "ustar" | ... | content, filled up to 512 | next header ...
/// ```
///
/// Sizes are octal text. A header of zeros ends the archive.
fn unpack(archive: &Path, to: &Path) {
    let mut tar = Vec::new();
    GzDecoder::new(fs::File::open(archive).expect("the archive is there"))
        .read_to_end(&mut tar)
        .expect("the archive is gzip");
    let mut rest = &tar[..];
    while rest[0] != 0 {
        let (header, behind) = rest.split_at(512);
        assert_eq!(&header[257..262], b"ustar", "{}", archive.display());
        assert_eq!(header[156], b'0', "only plain files are packed");
        let size = usize::from_str_radix(text(&header[124..136]), 8).expect("an octal size");
        let path = to.join(text(&header[..100]));
        fs::create_dir_all(path.parent().expect("a file lies in a directory")).unwrap();
        fs::write(&path, &behind[..size]).unwrap();
        rest = &behind[size.next_multiple_of(512)..];
    }
}

/// A field of an archive's header, up to the zeros that fill it.
fn text(field: &[u8]) -> &str {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    str::from_utf8(&field[..end]).expect("headers are ASCII")
}

/// Starts the program on the directory at `place`, under the name that its writer had.
fn launch(place: &Place) -> Server {
    let client = format!("http://127.0.0.1:{}", place.client_port);
    let peer = format!("http://127.0.0.1:{}", place.beside().client_port);
    let mut command = Command::new(program());
    command
        .arg("--name=m1")
        .arg(format!("--data-dir={}", place.data_dir().display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"));
    Server::spawn(command, place.client_port)
}

/// Asks the member, and closes the connection: the member would wait a while for an open one when it ends.
fn ask(server: &Server, expected: &State) -> State {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(observe(server, expected))
}

/// A way to the member, in the name of whom a token stands for.
#[derive(Clone)]
struct Way {
    channel: Channel,
    token: Option<String>,
}

impl Way {
    fn say<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            let token = token.parse().expect("a token is ASCII");
            request.metadata_mut().insert("token", token);
        }
        request
    }

    /// The same way in the name of `user`, if that is its password.
    async fn log_in(&self, user: &str, password: &str) -> Option<Way> {
        let request = pb::AuthenticateRequest {
            name: user.into(),
            password: password.into(),
        };
        let answer = self.auth().authenticate(request).await.ok()?;
        Some(Way {
            channel: self.channel.clone(),
            token: Some(answer.into_inner().token),
        })
    }

    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    async fn range(&self, key: &str, end: &str) -> Result<pb::RangeResponse, tonic::Status> {
        let request = self.say(pb::RangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            ..Default::default()
        });
        let mut kv = pb::kv_client::KvClient::new(self.channel.clone());
        Ok(kv.range(request).await?.into_inner())
    }
}

/// Asks the member for everything that `expected` tells.
async fn observe(server: &Server, expected: &State) -> State {
    let channel = server.channel().await;
    let mut way = Way {
        channel: channel.clone(),
        token: None,
    };
    if let Some(auth) = &expected.auth {
        let refused = way.range("\0", "\0").await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: user name is empty");
        let root = auth.users.iter().find(|user| user.name == "root");
        let password = root.and_then(|root| root.password.as_deref());
        let password = password.expect("root has a password");
        way = way.log_in("root", password).await.expect("root can log in");
    }
    let range = way.range("\0", "\0").await.unwrap();
    let header = range.header.expect("responses have a header");
    assert_eq!(range.kvs.len() as i64, range.count);

    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(channel.clone());
    let hash = maintenance
        .hash_kv(way.say(pb::HashKvRequest::default()))
        .await
        .unwrap()
        .into_inner();
    let alarms = maintenance
        .alarm(way.say(pb::AlarmRequest::default()))
        .await
        .unwrap()
        .into_inner()
        .alarms;

    let mut leases = Vec::new();
    for expected in &expected.leases {
        leases.push(lease(&way, expected).await);
    }
    let listed = pb::lease_client::LeaseClient::new(channel)
        .lease_leases(way.say(pb::LeaseLeasesRequest {}))
        .await
        .unwrap()
        .into_inner()
        .leases;
    assert_eq!(listed.len(), leases.len(), "{listed:?}");
    let auth = match &expected.auth {
        None => None,
        Some(expected) => Some(auth(&way, expected).await),
    };

    State {
        cluster_id: expected
            .cluster_id
            .as_ref()
            .map(|_| format!("{:x}", header.cluster_id)),
        member_id: expected
            .member_id
            .as_ref()
            .map(|_| format!("{:x}", header.member_id)),
        revision: header.revision,
        keys: range.count,
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        alarms: alarms
            .iter()
            .map(|alarm| alarm.alarm().as_str_name().to_owned())
            .collect(),
        leases,
        auth,
    }
}

/// What the member knows of users and roles.
async fn auth(root: &Way, expected: &Auth) -> Auth {
    let mut client = root.auth();
    let status = client.auth_status(root.say(pb::AuthStatusRequest {})).await;
    let status = status.unwrap().into_inner();
    assert!(status.enabled);
    let names = client.user_list(root.say(pb::AuthUserListRequest {})).await;
    let mut users = Vec::new();
    for name in names.unwrap().into_inner().users {
        let expected = expected.users.iter().find(|user| user.name == name);
        users.push(user(root, expected.expect("a known user")).await);
    }
    let names = client.role_list(root.say(pb::AuthRoleListRequest {})).await;
    let mut roles = Vec::new();
    for name in names.unwrap().into_inner().roles {
        let get = root.say(pb::AuthRoleGetRequest { role: name.clone() });
        let permissions = client.role_get(get).await.unwrap().into_inner().perm;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("keys are text");
        let permissions = permissions.iter().map(|permission| {
            let kind = permission.perm_type().as_str_name().to_owned();
            (kind, text(&permission.key), text(&permission.range_end))
        });
        let permissions = permissions.collect();
        roles.push(Role { name, permissions });
    }
    Auth {
        revision: status.auth_revision,
        users,
        roles,
    }
}

async fn user(root: &Way, expected: &User) -> User {
    let name = expected.name.clone();
    let get = root.say(pb::AuthUserGetRequest { name: name.clone() });
    let roles = root.auth().user_get(get).await.unwrap().into_inner().roles;
    assert!(root.log_in(&name, "wrong").await.is_none());
    assert!(root.log_in(&name, "").await.is_none());
    let mut password = None;
    let mut reads = Vec::new();
    if let Some(right) = &expected.password
        && let Some(user) = root.log_in(&name, right).await
    {
        password = Some(right.clone());
        for (key, end, _) in &expected.reads {
            let seen = match user.range(key, end).await {
                Ok(range) => Some(range.count),
                Err(refused) => {
                    assert_eq!(refused.message(), "etcdserver: permission denied");
                    None
                }
            };
            reads.push((key.clone(), end.clone(), seen));
        }
    }
    User {
        name,
        roles,
        password,
        reads,
    }
}

/// What the member knows of the lease that `expected` describes.
async fn lease(way: &Way, expected: &Lease) -> Lease {
    let request = way.say(pb::LeaseTimeToLiveRequest {
        id: expected.id,
        keys: true,
    });
    let found = pb::lease_client::LeaseClient::new(way.channel.clone())
        .lease_time_to_live(request)
        .await
        .unwrap()
        .into_inner();
    assert!(found.ttl > 0, "lease {} has ended", expected.id);
    let mut keys: Vec<String> = found
        .keys
        .iter()
        .map(|key| String::from_utf8_lossy(key).into_owned())
        .collect();
    keys.sort();
    Lease {
        id: found.id,
        ttl: expected.ttl.map(|_| found.granted_ttl),
        keys: expected.keys.as_ref().map(|_| keys),
    }
}

fn check(name: &str) {
    let outcome = index().remove(name).expect("the index knows the directory");
    let place = Place::new();
    unpack(&data(&format!("{name}.tar.gz")), &place.data_dir());
    match outcome {
        Outcome::Refused { refused } => {
            let before = place.files();
            launch(&place).wait().assert(1, &refused);
            assert_eq!(place.files(), before);
        }
        Outcome::Opened(expected) => {
            for _ in 0..2 {
                let server = launch(&place);
                server.wait_until_serving();
                let state = ask(&server, &expected);
                assert_eq!(state, expected, "{}", server.log());
                let ended = server.end_with(Signal::TERM);
                ended.assert(143, "closed etcd server");
                assert!(!ended.log.contains("panic"), "{}", ended.log);
            }
        }
    }
}

/// A test for each directory, and one that none of them is forgotten.
macro_rules! directories {
    ($($test:ident: $directory:literal,)*) => {
        $(#[test]
        fn $test() {
            check($directory);
        })*

        #[test]
        fn every_directory_has_a_test() {
            let tested = std::collections::BTreeSet::from([$($directory.to_owned()),*]);
            assert!(index().keys().eq(tested.iter()), "{tested:?}");
        }
    };
}

directories! {
    keys_of_3_4: "3.4.23-keys-small",
    keys_of_3_5: "3.5.30-keys-small",
    keys_of_3_7: "3.7.1-keys-small",
    a_head_compacted_by_3_4: "3.4.23-compacted-twice",
    a_head_compacted_by_3_7: "3.7.1-compacted-twice",
    leases: "3.7.1-leases",
    an_active_alarm: "3.5.30-alarm-nospace",
    raft_snapshots_of_3_5: "3.5.30-snapshots",
    raft_snapshots_of_3_7: "3.7.1-snapshots",
    entries_that_are_only_in_the_log: "3.4.23-killed",
    a_torn_last_record: "3.5.30-killed-torn",
    a_restored_snapshot_with_bumped_revisions: "3.7.1-restored-bumped",
    a_flipped_bit_in_the_middle_of_the_log: "3.7.1-wal-flipped",
    users_of_3_4: "3.4.23-auth",
    users_of_3_5: "3.5.30-auth",
    users_of_3_7: "3.7.1-auth",
}
