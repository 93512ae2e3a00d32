//! The ids of members and clusters.
//!
//! They follow from what a cluster is founded with, so that its members compute the same ones
//! without having met, and are fixed in the data from then on.
//!
//! ```text
//! member id  = first 8 bytes, big endian, of SHA-1(peer URLs, sorted and joined ++ token)
//! cluster id = first 8 bytes, big endian, of SHA-1(member ids, sorted, 8 bytes big endian each)
//! ```

use sha1::{Digest, Sha1};

/// The id of a member. `peer_urls` in any order; `token` is the cluster's token for founding
/// members, and the decimal Unix time in seconds for those that are added later.
pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    first_eight(Sha1::new().chain_update(urls.concat()).chain_update(token))
}

/// The id of a cluster that is founded by these members; ids in any order.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    first_eight(
        ids.iter()
            .fold(Sha1::new(), |hash, id| hash.chain_update(id.to_be_bytes())),
    )
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("SHA-1 has 20 bytes"))
}
