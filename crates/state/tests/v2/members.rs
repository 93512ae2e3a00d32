//! What the cluster writes about itself is, byte for byte, what etcd writes.

use retcd_state::v2::{Store, Timestamp};
use retcd_storage::snap::{Member, Membership};

use super::{NOW, apply};

#[test]
fn a_membership_is_written_as_in_etcd() {
    let urls = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    let member = |id, name: &str, is_learner| Member {
        id,
        peer_urls: urls(1000 + id as u16),
        is_learner,
        name: name.into(),
        client_urls: if name.is_empty() {
            vec![]
        } else {
            urls(id as u16)
        },
    };
    let membership = Membership {
        members: vec![member(0x1a, "m<1>", false), member(0x2b, "", true)],
        removed: vec![0x3c],
        version: Some("3.5.0".into()),
        has_v2_keys: false,
    };
    let mut store = Store::new();
    for member in &membership.members {
        let added = store.add_member(member.id, &member.peer_urls, member.is_learner);
        added.expect("a new one");
        if !member.name.is_empty() {
            let set = store.set_attributes(member.id, &member.name, &member.client_urls);
            set.expect("a member's");
        }
    }
    apply(&mut store, "PUT /0/removed_members/3c exist=false");
    store.set_cluster_version("3.5.0").expect("a version");
    store.publish(0);
    let read = store.reader().get("/none", false, Timestamp(NOW));
    read.expect_err("as etcd 3.7 counts a read of its own");
    let (written, expected) = (store.to_document(), membership.to_document());
    assert_eq!(String::from_utf8(written), String::from_utf8(expected));
}

#[test]
fn members_come_change_and_go() {
    let mut store = Store::new();
    let read = |store: &mut Store| {
        store.publish(0);
        Membership::from_document(&store.to_document()).expect("a membership")
    };
    let urls = ["http://a".to_owned(), "http://b".to_owned()];
    store.add_member(1, &urls[..1], false).expect("a new one");
    store.add_member(2, &urls[..1], true).expect("a new one");
    store.add_member(2, &urls, true).expect_err("it is there");
    store.update_member(2, &urls, false).expect("it is there");
    store.update_member(3, &urls, false).expect_err("it is not");
    store.set_attributes(2, "two", &urls).expect("it is there");
    store
        .set_attributes(3, "three", &urls)
        .expect("no error, but no effect");
    assert_eq!(store.index(), 4);
    let expected = Member {
        id: 2,
        peer_urls: urls.to_vec(),
        is_learner: false,
        name: "two".into(),
        client_urls: urls.to_vec(),
    };
    assert_eq!(read(&mut store).members[1], expected);
    store.remove_member(2).expect("it is there");
    assert_eq!(store.index(), 6, "two changes");
    store.remove_member(2).expect_err("it is gone");
    let membership = read(&mut store);
    assert_eq!((membership.members.len(), membership.removed), (1, vec![2]));
}
