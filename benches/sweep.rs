//! What it costs to compare a census with the disk, a file: signatures that hold, in directories of 25 files.

use std::fs;

use criterion::{Criterion, Throughput};
use drystone::base::digest::Digest;
use drystone::base::path::RelPath;
use drystone::base::tree::Entry;
use drystone::fs::stat::StatKey;
use drystone::workspace::census::{Census, Draft, Role};
use drystone::workspace::sweep::sweep;

const DIRS: usize = 200;
const FILES: usize = 25;

fn main() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = place.path().canonicalize().expect("it is there");
    let mut draft = Draft::new(&root);
    for dir in 0..DIRS {
        fs::create_dir_all(root.join(format!("area/unit{dir:03}/src"))).expect("a temporary directory");
        for file in 0..FILES {
            let path = RelPath::parse(&format!("area/unit{dir:03}/src/file{file:02}.ts")).expect("a good path");
            let content = path.as_str().as_bytes();
            fs::write(root.join(path.as_str()), content).expect("a temporary file");
            let entry = Entry::File { digest: Digest::of(content), size: content.len() as u64, executable: false };
            let stat = StatKey::at(&root.join(path.as_str())).expect("it was just written");
            draft.add_entry(&path, &entry, stat, Role::Source, true).expect("no directory");
        }
    }
    let (bytes, _) = draft.finish().expect("few claims");
    let census = Census::of(&bytes).expect("as it was written");
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("sweep");
    group.throughput(Throughput::Elements((DIRS * FILES) as u64));
    group.bench_function("5,000 files as they were", |bencher| {
        bencher.iter(|| {
            let news = sweep(census, &root).expect("the root is there");
            assert!(news.is_empty(), "{news:?}");
        });
    });
    group.finish();
    criterion.final_summary();
}
