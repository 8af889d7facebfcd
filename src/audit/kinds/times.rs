//! Times in text: finds those that touch a stretch and tells which moment they mean. Numbers in binary files are `numbers`' matter.

use std::ops::Range;

/// A time that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Time {
    /// Where it is written.
    pub range: Range<usize>,
    /// The moment in seconds since 1970, as if it were UTC where no zone is told.
    pub epoch_s: i64,
    /// How exact it is, and what is known of its zone.
    pub precision: Precision,
    /// How long what is written lasts, in seconds: 60 where no seconds are written.
    pub lasts_s: i64,
}

/// How exact a written time is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Precision {
    /// A moment with its zone, or a number since 1970.
    Moment {
        /// Seconds east of UTC.
        offset_s: i64,
    },
    /// A day and a time of it, in an unknown zone.
    Local,
    /// A day.
    Day,
    /// A time of some day: [`Time::epoch_s`] is seconds since midnight.
    Clock,
    /// A year.
    Year,
}

const DAY_S: i64 = 86_400;
/// Zones lie between 12 hours west and 14 hours east.
const WEST_S: i64 = -12 * 3600;
const EAST_S: i64 = 14 * 3600;
/// Offsets of zones are multiples of it.
const ZONE_STEP_S: i64 = 900;
/// Clocks are read a moment before or after what a build notes.
const SLACK_S: i64 = 2;
/// A time is written in at most so many bytes.
pub(super) const TIME_BYTES_MAX: usize = 48;

const WEEK_DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// `Mon, `
const WEEK_DAY_BYTES_MAX: usize = 5;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Days since 1970 of a day of the Gregorian calendar.
pub(super) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March here, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The year of a moment.
pub(super) fn year_of(epoch_s: i64) -> i64 {
    let mut year = 1970 + epoch_s / (366 * DAY_S);
    while days_of(year + 1, 1, 1).saturating_mul(DAY_S) <= epoch_s && year < 10_000 {
        year += 1;
    }
    year
}

impl Time {
    /// Whether it may mean a moment between two, given what it leaves open.
    pub fn lies_in(&self, from_s: i64, to_s: i64) -> bool {
        let (from_s, to_s) = (from_s.saturating_sub(SLACK_S + self.lasts_s - 1), to_s.saturating_add(SLACK_S));
        match self.precision {
            Precision::Moment { .. } => (from_s..=to_s).contains(&self.epoch_s),
            Precision::Local => (WEST_S..=EAST_S)
                .step_by(ZONE_STEP_S as usize)
                .any(|offset_s| (from_s..=to_s).contains(&(self.epoch_s - offset_s))),
            Precision::Day => self.epoch_s - EAST_S <= to_s && self.epoch_s + DAY_S - WEST_S > from_s,
            Precision::Clock => {
                to_s - from_s < DAY_S / 4
                    && (WEST_S..=EAST_S)
                        .step_by(ZONE_STEP_S as usize)
                        .any(|offset_s| (self.epoch_s - offset_s - from_s).rem_euclid(DAY_S) <= to_s - from_s)
            }
            Precision::Year => {
                let years = year_of(from_s.max(0))..=year_of(to_s.max(0));
                years.contains(&year_of(self.epoch_s))
            }
        }
    }
}

/// Reads bytes from a position on.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// Of the last time of a day that was read.
    lasts_s: i64,
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn eat(&mut self, any_of: &[u8]) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        any_of.contains(&byte).then(|| {
            self.at += 1;
            byte
        })
    }

    /// Between so many and so many digits, and no digit after them.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let digits =
            self.text[self.at.min(self.text.len())..].iter().take(most).take_while(|b| b.is_ascii_digit()).count();
        if digits < least {
            return None;
        }
        let number = self.text[self.at..self.at + digits].iter().fold(0, |sum, b| sum * 10 + i64::from(b - b'0'));
        self.at += digits;
        Some(number)
    }

    fn fixed(&mut self, digits: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        self.number(digits, digits).filter(|number| range.contains(number))
    }

    fn letters(&mut self) -> String {
        let rest = &self.text[self.at.min(self.text.len())..];
        let count = rest.iter().take(10).take_while(|byte| byte.is_ascii_alphabetic()).count();
        let word = rest[..count].iter().map(|byte| byte.to_ascii_lowercase() as char).collect();
        self.at += count;
        word
    }

    fn spaces(&mut self) -> bool {
        let before = self.at;
        while self.at - before < 4 && self.eat(b" ,").is_some() {}
        self.at > before
    }

    fn month(&mut self) -> Option<i64> {
        let word = self.letters();
        if word.len() < 3 {
            return None;
        }
        let position =
            MONTHS.iter().position(|month| *month == word || (word.len() == 3 && month.starts_with(&word)))?;
        Some(position as i64 + 1)
    }

    /// `02:13`, `02:13:53`, `02:13:53.123`, `02-13-53` after a day; seconds since midnight.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.fixed(2, 0..=23)?;
        let between = self.eat(b":-h")?;
        let minute = self.fixed(2, 0..=59)?;
        let mut second = 0;
        self.lasts_s = 60;
        let before = self.at;
        if self.eat(&[between]).is_some() {
            match self.fixed(2, 0..=60) {
                Some(read) => (second, self.lasts_s) = (read, 1),
                None => self.at = before,
            }
        }
        if self.peek() == b'.' && self.text.get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            while self.peek().is_ascii_digit() {
                self.at += 1;
            }
        }
        (!self.peek().is_ascii_digit()).then_some(hour * 3600 + minute * 60 + second)
    }

    /// `Z`, `UTC`, `GMT`, `+0200`, `+02:00`, `+12`, behind at most one space.
    fn zone(&mut self) -> Option<i64> {
        let before = self.at;
        let _ = self.eat(b" ");
        let zone = self.zone_word();
        if zone.is_none() {
            self.at = before;
        }
        zone
    }

    fn zone_word(&mut self) -> Option<i64> {
        if let Some(sign) = self.eat(b"+-") {
            let hours = self.fixed(2, 0..=14)?;
            let _ = self.eat(b":");
            let minutes = self.fixed(2, 0..=59).unwrap_or(0);
            let seconds = hours * 3600 + minutes * 60;
            return (!self.peek().is_ascii_digit()).then_some(if sign == b'-' { -seconds } else { seconds });
        }
        matches!(self.letters().as_str(), "z" | "utc" | "gmt").then_some(0)
    }
}

fn is_day(year: i64, month: i64, day: i64) -> bool {
    (1980..=2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)
}

/// `2026-12-01`, `2026/12/01`, `2026.12.01`, `20261201`, each with or without a time of the day after it, as `T02:13:53Z` or `021353`.
fn iso(text: &[u8], at: usize) -> Option<Time> {
    let mut reader = Reader { text, at, lasts_s: 1 };
    let year = reader.fixed(4, 1980..=2100)?;
    let between = reader.eat(b"-/.:");
    let month = reader.fixed(2, 1..=12)?;
    if let Some(between) = between {
        reader.eat(&[between])?;
    }
    let day = reader.fixed(2, 1..=31)?;
    let midnight_s = days_of(year, month, day) * DAY_S;
    let day_end = reader.at;
    let is_glued = reader.peek().is_ascii_digit();
    if between.is_none() && !is_word_of_its_own(text, at, reader.at) {
        return None;
    }
    if is_glued || (between.is_none() && matches!(reader.peek(), b'T' | b'-' | b'_' | b'.')) {
        let _ = reader.eat(b"T-_.");
        let clock = compact_clock(&mut reader);
        if let Some(clock_s) = clock {
            let zone = reader.zone();
            return Some(with_zone(at..reader.at, midnight_s + clock_s, zone, reader.lasts_s));
        }
        if is_glued {
            return None;
        }
        reader.at = day_end;
    }
    if reader.eat(b"T _-").is_some() {
        while reader.eat(b" ").is_some() {}
        if let Some(clock_s) = reader.clock() {
            let zone = reader.zone();
            return Some(with_zone(at..reader.at, midnight_s + clock_s, zone, reader.lasts_s));
        }
    }
    Some(Time { range: at..day_end, epoch_s: midnight_s, precision: Precision::Day, lasts_s: 1 })
}

/// Whether the digits from a position on are no part of a longer hexadecimal number or name.
fn is_word_of_its_own(text: &[u8], at: usize, read_to: usize) -> bool {
    let before = if at == 0 { b' ' } else { text[at - 1].to_ascii_lowercase() };
    let digits = text[read_to..].iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    let after = text.get(read_to + digits).map_or(b' ', u8::to_ascii_lowercase);
    !before.is_ascii_hexdigit() && before != b'x' && (!after.is_ascii_alphanumeric() || matches!(after, b't' | b'z'))
}

/// `021353` or `0213`.
fn compact_clock(reader: &mut Reader) -> Option<i64> {
    let hour = reader.fixed(2, 0..=23)?;
    let minute = reader.fixed(2, 0..=59)?;
    let second = reader.fixed(2, 0..=60);
    reader.lasts_s = if second.is_some() { 1 } else { 60 };
    let second = second.unwrap_or(0);
    (!reader.peek().is_ascii_digit()).then_some(hour * 3600 + minute * 60 + second)
}

fn with_zone(range: Range<usize>, local_s: i64, zone: Option<i64>, lasts_s: i64) -> Time {
    match zone {
        Some(offset_s) => {
            Time { range, epoch_s: local_s - offset_s, precision: Precision::Moment { offset_s }, lasts_s }
        }
        None => Time { range, epoch_s: local_s, precision: Precision::Local, lasts_s },
    }
}

/// `Dec  1 2026`, `December 1, 2026`, `Dec 1 02:13:53 2026`, `Dec  1 02:13:53 UTC 2026`, `Dec  1 2026 02:13:53`.
fn month_first(text: &[u8], at: usize) -> Option<Time> {
    let mut reader = Reader { text, at, lasts_s: 1 };
    let month = reader.month()?;
    if !reader.spaces() {
        return None;
    }
    let day = reader.number(1, 2)?;
    if !reader.spaces() {
        return None;
    }
    let before = reader.at;
    let mut clock_s = reader.clock();
    let mut zone = None;
    if clock_s.is_some() {
        zone = reader.zone();
        if !reader.spaces() {
            return None;
        }
        if !reader.peek().is_ascii_digit() {
            // A zone that is only a name.
            let _ = reader.letters();
            let _ = reader.spaces();
        }
    } else {
        reader.at = before;
    }
    let year = reader.fixed(4, 1980..=2100)?;
    if !is_day(year, month, day) || reader.peek().is_ascii_digit() {
        return None;
    }
    let mut end = reader.at;
    if clock_s.is_none() && reader.spaces() {
        clock_s = reader.clock();
        if clock_s.is_some() {
            zone = reader.zone();
            end = reader.at;
        }
    }
    Some(day_and_clock(at..end, days_of(year, month, day), clock_s.map(|clock_s| (clock_s, reader.lasts_s)), zone))
}

/// `1 Dec 2026`, `01-Dec-2026`, `Tue, 01 Dec 2026 02:13:53 +0000`, from the day on.
fn day_first(text: &[u8], at: usize) -> Option<Time> {
    let mut reader = Reader { text, at, lasts_s: 1 };
    let day = reader.number(1, 2)?;
    reader.eat(b" -/")?;
    let month = reader.month()?;
    let _ = reader.eat(b",.");
    reader.eat(b" -/")?;
    let year = reader.fixed(4, 1980..=2100)?;
    if !is_day(year, month, day) || reader.peek().is_ascii_digit() {
        return None;
    }
    let mut end = reader.at;
    let (mut clock_s, mut zone) = (None, None);
    if reader.spaces() {
        clock_s = reader.clock();
        if clock_s.is_some() {
            zone = reader.zone();
            end = reader.at;
        }
    }
    Some(day_and_clock(at..end, days_of(year, month, day), clock_s.map(|clock_s| (clock_s, reader.lasts_s)), zone))
}

fn day_and_clock(range: Range<usize>, days: i64, clock: Option<(i64, i64)>, zone: Option<i64>) -> Time {
    match clock {
        Some((clock_s, lasts_s)) => with_zone(range, days * DAY_S + clock_s, zone, lasts_s),
        None => Time { range, epoch_s: days * DAY_S, precision: Precision::Day, lasts_s: 1 },
    }
}

/// A number of 10, 13, 16 or 19 digits: seconds, milliseconds, microseconds or nanoseconds since 1970, between 2001 and 2096.
fn since_epoch(text: &[u8], at: usize) -> Option<Time> {
    let digits = text[at..].iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    if !matches!(digits, 10 | 13 | 16 | 19) || !is_word_of_its_own(text, at, at) || !(b'1'..=b'3').contains(&text[at]) {
        return None;
    }
    let seconds = text[at..at + 10].iter().fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
    let mut end = at + digits;
    // `1764555233.512`
    if digits == 10 && text.get(end) == Some(&b'.') {
        let fraction = text[end + 1..].iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
        end += if fraction > 0 { fraction + 1 } else { 0 };
    }
    Some(Time { range: at..end, epoch_s: seconds, precision: Precision::Moment { offset_s: 0 }, lasts_s: 1 })
}

/// `02:13:53`, and nothing that tells the day.
fn clock_alone(text: &[u8], at: usize) -> Option<Time> {
    let mut reader = Reader { text, at, lasts_s: 1 };
    let clock_s = reader.clock()?;
    (text[at + 2] == b':' && reader.at >= at + 8 && reader.peek() != b':').then_some(Time {
        range: at..reader.at,
        epoch_s: clock_s,
        precision: Precision::Clock,
        lasts_s: 1,
    })
}

/// `2026`, and nothing that tells more.
fn year_alone(text: &[u8], at: usize) -> Option<Time> {
    let mut reader = Reader { text, at, lasts_s: 1 };
    let year = reader.fixed(4, 1990..=2100)?;
    let is_alone = !reader.peek().is_ascii_alphanumeric() && reader.peek() != b'.';
    is_alone.then_some(Time {
        range: at..reader.at,
        epoch_s: days_of(year, 1, 1) * DAY_S,
        precision: Precision::Year,
        lasts_s: 1,
    })
}

/// How much before a time names its day of the week: `Mon `, `Mon, `.
fn week_day_before(text: &[u8]) -> usize {
    let spaces = text.iter().rev().take(2).take_while(|byte| b" ,".contains(byte)).count();
    let word = &text[..text.len() - spaces];
    let is_day = spaces > 0 && WEEK_DAYS.iter().any(|day| word.ends_with(day.as_bytes()));
    let begins = |before: Option<&u8>| !before.is_some_and(u8::is_ascii_alphabetic);
    if is_day && begins(word[..word.len().saturating_sub(3)].last()) { spaces + 3 } else { 0 }
}

/// The longest time that touches a stretch of a text, if any.
///
/// Looks at no more than [`TIME_BYTES_MAX`] bytes before the stretch, however long that is.
pub(super) fn time_at(text: &[u8], stretch: &Range<usize>) -> Option<Time> {
    let from = stretch.start.saturating_sub(TIME_BYTES_MAX);
    let to = stretch.end.min(stretch.start + TIME_BYTES_MAX).max(stretch.start + 1).min(text.len());
    let window_end = (to + TIME_BYTES_MAX).min(text.len());
    let text = &text[..window_end];
    let mut best: Option<Time> = None;
    for at in from..(to + WEEK_DAY_BYTES_MAX).min(text.len()) {
        let before = if at == 0 { 0 } else { text[at - 1] };
        let byte = text[at];
        let read = if byte.is_ascii_digit() && !before.is_ascii_digit() {
            let found = iso(text, at).or_else(|| since_epoch(text, at)).or_else(|| day_first(text, at));
            let found = found.or_else(|| clock_alone(text, at));
            found.or_else(|| if before == b'.' || before.is_ascii_alphanumeric() { None } else { year_alone(text, at) })
        } else if byte.is_ascii_alphabetic() && !before.is_ascii_alphabetic() {
            month_first(text, at)
        } else {
            None
        };
        let Some(mut time) = read else { continue };
        time.range.start -= week_day_before(&text[..time.range.start]);
        let touches = time.range.start < stretch.end.max(stretch.start + 1) && stretch.start < time.range.end.max(1);
        let is_longer = best.as_ref().is_none_or(|best| time.range.len() > best.range.len());
        if touches && is_longer {
            best = Some(time);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<(&str, i64, Precision)>) {
        let marked = text.find('^').expect("the stretch is marked");
        let plain = text.replace('^', "");
        let time = time_at(plain.as_bytes(), &(marked..marked + 1));
        let told = time.map(|time| (plain[time.range.clone()].to_owned(), time.epoch_s, time.precision));
        assert_eq!(told, expect.map(|(text, epoch_s, precision)| (text.to_owned(), epoch_s, precision)), "{text}");
    }

    const UTC: Precision = Precision::Moment { offset_s: 0 };
    const T: i64 = 1_764_555_233;
    const MIDNIGHT: i64 = 1_764_547_200;

    #[test]
    fn times_are_read_in_the_ways_people_write_them() {
        check("at 2025-12-01T02:13:^53Z.", Some(("2025-12-01T02:13:53Z", T, UTC)));
        check(
            "at 2025-12-01T04:13:^53+02:00.",
            Some(("2025-12-01T04:13:53+02:00", T, Precision::Moment { offset_s: 7200 })),
        );
        check("at 2025-12-01 02:13:^53", Some(("2025-12-01 02:13:53", T, Precision::Local)));
        check("at 2025-^12-01, so", Some(("2025-12-01", MIDNIGHT, Precision::Day)));
        check("v20251201.^1", None);
        check("v2025^1201-1", Some(("20251201", MIDNIGHT, Precision::Day)));
        check("20251201^021353", Some(("20251201021353", T, Precision::Local)));
        check("Mon Dec  1 02:1^3:53 UTC 2025", Some(("Mon Dec  1 02:13:53 UTC 2025", T, UTC)));
        check("Mon Dec  1 02:1^3:53 2025", Some(("Mon Dec  1 02:13:53 2025", T, Precision::Local)));
        check("Mon, 01 Dec 2025 02:^13:53 +0000", Some(("Mon, 01 Dec 2025 02:13:53 +0000", T, UTC)));
        check("\"Dec  ^1 2025\"", Some(("Dec  1 2025", MIDNIGHT, Precision::Day)));
        check("December ^1, 2025", Some(("December 1, 2025", MIDNIGHT, Precision::Day)));
        check("t=17645^55233;", Some(("1764555233", T, UTC)));
        check("t=17645^55233512;", Some(("1764555233512", T, UTC)));
        check("\"02:13:^53\"", Some(("02:13:53", 2 * 3600 + 13 * 60 + 53, Precision::Clock)));
        check("(c) 20^25 Ann", Some(("2025", days_of(2025, 1, 1) * DAY_S, Precision::Year)));
    }

    #[test]
    fn what_only_looks_like_a_time_is_none() {
        for text in [
            "2.6.7^8",
            "call 55512^34567890",
            "2025-13-^41",
            "0x2025^1201021353aa9",
            "Marvin ^1 2025 x",
            "9999999^999",
            "a^bc",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_time_that_leaves_something_open_may_mean_any_of_it() {
        let time = |text: &str| time_at(text.as_bytes(), &(0..1)).unwrap();
        assert!(time("2025-12-01T02:13:53Z").lies_in(T - 1, T + 1));
        assert!(!time("2025-12-01T02:13:53Z").lies_in(T + 3600, T + 3700));
        assert!(time("2025-12-01 03:13:53").lies_in(T, T), "an hour east");
        assert!(!time("2025-12-01 03:20:53").lies_in(T, T), "no zone is so far east");
        assert!(time("2025-12-01").lies_in(T, T) && !time("2025-12-04").lies_in(T, T));
        assert!(time("02:13:53").lies_in(T, T) && !time("02:20:53").lies_in(T, T));
        assert!(time("2025").lies_in(T, T) && !time("2024").lies_in(T, T));
        assert_eq!(year_of(T), 2025);
    }
}
