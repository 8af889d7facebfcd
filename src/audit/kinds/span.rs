//! Why a stretch differs: first what was planted, then times, then what it looks like. One answer for each stretch.

use std::ops::Range;

use super::gather::{Reason, Stretch, quoted};
use super::planted::Markers;
use super::signatures;
use super::times::{Precision, Time, days_of, time_at};
use crate::audit::causes;
use crate::audit::context::{Context, Span};

const DAY_S: i64 = 86_400;
/// A number that is no time of the builds may still be one near them.
const NEAR_S: i64 = 2 * DAY_S;
/// Zones are so far apart at most, and so near at least.
const ZONES_APART_S: i64 = 26 * 3600;
const ZONE_STEP_S: i64 = 900;
/// Most offsets at which a binary number is looked for.
const OFFSETS_MAX: usize = 64;
/// Times of ZIP and FAT begin in 1980.
const DOS_YEAR: i64 = 1980;

/// How it is told that a few bytes may be the length or the place of something else.
pub(super) const LENGTH_LEAD: &str = "a number, perhaps a length or an offset";

/// Explains a stretch.
pub(super) fn explain(stretch: &Stretch<'_>, context: &Context, markers: &Markers) -> Reason {
    let covers = (stretch.at_a.clone(), stretch.at_b.clone());
    if let Some(planted) = markers.proven(stretch.a, &stretch.at_a, stretch.b, &stretch.at_b) {
        return Reason::of_marker(planted, covers);
    }
    let found = time(stretch, context)
        .or_else(|| if stretch.is_text { None } else { number(stretch, context) })
        .or_else(|| signatures::text(stretch, context))
        .or_else(|| if stretch.is_text { None } else { signatures::binary(stretch) });
    found.unwrap_or_else(|| {
        let (a, b) = stretch.bytes();
        let is_small = |bytes: &[u8]| bytes.len() <= 4 && !bytes.iter().any(u8::is_ascii_graphic);
        let what = match (a.is_empty(), b.is_empty()) {
            (false, false) if !stretch.is_text && is_small(a) && is_small(b) => {
                format!("{LENGTH_LEAD}: `{}` against `{}`", quoted(a), quoted(b))
            }
            (true, _) => format!("only the second build has `{}`", quoted(b)),
            (_, true) => format!("only the first build has `{}`", quoted(a)),
            _ => format!("`{}` against `{}`", quoted(a), quoted(b)),
        };
        Reason::suspected(&causes::UNKNOWN, what, covers)
    })
}

/// Whether it is known when both builds ran.
fn is_known(context: &Context) -> bool {
    context.a.from_s > 0 && context.b.from_s > 0
}

fn is_near(time: &Time, span: &Span) -> bool {
    time.lies_in(span.from_s.saturating_sub(NEAR_S), span.to_s.saturating_add(NEAR_S))
}

/// Two times in text.
fn time(stretch: &Stretch<'_>, context: &Context) -> Option<Reason> {
    let (a, b) = (time_at(stretch.a, &stretch.at_a)?, time_at(stretch.b, &stretch.at_b)?);
    let (told_a, told_b) = (&stretch.a[a.range.clone()], &stretch.b[b.range.clone()]);
    if told_a == told_b {
        return None;
    }
    let covers = (a.range.clone(), b.range.clone());
    let against = format!("`{}` against `{}`", quoted(told_a), quoted(told_b));
    let is_number = |told: &[u8]| told.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    if let (Precision::Moment { offset_s: east_a }, Precision::Moment { offset_s: east_b }) = (a.precision, b.precision)
        && east_a != east_b
        && a.epoch_s == b.epoch_s
    {
        return Some(
            Reason::suspected(&causes::TIME_ZONE, format!("one moment in two zones: {against}"), covers).proven(),
        );
    }
    let known = is_known(context);
    let in_a = known && a.lies_in(context.a.from_s, context.a.to_s);
    let in_b = known && b.lies_in(context.b.from_s, context.b.to_s);
    if in_a && in_b {
        let reason =
            Reason::suspected(&causes::TIMESTAMP_EMBEDDED, format!("the time of the build: {against}"), covers);
        return Some(if a.precision == Precision::Year { reason } else { reason.proven() });
    }
    let apart_s = (a.epoch_s - b.epoch_s).abs();
    let both_local = a.precision == Precision::Local && b.precision == Precision::Local;
    if both_local && !in_a && !in_b && apart_s > 0 && apart_s <= ZONES_APART_S && apart_s % ZONE_STEP_S == 0 {
        return Some(Reason::suspected(&causes::TIME_ZONE, format!("times a whole zone apart: {against}"), covers));
    }
    let is_vague = |time: &Time| matches!(time.precision, Precision::Year | Precision::Clock);
    if (is_vague(&a) || is_vague(&b)) && !in_a && !in_b {
        return None;
    }
    let is_far = known && !is_near(&a, &context.a) && !is_near(&b, &context.b);
    if is_far && (is_number(told_a) || is_number(told_b)) {
        return None;
    }
    Some(Reason::suspected(&causes::TIMESTAMP_EMBEDDED, format!("times: {against}"), covers))
}

/// Seconds since 1970 that eight bytes may mean, with how many of them it takes. The last is a time of ZIP and FAT, in no known zone.
fn readings(bytes: [u8; 8]) -> [(i64, usize, bool); 5] {
    let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    let wide = |number: u64| -> i64 {
        let seconds = match number {
            0..100_000_000_000 => number,
            100_000_000_000..100_000_000_000_000 => number / 1000,
            100_000_000_000_000..100_000_000_000_000_000 => number / 1_000_000,
            _ => number / 1_000_000_000,
        };
        i64::try_from(seconds).unwrap_or(i64::MAX)
    };
    let clock = i64::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let day = i64::from(u16::from_le_bytes([bytes[2], bytes[3]]));
    [
        (wide(u64::from_le_bytes(bytes)), 8, false),
        (wide(u64::from_be_bytes(bytes)), 8, false),
        (i64::from(u32::from_le_bytes(four(0))), 4, false),
        (i64::from(u32::from_be_bytes(four(0))), 4, false),
        (dos_seconds(day, clock), 4, true),
    ]
}

/// A DOS time as seconds, as if it were UTC; 0 if it is none.
fn dos_seconds(day: i64, clock: i64) -> i64 {
    let (year, month, date) = (DOS_YEAR + (day >> 9), (day >> 5) & 15, day & 31);
    let (hour, minute, second) = (clock >> 11, (clock >> 5) & 63, (clock & 31) * 2);
    let is_time = (1..=12).contains(&month) && (1..=31).contains(&date) && hour < 24 && minute < 60 && second < 60;
    if is_time { days_of(year, month, date) * DAY_S + hour * 3600 + minute * 60 + second } else { 0 }
}

/// Two numbers in binary that tell when each build ran.
fn number(stretch: &Stretch<'_>, context: &Context) -> Option<Reason> {
    if !is_known(context) {
        return None;
    }
    let back = stretch.at_a.start.min(stretch.at_b.start).min(7);
    let eight = |file: &[u8], at: usize| -> Option<[u8; 8]> {
        let mut bytes = [0; 8];
        let there = file.get(at..(at + 8).min(file.len()))?;
        bytes[..there.len()].copy_from_slice(there);
        (there.len() >= 4).then_some(bytes)
    };
    for shift in 0..(stretch.at_a.len() + back).min(OFFSETS_MAX) {
        let (at_a, at_b) = (stretch.at_a.start - back + shift, stretch.at_b.start - back + shift);
        let (Some(a), Some(b)) = (eight(stretch.a, at_a), eight(stretch.b, at_b)) else { break };
        for ((of_a, bytes, is_local), (of_b, _, _)) in readings(a).into_iter().zip(readings(b)) {
            let ends_before = at_a + bytes <= stretch.at_a.start || at_a + bytes > stretch.a.len();
            let precision = if is_local { Precision::Local } else { Precision::Moment { offset_s: 0 } };
            let lies = |epoch_s: i64, span: &Span| {
                epoch_s > 0
                    && Time { range: 0..0, epoch_s, precision, lasts_s: if is_local { 2 } else { 1 } }
                        .lies_in(span.from_s, span.to_s)
            };
            if !ends_before && of_a != of_b && lies(of_a, &context.a) && lies(of_b, &context.b) {
                let what = format!("the time of the build as a number: {of_a} against {of_b}");
                let covers: (Range<usize>, Range<usize>) = (at_a..at_a + bytes, at_b..at_b + bytes);
                return Some(Reason::suspected(&causes::TIMESTAMP_EMBEDDED, what, covers).proven());
            }
        }
    }
    None
}
