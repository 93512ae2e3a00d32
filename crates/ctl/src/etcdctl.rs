//! The `etcdctl` binary.

fn main() -> std::process::ExitCode {
    retcd_ctl::etcdctl()
}
