//! One audit with everything an audit can have, for tests of what is made of it. Names and bytes in it are as hostile as outputs can be.

use crate::audit::causes::{Cause, UNKNOWN};
use crate::audit::model::{
    Audit, Build, Certainty, Difference, Effect, Ending, Evidence, Machine, Outcome, Site, TaskAudit, Varied, Verdict,
};
use crate::base::digest::Digest;
use crate::sandbox::surroundings::Dimension;

/// A cause beside [`UNKNOWN`], so that reports have two.
pub static HOSTILE: Cause = Cause {
    id: "sample.<script>",
    title: "a title with <b>markup</b> & \"quotes\"",
    remedy: "do `it` otherwise, <script>alert(1)</script>\nand on a second line",
};

/// A name that would do harm if it reached a page, a terminal or a document as it is.
pub const HOSTILE_NAME: &str = "out/<script>alert('1')</script>\u{1b}[31m\n\u{202e}gpj.\"&]]>";

/// A digest of nothing in particular.
pub fn digest(seed: &str) -> Digest {
    Digest::of(seed.as_bytes())
}

fn site(file: &str, members: &[&str]) -> Site {
    Site { file: file.into(), members: members.iter().map(|one| (*one).to_owned()).collect() }
}

fn build(varied: &[Dimension], pinned: &[Dimension], outputs: &str, duration_ms: u64) -> Build {
    Build {
        varied: varied.to_vec(),
        pinned: pinned.to_vec(),
        ending: Ending::Built { outputs: digest(outputs) },
        started_ms: 1_780_000_000_000,
        duration_ms,
    }
}

fn varied(dimension: Dimension, outcome: Outcome) -> Varied {
    let effect = match outcome {
        Outcome::NotTested => Effect::None { why: format!("{} cannot be varied\nhere <b>", dimension.word()) },
        _ => Effect::Effective { first: "a".into(), second: "b<i>".into() },
    };
    Varied { dimension, effect, outcome }
}

fn all_same_but_kernel() -> Vec<Varied> {
    let outcome = |one| if one == Dimension::Kernel { Outcome::NotTested } else { Outcome::Same };
    Dimension::ALL.into_iter().map(|one| varied(one, outcome(one))).collect()
}

fn task(label: &str, verdict: Verdict) -> TaskAudit {
    TaskAudit {
        label: label.into(),
        action: digest(label),
        outputs: Some(digest(&format!("outputs of {label}"))),
        isolation: "namespaces".into(),
        verdict,
        is_unstable: false,
        builds: vec![
            build(&[], &[], &format!("outputs of {label}"), 1200),
            build(&[], &[], &format!("outputs of {label}"), 1300),
            build(&Dimension::ALL[..15], &[], &format!("outputs of {label}"), 1400),
        ],
        varied: all_same_but_kernel(),
        differences: vec![],
        untold: 0,
        normalizers: vec![],
        notes: vec![],
    }
}

fn different() -> TaskAudit {
    let evidence = |a: &[u8], b: &[u8]| Some(Evidence { offset: 4096, a: a.to_vec(), b: b.to_vec() });
    let differ = |site: Site, what: &str, certainty, evidence| Difference {
        site,
        what: what.into(),
        cause: &HOSTILE,
        certainty,
        dimension: None,
        evidence,
        consequence_of: None,
        between: (0, 2),
    };
    let first = site(HOSTILE_NAME, &["./a/<img src=x>\r\n", "(gzip)", ".debug_str\u{2066}"]);
    let text = evidence(b"/workspace/src/main.c", b"/w/other/src/main.c");
    let mut proven = differ(first.clone(), "a path <b>of the build</b>\nis in it", Certainty::Proven, text);
    proven.dimension = Some(Dimension::BuildPath);
    let mut suspected =
        differ(site("out/b.bin", &[]), "bytes", Certainty::Suspected, evidence(b"\xff\0a\x1b", b"\xfe"));
    suspected.cause = &UNKNOWN;
    let mut differences = vec![proven, suspected];
    for name in ["out/SHA256SUMS", "out/index.json", "out/list"] {
        let mut follows = differ(site(name, &[]), "a digest", Certainty::Proven, None);
        follows.consequence_of = Some(first.clone());
        differences.push(follows);
    }
    let mut lost = differ(site("out/z", &["$.a.b"]), "a digest", Certainty::Proven, evidence(b"", b"<&>"));
    lost.consequence_of = Some(site("out/nowhere", &[]));
    differences.push(lost);
    let failing = Build {
        varied: vec![Dimension::Locale],
        pinned: vec![Dimension::Aslr],
        ending: Ending::Failed { how: "exit code 1 <i>".into() },
        started_ms: -1,
        duration_ms: 5,
    };
    let outcome = |one| match one {
        Dimension::BuildPath => Outcome::Differs,
        Dimension::Locale => Outcome::Fails { how: "exit code 1\u{7}".into() },
        Dimension::Clock => Outcome::Unknown { why: "the budget was used up".into() },
        Dimension::Kernel | Dimension::FileSystem => Outcome::NotTested,
        _ => Outcome::Same,
    };
    let mut task = task("//apps/web:bundle[x=<1>]", Verdict::Different);
    task.builds.push(failing);
    task.builds[2].ending = Ending::Built { outputs: digest("other") };
    task.varied = Dimension::ALL.into_iter().map(|one| varied(one, outcome(one))).collect();
    task.differences = differences;
    task.untold = 7;
    task.is_unstable = true;
    task.notes = vec!["`out/big` was not looked into: it has 3 GiB <br>".into()];
    task
}

/// The audit.
pub fn audit() -> Audit {
    let mut equivalent = task("//libs/b:jar", Verdict::Equivalent);
    equivalent.normalizers = vec!["zip-times"];
    equivalent.differences = vec![Difference {
        site: site("b.jar", &["META-INF/MANIFEST.MF"]),
        what: "the time of an entry".into(),
        cause: &UNKNOWN,
        certainty: Certainty::Proven,
        dimension: Some(Dimension::Clock),
        evidence: None,
        consequence_of: None,
        between: (0, 1),
    }];
    let mut inconclusive = task("//libs/c:slow", Verdict::Inconclusive);
    inconclusive.outputs = None;
    inconclusive.varied = vec![];
    inconclusive.builds.truncate(1);
    inconclusive.notes = vec!["a rebuild failed: exit code 3".into()];
    Audit {
        id: "0123456789abcdef".into(),
        version: "0.1.0".into(),
        started_ms: 1_780_000_000_123,
        duration_ms: 65_400,
        machine: Machine {
            kernel: "6.1.0-13-amd64".into(),
            architecture: "x86_64".into(),
            processor: "A <Processor> & Co.".into(),
            cpus: 8,
            system: "Debian GNU/Linux 12".into(),
            file_system: "ext4".into(),
            id: digest("machine").to_hex(),
        },
        asked: Dimension::ALL.to_vec(),
        tasks: vec![
            different(),
            task("//libs/a:build", Verdict::Identical),
            task("//libs/a:zip", Verdict::IdenticalUncompressed),
            equivalent,
            inconclusive,
        ],
        left_out: vec![("//db:serve".into(), "it is a service".into()), ("//x:<y>".into(), "it failed\u{202e}".into())],
    }
}
