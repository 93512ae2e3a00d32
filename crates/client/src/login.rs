//! Authentication by user name and password, or by a token from elsewhere.

use retcd_proto::etcdserverpb::AuthenticateRequest;
use retcd_proto::etcdserverpb::auth_client::AuthClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};

use crate::error::{Error, INVALID_TOKEN};
use crate::transport::Transport;

/// How to authenticate.
#[derive(Clone)]
pub enum Credentials {
    /// Exchanged for a token before the first request, and again when the token is rejected.
    Password {
        /// The user name.
        name: String,
        /// The password.
        password: String,
    },
    /// Sent as it is.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets must not appear in logs.
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    pub(crate) async fn log_in(&self, transport: Transport) -> Result<Login, Error> {
        let token = match self {
            Credentials::Token(token) => token.clone(),
            Credentials::Password { name, password } => {
                let request = AuthenticateRequest {
                    name: name.clone(),
                    password: password.clone(),
                };
                match AuthClient::new(transport).authenticate(request).await {
                    Ok(response) => response.into_inner().token,
                    // Credentials are ignored while authentication is disabled.
                    Err(status)
                        if status.message() == "etcdserver: authentication is not enabled" =>
                    {
                        return Ok(Login::default());
                    }
                    Err(status) => return Err(status.into()),
                }
            }
        };
        Login::with_token(&token)
    }
}

/// A gRPC interceptor that adds the token to every request.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Login {
    token: Option<MetadataValue<Ascii>>,
}

impl Login {
    pub(crate) fn with_token(token: &str) -> Result<Login, Error> {
        let token = token.parse().map_err(|_| Error::Refused {
            code: Code::Unauthenticated,
            message: INVALID_TOKEN.to_owned(),
        })?;
        Ok(Login { token: Some(token) })
    }
}

impl Interceptor for Login {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}
