//! How a tree is split into layers of which most stay the same when a part of it changes. Knows sizes and names, no content.
//!
//! Files that change together are a group: a Debian package, or what lies below one directory. A group of at least the mark has a
//! layer of its own; all others go by a digest of their names to the layers that are left. So where a group goes depends on nothing
//! but its name, its size and the mark, and a change of one group moves no other. The mark is the part of the whole that one layer
//! would have, rounded up to a power of two: it stays while the whole grows, and moves once when that doubles. A group that passes the
//! mark takes or leaves a layer, which moves the small ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::image::error::ImageError;
use crate::image::links::{Last, follow};
use crate::image::recipe::{Content, LayerRecipe, Member};

/// Name of the group of everything that belongs to no other, and of the layers with several groups: `rest 1 of 5`.
pub const REST: &str = "rest";

/// Layers that a tree is split into unless something else is said.
pub const BUDGET_USUAL: usize = 10;
/// Most layers that a tree is split into: runtimes take 127 in all.
pub const BUDGET_MAX: usize = 100;

/// Where Debian's package manager keeps what it knows.
const DPKG_DIR: &str = "var/lib/dpkg";
const DPKG_INFO_DIR: &str = "var/lib/dpkg/info";

/// What digests of names are derived with that say which layer a small group is in.
const PLACE_CONTEXT: &str = "drystone 2026 image layer of a small group v1";

/// Components of a directory that make a group, where that makes enough of them.
const GROUP_DEPTH: usize = 2;
/// Most components of a directory that make a group.
const GROUP_DEPTH_MAX: usize = 8;
/// Groups that are too few to split a tree by.
const GROUPS_FEW: usize = 2;

/// Files of a tree that change together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// What is in it; directories only if nothing is in them.
    pub members: BTreeSet<RelPath>,
}

/// A layer that a tree is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedLayer {
    /// Name of its group, or `rest N of M` where it is for small groups.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Groups in it, in byte order.
    pub groups: Vec<String>,
    /// What is in it.
    pub members: BTreeSet<RelPath>,
}

/// Splits groups into at most `budget` layers: first those of one group each, in byte order of their names, then those of small groups.
///
/// Errors if the budget is 0 or above [`BUDGET_MAX`].
pub fn plan(groups: Vec<Group>, budget: usize) -> Result<Vec<PlannedLayer>, ImageError> {
    if !(1..=BUDGET_MAX).contains(&budget) {
        let why = format!("a tree cannot be split into {budget} layers; say a number from 1 to {BUDGET_MAX}");
        return Err(ImageError::Assembly(why));
    }
    let mark = mark(&groups, budget);
    let (mut own, mut small): (Vec<Group>, Vec<Group>) =
        groups.into_iter().filter(|group| !group.members.is_empty()).partition(|group| group.bytes >= mark);
    own.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.name.cmp(&other.name)));
    small.extend(own.split_off(own.len().min(budget - 1)));
    own.sort_by(|one, other| one.name.cmp(&other.name));
    small.sort_by(|one, other| one.name.cmp(&other.name));
    let left = budget - own.len();
    let mut layers: Vec<PlannedLayer> = own.into_iter().map(|group| layer(group.name.clone(), [group])).collect();
    let mut rest: BTreeMap<usize, Vec<Group>> = BTreeMap::new();
    for group in small {
        rest.entry(place(&group.name, left)).or_default().push(group);
    }
    layers.extend(rest.into_iter().map(|(at, groups)| layer(format!("{REST} {} of {left}", at + 1), groups)));
    Ok(layers)
}

/// Bytes from which on a group has a layer of its own: of so large groups there are never more than the budget has layers.
fn mark(groups: &[Group], budget: usize) -> u64 {
    let all = groups.iter().fold(0_u64, |all, group| all.saturating_add(group.bytes));
    all.div_ceil(budget as u64).checked_next_power_of_two().unwrap_or(u64::MAX)
}

/// Which of `layers` a small group is in, from 0.
fn place(name: &str, layers: usize) -> usize {
    let digest = Digest::derived(PLACE_CONTEXT, name.as_bytes());
    let (first, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
    (u64::from_le_bytes(*first) % layers as u64) as usize
}

fn layer(name: String, groups: impl IntoIterator<Item = Group>) -> PlannedLayer {
    let mut layer = PlannedLayer { name, bytes: 0, groups: Vec::new(), members: BTreeSet::new() };
    for group in groups {
        layer.bytes = layer.bytes.saturating_add(group.bytes);
        layer.groups.push(group.name);
        layer.members.extend(group.members);
    }
    layer
}

/// The recipe of each planned layer: its members, with the directories above them as the whole has them.
///
/// Errors if the plan is not one of this recipe, and if the recipe hides anything: what would be hidden then were other layers of it.
pub fn split(recipe: &LayerRecipe, layers: &[PlannedLayer]) -> Result<Vec<LayerRecipe>, ImageError> {
    let all = recipe.members();
    if let Some((path, _)) = all.iter().find(|(_, member)| member.content.hides()) {
        let why = "it hides something, and a tree that does is not split into layers".to_owned();
        return Err(ImageError::Entry { path: path.as_str().to_owned(), why });
    }
    let part = |layer: &PlannedLayer| {
        let mut part = LayerRecipe::new(recipe.epoch())?;
        for path in &layer.members {
            let member = all.get(path).ok_or_else(|| ImageError::Entry {
                path: path.as_str().to_owned(),
                why: "it is planned, and is not in the tree".into(),
            })?;
            part.put(path.clone(), member.clone())?;
            let mut above = path.parent();
            while let Some(dir) = above.filter(|dir| !part.members().contains_key(dir)) {
                if let Some(member) = all.get(&dir) {
                    part.put(dir.clone(), member.clone())?;
                }
                above = dir.parent();
            }
        }
        Ok(part)
    };
    layers.iter().map(part).collect()
}

impl Content {
    fn hides(&self) -> bool {
        matches!(self, Self::Whiteout | Self::Opaque)
    }
}

/// The packages whose lists of files a tree has, each with the path of its list: `var/lib/dpkg/info/PACKAGE.list`.
pub fn dpkg_lists(recipe: &LayerRecipe) -> Vec<(String, RelPath)> {
    let dir = RelPath::parse(DPKG_INFO_DIR).expect("it is a path");
    let list = |(path, member): (&RelPath, &Member)| {
        let name = path.strip_prefix(&dir)?;
        let package = name.as_str().strip_suffix(".list").filter(|package| !package.contains('/'))?;
        matches!(member.content, Content::File { .. }).then(|| (package.to_owned(), path.clone()))
    };
    recipe.members().iter().filter_map(list).collect()
}

/// The groups of a tree. With lists of packages, by name: a group for each package that owns something. Without: one for each of the
/// first two components of the directories that something lies in; of more components while there are at most two groups, up to
/// eight. What is owned by none, or by the package manager itself, and what lies in the root, is the group [`REST`]. Other names of a
/// file are in its group.
pub fn groups_of(recipe: &LayerRecipe, lists: &BTreeMap<String, String>) -> Vec<Group> {
    let all = recipe.members();
    if !lists.is_empty() {
        let owners = owners(all, lists);
        return grouped(all, &|path| owners.get(path).map(|owner| (*owner).to_owned()));
    }
    let by_directory = |depth| grouped(all, &|path| directory_group(path, depth));
    let mut groups = by_directory(GROUP_DEPTH);
    for depth in GROUP_DEPTH + 1..=GROUP_DEPTH_MAX {
        if groups.len() > GROUPS_FEW {
            break;
        }
        groups = by_directory(depth);
    }
    groups
}

/// Members by the name of their group.
fn grouped(all: &BTreeMap<RelPath, Member>, name_of: &dyn Fn(&RelPath) -> Option<String>) -> Vec<Group> {
    let above: BTreeSet<RelPath> = all.keys().filter_map(RelPath::parent).collect();
    let group_of = |path: &RelPath| name_of(path).unwrap_or_else(|| REST.to_owned());
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (path, member) in all {
        if member.content == Content::Dir && above.contains(path) {
            continue;
        }
        let name = match &member.content {
            Content::Hard { to } => group_of(to),
            _ => group_of(path),
        };
        let group = groups.entry(name.clone()).or_insert(Group { name, bytes: 0, members: BTreeSet::new() });
        group.bytes += member.bytes();
        group.members.insert(path.clone());
    }
    groups.into_values().collect()
}

fn directory_group(path: &RelPath, depth: usize) -> Option<String> {
    let parent = path.parent().filter(|parent| !parent.is_root())?;
    Some(parent.components().take(depth).collect::<Vec<_>>().join("/"))
}

/// Which package owns what of a tree; of several the first by name.
fn owners<'a>(all: &BTreeMap<RelPath, Member>, lists: &'a BTreeMap<String, String>) -> BTreeMap<RelPath, &'a str> {
    let dpkg = RelPath::parse(DPKG_DIR).expect("it is a path");
    let mut resolved_dirs = BTreeMap::new();
    let mut owners = BTreeMap::new();
    for (package, list) in lists {
        for line in list.lines() {
            let Ok(path) = RelPath::parse(line.trim_start_matches('/')) else { continue };
            let Some(parent) = path.parent() else { continue };
            // Lists say `/bin/sh` where `bin` is a link to `usr/bin`.
            let dir = resolved_dirs.entry(parent).or_insert_with_key(|dir| resolved(all, dir));
            let Some(dir) = dir else { continue };
            let path = dir.child(path.file_name());
            if all.contains_key(&path) && !path.starts_with(&dpkg) {
                owners.entry(path).or_insert(package.as_str());
            }
        }
    }
    owners
}

/// A directory with the links on the way followed inside the tree; `None` if they lead nowhere.
fn resolved(all: &BTreeMap<RelPath, Member>, dir: &RelPath) -> Option<RelPath> {
    let link_at = |at: &RelPath| match &all.get(at)?.content {
        Content::Link { target } => Some(target.as_str()),
        _ => None,
    };
    follow(dir, Last::Followed, link_at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::tar_writer::Access;

    fn group(name: &str, bytes: u64) -> Group {
        let members = BTreeSet::from([RelPath::parse(&format!("at/{name}")).expect("a path")]);
        Group { name: name.into(), bytes, members }
    }

    /// Names of the layers, each with its bytes and groups.
    fn told(groups: &[Group], budget: usize) -> Vec<String> {
        let layers = plan(groups.to_vec(), budget).expect("a good budget");
        layers.iter().map(|layer| format!("{} {}: {}", layer.name, layer.bytes, layer.groups.join(" "))).collect()
    }

    #[test]
    fn large_groups_are_layers_of_their_own_and_small_ones_go_by_name() {
        let groups =
            [group("c", 5), group("a", 5), group("b", 9), group("d", 5), group("e", 1), group("f", 1), group("g", 1)];
        // 27 bytes in 4 layers are 7 for each, so the mark is 8.
        assert_eq!(told(&groups, 4), ["b 9: b", "rest 2 of 3 1: f", "rest 3 of 3 17: a c d e g"]);
        assert_eq!(told(&groups, 1), ["rest 1 of 1 27: a b c d e f g"]);
        // 27 bytes in 7 layers: the mark is 4.
        assert_eq!(
            told(&groups, 7),
            ["a 5: a", "b 9: b", "c 5: c", "d 5: d", "rest 2 of 3 1: f", "rest 3 of 3 2: e g"]
        );
        // Of more than there may be, those whose names come first.
        let equal = [group("b", 4), group("a", 4), group("c", 4)];
        assert_eq!(told(&equal, 3), ["a 4: a", "b 4: b", "rest 1 of 1 4: c"]);
        assert_eq!(told(&[group(REST, 100), group("x", 1)], 2), ["rest 100: rest", "rest 1 of 1 1: x"]);
        assert_eq!(told(&[Group { members: BTreeSet::new(), ..group("x", 0) }], 3), Vec::<String>::new());
        assert!(plan(vec![], 0).is_err() && plan(vec![], BUDGET_MAX + 1).is_err());
        assert_eq!(plan(vec![group("x", u64::MAX), group("y", u64::MAX)], 1).expect("a good budget").len(), 1);
    }

    #[test]
    fn a_hundred_equal_directories_are_spread_over_all_layers() {
        let equal: Vec<Group> = (0..100).map(|at| group(&format!("usr/d{at:02}"), 1000)).collect();
        let layers = plan(equal, 7).expect("a good budget");
        let counts: Vec<usize> = layers.iter().map(|layer| layer.groups.len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 100);
        assert!(counts.len() == 7 && counts.iter().all(|count| (5..=25).contains(count)), "{counts:?}");
    }

    /// Names of the layers of which only one plan has one, or has it otherwise.
    fn changed(one: &[PlannedLayer], other: &[PlannedLayer]) -> BTreeSet<String> {
        let lacking = |these: &[PlannedLayer], those: &[PlannedLayer]| -> Vec<String> {
            these.iter().filter(|layer| !those.contains(layer)).map(|layer| layer.name.clone()).collect()
        };
        lacking(one, other).into_iter().chain(lacking(other, one)).collect()
    }

    fn sizes() -> impl Strategy<Value = (Vec<Group>, usize)> {
        let size = prop_oneof![8 => 0..300_u64, 1 => 300..9000_u64];
        let groups = prop::collection::vec(size, 1..60).prop_map(|sizes| {
            sizes.iter().enumerate().map(|(at, size)| group(&format!("g{at}"), *size)).collect::<Vec<Group>>()
        });
        (groups, 1..14_usize)
    }

    proptest! {
        #[test]
        fn every_member_is_in_exactly_one_layer((groups, budget) in sizes()) {
            let layers = plan(groups.clone(), budget).expect("a good budget");
            prop_assert!(layers.len() <= budget && layers.iter().all(|layer| !layer.members.is_empty()));
            let members: Vec<&RelPath> = layers.iter().flat_map(|layer| &layer.members).collect();
            let once: BTreeSet<&RelPath> = members.iter().copied().collect();
            prop_assert_eq!(members.len(), once.len());
            prop_assert_eq!(once, groups.iter().flat_map(|group| &group.members).collect());
            let bytes = |all: &[u64]| all.iter().sum::<u64>();
            let planned: Vec<u64> = layers.iter().map(|layer| layer.bytes).collect();
            prop_assert_eq!(bytes(&planned), bytes(&groups.iter().map(|group| group.bytes).collect::<Vec<_>>()));
            let mut turned = groups;
            turned.reverse();
            prop_assert_eq!(layers, plan(turned, budget).expect("a good budget"));
        }

        #[test]
        fn another_size_or_another_group_changes_one_layer((groups, budget) in sizes(), at in any::<prop::sample::Index>()) {
            let before = plan(groups.clone(), budget).expect("a good budget");
            let mark_before = mark(&groups, budget);
            let mut grown = groups.clone();
            let one = at.get(&groups).clone();
            grown[at.index(groups.len())].bytes += 1;
            // What passes the mark, or moves it, moves more.
            if mark(&grown, budget) == mark_before && (one.bytes < mark_before) == (one.bytes + 1 < mark_before) {
                let after = plan(grown, budget).expect("a good budget");
                prop_assert_eq!(changed(&before, &after).len(), 1, "{:?} {:?}", before, after);
            }
            let mut more = groups;
            more.insert(0, group("new", 1));
            if mark(&more, budget) == mark_before && mark_before > 1 {
                let after = plan(more, budget).expect("a good budget");
                prop_assert_eq!(changed(&before, &after).len(), 1, "{:?} {:?}", before, after);
            }
        }
    }

    fn recipe(members: &[(&str, Member)]) -> LayerRecipe {
        let mut recipe = LayerRecipe::new(7).expect("a time");
        for (path, member) in members {
            recipe.put(RelPath::parse(path).expect("a path"), member.clone()).expect("a member");
        }
        recipe
    }

    fn file(size: u64) -> Member {
        Member::file(Digest::of(b""), size, false)
    }

    fn shown(groups: &[Group]) -> Vec<String> {
        let members = |group: &Group| group.members.iter().map(RelPath::as_str).collect::<Vec<_>>().join(" ");
        groups.iter().map(|group| format!("{} {}: {}", group.name, group.bytes, members(group))).collect()
    }

    #[test]
    fn without_packages_the_groups_are_directories() {
        let hard = Content::Hard { to: RelPath::parse("opt/app/lib/a/b").expect("a path") };
        let recipe = recipe(&[
            ("readme", file(1)),
            ("etc", Member::dir()),
            ("etc/passwd", file(2)),
            ("usr/bin/sh", file(3)),
            ("usr/bin/x/y", file(4)),
            ("opt/app/lib/a/b", file(5)),
            ("usr/bin/z", Member { content: hard, access: Access::FILE }),
            ("var/empty", Member::dir()),
        ]);
        assert_eq!(
            shown(&groups_of(&recipe, &BTreeMap::new())),
            [
                "etc 2: etc/passwd",
                "opt/app 5: opt/app/lib/a/b usr/bin/z",
                "rest 1: readme",
                "usr/bin 7: usr/bin/sh usr/bin/x/y",
                "var 0: var/empty"
            ]
        );
    }

    #[test]
    fn where_directories_are_few_those_below_them_are_the_groups() {
        let names = |paths: &[&str]| {
            let members: Vec<(&str, Member)> = paths.iter().map(|path| (*path, file(1))).collect();
            let groups = groups_of(&recipe(&members), &BTreeMap::new());
            groups.into_iter().map(|group| group.name).collect::<Vec<_>>()
        };
        let modules =
            ["app/node_modules/a/x", "app/node_modules/a/y/z", "app/node_modules/b/x", "app/node_modules/c/x"];
        assert_eq!(names(&modules), ["app/node_modules/a", "app/node_modules/b", "app/node_modules/c"]);
        assert_eq!(names(&["readme", "a/b/c/d/x", "a/b/c/e/x"]), ["a/b/c/d", "a/b/c/e", "rest"]);
        assert_eq!(names(&["a/b/x", "c/d/x", "e/f/g/x"]), ["a/b", "c/d", "e/f"]);
        let deep = "1/2/3/4/5/6/7/8/9";
        assert_eq!(
            names(&[&format!("{deep}/a/x"), &format!("{deep}/b/x"), &format!("{deep}/c/x")]),
            ["1/2/3/4/5/6/7/8"]
        );
        assert_eq!(names(&["x"]), ["rest"]);
    }

    #[test]
    fn packages_own_what_their_lists_say_wherever_links_lead() {
        let recipe = recipe(&[
            ("bin", Member::link("usr/bin")),
            ("lib64", Member::link("/usr/lib/../lib64")),
            ("usr/bin/sh", file(100)),
            ("usr/lib64/ld.so", file(200)),
            ("usr/share/doc/shared", file(1)),
            ("etc/made", file(3)),
            ("var/lib/dpkg/status", file(50)),
            ("var/lib/dpkg/info/dash.list", file(60)),
            ("var/lib/dpkg/info/libc6:amd64.list", file(70)),
            ("round", Member::link("round")),
            ("tmp", Member { content: Content::Dir, access: Access { mode: 0o1777, uid: 0, gid: 0 } }),
        ]);
        let names: Vec<String> = dpkg_lists(&recipe).into_iter().map(|(package, _)| package).collect();
        assert_eq!(names, ["dash", "libc6:amd64"]);
        let lists = BTreeMap::from([
            (
                "dash".to_owned(),
                "/.\n/bin\n/bin/sh\n/usr/share/doc/shared\n/var/lib/dpkg/status\n/round/x\n".to_owned(),
            ),
            ("libc6:amd64".to_owned(), "/.\n/lib64/ld.so\n/usr/share/doc/shared\n/not/there\n/../up\n".to_owned()),
        ]);
        let groups = groups_of(&recipe, &lists);
        assert_eq!(
            shown(&groups),
            [
                "dash 101: bin usr/bin/sh usr/share/doc/shared",
                "libc6:amd64 200: usr/lib64/ld.so",
                "rest 183: etc/made lib64 round tmp var/lib/dpkg/info/dash.list var/lib/dpkg/info/libc6:amd64.list var/lib/dpkg/status"
            ]
        );
        let layers = plan(groups, 3).expect("a budget");
        let parts = split(&recipe, &layers).expect("a good tree");
        assert_eq!(parts.iter().map(LayerRecipe::bytes).sum::<u64>(), recipe.bytes());
        assert_eq!(parts.iter().map(|part| part.members().len()).sum::<usize>(), recipe.members().len());
    }

    #[test]
    fn parts_have_the_directories_of_the_whole() {
        let tmp = Member { content: Content::Dir, access: Access { mode: 0o1777, uid: 1, gid: 2 } };
        let whole =
            recipe(&[("tmp", tmp.clone()), ("tmp/a/x", file(1)), ("tmp/b/x", file(2)), ("tmp/c", Member::dir())]);
        let layers = plan(groups_of(&whole, &BTreeMap::new()), 3).expect("a budget");
        let parts = split(&whole, &layers).expect("a good tree");
        assert_eq!(parts.len(), 3);
        for part in &parts {
            assert_eq!(part.members()[&RelPath::parse("tmp").expect("a path")], tmp);
            assert_eq!(part.epoch(), 7);
        }
        let hiding = recipe(&[("x", Member::whiteout())]);
        let told = split(&hiding, &[]).expect_err("it hides").to_string();
        assert!(told.contains("hides something"), "{told}");
        let told = split(&recipe(&[]), &layers).expect_err("another tree").to_string();
        assert!(told.contains("not in the tree"), "{told}");
    }
}
