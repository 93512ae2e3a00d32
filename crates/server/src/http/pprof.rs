//! `/debug/pprof/`: profiles, under the names and with the parameters that Go gives them, for
//! `go tool pprof` and for whoever collects profiles all the time.
//!
//! | | |
//! |---|---|
//! | `profile?seconds=N` | where the next N seconds of processor time go; one at a time |
//! | `heap`, `allocs` | where memory was asked for, since the member was started |
//! | `goroutine`, `threadcreate` | the threads |
//! | `block`, `mutex` | empty: waiting for locks is not recorded, as Go does not unless told to |
//! | `trace` | refused: it is a trace of Go's runtime |
//! | `cmdline`, `symbol` | arguments; names of addresses |
//!
//! `debug=1` gives text, `seconds=N` what N seconds changed.

use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, HeaderValue};
use retcd_member::Workers;

use super::Response;
use crate::log::Text;
use crate::net_http::{query, reply};
use crate::profile::{Samples, cpu, forget, function_at, heap, threads};

/// Seconds of a profile of the processor that asks for none.
const CPU_SECONDS: u64 = 30;

/// Takes profiles; there with `--enable-pprof` only.
#[derive(Debug)]
pub struct Profiles(Workers);

/// A page of `/debug/pprof/`; see [`page`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProfilePage {
    Index,
    Cpu,
    Trace,
    CommandLine,
    Symbol,
    /// Those that are there at any time.
    Standing(Standing),
    Unknown,
}

/// A profile that does not have to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Allocs,
    Block,
    Goroutine,
    Heap,
    Mutex,
    ThreadCreate,
}

impl Standing {
    const ALL: [Standing; 6] = [
        Standing::Allocs,
        Standing::Block,
        Standing::Goroutine,
        Standing::Heap,
        Standing::Mutex,
        Standing::ThreadCreate,
    ];

    fn name(self) -> &'static str {
        match self {
            Standing::Allocs => "allocs",
            Standing::Block => "block",
            Standing::Goroutine => "goroutine",
            Standing::Heap => "heap",
            Standing::Mutex => "mutex",
            Standing::ThreadCreate => "threadcreate",
        }
    }

    /// For the index.
    fn help(self) -> &'static str {
        match self {
            Standing::Allocs => "where all memory was asked for that ever was",
            Standing::Block => "empty: waiting is not recorded",
            Standing::Goroutine => "the threads and what they do",
            Standing::Heap => "where the memory was asked for that is in use",
            Standing::Mutex => "empty: contention of locks is not recorded",
            Standing::ThreadCreate => "the threads that were made",
        }
    }

    /// Blocks.
    fn take(self) -> Result<Samples, String> {
        const DELAYS: &[(&str, &str)] = &[("contentions", "count"), ("delay", "nanoseconds")];
        let listed = || threads::list().map_err(|error| error.to_string());
        match self {
            Standing::Allocs | Standing::Heap => {
                heap::take(self.name()).map_err(|error| error.to_string())
            }
            Standing::Goroutine => Ok(threads::doing(&listed()?)),
            Standing::ThreadCreate => Ok(threads::made(&listed()?)),
            Standing::Block | Standing::Mutex => {
                Ok(Samples::new(self.name(), DELAYS, (DELAYS[0], 1)))
            }
        }
    }
}

/// What comes after `/debug/pprof/`.
pub(crate) fn page(segments: &[&str]) -> ProfilePage {
    match segments {
        [""] => ProfilePage::Index,
        ["profile"] => ProfilePage::Cpu,
        ["trace"] => ProfilePage::Trace,
        ["cmdline"] => ProfilePage::CommandLine,
        ["symbol"] => ProfilePage::Symbol,
        [name] => Standing::ALL
            .into_iter()
            .find(|profile| profile.name() == *name)
            .map_or(ProfilePage::Unknown, ProfilePage::Standing),
        _ => ProfilePage::Unknown,
    }
}

/// Why a profile is not given.
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal {
            status,
            text: text.into(),
        }
    }

    fn internal(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// With the header by which `go tool pprof` knows that the text is for whoever called it.
    fn into_response(self) -> Response {
        let mut response = reply::error(self.status, &self.text);
        let headers = response.headers_mut();
        headers.insert("x-go-pprof", HeaderValue::from_static("1"));
        response
    }
}

impl Profiles {
    /// Profiles that `workers` take.
    pub fn new(workers: Workers) -> Profiles {
        Profiles(workers)
    }

    /// Has the allocator note from now on where memory is asked for: done before anything is read,
    /// since a profile of memory has what came later. Blocks.
    pub(crate) fn activate() {
        match heap::activate() {
            Ok(()) => crate::info!("pprof is enabled"; "path" => "/debug/pprof"),
            Err(error) => crate::warn!("pprof is enabled, but has no profiles of memory";
                "path" => "/debug/pprof", "error" => Text(&error)),
        }
    }

    pub(crate) async fn serve(
        &self,
        page: &ProfilePage,
        query: &str,
        command_line: &[String],
    ) -> Response {
        let served = match page {
            ProfilePage::Index => self.index().await,
            ProfilePage::Cpu => self.cpu(query).await,
            ProfilePage::Standing(profile) => self.standing(*profile, query).await,
            ProfilePage::Symbol => self.symbols(query).await,
            ProfilePage::CommandLine => Ok(text(command_line.join("\0"))),
            ProfilePage::Trace => Err(Refusal::internal(
                "Could not enable tracing: there is no Go runtime here whose trace this is; --enable-distributed-tracing traces requests",
            )),
            ProfilePage::Unknown => Err(Refusal::new(StatusCode::NOT_FOUND, "Unknown profile")),
        };
        served.unwrap_or_else(Refusal::into_response)
    }

    async fn cpu(&self, query: &str) -> Result<Response, Refusal> {
        let seconds = number(query, "seconds").ok().filter(|given| *given > 0);
        let running = self.work(cpu::Running::start).await?;
        let running = running.map_err(could_not_profile)?;
        // Whoever hangs up drops this, and with it ends the profile.
        tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(CPU_SECONDS))).await;
        let encoded = self
            .work(move || running.stop().map(|samples| samples.encode()))
            .await?;
        let profile = encoded.map_err(could_not_profile)?;
        Ok(attachment("profile", profile))
    }

    async fn standing(&self, profile: Standing, query: &str) -> Result<Response, Refusal> {
        let debug = number(query, "debug").unwrap_or(0);
        let before = match query::values(query, "seconds").is_empty() {
            true => None,
            false => {
                let seconds = number(query, "seconds").ok().filter(|given| *given > 0);
                let seconds = seconds.ok_or_else(|| {
                    let text = "invalid value for \"seconds\" - must be a positive integer";
                    Refusal::new(StatusCode::BAD_REQUEST, text)
                })?;
                if debug != 0 {
                    let text = "seconds and debug params are incompatible";
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
                }
                let before = self.take(profile).await?;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Some(before)
            }
        };
        if profile == Standing::Goroutine && debug >= 2 {
            let listed = self.work(threads::list).await?;
            let listed = listed.map_err(|error| Refusal::internal(error.to_string()))?;
            return Ok(text(threads::paragraphs(&listed)));
        }
        let mut samples = self.take(profile).await?;
        if let Some(before) = &before {
            samples = samples.since(before);
        }
        match debug {
            0 => {
                let encoded = self.work(move || samples.encode()).await?;
                let name = profile.name();
                Ok(match before {
                    Some(_) => attachment(&format!("{name}-delta"), encoded),
                    None => attachment(name, encoded),
                })
            }
            _ => Ok(text(self.work(move || samples.text()).await?)),
        }
    }

    async fn take(&self, profile: Standing) -> Result<Samples, Refusal> {
        let taken = self.work(move || profile.take()).await?;
        taken.map_err(Refusal::internal)
    }

    /// Addresses in hexadecimal with a plus between them. etcd takes them from a body, too.
    async fn symbols(&self, query: &str) -> Result<Response, Refusal> {
        let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let addresses: Vec<u64> = query.split('+').map_while(hex).collect();
        let name_all = move || {
            let mut text = "num_symbols: 1\n".to_owned();
            for address in addresses.into_iter().filter(|address| *address != 0) {
                if let Some(name) = function_at(address) {
                    text += &format!("{address:#x} {name}\n");
                }
            }
            forget();
            text
        };
        Ok(text(self.work(name_all).await?))
    }

    async fn index(&self) -> Result<Response, Refusal> {
        let count_all = || {
            let count = |profile: Standing| (profile, profile.take().map(|all| all.total()));
            let rows = Standing::ALL.map(count);
            forget();
            rows
        };
        let rows = self.work(count_all).await?;
        let mut html = String::from(INDEX_HEAD);
        for (profile, count) in rows {
            let name = profile.name();
            let count = count.map_or_else(|_| "–".to_owned(), |count| count.to_string());
            let help = profile.help();
            html += &format!(
                "<tr><td>{count}</td><td><a href='{name}?debug=1'>{name}</a></td><td>{help}</td></tr>\n"
            );
        }
        html += INDEX_TAIL;
        let mut response = reply::plain(StatusCode::OK, html);
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, html);
        Ok(response)
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let done = self.0.run(work).await;
        done.map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the member stops"))
    }
}

fn could_not_profile(error: cpu::CpuError) -> Refusal {
    Refusal::internal(format!("Could not enable CPU profiling: {error}"))
}

/// A number of the query; an error without one.
fn number(query: &str, name: &str) -> Result<u64, std::num::ParseIntError> {
    let given = query::values(query, name).into_iter().next();
    given.unwrap_or_default().parse()
}

fn text(text: String) -> Response {
    reply::plain(StatusCode::OK, text)
}

/// A file for `go tool pprof`.
fn attachment(name: &str, profile: Vec<u8>) -> Response {
    let mut response = reply::plain(StatusCode::OK, profile);
    let headers = response.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(http::header::CONTENT_TYPE, octets);
    let name = format!("attachment; filename={name:?}");
    let name = HeaderValue::from_str(&name).expect("names of profiles are plain");
    headers.insert(CONTENT_DISPOSITION, name);
    response
}

const INDEX_HEAD: &str = "<html>
<head><title>/debug/pprof/</title></head>
<body>
<h1>/debug/pprof/</h1>
<p>For <code>go tool pprof URL</code>; <code>debug=1</code> gives text, <code>seconds=N</code> what N seconds changed.</p>
<table>
<thead><td>Count</td><td>Profile</td><td></td></thead>
";

const INDEX_TAIL: &str = "<tr><td></td><td><a href='profile'>profile</a></td><td>where the next 30 seconds of processor time go, or <code>seconds=N</code></td></tr>
<tr><td></td><td><a href='cmdline'>cmdline</a></td><td>the arguments of the process</td></tr>
<tr><td></td><td><a href='symbol'>symbol</a></td><td>names of addresses</td></tr>
</table>
<p><a href='goroutine?debug=2'>all threads</a></p>
</body>
</html>
";
