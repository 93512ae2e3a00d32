//! Global flags.

use retcd_log::GoDuration;

use crate::cli::Flag;

/// The global flags. Each can be set by an environment variable, see [`super::environment`].
pub(crate) fn flags() -> Vec<Flag> {
    let seconds = GoDuration::from_secs;
    vec![
        Flag::list(
            "endpoints",
            &["127.0.0.1:2379"],
            "client URLs of the members",
        ),
        Flag::switch("debug", "show the effective flags on stderr"),
        Flag::text(
            "write-out",
            "simple",
            "output format: fields, json, protobuf, simple or table",
        )
        .short('w'),
        Flag::switch("hex", "show keys, values and ids in hexadecimal"),
        Flag::duration(
            "dial-timeout",
            seconds(2),
            "timeout for establishing a connection",
        ),
        Flag::duration("command-timeout", seconds(5), "timeout for short commands"),
        Flag::duration(
            "keepalive-time",
            seconds(2),
            "idle time after which a connection is probed",
        ),
        Flag::duration(
            "keepalive-timeout",
            seconds(6),
            "time after which an unanswered probe closes the connection",
        ),
        Flag::int(
            "max-request-bytes",
            0,
            "maximum size of a request in bytes (0 means 2 MiB)",
        ),
        Flag::int(
            "max-recv-bytes",
            0,
            "maximum size of a response in bytes (0 means 2 GiB - 1)",
        ),
        Flag::boolean("insecure-transport", true, "connect without TLS"),
        Flag::boolean(
            "insecure-discovery",
            true,
            "accept endpoints without TLS from DNS discovery",
        ),
        Flag::switch(
            "insecure-skip-tls-verify",
            "do not verify server certificates (for tests only)",
        ),
        Flag::text("cert", "", "file with the client's TLS certificate"),
        Flag::text("key", "", "file with the client's TLS key"),
        Flag::text("cacert", "", "file with the trusted CA certificates"),
        Flag::text(
            "auth-jwt-token",
            "",
            "token to authenticate with, instead of a user and a password",
        ),
        Flag::text(
            "user",
            "",
            "name[:password] to authenticate with (prompts for a missing password)",
        ),
        Flag::text(
            "password",
            "",
            "password to authenticate with; --user is then only the name",
        ),
        Flag::text(
            "discovery-srv",
            "",
            "domain whose SRV records list the endpoints",
        )
        .short('d'),
        Flag::text(
            "discovery-srv-name",
            "",
            "suffix of the service in the SRV records",
        ),
    ]
}
