//! `defrag`: defragments the databases of members.

use std::time::Instant;

use retcd_log::GoDuration;
use retcd_proto::etcdserverpb::DefragmentRequest;

use super::context::{self, Context, log_last_attempt};
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::print::print_line;
use crate::stderr;

/// The `defrag` command.
pub(crate) fn command() -> Command {
    Command::new("defrag", "", "Defragment the databases of members", run).flags([Flag::switch(
        "cluster",
        "defragment all members in the member list",
    )])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let of_cluster = invocation.flags.bool("cluster");
    let context = Context::new(invocation, false)?;
    context::run(async {
        let mut failed = false;
        for endpoint in context.each_endpoint(of_cluster).await? {
            let client = context.client_of(&endpoint).await?;
            let start = Instant::now();
            let limited = client.with_timeout(context.command_timeout);
            let result = limited.defragment(DefragmentRequest {}).await;
            let took = GoDuration::from(start.elapsed());
            match result {
                Ok(_) => print_line(&format!(
                    "Finished defragmenting etcd member[{endpoint}]. took {took}"
                ))?,
                Err(error) => {
                    log_last_attempt(&error);
                    stderr::write_line(format_args!(
                        "Failed to defragment etcd member[{endpoint}]. took {took}. ({error})"
                    ));
                    failed = true;
                }
            }
        }
        if failed { Err(Exit::silent(1)) } else { Ok(()) }
    })
}
