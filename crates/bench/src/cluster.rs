//! A cluster of one binary on this machine, on free loopback ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb as pb;
use rustix::process::Signal;

use crate::binary::Binary;
use crate::certificates::Certificates;
use crate::cgroup::MemoryCap;
use crate::error::Error;
use crate::grpc::Connection;
use crate::keys::KeySpace;
use crate::load;
use crate::procfs::{self, Memory};
use crate::server::{Addresses, MemberLayout, Server};
use crate::target::Target;

/// The directories and addresses of the members. Outlives the server processes.
pub(crate) struct ClusterLayout {
    members: Vec<MemberLayout>,
    target: Target,
}

/// The running members of a layout.
pub(crate) struct Cluster<'a> {
    servers: Vec<Server<'a>>,
}

impl ClusterLayout {
    /// Prepares `members` new members of `binary`, each in a subdirectory of `directory`, which
    /// must be empty. With `certificates`, clients and members use TLS. Every member gets `args`, and
    /// its process the `cap` on its memory.
    ///
    /// # Errors
    /// [`Error::Io`] if no ports are free, [`Error::Tls`] if the certificates are unusable.
    pub(crate) fn new(
        binary: &Binary,
        members: u32,
        directory: &Path,
        certificates: Option<&Certificates>,
        cap: Option<&MemoryCap>,
        args: &[String],
    ) -> Result<Self, Error> {
        let found =
            free_addresses(members).map_err(Error::io("no free port on the loopback address"))?;
        let scheme = certificates.map_or("http", |_| "https");
        let tls_args = certificates.map_or(Vec::new(), Certificates::server_args);
        let args = [&tls_args, args].concat();
        let members = found.iter().map(|own| {
            MemberLayout::new(
                binary,
                directory.join(&own.name),
                own,
                &found,
                scheme,
                &args,
            )?
            .with_cap(cap)
        });
        let endpoints: Vec<_> = found.iter().map(|own| own.client.to_string()).collect();
        let tls = certificates.map(Certificates::client).transpose()?;
        Ok(Self {
            members: members.collect::<Result<_, _>>()?,
            target: Target::new(&endpoints, tls)?,
        })
    }

    /// The client endpoints of all members.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The number of members.
    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// The directory and addresses of member `at`.
    pub(crate) fn layout(&self, at: usize) -> &MemberLayout {
        &self.members[at]
    }

    /// Starts all members without waiting.
    ///
    /// # Errors
    /// [`Error::Io`] if the binary cannot be executed.
    pub(crate) fn exec(&self) -> Result<Cluster<'_>, Error> {
        Ok(Cluster {
            servers: self
                .members
                .iter()
                .map(MemberLayout::exec)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Starts all members and waits until each serves a linearizable get.
    ///
    /// # Errors
    /// [`Error::Io`] if the binary cannot be executed, [`Error::Server`] with an excerpt of its log
    /// if a member fails to start.
    pub(crate) fn start(&self) -> Result<Cluster<'_>, Error> {
        const PAUSE: Duration = Duration::from_millis(20);
        let runtime = load::runtime()?;
        let mut cluster = self.exec()?;
        for (at, server) in cluster.servers.iter_mut().enumerate() {
            let own = self.target.only(at);
            server.wait_until(PAUSE, || {
                runtime
                    .block_on(get(&own, Bytes::from_static(b"k")))
                    .is_some()
            })?;
        }
        Ok(cluster)
    }

    /// Disk space allocated to the files of all members, in bytes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.members.iter().map(MemberLayout::disk_bytes).sum()
    }

    /// The size of the largest member's database file in bytes.
    pub(crate) fn database_bytes(&self) -> u64 {
        let sizes = self.members.iter().map(MemberLayout::database_bytes);
        sizes.max().unwrap_or(0)
    }
}

/// The name of member `at`.
pub(crate) fn member_name(at: usize) -> String {
    format!("m{}", at + 1)
}

/// Member names and unused ports.
fn free_addresses(members: u32) -> std::io::Result<Vec<Addresses>> {
    // All sockets stay bound until the last port is known, so that the ports differ.
    let mut held = Vec::new();
    let mut free = || -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        held.push(listener);
        Ok(address)
    };
    (0..members as usize)
        .map(|at| {
            Ok(Addresses {
                name: member_name(at),
                client: free()?,
                peer: free()?,
            })
        })
        .collect()
}

impl<'a> Cluster<'a> {
    /// CPU time used by all members so far.
    ///
    /// # Errors
    /// [`Error::Io`] if a member has exited.
    pub(crate) fn cpu_time(&self) -> Result<Duration, Error> {
        self.servers.iter().map(Server::cpu_time).sum()
    }

    /// Resident memory of each member.
    ///
    /// # Errors
    /// [`Error::Io`] if a member has exited.
    pub(crate) fn memory(&self) -> Result<Vec<Memory>, Error> {
        self.servers.iter().map(Server::memory).collect()
    }

    /// Resets the peak memory of all members, where the kernel supports it.
    pub(crate) fn reset_peaks(&self) {
        for server in &self.servers {
            drop(procfs::reset_peak(server.pid()));
        }
    }

    /// How one of the members has ended, if one has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.servers.iter_mut().find_map(Server::ended)
    }

    /// The running member `at`.
    pub(crate) fn server(&self, at: usize) -> &Server<'a> {
        &self.servers[at]
    }

    /// Removes and returns the running member `at`, to be stopped alone; later members move up.
    pub(crate) fn take(&mut self, at: usize) -> Server<'a> {
        self.servers.remove(at)
    }

    /// Removes and returns all running members, to be stopped.
    pub(crate) fn take_all(&mut self) -> Self {
        Self {
            servers: std::mem::take(&mut self.servers),
        }
    }

    /// Waits until the first member serves a linearizable get of the last key of `keys`; returns
    /// the time since its start.
    ///
    /// # Errors
    /// [`Error::Server`] if it does not.
    pub(crate) fn first_get(
        &mut self,
        target: &Target,
        keys: &KeySpace,
    ) -> Result<Duration, Error> {
        const PAUSE: Duration = Duration::from_millis(2);
        let (runtime, first) = (load::runtime()?, target.only(0));
        let key = keys.key(keys.count - 1);
        self.servers[0].wait_until(PAUSE, || {
            runtime.block_on(get(&first, key.clone())) == Some(1)
        })
    }

    /// Sends `signal` to all members at once and waits for them to exit.
    ///
    /// # Errors
    /// [`Error::Server`] if a member does not exit; it is then killed.
    pub(crate) fn stop(self, signal: Signal) -> Result<(), Error> {
        thread::scope(|scope| {
            let stopping: Vec<_> = self
                .servers
                .into_iter()
                .map(|server| scope.spawn(move || server.stop(signal)))
                .collect();
            stopping
                .into_iter()
                .try_for_each(|thread| thread.join().expect("a panic ends the process"))
        })
    }
}

/// The number of records that a linearizable get of `key` returns. Any failure means "not yet": the
/// port is closed, not served yet, or the member has no leader.
async fn get(target: &Target, key: Bytes) -> Option<usize> {
    let get = async {
        let mut range = Connection::open(target, 0)
            .await
            .ok()?
            .method("/etcdserverpb.KV/Range");
        let request = pb::RangeRequest {
            key,
            ..pb::RangeRequest::default()
        };
        let reply: pb::RangeResponse = range.call(&request).await.ok()?;
        Some(reply.kvs.len())
    };
    // Connections made during the start of a server may be dropped silently.
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, get).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_found_the_cluster_together_and_share_no_address() {
        let found = free_addresses(3).unwrap();
        let mut ports: Vec<_> = found
            .iter()
            .flat_map(|own| [own.client.port(), own.peer.port()])
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
        let names: Vec<_> = found.iter().map(|own| &own.name[..]).collect();
        assert_eq!(names, ["m1", "m2", "m3"]);
    }

    #[test]
    fn a_member_that_ends_at_once_is_an_error_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let binary = Binary {
            name: "sh".into(),
            path: "/bin/sh".into(),
            args: vec![],
        };
        // The shell rejects `--name=m1` with an error.
        let layout = ClusterLayout::new(&binary, 3, directory.path(), None, None, &[]).unwrap();
        let error = layout.start().map(drop).unwrap_err().to_string();
        assert!(
            error.contains("ended too early") && error.contains("its log:"),
            "{error}"
        );
    }
}
