//! What holds for any two images, and for what is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::{Plan, file, gzip, plan, tar_of};
use crate::image::Blobs;
use crate::image::diff::{DiffOptions, Verdict, diff};
use crate::image::fixture::sha256;
use crate::image::inspect::{InspectOptions, inspect};

type FilesByPath = BTreeMap<String, Vec<u8>>;
type Hurt<'a> = &'a dyn Fn(&mut FilesByPath);

/// The files of a layout in memory.
fn files_of(blobs: &Blobs) -> FilesByPath {
    match blobs {
        Blobs::Memory(files) => files.as_ref().clone(),
        _ => panic!("they lie in memory"),
    }
}

#[test]
fn hostile_images_are_errors() {
    let good = plan().write();
    let refused = |bad: &Blobs, expect: &str, options: &DiffOptions| {
        for (one, other) in [(bad, &good), (&good, bad)] {
            let error = diff(one, other, options).expect_err(expect).to_string();
            assert!(error.contains(expect), "{expect}: {error}");
        }
    };
    let options = DiffOptions::default();
    refused(&Blobs::Memory(Arc::default()), "it holds no image", &options);
    let mut bad = plan();
    bad.layers[1].push(file("more", &"x".repeat(100_000)));
    refused(&bad.write(), "too large unpacked", &DiffOptions { unpacked_bytes_max: 50_000, ..options.clone() });
    let broken = |edit: &dyn Fn(&mut FilesByPath)| {
        let mut files = files_of(&bad.write());
        edit(&mut files);
        Blobs::Memory(Arc::new(files))
    };
    let upper = sha256(&gzip(&tar_of(&bad.layers[1]))).replace("sha256:", "blobs/sha256/");
    refused(&broken(&|files| drop(files.remove(&upper))), "lacks `blobs/sha256/", &options);
    refused(&broken(&|files| files.get_mut(&upper).expect("it is there")[200] ^= 1), "has other content", &options);
    refused(&broken(&|files| files.get_mut(&upper).expect("it is there").truncate(99)), "99 bytes", &options);
    refused(&broken(&|files| drop(files.insert("index.json".into(), b"{".to_vec()))), "index `index.json`", &options);
    let mut lying = plan();
    lying.pack = |tar| if tar.len() > 4700 { gzip(b"no archive at all".repeat(90).as_slice()) } else { gzip(tar) };
    lying.layers[1].push(file("more", "x"));
    refused(&lying.write(), "layer 2 of the image", &options);
    let mut lying = plan();
    lying.pack = |tar| gzip(&[tar, b"x"].concat());
    lying.layers[1].push(file("more", "x"));
    refused(&lying.write(), "unpacked` of the image has other content", &options);
    let mut long = plan();
    long.layers[1][0].remarks = vec![("comment", vec![b'x'; 2 << 20])];
    refused(&long.write(), "a name in it is too long", &options);
}

#[test]
fn a_damaged_image_is_never_the_same_as_the_good_one() {
    let good = plan().write();
    let options = DiffOptions::default();
    let blobs: Vec<String> = files_of(&good).into_keys().filter(|name| name.starts_with("blobs/")).collect();
    assert_eq!(blobs.len(), 4);
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (at, name) in blobs.iter().enumerate() {
        let hurts: [(&str, Hurt<'_>); 3] = [
            ("lacks", &|files| drop(files.remove(name))),
            ("has other content", &|files| files.get_mut(name).expect("it is there").truncate(20)),
            ("has other content", &|files| *files.get_mut(name).expect("it is there").last_mut().expect("a byte") ^= 1),
        ];
        for (number, (expect, hurt)) in hurts.into_iter().enumerate() {
            let mut files = files_of(&good);
            hurt(&mut files);
            let disk = dir.path().join(format!("{at}-{number}"));
            for (name, bytes) in &files {
                let path = disk.join(name);
                std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
                std::fs::write(path, bytes).expect("a file");
            }
            let platform = crate::base::platform::Platform::parse("linux/amd64");
            for bad in [Blobs::Memory(Arc::new(files)), Blobs::Dir(disk)] {
                for options in [options.clone(), DiffOptions { platform: platform.clone(), ..options.clone() }] {
                    let sides = [("first", diff(&bad, &good, &options)), ("second", diff(&good, &bad, &options))];
                    for (side, found) in sides {
                        let told = found.expect_err(expect).to_string();
                        assert!(told.starts_with(&format!("on the {side} side, ")), "{told}");
                        assert!(told.contains(name.as_str()) && told.contains("blobs/sha256/"), "{name}: {told}");
                    }
                }
                // Inspection reads no layer, so another digest of one is not seen.
                let told = inspect(&bad, &InspectOptions::default()).map_err(|error| error.to_string());
                match told {
                    Err(told) => assert!(told.contains(name.as_str()) && told.contains(expect), "{told}"),
                    Ok(_) => assert_eq!(number, 2, "{name}: {expect}"),
                }
            }
        }
    }
}

/// An edit of any part of an image.
fn edited(plan: &mut Plan, (what, at, with): (u8, usize, u8)) {
    let layer = at % plan.layers.len();
    let items = &mut plan.layers[layer];
    let item = at % items.len();
    let digit = char::from(b'0' + with % 10);
    match what % 12 {
        0 => items[item].time = with.into(),
        1 => items[item].mode = 0o600 + u32::from(with % 64),
        2 => items[item].owner.1 = with.into(),
        3 => items[item].content = vec![with; usize::from(with) * 3],
        4 => items.swap(0, item),
        5 => drop(items.remove(item)),
        6 => items.push(file(&format!("new/{digit}"), "x")),
        7 => plan.config["config"]["Env"] = json!([format!("A={digit}")]),
        8 => plan.manifest["annotations"]["x"] = json!(digit.to_string()),
        9 => plan.entry["annotations"]["org.opencontainers.image.ref.name"] = json!(digit.to_string()),
        10 => plan.behind = usize::from(with % 3) * 512,
        _ => plan.layers.rotate_left(layer),
    }
    plan.layers.iter_mut().filter(|items| items.is_empty()).for_each(|items| items.push(file("only", "")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn there_is_a_difference_exactly_if_the_bytes_differ(
        base in prop::collection::vec(any::<(u8, usize, u8)>(), 0..4),
        more in prop::collection::vec(any::<(u8, usize, u8)>(), 0..4),
        told_max in 0_usize..30,
    ) {
        let mut one = plan();
        base.into_iter().for_each(|edit| edited(&mut one, edit));
        let mut other = one.clone();
        more.into_iter().for_each(|edit| edited(&mut other, edit));
        let (one, other) = (one.write(), other.write());
        let options = DiffOptions { told_max, ..DiffOptions::default() };
        let found = diff(&one, &other, &options).expect("they can be read");
        let same = files_of(&one)["index.json"] == files_of(&other)["index.json"];
        prop_assert_eq!(found.is_empty(), same);
        prop_assert_eq!(found.verdict == Verdict::Identical, same);
        prop_assert!(found.told.len() <= told_max);
        prop_assert_eq!(found.counts.values().sum::<u64>(), found.told.len() as u64 + found.untold);
        prop_assert!(diff(&one, &one, &options).expect("it can be read").is_empty());
        let back = diff(&other, &one, &options).expect("they can be read");
        prop_assert_eq!(back.verdict, found.verdict);
    }

    #[test]
    fn changed_bytes_are_errors_or_differences_never_panics(at in any::<usize>(), with in any::<u8>(), tar in any::<bool>()) {
        let good = plan().write();
        let mut plan = plan();
        plan.layers[1].push(file("more", "x"));
        plan.pack = <[u8]>::to_vec;
        let mut files = files_of(&plan.write());
        let name = if tar { sha256(&tar_of(&plan.layers[1])).replace("sha256:", "blobs/sha256/") } else { "index.json".into() };
        let bytes = files.get_mut(&name).expect("it is there");
        let at = at % bytes.len();
        bytes[at] = with;
        let bad = Blobs::Memory(Arc::new(files));
        if let Ok(found) = diff(&good, &bad, &DiffOptions::default()) {
            prop_assert!(!found.is_empty());
        }
    }
}
