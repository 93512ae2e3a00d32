//! Parsed certificates and host name verification.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// A parsed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    common_name: String,
    dns_names: Vec<String>,
    ip_addresses: Vec<IpAddr>,
    has_alternative_names: bool,
    /// Big-endian, without leading zeros.
    serial: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) public_key_info: Vec<u8>,
    /// The signed bytes, the content of the DER sequence that names the algorithm, and the
    /// signature.
    pub(crate) signed: Vec<u8>,
    pub(crate) signature_algorithm: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// Unix seconds, both inclusive.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// 1 to 3.
    pub(crate) version: u32,
    pub(crate) basic_constraints: Option<BasicConstraints>,
    /// Whether the key may sign certificates; `None` without a key usage extension.
    pub(crate) may_sign: Option<bool>,
    pub(crate) usages: Option<Usages>,
    pub(crate) has_name_constraints: bool,
    pub(crate) has_unknown_critical_extension: bool,
}

/// The basic constraints extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BasicConstraints {
    pub authority: bool,
    /// How many intermediates may follow this one in a chain.
    pub path_length: Option<u32>,
}

/// The extended key usages that matter to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usages {
    pub any: bool,
    pub server: bool,
    pub client: bool,
}

/// Why bytes are not a valid certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("x509: malformed {0}")]
pub struct CertificateError(String);

impl CertificateError {
    /// The error for a DER structure that is not a certificate, e.g. a key.
    pub(crate) fn not_a_certificate() -> CertificateError {
        CertificateError("tbs certificate".to_owned())
    }

    fn new(what: &str) -> CertificateError {
        CertificateError(format!("certificate: {what}"))
    }
}

/// Why a certificate is not valid for a host. Displays Go's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNameError(String);

impl fmt::Display for HostNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HostNameError {}

/// An error lists at most this many names, as in Go.
const LISTED_NAMES_MAX: usize = 100;

/// Extensions that Go handles (by the last arc of 2.5.29.x), and that may therefore be critical.
const KNOWN_EXTENSIONS: &[&str] = &[
    "2.5.29.14",
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.32",
    "2.5.29.33",
    "2.5.29.35",
    "2.5.29.36",
    "2.5.29.37",
    "2.5.29.54",
];

impl Certificate {
    /// Parses a certificate.
    ///
    /// # Errors
    /// The bytes are not a certificate, or bytes follow it.
    pub fn parse(der: CertificateDer<'_>) -> Result<Certificate, CertificateError> {
        let malformed = CertificateError::new;
        let (rest, parsed) = X509Certificate::from_der(&der).map_err(|error| match error {
            x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => {
                malformed(&error.to_string())
            }
            x509_parser::nom::Err::Incomplete(_) => malformed("too short"),
        })?;
        if !rest.is_empty() {
            return Err(malformed("trailing data"));
        }
        // If an extension appears twice, two implementations may each read a different one.
        parsed
            .extensions_map()
            .map_err(|_| malformed("an extension is there twice"))?;
        let signed = parsed.tbs_certificate.as_ref().to_vec();
        let signature_algorithm = signature_algorithm(&der, &parsed)
            .ok_or_else(|| malformed("no signature algorithm"))?
            .to_vec();
        let mut certificate = Certificate {
            common_name: common_name(parsed.subject()),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            has_alternative_names: false,
            serial: without_leading_zeros(parsed.raw_serial()).to_vec(),
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            public_key_info: parsed.public_key().raw.to_vec(),
            signed,
            signature_algorithm,
            signature: parsed.signature_value.data.to_vec(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            version: parsed.version().0 + 1,
            basic_constraints: None,
            may_sign: None,
            usages: None,
            has_name_constraints: false,
            has_unknown_critical_extension: false,
            der: CertificateDer::from(der.to_vec()),
        };
        for extension in parsed.extensions() {
            certificate.take_extension(
                extension.parsed_extension(),
                extension.critical,
                &extension.oid.to_id_string(),
            )?;
        }
        Ok(certificate)
    }

    fn take_extension(
        &mut self,
        extension: &ParsedExtension<'_>,
        critical: bool,
        id: &str,
    ) -> Result<(), CertificateError> {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                self.has_alternative_names = true;
                for name in &names.general_names {
                    self.take_name(name)?;
                }
                // An extension counts as handled only if at least one of its names is of a known
                // type.
                let understood = names.general_names.iter().any(|name| {
                    matches!(
                        name,
                        GeneralName::DNSName(_)
                            | GeneralName::IPAddress(_)
                            | GeneralName::RFC822Name(_)
                            | GeneralName::URI(_)
                    )
                });
                self.has_unknown_critical_extension |= critical && !understood;
            }
            ParsedExtension::BasicConstraints(constraints) => {
                self.basic_constraints = Some(BasicConstraints {
                    authority: constraints.ca,
                    path_length: constraints.path_len_constraint,
                });
            }
            ParsedExtension::KeyUsage(usage) => self.may_sign = Some(usage.key_cert_sign()),
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.usages = Some(Usages {
                    any: usage.any,
                    server: usage.server_auth,
                    client: usage.client_auth,
                });
            }
            ParsedExtension::NameConstraints(_) => self.has_name_constraints = true,
            ParsedExtension::ParseError { .. } => {
                return Err(CertificateError::new(&format!("invalid extension {id}")));
            }
            _ => self.has_unknown_critical_extension |= critical && !KNOWN_EXTENSIONS.contains(&id),
        }
        Ok(())
    }

    fn take_name(&mut self, name: &GeneralName<'_>) -> Result<(), CertificateError> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                self.ip_addresses.push(address.map_err(|_| {
                    CertificateError::new(&format!("IP address of length {}", bytes.len()))
                })?);
            }
            GeneralName::Invalid(..) => {
                return Err(CertificateError::new("invalid alternative name"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The subject's common name, the last one if there are several; empty if there is none.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// The DNS names it is valid for.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The IP addresses it is valid for.
    pub fn ip_addresses(&self) -> &[IpAddr] {
        &self.ip_addresses
    }

    /// The serial number, big-endian, without leading zeros.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// End of validity, inclusive, in Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Verifies that it is valid for `host`, a DNS name or an IP address (which may be in
    /// brackets). The common name is ignored.
    ///
    /// # Errors
    /// It is not valid for `host`.
    pub fn verify_host_name(&self, host: &str) -> Result<(), HostNameError> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            let address = address.to_canonical();
            let valid = self
                .ip_addresses
                .iter()
                .any(|own| own.to_canonical() == address);
            return if valid {
                Ok(())
            } else {
                Err(self.not_valid_for_address(bare.unwrap_or(host)))
            };
        }
        let is_name = is_host_name(host, false);
        let valid = self.dns_names.iter().any(|pattern| {
            if is_name && is_host_name(pattern, true) {
                matches_name(pattern, host)
            } else {
                !host.is_empty() && host != "." && pattern.eq_ignore_ascii_case(host)
            }
        });
        if valid {
            Ok(())
        } else {
            Err(self.not_valid_for_name(host))
        }
    }

    fn not_valid_for_address(&self, address: &str) -> HostNameError {
        let own = &self.ip_addresses;
        HostNameError(match own.len() {
            _ if self.relies_on_common_name(address) => LEGACY_NAME.to_owned(),
            0 => format!(
                "x509: cannot validate certificate for {address} because it doesn't contain any IP SANs"
            ),
            LISTED_NAMES_MAX.. => format!(
                "x509: certificate is valid for {} IP SANs, but none matched {address}",
                own.len()
            ),
            _ => not_valid(
                own.iter().map(ToString::to_string).collect::<Vec<_>>(),
                address,
            ),
        })
    }

    fn not_valid_for_name(&self, name: &str) -> HostNameError {
        let own = &self.dns_names;
        HostNameError(match own.len() {
            _ if self.relies_on_common_name(name) => LEGACY_NAME.to_owned(),
            LISTED_NAMES_MAX.. => format!(
                "x509: certificate is valid for {} names, but none matched {name}",
                own.len()
            ),
            _ => not_valid(own.clone(), name),
        })
    }

    fn relies_on_common_name(&self, host: &str) -> bool {
        !self.has_alternative_names && matches_name(&self.common_name, host)
    }
}

const LEGACY_NAME: &str = "x509: certificate relies on legacy Common Name field, use SANs instead";

fn not_valid(own: Vec<String>, host: &str) -> String {
    if own.is_empty() {
        format!("x509: certificate is not valid for any names, but wanted to match {host}")
    } else {
        format!(
            "x509: certificate is valid for {}, not {host}",
            own.join(", ")
        )
    }
}

/// Whether all labels are equal; a pattern may start with the label `*`, which matches any.
fn matches_name(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    let (mut pattern, mut host) = (pattern.split('.').enumerate(), host.split('.'));
    loop {
        match (pattern.next(), host.next()) {
            (None, None) => return true,
            (Some((0, "*")), Some(_)) => {}
            (Some((_, own)), Some(label)) if own.eq_ignore_ascii_case(label) => {}
            _ => return false,
        }
    }
}

/// Go's definition of a host name, which allows underscores; a pattern may start with the label
/// `*`.
fn is_host_name(name: &str, pattern: bool) -> bool {
    let name = if pattern {
        name
    } else {
        name.strip_suffix('.').unwrap_or(name)
    };
    let is_label = |(at, label): (usize, &str)| {
        let is_letter =
            |(at, c): (usize, char)| c.is_ascii_alphanumeric() || c == '_' || (c == '-' && at > 0);
        (pattern && at == 0 && label == "*")
            || (!label.is_empty() && label.chars().enumerate().all(is_letter))
    };
    name != "*" && name.split('.').enumerate().all(is_label)
}

fn common_name(subject: &X509Name<'_>) -> String {
    subject
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .last()
        .unwrap_or_default()
        .to_owned()
}

pub(crate) fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// The content of the sequence that follows the signed part: the signature algorithm.
fn signature_algorithm<'a>(der: &'a [u8], parsed: &X509Certificate<'_>) -> Option<&'a [u8]> {
    let (_, content) = sequence(der)?;
    let rest = content.get(parsed.tbs_certificate.as_ref().len()..)?;
    sequence(rest).map(|(_, algorithm)| algorithm)
}

/// The length, with header, and the content of the sequence at the start of `der`.
fn sequence(der: &[u8]) -> Option<(usize, &[u8])> {
    let (&0x30, rest) = der.split_first()? else {
        return None;
    };
    let (&first, rest) = rest.split_first()?;
    let (length, header) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let digits = usize::from(first & 0x7f);
        let bytes = rest.get(..digits).filter(|_| digits <= 4)?;
        let length = bytes
            .iter()
            .fold(0usize, |length, byte| length << 8 | usize::from(*byte));
        (length, 2 + digits)
    };
    let end = header.checked_add(length)?;
    Some((end, der.get(header..end)?))
}
