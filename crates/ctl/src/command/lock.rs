//! `lock`: holds a lock until a signal arrives, or while a command runs.

use retcd_client::Client;
use retcd_client::concurrency::{DEFAULT_TTL_S, Mutex, MutexGuard, QueueError, Session};
use retcd_log as log;
use retcd_proto::etcdserverpb::RangeRequest;

use super::context::{self, Context, failed};
use super::exec;
use super::signal::{end_on_next_signal, stop_signal};
use crate::cli::{Arg, Command, Exit, Flag, Invocation};
use crate::print::Reply;

const LONG: &str = "\
Acquires the lock and prints its key. The lock is released on SIGINT or SIGTERM or, if a command is given, when
the command exits, with the exit code of the command. The command's environment contains the lock's key and the
revision at which it was acquired as ETCD_LOCK_KEY and ETCD_LOCK_REV:
  $ etcdctl lock deploy -- sh -c 'echo $ETCD_LOCK_KEY'

If the tool is killed, the lock is released after --ttl seconds.";

/// The `lock` command.
pub(crate) fn command() -> Command {
    Command::new(
        "lock",
        "<lockname> [exec-command arg1 arg2 ...]",
        "Hold a lock, or run a command that holds it",
        run,
    )
    .long(LONG)
    .flags([Flag::int(
        "ttl",
        10,
        "seconds until the lock is released if this tool is killed",
    )])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let usage = "lock takes a lock name argument and an optional command to execute";
    let [name, command @ ..] = invocation.args.as_slice() else {
        return Err(Exit::bad_args(usage));
    };
    let (name, command) = (name.clone(), command.to_vec());
    let ttl_s = ttl_s(invocation.flags.int("ttl"));
    let context = Context::new(invocation, false)?;
    context::run(async {
        let (lease, stop) = begin_session(&context.client().await?, ttl_s).await?;
        let held = hold(&context, &lease, &name, &command, stop).await;
        // Revoking the lease also releases the lock.
        let closed = lease.close().await.map_err(failed);
        held.and(closed)
    })
}

/// A session, and a signal that asks for its end; the next one ends the process, as does one that
/// comes before there is a session.
pub(super) async fn begin_session(
    client: &Client,
    ttl_s: i64,
) -> Result<(Session, impl Future<Output = ()> + use<>), Exit> {
    let mut stop = Box::pin(stop_signal()?);
    let session = tokio::select! {
        session = Session::new(client, ttl_s) => session.map_err(failed)?,
        stop = &mut stop => stop.end_process(),
    };
    let stop = async {
        stop.await;
        end_on_next_signal();
    };
    Ok((session, stop))
}

fn ttl_s(given: i64) -> i64 {
    if given > 0 {
        return given;
    }
    log::warn!(
        "WithTTL(): TTL should be > 0, preserving current TTL";
        "ttl" => given, "current-session-ttl" => DEFAULT_TTL_S
    );
    DEFAULT_TTL_S
}

async fn hold(
    context: &Context,
    lease: &Session,
    name: &[u8],
    command: &[Arg],
    stop: impl Future<Output = ()>,
) -> Result<(), Exit> {
    let mutex = Mutex::new(lease, name);
    let mut stop = std::pin::pin!(stop);
    let lock = tokio::select! {
        lock = mutex.lock() => lock.map_err(no_lock)?,
        () = &mut stop => return Err(Exit::error("context canceled")),
    };
    if !command.is_empty() {
        return run_locked(command, &lock).await;
    }
    let own = RangeRequest {
        key: lock.key().clone(),
        ..RangeRequest::default()
    };
    let response = lease.client().range(own).await.map_err(failed)?;
    if response.kvs.is_empty() {
        return Err(Exit::error("lock lost on init"));
    }
    context.print(&Reply::Get(&response))?;
    tokio::select! {
        () = stop => Ok(()),
        () = lease.ended() => Err(Exit::error("session expired")),
    }
}

async fn run_locked(command: &[Arg], lock: &MutexGuard) -> Result<(), Exit> {
    let variables = [
        ("ETCD_LOCK_KEY", lock.key().to_vec()),
        ("ETCD_LOCK_REV", lock.revision().to_string().into_bytes()),
    ];
    let result = exec::run_in_background(command, variables).await;
    result.map_err(|problem| Exit {
        code: problem.exit_code(),
        message: Some(problem.to_string()),
    })
}

/// The exit of a command that could not acquire its lock or leadership.
pub(crate) fn no_lock(error: QueueError) -> Exit {
    match error {
        QueueError::Request(error) => failed(error),
        error => Exit::error(error),
    }
}
