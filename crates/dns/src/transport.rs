//! Exchange of one query and its reply with one server.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::message::{Answer, Query, Reply};

const DATAGRAM_BYTES_MAX: usize = 4096;

/// Sends the query and waits for the reply. Each query uses a new socket and so a new source port.
pub(crate) fn exchange(server: SocketAddr, query: &Query, timeout: Duration) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(&query.bytes)?;
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        socket.set_read_timeout(Some(until(deadline)?))?;
        let length = socket.recv(&mut buffer)?;
        match query.read(&buffer[..length]) {
            Reply::Answer(answer) => return Ok(answer),
            Reply::Truncated => return over_tcp(server, query, deadline),
            // A late or forged reply: the real one may still arrive.
            Reply::Unrelated => {}
        }
    }
}

fn over_tcp(server: SocketAddr, query: &Query, deadline: Instant) -> io::Result<Answer> {
    let mut socket = TcpStream::connect_timeout(&server, until(deadline)?)?;
    socket.set_write_timeout(Some(until(deadline)?))?;
    let length = u16::try_from(query.bytes.len()).expect("a name is short");
    socket.write_all(&[&length.to_be_bytes()[..], &query.bytes].concat())?;
    socket.set_read_timeout(Some(until(deadline)?))?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut reply)?;
    match query.read(&reply) {
        Reply::Answer(answer) => Ok(answer),
        Reply::Truncated | Reply::Unrelated => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}
