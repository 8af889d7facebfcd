//! Byte code of Python: its header, and what was compiled. Format: PEP 3147 and PEP 552.

use super::gather::{Gathered, Reason, Stretch};
use super::lines::compare_binary;
use crate::audit::causes;

const HEADER_BYTES: usize = 16;

/// Looks into two files of byte code; `false` if one of them is none.
pub(super) fn look(all: &mut Gathered<'_>, name: &str, a: &[u8], b: &[u8]) -> bool {
    let is_one =
        |file: &[u8]| file.len() >= HEADER_BYTES && file[2..4] == *b"\r\n" && file[5..8] == [0, 0, 0] && file[4] < 4;
    if !is_one(a) || !is_one(b) || !(name.ends_with(".pyc") || name.is_empty()) {
        return false;
    }
    let mut header = |name: &str, from: usize, to: usize, what: &str| {
        if a[from..to] != b[from..to] {
            let stretch = Stretch { a, at_a: from..to, b, at_b: from..to, is_text: false };
            let reason = Reason::suspected(&causes::PYTHON_BYTECODE, what, (from..to, from..to)).proven();
            all.add(&[name.to_owned()], reason, &stretch);
        }
    };
    header("magic", 0, 4, "byte code of another version of Python");
    header("flags", 4, 8, "how it is told whether byte code is stale");
    if a[4] & 1 == 0 {
        header("mtime", 8, 12, "the time of the source in byte code");
        header("size", 12, 16, "the size of the source in byte code");
    } else {
        header("hash", 8, 16, "the hash of the source in byte code");
    }
    if a[HEADER_BYTES..] != b[HEADER_BYTES..] {
        let mut inner = Gathered::new(all.context, all.markers);
        compare_binary(&mut inner, &["code".to_owned()], &a[HEADER_BYTES..], &b[HEADER_BYTES..]);
        for mut finding in inner.finish() {
            if finding.cause == &causes::UNKNOWN || finding.cause == &causes::RANDOMNESS {
                finding.cause = &causes::PYTHON_BYTECODE;
                finding.what = format!("compiled code, as its references or constants: {}", finding.what);
            }
            all.take(finding);
        }
    }
    true
}
