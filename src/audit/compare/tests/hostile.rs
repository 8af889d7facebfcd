//! Archives that were damaged: no panic, no hang, and never the same.

use crate::audit::compare::tests::compared;
use crate::audit::compare::tests::make::*;
use crate::audit::model::Verdict;

fn samples() -> Vec<Vec<u8>> {
    let text = "some text that repeats, some text that repeats ".repeat(4);
    let pax = Tar { pax: vec![("mtime", "1.5"), ("path", "long")], ..file("a", &text) };
    let archive = tar(&[pax, file("b", "2")]);
    vec![
        plain_gzip(&archive),
        zstd::stream::encode_all(archive.as_slice(), 3).expect("a vector takes it"),
        archive,
        zip(&[zipped("a", &text), Zip { extra: b"UT\x05\0\x01\0\0\0\0".to_vec(), ..zipped("b", "2") }]),
        ar(&[
            ("/", &ar_fields(0, 0, 0, 0), b"\0\0\0\x01\0\0\0\x54foo\0\0\0"),
            ("a.o/", &ar_fields(0, 0, 0, 0), b"abc"),
        ]),
        cpio(&[("a", [1, 0o100_644, 0, 0, 1, 5], text.as_bytes())]),
    ]
}

#[test]
fn a_damaged_archive_is_never_the_same_and_never_a_panic() {
    // A seed of its own for each sample, so that a failure can be repeated.
    for (seed, sample) in samples().into_iter().enumerate() {
        let mut state = 0x9e37_79b9_u64 + seed as u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        for round in 0..300 {
            let mut other = sample.clone();
            if round % 3 == 0 {
                other.truncate(next() % sample.len());
            }
            for _ in 0..round % 3 {
                let at = next() % other.len();
                other[at] ^= (next() % 255 + 1) as u8;
            }
            for (a, b) in [(&sample, &other), (&other, &sample)] {
                let found = compared(a, b);
                let is_same = found.verdict == Verdict::Identical;
                assert_eq!(is_same, a == b, "sample {seed}, round {round}: {found:#?}");
                assert_eq!(found.differences.is_empty(), is_same, "sample {seed}, round {round}");
            }
            assert_eq!(compared(&other, &other).verdict, Verdict::Identical);
        }
    }
}
