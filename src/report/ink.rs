//! Colours by what they mean. Whether a stream takes colour is decided elsewhere; a word always stands beside the colour.

use crate::engine::event::Outcome;

/// Whether escape sequences may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Color {
    /// Text only.
    Plain,
    /// Text with ANSI colours.
    Colored,
}

/// What a colour says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ink {
    /// It went well, with work done.
    Good,
    /// It went well, without work.
    Calm,
    /// It went wrong.
    Bad,
    /// It did not come to pass, or deserves a look.
    Care,
    /// Less important than what stands beside it.
    Faint,
    /// More important than what stands beside it.
    Strong,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Ink::Good => "1;32",
            Ink::Calm => "36",
            Ink::Bad => "1;31",
            Ink::Care => "33",
            Ink::Faint => "2",
            Ink::Strong => "1",
        }
    }

    /// The ink of an outcome word.
    pub const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Hit => Ink::Calm,
            Outcome::Ran => Ink::Good,
            Outcome::Failed => Ink::Bad,
            Outcome::Skipped | Outcome::Cancelled => Ink::Care,
        }
    }
}

/// Ends every colour; written after foreign bytes that may have left one on.
pub const RESET: &str = "\x1b[0m";

/// Writes `text` in this ink, or as it is where colours are not taken.
pub fn paint(color: Color, ink: Ink, text: &str) -> String {
    match color {
        Color::Colored if !text.is_empty() => format!("\x1b[{}m{text}{RESET}", ink.code()),
        _ => text.to_owned(),
    }
}
