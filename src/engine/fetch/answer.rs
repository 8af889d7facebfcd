//! What a server's answer to a request for a file, or for the rest of one, means. Asks nothing.
//!
//! Ranges, `If-Range` and `Content-Range` as RFC 9110, sections 13.1.5 and 14; `Retry-After` as section 10.2.3.

use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode, header};

use crate::base::limits::FETCH_BYTES_MAX;

/// Longest validator that is kept, in bytes.
const VALIDATOR_BYTES_MAX: usize = 1024;

/// What to do about an answer.
#[derive(PartialEq, Eq, Debug)]
pub enum Answer {
    /// The body is the whole file.
    Whole {
        /// Its length in bytes, where that is said.
        length: Option<u64>,
        /// What a later request for the rest is to name under `If-Range`.
        validator: Option<String>,
    },
    /// The body is what follows the part that is there.
    Rest {
        /// Its length in bytes.
        length: u64,
    },
    /// All of it is there already.
    Complete,
    /// It does not go with the part that is there: that is thrown away.
    StartOver(String),
    /// Not now.
    Later {
        /// Why.
        cause: String,
        /// When to ask again, if the server says so.
        after: Option<Duration>,
    },
    /// Asking again is no use.
    No(String),
}

/// Reads the answer to a request for what follows the first `have` bytes, all of it where that is 0.
pub fn read(status: StatusCode, headers: &HeaderMap, have: u64) -> Answer {
    match status.as_u16() {
        200 => {
            let length = text(headers, header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
            if length.is_some_and(|length| length > FETCH_BYTES_MAX) {
                return Answer::No(too_large());
            }
            Answer::Whole { length, validator: validator(headers) }
        }
        206 if have == 0 => Answer::No("it answers with a part of the file, and nobody asked for a part".into()),
        206 => rest(headers, have),
        // With a length that is what is there, nothing follows it.
        416 if have > 0 && text(headers, header::CONTENT_RANGE) == Some(&format!("bytes */{have}")) => Answer::Complete,
        416 if have > 0 => Answer::StartOver("it has no such part of the file".into()),
        // Some servers take no part of a file for a request they know, or have signed.
        400 | 403 | 412 | 501 if have > 0 => Answer::StartOver(told(status)),
        408 | 429 | 500 | 502..=504 | 507..=599 => Answer::Later { cause: told(status), after: retry_after(headers) },
        _ => Answer::No(told(status)),
    }
}

/// What is said of a file that goes beyond the limit.
pub fn too_large() -> String {
    format!("it is larger than {FETCH_BYTES_MAX} bytes")
}

fn told(status: StatusCode) -> String {
    format!("it answers {status}").trim_end().to_owned()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn rest(headers: &HeaderMap, have: u64) -> Answer {
    let Some((first, last, whole)) = text(headers, header::CONTENT_RANGE).and_then(content_range) else {
        return Answer::StartOver("it does not say which part of the file it gives".into());
    };
    if first != have || last < first || whole.is_some_and(|whole| whole.checked_sub(1) != Some(last)) {
        return Answer::StartOver("it gives another part of the file than was asked for".into());
    }
    if last >= FETCH_BYTES_MAX {
        return Answer::No(too_large());
    }
    Answer::Rest { length: last - first + 1 }
}

/// First and last byte of a part, and the length of the whole where it is known.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let whole = if whole == "*" { None } else { Some(number(whole)?) };
    Some((number(first)?, number(last)?, whole))
}

fn number(text: &str) -> Option<u64> {
    // `parse` takes a sign as well.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The strong entity tag, else the date of the last change. A weak tag says nothing of single bytes, and `If-Range` takes none.
fn validator(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, header::ETAG).filter(|tag| tag.starts_with('"'));
    let found = tag.or_else(|| text(headers, header::LAST_MODIFIED))?;
    (found.len() <= VALIDATOR_BYTES_MAX).then(|| found.to_owned())
}

/// How long to wait: seconds, or a moment by the clock of the server, which its `Date` tells.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let after = text(headers, header::RETRY_AFTER)?.trim();
    if let Some(seconds) = number(after) {
        return Some(Duration::from_secs(seconds));
    }
    let now = seconds_of(text(headers, header::DATE)?.trim())?;
    Some(Duration::from_secs(seconds_of(after)?.saturating_sub(now)))
}

/// Seconds since the year 0 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`, as every server writes it now.
fn seconds_of(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = date.split_once(", ")?;
    let mut words = date.split(' ');
    let (day, month, year) = (number(words.next()?)?, words.next()?, number(words.next()?)?);
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    let mut clock = words.next()?.split(':');
    let (hour, minute, second) = (number(clock.next()?)?, number(clock.next()?)?, number(clock.next()?)?);
    if year > 9999 || day > 31 || hour > 23 || minute > 59 || second > 60 || words.next() != Some("GMT") {
        return None;
    }
    // Years that begin in March, so that the day of a leap year comes last; the fifth power of such a year are its months.
    let (year, month) = if month < 2 { (year.checked_sub(1)?, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    fn answer(status: u16, all: &[(&'static str, &str)], have: u64) -> Answer {
        read(StatusCode::from_u16(status).expect("a status"), &headers(all), have)
    }

    #[test]
    fn the_rest_of_a_file_is_taken_only_where_it_follows_what_is_there() {
        let rest = |range: &str| answer(206, &[("content-range", range)], 10);
        assert_eq!(rest("bytes 10-19/20"), Answer::Rest { length: 10 });
        assert_eq!(rest("bytes 10-10/*"), Answer::Rest { length: 1 });
        for wrong in [
            "bytes 0-19/20",
            "bytes 9-19/20",
            "bytes 11-19/20",
            "bytes 10-18/20",
            "bytes 10-9/10",
            "bytes 10-19/0",
            "bytes +10-19/20",
            "bytes */20",
            "items 10-19/20",
            "bytes 10-99999999999999999999999/*",
            "",
        ] {
            assert!(matches!(rest(wrong), Answer::StartOver(_)), "{wrong}");
        }
        assert!(matches!(answer(206, &[], 10), Answer::StartOver(_)));
        assert!(matches!(rest(&format!("bytes 10-{}/*", u64::MAX)), Answer::No(_)), "too large");
        assert!(matches!(answer(206, &[("content-range", "bytes 0-9/10")], 0), Answer::No(_)), "nobody asked");
        assert_eq!(answer(416, &[("content-range", "bytes */10")], 10), Answer::Complete);
        assert!(matches!(answer(416, &[("content-range", "bytes */9")], 10), Answer::StartOver(_)));
        assert!(matches!(answer(416, &[], 10), Answer::StartOver(_)));
        assert!(matches!(answer(416, &[], 0), Answer::No(_)));
    }

    #[test]
    fn a_whole_file_comes_with_what_tells_it_from_a_later_one() {
        let whole = |all: &[(&'static str, &str)]| match answer(200, all, 10) {
            Answer::Whole { length, validator } => (length, validator),
            other => panic!("{other:?}"),
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(whole(&[("content-length", "7"), ("etag", "\"a\"")]), (Some(7), Some("\"a\"".into())));
        assert_eq!(whole(&[("etag", "W/\"a\""), ("last-modified", date)]), (None, Some(date.into())));
        assert_eq!(whole(&[("etag", "W/\"a\"")]), (None, None));
        assert_eq!(whole(&[("etag", &format!("\"{}\"", "a".repeat(2000)))]), (None, None));
        assert!(matches!(answer(200, &[("content-length", "99999999999999")], 0), Answer::No(_)));
    }

    #[test]
    fn what_may_pass_is_asked_again_and_what_will_not_is_not() {
        for status in [408, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(answer(status, &[], 0), Answer::Later { after: None, .. }), "{status}");
        }
        for status in [204, 304, 400, 401, 403, 404, 410, 451, 501, 505] {
            assert!(matches!(answer(status, &[], 0), Answer::No(_)), "{status}");
        }
        for status in [400, 403, 412, 501] {
            assert!(matches!(answer(status, &[], 10), Answer::StartOver(_)), "{status}: perhaps it knows no parts");
        }
        assert!(matches!(answer(404, &[], 10), Answer::No(_)), "another address may carry on");
        assert_eq!(answer(404, &[], 0), Answer::No("it answers 404 Not Found".into()));
    }

    #[test]
    fn the_time_to_wait_is_read_in_seconds_and_as_a_date() {
        let after = |all: &[(&'static str, &str)]| match answer(429, all, 0) {
            Answer::Later { after, .. } => after.map(|after| after.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(after(&[("retry-after", "7")]), Some(7));
        let dates = |date, later| after(&[("date", date), ("retry-after", later)]);
        assert_eq!(dates("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(dates("Thu, 31 Dec 1998 23:59:30 GMT", "Fri, 01 Jan 1999 00:00:30 GMT"), Some(60));
        assert_eq!(dates("Mon, 28 Feb 2000 00:00:00 GMT", "Wed, 01 Mar 2000 00:00:00 GMT"), Some(2 * 86400));
        assert_eq!(dates("Tue, 01 Mar 1994 00:00:00 GMT", "Mon, 28 Feb 1994 00:00:00 GMT"), Some(0), "already past");
        for wrong in ["soon", "-1", "", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 6"] {
            assert_eq!(dates("Sun, 06 Nov 1994 08:49:37 GMT", wrong), None, "{wrong}");
        }
        assert_eq!(after(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), None, "by whose clock");
    }
}
