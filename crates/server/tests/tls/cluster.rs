//! Members among themselves.

use crate::client::{Client, write};
use crate::grpc::{channel, get, put};
use crate::issuer::{Authority, Pair, hosts, usages};
use crate::place::{Place, Server};

/// Three members and who certifies them.
struct Cluster {
    ca: Authority,
    places: Vec<Place>,
    /// Of the peer listeners.
    ports: Vec<u16>,
}

fn member(ca: &Authority, name: &str, host: &str) -> Pair {
    ca.issue(name, |p| {
        hosts(p, &[host]);
        usages(p, true, true);
    })
}

impl Cluster {
    fn new() -> Cluster {
        let ca = Authority::new("ca");
        let places: Vec<Place> = (0..3).map(|_| Place::new()).collect();
        for place in &places {
            ca.write(place.dir(), "ca.pem");
            member(&ca, "member", "127.0.0.1").write(place.dir(), "member");
        }
        let ports = places
            .iter()
            .map(|place| place.beside().client_port)
            .collect();
        Cluster { ca, places, ports }
    }

    fn url(&self, number: usize) -> String {
        format!("https://127.0.0.1:{}", self.ports[number])
    }

    /// The flags of a unit file as operators write it.
    fn flags(&self, number: usize) -> Vec<String> {
        let place = &self.places[number];
        let file = |name: &str| place.dir().join(name).display().to_string();
        let client = format!("https://127.0.0.1:{}", place.client_port);
        let cluster: Vec<String> = (0..3)
            .map(|number| format!("m{number}={}", self.url(number)))
            .collect();
        vec![
            format!("--name=m{number}"),
            format!("--cert-file={}", file("member.crt")),
            format!("--key-file={}", file("member.key")),
            format!("--peer-cert-file={}", file("member.crt")),
            format!("--peer-key-file={}", file("member.key")),
            format!("--trusted-ca-file={}", file("ca.pem")),
            format!("--peer-trusted-ca-file={}", file("ca.pem")),
            "--peer-client-cert-auth".to_owned(),
            "--client-cert-auth".to_owned(),
            format!("--initial-advertise-peer-urls={}", self.url(number)),
            format!("--listen-peer-urls={}", self.url(number)),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            "--initial-cluster-token=etcd-cluster-0".to_owned(),
            format!("--initial-cluster={}", cluster.join(",")),
            "--initial-cluster-state=new".to_owned(),
            format!("--data-dir={}", place.data_dir().display()),
        ]
    }

    fn launch(&self, number: usize, more: &[&str]) -> Server {
        let mut command = std::process::Command::new(crate::place::program());
        command.args(self.flags(number)).args(more);
        Server::spawn(command, self.places[number].client_port)
    }

    fn client(&self) -> Client {
        Client::of(&self.ca).with(&self.ca.issue("client", |_| {}))
    }
}

#[tokio::test]
async fn three_members_as_their_unit_files_start_them() {
    let cluster = Cluster::new();
    let members: Vec<Server> = (0..3).map(|number| cluster.launch(number, &[])).collect();
    for member in &members {
        member.wait_for("serving client traffic securely");
    }
    let client = cluster.client();
    let first = channel(&client, cluster.places[0].client_port).await;
    put(&first, "a").await.unwrap();
    for place in &cluster.places {
        let channel = channel(&client, place.client_port).await;
        assert_eq!(get(&channel, "a").await.unwrap(), 1);
    }
    // Strangers and the plain are not let in among members.
    Client::of(&cluster.ca).assert_out(cluster.ports[0], "CertificateRequired");
    members[0].wait_for("rejected connection on peer endpoint");
    // As curl asks for pages.
    let either = Client {
        alpn: vec!["h2".into(), "http/1.1".into()],
        ..cluster.client()
    };
    let page = either.get(cluster.ports[0], "/members").unwrap();
    assert!(page.text.contains("peerURLs"), "{}", page.text);
    assert_eq!(page.alpn.as_deref(), Some("http/1.1"));
}

#[tokio::test]
async fn members_with_certificates_that_they_made_themselves() {
    let cluster = Cluster::new();
    let flags = [
        "--peer-auto-tls",
        "--peer-cert-file=",
        "--peer-key-file=",
        "--peer-trusted-ca-file=",
        "--peer-client-cert-auth=false",
    ];
    let members: Vec<Server> = (0..3)
        .map(|number| cluster.launch(number, &flags))
        .collect();
    for member in &members {
        member.wait_for("serving client traffic securely");
    }
    let channel = channel(&cluster.client(), cluster.places[1].client_port).await;
    put(&channel, "a").await.unwrap();
}

/// Every member gets a new certificate and new authorities, while it runs.
#[tokio::test]
async fn members_take_up_new_certificates_without_a_restart() {
    let cluster = Cluster::new();
    let mut members: Vec<Server> = (0..3).map(|number| cluster.launch(number, &[])).collect();
    for member in &members {
        member.wait_for("serving client traffic securely");
    }
    let next = Authority::new("next");
    // First everybody trusts both authorities, then everybody shows the new one's certificates,
    // then nobody trusts the old one.
    let both = format!("{}{}", cluster.ca.pem(), next.pem());
    for place in &cluster.places {
        write(place.dir(), "ca.pem", &both);
    }
    for place in &cluster.places {
        member(&next, "member", "127.0.0.1").write(place.dir(), "member");
    }
    for place in &cluster.places {
        next.write(place.dir(), "ca.pem");
    }
    // The last one knows nothing of the old authority now, and has to be let in by the others, and
    // to let them in.
    drop(members.pop());
    let last = cluster.launch(2, &[]);
    last.wait_for("serving client traffic securely");
    let client = Client::of(&next).with(&next.issue("client", |_| {}));
    let channel = channel(&client, cluster.places[2].client_port).await;
    put(&channel, "a").await.unwrap();
    cluster
        .client()
        .assert_out(cluster.ports[0], "UnknownIssuer");
    let with_old = Client {
        roots: client.roots,
        ..cluster.client()
    };
    with_old.assert_out(cluster.ports[0], "UnknownCA");
    members[0].wait_for("rejected connection on peer endpoint");
}

#[test]
fn a_member_must_come_from_where_its_certificate_says() {
    let cluster = Cluster::new();
    let from_elsewhere = member(&cluster.ca, "member", "192.0.2.1");
    let by_name = member(&cluster.ca, "member", "localhost");
    let other_name = member(&cluster.ca, "member", "nowhere.invalid");
    let nameless = cluster.ca.issue("member", |p| usages(p, true, true));
    let port = cluster.ports[0];
    let enter = |pair: &Pair| Client::of(&cluster.ca).with(pair).get(port, "/version");

    let strict = cluster.launch(0, &[]);
    strict.wait_for("serving peer traffic");
    for welcome in [&by_name, &nameless] {
        assert!(enter(welcome).unwrap().text.contains("etcdserver"));
    }
    assert!(enter(&from_elsewhere).is_err());
    strict.wait_for("x509: certificate is valid for 192.0.2.1, not 127.0.0.1");
    assert!(enter(&other_name).is_err());
    strict.wait_for(r#"tls: \"127.0.0.1\" does not match any of DNSNames [\"nowhere.invalid\"]"#);
    drop(strict);

    let lenient = cluster.launch(0, &["--peer-skip-client-san-verification"]);
    lenient.wait_for("serving peer traffic");
    assert!(enter(&from_elsewhere).is_ok());
}

#[test]
fn members_may_be_asked_for_their_names_and_for_not_being_revoked() {
    let cluster = Cluster::new();
    let port = cluster.ports[0];
    let dir = cluster.places[0].dir();
    write(dir, "crl", cluster.ca.revoke(&[99]).1);
    let flag = format!("--peer-crl-file={}", dir.join("crl").display());
    let server = cluster.launch(0, &["--peer-cert-allowed-cn=member,spare", &flag]);
    server.wait_for("serving peer traffic");
    let issue = |name, serial: u64| {
        cluster
            .ca
            .issue(name, |p| p.serial_number = Some(serial.into()))
    };
    let enter = |pair: &Pair| Client::of(&cluster.ca).with(pair).get(port, "/version");
    assert!(enter(&issue("spare", 1)).is_ok());
    assert!(enter(&issue("stranger", 2)).is_err());
    server.wait_for("client certificate authentication failed");
    assert!(enter(&issue("member", 99)).is_err());
    server.wait_for("transport: certificate serial 63 revoked");
}
