//! The members of a cluster as processes, and what is asked of them.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use retcd_proto::etcdserverpb as pb;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::stderr::{PATIENCE, Stderr};

/// Quick, and still more than a busy machine takes to answer.
const TIMES: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];

/// Below the ports that the kernel gives to outgoing connections, and above those of the other
/// tests.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 30_200 + (std::process::id() % 20) as u16 * 100;
    for _ in 0..500 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port above {base}");
}

/// A cluster's members, by number.
pub struct Cluster {
    dir: TempDir,
    pub members: Vec<Member>,
}

/// A member: a name, a directory, ports, and a process while it runs.
pub struct Member {
    pub name: String,
    pub client_port: u16,
    pub peer_port: u16,
    data_dir: PathBuf,
    process: Option<Process>,
}

impl Cluster {
    /// Members that do not run yet.
    pub fn planned(size: usize) -> Cluster {
        let mut cluster = Cluster {
            dir: tempfile::tempdir().expect("a temporary directory"),
            members: Vec::new(),
        };
        for _ in 0..size {
            cluster.plan();
        }
        cluster
    }

    /// One more member that does not run yet; returns its number.
    pub fn plan(&mut self) -> usize {
        let name = format!("m{}", self.members.len() + 1);
        self.members.push(Member {
            data_dir: self.dir.path().join(&name),
            client_port: free_port(),
            peer_port: free_port(),
            process: None,
            name,
        });
        self.members.len() - 1
    }

    /// A new cluster whose members serve.
    pub fn found(size: usize, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::planned(size);
        for number in 0..size {
            cluster.launch(number, flags);
        }
        for member in &cluster.members {
            member.wait_until_serving();
        }
        cluster
    }

    /// `--initial-cluster` for all members that are planned.
    pub fn initial_cluster(&self) -> String {
        let members = self.members.iter();
        let pairs: Vec<String> = members
            .map(|m| format!("{}={}", m.name, m.peer_url()))
            .collect();
        pairs.join(",")
    }

    /// Starts a member without waiting; later flags win over the usual ones.
    pub fn launch(&mut self, number: usize, flags: &[&str]) {
        let initial_cluster = format!("--initial-cluster={}", self.initial_cluster());
        let member = &mut self.members[number];
        assert!(member.process.is_none(), "{} runs", member.name);
        let mut command = member.command();
        command.args(TIMES).arg(initial_cluster).args(flags);
        member.process = Some(Process::spawn(command));
    }

    /// Starts a member and waits until it serves.
    pub fn start(&mut self, number: usize, flags: &[&str]) {
        self.launch(number, flags);
        self.members[number].wait_until_serving();
    }

    /// Starts a member that is expected to end by itself.
    pub fn run_to_end(&mut self, number: usize, flags: &[&str]) -> Ended {
        self.launch(number, flags);
        self.members[number].wait_for_end()
    }

    /// The number of the member that leads, as soon as all that run agree.
    pub async fn leader(&self) -> usize {
        let mut leader = 0;
        until("a leader", async || {
            let mut leaders = Vec::new();
            for member in self
                .members
                .iter()
                .filter(|member| member.process.is_some())
            {
                match member.status().await {
                    Ok(status) => leaders.push(status.leader),
                    Err(_) => return false,
                }
            }
            leaders.dedup();
            let [id] = leaders[..] else { return false };
            for (number, member) in self.members.iter().enumerate() {
                if member.process.is_some() && member.id().await == id {
                    leader = number;
                    return true;
                }
            }
            false
        })
        .await;
        leader
    }

    /// The number of a member that runs and does not lead.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        let runs = |number: &usize| *number != leader && self.members[*number].process.is_some();
        (0..self.members.len())
            .find(runs)
            .expect("a second member runs")
    }
}

impl Member {
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    pub fn client_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub fn db(&self) -> PathBuf {
        self.data_dir.join("member/snap/db")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcd"));
        let (client, peer) = (self.client_url(), self.peer_url());
        command.args([
            format!("--name={}", self.name),
            format!("--data-dir={}", self.data_dir.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
        ]);
        command
    }

    fn process(&self) -> &Process {
        self.process
            .as_ref()
            .unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.process().log.line(&[text]);
    }

    #[track_caller]
    pub fn wait_until_serving(&self) {
        self.wait_for("serving client traffic insecurely");
    }

    pub fn log(&self) -> String {
        self.process().log.text()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process().child), signal).expect("the process is ours");
    }

    /// Ends the process and waits for that.
    #[track_caller]
    pub fn end_with(&mut self, signal: Signal) -> Ended {
        self.signal(signal);
        self.wait_for_end()
    }

    /// Waits until the process ends.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> Ended {
        let mut process = self.process.take().expect("it runs");
        process.log.end();
        Ended {
            status: process
                .child
                .wait()
                .expect("the child was not waited for yet"),
            log: process.log.text(),
        }
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(self.client_url()).expect("a URL");
        endpoint.timeout(Duration::from_secs(15)).connect().await
    }

    async fn connected(&self) -> Channel {
        let connected = self.channel().await;
        connected.unwrap_or_else(|error| panic!("{} does not accept: {error}", self.name))
    }

    pub async fn kv(&self) -> pb::kv_client::KvClient<Channel> {
        pb::kv_client::KvClient::new(self.connected().await)
    }

    pub async fn lease(&self) -> pb::lease_client::LeaseClient<Channel> {
        pb::lease_client::LeaseClient::new(self.connected().await)
    }

    pub async fn cluster(&self) -> pb::cluster_client::ClusterClient<Channel> {
        pb::cluster_client::ClusterClient::new(self.connected().await)
    }

    pub async fn maintenance(&self) -> pb::maintenance_client::MaintenanceClient<Channel> {
        pb::maintenance_client::MaintenanceClient::new(self.connected().await)
    }

    pub async fn status(&self) -> Result<pb::StatusResponse, String> {
        let channel = self.channel().await.map_err(|error| error.to_string())?;
        let mut client = pb::maintenance_client::MaintenanceClient::new(channel);
        let response = client.status(pb::StatusRequest {}).await;
        response
            .map(|r| r.into_inner())
            .map_err(|error| error.to_string())
    }

    pub async fn id(&self) -> u64 {
        let status = self
            .status()
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        status.header.expect("responses have a header").member_id
    }

    /// All members, as this one knows them.
    pub async fn list(&self) -> Vec<pb::Member> {
        let request = pb::MemberListRequest { linearizable: true };
        let response = self.cluster().await.member_list(request).await;
        response.expect("the members are told").into_inner().members
    }

    pub async fn put(&self, key: &str, value: &str) {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        self.kv()
            .await
            .put(request)
            .await
            .expect("the put is taken");
    }

    /// The value of a key, read through the cluster.
    pub async fn get(&self, key: &str) -> Option<String> {
        self.range(key, false).await.expect("the read is answered")
    }

    pub async fn range(
        &self,
        key: &str,
        serializable: bool,
    ) -> Result<Option<String>, tonic::Status> {
        let request = pb::RangeRequest {
            key: key.to_owned().into(),
            serializable,
            ..Default::default()
        };
        let response = self.kv().await.range(request).await?.into_inner();
        let value = response.kvs.first().map(|kv| kv.value.to_vec());
        Ok(value.map(|value| String::from_utf8(value).expect("the tests put text")))
    }

    pub async fn hash_kv(&self, revision: i64) -> pb::HashKvResponse {
        let request = pb::HashKvRequest { revision };
        let response = self.maintenance().await.hash_kv(request).await;
        response.expect("the hash is told").into_inner()
    }
}

struct Process {
    child: Child,
    log: Arc<Stderr>,
}

impl Process {
    fn spawn(mut command: Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Stderr::of(child.stderr.take().expect("stderr is a pipe"));
        Process { child, log }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, or been waited for, already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    pub log: String,
}

impl Ended {
    /// The process exited with `code` and said `text`.
    #[track_caller]
    pub fn assert(&self, code: i32, text: &str) {
        assert_eq!(self.status.code(), Some(code), "{}", self.log);
        assert!(self.log.contains(text), "no {text:?} in\n{}", self.log);
    }
}

/// Resolves when `condition` holds, asking again and again.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
