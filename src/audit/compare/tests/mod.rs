//! Laws of comparing: each header field alone has its cause and nothing else, also within other containers.

mod fields;
mod hostile;
mod images;
mod make;
mod whole;

use crate::audit::compare::{Comparison, Limits, files};
use crate::audit::context::Context;
use crate::audit::model::Verdict;

fn compared(a: &[u8], b: &[u8]) -> Comparison {
    files("out", a, b, &Context::default(), &Limits::default())
}

fn causes(found: &Comparison) -> Vec<&'static str> {
    found.differences.iter().map(|difference| difference.cause.id).collect()
}

/// Compares both ways: the causes, the verdict and its normalizers.
#[track_caller]
fn check(case: &str, a: &[u8], b: &[u8], expect: &[&str], verdict: Verdict, normalizers: &[&str]) -> Comparison {
    let (found, other) = (compared(a, b), compared(b, a));
    let seen = (causes(&found), found.verdict, found.normalizers.as_slice(), found.untold);
    assert_eq!(seen, (expect.to_vec(), verdict, normalizers, 0), "{case}: {:#?}", found);
    let sorted = |one: &Comparison| {
        let mut causes = causes(one);
        causes.sort_unstable();
        (causes, one.verdict, one.normalizers.clone())
    };
    assert_eq!(sorted(&found), sorted(&other), "{case}, sides exchanged");
    assert_eq!(compared(a, a).verdict, Verdict::Identical, "{case}");
    found
}
