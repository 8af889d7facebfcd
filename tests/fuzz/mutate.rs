//! The engine: mutation of bytes, a watch over time, and what to say when something breaks. Knows no target.

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::random::{Random, number, seed};

/// What one target does for without `DRYSTONE_FUZZ_SECONDS`.
const SECONDS_DEFAULT: u64 = 8;
/// One input may take no longer.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);
/// No input gets longer, in bytes.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Most inputs kept.
const CORPUS_MAX: usize = 4000;
/// Numbers at which things break.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 7, 8, 255, 256, 0x7fff_ffff, 0xffff_ffff, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];

/// What is tried: inputs to start with, words to put in, and what is done with an input.
///
/// The number that comes back tells what happened; an input after which it is new is mutated further.
pub struct Target<'a> {
    /// Its name, and that of its directory in the corpus.
    pub name: &'a str,
    /// To start with.
    pub corpus: Vec<Vec<u8>>,
    /// Put in whole.
    pub words: &'a [&'a str],
    /// Tries an input.
    pub attempt: &'a (dyn Fn(&[u8]) -> u64 + Sync),
}

/// Tries inputs until the time is over.
#[track_caller]
pub fn fuzz(target: &Target<'_>) {
    let seed = seed();
    // Before anything else: what ends the whole program leaves no other word.
    eprintln!("{}: seed {seed}", target.name);
    let time = Duration::from_secs(number("DRYSTONE_FUZZ_SECONDS", SECONDS_DEFAULT));
    let (sender, progress) = sync_channel::<()>(1024);
    let (tried, kept) = std::thread::scope(|scope| {
        let worker = scope.spawn(move || work(target, seed, time, &|| sender.send(()).expect("the watch goes on")));
        loop {
            match progress.recv_timeout(INPUT_TIME_MAX) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("{}: an input takes longer than {INPUT_TIME_MAX:?}, seed {seed}", target.name);
                    // A thread cannot be stopped, and the test would wait for it.
                    std::process::abort();
                }
            }
        }
        match worker.join() {
            Ok(counts) => counts,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    eprintln!("{}: {tried} inputs, {kept} kept", target.name);
}

fn work(target: &Target<'_>, seed: u64, time: Duration, progress: &dyn Fn()) -> (u64, usize) {
    let mut random = Random(seed);
    let mut corpus = known(target.name);
    corpus.extend(target.corpus.iter().cloned());
    let mut seen = HashSet::new();
    for input in &corpus {
        seen.insert(attempt(target, seed, input));
        progress();
    }
    let started = Instant::now();
    let mut tried = 0;
    while started.elapsed() < time {
        let input = mutated(&corpus, target.words, &mut random);
        let is_new = seen.insert(attempt(target, seed, &input));
        if is_new && corpus.len() < CORPUS_MAX {
            corpus.push(input);
        }
        tried += 1;
        progress();
    }
    (tried, corpus.len())
}

/// Inputs that broke something once.
fn known(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the corpus can be read")).collect()
}

fn attempt(target: &Target<'_>, seed: u64, input: &[u8]) -> u64 {
    match catch_unwind(AssertUnwindSafe(|| (target.attempt)(input))) {
        Ok(happened) => happened,
        Err(panic) => {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{seed}", target.name));
            drop(fs::write(&path, input));
            let text = String::from_utf8_lossy(&input[..input.len().min(400)]);
            eprintln!("{}: seed {seed}, the input is in {}: {text:?}", target.name, path.display());
            std::panic::resume_unwind(panic)
        }
    }
}

/// A few changes to one of the inputs.
fn mutated(corpus: &[Vec<u8>], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len() + 1);
        let length = random.below((bytes.len() - at).min(64) + 1);
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let copied = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copied);
            }
            4 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let until = from + random.below((other.len() - from).min(512) + 1);
                bytes.splice(at..at + length, other[from..until].iter().copied());
            }
            5 => {
                let number = NUMBERS[random.below(NUMBERS.len())].wrapping_add(random.below(3) as u64).to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            6 if !words.is_empty() => {
                let word = words[random.below(words.len())].bytes();
                let until = if random.below(2) == 0 { at } else { at + length };
                bytes.splice(at..until, word);
            }
            7 => bytes.truncate(at),
            _ => {
                // One byte, many times: nesting and lengths beyond all limits.
                let byte = if at < bytes.len() { bytes[at] } else { b'0' };
                bytes.splice(at..at, std::iter::repeat_n(byte, 1 << random.below(12)));
            }
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}
