//! Texts of handshake errors as Go reports them, which operators and tools search for.

use std::io;

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use crate::chain::Refusal;

/// The text of a handshake error as Go's `crypto/tls` reports it. `refusal` is set if this side
/// rejected the peer's certificate.
pub fn handshake(error: &io::Error, refusal: Option<&Refusal>) -> String {
    if let Some(refusal) = refusal {
        return refused(refusal);
    }
    match rustls_error(error) {
        Some(error) => tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => retcd_log::go_io_error(error),
    }
}

/// Whether the client supports nothing newer than TLS 1.1. rustls reports a missing extension
/// before it looks at the version.
pub fn is_too_old(error: &Error) -> bool {
    let reason = PeerIncompatible::SignatureAlgorithmsExtensionRequired;
    *error == Error::PeerIncompatible(reason)
}

/// Whether the peer closed the connection.
pub fn is_eof(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof && rustls_error(error).is_none()
}

/// The text of a TLS error within an established connection; `None` if it is no TLS error.
pub fn connection(error: &io::Error) -> Option<String> {
    rustls_error(error).map(tls)
}

fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn refused(refusal: &Refusal) -> String {
    match refusal {
        // etcd's own reasons carry no prefix, unlike those of Go's verification.
        Refusal::Revoked(_) | Refusal::NotAllowed => refusal.to_string(),
        Refusal::Malformed(_) => format!("tls: failed to parse certificate: {refusal}"),
        _ => format!("tls: failed to verify certificate: {refusal}"),
    }
}

fn tls(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::AlertReceived(alert) => format!("remote error: tls: {}", self::alert(*alert)),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => NOT_TLS.to_owned(),
        Error::NoApplicationProtocol => {
            "tls: client requested unsupported application protocols".to_owned()
        }
        Error::PeerIncompatible(reason) => incompatible(reason),
        other => format!("tls: {other}"),
    }
}

/// Go's text for a client that does not speak TLS.
pub const NOT_TLS: &str = "tls: first record does not look like a TLS handshake";

fn incompatible(reason: &PeerIncompatible) -> String {
    use PeerIncompatible as P;
    match reason {
        P::NoCipherSuitesInCommon => "tls: no cipher suite supported by both client and server",
        P::NoKxGroupsInCommon | P::NoEcPointFormatsInCommon => {
            "tls: no key exchanges supported by both client and server"
        }
        P::NoSignatureSchemesInCommon | P::NoCertificateRequestSignatureSchemesInCommon => {
            "tls: peer doesn't support any of the certificate's signature algorithms"
        }
        P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled
        | P::Tls13RequiredForQuic
        | P::SupportedVersionsExtensionRequired
        | P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        // Clients send this extension from TLS 1.2 on.
        | P::SignatureAlgorithmsExtensionRequired => {
            "tls: client offered only unsupported versions"
        }
        other => return format!("tls: {other:?}"),
    }
    .to_owned()
}

fn alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CloseNotify => "close notify",
        A::UnexpectedMessage => "unexpected message",
        A::BadRecordMac => "bad record MAC",
        A::DecryptionFailed => "decryption failed",
        A::RecordOverflow => "record overflow",
        A::HandshakeFailure => "handshake failure",
        A::BadCertificate => "bad certificate",
        A::UnsupportedCertificate => "unsupported certificate",
        A::CertificateRevoked => "revoked certificate",
        A::CertificateExpired => "expired certificate",
        A::CertificateUnknown => "unknown certificate",
        A::IllegalParameter => "illegal parameter",
        A::UnknownCA => "unknown certificate authority",
        A::AccessDenied => "access denied",
        A::DecodeError => "error decoding message",
        A::DecryptError => "error decrypting message",
        A::ProtocolVersion => "protocol version not supported",
        A::InsufficientSecurity => "insufficient security level",
        A::InternalError => "internal error",
        A::InappropriateFallback => "inappropriate fallback",
        A::UserCanceled => "user canceled",
        A::NoRenegotiation => "no renegotiation",
        A::MissingExtension => "missing extension",
        A::UnsupportedExtension => "unsupported extension",
        A::UnrecognisedName => "unrecognized name",
        A::CertificateRequired => "certificate required",
        A::NoApplicationProtocol => "no application protocol",
        other => return format!("alert({})", u8::from(other)),
    }
    .to_owned()
}
