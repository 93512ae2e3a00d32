//! Judging changes, and the checks before they are proposed, on memberships written as text.
//!
//! `a b .` are three voters of which two are started, `(c)` is a started learner, `(.)` one that is
//! not; their ids are 1, 2, … in this order.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn membership(text: &str) -> Membership {
    let members = text.split_whitespace().zip(1..).map(|(word, id)| {
        let name = word.trim_matches(['(', ')', '.']).to_owned();
        let client_urls = (!name.is_empty()).then(|| vec![format!("http://client-{id}")]);
        let member = Member {
            id,
            peer_urls: Some(vec![format!("http://peer-{id}")]),
            is_learner: word.starts_with('('),
            name,
            client_urls,
        };
        (id, member)
    });
    let members: BTreeMap<u64, Member> = members.collect();
    Membership {
        conf_state: conf_state_of(members.values()),
        members,
        removed: BTreeSet::new(),
        cluster_version: None,
        downgrade: None,
        learners_max: 1,
    }
}

#[test]
fn a_voter_may_come_if_enough_are_started() {
    for (text, ready) in [
        ("", false),
        ("a", true),
        (".", false),
        ("a .", false),
        ("a b", true),
        (". . .", false),
        ("a . .", false),
        ("a b .", false),
        ("a b c", true),
        ("a b c .", true),
        ("a b . .", false),
        // Learners don't count.
        ("a b (.) (.)", true),
        ("a . (c) (d)", false),
        ("a (.)", true),
    ] {
        assert_eq!(membership(text).is_ready_to_add_voter(), ready, "{text:?}");
    }
}

#[test]
fn a_voter_may_go_if_enough_are_started() {
    for (text, id, ready) in [
        ("a", 1, false),
        (". . .", 1, false),
        ("a .", 2, true),
        ("a .", 1, false),
        ("a b", 1, true),
        ("a b .", 2, false),
        ("a b .", 3, true),
        ("a b c", 3, true),
        ("a b c .", 3, true),
        ("a b c .", 4, true),
        ("a (b)", 1, false),
        ("a . (c)", 1, false),
        ("a . (c)", 2, true),
        ("a . (.)", 2, true),
    ] {
        let found = membership(text).is_ready_to_remove_voter(id);
        assert_eq!(found, ready, "{id} of {text:?}");
    }
}

#[test]
fn a_learner_may_get_a_vote_if_enough_are_started() {
    for (text, ready) in [
        ("a (b)", true),
        (". (b)", false),
        ("a b (c)", true),
        ("a . (c)", true),
        (". . (c)", false),
        ("a . . (d)", false),
        ("a b . (d)", true),
        ("a b . . (e)", true),
        ("a . . . (e)", false),
    ] {
        let membership = membership(text);
        assert_eq!(membership.is_ready_to_promote(), ready, "{text:?}");
        let expected = match ready {
            true => Ok(()),
            false => Err(ReconfigError::NotEnoughStarted),
        };
        assert_eq!(membership.check_promote(), expected);
    }
}

/// How member 1 is connected to the others, by id: `+` steadily, `~` since a moment ago, `-` not.
fn links(text: &'static str) -> impl Fn(u64) -> Link {
    move |id| match text.as_bytes().get(id as usize - 1) {
        Some(b'+') => Link::Steady,
        Some(b'~') => Link::Fresh,
        _ => Link::Down,
    }
}

#[test]
fn an_addition_keeps_the_quorum_that_is_connected() {
    use ReconfigError::*;
    for (text, link, learner, expected) in [
        ("a", "-", false, Ok(())),
        ("a", "-", true, Ok(())),
        (".", "-", false, Err(NotEnoughStarted)),
        (".", "-", true, Ok(())),
        // With the new one it takes two of three, and then three of four.
        ("a b", "-+", false, Ok(())),
        ("a b", "-~", false, Err(Unhealthy)),
        ("a b", "--", true, Err(Unhealthy)),
        ("a b .", "-++", false, Err(NotEnoughStarted)),
        ("a b .", "-++", true, Ok(())),
        ("a b c", "-+-", false, Err(Unhealthy)),
        ("a b c", "-+~", true, Err(Unhealthy)),
        ("a b c", "-++", false, Ok(())),
        ("a b c d", "-++-", false, Ok(())),
        ("a b c d e", "-++--", false, Err(Unhealthy)),
        ("a b c d e", "-+++-", false, Ok(())),
        // Connections to learners are none to voters.
        ("a b (c)", "--+", false, Err(Unhealthy)),
        ("a b (c)", "-+-", false, Ok(())),
    ] {
        let found = membership(text).check_add(learner, 1, links(link));
        assert_eq!(found, expected, "{text:?} connected {link:?}");
    }
}

#[test]
fn a_removal_keeps_the_quorum_that_is_connected() {
    use ReconfigError::*;
    for (text, link, id, expected) in [
        ("a", "-", 1, Err(NotEnoughStarted)),
        ("a b", "-+", 2, Ok(())),
        ("a b", "-+", 1, Ok(())),
        ("a b", "-~", 2, Err(Unhealthy)),
        ("a b", "--", 2, Ok(())),
        ("a b", "--", 1, Err(Unhealthy)),
        ("a b c", "-++", 3, Ok(())),
        ("a b c", "-++", 1, Ok(())),
        // Two of three are left: one of the two that work must not go.
        ("a b c", "-+-", 2, Err(Unhealthy)),
        ("a b c", "-+-", 1, Err(Unhealthy)),
        ("a b c", "-+-", 3, Ok(())),
        ("a b c", "-+~", 3, Err(Unhealthy)),
        ("a b .", "-++", 2, Err(NotEnoughStarted)),
        ("a b .", "-+-", 3, Ok(())),
        ("a b c d e", "-++--", 2, Err(Unhealthy)),
        ("a b c d e", "-+++-", 2, Ok(())),
        ("a b c d e", "-++--", 5, Ok(())),
        // Learners may always go, and who is unknown is not judged here.
        ("a . (c)", "---", 3, Ok(())),
        ("a b c", "-++", 9, Ok(())),
    ] {
        let found = membership(text).check_remove(id, 1, links(link));
        assert_eq!(found, expected, "{id} of {text:?} connected {link:?}");
    }
}

#[test]
fn a_learner_is_in_sync_with_nine_tenths_of_the_log() {
    for (learner, leader, in_sync) in [
        (0, 0, true),
        (0, 1, false),
        (9, 10, true),
        (8, 9, false),
        (899, 1000, false),
        (900, 1000, true),
        (1000, 900, true),
        (u64::MAX, u64::MAX, true),
        (u64::MAX / 10 * 8, u64::MAX, false),
    ] {
        assert_eq!(
            is_in_sync(learner, leader),
            in_sync,
            "{learner} of {leader}"
        );
    }
}

#[test]
fn texts_are_etcds() {
    for (error, text) in [
        (MemberError::IdRemoved, "membership: ID removed"),
        (MemberError::IdExists, "membership: ID exists"),
        (MemberError::IdNotFound, "membership: ID not found"),
        (MemberError::PeerUrlExists, "membership: peerURL exists"),
        (
            MemberError::NotLearner,
            "membership: can only promote a learner member",
        ),
        (
            MemberError::LastVoter,
            "membership: the last voting member cannot be removed",
        ),
        (
            MemberError::TooManyLearners,
            "membership: too many learner members in cluster",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn contexts_are_those_of_go() {
    let id = 0x992_7ef6_3c3f_7add;
    let urls = Some(vec!["http://127.0.0.1:23213".to_owned()]);
    let member = Member {
        id,
        peer_urls: urls,
        ..Default::default()
    };
    let context = |member, is_promote| {
        let json = ConfChangeContext { member, is_promote }.to_json();
        let back: ConfChangeContext = serde_json::from_slice(&json).unwrap();
        assert_eq!(back.is_promote, is_promote);
        String::from_utf8(json).unwrap()
    };
    assert_eq!(
        context(member.clone(), false),
        r#"{"id":689753288978954973,"peerURLs":["http://127.0.0.1:23213"]}"#
    );
    let founding = Member {
        name: "c".into(),
        ..member.clone()
    };
    assert_eq!(
        context(founding, false),
        r#"{"id":689753288978954973,"peerURLs":["http://127.0.0.1:23213"],"name":"c"}"#
    );
    let learner = Member {
        is_learner: true,
        ..member
    };
    assert_eq!(
        context(learner, false),
        r#"{"id":689753288978954973,"peerURLs":["http://127.0.0.1:23213"],"isLearner":true}"#
    );
    let promoted = Member {
        id,
        ..Default::default()
    };
    assert_eq!(
        context(promoted, true),
        r#"{"id":689753288978954973,"peerURLs":null,"isPromote":true}"#
    );
}

#[test]
fn members_are_told_as_a_list_by_id() {
    assert_eq!(membership("").members_json(), "[]");
    assert_eq!(
        membership("<a> (.)").members_json(),
        concat!(
            r#"[{"id":1,"peerURLs":["http://peer-1"],"name":"\u003ca\u003e","clientURLs":["http://client-1"]},"#,
            r#"{"id":2,"peerURLs":["http://peer-2"],"isLearner":true}]"#
        )
    );
}

fn change(kind: ConfChangeType, id: u64, context: &str) -> ConfChange {
    ConfChange {
        id: None,
        r#type: Some(kind as i32),
        node_id: Some(id),
        context: Some(context.to_owned().into()),
    }
}

#[test]
fn what_a_change_lacks_matters_only_where_it_is_needed() {
    use ConfChangeType::*;
    let mut membership = membership("a b (c)");
    let mut batch = WriteBatch::default();
    membership.remove(2, &mut batch);
    let before = membership.clone();
    let mut apply = |kind, id, context| membership.apply(&change(kind, id, context), &mut batch);
    for kind in [
        ConfChangeAddNode,
        ConfChangeAddLearnerNode,
        ConfChangeUpdateNode,
        ConfChangeRemoveNode,
    ] {
        assert_eq!(apply(kind, 2, ""), Ok(Err(MemberError::IdRemoved)));
    }
    assert_eq!(
        apply(ConfChangeUpdateNode, 9, ""),
        Ok(Err(MemberError::IdNotFound))
    );
    assert_eq!(
        apply(ConfChangeRemoveNode, 9, ""),
        Ok(Err(MemberError::IdNotFound))
    );
    for kind in [ConfChangeAddNode, ConfChangeAddLearnerNode] {
        let damaged = apply(kind, 9, "");
        assert!(matches!(damaged, Err(ConfChangeDamage::BadContext(_))));
    }
    let other = Err(ConfChangeDamage::OtherMember {
        change: 3,
        context: 4,
    });
    assert_eq!(apply(ConfChangeUpdateNode, 3, r#"{"id":4}"#), other);
    assert_eq!(
        apply(ConfChangeAddNode, 3, r#"{"id":4,"isPromote":true}"#),
        other
    );
    assert_eq!(membership, before);
}

#[test]
fn somebody_always_has_a_vote() {
    use ConfChangeType::*;
    for (text, kind, id, context) in [
        ("a", ConfChangeRemoveNode, 1, ""),
        ("a (b)", ConfChangeRemoveNode, 1, ""),
        ("(b) c", ConfChangeRemoveNode, 2, ""),
    ] {
        let mut membership = membership(text);
        let before = membership.clone();
        let mut batch = WriteBatch::default();
        let found = membership.apply(&change(kind, id, context), &mut batch);
        assert_eq!(found, Ok(Err(MemberError::LastVoter)), "{text}");
        assert_eq!(membership, before);
        assert!(batch.is_empty() && membership.is_last_voter(id));
    }
    let mut membership = membership("a b (c)");
    let mut apply = |id| {
        let change = change(ConfChangeRemoveNode, id, "");
        membership.apply(&change, &mut WriteBatch::default())
    };
    assert_eq!(apply(1), Ok(Ok(())));
    assert_eq!(apply(3), Ok(Ok(())));
    assert_eq!(apply(2), Ok(Err(MemberError::LastVoter)));
}

#[test]
fn contexts_are_read_as_go_reads_them() {
    let parse = |context: &[u8]| ConfChangeContext::parse(context);
    let plain = parse(br#"{"id":7,"peerURLs":["http://a"],"isLearner":true}"#).unwrap();
    for same in [
        br#"{"ID":7,"PeerURLs":["http://a"],"ISLEARNER":true}"#.as_slice(),
        br#"{"id":1,"id":7,"peerURLs":["http://a"],"isLearner":true,"name":null}"#,
        br#"{"id":7,"peerURLs":["http://a"],"isLearner":true,"isPromote":null,"new":[{}]}"#,
        // The last one counts, whatever its case, and null says nothing.
        br#"{"id":1,"ID":7,"id":null,"peerURLs":["http://a"],"isLearner":true}"#,
    ] {
        assert_eq!(parse(same).as_ref(), Ok(&plain));
    }
    assert_eq!(parse(b"null"), Ok(ConfChangeContext::default()));
    let lossy = parse(b"{\"id\":7,\"peerURLs\":[\"http://\xff\"]}").unwrap();
    assert_eq!(lossy.member.peer_urls(), ["http://\u{fffd}"]);
    for damaged in [
        b"".as_slice(),
        b"[]",
        b"{",
        br#"{"id":-1}"#,
        br#"{"id":"7"}"#,
    ] {
        assert!(parse(damaged).is_err());
    }
}

#[test]
fn learners_have_a_limit_that_counts_the_new_one() {
    use ConfChangeType::*;
    let learner = r#"{"id":9,"peerURLs":["http://new"],"isLearner":true}"#;
    for (text, learners_max, expected) in [
        ("a b", 0, Err(MemberError::TooManyLearners)),
        ("a b", 1, Ok(())),
        ("a (b)", 1, Err(MemberError::TooManyLearners)),
        ("a (b)", 2, Ok(())),
    ] {
        let mut membership = Membership {
            learners_max,
            ..membership(text)
        };
        let change = change(ConfChangeAddLearnerNode, 9, learner);
        let found = membership.apply(&change, &mut WriteBatch::default());
        assert_eq!(found, Ok(expected), "{learners_max} with {text:?}");
        let learners = &membership.conf_state().learners;
        assert_eq!(learners.contains(&9), expected.is_ok());
    }
}

#[test]
fn the_document_holds_everything_that_older_receivers_need() {
    let mut membership = membership("a . (c) (.)");
    membership.remove(2, &mut WriteBatch::default());
    membership.removed.insert(0xabc);
    membership.cluster_version = Some(Version::new(3, 5, 0));
    let document = snap::Membership::from_document(&membership.to_document()).unwrap();
    let member = |id: u64, name: &str, is_learner| snap::Member {
        id,
        peer_urls: vec![format!("http://peer-{id}")],
        is_learner,
        name: name.into(),
        client_urls: match name {
            "" => vec![],
            _ => vec![format!("http://client-{id}")],
        },
    };
    let expected = snap::Membership {
        members: vec![
            member(1, "a", false),
            member(3, "c", true),
            member(4, "", true),
        ],
        removed: vec![2, 0xabc],
        version: Some("3.5.0".into()),
        has_v2_keys: false,
    };
    assert_eq!(document, expected);
}
