//! What somebody at a terminal can do about a connection that fails, by the text of the failure: the
//! errors themselves are etcd's, and say no more than that time is up.

/// A line for the text of a failure; `None` if there is nothing to say beyond it.
pub(super) fn after(failure: &str) -> Option<String> {
    if let Some(names) = between(failure, "certificate is valid for ", ", not ") {
        return Some(format!(
            "The server's certificate is for {names}: use one of these names in --endpoints."
        ));
    }
    let known = [
        (
            "certificate signed by unknown authority",
            "Nobody here trusts the authority of the server's certificate: name its certificate with --cacert.",
        ),
        (
            "doesn't contain any IP SANs",
            "The server's certificate is for names, not for addresses: use its name in --endpoints.",
        ),
        (
            "certificate has expired or is not yet valid",
            "Renew the server's certificate, or set the clock of this machine.",
        ),
        (
            "tls: certificate required",
            "The server asks for a certificate: use --cert and --key.",
        ),
        (
            "remote error: tls: ",
            "The server does not accept this certificate: --cert and --key have to name one of an authority \
             that it trusts.",
        ),
        (
            "first record does not look like a TLS handshake",
            "The server does not use TLS: use http:// in --endpoints, and neither --cacert nor --cert.",
        ),
        (
            "error reading server preface: EOF",
            "The server may ask for TLS: use https:// in --endpoints.",
        ),
        (
            "connection refused",
            "Nothing listens there: name an address of a member for clients with --endpoints.",
        ),
        (
            "no such host",
            "No such name is known: name an address of a member for clients with --endpoints.",
        ),
    ];
    let step = known.iter().find(|(part, _)| failure.contains(part));
    step.map(|(_, step)| (*step).to_owned())
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_a_next_step() {
        for (failure, step) in [
            (
                "x509: certificate is valid for a.example, localhost, not 127.0.0.1",
                "for a.example, localhost: use one",
            ),
            ("x509: certificate signed by unknown authority", "--cacert"),
            (
                "remote error: tls: certificate required",
                "--cert and --key",
            ),
            ("remote error: tls: bad certificate", "does not accept"),
            (
                "dial tcp 127.0.0.1:9: connect: connection refused",
                "--endpoints",
            ),
        ] {
            let told = after(failure);
            assert!(
                told.as_ref().is_some_and(|told| told.contains(step)),
                "{told:?}"
            );
        }
        assert_eq!(after("etcdserver: no leader"), None);
    }
}
