//! What tasks of one table have in common: a value that depends on nothing of the package, or nothing of the matrix, is lowered once.
//! Knows no table and lowers nothing.
//!
//! Why that is exact: a value is a function of the table over its templates, which is one and the same here, and of what `Names` gives,
//! which notes whatever it is asked for. A value that came with anything said about it is not kept, and neither are parts.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::base::label::Matrix;
use crate::manifest::glob::PatternList;
use crate::manifest::interpolate::Asked;
use crate::manifest::model::{Command, Inputs, Need, RunTerms, ServiceUse};

/// The values of a task.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) needs: OnceLock<Arc<[Need]>>,
    pub(crate) services: OnceLock<Arc<[ServiceUse]>>,
    pub(crate) tags: OnceLock<Arc<[String]>>,
    pub(crate) command: OnceLock<Option<Command>>,
    pub(crate) inputs: OnceLock<Inputs>,
    pub(crate) scratch: OnceLock<PatternList>,
    pub(crate) terms: OnceLock<Arc<RunTerms>>,
}

/// Values of one template, for all packages that have a task of it.
#[derive(Debug, Default)]
pub(crate) struct Everywhere {
    alike: Values,
    combinations: OnceLock<Combinations>,
}

/// A matrix, and the values that depend on it.
#[derive(Debug)]
struct Combinations {
    all: Vec<Arc<Matrix>>,
    values: Vec<Values>,
}

impl Everywhere {
    /// The combinations of the matrix, if they were kept.
    pub(crate) fn combinations(&self) -> Option<&[Arc<Matrix>]> {
        self.combinations.get().map(|kept| kept.all.as_slice())
    }

    /// Keeps them in byte order, which is that of the labels; a matrix depends on no package.
    pub(crate) fn keep_combinations(&self, all: &[Arc<Matrix>]) {
        self.combinations.get_or_init(|| {
            let mut all = all.to_vec();
            all.sort();
            Combinations { values: all.iter().map(|_| Values::default()).collect(), all }
        });
    }
}

/// Values of the templates that `[[apply]]` gives to packages.
#[derive(Debug, Default)]
pub(crate) struct KeptTemplates {
    by_name: BTreeMap<String, Everywhere>,
}

impl KeptTemplates {
    /// Nothing yet, of templates of these names.
    pub(crate) fn of<'n>(names: impl Iterator<Item = &'n String>) -> Self {
        Self { by_name: names.map(|name| (name.clone(), Everywhere::default())).collect() }
    }

    /// Those of one template.
    pub(crate) fn template(&self, name: &str) -> Option<&Everywhere> {
        self.by_name.get(name)
    }
}

/// Where the values of one task may be kept.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a> {
    /// For the tasks of the table in this package.
    pub(crate) package: &'a Values,
    /// For those in all packages, and the number of the combination; `None` for a table that no other package has.
    pub(crate) everywhere: Option<(&'a Everywhere, usize)>,
}

impl Kept<'_> {
    fn of_combination(&self) -> Option<&Values> {
        let (everywhere, number) = self.everywhere?;
        everywhere.combinations.get()?.values.get(number)
    }

    /// A value that was kept.
    pub(crate) fn get<T: Clone>(&self, slot: fn(&Values) -> &OnceLock<T>) -> Option<T> {
        let alike = self.everywhere.map(|(everywhere, _)| &everywhere.alike);
        let places = [Some(self.package), alike, self.of_combination()];
        places.into_iter().flatten().find_map(|values| slot(values).get().cloned())
    }

    /// Keeps a value for whom it is the same, and gives the one that was kept first.
    pub(crate) fn keep<T: Clone>(&self, slot: fn(&Values) -> &OnceLock<T>, asked: Asked, value: T) -> T {
        let place = match asked {
            Asked { package: false, matrix: false } => {
                Some(self.everywhere.map_or(self.package, |(everywhere, _)| &everywhere.alike))
            }
            Asked { package: true, matrix: false } => Some(self.package),
            Asked { package: false, matrix: true } => self.of_combination(),
            Asked { package: true, matrix: true } => None,
        };
        match place {
            Some(values) => slot(values).get_or_init(|| value).clone(),
            None => value,
        }
    }
}
