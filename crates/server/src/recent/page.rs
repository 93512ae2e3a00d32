//! `/debug/requests` and `/debug/events` as HTML, with the parameters of Go's pages: `fam` and `b` choose
//! what is listed, `exp=1` shows the events of each, `show_sensitive=0` hides what was in messages.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::calls::{BOUNDS_MS, BUCKETS, Families, Family, RecentCall};
use super::events::EventLog;
use super::latency::{Histogram, Span, low_us};
use super::{Event, Moment};
use crate::net_http::query;
use crate::net_http::reply::escape_html;

/// Calls under way that are listed, the oldest.
const ACTIVE_MAX: usize = 20;
/// In front of the service in the name of a family of calls.
const RECEIVED: &str = "grpc.Recv.";
/// The family of the server's events.
const SERVER: &str = "grpc.Server";
/// Ages of errors by which Go counts.
const ERROR_AGES: [(&str, Duration); 6] = [
    ("errs<10s", Duration::from_secs(10)),
    ("errs<1m", Duration::from_secs(60)),
    ("errs<10m", Duration::from_secs(600)),
    ("errs<1h", Duration::from_secs(3600)),
    ("errs<10h", Duration::from_secs(36_000)),
    ("errors", Duration::from_secs(24_000 * 3600)),
];
/// Pixels of the longest bar.
const BAR_WIDTH: u64 = 350;

/// What a query asks for.
struct Asked {
    family: String,
    bucket: Option<i64>,
    is_expanded: bool,
    shows_sensitive: bool,
}

impl Asked {
    fn of(query: &str) -> Asked {
        let first = |name: &str| query::values(query, name).into_iter().next();
        Asked {
            family: first("fam").unwrap_or_default(),
            bucket: first("b").and_then(|bucket| bucket.parse().ok()),
            is_expanded: first("exp").is_some_and(|exp| is_true(&exp)),
            shows_sensitive: first("show_sensitive").as_deref() != Some("0"),
        }
    }
}

/// As `strconv.ParseBool` has it.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// A list that the page has a link to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Active,
    Bucket(usize),
    Latency(Span),
}

impl Listed {
    fn of(bucket: i64) -> Option<Listed> {
        let span = |at: usize| [Span::Minute, Span::Hour, Span::Total].get(at).copied();
        match usize::try_from(bucket) {
            Ok(at) if at < BUCKETS => Some(Listed::Bucket(at)),
            Ok(at) => span(at - BUCKETS).map(Listed::Latency),
            Err(_) => (bucket == -1).then_some(Listed::Active),
        }
    }
}

pub(super) fn requests(families: &Families, query: &str, now: Moment) -> String {
    let asked = Asked::of(query);
    let mut html = head("/debug/requests");
    html += "<table class=\"families\">\n";
    for (service, family) in &families.0 {
        requests_row(&mut html, &format!("{RECEIVED}{service}"), family, &asked);
    }
    html += "</table>\n";
    let service = asked.family.strip_prefix(RECEIVED);
    let found = service.and_then(|service| families.0.get(service));
    if let Some(family) = found {
        match asked.bucket.and_then(Listed::of) {
            Some(Listed::Active) => {
                let calls = family.active.values().take(ACTIVE_MAX).collect();
                list(&mut html, calls, family.active.len(), &asked, now);
            }
            Some(Listed::Bucket(bucket)) => {
                let calls = &family.buckets[bucket];
                list(&mut html, calls.iter().collect(), calls.len(), &asked, now);
            }
            Some(Listed::Latency(span)) => {
                let histogram = family.latency.of(span, now);
                latency(&mut html, &asked.family, span, &histogram);
            }
            None => {}
        }
    }
    html + TAIL
}

fn requests_row(html: &mut String, name: &str, family: &Family, asked: &Asked) {
    let _ = write!(html, "<tr><td class=\"family\">{name}</td>");
    let active = family.active.len();
    link(html, name, -1, &format!("{active} active"), active, asked);
    let bounds = BOUNDS_MS.map(|bound| format!("≥{}s", bound as f64 / 1000.0));
    let texts = bounds.into_iter().chain(["errors".to_owned()]);
    for ((number, text), calls) in (0..).zip(texts).zip(&family.buckets) {
        link(html, name, number, &text, calls.len(), asked);
    }
    for (number, text) in (BUCKETS as i64..).zip(["minute", "hour", "total"]) {
        link(html, name, number, text, 1, asked);
    }
    *html += "</tr>\n";
}

/// A cell that leads to a list of `count`, if there is anything in it.
fn link(html: &mut String, family: &str, number: i64, text: &str, count: usize, asked: &Asked) {
    let text = escape_html(text);
    let _ = match count {
        0 => write!(html, "<td class=\"empty\">[{text}]</td>"),
        _ => write!(
            html,
            "<td><a href=\"?fam={family}&amp;b={number}{}\">[{text}]</a></td>",
            match asked.is_expanded {
                true => "&amp;exp=1",
                false => "",
            }
        ),
    };
}

/// What stands above a list.
fn title(html: &mut String, asked: &Asked) {
    let (family, number) = (escape_html(&asked.family), asked.bucket.unwrap_or_default());
    let here = format!("?fam={family}&amp;b={number}");
    let _ = write!(html, "<hr>\n<h3>Family: {family}</h3>\n<p>");
    let _ = match asked.is_expanded {
        true => write!(html, "<a href=\"{here}\">[Summary]</a> [Expanded]"),
        false => write!(
            html,
            "[Summary] <a href=\"{here}&amp;exp=1\">[Expanded]</a>"
        ),
    };
    *html += "</p>\n";
}

/// The newest first.
fn list(
    html: &mut String,
    mut calls: Vec<&Arc<RecentCall>>,
    all: usize,
    asked: &Asked,
    now: Moment,
) {
    if calls.is_empty() {
        return;
    }
    calls.sort_by_key(|call| Reverse(call.begun.instant));
    title(html, asked);
    if calls.len() < all {
        let shown = calls.len();
        let _ = writeln!(
            html,
            "<p>Showing <b>{shown}</b> of <b>{all}</b> traces.</p>"
        );
    }
    let kind = match asked.bucket {
        Some(-1) => "Active",
        _ => "Completed",
    };
    let _ = writeln!(
        html,
        "<table class=\"list\"><caption>{kind} Requests</caption>\n<tr><th>When</th><th>Elapsed&nbsp;(s)</th></tr>"
    );
    for call in calls {
        let state = call.state.lock();
        let took = state.took.unwrap_or_else(|| now.since(call.begun));
        first_line(html, call.begun, took, call.path);
        if asked.is_expanded {
            events_of(html, call.begun, state.events.iter(), asked);
        }
    }
    *html += "</table>\n";
}

fn first_line(html: &mut String, begun: Moment, took: Duration, title: &str) {
    let _ = writeln!(
        html,
        "<tr class=\"first\"><td class=\"when\">{}</td><td class=\"elapsed\">{:.6}</td><td>{}</td></tr>",
        date(begun.shown),
        took.as_secs_f64(),
        escape_html(title)
    );
}

fn events_of<'a>(
    html: &mut String,
    begun: Moment,
    events: impl Iterator<Item = &'a Event>,
    asked: &Asked,
) {
    let mut before = begun;
    for event in events {
        let text = match event.is_sensitive && !asked.shows_sensitive {
            true => "<em>[redacted]</em>".to_owned(),
            false => {
                let mark = if event.is_error { ".E." } else { "..." };
                format!("{mark} {}", escape_html(&event.text))
            }
        };
        let _ = writeln!(
            html,
            "<tr><td class=\"when\">{}</td><td class=\"elapsed\">{}</td><td>{text}</td></tr>",
            time(event.at.shown, before.shown),
            elapsed(event.elapsed)
        );
        before = event.at;
    }
}

fn latency(html: &mut String, family: &str, span: Span, histogram: &Histogram) {
    let over = match span {
        Span::Minute => "last minute",
        Span::Hour => "last hour",
        Span::Total => "all time",
    };
    let count = histogram.count();
    let _ = writeln!(
        html,
        "<h4>Latency (&micro;s) of {} over {over}</h4>\n<table><tr><td>Count: {count}</td><td>Mean: {:.0}</td>\
         <td>StdDev: {:.0}</td><td>Median: {}</td></tr></table>\n<hr>\n<table class=\"latency\">",
        escape_html(family),
        histogram.mean_us(),
        histogram.deviation_us(),
        histogram.median_us()
    );
    let largest = histogram.counts.iter().max().copied().unwrap_or_default();
    let percent = |part: u64| part as f64 * 100.0 / count as f64;
    let mut below = 0;
    for (bucket, here) in histogram.counts.iter().enumerate() {
        if *here == 0 {
            continue;
        }
        below += here;
        let high = match bucket + 1 < histogram.counts.len() {
            true => low_us(bucket + 1),
            false => i64::MAX as u64,
        };
        let _ = writeln!(
            html,
            "<tr><td>[</td><td>{},</td><td>{high})</td><td>{here}</td><td>{:.3}%</td><td>{:.3}%</td>\
             <td><div class=\"bar\" style=\"width: {}px\"></div></td></tr>",
            low_us(bucket),
            percent(*here),
            percent(below),
            here * BAR_WIDTH / largest
        );
    }
    *html += "</table>\n";
}

pub(super) fn events(log: &EventLog, query: &str, now: Moment) -> String {
    let asked = Asked::of(query);
    let mut html = head("/debug/events");
    let _ = write!(
        html,
        "<table class=\"families\">\n<tr><td class=\"family\">{SERVER}</td>"
    );
    link(&mut html, SERVER, 0, "1 total", 1, &asked);
    for (number, (text, age)) in (1..).zip(ERROR_AGES) {
        let failed = usize::from(log.failed_within(age, now));
        let text = format!("{failed} {text}");
        link(&mut html, SERVER, number, &text, failed, &asked);
    }
    html += "</tr>\n</table>\n";
    let bucket = asked.bucket.and_then(|bucket| usize::try_from(bucket).ok());
    let is_listed = match bucket {
        Some(0) => true,
        Some(bucket) => ERROR_AGES
            .get(bucket - 1)
            .is_some_and(|(_, age)| log.failed_within(*age, now)),
        None => false,
    };
    if asked.family == SERVER && is_listed {
        title(&mut html, &asked);
        html += "<table class=\"list\">\n<tr><th>When</th><th>Elapsed</th></tr>\n";
        first_line(&mut html, log.begun, now.since(log.begun), &log.title);
        if asked.is_expanded {
            events_of(&mut html, log.begun, log.events.iter(), &asked);
        }
        html += "</table>\n";
    }
    html + TAIL
}

fn date(at: SystemTime) -> String {
    format(at, "%Y/%m/%d %H:%M:%S%.6f")
}

/// With the date if the event before was on another day.
fn time(at: SystemTime, before: SystemTime) -> String {
    let day = |at| format(at, "%Y/%m/%d");
    match day(at) == day(before) {
        true => format(at, "%H:%M:%S%.6f"),
        false => date(at),
    }
}

/// In the zone of this machine.
fn format(at: SystemTime, form: &str) -> String {
    let at = Timestamp::try_from(at).unwrap_or_default();
    at.to_zoned(TimeZone::system()).strftime(form).to_string()
}

/// In seconds, with blanks in place of the zeros in front, as Go shows it.
fn elapsed(elapsed: Duration) -> String {
    let text = format!("{:.6}", elapsed.as_secs_f64());
    if elapsed >= Duration::from_secs(1) {
        return text;
    }
    let mut is_leading = true;
    let blank = |c| match c {
        '0' if is_leading => ' ',
        '.' => '.',
        c => {
            is_leading = false;
            c
        }
    };
    text.chars().map(blank).collect()
}

fn head(title: &str) -> String {
    format!(
        "<html>\n<head>\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    )
}

const STYLE: &str = "
body { font-family: sans-serif; }
.families td { padding-right: 0.7em; }
.families .empty { color: #aaa; }
.list td { font-family: monospace; padding-right: 1em; white-space: pre; }
.list .first { font-weight: bold; }
.latency td { text-align: right; padding: 0 0.25em; }
.bar { background-color: blue; height: 1em; }
";

const TAIL: &str = "</body>\n</html>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_shows_all_its_digits() {
        for (micros, expected) in [
            (15, " .    15"),
            (901_698, " .901698"),
            (10_000, " . 10000"),
            (0, " .      "),
            (1_000_000, "1.000000"),
            (33_859_146, "33.859146"),
        ] {
            assert_eq!(elapsed(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn the_date_is_told_when_it_changes() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let noon = at(43_200);
        assert_eq!(time(noon, noon).len(), "12:00:00.000000".len());
        let next = time(at(43_200 + 86_400), noon);
        assert_eq!(next.len(), "1970/01/02 12:00:00.000000".len(), "{next}");
    }

    #[test]
    fn nobody_is_thrown_off_by_a_query() {
        let families = Families::default();
        let log = EventLog::new("<a>", Moment::now());
        for query in [
            "",
            "fam=grpc.Server&b=99&exp=1",
            "fam=grpc.Server&b=-7",
            "fam=grpc.Server&b=0&exp=1",
            "fam=grpc.Recv.<script>&b=99999999999999999999",
            "fam=grpc.Recv.etcdserverpb.KV&b=12",
        ] {
            let page = requests(&families, query, Moment::now());
            assert!(!page.contains("<script>"), "{page}");
            let page = events(&log, query, Moment::now());
            assert!(page.ends_with(TAIL) && !page.contains("<a>"), "{page}");
        }
    }
}
