//! Why a member does not start.

use retcd_member::{InitialCheckError, Outdated};
use retcd_node::durable::StorageError;

use super::memory::LockMemoryError;
use crate::accept::{ListenError, TooFewDescriptors};
use crate::auth::TokenError;
use crate::bootstrap::BootstrapError;
use crate::config::ConfigError;
use crate::log::go_io_error;
use crate::tls;

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The configuration asks for what cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster cannot be founded or joined.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Tokens cannot be as `--auth-token` has them.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// What is stored cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// TLS cannot be had as it is configured.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Clients could not connect.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// Memory cannot be locked.
    #[error(transparent)]
    Memory(#[from] LockMemoryError),
    /// The data differs from the other members'.
    #[error(transparent)]
    Corrupt(#[from] InitialCheckError),
    /// The cluster is too new for this program.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// The operating system refused a thread or a signal handler.
    #[error("the operating system refused a thread or a signal handler: {}", go_io_error(.0))]
    System(#[from] std::io::Error),
}

impl StartError {
    /// How etcd begins its last line of the log then; nearly always with the same words, whatever
    /// the reason.
    pub(super) fn message(&self) -> &'static str {
        match self {
            StartError::Tls(error) => error.message(),
            StartError::System(_) => {
                "cannot make the threads of etcd process; please raise the limit"
            }
            StartError::Descriptors(_) => {
                "file descriptor limit of etcd process is too low; please set higher"
            }
            _ => "discovery failed",
        }
    }
}
