//! A CA that issues certificates for tests.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SanType, SerialNumber, SigningKey, date_time_ymd,
};

/// A certificate and its key.
pub struct Pair {
    pub der: Vec<u8>,
    pub pem: String,
    pub key: KeyPair,
}

impl Pair {
    /// Writes `NAME.crt` and `NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.crt")), &self.pem).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), self.key.serialize_pem()).unwrap();
    }
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    if !name.is_empty() {
        parameters.distinguished_name.push(DnType::CommonName, name);
    }
    parameters
}

fn ca_parameters(name: &str) -> CertificateParams {
    let mut parameters = parameters(name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        Authority::with(name, |_| {})
    }

    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut parameters = ca_parameters(name);
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(parameters, key).unwrap())
    }

    /// Issues an intermediate CA certificate.
    pub fn authority(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut parameters = ca_parameters(name);
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::signed_by(parameters, key, &self.0).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn key(&self) -> &KeyPair {
        self.0.key()
    }

    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    pub fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(name), self.pem()).unwrap();
    }

    /// Issues a certificate with this common name; `change` may modify the parameters.
    pub fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.issue_for(KeyPair::generate().unwrap(), name, change)
    }

    pub fn issue_for(
        &self,
        key: KeyPair,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut parameters = parameters(name);
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        Pair {
            der: certificate.der().to_vec(),
            pem: certificate.pem(),
            key,
        }
    }

    /// Issues a version 1 certificate, which has no extensions, as `openssl x509 -req` does.
    pub fn issue_version_1(&self, name: &str) -> Pair {
        let pair = self.issue(name, |_| {});
        let (_, certificate) = element(&pair.der);
        let (_, to_be_signed) = element(certificate);
        let mut fields = Vec::new();
        let mut rest = to_be_signed;
        while let (Some(tag), (length, _)) = (rest.first(), element_or_end(rest)) {
            // Neither the version nor the extensions.
            if !matches!(tag, 0xa0 | 0xa3) {
                fields.extend_from_slice(&rest[..length]);
            }
            rest = &rest[length..];
        }
        let to_be_signed = sequence(&fields);
        let (length, _) = element(certificate);
        let (algorithm_length, _) = element(&certificate[length..]);
        let algorithm = &certificate[length..length + algorithm_length];
        let signature = self.0.key().sign(&to_be_signed).unwrap();
        let bits = [&[0][..], &signature].concat();
        let bits = [&[0x03][..], &length_of(&bits), &bits].concat();
        let der = sequence(&[&to_be_signed, algorithm, &bits].concat());
        Pair {
            pem: pem("CERTIFICATE", &der),
            der,
            key: pair.key,
        }
    }

    /// A list that revokes these serial numbers, as DER and as PEM.
    pub fn revoke(&self, serials: &[u64]) -> (Vec<u8>, String) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2096, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.0).unwrap();
        (list.der().to_vec(), list.pem().unwrap())
    }
}

/// A self-signed certificate.
pub fn self_signed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let mut parameters = parameters(name);
    change(&mut parameters);
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    Pair {
        der: certificate.der().to_vec(),
        pem: certificate.pem(),
        key,
    }
}

/// Makes it valid for these host names and IP addresses.
pub fn hosts(parameters: &mut CertificateParams, hosts: &[&str]) {
    let name = |host: &&str| match host.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName((*host).try_into().unwrap()),
    };
    parameters.subject_alt_names = hosts.iter().map(name).collect();
}

/// Sets the extended key usages.
pub fn usages(parameters: &mut CertificateParams, server: bool, client: bool) {
    let usages = &mut parameters.extended_key_usages;
    if server {
        usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if client {
        usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
}

/// Makes it an expired one.
pub fn expired(parameters: &mut CertificateParams) {
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2021, 1, 1);
}

/// The key in the format used before PKCS#8: PKCS#1 for RSA, SEC1 for elliptic curves.
pub fn traditional(key: &KeyPair) -> String {
    let der = key.serialize_der();
    let (_, info) = element(&der);
    let (version, _) = element(info);
    let (algorithm, _) = element(&info[version..]);
    let (_, inner) = element(&info[version + algorithm..]);
    let label = if key.der_bytes().len() > 200 {
        "RSA"
    } else {
        "EC"
    };
    pem(&format!("{label} PRIVATE KEY"), inner)
}

/// Encodes a PEM block.
pub fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > chunk.len() {
                '='
            } else {
                char::from(DIGITS[value as usize])
            });
        }
    }
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// The length, with header, and the content of the first DER element.
fn element(der: &[u8]) -> (usize, &[u8]) {
    let (length, header) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let digits = usize::from(long & 0x7f);
            let value = der[2..2 + digits]
                .iter()
                .fold(0, |value, byte| value << 8 | usize::from(*byte));
            (value, 2 + digits)
        }
    };
    (header + length, &der[header..header + length])
}

fn element_or_end(der: &[u8]) -> (usize, &[u8]) {
    if der.is_empty() {
        (0, der)
    } else {
        element(der)
    }
}

fn sequence(content: &[u8]) -> Vec<u8> {
    [&[0x30][..], &length_of(content), content].concat()
}

fn length_of(content: &[u8]) -> Vec<u8> {
    let length = content.len();
    match length {
        0..0x80 => vec![length as u8],
        0x80..0x100 => vec![0x81, length as u8],
        _ => vec![0x82, (length >> 8) as u8, length as u8],
    }
}
