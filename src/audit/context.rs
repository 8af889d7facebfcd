//! What is known of two builds beforehand: what was planted in each, and when they ran. Finds nothing.

use crate::sandbox::surroundings::Dimension;

/// Something that can be known again in an output, planted on each side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planted {
    /// By which variation.
    pub dimension: Dimension,
    /// What the first side had: `/workspace`. Empty where it had nothing.
    pub a: String,
    /// What the second side had in its place.
    pub b: String,
}

/// When a build ran, as its command saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// When it began, in seconds since 1970.
    pub from_s: i64,
    /// When it ended.
    pub to_s: i64,
}

/// Two builds, before they are compared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// What was planted.
    pub planted: Vec<Planted>,
    /// When the first side ran.
    pub a: Span,
    /// When the second side ran.
    pub b: Span,
    /// The one dimension in which they were built differently, where it is one: whatever differs comes of it.
    pub alone: Option<Dimension>,
}
