//! What it costs to encode and to decode: the fields of a large action, a text of each length with a digest and a number.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use drystone::base::digest::Digest;
use drystone::base::encode::{Decoder, Encoder};

const FIELDS: u64 = 1_000;

fn encoded(names: &[String], digest: &Digest) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.u64(names.len() as u64);
    for (size, name) in (0..).zip(names) {
        encoder.bytes(name.as_bytes()).u8(1).digest(digest).u64(size);
    }
    encoder.into_vec()
}

fn decoded(bytes: &[u8]) -> u64 {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.u64().expect("as it was encoded");
    for _ in 0..count {
        black_box(decoder.text("name").expect("as it was encoded"));
        decoder.u8().expect("as it was encoded");
        black_box(decoder.digest().expect("as it was encoded"));
        decoder.u64().expect("as it was encoded");
    }
    decoder.finish().expect("as it was encoded");
    count
}

fn main() {
    let names: Vec<String> = (0..FIELDS).map(|field| format!("src/view/parts/file{field:04}.ts")).collect();
    let digest = Digest::of(b"content");
    let bytes = encoded(&names, &digest);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(FIELDS));
    group.bench_function("a thousand files", |bencher| bencher.iter(|| encoded(black_box(&names), &digest)));
    group.bench_function("the same, decoded", |bencher| bencher.iter(|| decoded(black_box(&bytes))));
    group.bench_function("the same, digested", |bencher| bencher.iter(|| Digest::of(black_box(&bytes))));
    group.finish();
    criterion.final_summary();
}
