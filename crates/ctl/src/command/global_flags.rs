//! Global flags.

use std::time::Duration;

use crate::cli::Flag;

/// The global flags. Each can be set by an environment variable, see [`super::environment`].
pub(crate) fn flags() -> Vec<Flag> {
    let seconds = Duration::from_secs;
    vec![
        Flag::list(
            "endpoints",
            &["127.0.0.1:2379"],
            "where the members listen for clients",
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
            "how long to wait for a connection",
        ),
        Flag::duration(
            "command-timeout",
            seconds(5),
            "how long to wait for the answer to a short command",
        ),
        Flag::duration(
            "keepalive-time",
            seconds(2),
            "probe a connection that is silent for so long",
        ),
        Flag::duration(
            "keepalive-timeout",
            seconds(6),
            "give up a connection whose probe is not answered for so long",
        ),
        Flag::int(
            "max-request-bytes",
            0,
            "largest request to send, in bytes (0 means 2 MiB)",
        ),
        Flag::int(
            "max-recv-bytes",
            0,
            "largest response to accept, in bytes (0 means 2 GiB - 1)",
        ),
        Flag::boolean("insecure-transport", true, "connect without TLS"),
        Flag::boolean(
            "insecure-discovery",
            true,
            "accept endpoints without TLS from DNS discovery",
        ),
        Flag::switch(
            "insecure-skip-tls-verify",
            "do not check the servers' certificates (for tests only)",
        ),
        Flag::text("cert", "", "file with the client's TLS certificate"),
        Flag::text("key", "", "file with the client's TLS key"),
        Flag::text(
            "cacert",
            "",
            "file with the certificates of trusted authorities",
        ),
        Flag::text(
            "auth-jwt-token",
            "",
            "token to identify with, instead of a user and a password",
        ),
        Flag::text(
            "user",
            "",
            "name[:password] to identify with (asks for a missing password)",
        ),
        Flag::text(
            "password",
            "",
            "password to identify with; --user is then the name alone",
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
