//! The `etcd` program.

use std::process::ExitCode;

use retcd_server::{config, log, runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    log::abort_on_panic();
    match config::parse_process().into_config() {
        Ok(config) => runtime::run(*config),
        Err(exit_code) => exit_code,
    }
}
