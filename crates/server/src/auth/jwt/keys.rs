//! Signing methods and their keys.
//!
//! A file holds one PEM block, of which the content counts and not the label: a private key as
//! PKCS#8, PKCS#1 (RSA) or SEC 1 (elliptic curves); a public key as SubjectPublicKeyInfo, PKCS#1
//! (RSA), or, but for EdDSA, in a certificate. The file of an HMAC is the secret as it is.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, ParsedPublicKey,
    RsaEncoding, RsaKeyPair, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::TokenError;

/// `sign-method`.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    name: &'static str,
    family: Family,
}

#[derive(Clone, Copy)]
enum Family {
    None,
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding, &'static dyn VerificationAlgorithm),
    Ecdsa(
        &'static EcdsaSigningAlgorithm,
        &'static dyn VerificationAlgorithm,
    ),
    EdDsa,
}

const METHODS: [Method; 14] = {
    use Family::{Ecdsa, EdDsa, Hmac, None, Rsa};
    const fn method(name: &'static str, family: Family) -> Method {
        Method { name, family }
    }
    [
        method("none", None),
        method("HS256", Hmac(hmac::HMAC_SHA256)),
        method("HS384", Hmac(hmac::HMAC_SHA384)),
        method("HS512", Hmac(hmac::HMAC_SHA512)),
        method(
            "RS256",
            Rsa(
                &signature::RSA_PKCS1_SHA256,
                &signature::RSA_PKCS1_2048_8192_SHA256,
            ),
        ),
        method(
            "RS384",
            Rsa(
                &signature::RSA_PKCS1_SHA384,
                &signature::RSA_PKCS1_2048_8192_SHA384,
            ),
        ),
        method(
            "RS512",
            Rsa(
                &signature::RSA_PKCS1_SHA512,
                &signature::RSA_PKCS1_2048_8192_SHA512,
            ),
        ),
        method(
            "PS256",
            Rsa(
                &signature::RSA_PSS_SHA256,
                &signature::RSA_PSS_2048_8192_SHA256,
            ),
        ),
        method(
            "PS384",
            Rsa(
                &signature::RSA_PSS_SHA384,
                &signature::RSA_PSS_2048_8192_SHA384,
            ),
        ),
        method(
            "PS512",
            Rsa(
                &signature::RSA_PSS_SHA512,
                &signature::RSA_PSS_2048_8192_SHA512,
            ),
        ),
        method(
            "ES256",
            Ecdsa(
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                &signature::ECDSA_P256_SHA256_FIXED,
            ),
        ),
        method(
            "ES384",
            Ecdsa(
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                &signature::ECDSA_P384_SHA384_FIXED,
            ),
        ),
        method(
            "ES512",
            Ecdsa(
                &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
                &signature::ECDSA_P521_SHA512_FIXED,
            ),
        ),
        method("EdDSA", EdDsa),
    ]
};

impl Method {
    /// The method of this name, as it stands in tokens.
    pub(crate) fn named(name: &str) -> Option<Method> {
        METHODS.into_iter().find(|method| method.name == name)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// Signs.
pub(super) enum Signer {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl Signer {
    /// The signature of `message`; `None` if there is none to be had from the key.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Signer::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(*encoding, &random, message, &mut signature);
                signed.ok().map(|()| signature)
            }
            Signer::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).ok()?;
                Some(signature.as_ref().to_vec())
            }
            Signer::EdDsa(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// Checks signatures.
pub(super) enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl Verifier {
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// Who signs, if there is a private key, and who checks.
///
/// # Errors
/// The keys are missing, unreadable, of another kind, or not a pair.
pub(super) fn load(
    method: Method,
    public: &[u8],
    private: &[u8],
) -> Result<(Option<Signer>, Verifier), TokenError> {
    let (algorithm, names) = match method.family {
        Family::None => return Err(TokenError::NoMethod),
        Family::Hmac(_) if private.is_empty() => return Err(TokenError::MissingKey),
        Family::Hmac(algorithm) => {
            let key = || Box::new(hmac::Key::new(algorithm, private));
            return Ok((Some(Signer::Hmac(key())), Verifier::Hmac(key())));
        }
        Family::Rsa(_, algorithm) => (algorithm, ["RSA private key", "RSA public key"]),
        Family::Ecdsa(_, algorithm) => (algorithm, ["ECDSA private key", "ECDSA public key"]),
        Family::EdDsa => {
            let algorithm: &'static dyn VerificationAlgorithm = &signature::ED25519;
            (algorithm, ["Ed25519 private key", "Ed25519 public key"])
        }
    };
    let signer = match private {
        [] => None,
        file => {
            let der = pem(file)?;
            Some(signer(method.family, &der).ok_or(TokenError::WrongKey(names[0]))?)
        }
    };
    let given = match public {
        [] => None,
        file => {
            let der = pem(file)?;
            let key = match method.family {
                // etcd's library takes certificates for the other methods only.
                Family::EdDsa => ParsedPublicKey::new(algorithm, &der).ok(),
                _ => public_key(algorithm, &der),
            };
            Some(key.ok_or(TokenError::WrongKey(names[1]))?)
        }
    };
    let own = match &signer {
        None => None,
        Some(signer) => {
            let own = own_key(signer).and_then(|key| ParsedPublicKey::new(algorithm, key).ok());
            Some(own.ok_or(TokenError::WrongKey(names[0]))?)
        }
    };
    let verifier = match (own, given) {
        (None, None) => return Err(TokenError::MissingKey),
        (Some(own), Some(given)) if !is_same(&own, &given) => return Err(TokenError::KeyMismatch),
        (Some(key), _) | (None, Some(key)) => key,
    };
    Ok((signer, Verifier::Public(verifier)))
}

fn signer(family: Family, der: &[u8]) -> Option<Signer> {
    match family {
        Family::None | Family::Hmac(_) => None,
        Family::Rsa(encoding, _) => {
            let pair = RsaKeyPair::from_der(der).or_else(|_| RsaKeyPair::from_pkcs8(der));
            Some(Signer::Rsa(pair.ok()?, encoding))
        }
        Family::Ecdsa(algorithm, _) => {
            let pair = EcdsaKeyPair::from_private_key_der(algorithm, der);
            Some(Signer::Ecdsa(pair.ok()?))
        }
        Family::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
            Some(Signer::EdDsa(pair.ok()?))
        }
    }
}

/// The public half of a private key.
fn own_key(signer: &Signer) -> Option<&[u8]> {
    match signer {
        Signer::Hmac(_) => None,
        Signer::Rsa(pair, _) => Some(pair.public_key().as_ref()),
        Signer::Ecdsa(pair) => Some(pair.public_key().as_ref()),
        Signer::EdDsa(pair) => Some(pair.public_key().as_ref()),
    }
}

/// A public key, as it is or in a certificate.
fn public_key(
    algorithm: &'static dyn VerificationAlgorithm,
    der: &[u8],
) -> Option<ParsedPublicKey> {
    let key = ParsedPublicKey::new(algorithm, der).ok();
    key.or_else(|| {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        ParsedPublicKey::new(algorithm, certificate.public_key().raw).ok()
    })
}

fn is_same(a: &ParsedPublicKey, b: &ParsedPublicKey) -> bool {
    let der = |key: &ParsedPublicKey| key.as_der().ok().map(|der| der.as_ref().to_vec());
    der(a).is_some() && der(a) == der(b)
}

/// The content of the first PEM block in a file.
fn pem(file: &[u8]) -> Result<Vec<u8>, TokenError> {
    let text = std::str::from_utf8(file).map_err(|_| TokenError::NotPem)?;
    let mut lines = text.lines().map(str::trim_end);
    let label = lines.find_map(|line| {
        let label = line.strip_prefix("-----BEGIN ")?;
        label.strip_suffix("-----")
    });
    let end = format!("-----END {}-----", label.ok_or(TokenError::NotPem)?);
    let mut digits = String::new();
    for line in lines {
        if line == end {
            return STANDARD.decode(digits).map_err(|_| TokenError::NotPem);
        }
        // Older tools put headers before the data.
        if !line.contains(':') {
            digits.push_str(line);
        }
    }
    Err(TokenError::NotPem)
}
