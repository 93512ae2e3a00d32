//! The `etcdutl` binary.

fn main() -> std::process::ExitCode {
    retcd_ctl::etcdutl()
}
