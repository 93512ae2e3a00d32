//! Pages of members, such as `/metrics`.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use retcd_client::{Dialer, TlsConfig, TlsError};
use tokio::time::timeout;

use super::hint::with_scheme;
use super::http::{Action, Http};

/// Reads pages.
pub(crate) struct PageReader {
    http: Http,
    encrypts: bool,
    timeout: Duration,
}

impl PageReader {
    /// A reader that gives each page the timeout.
    ///
    /// # Errors
    /// TLS files cannot be used.
    pub(crate) fn new(tls: &TlsConfig, timeout: Duration) -> Result<PageReader, TlsError> {
        let dialer = Dialer::new(tls)?;
        Ok(PageReader {
            http: Http::new(dialer, timeout, None, false),
            encrypts: tls.asks_for_tls(),
            timeout,
        })
    }

    /// Reads a page of an endpoint.
    ///
    /// # Errors
    /// The text of the reason: it cannot be reached, or has no such page.
    pub(crate) async fn read(&self, endpoint: &str, path: &str) -> Result<Bytes, String> {
        let endpoint = with_scheme(endpoint, self.encrypts);
        let action = Action::new(Method::GET, path);
        let answer = timeout(self.timeout, self.http.exchange(&endpoint, &action)).await;
        let answer = answer.map_err(|_| format!("{path} takes too long"))?;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            status => Err(format!("{path} is answered with {status}")),
        }
    }
}
