//! Versions of the cluster and of the storage schema.

use std::fmt;

use retcd_proto::number;
use retcd_storage::backend::{self, BackendError, Bucket, WriteBatch};

use crate::meta;

/// The versions that changed the schema, or could have, since it has a version.
const STEPS: std::ops::RangeInclusive<Version> = Version::new(3, 6, 0)..=Version::STORAGE;

/// The largest number in a version; Go's are signed.
const NUMBER_MAX: u64 = i64::MAX as u64;

/// A version; what follows the patch number is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major.
    pub major: u64,
    /// Minor.
    pub minor: u64,
    /// Patch.
    pub patch: u64,
}

impl Version {
    /// The storage schema that this program writes.
    pub const STORAGE: Version = Version::new(3, 7, 0);

    /// `major.minor.patch`.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Version {
        Version {
            major,
            minor,
            patch,
        }
    }

    /// Major and minor as text, like `3.7`.
    pub fn major_minor(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// Reads `3.7.0`, maybe with a pre-release or build behind it, as the library does that etcd
    /// uses (go-semver).
    pub fn parse(text: &[u8]) -> Option<Version> {
        let text = std::str::from_utf8(text).ok()?;
        let (text, build) = text.split_once('+').unwrap_or((text, ""));
        let (numbers, pre_release) = text.split_once('-').unwrap_or((text, ""));
        if !is_identifier(pre_release) || !is_identifier(build) {
            return None;
        }
        let mut numbers = numbers.split('.').map(|number| {
            let number = number::decimal(number)?;
            (number <= NUMBER_MAX).then_some(number)
        });
        let version = Version::new(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }
}

/// What may stand behind the numbers.
fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why a schema is not ours to open.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The schema is of another major version.
    #[error("changing major storage version is not supported")]
    OtherMajor,
    /// No path leads from this minor version to ours, in etcd's words.
    #[error("version \"{0}\" is not supported")]
    NotSupported(Version),
    /// The version is no version.
    #[error("damaged value of storageVersion in bucket meta: {0:02x?}")]
    Damaged(Box<[u8]>),
}

/// The version of the schema; `None` if a file from before 3.5 leaves it open.
pub fn detect(reader: &backend::Reader) -> Result<Option<Version>, SchemaError> {
    if let Some(text) = reader.get(Bucket::Meta, meta::STORAGE_VERSION)? {
        return Version::parse(&text)
            .map(Some)
            .ok_or_else(|| SchemaError::Damaged(text[..].into()));
    }
    let term = reader.get(Bucket::Meta, meta::TERM)?;
    Ok(term
        .is_some_and(|term| term.iter().any(|byte| *byte != 0))
        .then_some(Version::new(3, 5, 0)))
}

/// Refuses a schema that there is no path from to ours.
pub fn check(version: Version) -> Result<(), SchemaError> {
    path(version, Version::STORAGE).map(drop)
}

/// The schemas on the way from one to another, minor version by minor version.
///
/// # Errors
/// [`SchemaError::OtherMajor`], [`SchemaError::NotSupported`].
pub fn path(from: Version, to: Version) -> Result<Vec<Version>, SchemaError> {
    if from.major != to.major {
        return Err(SchemaError::OtherMajor);
    }
    let schema = |minor| Version::new(from.major, minor, 0);
    let mut steps = Vec::new();
    let mut minor = from.minor;
    while minor != to.minor {
        let rises = minor < to.minor;
        // A step is known by the newer one of the two versions that it is between.
        let newer = if rises { minor + 1 } else { minor };
        if !STEPS.contains(&schema(newer)) {
            return Err(SchemaError::NotSupported(schema(newer)));
        }
        minor = if rises { minor + 1 } else { minor - 1 };
        steps.push(schema(minor));
    }
    Ok(steps)
}

/// Writes the version of the schema; before 3.6 there was none.
pub fn put(version: Version, batch: &mut WriteBatch) {
    if version < Version::new(3, 6, 0) {
        batch.delete(Bucket::Meta, meta::STORAGE_VERSION);
    } else {
        batch.put(
            Bucket::Meta,
            meta::STORAGE_VERSION,
            version.to_string().into_bytes().into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use retcd_storage::backend::Backend;

    use super::*;

    fn backend(values: &[(&[u8], &[u8])]) -> Backend {
        let backend = Backend::default();
        let mut batch = WriteBatch::default();
        for (key, value) in values {
            batch.put(Bucket::Meta, key, (*value).into());
        }
        backend.write(batch);
        backend
    }

    #[test]
    fn versions_are_read_as_go_semver_reads_them() {
        let parse = |text: &str| Version::parse(text.as_bytes());
        let read = [
            ("3.7.0", Version::new(3, 7, 0)),
            ("03.7.0", Version::new(3, 7, 0)),
            ("3.6.0-rc.1+build-7", Version::new(3, 6, 0)),
            ("3.6.0+a-b", Version::new(3, 6, 0)),
            ("3.0.4294967296", Version::new(3, 0, 1 << 32)),
            ("3.0.9223372036854775807", Version::new(3, 0, NUMBER_MAX)),
        ];
        for (text, version) in read {
            assert_eq!(parse(text), Some(version), "{text}");
        }
        for text in [
            "",
            "3.7",
            "3.7.",
            "3.7.0.0",
            "3.7.0.",
            "3..0",
            "v3.7.0",
            " 3.7.0",
            "+3.7.0",
            "3.+7.0",
            "-3.7.0",
            "3.7.0-ä",
            "3.7.0-a_b",
            "3.0.9223372036854775808",
            "99999999999999999999.0.0",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(Version::parse(b"3.7.0-\xff"), None);
    }

    #[test]
    fn a_path_goes_minor_version_by_minor_version() {
        let path = |from: (u64, u64), to: (u64, u64)| {
            let version = |(major, minor)| Version::new(major, minor, 0);
            match path(version(from), version(to)) {
                Ok(steps) => {
                    let steps: Vec<String> = steps.iter().map(Version::to_string).collect();
                    steps.join(" ")
                }
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(path((3, 5), (3, 7)), "3.6.0 3.7.0");
        assert_eq!(path((3, 7), (3, 5)), "3.6.0 3.5.0");
        assert_eq!(path((3, 6), (3, 6)), "");
        let unknown = "version \"3.8.0\" is not supported";
        assert_eq!(path((3, 7), (3, 9)), unknown);
        assert_eq!(path((3, 8), (3, 7)), unknown);
        let major = "changing major storage version is not supported";
        assert_eq!(path((3, 7), (4, 0)), major);
    }

    #[test]
    fn detection_goes_by_version_then_by_term() {
        let detected = |values: &[(&[u8], &[u8])]| detect(&backend(values).reader());
        let term: (&[u8], &[u8]) = (b"term", &[0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(detected(&[]).unwrap(), None);
        assert_eq!(detected(&[(b"term", &[0; 8])]).unwrap(), None);
        assert_eq!(detected(&[term]).unwrap(), Some(Version::new(3, 5, 0)));
        assert_eq!(
            detected(&[term, (b"storageVersion", b"3.6.0")]).unwrap(),
            Some(Version::new(3, 6, 0))
        );
        assert!(matches!(
            detected(&[(b"storageVersion", b"")]),
            Err(SchemaError::Damaged(_))
        ));
    }

    #[test]
    fn only_known_versions_have_a_path() {
        let refused = |version| check(version).unwrap_err().to_string();
        for minor in 5..=7 {
            check(Version::new(3, minor, 1)).unwrap();
        }
        assert_eq!(
            refused(Version::new(3, 8, 0)),
            "version \"3.8.0\" is not supported"
        );
        assert_eq!(
            refused(Version::new(3, 4, 0)),
            "version \"3.5.0\" is not supported"
        );
        assert_eq!(
            refused(Version::new(4, 0, 0)),
            "changing major storage version is not supported"
        );
    }

    #[test]
    fn a_version_survives_writing_and_is_absent_before_3_6() {
        let backend = backend(&[]);
        for (version, expected) in [
            (Version::STORAGE, Some(Version::STORAGE)),
            (Version::new(3, 5, 0), None),
        ] {
            let mut batch = WriteBatch::default();
            put(version, &mut batch);
            backend.write(batch);
            assert_eq!(detect(&backend.reader()).unwrap(), expected);
        }
    }
}
