//! What a process finds around it in a sandbox, one value for each dimension that an audit varies: the proof that a variation took hold.

use std::collections::BTreeMap;

use crate::sandbox::surroundings::Dimension;

/// What a canary found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sight {
    values: BTreeMap<Dimension, String>,
}

impl Sight {
    /// Reads what a canary printed on its standard output: a line for each dimension, `WORD VALUE`. Lines of no known word are passed over.
    pub fn read(printed: &[u8]) -> Self {
        let text = String::from_utf8_lossy(printed);
        let values = text.lines().filter_map(|line| {
            let (word, value) = line.split_once(' ')?;
            Some((Dimension::parse(word)?, value.to_owned()))
        });
        Self { values: values.collect() }
    }

    /// What it found of a dimension, in words; `None` if it could not look.
    pub fn of(&self, dimension: Dimension) -> Option<&str> {
        self.values.get(&dimension).map(String::as_str)
    }
}
