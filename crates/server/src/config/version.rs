//! What `--version` prints. Scripts look for the labels, Go's among them.

/// The commit that the build was told, if any.
pub(crate) const GIT_SHA: &str = match option_env!("RETCD_GIT_SHA") {
    Some(sha) => sha,
    None => "Not provided",
};

/// Stands where etcd names its version of Go.
pub(crate) const GO_VERSION: &str = "none (Rust)";

/// The operating system, by Go's name.
pub(crate) const GO_OS: &str = std::env::consts::OS;

/// The architecture, by Go's name.
pub(crate) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The four lines.
pub(crate) fn text() -> String {
    format!(
        "etcd Version: {}\nGit SHA: {GIT_SHA}\nGo Version: {GO_VERSION}\nGo OS/Arch: {GO_OS}/{}\n",
        crate::VERSION,
        go_arch()
    )
}
