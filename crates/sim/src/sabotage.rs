//! Members that are broken on purpose, so that the checkers can show that they notice. All of it is
//! in what surrounds the member: the order of its steps, its clocks, tokens and peers, what of its
//! questions is answered early and what of its outputs is lost. Its own code is whole.

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// The log is never synced, so that a loss of power takes acknowledged entries along.
    SkipFsync,
    /// The log acknowledges before it is written.
    AckBeforeSync,
    /// A member answers linearizable reads at once.
    StaleRead,
    /// Term and vote are not written.
    ForgetVote,
    /// A member passes over an entry, as if it were empty.
    SkipEntry,
    /// A request is proposed twice.
    ProposeTwice,
    /// A response to a watcher is lost now and then.
    DropWatchEvent,
    /// What a leader has decided, as that a lease is over, is sent on to its successor.
    SendDecisionsOn,
    /// A lease that is not known here yet is called unknown at once.
    HastyUnknown,
    /// Leases are renewed by who may not lead any more.
    RenewUnasked,
    /// Who hears that a lease is gone is told a revision of before it asked.
    GoneBefore,
    /// Leases run out before their time.
    ExpireEarly,
    /// Snapshots tell of one voter only.
    OldConfState,
    /// Who may do what is looked up when a request comes, and not again when it is executed.
    CheckAtProposal,
    /// Users are forgotten at every start and with every snapshot.
    ForgetUsers,
    /// The tokens of users that are gone, or have another password, go on counting.
    KeepTokens,
    /// A token that was given out at an entry to come is refused at once.
    HastyTokens,
    /// The header of a streamed list has the revision of when it is sent.
    HeaderOfNow,
    /// The same with a hash.
    HashHeaderOfNow,
    /// Who has written is answered before anybody can see it.
    AckBeforePublished,
    /// Logins and logouts are made known late: behind the answers to those who asked for them.
    LateTokens,
    /// A member of an old program calls itself one of the new.
    WrongVersion,
    /// A member says nothing of what it holds to who compares it with others.
    NoHashes,
    /// Request ids begin anew with every process.
    SameIds,
    /// The tree of API v2 in a snapshot that is sent is a batch older than its database.
    OldTree,
    /// At a start the entries behind the newest snapshot are not looked at for the tree of API v2.
    ForgetTree,
    /// Nodes of API v2 expire by each member's own clock.
    ExpireByOwnClock,
    /// Who has written through API v2 is answered before anybody can see it.
    AckTreeBeforePublished,
    /// An event of a stream of API v2 is lost now and then.
    DropTreeEvent,
    /// A directory of API v2 shows what is hidden in it.
    ShowHidden,
    /// What users of API v2 may do is looked up once, and not again when that has changed.
    OldTreeUsers,
    /// What was read is answered even if users or roles have changed since it was permitted.
    ReadUnconfirmed,
}
