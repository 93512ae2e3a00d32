//! What came of a run, and how a failure is shown to people.

use std::fmt::Write;
use std::time::Duration;

use retcd_state::auth::AuthError;
use retcd_state::machine::ApplyError;
use retcd_state::membership::MemberError;

use crate::administrator::ADMINISTRATOR;
use crate::checker::Violation;
use crate::checker::linearizable::Searched;
use crate::history::{History, INVALID_TOKEN, Operation, Outcome};
use crate::hostile::HOSTILE;
use crate::member::Setup;
use crate::operator::OPERATOR;
use crate::plan::Plan;
use crate::request::{Answer, MemberRequest, Request};
use crate::tree_administrator::TREE_ADMINISTRATOR;
use crate::tree_watcher::TREE_WATCHERS;
use crate::users::Credentials;
use crate::watcher::WATCHERS;

/// What came of a run.
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// How many members there were.
    pub members: usize,
    /// What went wrong on purpose.
    pub plan: Plan,
    /// How the members were configured.
    pub setup: Setup,
    /// What clients did.
    pub history: History,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// A sum over everything that happened.
    pub digest: u64,
    /// How much happened.
    pub events: u64,
    /// How long it took in the world.
    pub simulated: Duration,
    /// Entries in the committed log.
    pub entries: u64,
    /// Those of them that nobody honest would have made.
    pub strange: usize,
    /// Members whose data were turned over and that were found.
    pub found: usize,
    /// Nodes of API v2 that expired.
    pub expired: usize,
    /// What the search for orders found.
    pub searched: Searched,
}

/// How users and the hostile client fared: a run in which nobody is refused proves little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fared {
    /// Who has logged in.
    pub logins: usize,
    /// Requests that were answered to users.
    pub served: usize,
    /// Requests that were not permitted.
    pub denied: usize,
    /// Requests that users or roles have overtaken.
    pub overtaken: usize,
    /// Requests with a token that did not count.
    pub without_token: usize,
    /// Entries that nobody honest would have made.
    pub strange: usize,
    /// Last voters that were to go, and stayed.
    pub stayed: usize,
    /// Writes for which there was no room.
    pub without_room: usize,
    /// Learners that got a vote.
    pub promoted: usize,
    /// Leaders that handed leadership over.
    pub handed_over: usize,
    /// Compactions whose rows were gone when they were answered.
    pub compacted: usize,
    /// Members whose data were wrong and that were found.
    pub found: usize,
    /// Hosts that got a newer program.
    pub upgraded: usize,
    /// Requests of API v2 that were served.
    pub tree_served: usize,
    /// Requests of API v2 that were not permitted.
    pub tree_denied: usize,
    /// Changes of users and roles of API v2.
    pub tree_changes: usize,
    /// Requests of API v2 that the tree refused.
    pub tree_refused: usize,
    /// Events that watchers of API v2 heard of.
    pub tree_events: usize,
    /// Nodes of API v2 that expired.
    pub expired: usize,
}

impl std::ops::AddAssign for Fared {
    fn add_assign(&mut self, other: Fared) {
        self.logins += other.logins;
        self.served += other.served;
        self.denied += other.denied;
        self.overtaken += other.overtaken;
        self.without_token += other.without_token;
        self.strange += other.strange;
        self.stayed += other.stayed;
        self.without_room += other.without_room;
        self.promoted += other.promoted;
        self.handed_over += other.handed_over;
        self.compacted += other.compacted;
        self.found += other.found;
        self.upgraded += other.upgraded;
        self.tree_served += other.tree_served;
        self.tree_refused += other.tree_refused;
        self.tree_denied += other.tree_denied;
        self.tree_changes += other.tree_changes;
        self.tree_events += other.tree_events;
        self.expired += other.expired;
    }
}

impl std::fmt::Display for Fared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} logins, {} requests of users served, {} denied, {} overtaken, {} without a token that counts; \
             {} strange entries, {} last voters stayed; {} without room, {} promoted, {} handed over, \
             {} compacted physically, {} corrupt members found, {} upgraded; \
             of API v2: {} served, {} refused, {} denied, {} changes of users, {} events, {} expired",
            self.logins,
            self.served,
            self.denied,
            self.overtaken,
            self.without_token,
            self.strange,
            self.stayed,
            self.without_room,
            self.promoted,
            self.handed_over,
            self.compacted,
            self.found,
            self.upgraded,
            self.tree_served,
            self.tree_refused,
            self.tree_denied,
            self.tree_changes,
            self.tree_events,
            self.expired
        )
    }
}

/// Operations and notes in a report, the last of them.
const LINES_MAX: usize = 400;

impl Run {
    /// The failure, for people.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let out = &mut text;
        let Some(violation) = &self.violation else {
            return format!("seed {}: all promises were kept\n", self.seed);
        };
        let _ = writeln!(
            out,
            "seed {}: broken promise: {}",
            self.seed, violation.promise
        );
        let _ = writeln!(out, "\n{}\n", violation.detail);
        let _ = writeln!(out, "members: {}, {:?}", self.members, self.setup);
        let (users, harassed) = (self.plan.has_users, self.plan.is_harassed);
        let tree = self.plan.tree_from;
        let _ = writeln!(
            out,
            "users: {users}, harassed: {harassed}, API v2 from: {tree:?}"
        );
        let _ = writeln!(
            out,
            "\nplan (everything is mended at {:?}):",
            self.plan.heal_at
        );
        for (at, fault) in &self.plan.faults {
            let _ = writeln!(out, "{:>12.6} {fault}", at.as_secs_f64());
        }
        let _ = writeln!(out, "\nwhat happened, until {:?}:", self.simulated);
        let lines = self.lines();
        let cut = lines.len().saturating_sub(LINES_MAX);
        if cut > 0 {
            let _ = writeln!(out, "  … {cut} lines before");
        }
        for (at, line) in &lines[cut..] {
            let _ = writeln!(out, "{:>12.6} {line}", at.as_secs_f64());
        }
        let _ = writeln!(
            out,
            "\nagain: cargo run --release -p retcd-sim -- --seed {}",
            self.seed
        );
        text
    }

    /// How users fared.
    pub fn fared(&self) -> Fared {
        let mut fared = Fared {
            strange: self.strange,
            found: self.found,
            upgraded: self.plan.old.len(),
            expired: self.expired,
            ..Fared::default()
        };
        for operation in &self.history.operations {
            self.count(operation, &mut fared);
        }
        let of_users = self.history.operations.iter();
        for operation in of_users.filter(|operation| !is_staff(operation.client)) {
            let count = match &operation.outcome {
                Outcome::Answered(Answer::Token(_)) => &mut fared.logins,
                Outcome::Answered(Answer::Error(ApplyError::Auth(AuthError::OldRevision))) => {
                    &mut fared.overtaken
                }
                Outcome::Answered(Answer::Error(ApplyError::Auth(_))) => &mut fared.denied,
                Outcome::Answered(Answer::Error(ApplyError::Member(MemberError::LastVoter))) => {
                    &mut fared.stayed
                }
                Outcome::Answered(_) if is_of_user(&operation.credentials) => &mut fared.served,
                Outcome::Refused(INVALID_TOKEN) => &mut fared.without_token,
                _ => continue,
            };
            *count += 1;
        }
        fared
    }

    fn count(&self, operation: &Operation, fared: &mut Fared) {
        let Outcome::Answered(answer) = &operation.outcome else {
            return;
        };
        let count = match (&operation.request, answer) {
            (_, Answer::Error(ApplyError::NoSpace)) => &mut fared.without_room,
            (Request::Members(MemberRequest::Promote(_)), Answer::Other) => &mut fared.promoted,
            (Request::Members(MemberRequest::MoveLeader(_)), Answer::Other) => {
                &mut fared.handed_over
            }
            (Request::TreeWait { .. }, Answer::Tree(Ok(_))) => &mut fared.tree_events,
            (_, Answer::TreeStream(streamed)) => {
                fared.tree_events += streamed.events.len();
                return;
            }
            (Request::TreeUsers(_), Answer::Other) => &mut fared.tree_changes,
            (_, Answer::TreeDenied) => &mut fared.tree_denied,
            (_, Answer::Tree(Ok(_))) => &mut fared.tree_served,
            (_, Answer::Tree(Err(_))) => &mut fared.tree_refused,
            (Request::Write(r), Answer::Compact(_))
                if r.compaction.is_some_and(|compaction| compaction.physical) =>
            {
                &mut fared.compacted
            }
            _ => return,
        };
        *count += 1;
    }

    fn lines(&self) -> Vec<(Duration, String)> {
        let notes = self.history.notes.iter().cloned();
        let operations = self.history.operations.iter();
        let ended = operations.map(|operation| {
            let at = operation.returned.unwrap_or(self.simulated);
            (at, line(operation))
        });
        let mut lines: Vec<(Duration, String)> = notes.chain(ended).collect();
        lines.sort_by_key(|(at, _)| *at);
        lines
    }
}

/// Whether somebody asks by the rules of API v3.
fn is_of_user(credentials: &Credentials) -> bool {
    matches!(
        credentials,
        Credentials::Token(_) | Credentials::Certificate(_)
    )
}

fn is_staff(client: usize) -> bool {
    [ADMINISTRATOR, TREE_ADMINISTRATOR, OPERATOR].contains(&client)
}

/// An operation in one line.
pub fn line(operation: &Operation) -> String {
    let client = match operation.client {
        OPERATOR => "operator".to_owned(),
        ADMINISTRATOR => "administrator".to_owned(),
        TREE_ADMINISTRATOR => "v2 administrator".to_owned(),
        HOSTILE => "hostile client".to_owned(),
        TREE_WATCHERS..WATCHERS => format!("v2 watcher {}", operation.client - TREE_WATCHERS),
        WATCHERS.. => format!("watcher {}", operation.client - WATCHERS),
        client => format!("client {client}"),
    };
    let credentials = match &operation.credentials {
        Credentials::Nobody => String::new(),
        credentials => format!(" by {credentials:?}"),
    };
    format!(
        "{client}{credentials} at host {}, since {:.6}: {} -> {:?}",
        operation.host,
        operation.invoked.as_secs_f64(),
        operation.request,
        operation.outcome
    )
}
