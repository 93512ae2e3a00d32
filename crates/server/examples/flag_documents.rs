//! Writes the two documents that derive from the table of flags: the sample configuration file and
//! the page of flags. Run it from the workspace's root after a change of the table: `cargo run -p
//! retcd-server --example flag_documents`.

use retcd_server::config::help;

fn main() -> std::io::Result<()> {
    std::fs::write("dist/etcd.conf.yml.sample", help::sample_file())?;
    std::fs::write("docs/flags.md", help::page())
}
