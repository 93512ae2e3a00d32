//! A network between members that can be cut and slowed down: relays in front of the peer ports.
//!
//! ```text
//!  m1 ──▶ relay of m2 ──▶ peer port of m2        who dials is told by the first request's X-Server-From
//!  m1 ◀── relay of m1 ◀── m2
//! ```
//! A direction that is cut holds its bytes back and lets them through when it is mended, as a
//! network that loses packets does for connections that outlive it. Most do not: members give up a
//! silent one after five seconds and dial anew.

use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::cluster::Cluster;

/// What happens to bytes, by sender and receiver.
#[derive(Clone, Copy, Default)]
struct Faults {
    cut: [[bool; 3]; 3],
    delay: Duration,
}

#[derive(Clone)]
pub struct Network {
    faults: Rc<watch::Sender<Faults>>,
    /// Members by the hexadecimal id that they name in requests.
    ids: Rc<RefCell<Vec<String>>>,
}

impl Network {
    /// Three members whose traffic goes through relays.
    pub async fn start(flags: &[&str]) -> (Network, Cluster) {
        let network = Network {
            faults: Rc::new(watch::Sender::default()),
            ids: Rc::default(),
        };
        let cluster = Cluster::new(async |index, port| network.relay(index, port).await).await;
        cluster.start_all(flags).await;
        for member in &cluster.members {
            let status = member.status().await.expect("the member serves");
            let id = status.header.expect("answers have a header").member_id;
            network.ids.borrow_mut().push(format!("{id:x}"));
        }
        (network, cluster)
    }

    /// Lets nothing through from `from` to `to`.
    pub fn cut(&self, from: usize, to: usize) {
        self.faults
            .send_modify(|faults| faults.cut[from][to] = true);
    }

    /// Cuts a member off from all others, both ways.
    pub fn isolate(&self, member: usize) {
        for other in (0..3).filter(|other| *other != member) {
            self.cut(member, other);
            self.cut(other, member);
        }
    }

    /// Every read of bytes waits this long before they go on.
    pub fn delay(&self, delay: Duration) {
        self.faults.send_modify(|faults| faults.delay = delay);
    }

    pub fn mend(&self) {
        self.faults.send_replace(Faults::default());
    }

    /// The port of a relay in front of `port`, where member `to` listens.
    async fn relay(&self, to: usize, port: u16) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, super::place::free_port()))
            .await
            .expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let network = self.clone();
        tokio::task::spawn_local(async move {
            while let Ok((dialer, _)) = listener.accept().await {
                let network = network.clone();
                tokio::task::spawn_local(async move {
                    // A connection that fails is the members' to notice.
                    let _ = network.connect(dialer, to, port).await;
                });
            }
        });
        address.port()
    }

    async fn connect(&self, mut dialer: TcpStream, to: usize, port: u16) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if dialer.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let dialing = End::Dialer(id_of_sender(&head));
        self.pass(&dialing, &End::Listener(to)).await;
        let mut member = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        member.write_all(&head).await?;
        dialer.set_nodelay(true)?;
        member.set_nodelay(true)?;
        let ((from_dialer, to_dialer), (from_member, to_member)) =
            (dialer.into_split(), member.into_split());
        let listening = End::Listener(to);
        tokio::select! {
            there = self.forward(from_dialer, to_member, &dialing, &listening) => there,
            back = self.forward(from_member, to_dialer, &listening, &dialing) => back,
        }
    }

    fn member_at(&self, end: &End) -> Option<usize> {
        match end {
            End::Listener(member) => Some(*member),
            // The first connections come before anybody knows the ids.
            End::Dialer(id) => self
                .ids
                .borrow()
                .iter()
                .position(|known| Some(known) == id.as_ref()),
        }
    }

    /// Waits until bytes may pass.
    async fn pass(&self, from: &End, to: &End) {
        let mut faults = self.faults.subscribe();
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let (Some(from), Some(to)) = (self.member_at(from), self.member_at(to)) {
            let mended = faults.wait_for(|faults| !faults.cut[from][to]).await;
            mended.expect("the network outlives its connections");
        }
    }

    async fn forward(
        &self,
        mut input: OwnedReadHalf,
        mut output: OwnedWriteHalf,
        from: &End,
        to: &End,
    ) -> io::Result<()> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = input.read(&mut bytes).await?;
            self.pass(from, to).await;
            if count == 0 {
                return Ok(());
            }
            output.write_all(&bytes[..count]).await?;
        }
    }
}

/// An end of a connection.
enum End {
    /// The member with this index.
    Listener(usize),
    /// The member with this id. A request that does not tell (a page, a probe) is never held up.
    Dialer(Option<String>),
}

fn id_of_sender(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let id = head.split("x-server-from:").nth(1)?.lines().next()?;
    Some(id.trim().to_owned())
}
