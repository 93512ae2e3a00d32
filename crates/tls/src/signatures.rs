//! Signatures on certificates that have been verified once already.
//!
//! A key's signature over some bytes is good for ever once it is good. So who comes back with the same certificate is spared
//! half of the signatures that a handshake verifies. All that can change is asked each time: whether the certificates are
//! valid now, what they are for, who is trusted, what has been revoked.
//!
//! Only good signatures are remembered, by a digest over the algorithm, the key, the bytes and the signature: whoever could
//! make another one pass could forge the hash. A new bundle of authorities begins with an empty memory.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest as _, Sha256};

/// Signatures that are remembered; with one more, all are forgotten. 32 bytes each.
const REMEMBERED_MAX: usize = 4096;

/// The signatures that were good.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<HashSet<[u8; 32]>>);

impl Verified {
    /// The algorithms, each asked only for what it has not been asked before.
    pub(crate) fn remembering<'a>(
        &'a self,
        algorithms: &[&'a dyn SignatureVerificationAlgorithm],
    ) -> Vec<Remembering<'a>> {
        let remembering = |algorithm: &&'a dyn SignatureVerificationAlgorithm| Remembering {
            algorithm: *algorithm,
            verified: self,
        };
        algorithms.iter().map(remembering).collect()
    }

    fn contains(&self, digest: &[u8; 32]) -> bool {
        let digests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        digests.contains(digest)
    }

    fn insert(&self, digest: [u8; 32]) {
        let mut digests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.len() >= REMEMBERED_MAX {
            digests.clear();
        }
        digests.insert(digest);
    }
}

/// A signature algorithm with a memory.
#[derive(Debug)]
pub(crate) struct Remembering<'a> {
    algorithm: &'a dyn SignatureVerificationAlgorithm,
    verified: &'a Verified,
}

impl SignatureVerificationAlgorithm for Remembering<'_> {
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

    /// Finds signatures good that begin with "good", and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl SignatureVerificationAlgorithm for Counting {
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
    fn only_the_very_same_good_signature_is_taken_unasked() {
        let (verified, counting) = (Verified::default(), Counting::default());
        let asked = |key: &[u8], message: &[u8], signature: &[u8]| {
            let before = counting.0.load(Relaxed);
            let [algorithm] = &verified.remembering(&[&counting])[..] else {
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
    fn the_memory_is_bounded() {
        let verified = Verified::default();
        for number in 0..=REMEMBERED_MAX as u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            verified.insert(digest);
            assert!(verified.contains(&digest));
        }
        assert_eq!(verified.0.lock().unwrap().len(), 1);
    }
}
