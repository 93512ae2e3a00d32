//! Service `Auth`, as far as it goes without users: authentication is off.
//!
//! A data directory in which it is on is refused at start, so that nothing is ever served without the
//! checks that its owner asked for.

use std::rc::Rc;

use retcd_proto::etcdserverpb::{AuthStatusRequest, AuthStatusResponse, AuthenticateRequest};

use super::Framed;
use super::status;
use super::wire::frame;
use crate::runtime::Local;

/// The auth store's revision before its first change.
const AUTH_REVISION: u64 = 1;

/// `AuthStatus`.
pub async fn auth_status(local: Rc<Local>, _request: AuthStatusRequest) -> Framed {
    let header = Some(local.member.header());
    Ok(frame(&AuthStatusResponse {
        header,
        enabled: false,
        auth_revision: AUTH_REVISION,
    }))
}

/// `Authenticate`.
pub async fn authenticate(_local: Rc<Local>, _request: AuthenticateRequest) -> Framed {
    Err(status::AUTH_NOT_ENABLED)
}
