//! One image, built 200 times by the program, each time in another place and by other means: it has one digest, which is written here.
//!
//! Every build has a store of its own, so all of it is made each time: the task that is one of its layers runs, every layer is packed,
//! every document written. What differs between two builds follows from their number alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::loudly;
use crate::support::random::Random;

/// The digest of the index of the image, in image format 1. It never changes again: what makes other bytes is another format.
const GOLDEN: &str = "sha256:39131a44356392d23dcb82bd033a80941039f6a26b81559579f15f3a2cdb267a";

/// How often it is built: half of them in memory, half for another user, a third on one processor.
const BUILDS: usize = 200;

/// How often where it can be built for one user only, which is another one than where all of it is tried.
const BUILDS_OF_ONE_USER: usize = 40;

const MANIFEST: &str = r#"
[workspace]
name = "same"

[task.gen]
run = """
mkdir -p dist/bin dist/empty dist/z/a dist/a
for name in b a C 10 9; do echo "$name" > "dist/a/$name"; done
printf '#!/bin/sh\necho stone\n' > dist/bin/run
chmod 700 dist/bin/run
ln -s ../bin/run dist/z/run
touch -d '1999-12-31' dist/a/9
seq 1 20000 > dist/z/a/numbers
"""
inputs = []
outputs = ["dist/**"]

[image.same]
platforms = ["linux/arm64", "linux/amd64"]
layers = [
  { from = ":gen", path = "dist", to = "/srv", owner = "65532:65533" },
  { files = ["tree/**"], path = "tree", to = "/usr/share/tree", exclude = ["**/*.md", "big"] },
  { files = ["tree/big"], path = "tree/big", to = "/${platform.arch}/big", mode = "0640", owner = "7" },
]
entrypoint = ["/srv/bin/run"]
env = { B = "2", A = "1", FOR = "${platform.arch}" }
labels = { z = "26", a = "1" }
annotations = { "org.example.z" = "26", "org.example.a" = "1" }
ports = ["80", "53/udp"]
"#;

/// The source files: name, content, whether it is executable.
fn sources() -> Vec<(String, Vec<u8>, bool)> {
    let mut random = Random(42);
    // More than one of the blocks that layers are compressed in.
    let mut big = Vec::with_capacity(1_200_000);
    while big.len() < 1_200_000 {
        big.extend_from_slice(format!("{} stone {}\n", random.next() % 5000, random.next()).as_bytes());
    }
    let mut all =
        vec![("tree/big".to_owned(), big, false), ("tree/readme.md".to_owned(), b"left out\n".to_vec(), false)];
    let names = ["a", "A", "b c", "ä", "z/a", "z/b/c", "z.d/x", "0", "~", "-n", "z/\u{1f642}"];
    for (number, name) in names.iter().enumerate() {
        all.push((
            format!("tree/{name}"),
            format!("{number} {name}\n").repeat(number + 1).into_bytes(),
            number.is_multiple_of(3),
        ));
    }
    let long = "long-".repeat(30);
    all.push((format!("tree/{long}/{long}"), b"a name that no plain header holds\n".to_vec(), true));
    all
}

/// Laid before the C library: reads and writes do less than they are asked to, or are interrupted, as the kernel may do at any time.
/// Each one counts itself in the file that `CUTS` names.
const SHORT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

static unsigned long *cuts;
static unsigned long state;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CUTS"), *seed = getenv("CUTS_SEED");
    int file = path ? open(path, O_RDWR) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *cuts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED || !seed) abort();
    close(file);
    cuts = page;
    state = strtoul(seed, 0, 10);
}

static unsigned long next(void) {
    unsigned long z = __atomic_add_fetch(&state, 0x9e3779b97f4a7c15UL, __ATOMIC_RELAXED);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9UL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebUL;
    return z ^ (z >> 31);
}

/* How much of `size` is done: 0 for an interruption. */
static size_t cut(size_t size) {
    unsigned long drawn = next();
    if (!cuts || size < 2 || drawn % 4 == 0) return size;
    __atomic_add_fetch(cuts, 1, __ATOMIC_RELAXED);
    return drawn % 16 == 1 ? 0 : 1 + (drawn >> 8) % (size - 1);
}

#define INTERPOSED(name, pointer, more, given)                                  \
    ssize_t name(int file, pointer bytes, size_t size more) {                   \
        ssize_t (*real)(int, pointer, size_t more) = dlsym(RTLD_NEXT, #name);   \
        size_t part = cut(size);                                                \
        if (part == 0 && size > 0) return errno = EINTR, -1;                    \
        return real(file, bytes, part given);                                   \
    }
#define NONE
#define COMMA ,
INTERPOSED(read, void *, NONE, NONE)
INTERPOSED(pread64, void *, COMMA off64_t at, COMMA at)
INTERPOSED(write, const void *, NONE, NONE)
INTERPOSED(pwrite64, const void *, COMMA off64_t at, COMMA at)
"#;

/// The library of [`SHORT`] in `dir`.
fn short_reads(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("short.c"), dir.join("short.so"));
    fs::write(&source, SHORT).expect("a file");
    let output =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output();
    let output = output.expect("cc starts, which Rust needs too");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// What differs between builds.
#[derive(Clone, Copy)]
struct Ways {
    /// A directory in memory.
    memory: bool,
    /// It can be built as another user.
    user: bool,
    /// It can be bound to one processor.
    bound: bool,
}

impl Ways {
    fn known() -> Self {
        let ends_well =
            |argv: &[&str]| Command::new(argv[0]).args(&argv[1..]).output().is_ok_and(|output| output.status.success());
        let there = |is: bool, what: &str| {
            if !is {
                loudly(&format!("NOT TESTED: one digest {what}"));
            }
            is
        };
        // Whoever is not root is that other user.
        let is_root = rustix::process::geteuid().is_root();
        let user = is_root && ends_well(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "true"]);
        Self {
            memory: there(
                fs::create_dir_all("/dev/shm").is_ok() && tempfile::tempdir_in("/dev/shm").is_ok(),
                "in memory: no /dev/shm",
            ),
            user: user || is_root && there(user, "for another user: needs setpriv (util-linux)"),
            bound: there(ends_well(&["taskset", "-c", "0", "true"]), "on one processor: needs taskset (util-linux)"),
        }
    }
}

/// Builds once and gives the digest, and words for what was special.
fn build(
    number: usize,
    ways: Ways,
    sources: &[(String, Vec<u8>, bool)],
    program: &Path,
    short: &Path,
) -> (String, Vec<&'static str>) {
    let mut random = Random(number as u64);
    let pick = |random: &mut Random, words: &[&'static str]| words[random.below(words.len())];
    let mut told = Vec::new();
    let in_memory = ways.memory && number % 2 == 1;
    let place = if in_memory { tempfile::tempdir_in("/dev/shm") } else { tempfile::tempdir() }.expect("a directory");
    told.push(if in_memory { "in memory" } else { "on disk" });
    let names = ["w", "a place", "ä/ö", "deep/er/and/deep/er/still", "-rf", "x.oci"];
    let root: PathBuf = place.path().join(pick(&mut random, &names));
    let dir = |name: &str| place.path().join(name);
    fs::create_dir_all(&root).expect("a directory");
    for name in ["home", "tmp"] {
        fs::create_dir(dir(name)).expect("a directory");
    }
    let is_other = ways.user && number % 4 >= 2;
    write(&root, sources, &mut random);
    let mut argv: Vec<String> = vec!["sh".into(), "-c".into(), "umask \"$0\"; exec \"$@\"".into()];
    argv.push(pick(&mut random, &["000", "022", "027", "077"]).into());
    if is_other {
        told.push("as another user");
        let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(place.path()).status();
        assert!(owned.expect("chown starts").success());
        argv.extend(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"].map(str::to_owned));
    }
    if ways.bound && number.is_multiple_of(3) {
        told.push("on one processor");
        argv.extend(["taskset", "-c", "0"].map(str::to_owned));
    }
    argv.push(program.display().to_string());
    argv.extend(["image", "build", "--format", "json", "-j"].map(str::to_owned));
    argv.push(pick(&mut random, &["1", "2", "5"]).into());
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).current_dir(&root).env_clear();
    command.env("PATH", std::env::var("PATH").expect("a PATH"));
    command.env("HOME", dir("home")).env("TMPDIR", dir("tmp")).env("DRYSTONE_STORE", dir("store"));
    command.env("TZ", pick(&mut random, &["UTC", "Asia/Kathmandu", "America/St_Johns", "nonsense", ""]));
    command.env("LC_ALL", pick(&mut random, &["C", "C.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8"]));
    command.env("RAYON_NUM_THREADS", pick(&mut random, &["1", "2", "3", "7"]));
    command.env("HOSTNAME", format!("host-{number}")).env("USER", pick(&mut random, &["root", "nobody", "ann"]));
    let cuts = place.path().join("cuts");
    if number % 5 == 4 {
        told.push("in short reads and writes");
        fs::write(&cuts, [0; 8]).expect("a file");
        fs::set_permissions(&cuts, fs::Permissions::from_mode(0o666)).expect("its owner");
        command.env("LD_PRELOAD", short).env("CUTS", &cuts).env("CUTS_SEED", number.to_string());
    }
    let output = command.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "build {number}, {told:?}: {}: {errors}", output.status);
    if let Ok(counted) = fs::read(&cuts) {
        let counted = u64::from_le_bytes(counted.try_into().expect("eight bytes"));
        assert!(counted > 100, "build {number}: only {counted} reads and writes were cut");
    }
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (rows[0]["digest"].as_str().expect("a digest").to_owned(), told)
}

/// Writes the workspace: files in an order of its own, with permissions and times of its own.
fn write(root: &Path, sources: &[(String, Vec<u8>, bool)], random: &mut Random) {
    let mut order: Vec<usize> = (0..sources.len()).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    for index in order {
        let (name, content, executable) = &sources[index];
        let at = root.join(name);
        fs::create_dir_all(at.parent().expect("a file in a directory")).expect("a directory");
        fs::write(&at, content).expect("a file");
        let modes = if *executable { [0o755, 0o775, 0o700] } else { [0o644, 0o664, 0o600] };
        fs::set_permissions(&at, fs::Permissions::from_mode(modes[random.below(3)])).expect("its owner");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(random.next() % 2_000_000_000);
        fs::File::options().append(true).open(&at).and_then(|file| file.set_modified(time)).expect("its owner");
    }
    fs::write(root.join("drystone.toml"), MANIFEST).expect("a file");
}

#[test]
fn an_image_has_one_digest_wherever_whenever_and_however_it_is_built() {
    let (ways, sources) = (Ways::known(), sources());
    let builds = if ways.user { BUILDS } else { BUILDS_OF_ONE_USER };
    // Another user may not be allowed to where the program lies.
    let copy = tempfile::tempdir().expect("a directory");
    let program = copy.path().join("drystone");
    fs::copy(env!("CARGO_BIN_EXE_drystone"), &program).expect("a copy");
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).expect("its owner");
    let short = short_reads(copy.path());
    let (next, found) = (AtomicUsize::new(0), Mutex::new((BTreeMap::new(), BTreeMap::new())));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= builds {
                        return;
                    }
                    let (digest, told) = build(number, ways, &sources, &program, &short);
                    let mut found = found.lock().expect("no thread panicked");
                    found.0.entry(digest).or_insert_with(Vec::new).push(number);
                    for word in told {
                        *found.1.entry(word).or_insert(0) += 1;
                    }
                }
            });
        }
    });
    let (digests, told): (BTreeMap<String, Vec<usize>>, BTreeMap<&str, usize>) =
        found.into_inner().expect("no thread panicked");
    let built: usize = digests.values().map(Vec::len).sum();
    assert_eq!(built, builds);
    assert_eq!(digests.keys().collect::<Vec<_>>(), [GOLDEN], "{digests:?} {told:?}");
    if builds == BUILDS && ways.memory && ways.bound {
        assert_eq!(
            told,
            BTreeMap::from([
                ("as another user", 100),
                ("in memory", 100),
                ("in short reads and writes", 40),
                ("on disk", 100),
                ("on one processor", 67)
            ])
        );
    }
}
