//! A client as thin as can be: one handshake, one request over HTTP/1.1. Its checks are rustls'
//! own.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, Stream,
    SupportedProtocolVersion, crypto::aws_lc_rs,
};

use crate::issuer::{Authority, Pair};

/// What a client believes and shows.
#[derive(Clone)]
pub struct Client {
    pub roots: Arc<RootCertStore>,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Option<Arc<PrivateKeyDer<'static>>>,
    pub versions: &'static [&'static SupportedProtocolVersion],
    pub alpn: Vec<Vec<u8>>,
    pub host: &'static str,
}

/// What came of a connection.
#[derive(Debug)]
pub struct Answer {
    pub version: ProtocolVersion,
    pub suite: CipherSuite,
    pub alpn: Option<String>,
    /// The server's certificate.
    pub certificate: Vec<u8>,
    pub text: String,
}

impl Client {
    /// Trusts `ca` and shows nothing.
    pub fn of(ca: &Authority) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().into()).unwrap();
        Client {
            roots: roots.into(),
            chain: Vec::new(),
            key: None,
            versions: rustls::ALL_VERSIONS,
            alpn: Vec::new(),
            host: "127.0.0.1",
        }
    }

    /// Shows this certificate, too.
    pub fn with(mut self, pair: &Pair) -> Client {
        self.chain = vec![pair.der.clone().into()];
        self.key = Some(Arc::new(key_of(pair)));
        self
    }

    pub fn alpn(mut self, protocol: &str) -> Client {
        self.alpn = vec![protocol.into()];
        self
    }

    pub fn config(&self) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.key {
            None => builder.with_no_client_auth(),
            Some(key) => {
                // Not by rustls' own means: it does not look at certificates of version 1.
                let key = aws_lc_rs::sign::any_supported_type(key).unwrap();
                let key = rustls::sign::CertifiedKey::new(self.chain.clone(), key);
                builder.with_client_cert_resolver(Arc::new(Always(Arc::new(key))))
            }
        };
        config.alpn_protocols = self.alpn.clone();
        config
    }

    /// Asks for a page.
    pub fn get(&self, port: u16, path: &str) -> io::Result<Answer> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        self.get_over(socket, path)
    }

    pub fn get_over(&self, socket: impl Read + Write, path: &str) -> io::Result<Answer> {
        self.ask_over(socket, &format!("GET {path}"), "", "")
    }

    /// Asks for more than a page: `line` is a method and a path, `headers` are whole lines.
    pub fn ask(&self, port: u16, line: &str, headers: &str, body: &str) -> String {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server accepts");
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let answer = self.ask_over(socket, line, headers, body);
        answer.expect("the client is let in").text
    }

    fn ask_over(
        &self,
        mut socket: impl Read + Write,
        line: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<Answer> {
        let name = ServerName::try_from(self.host).unwrap();
        let mut connection =
            ClientConnection::new(Arc::new(self.config()), name).map_err(io::Error::other)?;
        let mut stream = Stream::new(&mut connection, &mut socket);
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let alpn = connection.alpn_protocol();
        Ok(Answer {
            version: connection.protocol_version().unwrap(),
            suite: connection.negotiated_cipher_suite().unwrap().suite(),
            alpn: alpn.map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
            certificate: connection.peer_certificates().unwrap()[0].to_vec(),
            text,
        })
    }

    /// The server answers.
    #[track_caller]
    pub fn assert_in(&self, port: u16) -> Answer {
        let answer = self.get(port, "/version").expect("the client is let in");
        assert!(answer.text.contains("etcdserver"), "{}", answer.text);
        answer
    }

    /// The server refuses; what the client is told contains `text`.
    #[track_caller]
    pub fn assert_out(&self, port: u16, text: &str) {
        let error = self
            .get(port, "/version")
            .expect_err("the client is refused");
        assert!(format!("{error:?}").contains(text), "{error:?}");
    }
}

pub fn key_of(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pair.key.serialize_pem().as_bytes()).unwrap()
}

/// Writes a file that several tests want.
pub fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), content).unwrap();
}

#[derive(Debug)]
struct Always(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Always {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
