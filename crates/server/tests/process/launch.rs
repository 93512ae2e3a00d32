//! Starting and ending: what a shell, a service manager and a second process see.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::place::{Place, Server, program};

#[test]
fn a_port_in_use_is_named() {
    let place = Place::new();
    let _holder = TcpListener::bind(("127.0.0.1", place.client_port)).unwrap();
    let text = format!(
        "listen tcp 127.0.0.1:{}: bind: address already in use",
        place.client_port
    );
    place.run_to_end(&[]).assert(1, &text);
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    let place = Place::new();
    std::fs::write(place.data_dir(), "a file").unwrap();
    let text = format!(
        "cannot access data directory: mkdir {}: not a directory; --data-dir has to name a directory that this process may write to, or create",
        place.data_dir().display()
    );
    place.run_to_end(&[]).assert(1, &text);
    assert_eq!(std::fs::read(place.data_dir()).unwrap(), b"a file");
    // Nobody, root included, creates a directory there.
    place
        .run_to_end(&["--data-dir=/proc/data"])
        .assert(1, "cannot access data directory");
}

#[test]
fn a_member_directory_that_is_a_file_is_named() {
    let place = Place::new();
    std::fs::create_dir(place.data_dir()).unwrap();
    std::fs::write(place.data_dir().join("member"), "a file").unwrap();
    place
        .run_to_end(&[])
        .assert(1, "cannot access member directory");
}

#[test]
fn nonsense_flags_are_refused_as_by_go() {
    let place = Place::new();
    place
        .run_to_end(&["--no-such-flag"])
        .assert(2, "flag provided but not defined: -no-such-flag");
    place
        .run_to_end(&["--snapshot-count=many"])
        .assert(2, "invalid value \"many\" for flag -snapshot-count");
    assert!(!place.data_dir().exists());
}

/// Whoever has typed the command looks at the terminal, wherever the log goes and however little of
/// it is wanted.
#[test]
fn a_refusal_is_seen_where_the_command_was_given() {
    let place = Place::new();
    let file = place.dir().join("etcd.log");
    let outputs = format!("--log-outputs={}", file.display());
    let refusals = [
        // Of a setting, of a start, and of what lies on the disk.
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0"),
        ("--auto-compaction-retention=-1h", "is no span to keep"),
        ("--data-dir=/proc/data", "cannot access data directory"),
    ];
    for (flag, text) in refusals {
        for outputs in [&outputs, "--log-outputs=/dev/null"] {
            let ended = place.run_to_end(&[outputs, flag]);
            ended.assert(1, text);
            assert_eq!(ended.log.lines().count(), 1, "{}", ended.log);
        }
        let log = std::fs::read_to_string(&file).unwrap();
        assert!(log.contains(text), "{log}");
        let quiet = place.run_to_end(&["--log-level=fatal", flag]);
        quiet.assert(1, text);
    }
}

/// As `logrotate` does it, with `kill -HUP` behind the move.
#[test]
fn log_files_are_opened_anew_at_a_hangup() {
    let place = Place::new();
    let (file, aside) = (place.dir().join("etcd.log"), place.dir().join("etcd.log.1"));
    let server = place.start(&[&format!("--log-outputs=stderr,{}", file.display())]);
    std::fs::rename(&file, &aside).unwrap();
    server.signal(Signal::HUP);
    server.wait_for("opened the log files anew");
    // Stderr has a line a moment before the file.
    server
        .end_with(Signal::TERM)
        .assert(128 + 15, "closed etcd server");
    let text = |path| std::fs::read_to_string(path).unwrap();
    assert!(text(&aside).contains("ready to serve client requests"));
    assert!(text(&file).contains("opened the log files anew"));
}

#[test]
fn a_log_that_is_rotated_begins_at_start_and_goes_on() {
    let place = Place::new();
    let file = place.dir().join("logs/etcd.log");
    let outputs = format!("--log-outputs=stderr,{}", file.display());
    let config = "--log-rotation-config-json={\"maxsize\":1,\"compress\":true}";
    let flags = ["--enable-log-rotation", &outputs, config];
    place.start(&flags).end_with(Signal::TERM);
    // As large as a file may be, so that the next line goes to another one.
    let mut text = std::fs::read(&file).unwrap();
    assert!(text.ends_with(b"\n"));
    text.resize(1 << 20, b'\n');
    std::fs::write(&file, &text).unwrap();
    place.start(&flags).end_with(Signal::TERM);
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.contains("closed etcd server"), "{log}");
    let names = std::fs::read_dir(file.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 2, "the file, and one that was put aside");
}

/// `$?` of a shell that runs the program and sends `signal` to it once it serves.
fn shell_status(signal: Signal) -> String {
    const SCRIPT: &str = r#"sh -c 'echo $$; exec "$@"' sh "$@"; echo "status $?""#;
    let place = Place::new();
    let mut command = Command::new("sh");
    command
        .args(["-c", SCRIPT, "sh", program()])
        .args(place.arguments())
        .stdout(Stdio::piped());
    let mut shell = Server::spawn(command, place.client_port);
    let stdout = shell.child().stdout.take().expect("stdout is a pipe");
    let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
    let pid = lines
        .next()
        .expect("the inner shell says its pid")
        .parse()
        .unwrap();
    shell.wait_until_serving();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    let status = lines.next().expect("the shell goes on");
    let ended = shell.wait();
    ended.assert(0, "closed etcd server");
    status
}

#[test]
fn signals_end_it_in_order_and_show_in_the_status() {
    assert_eq!(shell_status(Signal::TERM), "status 143");
    assert_eq!(shell_status(Signal::INT), "status 130");
    // A service manager calls an end by SIGTERM clean, but not a status of 143.
    let place = Place::new();
    for signal in [Signal::TERM, Signal::INT] {
        let ended = place.start(&[]).end_with(signal);
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended:?}");
    }
}

#[test]
fn the_service_manager_hears_ready() {
    let place = Place::new();
    let path = place.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut command = place.command(&[]);
    command.env("NOTIFY_SOCKET", &path);
    let server = Server::spawn(command, place.client_port);
    let mut message = [0; 64];
    let length = manager.recv(&mut message).expect("a message comes");
    assert_eq!(&message[..length], b"READY=1");
    server.assert_well();
}

#[tokio::test]
async fn a_second_process_waits_for_the_first() {
    let place = Place::new();
    let first = place.start(&[]);
    let second = place.beside().launch(&[]);
    second.wait_for("starting an etcd server");
    let mut kv = first.kv().await;
    for i in 0..100 {
        kv.put(format!("k{i}"), "v").await.unwrap();
    }
    assert!(
        !second.log().contains("opened backend db"),
        "{}",
        second.log()
    );
    first.assert_well();
    first
        .end_with(Signal::TERM)
        .assert(143, "closed etcd server");
    second.wait_until_serving();
    assert_eq!(
        second.kv().await.get("k99").await.as_deref(),
        Some(&b"v"[..])
    );
}

/// A client that is frozen, or whose network is gone, never says that it has heard of the end.
/// Requests that run would have seven seconds.
#[test]
fn an_idle_client_that_says_nothing_does_not_hold_up_the_end() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut socket = server.socket();
    // How HTTP/2 begins, with empty settings. The server has heard it when its own settings are
    // here.
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    socket.write_all(greeting).unwrap();
    socket.read_exact(&mut [0; 9]).unwrap();
    let asked = Instant::now();
    server.end_with(Signal::TERM);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// Where somebody sits before it: three lines under the log. Elsewhere programs read every line.
#[test]
fn a_person_at_a_terminal_is_told_what_to_do_next() {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let line = options.read(true).write(true).open(name.to_str().unwrap());
    let place = Place::new();
    let mut member = place.command(&[]);
    let member = member.stderr(Stdio::from(line.unwrap()));
    let mut member = member.stdin(Stdio::null()).spawn().unwrap();
    let told = BufReader::new(std::fs::File::from(screen)).lines();
    let told: Vec<String> = told
        .map(|line| line.unwrap())
        .filter(|line| !line.starts_with('{') && !line.is_empty())
        .take(3)
        .collect();
    let [what, address, how] = &told[..] else {
        panic!("{told:?}")
    };
    let data = place.data_dir().display().to_string();
    assert!(
        what.contains("member default serves") && what.ends_with(&data),
        "{what}"
    );
    let url = format!("http://127.0.0.1:{}", place.client_port);
    assert!(
        address.starts_with(&format!("clients connect to {url}; ")),
        "{address}"
    );
    assert!(
        how.contains(&format!("etcdctl --endpoints={url} put hello world")),
        "{how}"
    );
    kill_process(Pid::from_child(&member), Signal::TERM).unwrap();
    member.wait().unwrap();

    let place = Place::new();
    let server = place.start(&[]);
    server.wait_for("successfully notified init daemon");
    let log = server.log();
    assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
}
