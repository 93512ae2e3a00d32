//! The value of `--initial-cluster`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::BootstrapError;
use crate::config::url::Url;

/// The names of the members and the peer URLs of each, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InitialCluster(pub(super) BTreeMap<String, Vec<Url>>);

impl InitialCluster {
    /// Parses `name=url,name=url`. A name may occur more than once, with a URL each time.
    ///
    /// # Errors
    /// A URL is not valid.
    pub(crate) fn parse(text: &str) -> Result<InitialCluster, BootstrapError> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, url) = item.split_once('=').unwrap_or((item, ""));
            let url = Url::parse(url)
                .map_err(|error| BootstrapError::InitialCluster(error.to_string()))?;
            members.entry(name.to_owned()).or_default().push(url);
        }
        members.values_mut().for_each(|urls| urls.sort());
        Ok(InitialCluster(members))
    }

    /// The URLs of a member, sorted.
    ///
    /// # Errors
    /// There is no member of this name.
    pub(super) fn urls_of(&self, name: &str) -> Result<&[Url], BootstrapError> {
        let urls = self.0.get(name).map(Vec::as_slice);
        urls.ok_or_else(|| BootstrapError::NameMissing(name.to_owned()))
    }

    /// The URLs of all members but one, sorted.
    pub(super) fn urls_except(&self, name: &str) -> Vec<String> {
        let others = self.0.iter().filter(|(other, _)| *other != name);
        let mut urls: Vec<String> = others
            .flat_map(|(_, urls)| urls.iter().map(Url::to_string))
            .collect();
        urls.sort();
        urls
    }

    /// # Errors
    /// A URL occurs more than once.
    pub(super) fn check_duplicates(&self) -> Result<(), BootstrapError> {
        match self.has_duplicates() {
            false => Ok(()),
            true => Err(BootstrapError::DuplicateUrl(self.clone())),
        }
    }

    /// Whether a URL occurs more than once.
    pub(super) fn has_duplicates(&self) -> bool {
        let mut seen = BTreeSet::new();
        !self.0.values().flatten().all(|url| seen.insert(url))
    }
}

impl Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pairs: Vec<String> = self
            .0
            .iter()
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
            .collect();
        pairs.sort();
        f.write_str(&pairs.join(","))
    }
}
