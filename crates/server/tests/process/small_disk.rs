//! A small disk for one program: a shell in name spaces of its own, where mounting needs no
//! privileges, mounts it and runs the program there.

use std::process::Command;

/// What runs a shell script in such name spaces; the shell takes all its processes along when it
/// ends.
pub const SHELL: [&str; 9] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "sh",
    "-c",
];

/// Whether this machine lets everybody have name spaces.
pub fn may_mount() -> bool {
    let mut mount = Command::new(SHELL[0]);
    mount.args(&SHELL[1..]).arg("mount -t tmpfs tmpfs /mnt");
    mount.output().is_ok_and(|output| output.status.success())
}
