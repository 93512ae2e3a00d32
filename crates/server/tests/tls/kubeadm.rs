//! The flags of kubeadm's static pod, with the names of both generations.

use crate::client::Client;
use crate::grpc::{channel, get, put};
use crate::member::Setting;
use crate::place::{Server, program};

/// The flags as kubeadm writes them, for a member at this machine.
fn flags(setting: &Setting, metrics: u16, more: &[&str]) -> Vec<String> {
    let (client, second) = (setting.port(), setting.place.beside().client_port);
    let peer = format!("https://127.0.0.1:{}", setting.place.beside().client_port);
    let mut flags = vec![
        format!("--advertise-client-urls=https://127.0.0.1:{client}"),
        setting.file("cert-file", "server.crt"),
        "--client-cert-auth=true".to_owned(),
        format!("--data-dir={}", setting.place.data_dir().display()),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=control-plane={peer}"),
        setting.file("key-file", "server.key"),
        format!("--listen-client-urls=https://127.0.0.1:{client},https://127.0.0.1:{second}"),
        format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"),
        format!("--listen-peer-urls={peer}"),
        "--name=control-plane".to_owned(),
        setting.file("peer-cert-file", "server.crt"),
        "--peer-client-cert-auth=true".to_owned(),
        setting.file("peer-key-file", "server.key"),
        setting.file("peer-trusted-ca-file", "ca.crt"),
        "--snapshot-count=10000".to_owned(),
        setting.file("trusted-ca-file", "ca.crt"),
    ];
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    flags
}

#[tokio::test]
async fn a_static_pod_starts_with_the_flags_of_both_generations() {
    let older = [
        "--experimental-initial-corrupt-check=true",
        "--experimental-watch-progress-notify-interval=5s",
    ];
    let newer = [
        "--feature-gates=InitialCorruptCheck=true",
        "--watch-progress-notify-interval=5s",
    ];
    for more in [older, newer] {
        let setting = Setting::new();
        let metrics = setting.place.beside().client_port;
        let mut command = std::process::Command::new(program());
        command.args(flags(&setting, metrics, &more));
        // The probes of the pod go to the port for metrics.
        let member = Server::spawn(command, metrics);
        member.wait_for("serving client traffic securely");
        for path in ["/health", "/livez", "/readyz"] {
            let page = member.page(path);
            assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        }
        let channel = channel(&setting.client(), setting.port()).await;
        put(&channel, "/registry/a").await.unwrap();
        assert_eq!(get(&channel, "/registry/a").await.unwrap(), 1);
        Client::of(&setting.ca).assert_out(setting.port(), "CertificateRequired");
        let page = member.page("/metrics");
        let gate = r#"etcd_server_feature_enabled{name="InitialCorruptCheck",stage="ALPHA"} 1"#;
        assert!(page.contains(gate), "{page}");
    }
}
