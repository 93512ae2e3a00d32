//! The member that a transcript is replayed against: ours, or another program's.

use std::process::Command;

use super::client::Request;
use super::place::{Place, Server, until};
use super::transcript::Names;

/// A fresh member called `m1`.
pub struct Member {
    pub names: Names,
    pub port: u16,
    _server: Server,
    _place: Place,
}

impl Member {
    /// Starts the workspace's `etcd`, or the program `reference`, which logs `ready` once it serves.
    pub async fn start(reference: Option<&str>, ready: &str, flags: &[&str]) -> Member {
        let place = Place::new();
        let arguments = place.arguments();
        let peer = arguments.iter().find_map(|argument| {
            let port = argument.strip_prefix("--listen-peer-urls=http://127.0.0.1:");
            port.map(|port| port.parse().unwrap())
        });
        let peer: u16 = peer.expect("a member listens to its peers");
        let cluster = format!("--initial-cluster=m1=http://127.0.0.1:{peer}");
        let flags = [flags, &["--name=m1", &cluster]].concat();
        let server = match reference {
            None => place.start(&flags),
            Some(program) => {
                let mut command = Command::new(program);
                command.args(arguments).args(flags);
                let server = Server::spawn(command, place.client_port);
                server.wait_for(ready);
                server
            }
        };
        let port = place.client_port;
        until("the version of the cluster", async || {
            let version = Request::new("GET", "/version").answer(port);
            version.body.contains("\"etcdcluster\":\"3.")
        })
        .await;
        Member {
            names: Names::new(port, peer),
            port,
            _server: server,
            _place: place,
        }
    }
}
