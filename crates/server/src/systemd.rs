//! sd_notify(3): reports to the service manager that the member is ready.
//!
//! As in etcd, no other state is reported.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;

/// Sends `READY=1` to the socket of `$NOTIFY_SOCKET`: a path, or `@` and a name in the abstract
/// namespace.
fn send_ready(socket: &OsStr) -> io::Result<()> {
    let message = b"READY=1";
    let sender = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::unix::ffi::OsStrExt::as_bytes(socket).strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return sender.send_to_addr(message, &address).map(drop);
    }
    sender.send_to(message, socket).map(drop)
}

/// Reports that this process is ready, if it was started by a service manager that wants to know.
/// The log lines are etcd's.
pub(crate) fn notify_ready() {
    crate::log::info!("notifying init daemon");
    match std::env::var_os("NOTIFY_SOCKET")
        .filter(|socket| !socket.is_empty())
        .map_or(Ok(()), |socket| send_ready(&socket))
    {
        Ok(()) => crate::log::info!("successfully notified init daemon"),
        Err(error) => {
            crate::log::error!("failed to notify systemd for readiness"; "error" => crate::log::Text(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_ready() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("binds");
        send_ready(path.as_os_str()).expect("sends");
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).expect("receives");
        assert_eq!(&heard[..length], b"READY=1");
        assert!(send_ready(OsStr::new("/nonexist/notify")).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_socket_may_be_abstract() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("retcd-notify-{}", std::process::id());
        let address =
            std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a valid name");
        let manager = UnixDatagram::bind_addr(&address).expect("binds");
        send_ready(OsStr::new(&format!("@{name}"))).expect("sends");
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).expect("receives");
        assert_eq!(&heard[..length], b"READY=1");
    }
}
