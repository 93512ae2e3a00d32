//! The version that the cluster runs, up and down.

use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::downgrade_request::DowngradeAction;
use tonic::Code;

use super::members::{Cluster, Member, until};

async fn downgrade(
    member: &Member,
    action: DowngradeAction,
    version: &str,
) -> Result<String, (Code, String)> {
    let request = pb::DowngradeRequest {
        action: action as i32,
        version: version.to_owned(),
    };
    let answer = member.maintenance().await.downgrade(request).await;
    let answer = answer.map_err(|status| (status.code(), status.message().to_owned()))?;
    Ok(answer.into_inner().version)
}

async fn storage_versions(cluster: &Cluster) -> Vec<String> {
    let mut versions = Vec::new();
    for member in &cluster.members {
        versions.push(member.status().await.unwrap().storage_version);
    }
    versions
}

#[tokio::test]
async fn a_cluster_goes_down_a_version_and_comes_back() {
    let cluster = Cluster::found(3, &[]);
    until("the first version", async || {
        storage_versions(&cluster)
            .await
            .iter()
            .all(|version| version == "3.7.0")
    })
    .await;
    let member = &cluster.members[cluster.follower().await];
    let refused = |code, text: &str| Err((code, format!("etcdserver: {text}")));
    assert_eq!(
        downgrade(member, DowngradeAction::Enable, "3.5").await,
        refused(Code::InvalidArgument, "invalid downgrade target version")
    );
    assert_eq!(
        downgrade(member, DowngradeAction::Validate, "3").await,
        refused(
            Code::InvalidArgument,
            "wrong downgrade target version format"
        )
    );
    assert_eq!(
        downgrade(member, DowngradeAction::Validate, "3.6").await,
        Ok("3.7".to_owned())
    );
    assert_eq!(
        downgrade(member, DowngradeAction::Enable, "3.6.0").await,
        Ok("3.7".to_owned())
    );
    assert_eq!(
        downgrade(member, DowngradeAction::Enable, "3.6.0").await,
        refused(
            Code::FailedPrecondition,
            "cluster has a downgrade job in progress"
        )
    );
    let status = member.status().await.unwrap();
    let info = status.downgrade_info.unwrap();
    assert_eq!(
        (info.enabled, info.target_version.as_str()),
        (true, "3.6.0")
    );
    until("the older version", async || {
        storage_versions(&cluster)
            .await
            .iter()
            .all(|version| version == "3.6.0")
    })
    .await;
    assert_eq!(
        downgrade(member, DowngradeAction::Cancel, "").await,
        Ok("3.6".to_owned())
    );
    until("the newer version", async || {
        storage_versions(&cluster)
            .await
            .iter()
            .all(|version| version == "3.7.0")
    })
    .await;
}
