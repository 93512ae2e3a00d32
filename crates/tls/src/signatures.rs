//! A cache of verified certificate signatures.
//!
//! A signature over given bytes by a given key stays valid. So a peer that reconnects with the same
//! certificate saves half of the signature verifications of a handshake. Whatever can change is
//! checked every time: validity, purpose, trust and revocation.
//!
//! Only valid signatures are cached, by a SHA-256 digest of algorithm, key, message and signature,
//! so that a false hit requires a hash collision. Reloaded authorities start with an empty cache.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest as _, Sha256};

/// Capacity in signatures of 32 bytes each. A full cache is cleared.
const SIGNATURES_MAX: usize = 4096;

/// Digests of signatures that were valid.
#[derive(Debug, Default)]
pub(crate) struct SignatureCache(Mutex<HashSet<[u8; 32]>>);

impl SignatureCache {
    /// Wraps `algorithms` so that each consults the cache first.
    pub(crate) fn wrap<'a>(
        &'a self,
        algorithms: &[&'a dyn SignatureVerificationAlgorithm],
    ) -> Vec<CachedAlgorithm<'a>> {
        let cached = |algorithm: &&'a dyn SignatureVerificationAlgorithm| CachedAlgorithm {
            algorithm: *algorithm,
            verified: self,
        };
        algorithms.iter().map(cached).collect()
    }

    fn contains(&self, digest: &[u8; 32]) -> bool {
        let digests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        digests.contains(digest)
    }

    fn insert(&self, digest: [u8; 32]) {
        let mut digests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.len() >= SIGNATURES_MAX {
            digests.clear();
        }
        digests.insert(digest);
    }
}

/// A signature algorithm that consults the cache.
#[derive(Debug)]
pub(crate) struct CachedAlgorithm<'a> {
    algorithm: &'a dyn SignatureVerificationAlgorithm,
    verified: &'a SignatureCache,
}

impl SignatureVerificationAlgorithm for CachedAlgorithm<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let (key_kind, kind) = (self.public_key_alg_id(), self.signature_alg_id());
        let mut digest = Sha256::new();
        for part in [
            key_kind.as_ref(),
            kind.as_ref(),
            public_key,
            message,
            signature,
        ] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest = digest.finalize().into();
        if self.verified.contains(&digest) {
            return Ok(());
        }
        self.algorithm
            .verify_signature(public_key, message, signature)?;
        self.verified.insert(digest);
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use rustls::pki_types::alg_id;

    use super::*;

    /// An algorithm that accepts signatures beginning with "good", and counts its calls.
    #[derive(Debug, Default)]
    struct CountingAlgorithm(AtomicUsize);

    impl SignatureVerificationAlgorithm for CountingAlgorithm {
        fn verify_signature(
            &self,
            _public_key: &[u8],
            _message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Relaxed);
            match signature.starts_with(b"good") {
                true => Ok(()),
                false => Err(InvalidSignature),
            }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    #[test]
    fn only_an_identical_valid_signature_is_a_cache_hit() {
        let (verified, counting) = (SignatureCache::default(), CountingAlgorithm::default());
        let asked = |key: &[u8], message: &[u8], signature: &[u8]| {
            let before = counting.0.load(Relaxed);
            let [algorithm] = &verified.wrap(&[&counting])[..] else {
                panic!("one algorithm went in");
            };
            let result = algorithm.verify_signature(key, message, signature);
            (result.is_ok(), counting.0.load(Relaxed) > before)
        };
        assert_eq!(asked(b"key", b"message", b"good"), (true, true));
        assert_eq!(asked(b"key", b"message", b"good"), (true, false));
        for (key, message, signature) in [
            ("kez", "message", "good"),
            ("key", "messagd", "good"),
            ("key", "message", "good one"),
            ("keym", "essage", "good"),
        ] {
            let (key, message, signature) =
                (key.as_bytes(), message.as_bytes(), signature.as_bytes());
            assert_eq!(asked(key, message, signature), (true, true));
        }
        for _ in 0..2 {
            assert_eq!(asked(b"key", b"message", b"bad"), (false, true));
        }
    }

    #[test]
    fn the_cache_is_bounded() {
        let verified = SignatureCache::default();
        for number in 0..=SIGNATURES_MAX as u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            verified.insert(digest);
            assert!(verified.contains(&digest));
        }
        assert_eq!(verified.0.lock().unwrap().len(), 1);
    }
}
