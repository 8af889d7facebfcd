//! Where a path leads in a tree with links.

use crate::base::path::RelPath;

/// Links followed on the way to a path, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// What becomes of a link that a path ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// It is followed too.
    Followed,
    /// It is what the path names.
    Named,
}

/// Where a path leads with every link on the way followed inside the tree, whose top is `/`; the top itself as the root path. What is
/// not in the tree is passed as a directory would be. `None` behind too many links.
///
/// `link_at` gives the target of the link at a path, and `None` where there is none.
pub fn follow<'a>(path: &RelPath, last: Last, link_at: impl Fn(&RelPath) -> Option<&'a str>) -> Option<RelPath> {
    let mut left: Vec<String> = path.as_str().rsplit('/').map(str::to_owned).collect();
    let mut here = RelPath::root();
    let mut links = 0;
    while let Some(part) = left.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                here = here.parent().unwrap_or_default();
                continue;
            }
            _ => {}
        }
        let at = here.child(&part);
        let followed = last == Last::Followed || !left.is_empty();
        let Some(target) = link_at(&at).filter(|_| followed) else {
            here = at;
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return None;
        }
        if target.starts_with('/') {
            here = RelPath::root();
        }
        left.extend(target.rsplit('/').map(str::to_owned));
    }
    Some(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside_the_tree() {
        let links = [
            ("bin", "usr/bin"),
            ("usr/bin/sh", "dash"),
            ("up", "../../usr/./bin"),
            ("away", "/usr//bin/"),
            ("loop", "loop"),
            ("top", "/"),
        ];
        let link_at = |path: &RelPath| links.iter().find(|(at, _)| *at == path.as_str()).map(|(_, target)| *target);
        let cases = [
            ("bin/sh", Last::Named, Some("usr/bin/sh")),
            ("bin/sh", Last::Followed, Some("usr/bin/dash")),
            ("bin", Last::Named, Some("bin")),
            ("bin", Last::Followed, Some("usr/bin")),
            ("up/x", Last::Named, Some("usr/bin/x")),
            ("away/x", Last::Named, Some("usr/bin/x")),
            ("away", Last::Followed, Some("usr/bin")),
            ("none/x", Last::Followed, Some("none/x")),
            ("top", Last::Followed, Some("")),
            ("loop", Last::Named, Some("loop")),
            ("loop", Last::Followed, None),
            ("loop/x", Last::Named, None),
        ];
        let path = |text: &str| if text.is_empty() { RelPath::root() } else { RelPath::parse(text).expect("a path") };
        for (from, last, expect) in cases {
            assert_eq!(follow(&path(from), last, link_at), expect.map(path), "{from} {last:?}");
        }
    }
}
