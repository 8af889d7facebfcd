//! What the digest of a tree costs: listings of a package and of a large directory of outputs, and one folded on top of another.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use drystone::base::digest::Digest;
use drystone::base::path::RelPath;
use drystone::base::tree::{Entry, Folded, Listing, fold};

fn listing(top: &str, dirs: usize, files: usize) -> Listing {
    let path =
        |dir: usize, file: usize| RelPath::parse(&format!("{top}/part{dir:03}/file{file:03}.js")).expect("a good path");
    let entry = |dir: usize, file: usize| {
        let size = (dir * files + file) as u64;
        Entry::File { digest: Digest::of(&size.to_le_bytes()), size, executable: false }
    };
    (0..dirs).flat_map(|dir| (0..files).map(move |file| (path(dir, file), entry(dir, file)))).collect()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("fold");
    for (says, dirs, files) in [("a package of 100 files", 4, 25), ("10,000 files", 200, 50)] {
        let listing = listing("src", dirs, files);
        group.throughput(Throughput::Elements(listing.len() as u64));
        group.bench_function(says, |bencher| bencher.iter(|| fold(black_box(&listing)).root));
    }
    let (sources, outputs) = (Folded::of(&listing("src", 200, 50)), listing("dist", 2, 10));
    group.throughput(Throughput::Elements(outputs.len() as u64));
    group.bench_function("20 outputs on top of 10,000 files", |bencher| {
        bencher.iter(|| sources.with(black_box(&outputs)).root);
    });
    group.finish();
    criterion.final_summary();
}
