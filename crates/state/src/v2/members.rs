//! What the cluster writes into the tree about itself, which takes indexes like any write.
//!
//! ```text
//! /0/members/ID/raftAttributes  {"peerURLs":[…],"isLearner":true}
//! /0/members/ID/attributes      {"name":"…","clientURLs":[…]}
//! /0/removed_members/ID
//! /0/version                    3.5.0
//! ```
//!
//! The membership decides what may be written; an error here is a tree that does not agree with
//! it.

use super::document::json;
use super::{Answer, Document, Error, Lifetime, Operation, Path, Store, Timestamp};
use crate::version::Version;

const VERSION: &str = "/0/version";

impl Store {
    /// A member has joined.
    ///
    /// # Errors
    /// When it is there.
    pub fn add_member(
        &mut self,
        id: u64,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(), Error> {
        let path = member(id).child("raftAttributes");
        self.create_record(path, &raft_attributes(peer_urls, is_learner))
    }

    /// A member's peers reach it elsewhere, or it votes now.
    ///
    /// # Errors
    /// When it is not there.
    pub fn update_member(
        &mut self,
        id: u64,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(), Error> {
        let path = member(id).child("raftAttributes");
        let value = raft_attributes(peer_urls, is_learner);
        self.write_record(Operation::Update {
            path,
            value: &value,
            lifetime: Lifetime::default(),
        })
    }

    /// A member has left; takes two indexes.
    ///
    /// # Errors
    /// When it is not there, or has left before.
    pub fn remove_member(&mut self, id: u64) -> Result<(), Error> {
        self.write_record(Operation::Delete {
            path: member(id),
            dir: true,
            recursive: true,
        })?;
        self.create_record(removed_member(id), "")
    }

    /// A member has told its name and where its clients reach it; one that is not there has not.
    ///
    /// # Errors
    /// When the tree is not a membership's.
    pub fn set_attributes(
        &mut self,
        id: u64,
        name: &str,
        client_urls: &[String],
    ) -> Result<(), Error> {
        let member = member(id);
        if !self.has(&member) {
            return Ok(());
        }
        let path = member.child("attributes");
        self.set_record(path, &attributes(name, client_urls))
    }

    /// The cluster's version is decided.
    ///
    /// # Errors
    /// When the tree is not a membership's.
    pub fn set_cluster_version(&mut self, version: &str) -> Result<(), Error> {
        self.set_record(Path::clean(VERSION), version)
    }

    fn set_record(&mut self, path: Path, value: &str) -> Result<(), Error> {
        self.write_record(Operation::Set {
            path,
            dir: false,
            value,
            lifetime: Lifetime::default(),
        })
    }

    fn create_record(&mut self, path: Path, value: &str) -> Result<(), Error> {
        self.write_record(Operation::Create {
            path,
            unique: false,
            dir: false,
            value,
            lifetime: Lifetime::default(),
        })
    }

    fn write_record(&mut self, operation: Operation<'_>) -> Result<(), Error> {
        // No record expires, so that the clock is never looked at.
        let answer = self.execute(Timestamp(0), operation)?;
        assert!(matches!(answer, Answer::Event(_)), "a write is an event");
        Ok(())
    }
}

impl Document {
    /// The version that the cluster has agreed to, if the tree tells it.
    pub fn cluster_version(&self) -> Option<Version> {
        let entry = self.tree.get(&Path::clean(VERSION))?;
        Version::parse(entry.value().as_bytes())
    }

    /// The same, of a cluster that has agreed to no version yet; this takes no index.
    pub fn without_cluster_version(mut self) -> Document {
        let version = Path::clean(VERSION);
        if self.tree.get(&version).is_some() {
            self.tree.remove(&version);
        }
        self
    }
}

fn member(id: u64) -> Path {
    Path::clean(&format!("/0/members/{id:x}"))
}

fn removed_member(id: u64) -> Path {
    Path::clean(&format!("/0/removed_members/{id:x}"))
}

fn raft_attributes(peer_urls: &[String], is_learner: bool) -> String {
    let mut json = String::from("{\"peerURLs\":");
    put_strings(peer_urls, &mut json);
    json.push_str(if is_learner {
        ",\"isLearner\":true}"
    } else {
        "}"
    });
    json
}

fn attributes(name: &str, client_urls: &[String]) -> String {
    let mut json = String::from("{");
    if !name.is_empty() {
        json.push_str("\"name\":");
        json::put_string(name, &mut json);
    }
    if !client_urls.is_empty() {
        json.push_str(if name.is_empty() { "" } else { "," });
        json.push_str("\"clientURLs\":");
        put_strings(client_urls, &mut json);
    }
    json.push('}');
    json
}

fn put_strings(strings: &[String], json: &mut String) {
    json.push('[');
    for (i, string) in strings.iter().enumerate() {
        json.push_str(if i == 0 { "" } else { "," });
        json::put_string(string, json);
    }
    json.push(']');
}
