//! Which of a member's URLs is used.

use parking_lot::Mutex;

use crate::config::url::Url;

/// The URLs of a member. When the current one cannot be reached, the next one is used.
#[derive(Debug)]
pub(super) struct Picker(Mutex<Urls>);

#[derive(Debug)]
struct Urls {
    urls: Vec<Url>,
    picked: usize,
}

impl Picker {
    /// Starts with the first; none if there is none.
    pub(super) fn new(urls: Vec<Url>) -> Option<Picker> {
        (!urls.is_empty()).then(|| Picker(Mutex::new(Urls { urls, picked: 0 })))
    }

    /// Replaces the URLs, unless there are none.
    pub(super) fn update(&self, urls: Vec<Url>) {
        if !urls.is_empty() {
            *self.0.lock() = Urls { urls, picked: 0 };
        }
    }

    /// The URL to use now.
    pub(super) fn pick(&self) -> Url {
        let urls = self.0.lock();
        urls.urls[urls.picked].clone()
    }

    /// Switches to the next URL if this is still the current one.
    pub(super) fn unreachable(&self, url: &Url) {
        let mut urls = self.0.lock();
        if urls.urls[urls.picked] == *url {
            urls.picked = (urls.picked + 1) % urls.urls.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(port: u16) -> Url {
        Url::parse(&format!("http://127.0.0.1:{port}")).unwrap()
    }

    #[test]
    fn urls_take_turns_when_they_fail() {
        let picker = Picker::new(vec![url(1), url(2)]).unwrap();
        assert_eq!(picker.pick(), url(1));
        assert_eq!(picker.pick(), url(1));
        picker.unreachable(&url(2));
        assert_eq!(picker.pick(), url(1), "another one failed");
        picker.unreachable(&url(1));
        assert_eq!(picker.pick(), url(2));
        picker.unreachable(&url(2));
        assert_eq!(picker.pick(), url(1));

        picker.unreachable(&url(1));
        picker.update(vec![url(3)]);
        assert_eq!(picker.pick(), url(3));
        picker.update(Vec::new());
        assert_eq!(picker.pick(), url(3));
        assert!(Picker::new(Vec::new()).is_none());
    }
}
