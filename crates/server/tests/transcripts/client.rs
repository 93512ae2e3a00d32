//! HTTP/1.1 by hand: every byte of an answer is seen, and when it comes.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Far beyond what an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request. Headers are whole lines.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            ..Request::default()
        }
    }

    /// With a form in the body.
    pub fn form(mut self, form: &str) -> Request {
        let content_type = "Content-Type: application/x-www-form-urlencoded";
        self.headers.push(content_type.to_owned());
        self.body = form.as_bytes().to_vec();
        self
    }

    /// With HTTP Basic credentials.
    pub fn user(mut self, name: &str, password: &str) -> Request {
        use base64::Engine;
        let credentials = format!("{name}:{password}");
        let credentials = base64::engine::general_purpose::STANDARD.encode(credentials);
        self.headers
            .push(format!("Authorization: Basic {credentials}"));
        self
    }

    /// Sends it over a connection of its own, and waits for the head of the answer.
    pub fn send(&self, port: u16) -> Answer {
        Answer::begin(self.begin(port), self.method == "HEAD")
    }

    /// Sends it, and tells whether any of an answer comes in this time.
    pub fn is_answered(&self, port: u16, patience: Duration) -> bool {
        let mut stream = self.begin(port);
        stream.set_read_timeout(Some(patience)).unwrap();
        match stream.read_exact(&mut [0]) {
            Ok(()) => true,
            Err(error) => {
                let is_silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(is_silent, "{error}");
                false
            }
        }
    }

    fn begin(&self, port: u16) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if find_line(&self.headers, "Host").is_none() {
            head += &format!("Host: 127.0.0.1:{port}\r\n");
        }
        for header in &self.headers {
            head += &format!("{header}\r\n");
        }
        if !self.body.is_empty() {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        let mut writer = &stream;
        writer.write_all(head.as_bytes()).unwrap();
        // The server may have answered, and closed, before it was told everything.
        let _ = writer.write_all(&self.body);
        stream
    }

    /// The whole answer.
    pub fn answer(&self, port: u16) -> Whole {
        let mut answer = self.send(port);
        let mut body = Vec::new();
        while let Some(part) = answer.part(PATIENCE) {
            body.extend(part);
        }
        assert!(answer.ended, "{self:?} was answered only in part");
        Whole {
            status: answer.status,
            headers: answer.headers,
            body: String::from_utf8(body).expect("answers are text"),
        }
    }
}

/// An answer of which all has arrived.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Whole {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// How long the body is.
#[derive(Debug)]
enum Length {
    Rest(usize),
    Chunked,
}

/// An answer whose head has arrived. The connection is closed when it is dropped.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Whether the end of the body has arrived.
    pub ended: bool,
    length: Length,
    reader: BufReader<TcpStream>,
}

impl Answer {
    fn begin(stream: TcpStream, is_head: bool) -> Answer {
        let mut reader = BufReader::new(stream);
        let status = line(&mut reader).expect("an answer begins");
        let status = status.split(' ').nth(1).expect("a status line");
        let status = status.parse().expect("a status");
        let mut headers = Vec::new();
        loop {
            let header = line(&mut reader).expect("the head of an answer arrives whole");
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(": ").expect("a header");
            headers.push((name.to_owned(), value.to_owned()));
        }
        let length = match find(&headers, "content-length") {
            _ if is_head || status == 204 => Length::Rest(0),
            Some(length) => Length::Rest(length.parse().expect("a length")),
            None => {
                let coding = find(&headers, "transfer-encoding");
                assert_eq!(coding, Some("chunked"), "{headers:?}");
                Length::Chunked
            }
        };
        Answer {
            status,
            headers,
            ended: matches!(length, Length::Rest(0)),
            length,
            reader,
        }
    }

    /// The next piece of the body; none at its end, or if none comes in time.
    pub fn part(&mut self, patience: Duration) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let stream = self.reader.get_ref();
        stream.set_read_timeout(Some(patience)).unwrap();
        let length = match &mut self.length {
            Length::Rest(rest) => std::mem::take(rest),
            Length::Chunked => {
                let length = line(&mut self.reader)?;
                usize::from_str_radix(&length, 16).expect("the length of a chunk")
            }
        };
        let mut part = vec![0; length];
        self.reader
            .read_exact(&mut part)
            .expect("a piece arrives whole");
        if matches!(self.length, Length::Chunked) {
            // There may be trailers behind the last one.
            let behind = || line(&mut self.reader).filter(|line| !line.is_empty());
            let trailers = std::iter::from_fn(behind).count();
            assert!(
                length == 0 || trailers == 0,
                "a chunk is longer than it says"
            );
        }
        self.ended = length == 0 || matches!(self.length, Length::Rest(_));
        (length > 0).then_some(part)
    }

    /// The next line of a stream's body, each of which is a chunk.
    pub fn line(&mut self, patience: Duration) -> Option<String> {
        let part = self.part(patience)?;
        let text = String::from_utf8(part).expect("events are text");
        assert!(text.ends_with('\n'), "{text:?} is a part of a line");
        Some(text)
    }
}

fn find_line<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    let mut headers = headers.iter().filter_map(|line| line.split_once(": "));
    let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut headers = headers.iter();
    let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// None: nothing came in time, or the server has closed.
fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(0) => None,
        Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}
