//! What differs from a commit is told alike whether git lists the tree for it or what it told last is taken, whatever happens to
//! the tree, the index and the settings.

use std::fs;

use crate::support::TestWorkspace;
use crate::support::random::{Random, number, seed};

/// Where packages are looked for: everywhere, or only there, so that no run looks at other directories.
const PACKAGES: [&str; 2] = ["", "packages = [\"a\", \"b\"]\n"];

/// A workspace in git whose calls of git are counted.
fn counted(packages: &str) -> TestWorkspace {
    let mut workspace = TestWorkspace::empty();
    let of_all = "[task.all]\nrun = \"true\"\ninputs = [\"docs/**\", \"*.txt\"]\n";
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n{packages}\n{of_all}"));
    workspace
        .write("a/drystone.toml", "[task.t]\nrun = \"mkdir -p dist; cat *.txt > dist/all\"\noutputs = [\"dist/**\"]\n");
    let of_b = "[task.u]\nrun = \"true\"\ninputs = [\"src/**\"]\n[task.v]\nrun = \"true\"\ninputs = []\nneeds = [\":u\", \"//a:t\"]\n";
    workspace.write("b/drystone.toml", of_b);
    for file in FILES {
        workspace.write(file, &format!("{file}\n"));
    }
    workspace.write(".gitignore", "dist/\n*.tmp\n");
    fs::create_dir(workspace.beside("bin")).expect("a directory");
    let path = std::env::var("PATH").expect("tests have a PATH");
    workspace.set("PATH", &format!("{}:{path}", workspace.beside("bin").display()));
    let real = std::env::split_paths(&path).map(|dir| dir.join("git")).find(|git| git.exists()).expect("git");
    let counting =
        format!("#!/bin/sh\necho \"$*\" >> {}\nexec {} \"$@\"\n", workspace.beside("calls").display(), real.display());
    let git = workspace.beside("bin/git");
    fs::write(&git, counting).expect("a script");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(git, executable).expect("it can be executed");
    for line in [
        "git config --global user.name t; git config --global user.email t@example.invalid",
        "git config --global init.defaultBranch main; git config --global protocol.file.allow always",
        "git init -q && git add -A && git commit -qm one",
    ] {
        shell(&workspace, line);
    }
    workspace
}

const FILES: [&str; 7] =
    ["a/x.txt", "a/deep/y.txt", "b/src/z.txt", "b/src/w.txt", "docs/d.md", "top.txt", "scripts/deep/run"];

/// Runs a script; whether it fails is its own matter.
fn shell(workspace: &TestWorkspace, script: &str) {
    workspace.shell(&format!("({script}) > /dev/null 2>&1")).status().expect("a shell starts");
}

/// What `affected` says, and whether git listed untracked files for that.
fn affected(workspace: &TestWorkspace, revision: &str) -> (String, bool) {
    let calls = workspace.beside("calls");
    fs::write(&calls, "").expect("a file");
    let mut words = vec!["affected", "--format", "json"];
    words.extend(Some(revision).filter(|revision| !revision.is_empty()));
    let ran = workspace.run(&words);
    let has_listed = fs::read_to_string(&calls).expect("a file").contains("--others");
    (format!("{} {}{}", ran.code, ran.stdout, ran.stderr), has_listed)
}

/// The same without what is kept.
fn anew(workspace: &mut TestWorkspace, revision: &str) -> String {
    workspace.set("DRYSTONE_ANEW", "1");
    let (said, _) = affected(workspace, revision);
    workspace.set("DRYSTONE_ANEW", "");
    said
}

/// Tells of a change, and whether git listed untracked files for that. Must be what is told without what is kept.
#[track_caller]
fn both(workspace: &mut TestWorkspace, what: &str, revision: &str) -> bool {
    let expect = anew(workspace, revision);
    let (said, has_listed) = affected(workspace, revision);
    assert_eq!(said, expect, "{what}, since {revision:?}");
    has_listed
}

/// Runs until what is kept holds, and asks once.
#[track_caller]
fn settle(workspace: &mut TestWorkspace) {
    // Signatures have to be older than a tick to be believed.
    for _ in 0..3 {
        workspace.events(&["//..."]);
        if !both(workspace, "nothing", "HEAD") && !both(workspace, "nothing", "HEAD") {
            return;
        }
    }
    panic!("nothing changed, and git was asked which files it does not track");
}

#[test]
fn git_lists_untracked_files_only_if_there_may_be_others() {
    if std::env::var_os("DRYSTONE_ANEW").is_some() {
        return;
    }
    // Whether the list is made anew once this was done.
    let table = [
        ("echo more >> a/x.txt", false),
        ("echo more >> a/x.txt; git add -A; git commit -qm two; echo yet >> a/x.txt", false),
        ("chmod +x a/x.txt", false),
        ("git commit -q --allow-empty -m empty", false),
        ("echo ignored > a/some.tmp; mkdir -p docs/dist; echo x > docs/dist/x", false),
        ("rm -rf a/dist", false),
        ("git status", false),
        ("git checkout -qb other; git update-index --index-version 4", false),
        ("git update-index --assume-unchanged a/x.txt; echo more >> a/x.txt", false),
        ("echo new > a/new.txt", true),
        ("echo new > docs/new.md", true),
        ("mkdir elsewhere; echo new > elsewhere/new", true),
        ("echo new > scripts/deep/new", true),
        ("rm a/x.txt", true),
        ("rm a/x.txt; ln -s deep/y.txt a/x.txt", true),
        ("git rm -q --cached a/x.txt", true),
        ("echo run > scripts/deep/.gitignore", true),
        ("echo x > a/forced.tmp; git add -f a/forced.tmp", true),
        ("echo '*.md' >> .git/info/exclude", true),
        ("echo '*.txt' >> a/.gitignore", true),
        ("mkdir -p $HOME/.config/git; echo '*.md' > $HOME/.config/git/ignore", true),
        ("git config core.excludesFile /dev/null", true),
        ("git update-index --split-index", true),
        ("git init -q docs/inner", true),
        ("echo '[task.w]\nrun = \"true\"' >> b/drystone.toml", true),
    ];
    for (change, lists) in table {
        for packages in PACKAGES {
            let mut workspace = counted(packages);
            settle(&mut workspace);
            shell(&workspace, change);
            assert_eq!(both(&mut workspace, change, "HEAD"), lists, "{change}, with {packages:?}");
        }
    }
}

#[test]
fn untracked_files_are_told_from_what_is_kept() {
    let mut workspace = counted(PACKAGES[0]);
    workspace.write("a/new.txt", "new\n");
    settle(&mut workspace);
    let (said, _) = affected(&workspace, "HEAD");
    assert!(said.contains("a/new.txt"), "{said}");
    shell(&workspace, "git add a/new.txt");
    both(&mut workspace, "it is added", "HEAD");
    shell(&workspace, "git commit -qm new");
    both(&mut workspace, "it is committed", "HEAD");
    assert_eq!(affected(&workspace, "HEAD").0, "0 []\n");
    shell(&workspace, "git reset -q --soft HEAD~1; git reset -q");
    both(&mut workspace, "it is untracked again", "HEAD");
}

/// A script of one random step.
fn step(random: &mut Random, number: usize) -> String {
    let names = [&FILES[..], &["a/n.txt", "a/n.tmp", "b/src/deep/n", "docs/n.md", "docs/s.tmp", "new/n.txt"]].concat();
    let file = names[random.below(names.len())];
    let other = names[random.below(names.len())];
    let dir = file.rsplit_once('/').map_or(".", |(dir, _)| dir);
    match random.below(38) {
        0..=4 => format!("echo {number} >> {file}"),
        5 | 6 => format!("mkdir -p {dir}; echo {number} > {file}"),
        7 => format!("rm -f {file}"),
        8 => format!("mv {file} {other}"),
        9 => format!("chmod +x {file}"),
        10 => format!("chmod -x {file}"),
        11 => format!("rm -f {file}; ln -s {number} {file}"),
        12 => format!("mkdir -p {dir}; cp top.txt {file}"),
        13..=15 => "git add -A".to_owned(),
        16 => format!("git add -f {file}"),
        17 => format!("git add -N {file}"),
        18 => format!("git rm -q --cached {file}"),
        19 | 20 => format!("git commit -qam {number}"),
        21 => format!("git checkout -qfb b{number}"),
        22 => "git checkout -qf $(git for-each-ref --format='%(refname:short)' refs/heads | sort -R | head -n 1)"
            .to_owned(),
        23 => "git reset -q".to_owned(),
        24 => "git reset -q --hard".to_owned(),
        25 => format!("git checkout -q HEAD -- {file}"),
        26 => "git status; git update-index --refresh".to_owned(),
        27 => format!("git update-index --assume-unchanged {file}; git update-index --skip-worktree {other}"),
        28 => "git update-index --really-refresh; git ls-files | xargs git update-index --no-skip-worktree".to_owned(),
        29 => format!("git config core.fileMode {}", ["true", "false"][random.below(2)]),
        30 => format!(
            "git config core.autocrlf {}; printf 'a\\r\\n' > {file}",
            ["true", "input", "false"][random.below(3)]
        ),
        31 => format!("echo '{file} {}' >> .gitattributes", ["text", "-text", "eol=crlf"][random.below(3)]),
        32 => format!("echo '{}' > {dir}/.gitignore", ["n*", "!n.tmp", "*.txt", "deep/"][random.below(4)]),
        33 => format!("echo '{}' > .git/info/exclude", ["n*", "docs", ""][random.below(3)]),
        34 => {
            "git merge -q $(git for-each-ref --format='%(refname:short)' refs/heads | sort -R | head -n 1)".to_owned()
        }
        35 => format!("git update-index --index-version {}", 2 + random.below(3)),
        36 => format!("rm -rf {dir}/inner; test {} = 0 && git init -q {dir}/inner", random.below(2)),
        _ => format!("git stash -q {}; test {} = 0 && git stash pop -q", ["-u", ""][random.below(2)], random.below(2)),
    }
}

fn play(seed: u64) -> [usize; 2] {
    let mut random = Random(seed);
    let mut workspace = counted(PACKAGES[random.below(2)]);
    let mut history = Vec::new();
    let mut count = [0, 0];
    for number in 0..30 {
        let script = step(&mut random, number);
        shell(&workspace, &script);
        history.push(script);
        if random.below(2) == 0 {
            drop(workspace.run(&["run", "//..."]));
            history.push("run".into());
        }
        let revision = ["HEAD", "HEAD", "HEAD~1", "main", "", "none"][random.below(6)];
        let what = format!("seed {seed}, step {number}, {history:#?}");
        count[usize::from(both(&mut workspace, &what, revision))] += 1;
    }
    count
}

#[test]
fn random_histories_are_told_alike_with_and_without_what_is_kept() {
    if let Ok(seed) = std::env::var("DRYSTONE_SEED") {
        play(seed.parse().expect("DRYSTONE_SEED is a number"));
        return;
    }
    let start = seed();
    let mut count = [0, 0];
    for round in 0..number("DRYSTONE_ROUNDS", 10) {
        // Half of the seeds are the same every time, half are new.
        let seed = if round % 2 == 0 { round } else { start + round };
        eprintln!("seed {seed}");
        let [kept, listed] = play(seed);
        count = [count[0] + kept, count[1] + listed];
    }
    let is_anew = std::env::var_os("DRYSTONE_ANEW").is_some();
    assert!(is_anew || count[0] > 20 && count[1] > 20, "told from what is kept, and asked anew: {count:?}");
}

/// Edits a source file and runs; whether git was asked for that which files it tracks, and how the run ended.
fn edited(workspace: &TestWorkspace, text: &str) -> (bool, i32) {
    let calls = workspace.beside("calls");
    fs::write(&calls, "").expect("a file");
    workspace.write("a/x.txt", text);
    let code = workspace.run(&["run", "//..."]).code;
    (fs::read_to_string(&calls).expect("a file").contains("--cached"), code)
}

#[test]
fn git_is_asked_what_it_tracks_only_where_its_index_names_other_paths() {
    if std::env::var_os("DRYSTONE_ANEW").is_some() {
        return;
    }
    let workspace = counted(PACKAGES[0]);
    // An index that was just written is not believed yet.
    let settle = |what: &str| {
        let is_quiet = (0..20).any(|round| edited(&workspace, &format!("{what} {round}\n")) == (false, 0));
        assert!(is_quiet, "{what}: git is asked in each run");
    };
    settle("begun");
    for (what, is_asked) in [
        ("git commit -qam other", false),
        ("touch .git/index", false),
        ("git status", false),
        ("git commit -q --allow-empty -m none", false),
        ("echo > docs/new.md; git add docs/new.md", true),
        ("git commit -qm more", false),
        ("git mv docs/new.md docs/other.md", true),
        ("git update-index --index-version 4; git status", false),
        ("git rm -q --cached docs/other.md", true),
        ("git update-index --split-index; git add docs/other.md", true),
        ("git update-index --no-split-index", true),
    ] {
        shell(&workspace, what);
        assert_eq!(edited(&workspace, &format!("{what}, then an edit\n")), (is_asked, 0), "{what}");
        settle(what);
    }
    shell(&workspace, "git add -f a/dist/all");
    assert_eq!(edited(&workspace, "an output is tracked\n"), (true, 2));
    shell(&workspace, "git rm -q --cached a/dist/all");
    assert_eq!(edited(&workspace, "and no more\n").1, 0);
}
