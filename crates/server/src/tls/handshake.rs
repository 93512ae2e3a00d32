//! A client's handshake, and what the log says when it fails.
//!
//! The client's first record is read here and not left to rustls: a client that speaks something
//! else than TLS is disconnected without an answer, as in Go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use retcd_tls::{Certificate, ClientVerifier, Identity, text};
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::endpoint::{Endpoint, Kind};
use super::remote;
use crate::log::Remote;
use crate::workers::Workers;

/// Time for a whole handshake, as in etcd.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a refused client to read the alert, and bytes that are read from it meanwhile.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: u64 = 64 << 10;
/// Content type of the first record of every TLS connection: handshake.
pub(crate) const HANDSHAKE_RECORD: u8 = 0x16;

/// The alert `protocol_version`, fatal, in a record of TLS 1.2.
const PROTOCOL_VERSION: &[u8] = &[0x15, 3, 3, 0, 2, 2, 70];

/// A stream whose handshake is complete, over a stream `S`.
pub(crate) struct Established<S> {
    pub(crate) stream: TlsStream<S>,
    /// The common name of the client's verified certificate, on endpoints where it is the name of
    /// a user; may be empty.
    pub(crate) user: Option<Arc<str>>,
}

/// Why there is no stream.
enum Failure {
    Io(io::Error),
    NotTls,
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

/// What is known of a client by the time its handshake fails.
struct Client<S> {
    remote: Option<SocketAddr>,
    server_name: String,
    check: Option<Arc<ClientVerifier>>,
    /// The stream on which rustls has sent an alert.
    alerted: Option<S>,
}

impl Endpoint {
    /// Makes the handshake with a client that has connected from `remote`. Names are looked up in
    /// DNS by `workers`. None if the handshake failed, which has been logged; the stream is closed
    /// then.
    pub(crate) async fn accept<S>(
        &self,
        stream: S,
        remote: Option<SocketAddr>,
        workers: &Workers,
    ) -> Option<Established<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut client = Client {
            remote,
            server_name: String::new(),
            check: None,
            alerted: None,
        };
        let handshake = self.handshake(stream, &mut client);
        let in_time = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
        let timed_out = |_| Err(Failure::Refused("i/o timeout".to_owned()));
        let result = match in_time.unwrap_or_else(timed_out) {
            Ok(stream) => self.admit(stream, &client, workers).await,
            Err(failure) => Err(failure),
        };
        let Err(failure) = result else {
            return result.ok();
        };
        self.log_rejection(&client, &failure);
        if let Some(stream) = client.alerted {
            linger(stream).await;
        }
        None
    }

    async fn handshake<S>(
        &self,
        mut stream: S,
        client: &mut Client<S>,
    ) -> Result<TlsStream<S>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = read_hello(&mut stream).await?;
        let hello = accepted.client_hello();
        client.server_name = hello.server_name().unwrap_or_default().to_owned();
        client.check = self.client_check();
        let config = self.server_config(client.check.clone());
        let start = StartHandshake::from_parts(accepted, stream);
        let accepting = start.into_stream(Arc::new(config)).into_fallible();
        accepting.await.map_err(|(error, stream)| {
            client.alerted = Some(stream);
            error.into()
        })
    }

    /// Checks what a handshake does not: whether the certificate may come from this address.
    async fn admit<S>(
        &self,
        stream: TlsStream<S>,
        client: &Client<S>,
        workers: &Workers,
    ) -> Result<Established<S>, Failure> {
        let certificate = client.check.as_ref().and_then(|check| check.presented());
        if let (Some(certificate), Some(remote), true) =
            (certificate, client.remote, self.checks_address)
        {
            remote::check(certificate, remote.ip(), workers)
                .await
                .map_err(Failure::Refused)?;
        }
        let user = certificate
            .filter(|_| self.names_users)
            .map(|certificate| certificate.common_name().into());
        Ok(Established { stream, user })
    }

    /// How a client's certificate is checked by what the files say now; none if none is asked for.
    fn client_check(&self) -> Option<Arc<ClientVerifier>> {
        let authorities = self.trust.current()?;
        Some(Arc::new(ClientVerifier::new(
            authorities,
            Arc::clone(&self.rules),
            self.revoked.as_ref().map(|revoked| revoked.current()),
            self.settings.algorithms(),
        )))
    }

    /// The configuration for one handshake, with the certificate that is in the files now.
    fn server_config(&self, check: Option<Arc<ClientVerifier>>) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::clone(self.settings.provider()))
            .with_protocol_versions(self.settings.versions())
            .expect("the settings have a suite for each of their versions");
        let builder = match check {
            None => builder.with_no_client_auth(),
            Some(check) => builder.with_client_cert_verifier(check),
        };
        let identity = self
            .identity
            .as_ref()
            .expect("a listener with TLS has a certificate")
            .current();
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertificate::of(&identity)));
        config.ignore_client_order = true;
        let protocols: &[&[u8]] = match self.kind {
            Kind::Client => &[b"h2", b"http/1.1"],
            // The peer protocol is HTTP/1.1.
            Kind::Peer => &[b"http/1.1"],
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // A resumed session would skip the check of the client's certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }

    fn log_rejection<S>(&self, client: &Client<S>, failure: &Failure) {
        let message = match self.kind {
            Kind::Client => "rejected connection on client endpoint",
            Kind::Peer => "rejected connection on peer endpoint",
        };
        let check = client.check.as_ref();
        let refusal = check.and_then(|check| check.refusal());
        let error = match failure {
            Failure::NotTls => text::NOT_TLS.to_owned(),
            Failure::Refused(reason) => reason.clone(),
            Failure::Io(error) => text::handshake(error, refusal),
        };
        // Health checks connect and disconnect.
        let gone = matches!(failure, Failure::Io(error) if text::is_eof(error));
        let mut record = if gone {
            crate::log_record!(Debug, None, message)
        } else {
            crate::log_record!(Warn, None, message)
        };
        record
            .with("remote-addr", &Remote(client.remote))
            .with("server-name", &client.server_name);
        if let Some(certificate) = check.and_then(|check| check.presented()) {
            record
                .with("ip-addresses", &addresses(certificate))
                .with("dns-names", &certificate.dns_names().to_vec());
        }
        record.with("error", &error);
        crate::log::emit(&record);
    }
}

fn addresses(certificate: &Certificate) -> Vec<String> {
    let addresses = certificate.ip_addresses().iter();
    addresses.map(ToString::to_string).collect()
}

/// Reads the client's first message. A client that is refused for it gets the alert here, as rustls
/// has no connection yet.
async fn read_hello<S>(stream: &mut S) -> Result<Accepted, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut buffer = [0; 4096];
    let mut first = true;
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if std::mem::take(&mut first) && buffer[0] != HANDSHAKE_RECORD {
            return Err(Failure::NotTls);
        }
        let mut bytes = &buffer[..length];
        while !bytes.is_empty() {
            acceptor.read_tls(&mut bytes)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                if text::is_too_old(&error) {
                    bytes.extend_from_slice(PROTOCOL_VERSION);
                } else {
                    alert.write_all(&mut bytes)?;
                }
                // The client may be gone; the log is to say what was wrong before.
                let _ = stream.write_all(&bytes).await;
                return Err(io::Error::other(error).into());
            }
        }
    }
}

/// Closes the stream so that the client can read the alert. Closing a socket with unread bytes
/// resets the connection, and the client would lose the alert.
async fn linger<S>(mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let drain = async {
        stream.shutdown().await?;
        let mut rest = (&mut stream).take(LINGER_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Best effort: the client may be gone.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// The same certificate whatever server name the client asks for.
#[derive(Debug)]
struct SingleCertificate(Arc<CertifiedKey>);

impl SingleCertificate {
    fn of(identity: &Identity) -> SingleCertificate {
        SingleCertificate(identity.certified_key())
    }
}

impl ResolvesServerCert for SingleCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::url::Url;
    use crate::tls::open;

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_ten_seconds_altogether() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            data_dir: dir.path().display().to_string(),
            listen_client_urls: vec![Url::parse("https://127.0.0.1:2379").unwrap()],
            self_signed_cert_validity_years: 1,
            ..Config::default()
        };
        config.client_tls.auto_tls = true;
        let endpoint = open(&config).unwrap().client.unwrap();
        let workers = Workers::start().unwrap();
        let hello = [HANDSHAKE_RECORD, 3, 1, 2, 0, 1];
        for said in [&hello[..0], &hello] {
            let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
            far.write_all(said).await.unwrap();
            let begin = tokio::time::Instant::now();
            let accepted = endpoint.accept(near, None, &workers).await;
            assert!(accepted.is_none());
            assert_eq!(begin.elapsed().as_secs(), HANDSHAKE_TIMEOUT.as_secs());
        }
    }
}
