//! What is varied, and with what: values that are known again wherever they come to lie. Builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::audit::context::Planted;
use crate::engine::rebuild::Arrangement;
use crate::sandbox::spec::{HOME_DIR, HOST_NAME, WORKSPACE_DIR};
use crate::sandbox::surroundings::{Dimension, DirOrder, Ground, Identity, Surroundings};

/// Dimensions as a set, in order.
pub type Dimensions = BTreeSet<Dimension>;

/// How far the clock of a varied build is ahead: year, month, day, weekday, hour and minute are others.
const CLOCK_AHEAD: Duration = Duration::from_secs((398 * 24 + 7) * 3600 + 13 * 60);

/// What a clock that stands still is given: so far after the hour in which the audit of a task began, which every build of it is before.
const CLOCK_STANDS_AFTER: Duration = Duration::from_secs(48 * 3600 + 1800);

/// An hour in milliseconds.
const HOUR_MS: i64 = 3_600_000;

/// Number of the user of a varied build; fits into a header of ustar.
const USER_ID: u32 = 471_147;
/// Number of its group.
const GROUP_ID: u32 = 471_148;

/// Locales that a varied build is given, best first: another order of letters, other names of months, another character set.
const LOCALES: [&str; 3] = ["et_EE.UTF-8", "de_DE.UTF-8", "C"];

/// The dimensions that a build can be held fast in, the likeliest first.
pub const PINS: [Dimension; 4] = [Dimension::HashSeed, Dimension::Clock, Dimension::Cpus, Dimension::Aslr];

/// Variables that each dimension sets. Where the task sets one itself, that is its own business and the dimension is left alone.
const VARIABLES: [(Dimension, &[&str]); 4] = [
    (Dimension::Home, &["HOME"]),
    (Dimension::TimeZone, &["TZ"]),
    (Dimension::Locale, &["LC_ALL"]),
    (Dimension::HashSeed, &["PYTHONHASHSEED"]),
];

/// The variable that a task sets itself, so that a dimension is not varied.
pub fn set_by_task(dimension: Dimension, is_set: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let (_, names) = VARIABLES.iter().find(|(one, _)| *one == dimension)?;
    names.iter().find(|name| is_set(name)).copied()
}

/// What is planted in the builds of one task.
#[derive(Clone, Debug)]
pub struct Marks {
    /// Eight hexadecimal digits that nothing else has.
    pub id: String,
    /// When its audit began, in milliseconds since 1970.
    pub began_ms: i64,
    /// The locale of varied builds.
    pub locale: &'static str,
}

/// A build as it is to be.
#[derive(Clone, Debug, Default)]
pub struct Variation {
    /// What is around it.
    pub arrangement: Arrangement,
    /// What is planted in it, with what a plain build has.
    pub planted: Vec<Planted>,
    /// How far its clock is ahead, in seconds.
    pub ahead_s: i64,
}

impl Marks {
    /// New ones.
    pub fn new(id: String, began_ms: i64) -> Self {
        Self { id, began_ms, locale: LOCALES[0] }
    }

    /// The same with the next best locale; `None` after the last.
    pub fn with_next_locale(&self) -> Option<Self> {
        let at = LOCALES.iter().position(|one| *one == self.locale)?;
        Some(Self { locale: LOCALES.get(at + 1)?, ..self.clone() })
    }

    /// The build in which some dimensions have another value, and some are held fast, at `now_ms` since 1970.
    pub fn variation(&self, varied: &Dimensions, pinned: &Dimensions, now_ms: i64) -> Variation {
        let mut variation = Variation::default();
        if varied.is_empty() && pinned.is_empty() {
            return variation;
        }
        let mut surroundings = Surroundings::default();
        for dimension in varied {
            self.vary(*dimension, &mut surroundings, &mut variation);
        }
        for dimension in pinned {
            self.pin(*dimension, &mut surroundings, &mut variation, now_ms);
        }
        variation.ahead_s = i64::try_from(surroundings.clock_ahead.as_secs()).unwrap_or(i64::MAX);
        variation.arrangement.surroundings = Some(surroundings);
        variation
    }

    fn vary(&self, dimension: Dimension, surroundings: &mut Surroundings, variation: &mut Variation) {
        let id = &self.id;
        let Variation { arrangement, planted, .. } = variation;
        let mut plant = |a: &str, b: &str| {
            planted.push(Planted { dimension, a: a.into(), b: b.into() });
        };
        match dimension {
            Dimension::BuildPath => {
                surroundings.workspace_dir = format!("/drystone-audit-path-{id}/workspace");
                plant(WORKSPACE_DIR, &surroundings.workspace_dir);
            }
            Dimension::HostName => {
                surroundings.host_name = format!("audit-host-{id}");
                surroundings.domain_name = Some(format!("audit-domain-{id}"));
                plant(HOST_NAME, &surroundings.host_name);
                plant("(none)", &format!("audit-domain-{id}"));
            }
            Dimension::User => {
                let (user, group) = (format!("audit-user-{id}"), format!("audit-group-{id}"));
                arrangement.env.extend(["USER", "LOGNAME"].map(|name| (name.to_owned(), user.clone())));
                plant("drystone", &user);
                plant("drystone", &group);
                plant("1000", &USER_ID.to_string());
                plant("1000", &GROUP_ID.to_string());
                surroundings.identity = Some(Identity { user, group, uid: USER_ID, gid: GROUP_ID });
            }
            Dimension::Home => {
                let home = format!("{HOME_DIR}-{id}");
                plant(HOME_DIR, &home);
                arrangement.env.insert("HOME".into(), home);
            }
            Dimension::TimeZone => {
                // Always another day than in UTC.
                let hour = self.began_ms.div_euclid(3_600_000).rem_euclid(24);
                let zone = if hour >= 12 { "<AUD>-14" } else { "<AUD>+12" };
                plant("UTC", "AUD");
                arrangement.env.insert("TZ".into(), zone.into());
            }
            Dimension::Locale => {
                plant("C.UTF-8", self.locale);
                arrangement.env.extend(["LANG", "LC_ALL"].map(|name| (name.to_owned(), self.locale.to_owned())));
                arrangement.env.insert("LANGUAGE".into(), self.locale.split('.').next().unwrap_or_default().into());
            }
            Dimension::Umask => surroundings.umask = 0o002,
            Dimension::Environment => {
                let stray = format!("i-capture-the-environment-{id}");
                plant("", &stray);
                surroundings.environment_order = DirOrder::Reversed;
                arrangement.env.insert(format!("DRYSTONE_AUDIT_{}", id.to_uppercase()), stray);
            }
            Dimension::PathSuffix => {
                let suffix = format!("/i-capture-the-path-{id}");
                plant("", &suffix);
                arrangement.path_suffix = Some(suffix);
            }
            Dimension::Cpus => surroundings.cpus = Some(1),
            Dimension::DirOrder => surroundings.dir_order = DirOrder::Reversed,
            Dimension::Clock => surroundings.clock_ahead = CLOCK_AHEAD,
            Dimension::Aslr => surroundings.fixed_addresses = true,
            Dimension::HashSeed => arrangement.env.extend(hash_seed("4711")),
            Dimension::FileSystem => surroundings.ground = Ground::Disk,
            Dimension::Kernel => surroundings.old_kernel = true,
        }
    }

    fn pin(&self, dimension: Dimension, surroundings: &mut Surroundings, variation: &mut Variation, now_ms: i64) {
        match dimension {
            Dimension::HashSeed => variation.arrangement.env.extend(hash_seed("0")),
            Dimension::Cpus => surroundings.cpus = Some(1),
            Dimension::Aslr => surroundings.fixed_addresses = true,
            Dimension::Clock => {
                // It stands at the full hour before: half an hour from either end, however late the command begins.
                let hour_ms = self.began_ms.div_euclid(HOUR_MS) * HOUR_MS;
                let since = u64::try_from(now_ms - hour_ms).unwrap_or_default();
                surroundings.clock_ahead = CLOCK_STANDS_AFTER.saturating_sub(Duration::from_millis(since));
                surroundings.clock_stands = true;
            }
            // Nothing of these changes from one build to the next.
            _ => {}
        }
    }
}

fn hash_seed(seed: &str) -> BTreeMap<String, String> {
    // Perl takes its seed only where it is told not to shuffle any further.
    let all = [("PYTHONHASHSEED", seed), ("PERL_HASH_SEED", seed), ("PERL_PERTURB_KEYS", "0")];
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dimension_changes_something_and_only_its_own() {
        let marks = Marks::new("0123abcd".into(), 1_000);
        let plain = marks.variation(&Dimensions::new(), &Dimensions::new(), 1_000).arrangement;
        assert_eq!(plain, Arrangement::default());
        let mut seen = BTreeSet::new();
        for dimension in Dimension::ALL {
            let variation = marks.variation(&Dimensions::from([dimension]), &Dimensions::new(), 1_000);
            let plain = Arrangement { surroundings: Some(Surroundings::default()), ..Arrangement::default() };
            assert_ne!(variation.arrangement, plain, "{dimension:?}");
            assert!(variation.planted.iter().all(|planted| planted.dimension == dimension && planted.a != planted.b));
            assert!(seen.insert(format!("{:?}", variation.arrangement)), "{dimension:?} does what another one does");
        }
    }

    #[test]
    fn the_varied_zone_has_another_day_at_every_hour() {
        for hour in 0..24_i64 {
            let marks = Marks::new("0".into(), hour * 3_600_000 + 1);
            let variation = marks.variation(&Dimensions::from([Dimension::TimeZone]), &Dimensions::new(), 0);
            let there = match variation.arrangement.env["TZ"].as_str() {
                "<AUD>-14" => hour + 14,
                "<AUD>+12" => hour - 12,
                other => panic!("{other}"),
            };
            assert!(!(0..24).contains(&there), "{hour}");
        }
    }

    #[test]
    fn a_clock_that_stands_shows_every_build_the_same_time() {
        let marks = Marks::new("0".into(), 5_000);
        let at = |now_ms: i64| {
            let variation = marks.variation(&Dimensions::new(), &Dimensions::from([Dimension::Clock]), now_ms);
            now_ms
                + i64::try_from(variation.arrangement.surroundings.expect("some").clock_ahead.as_millis())
                    .expect("fits")
        };
        assert_eq!((at(5_000), at(9_123)), (at(77_000), at(5_001)));
    }
}
