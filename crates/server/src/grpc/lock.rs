//! Service `Lock`.

use std::rc::Rc;

use retcd_member::access::Credentials;
use retcd_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::encode::Plain;
use super::header::header;
use super::waiting::outliving;
use crate::server::ServerThread;
use crate::status::Status;

/// `Lock`.
pub(super) async fn lock(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: LockRequest,
) -> Result<Plain<LockResponse>, Status> {
    let member = Rc::clone(&thread.member);
    let locked = outliving(async move |abandoned| {
        let locks = &member.locks;
        locks.lock(&credentials, request, abandoned.wait()).await
    });
    let locked = locked.await?;
    Ok(Plain(LockResponse {
        header: Some(header(thread.server.member.origin(), locked.revision)),
        key: locked.key,
    }))
}

/// `Unlock`.
pub(super) async fn unlock(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: UnlockRequest,
) -> Result<Plain<UnlockResponse>, Status> {
    let unlocked = thread.member.locks.unlock(&credentials, request).await;
    let revision = unlocked.map_err(Status::of_step)?;
    Ok(Plain(UnlockResponse {
        header: Some(header(thread.server.member.origin(), revision)),
    }))
}
