//! Digests that files hold of others: MD5, SHA-1, SHA-256, SHA-512 of a content, as text. Ours are elsewhere (`base::digest`).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, digest};

/// The digests of a content in a fixed order.
pub(super) fn of(bytes: &[u8]) -> [Vec<u8>; 4] {
    let sha = |algorithm| digest(algorithm, bytes).as_ref().to_vec();
    [md5(bytes).to_vec(), sha(&SHA1_FOR_LEGACY_USE_ONLY), sha(&SHA256), sha(&SHA512)]
}

/// A digest as files write it: hexadecimal, and base64 of both alphabets, without what fills it up.
pub(super) fn spellings(digest: &[u8]) -> [String; 3] {
    use std::fmt::Write;
    let mut hex = String::with_capacity(digest.len() * 2);
    for byte in digest {
        let _ = write!(hex, "{byte:02x}");
    }
    [hex, STANDARD.encode(digest).trim_end_matches('=').to_owned(), URL_SAFE_NO_PAD.encode(digest)]
}

const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// MD5 (RFC 1321). Proves nothing; package databases hold it.
pub(super) fn md5(bytes: &[u8]) -> [u8; 16] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    // Step i adds the integer part of 2^32 * |sin(i + 1)|.
    let sines: [u32; 64] = std::array::from_fn(|i| (((i + 1) as f64).sin().abs() * 4_294_967_296.0) as u32);
    let whole = bytes.len() - bytes.len() % 64;
    let mut tail = bytes[whole..].to_vec();
    tail.push(0x80);
    while tail.len() % 64 != 56 {
        tail.push(0);
    }
    tail.extend_from_slice(&(bytes.len() as u64).wrapping_mul(8).to_le_bytes());
    for block in bytes[..whole].chunks_exact(64).chain(tail.chunks_exact(64)) {
        round(&mut state, block, &sines);
    }
    let mut digest = [0; 16];
    for (to, word) in digest.chunks_exact_mut(4).zip(state) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

fn round(state: &mut [u32; 4], block: &[u8], sines: &[u32; 64]) {
    let word = |i: usize| u32::from_le_bytes([block[4 * i], block[4 * i + 1], block[4 * i + 2], block[4 * i + 3]]);
    let [mut a, mut b, mut c, mut d] = *state;
    for (i, sine) in sines.iter().enumerate() {
        let (mix, at) = match i / 16 {
            0 => ((b & c) | (!b & d), i),
            1 => ((d & b) | (!d & c), (5 * i + 1) % 16),
            2 => (b ^ c ^ d, (3 * i + 5) % 16),
            _ => (c ^ (b | !d), (7 * i) % 16),
        };
        let sum = a.wrapping_add(mix).wrapping_add(*sine).wrapping_add(word(at));
        (a, d, c, b) = (d, c, b, b.wrapping_add(sum.rotate_left(SHIFTS[i / 16][i % 4])));
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_gives_what_its_specification_says() {
        let long = "12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        for (text, expect) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            (long, "57edf4a22be3c955ac49da2e2107b67a"),
        ] {
            assert_eq!(spellings(&md5(text.as_bytes()))[0], expect, "{text:?}");
        }
    }
}
