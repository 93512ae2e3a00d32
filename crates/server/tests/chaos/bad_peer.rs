//! A third member that is none: a program that answers on its port with nonsense. The two others go
//! on, without more memory and without filling their logs.

use std::cell::Cell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::cluster::{Cluster, ELECTION_TIMEOUT, Member};
use super::kills::RESUMES_WITHIN;
use super::load::{self, Load};
use super::place::{free_port, until};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Nonsense {
    /// Takes connections and says nothing.
    Silence,
    /// Closes them.
    Close,
    /// Bytes without any shape.
    Noise,
    /// A status that none of the protocol's texts goes with.
    Teapot,
    /// It belongs to another cluster.
    ForeignCluster,
    /// It does not talk to this version.
    Incompatible,
    /// Streams that begin in order and go on with noise.
    NoiseInStream,
    /// A frame that is announced to be as large as can be.
    EndlessFrame,
    /// A frame just below the limit, of which only the beginning ever comes.
    UnfinishedFrame,
    /// Messages that never travel: raft's own, and types that there are not.
    LocalMessages,
    /// A stream that ends in the middle of a frame, at once.
    CutFrame,
    /// One byte at a time.
    Drop,
}

const ALL: [Nonsense; 12] = {
    use Nonsense::*;
    [
        Silence,
        Close,
        Noise,
        Teapot,
        ForeignCluster,
        Incompatible,
        NoiseInStream,
        EndlessFrame,
        UnfinishedFrame,
        LocalMessages,
        CutFrame,
        Drop,
    ]
};

/// The two members may have grown by this much when everything has been tried: 64 messages wait for a
/// member that takes none, and each may have as much of the log as one message holds, a megabyte at
/// most. A frame that is announced would be more by far.
const GROWTH_BYTES_MAX: u64 = 128 << 20;
/// Connections after which each of the two has met a kind of nonsense: they dial two streams each.
const DIALS: usize = 6;
/// Lines of the log for each kind of nonsense, on each member. Most come once in five seconds and
/// stream.
const LINES_MAX: usize = 120;

fn noise() -> Vec<u8> {
    (0..fastrand::usize(1..4000))
        .map(|_| fastrand::u8(..))
        .collect()
}

fn status(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {line}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A frame of a stream: messages of types that stay at home, from anyone to anyone.
fn local_messages() -> Vec<u8> {
    let mut frames = Vec::new();
    for kind in [0, 1, 10, 11, 12, 19, 20, 63, 127] {
        let message = [0x08, kind, 0x10, 0x01, 0x18, 0x02, 0x20, 0x7f];
        frames.extend((message.len() as u64).to_be_bytes());
        frames.extend(message);
    }
    frames
}

async fn answer(mut connection: TcpStream, nonsense: Nonsense) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if connection.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    };
    let headers = format!(
        "X-Server-Version: 3.7.1\r\nX-Etcd-Cluster-Id: {}\r\n",
        header("x-etcd-cluster-id")
    );
    let stream = format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    let mut bytes = match nonsense {
        Nonsense::Silence => return wait_for_end(connection).await,
        Nonsense::Close => return Ok(()),
        Nonsense::Noise => noise(),
        Nonsense::Teapot => status("418 I'm a teapot", &headers, "short and stout\n"),
        Nonsense::ForeignCluster => {
            let foreign = "X-Server-Version: 3.7.1\r\nX-Etcd-Cluster-Id: cafe\r\n";
            status("412 Precondition Failed", foreign, "cluster ID mismatch\n")
        }
        Nonsense::Incompatible => status(
            "412 Precondition Failed",
            &headers,
            "incompatible version\n",
        ),
        _ => stream.into_bytes(),
    };
    match nonsense {
        Nonsense::NoiseInStream => bytes.extend(chunk(&noise())),
        Nonsense::EndlessFrame => bytes.extend(chunk(&[0xff; 64])),
        // The type of a message in the short form, and a length of 511 MiB: one of the two streams
        // takes it.
        Nonsense::UnfinishedFrame => {
            let length = (511_u64 << 20).to_be_bytes();
            let kind = if head.contains("/msgapp/") {
                &[2][..]
            } else {
                &[]
            };
            bytes.extend(chunk(&[kind, &length, &[0x08; 1000]].concat()));
        }
        Nonsense::LocalMessages => bytes.extend(chunk(&local_messages())),
        Nonsense::CutFrame => {
            bytes.extend(chunk(&[0, 0, 0, 0, 0, 0, 0, 99, 1, 2, 3]));
            connection.write_all(&bytes).await?;
            return Ok(());
        }
        Nonsense::Drop => {
            for byte in bytes {
                connection.write_all(&[byte]).await?;
                tokio::time::sleep(ELECTION_TIMEOUT / 10).await;
            }
            return Ok(());
        }
        _ => {}
    }
    connection.write_all(&bytes).await?;
    wait_for_end(connection).await
}

async fn wait_for_end(mut connection: TcpStream) -> io::Result<()> {
    tokio::io::copy(&mut connection, &mut tokio::io::sink())
        .await
        .map(drop)
}

/// The third member; returns its port. When it changes its mind, it closes all connections.
async fn serve(nonsense: watch::Receiver<Nonsense>, answered: Rc<Cell<usize>>) -> u16 {
    let port = free_port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .expect("it is free");
    tokio::task::spawn_local(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (mut nonsense, answered) = (nonsense.clone(), Rc::clone(&answered));
            tokio::task::spawn_local(async move {
                let kind = *nonsense.borrow_and_update();
                answered.set(answered.get() + 1);
                tokio::select! {
                    // A connection that breaks has done its part.
                    _ = answer(connection, kind) => {}
                    _ = nonsense.changed() => {}
                }
            });
        }
    });
    port
}

fn resident_bytes(member: &Member) -> u64 {
    let pid = member.with_server(|server| server.child().id());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("its size");
    number.parse::<u64>().expect("a number") << 10
}

fn lines(member: &Member) -> usize {
    member.with_server(|server| server.log().lines().count())
}

#[test]
fn a_member_that_answers_nonsense_harms_nobody() {
    load::run(async {
        let (nonsense, _) = watch::channel(Nonsense::Silence);
        let answered = Rc::new(Cell::new(0));
        let cluster = Cluster::new(async |index, port| match index {
            2 => serve(nonsense.subscribe(), Rc::clone(&answered)).await,
            _ => port,
        })
        .await;
        let members = &cluster.members[..2];
        cluster.start_these(members, &[]).await;
        let load = Load::start(&cluster, 2, 2);
        load.more(20).await;
        let before: Vec<u64> = members
            .iter()
            .map(|member| resident_bytes(member))
            .collect();
        for kind in ALL {
            let lines_before: Vec<usize> = members.iter().map(|member| lines(member)).collect();
            let answered_before = answered.get();
            nonsense.send_replace(kind);
            until("the members to hear it", async || {
                answered.get() >= answered_before + DIALS
            })
            .await;
            load.more(20).await;
            let took = load.resumed().await;
            assert!(took < RESUMES_WITHIN, "{kind:?}: {took:?}");
            let said: Vec<usize> = members
                .iter()
                .zip(lines_before)
                .map(|(member, before)| lines(member) - before)
                .collect();
            println!("{kind:?}: a write takes {took:?}, {said:?} lines were logged");
            assert!(
                said.iter().all(|said| *said <= LINES_MAX),
                "{kind:?}: {said:?}"
            );
        }
        for (member, before) in members.iter().zip(before) {
            let now = resident_bytes(member);
            println!(
                "{}: {} MiB, then {} MiB",
                member.name,
                before >> 20,
                now >> 20
            );
            assert!(now < before + GROWTH_BYTES_MAX);
            let log = member.with_server(|server| server.log());
            assert!(!log.contains("panic"), "{log}");
        }
        load.finish(&cluster).await;
    });
}
