//! The `etcd` program.

use std::process::ExitCode;

use retcd_server::{config, log, proxy, runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    log::abort_on_panic();
    if let Some(exit_code) = proxy::run_process() {
        return exit_code;
    }
    match config::parse_process().into_config() {
        Ok(config) => runtime::run(*config),
        Err(exit_code) => exit_code,
    }
}
