//! A member that serves clients over TLS.

use std::path::Path;

use crate::client::Client;
use crate::issuer::{Authority, Pair, hosts, usages};
use crate::place::{Place, Server};

/// Certificates of a member and its clients, as files in the place's directory.
pub struct Setting {
    pub place: Place,
    pub ca: Authority,
    pub server: Pair,
    pub alice: Pair,
}

/// A server's certificate for this machine.
pub fn server(ca: &Authority) -> Pair {
    ca.issue("server", |p| {
        hosts(p, &["127.0.0.1", "localhost"]);
        usages(p, true, true);
    })
}

impl Setting {
    /// Writes `ca.crt`, `server.crt` and `server.key`.
    pub fn new() -> Setting {
        let (place, ca) = (Place::new(), Authority::new("ca"));
        let server = server(&ca);
        let alice = ca.issue("alice", |p| usages(p, false, true));
        ca.write(place.dir(), "ca.crt");
        server.write(place.dir(), "server");
        Setting {
            place,
            ca,
            server,
            alice,
        }
    }

    pub fn dir(&self) -> &Path {
        self.place.dir()
    }

    pub fn port(&self) -> u16 {
        self.place.client_port
    }

    /// `--NAME=DIR/FILE`
    pub fn file(&self, flag: &str, file: &str) -> String {
        format!("--{flag}={}", self.dir().join(file).display())
    }

    /// Flags of a member that wants certificates from its clients.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = self.flags_without_authority();
        flags.push(self.file("trusted-ca-file", "ca.crt"));
        flags.push("--client-cert-auth".to_owned());
        flags
    }

    pub fn flags_without_authority(&self) -> Vec<String> {
        let url = format!("https://127.0.0.1:{}", self.port());
        vec![
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            self.file("cert-file", "server.crt"),
            self.file("key-file", "server.key"),
        ]
    }

    /// Starts the member and waits until it serves.
    pub fn start(&self, more: &[&str]) -> Server {
        self.start_with(self.flags(), more)
    }

    pub fn start_with(&self, flags: Vec<String>, more: &[&str]) -> Server {
        let flags: Vec<&str> = flags
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let server = self.place.launch(&flags);
        server.wait_for("serving client traffic securely");
        server
    }

    /// A client that is let in.
    pub fn client(&self) -> Client {
        Client::of(&self.ca).with(&self.alice)
    }
}
