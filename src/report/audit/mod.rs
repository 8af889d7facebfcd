//! The reports of an audit: for a person at a terminal, for CI, and as a page. As JSON it is written by `audit::wire`.

pub mod html;
mod html_bytes;
pub mod junit;
pub mod sarif;
pub mod text;
mod told;

#[cfg(test)]
mod tests;
