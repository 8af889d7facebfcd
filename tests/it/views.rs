//! What a command can tell of its inputs besides their content, and what tools believe that compare times.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{TestWorkspace, set};

/// Sources of all sizes, a small and a large output, and an output directory large enough to be shown as a whole.
const LISTED: &str = r#"
[task.made]
run = "mkdir tree tree/sub; for i in $(seq 80); do echo $i > tree/sub/$i; done; ln -s sub tree/link; head -c 300000 /dev/zero > large; echo '#!/bin/sh' > tool; chmod 700 tool"
inputs = []
outputs = ["tree/**", "large", "tool"]

[task.list]
run = """
cat src/*/* src/plain tree/sub/* large > /dev/null
find . | LC_ALL=C sort | while read path; do
    if test -d $path; then stat -c '%n %F %a %u %Y' $path; else stat -c '%n %F %a %u %h %s %X %Y' $path; fi
done | grep -v 'sub/[0-68-9]' > $TMPDIR/listing
cp $TMPDIR/listing listing
"""
inputs = ["src/**"]
needs = [":made"]
outputs = ["listing"]
"#;

/// Name, mode and modification time: reading a private copy changes when it was read last, and whoever made it owns it.
fn of_a_copy(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.iter().position(|word| word.len() == 3 && word.parse::<u16>().is_ok()).expect("a mode");
    format!("{} {} {}", words[0], words[at], words[words.len() - 1])
}

fn listed(umask: &str, age: &str, mode: &str, isolation: &str) -> String {
    let workspace = TestWorkspace::new(LISTED);
    for (name, text) in [("plain", "text\n"), ("same", "text\n"), ("empty", ""), ("run", "#!/bin/sh\n")] {
        workspace.write(&format!("src/{name}"), text);
    }
    workspace.write("src/deep/large", &"x".repeat(400_000));
    let disguise = format!(
        "chmod {mode} src/plain src/same src/empty src/deep/large; chmod u+x src/run; find src -exec touch -h -d '{age}' {{}} +"
    );
    assert!(workspace.shell(&disguise).status().expect("a shell").success());
    if mode == "0660" {
        assert!(workspace.shell("ln src/plain ../other; chmod 6775 src/run").status().expect("a shell").success());
    }
    let drystone = env!("CARGO_BIN_EXE_drystone");
    let run = |change: &str| {
        let script = format!("umask {umask}; {change}; exec {drystone} run --isolation {isolation} list --force");
        let output = workspace.shell(&script).output().expect("a shell");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listing = workspace.read("listing");
        if isolation == "namespaces" { listing } else { listing.lines().map(|line| of_a_copy(line) + "\n").collect() }
    };
    let listing = run("true");
    assert!(run("touch src/plain; chmod 0444 src/same") == listing, "after a touch");
    assert!(run("touch tree/sub/7; chmod 0400 large") == listing, "after a touch of an output");
    listing
}

#[test]
fn a_copy_of_an_input_can_be_written() {
    let workspace = TestWorkspace::new(
        "[task.a]\nrun = \"cp in.txt out.txt; echo more >> out.txt; cp -p in.txt kept.txt; cp in.txt kept.txt; cp -r dir made; echo more >> made/x\"\n\
         inputs = [\"in.txt\", \"dir/**\"]\noutputs = [\"out.txt\", \"kept.txt\", \"made\"]\n",
    );
    workspace.write("in.txt", "text\n");
    workspace.write("dir/x", "text\n");
    for level in ["namespaces", "none"] {
        workspace.events(&["a", "--isolation", level]);
        assert_eq!(
            (workspace.read("out.txt"), workspace.read("made/x")),
            ("text\nmore\n".into(), "text\nmore\n".into())
        );
    }
}

#[test]
fn what_stat_tells_of_inputs_is_the_same_in_every_clone() {
    let one = listed("022", "2001-02-03 04:05:06", "0644", "namespaces");
    let other = listed("077", "2033-02-03 04:05:06.7", "0660", "namespaces");
    assert!(one == other, "{one}\n{other}");
    let lines: Vec<&str> = one.lines().collect();
    for line in [
        "./src/plain regular file 644 1000 1 5 315619200 315619200",
        "./src/run regular file 755 1000 1 10 315619200 315619200",
        "./src/deep directory 755 1000 315619200",
        "./src/deep/large regular file 644 1000 1 400000 315619200 315619200",
        "./large regular file 644 1000 1 300000 315619200 315619200",
        "./tool regular file 755 1000 1 10 315619200 315619200",
        "./tree directory 755 1000 315619200",
        "./tree/sub/7 regular file 644 1000 1 2 315619200 315619200",
        "./tree/link symbolic link 777 1000 315619200",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{one}");
    }
}

#[test]
fn without_isolation_times_and_modes_are_the_same() {
    let inside = listed("022", "2001-02-03", "0644", "namespaces");
    let outside = listed("077", "2033-02-03", "0660", "none");
    let inside: String = inside.lines().map(|line| of_a_copy(line) + "\n").collect();
    assert!(outside == inside, "{outside}\n{inside}");
}

fn kept(workspace: &TestWorkspace) -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace.store().join("kept")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("it")).collect()
}

#[test]
fn a_large_output_is_kept_once_for_all_dependants_cannot_be_written_and_is_collected() {
    let workspace = TestWorkspace::new(
        r#"
[task.install]
run = "mkdir -p modules/a; for i in $(seq 3000); do echo $i > modules/a/$i; done"
inputs = ["lock"]
outputs = ["modules/**"]
[task.use]
run = "! echo x 2>/dev/null > modules/a/1; ! rm -f modules/a/2 2>/dev/null; cat modules/a/* | sort -n | tail -n 1 | tee out-${matrix.n}"
inputs = ["in"]
needs = [":install"]
outputs = ["out-${matrix.n}"]
matrix = { n = ["1", "2", "3"] }
"#,
    );
    workspace.write("lock", "1");
    workspace.write("in", "1");
    workspace.events(&["use"]);
    assert_eq!(workspace.read("out-2"), "3000\n");
    let first = kept(&workspace);
    assert_eq!(first.len(), 1, "{first:?}");
    let made = fs::metadata(first[0].join("a/7")).expect("it is there").modified().expect("a time");
    assert_eq!(made.duration_since(std::time::UNIX_EPOCH).expect("later").as_secs(), 315_619_200);
    let inode = |path: &PathBuf| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("it is there"));
    let before = inode(&first[0]);
    workspace.write("in", "2");
    workspace.events(&["use"]);
    assert_eq!((kept(&workspace), inode(&first[0])), (first.clone(), before));
    // What was not found whole since the machine started is compared before it is shown.
    fs::write(first[0].with_file_name("boot"), "another").expect("it can be written");
    workspace.write("in", "3");
    workspace.events(&["use"]);
    assert_eq!(inode(&first[0]), before, "it was whole");
    fs::write(first[0].with_file_name("boot"), "another").expect("it can be written");
    fs::remove_file(first[0].join("a/7")).expect("it can be removed");
    workspace.write("in", "4");
    workspace.events(&["use"]);
    assert_ne!(inode(&first[0]), before, "it was not whole");
    assert_eq!(fs::read_to_string(first[0].join("a/7")).expect("it is back"), "7\n");
    workspace.run(&["store", "gc", "--max-size", "1KiB"]).expect(0);
    assert_eq!(kept(&workspace), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(workspace.store().join("locks/kept")).expect("a directory").count(), 0);
    workspace.write("in", "5");
    workspace.events(&["use"]);
}

#[test]
fn of_very_many_sources_directories_are_kept_and_an_edit_shows() {
    let workspace = TestWorkspace::new(
        "[task.sum]\nrun = \"cat src/*/* | cksum > sum; echo x > beside; echo x > src/beside\"\ninputs = [\"src/**\"]\noutputs = [\"sum\"]\nscratch = [\"beside\", \"src/beside\"]\n",
    );
    for file in 0..2400 {
        workspace.write(&format!("src/d{}/f{file}", file % 4), &format!("{file}\n"));
    }
    let sum = || {
        workspace.events(&["sum"]);
        let expect = workspace.shell("cat src/*/* | cksum").output().expect("a shell").stdout;
        assert_eq!(workspace.read("sum").into_bytes(), expect);
    };
    sum();
    assert_eq!(kept(&workspace).len(), 4);
    workspace.write("src/d2/f2", "edited\n");
    sum();
    assert_eq!(kept(&workspace).len(), 5, "only what was edited is made anew");
    fs::remove_file(workspace.root().join("src/d3/f3")).expect("it is there");
    sum();
}

/// Makes of every source an object, if the source is newer than the last run as cargo and make would see it.
const BUILDING: &str = r#"
[task.build]
run = """
touch built
for source in src/*; do
    object=.state/$${source#src/}.o
    if ! test -e $object || test $source -nt .state/stamp; then echo $${source#src/} >> built; cat $source > $object; fi
done
for object in .state/*.o; do name=$${object#.state/}; test -e src/$${name%.o} || rm $object; done
touch .state/stamp
cat .state/*.o > out
if test -e wait/here; then touch .state/started; while :; do :; done; fi
"""
inputs = ["src/*", "{wait,src}/*"]
outputs = ["out", "built"]
caches = [".state"]
"#;

struct Building {
    workspace: TestWorkspace,
    isolation: &'static str,
}

impl Building {
    fn at(isolation: &'static str) -> Self {
        let workspace = TestWorkspace::new(BUILDING);
        workspace.write("src/a", "a1\n");
        workspace.write("src/b", "b1\n");
        Self { workspace, isolation }
    }

    /// Runs it; what comes out must be what the sources say. Gives what was built.
    #[track_caller]
    fn run(&self) -> Vec<String> {
        self.workspace.run(&["run", "--isolation", self.isolation, "--force", "build"]).expect(0);
        let all = self.workspace.shell("cat src/*").output().expect("a shell").stdout;
        assert_eq!(self.workspace.read("out").into_bytes(), all, "a wrong pass");
        self.workspace.read("built").lines().map(str::to_owned).collect()
    }

    /// Runs it; these must have been built, and perhaps others: times are whole seconds apart, and these runs are not.
    #[track_caller]
    fn builds(&self, expect: &[&str]) {
        let built = self.run();
        assert!(expect.iter().all(|name| built.iter().any(|built| built == name)), "{built:?} lacks one of {expect:?}");
    }

    /// Runs it until nothing is left to build, as it must be once the clock is past the times of the sources.
    #[track_caller]
    fn settles(&self) {
        assert!((0..1000).any(|_| self.run().is_empty()), "something is built again and again");
    }

    #[track_caller]
    fn sh(&self, script: &str) {
        assert!(self.workspace.shell(script).status().expect("a shell").success(), "{script}");
    }
}

#[test]
fn a_tool_that_trusts_times_in_its_cache_is_right_whatever_the_host_shows() {
    for isolation in ["namespaces", "none"] {
        let building = Building::at(isolation);
        building.builds(&["a", "b"]);
        building.settles();
        // An older file with other content.
        building.sh("echo a2 > ../old; touch -d 2001-01-01 ../old; cp -p ../old src/a");
        building.builds(&["a"]);
        // The same content with other times.
        building.sh("touch src/a; touch -d 2040-01-01 src/b");
        building.settles();
        // What is as it was is not built.
        building.workspace.write("src/b", "b0\n");
        assert_eq!(building.run(), ["b"]);
        building.sh("echo b1 > src/b");
        building.builds(&["b"]);
        // As a checkout of the version before does it, and back.
        building.sh("echo a1 > src/a");
        building.builds(&["a"]);
        building.sh("echo a2 > src/a; touch -d 1999-01-01 src/a");
        building.builds(&["a"]);
        // The same size, the same time.
        building.sh("touch -r src/b ../time; echo b2 > src/b; touch -r ../time src/b");
        building.builds(&["b"]);
        building.sh("rm src/b; echo c1 > src/c; touch -d 1985-01-01 src/c");
        building.builds(&["c"]);
        building.sh("mv src/c src/b");
        building.builds(&["b"]);
        building.sh("cp -p src/b ../b; echo b9 > src/b");
        building.builds(&["b"]);
        building.sh("cp -p ../b src/b");
        building.builds(&["b"]);
    }
}

#[test]
fn a_checkout_of_an_earlier_version_after_a_hit_is_built_again() {
    let building = Building::at("namespaces");
    building.builds(&["a", "b"]);
    building.workspace.write("src/a", "a2\n");
    building.builds(&["a"]);
    building.workspace.write("src/a", "a1\n");
    // The result of the first run serves; the cache knows only of the second.
    assert_eq!(building.workspace.events(&["build"]).with("hit"), set(&["//:build"]));
    building.workspace.write("src/b", "b2\n");
    building.builds(&["a", "b"]);
}

#[test]
fn a_cache_whose_times_nobody_remembers_starts_empty() {
    let building = Building::at("namespaces");
    building.builds(&["a", "b"]);
    let workspaces = fs::read_dir(building.workspace.store().join("workspaces")).expect("a directory");
    let ages = workspaces.map(|entry| entry.expect("an entry").path().join("ages")).next().expect("one workspace");
    let record = || {
        let mut files = fs::read_dir(&ages).expect("a directory").map(|entry| entry.expect("an entry").path());
        files.find(|path| path.extension().is_none()).expect("one record")
    };
    building.workspace.write("src/a", "a2\n");
    building.sh("touch -d 1990-01-01 src/a");
    let known = fs::read(record()).expect("a record");
    fs::remove_file(record()).expect("it can be removed");
    building.builds(&["a", "b"]);
    // Not even the record of before may come back unseen: it would name times of another life.
    let mut damaged = known.clone();
    damaged[20] ^= 1;
    for bytes in [damaged, known[..known.len() / 2].to_vec(), Vec::new()] {
        fs::write(record(), bytes).expect("it can be written");
        building.builds(&["a", "b"]);
        building.settles();
    }
}

#[test]
fn what_a_killed_run_wrote_is_older_than_what_changed_since_even_if_the_clock_was_wrong() {
    for isolation in ["namespaces", "none"] {
        let building = Building::at(isolation);
        building.builds(&["a", "b"]);
        building.workspace.write("wait/here", "");
        building.workspace.write("src/a", "a2\n");
        let mut child = building.workspace.command(&["run", "--isolation", isolation, "build"]);
        let mut child = child.stderr(std::process::Stdio::null()).spawn().expect("it starts");
        let cache = fs::read_dir(building.workspace.store().join("caches")).expect("a directory").next();
        let cache = cache.expect("one cache").expect("an entry").path();
        while !cache.join("started").exists() {
            assert!(child.try_wait().expect("it can be asked").is_none(), "it ended before it was killed");
            std::thread::yield_now();
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        fs::remove_file(building.workspace.root().join("wait/here")).expect("it is there");
        // As if it had run while the clock was a day ahead.
        let ahead = Command::new("touch").args(["-d", "tomorrow"]).arg(cache.join("stamp")).status();
        assert!(ahead.expect("touch starts").success());
        building.workspace.write("src/a", "a3\n");
        building.builds(&["a"]);
    }
}

#[test]
fn a_cache_that_was_left_alone_for_a_while_is_right_when_it_comes_back() {
    let building = Building::at("namespaces");
    building.builds(&["a", "b"]);
    let with = building.workspace.read("drystone.toml");
    let without = with.replace("caches = [\".state\"]", "caches = [\".other\"]").replace(".state", ".other");
    building.workspace.write("drystone.toml", &without);
    building.workspace.write("src/a", "a2\n");
    building.builds(&["a", "b"]);
    building.workspace.write("drystone.toml", &with);
    building.sh("touch -d 1990-01-01 src/a");
    building.builds(&["a"]);
}

#[test]
fn cargo_is_right_about_an_older_file() {
    // The toolchain itself: a version manager would look for it in a home that is not there.
    let Some(cargo) = std::env::var_os("CARGO").map(PathBuf::from).filter(|cargo| cargo.is_absolute()) else {
        return eprintln!("NOT TESTED: cargo, for want of CARGO in the environment");
    };
    let mut workspace = TestWorkspace::new(
        r#"
[task.build]
run = "cargo build --offline --quiet; target/debug/app > out"
inputs = ["src/**", "Cargo.*"]
tools = ["cargo", "rustc"]
outputs = ["out"]
caches = ["target"]
env = { CARGO_HOME = "/tmp/cargo" }
"#,
    );
    let path = std::env::var("PATH").expect("tests have a PATH");
    workspace.set("PATH", &format!("{}:{path}", cargo.parent().expect("in a directory").display()));
    workspace.write("Cargo.toml", "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    workspace.write("Cargo.lock", "# This file is automatically @generated by Cargo.\n# It is not intended for manual editing.\nversion = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n");
    workspace.write("src/main.rs", "mod number;\nfn main() {\n    println!(\"{}\", number::number());\n}\n");
    for number in ["1", "2", "1", "3"] {
        workspace.write("src/number.rs", &format!("pub fn number() -> u32 {{\n    {number}\n}}\n"));
        assert!(workspace.shell("touch -d 2001-01-01 src/number.rs").status().expect("a shell").success());
        workspace.run(&["run", "--force", "build"]).expect(0);
        assert_eq!(workspace.read("out"), format!("{number}\n"));
    }
}
