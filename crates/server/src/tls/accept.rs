//! From a socket to an encrypted stream, or to a line in the log that says why not.
//!
//! The first record is read here and not by rustls alone: whoever speaks something else than TLS is hung up on without
//! a word, as Go does it. A stream that is [`Established`] is on its way to another thread's runtime: its socket
//! is taken out of this one, and put into that one by [`Established::attach`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use retcd_tls::{Certificate, ClientCheck, Identity, text};
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::endpoint::{Endpoint, Kind};
use super::remote;
use crate::log::Remote;
use crate::workers::Workers;

/// How long a handshake may take altogether, as in etcd.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a refused client may take to read why, and how much of what it has sent meanwhile is read.
const PARTING: Duration = Duration::from_millis(500);
const PARTING_BYTES_MAX: u64 = 64 << 10;
/// The first byte of a TLS connection: a record of the handshake.
pub const FIRST_BYTE: u8 = 0x16;

/// A fatal alert, in a record of TLS 1.2: the version is not supported.
const PROTOCOL_VERSION: &[u8] = &[0x15, 3, 3, 0, 2, 2, 70];

/// A socket of this thread's runtime, or of none.
pub enum Portable {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP, between two runtimes.
    DetachedTcp(std::net::TcpStream),
    /// Over a Unix socket, between two runtimes.
    DetachedUnix(std::os::unix::net::UnixStream),
    /// Lost on the way from one runtime to the other.
    Closed,
}

/// A stream whose handshake is done, between two threads.
pub struct Established {
    stream: TlsStream<Portable>,
    /// The common name in the client's verified certificate, if it says which user the client is; may be empty.
    pub user: Option<Arc<str>>,
}

impl Established {
    /// Where the other end is; none for a Unix socket.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.stream.get_ref().0.remote()
    }

    /// Brings the stream to the runtime of this thread.
    ///
    /// # Errors
    /// The operating system's.
    pub fn attach(mut self) -> io::Result<TlsStream<Portable>> {
        self.stream.get_mut().0.attach()?;
        Ok(self.stream)
    }
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

/// What is known of a client when its handshake fails.
#[derive(Default)]
struct Known {
    server_name: String,
    check: Option<Arc<ClientCheck>>,
    /// Its socket, on which it was told why.
    told: Option<Portable>,
}

impl Endpoint {
    /// Makes the handshake with who has connected; `workers` ask DNS if need be. None if it failed, which has been logged; whoever
    /// has connected is gone then.
    pub async fn accept(&self, socket: Portable, workers: &Workers) -> Option<Established> {
        let remote = socket.remote();
        let mut known = Known::default();
        let handshake = self.handshake(socket, &mut known);
        let in_time = tokio::time::timeout(DEADLINE, handshake).await;
        let timed_out = |_| Err(Failure::Refused("i/o timeout".to_owned()));
        let result = match in_time.unwrap_or_else(timed_out) {
            Ok(stream) => self.let_in(stream, remote, &known, workers).await,
            Err(failure) => Err(failure),
        };
        let Err(failure) = result else {
            return result.ok();
        };
        self.log_rejection(remote, &known, &failure);
        if let Some(socket) = known.told {
            part(socket).await;
        }
        None
    }

    async fn handshake(
        &self,
        mut socket: Portable,
        known: &mut Known,
    ) -> Result<TlsStream<Portable>, Failure> {
        let accepted = read_hello(&mut socket).await?;
        let hello = accepted.client_hello();
        known.server_name = hello.server_name().unwrap_or_default().to_owned();
        let config = self.server_config(known);
        let start = StartHandshake::from_parts(accepted, socket);
        let accepting = start.into_stream(Arc::new(config)).into_fallible();
        accepting.await.map_err(|(error, socket)| {
            known.told = Some(socket);
            error.into()
        })
    }

    /// What is asked of a client when it has shown that its certificate is its own.
    async fn let_in(
        &self,
        mut stream: TlsStream<Portable>,
        remote: Option<SocketAddr>,
        known: &Known,
        workers: &Workers,
    ) -> Result<Established, Failure> {
        let certificate = known.check.as_ref().and_then(|check| check.presented());
        if let (Some(certificate), Some(remote), true) = (certificate, remote, self.checks_address)
        {
            remote::check(certificate, remote.ip(), workers)
                .await
                .map_err(Failure::Refused)?;
        }
        let user = certificate
            .filter(|_| self.names_users)
            .map(|certificate| certificate.common_name().into());
        stream.get_mut().0.acknowledge();
        stream.get_mut().0.detach()?;
        Ok(Established { stream, user })
    }

    /// What the files say now.
    fn server_config(&self, known: &mut Known) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::clone(self.settings.provider()))
            .with_protocol_versions(self.settings.versions())
            .expect("the settings have a suite for each of their versions");
        let builder = match self.trust.current() {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let check = Arc::new(ClientCheck::new(
                    authorities,
                    Arc::clone(&self.rules),
                    self.revoked.as_ref().map(|revoked| revoked.current()),
                    self.settings.algorithms(),
                ));
                known.check = Some(Arc::clone(&check));
                builder.with_client_cert_verifier(check)
            }
        };
        let identity = self
            .identity
            .as_ref()
            .expect("a listener with TLS has a certificate")
            .current();
        let mut config = builder.with_cert_resolver(Arc::new(Always::of(&identity)));
        config.ignore_client_order = true;
        let protocols: &[&[u8]] = match self.kind {
            Kind::Client => &[b"h2", b"http/1.1"],
            // Members speak nothing else among themselves.
            Kind::Peer => &[b"http/1.1"],
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // A session that is taken up again would not ask whether its certificate is still welcome.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }

    fn log_rejection(&self, remote: Option<SocketAddr>, known: &Known, failure: &Failure) {
        let message = match self.kind {
            Kind::Client => "rejected connection on client endpoint",
            Kind::Peer => "rejected connection on peer endpoint",
        };
        let check = known.check.as_ref();
        let refusal = check.and_then(|check| check.refusal());
        let error = match failure {
            Failure::NotTls => text::NOT_TLS.to_owned(),
            Failure::Refused(reason) => reason.clone(),
            Failure::Io(error) => text::handshake(error, refusal),
        };
        // Probes that connect and go away are nobody's trouble.
        let gone = matches!(failure, Failure::Io(error) if text::is_eof(error));
        let mut record = if gone {
            crate::log_record!(Debug, None, message)
        } else {
            crate::log_record!(Warn, None, message)
        };
        record
            .with("remote-addr", &Remote(remote))
            .with("server-name", &known.server_name);
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

/// Reads until the client has said what it wants.
async fn read_hello(socket: &mut Portable) -> Result<Accepted, Failure> {
    let mut acceptor = Acceptor::default();
    let mut buffer = [0; 4096];
    let mut first = true;
    loop {
        let length = socket.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if std::mem::take(&mut first) && buffer[0] != FIRST_BYTE {
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
                // The client may be gone; what counts is what it did.
                let _ = socket.write_all(&bytes).await;
                return Err(io::Error::other(error).into());
            }
        }
    }
}

/// Hangs up so that the client can read the alert: closing a socket with unread bytes would take the alert back.
async fn part(mut socket: Portable) {
    let read_all = async {
        socket.shutdown().await?;
        let mut left = (&mut socket).take(PARTING_BYTES_MAX);
        tokio::io::copy(&mut left, &mut tokio::io::sink()).await
    };
    // Best effort: the client may be gone.
    let _ = tokio::time::timeout(PARTING, read_all).await;
}

/// Shows the same certificate to everybody.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl Always {
    fn of(identity: &Identity) -> Always {
        Always(identity.certified_key())
    }
}

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl Portable {
    /// Where the other end is; none for a Unix socket.
    pub fn remote(&self) -> Option<SocketAddr> {
        match self {
            Portable::Tcp(socket) => socket.peer_addr().ok(),
            Portable::DetachedTcp(socket) => socket.peer_addr().ok(),
            _ => None,
        }
    }

    /// Acknowledges the client's last words at once. The server has nothing to add to them, so that the system would take its
    /// time, and a client that gathers small writes would keep its first request back that long.
    fn acknowledge(&self) {
        if let Portable::Tcp(socket) = self {
            // Best effort: it only saves time.
            let _ = SockRef::from(socket).set_tcp_quickack(true);
        }
    }

    fn detach(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Portable::Closed) {
            Portable::Tcp(socket) => Portable::DetachedTcp(socket.into_std()?),
            Portable::Unix(socket) => Portable::DetachedUnix(socket.into_std()?),
            other => other,
        };
        Ok(())
    }

    /// Brings the socket to the runtime of this thread.
    ///
    /// # Errors
    /// The operating system's.
    pub fn attach(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Portable::Closed) {
            Portable::DetachedTcp(socket) => {
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                Portable::Tcp(TcpStream::from_std(socket)?)
            }
            Portable::DetachedUnix(socket) => {
                socket.set_nonblocking(true)?;
                Portable::Unix(UnixStream::from_std(socket)?)
            }
            other => other,
        };
        Ok(())
    }
}

fn not_connected<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Portable {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Portable::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Portable::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            _ => not_connected(),
        }
    }
}

impl AsyncWrite for Portable {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Portable::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Portable::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            _ => not_connected(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Portable::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Portable::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            _ => not_connected(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Portable::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Portable::Unix(socket) => Pin::new(socket).poll_flush(cx),
            _ => not_connected(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Portable::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Portable::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            _ => not_connected(),
        }
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

        let hello = [FIRST_BYTE, 3, 1, 2, 0, 1];
        for said in [&hello[..0], &hello] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(said).await.unwrap();
            let begin = tokio::time::Instant::now();
            let accepted = endpoint.accept(Portable::Unix(near), &workers).await;
            assert!(accepted.is_none());
            assert_eq!(begin.elapsed().as_secs(), DEADLINE.as_secs());
        }
    }
}
