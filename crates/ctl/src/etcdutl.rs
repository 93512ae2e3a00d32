//! `etcdutl`: see [`retcd_ctl::offline`].

fn main() -> std::process::ExitCode {
    retcd_ctl::offline::program().run()
}
