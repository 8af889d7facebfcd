//! What a panic looks like: the words, the place, exit code 70. Catches nothing.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use crate::cli::error::bug_text;
use crate::cli::exit::ExitKind;
use crate::report::ink::Color;
use crate::report::out::Out;

/// Makes every panic, on any thread, end the program with [`ExitKind::Bug`].
///
/// The whole program ends: results are recorded whole or not at all, so a store never needs a thread to say goodbye,
/// and going on beside a broken invariant is what could damage something.
pub fn install_hook(color: Color) {
    std::panic::set_hook(Box::new(move |panic| {
        let mut text = bug_text(&message(panic), panic.location().map(ToString::to_string).as_deref(), color);
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text.push_str(&backtrace.to_string());
        }
        Out::stderr().write(text.as_bytes());
        std::process::exit(i32::from(ExitKind::Bug.code()));
    }));
}

fn message(panic: &PanicHookInfo<'_>) -> String {
    let words = panic.payload_as_str().unwrap_or("unknown");
    words.strip_prefix("BUG: ").unwrap_or(words).to_owned()
}
