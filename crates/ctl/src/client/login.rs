//! Who asks: a name and a password, or a token made elsewhere.

use retcd_proto::etcdserverpb::AuthenticateRequest;
use retcd_proto::etcdserverpb::auth_client::AuthClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::ClientError;
use super::transport::Transport;

/// What a user gives to be recognised.
#[derive(Clone)]
pub enum Credentials {
    /// Exchanged for a token at the first connection.
    Password {
        /// The user's name.
        name: String,
        /// The user's password.
        password: String,
    },
    /// Sent as it is.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets have no place in messages.
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    pub(super) async fn log_in(&self, transport: Transport) -> Result<Login, ClientError> {
        let token = match self {
            Credentials::Token(token) => token.clone(),
            Credentials::Password { name, password } => {
                let request = AuthenticateRequest {
                    name: name.clone(),
                    password: password.clone(),
                };
                match AuthClient::new(transport).authenticate(request).await {
                    Ok(response) => response.into_inner().token,
                    // Credentials are harmless where nobody asks for them.
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

/// Adds the token to every request.
#[derive(Clone, Default)]
pub struct Login {
    token: Option<MetadataValue<Ascii>>,
}

impl Login {
    fn with_token(token: &str) -> Result<Login, ClientError> {
        let token = token
            .parse()
            .map_err(|_| Status::unauthenticated("etcdserver: invalid auth token"))?;
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
