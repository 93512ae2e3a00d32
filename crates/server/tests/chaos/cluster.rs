//! Members that found a cluster together, each a process of the built program.

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::cluster_client::ClusterClient;
use retcd_proto::etcdserverpb::kv_client::KvClient;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};

use super::place::{Ended, Place, Server, program, until};

/// Half of etcd's default, so that the tests spend their time on more than waiting for elections.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(500);

/// One member, whose process may be down.
pub struct Member {
    pub name: String,
    pub place: Place,
    /// Where it listens for the others.
    pub peer_port: u16,
    /// Where the others find it: `peer_port`, or a relay in front of it.
    pub advertised_port: u16,
    /// The command that runs it: the program with its flags, or a shell that ends in it.
    command: RefCell<Vec<String>>,
    server: RefCell<Option<Server>>,
    /// Whether clients should ask it.
    pub asked: Cell<bool>,
    channel: Channel,
}

pub struct Cluster {
    pub members: Vec<Rc<Member>>,
}

impl Cluster {
    /// Three members that do not run yet. `relayed` gives the port that stands for a member's own.
    pub async fn new(mut relayed: impl AsyncFnMut(usize, u16) -> u16) -> Cluster {
        let mut members = Vec::new();
        for index in 0..3 {
            let place = Place::new();
            let peer_port = place.beside().client_port;
            let advertised_port = relayed(index, peer_port).await;
            members.push(Member::new(format!("m{}", index + 1), place, peer_port, advertised_port));
        }
        let initial = initial_cluster(&members);
        for member in &members {
            *member.command.borrow_mut() = member.program_with_flags(&initial);
        }
        Cluster {
            members: members.into_iter().map(Rc::new).collect(),
        }
    }

    /// Three running members with more `flags`.
    pub async fn start(flags: &[&str]) -> Cluster {
        let cluster = Cluster::new(async |_, port| port).await;
        cluster.start_all(flags).await;
        cluster
    }

    /// Starts all members, with more `flags`, until they serve.
    pub async fn start_all(&self, flags: &[&str]) {
        self.start_these(&self.members, flags).await;
    }

    /// Starts some of the members, with more `flags`, until they serve.
    pub async fn start_these(&self, members: &[Rc<Member>], flags: &[&str]) {
        for member in members {
            let flags = flags.iter().map(|flag| (*flag).to_owned());
            member.command.borrow_mut().extend(flags);
            member.launch();
        }
        for member in members {
            member.serving().await;
        }
    }

    /// One more member, which was added to the running cluster and is not among the others.
    pub fn joining(&self) -> Rc<Member> {
        let place = Place::new();
        let port = place.beside().client_port;
        let member = Rc::new(Member::new("joining".to_owned(), place, port, port));
        let all = self.members.iter().chain([&member]).map(Rc::as_ref);
        *member.command.borrow_mut() = member.program_with_flags(&initial_cluster(all));
        let state = "--initial-cluster-state=existing";
        member.command.borrow_mut().push(state.to_owned());
        member
    }

    /// The member that all members that are asked call their leader.
    pub async fn leader(&self) -> Rc<Member> {
        let mut found = None;
        until("an agreed leader", async || {
            found = self.agreed_leader().await;
            found.is_some()
        })
        .await;
        found.expect("it was waited for")
    }

    async fn agreed_leader(&self) -> Option<Rc<Member>> {
        let mut leader = None;
        let mut agreed = None;
        for member in self.asked() {
            let status = member.status().await?;
            let known = *agreed.get_or_insert(status.leader);
            if status.leader == 0 || status.leader != known {
                return None;
            }
            if status.header.expect("answers have a header").member_id == status.leader {
                leader = Some(member);
            }
        }
        leader
    }

    /// The members that clients ask.
    pub fn asked(&self) -> Vec<Rc<Member>> {
        let members = self.members.iter();
        members.filter(|m| m.asked.get()).map(Rc::clone).collect()
    }

    pub fn others(&self, than: &Rc<Member>) -> Vec<Rc<Member>> {
        let members = self.members.iter();
        members
            .filter(|m| !Rc::ptr_eq(m, than))
            .map(Rc::clone)
            .collect()
    }
}

/// The value of the flag for all of `members`.
fn initial_cluster<'a>(members: impl IntoIterator<Item = &'a Member>) -> String {
    let members = members.into_iter();
    let pairs: Vec<String> = members.map(|m| format!("{}={}", m.name, m.peer_url())).collect();
    pairs.join(",")
}

impl Member {
    fn new(name: String, place: Place, peer_port: u16, advertised_port: u16) -> Member {
        let url = format!("http://127.0.0.1:{}", place.client_port);
        let channel = Endpoint::from_shared(url).expect("a URL").connect_lazy();
        Member {
            name,
            place,
            peer_port,
            advertised_port,
            command: RefCell::default(),
            server: RefCell::new(None),
            asked: Cell::new(false),
            channel,
        }
    }

    /// Where the others find it.
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.advertised_port)
    }

    fn program_with_flags(&self, initial_cluster: &str) -> Vec<String> {
        let client = format!("http://127.0.0.1:{}", self.place.client_port);
        vec![
            program().to_owned(),
            format!("--name={}", self.name),
            format!("--data-dir={}", self.place.data_dir().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{}", self.peer_port),
            format!("--initial-advertise-peer-urls={}", self.peer_url()),
            format!("--initial-cluster={initial_cluster}"),
            format!("--heartbeat-interval={}", ELECTION_TIMEOUT.as_millis() / 10),
            format!("--election-timeout={}", ELECTION_TIMEOUT.as_millis()),
        ]
    }

    /// Has the program started by a command that ends in it.
    pub fn start_by(&self, prefix: &[&str]) {
        let prefix = prefix.iter().map(|word| (*word).to_owned());
        self.command.borrow_mut().splice(0..0, prefix);
    }

    /// Starts the process without waiting.
    pub fn launch(&self) {
        let words = self.command.borrow();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let server = Server::spawn(command, self.place.client_port);
        let before = self.server.replace(Some(server));
        assert!(before.is_none(), "{} runs already", self.name);
    }

    /// Waits until a launched process serves clients, who ask it from then on.
    pub async fn serving(&self) {
        until("a member to serve", async || {
            self.with_server(|server| {
                assert!(!server.has_ended(), "{}", server.log());
                server.log().contains("serving client traffic insecurely")
            })
        })
        .await;
        self.asked.set(true);
    }

    pub fn with_server<T>(&self, look: impl FnOnce(&mut Server) -> T) -> T {
        look(self.server.borrow_mut().as_mut().expect("the member runs"))
    }

    /// Starts the process again.
    pub async fn restart(&self) {
        self.launch();
        self.serving().await;
    }

    /// Ends the process at once.
    pub fn kill(&self) {
        self.asked.set(false);
        let server = self.server.take().expect("the member runs");
        server.end_with(Signal::KILL);
    }

    /// Waits until the process has ended by itself or by a signal.
    pub async fn ended(&self) -> Ended {
        self.asked.set(false);
        until("a member's end", async || {
            self.with_server(Server::has_ended)
        })
        .await;
        self.server.take().expect("the member ran").wait()
    }

    pub fn signal(&self, signal: Signal) {
        self.with_server(|server| server.signal(signal));
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    /// What it says of itself, if it does so soon.
    pub async fn status(&self) -> Option<pb::StatusResponse> {
        let mut maintenance = self.maintenance();
        let answer = maintenance.status(pb::StatusRequest {});
        let answer = tokio::time::timeout(2 * ELECTION_TIMEOUT, answer).await;
        Some(answer.ok()?.ok()?.into_inner())
    }

    pub async fn revision(&self) -> Option<i64> {
        Some(self.status().await?.header?.revision)
    }

    pub async fn hash_kv(&self, revision: i64) -> (u32, i64) {
        let request = pb::HashKvRequest { revision };
        let answer = self.maintenance().hash_kv(request).await;
        let answer = answer.expect("a hash").into_inner();
        (answer.hash, answer.compact_revision)
    }
}
