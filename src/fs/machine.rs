//! What stands for this machine without naming it. Knows not what for.

use std::path::Path;

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fs::ops;

/// Context of machine digests. It changes with what they are made of.
const MACHINE_CONTEXT: &str = "drystone 2026-11 machine v1";

/// Where systemd, and what goes by it, keeps a random text of every installation (`man machine-id`).
const MACHINE_ID: &str = "/etc/machine-id";

/// Longest text of a machine, in bytes.
const ID_BYTES_MAX: usize = 256;

/// A digest that stands for this machine: of the name it is given, else of `/etc/machine-id`, else of the name it has on the network; with
/// its architecture. `None` if there is nothing to know it by.
///
/// The text of `machine-id` is to be kept from others, as its manual asks; a digest with a context of its own does not give it away.
pub fn machine(named: Option<&str>) -> Option<Digest> {
    machine_by(named, Path::new(MACHINE_ID))
}

fn machine_by(named: Option<&str>, file: &Path) -> Option<Digest> {
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).ok()?.trim().to_owned();
        // What an image has before its first boot.
        (!text.is_empty() && text != "uninitialized" && text.len() <= ID_BYTES_MAX).then_some(text)
    };
    let names = rustix::system::uname();
    let (kind, id) = match named {
        Some(name) => ("name", name.to_owned()),
        None => match ops::read(file).ok().and_then(text) {
            Some(id) => ("machine-id", id),
            None => ("node", text(names.nodename().to_bytes().to_vec())?),
        },
    };
    let mut encoder = Encoder::new();
    encoder.bytes(kind.as_bytes()).bytes(id.as_bytes()).bytes(std::env::consts::ARCH.as_bytes());
    Some(Digest::derived(MACHINE_CONTEXT, encoder.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_name_then_its_id_then_its_node() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("machine-id");
        let by = |text: &str, named: Option<&str>| {
            ops::write(&file, text.as_bytes()).expect("writable");
            machine_by(named, &file)
        };
        let id = by("5f1b0c\n", None).expect("it has an id");
        assert_eq!(by("5f1b0c", None), Some(id));
        assert_ne!(by("5f1b0d", None), Some(id));
        assert_eq!(by("5f1b0c", Some("a")), by("other", Some("a")));
        assert_ne!(by("5f1b0c", Some("5f1b0c")), Some(id));
        assert_eq!(by("", None), by("uninitialized\n", None));
        assert_ne!(by("", None), Some(id));
    }
}
