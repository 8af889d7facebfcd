//! Which variations take hold in the sandbox of a task: canaries look around in it, plain and varied. Builds nothing.

use std::collections::BTreeMap;

use crate::audit::model::Effect;
use crate::audit::variation::{Dimensions, Marks, set_by_task};
use crate::engine::execute::now_ms;
use crate::engine::inspect::Case;
use crate::engine::rebuild::Arrangement;
use crate::sandbox::canary::Sight;
use crate::sandbox::spec::Level;
use crate::sandbox::surroundings::Dimension;

/// Effects by dimension, and the marks with a locale that takes hold, where there is one.
pub fn of(case: &Case<'_, '_>, marks: &Marks, asked: &Dimensions) -> (BTreeMap<Dimension, Effect>, Marks) {
    let mut effects = BTreeMap::new();
    let none = |why: String| Effect::None { why };
    if case.isolation() != Level::Namespaces {
        let why = format!("it takes the `namespaces` level, and this is `{}`", case.isolation().word());
        return (asked.iter().map(|dimension| (*dimension, none(why.clone()))).collect(), marks.clone());
    }
    let mut open = Dimensions::new();
    for dimension in asked {
        let set = set_by_task(*dimension, &|name| case.sets_variable(name));
        match (set, case.cannot_vary(*dimension)) {
            (Some(name), _) => {
                effects.insert(*dimension, none(format!("the task sets `{name}` itself")));
            }
            (None, Some(why)) => {
                effects.insert(*dimension, none(why.to_owned()));
            }
            (None, None) => {
                open.insert(*dimension);
            }
        }
    }
    let plain = match case.sight(&Arrangement::default()) {
        Ok(plain) => plain,
        Err(why) => {
            effects.extend(open.into_iter().map(|dimension| (dimension, none(why.clone()))));
            return (effects, marks.clone());
        }
    };
    let look = |marks: &Marks, dimensions: &Dimensions| {
        case.sight(&marks.variation(dimensions, &Dimensions::new(), now_ms()).arrangement)
    };
    match look(marks, &open) {
        Ok(varied) => effects.extend(open.iter().map(|one| (*one, effect(*one, &plain, &varied)))),
        // One of them cannot be made here; the others shall not suffer for it.
        Err(_) => effects.extend(open.iter().map(|one| match look(marks, &Dimensions::from([*one])) {
            Ok(varied) => (*one, effect(*one, &plain, &varied)),
            Err(why) => (*one, none(format!("it cannot be made here: {why}"))),
        })),
    }
    let mut marks = marks.clone();
    while let (Some(Effect::None { .. }), true) = (effects.get(&Dimension::Locale), open.contains(&Dimension::Locale))
        && let Some(next) = marks.with_next_locale()
    {
        marks = next;
        if let Ok(varied) = look(&marks, &Dimensions::from([Dimension::Locale])) {
            effects.insert(Dimension::Locale, effect(Dimension::Locale, &plain, &varied));
        }
    }
    (effects, marks)
}

fn effect(dimension: Dimension, plain: &Sight, varied: &Sight) -> Effect {
    match (plain.of(dimension), varied.of(dimension)) {
        (Some(first), Some(second)) if first != second => {
            Effect::Effective { first: first.to_owned(), second: second.to_owned() }
        }
        (Some(both), Some(_)) => Effect::None { why: why_not(dimension, both) },
        (None, _) | (_, None) => Effect::None { why: "it cannot be seen in this sandbox".into() },
    }
}

/// Why a dimension shows the same in both.
fn why_not(dimension: Dimension, both: &str) -> String {
    match dimension {
        Dimension::Cpus => "this machine has one processor".into(),
        Dimension::Locale => "none of the locales that are tried is installed: `locales-all` on Debian has them".into(),
        Dimension::DirOrder => "no directory of it has two entries whose order can be chosen".into(),
        _ => format!("a canary found `{both}` in both"),
    }
}
