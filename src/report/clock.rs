//! Time passed since a report began, as a function given in, so that tests choose it. Knows no calendar.

use std::time::{Duration, Instant};

/// Tells how much time has passed since it was made.
pub type Clock = Box<dyn Fn() -> Duration + Send>;

/// A clock that starts now.
pub fn from_now() -> Clock {
    let start = Instant::now();
    Box::new(move || start.elapsed())
}
