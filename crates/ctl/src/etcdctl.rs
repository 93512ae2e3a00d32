//! `etcdctl`: see [`retcd_ctl::command`].

fn main() -> std::process::ExitCode {
    retcd_ctl::command::program().run()
}
