//! Protocol versions and cipher suites by Go's names.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Parses the value of `--tls-min-version` and `--tls-max-version`.
    pub fn from_name(name: &str) -> Option<Version> {
        match name {
            "TLS1.2" => Some(Version::Tls12),
            "TLS1.3" => Some(Version::Tls13),
            _ => None,
        }
    }
}

/// The protocol versions and cipher suites that a handshake may negotiate.
#[derive(Clone, Debug)]
pub struct Settings {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    unavailable: Vec<String>,
}

/// Why settings are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Go has no cipher suite of this name.
    #[error("unexpected TLS cipher suite {0:?}")]
    UnknownSuite(String),
    /// None of the cipher suites is supported here, only by Go: they use CBC, RC4, 3DES or a key
    /// exchange without forward secrecy.
    #[error(
        "none of the TLS cipher suites {0:?} is available: only AES-GCM and ChaCha20 with ECDHE are"
    )]
    NoSuite(Vec<String>),
}

/// Cipher suites that Go supports and rustls does not.
const LEGACY_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// The cipher suites of TLS 1.3, which are always enabled, as in Go.
const TLS13_SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// The TLS 1.2 cipher suite that Go calls `name`.
fn suite(name: &str) -> Option<CipherSuite> {
    use CipherSuite as S;
    Some(match name {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"
        | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return None,
    })
}

/// Go's preference, which decides on servers and orders a client's offer: TLS 1.3 first, and
/// 128-bit keys before 256-bit keys, whose larger hash makes handshakes more expensive.
fn preference(suite: &SupportedCipherSuite) -> (bool, u8) {
    let older = matches!(suite, SupportedCipherSuite::Tls12(_));
    let name = suite.suite().as_str().unwrap_or_default();
    let cipher = match name {
        _ if name.contains("AES_128") => 0,
        _ if name.contains("AES_256") => 1,
        _ => 2,
    };
    (older, cipher)
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new(None, None, &[] as &[&str]).expect("no suite was named")
    }
}

impl Settings {
    /// Enables versions from `min` (default: 1.2) to `max` (default: the newest) and, for TLS 1.2,
    /// the named cipher suites (default: all). Named suites that rustls does not support are left
    /// out.
    ///
    /// # Errors
    /// A cipher suite is unknown to Go, or none of the named ones is supported.
    pub fn new(
        min: Option<Version>,
        max: Option<Version>,
        names: &[impl AsRef<str>],
    ) -> Result<Settings, SettingsError> {
        let mut provider = aws_lc_rs::default_provider();
        let (mut wanted, mut unavailable, mut tls13_named) = (Vec::new(), Vec::new(), false);
        for name in names.iter().map(AsRef::as_ref) {
            match suite(name) {
                Some(id) => wanted.push(id),
                None if TLS13_SUITES.contains(&name) => tls13_named = true,
                None if LEGACY_SUITES.contains(&name) => unavailable.push(name.to_owned()),
                None => return Err(SettingsError::UnknownSuite(name.to_owned())),
            }
        }
        if wanted.is_empty() && !tls13_named && !unavailable.is_empty() {
            return Err(SettingsError::NoSuite(unavailable));
        }
        if !names.is_empty() {
            provider.cipher_suites.retain(|suite| match suite {
                SupportedCipherSuite::Tls13(_) => true,
                suite => wanted.contains(&suite.suite()),
            });
        }
        provider.cipher_suites.sort_by_key(preference);
        let within =
            |version| min.is_none_or(|min| min <= version) && max.is_none_or(|max| version <= max);
        let mut versions = Vec::new();
        if within(Version::Tls12) {
            versions.push(&version::TLS12);
        }
        if within(Version::Tls13) {
            versions.push(&version::TLS13);
        }
        Ok(Settings {
            provider: Arc::new(provider),
            versions,
            unavailable,
        })
    }

    /// The requested cipher suites that rustls does not support.
    pub fn unavailable(&self) -> &[String] {
        &self.unavailable
    }

    /// The crypto provider, restricted to the enabled cipher suites.
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// The enabled protocol versions.
    pub fn versions(&self) -> &[&'static SupportedProtocolVersion] {
        &self.versions
    }

    /// The signature algorithms accepted in certificates.
    pub fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Result<Vec<CipherSuite>, SettingsError> {
        let settings = Settings::new(None, None, names)?;
        let suites = settings.provider.cipher_suites.iter();
        Ok(suites
            .filter(|suite| matches!(suite, SupportedCipherSuite::Tls12(_)))
            .map(|suite| suite.suite())
            .collect())
    }

    #[test]
    fn suites_are_selected_by_gos_names() {
        assert_eq!(ids(&[]).unwrap().len(), 6);
        let rsa = CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256;
        let old_and_new_name = [
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ];
        for name in old_and_new_name {
            assert_eq!(ids(&[name]).unwrap(), [rsa]);
        }
        assert_eq!(ids(&["TLS_AES_128_GCM_SHA256"]).unwrap(), []);
        assert_eq!(
            ids(&["TLS_RSA"]),
            Err(SettingsError::UnknownSuite("TLS_RSA".to_owned()))
        );
    }

    #[test]
    fn suites_are_preferred_in_gos_order() {
        let settings = Settings::default();
        let suites = settings.provider.cipher_suites.iter();
        let names: Vec<_> = suites.filter_map(|suite| suite.suite().as_str()).collect();
        assert_eq!(
            names,
            [
                "TLS13_AES_128_GCM_SHA256",
                "TLS13_AES_256_GCM_SHA384",
                "TLS13_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ]
        );
    }

    #[test]
    fn suites_unsupported_by_rustls_are_left_out_if_others_remain() {
        let legacy = "TLS_RSA_WITH_AES_128_CBC_SHA";
        let both = Settings::new(
            None,
            None,
            &[legacy, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
        );
        assert_eq!(both.unwrap().unavailable(), [legacy]);
        assert_eq!(
            ids(&[legacy]),
            Err(SettingsError::NoSuite(vec![legacy.to_owned()]))
        );
    }

    #[test]
    fn versions_lie_between_the_two_limits() {
        let count = |min, max| {
            Settings::new(min, max, &[] as &[&str])
                .unwrap()
                .versions
                .len()
        };
        assert_eq!(count(None, None), 2);
        assert_eq!(count(Some(Version::Tls13), None), 1);
        assert_eq!(count(None, Some(Version::Tls12)), 1);
    }
}
