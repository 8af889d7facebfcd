//! Debian packages nobody here made: an `ar` archive, as deb(5) and ar(5) have it. Unpacks nothing.
//!
//! ```text
//! !<arch>\n
//! name[16] mtime[12] uid[6] gid[6] mode[8] size[10] `\n     all in ASCII, filled up with spaces
//! size bytes, and \n if that is odd
//! ```
//! The members are `debian-binary` with `2.x`, `control.tar…`, `data.tar…` in this order; others may stand between and behind them
//! only if their names begin with `_`.

use std::io::{self, Read, Seek, SeekFrom, Take};

use crate::fs::archive::ArchiveError;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// Most members of a package: it has three, perhaps a signature or two.
const MEMBERS_MAX: usize = 16;
/// Most bytes of `debian-binary`.
const VERSION_BYTES_MAX: u64 = 64;

/// A member: its name, where its bytes begin, and how many there are.
struct Member {
    name: String,
    at: u64,
    size: u64,
}

/// The archive with the files of a package: its name, which tells how it is compressed, and its bytes. All of the package was looked
/// at before.
pub fn data_of_package<R: Read + Seek>(mut from: R) -> Result<(String, Take<R>), ArchiveError> {
    let members = members(&mut from)?;
    let parts: Vec<&Member> = members.iter().filter(|member| !member.name.starts_with('_')).collect();
    let [version, control, data] = parts.as_slice() else {
        let names = parts.iter().map(|part| part.name.escape_debug().to_string()).collect::<Vec<_>>().join("`, `");
        return Err(broken(format!(
            "a Debian package has `debian-binary`, `control.tar…` and `data.tar…`, and this has `{names}`"
        )));
    };
    let is = |member: &Member, stem: &str| member.name == stem || member.name.starts_with(&format!("{stem}."));
    let is_first = members.first().is_some_and(|first| first.name == "debian-binary");
    if !(is_first && version.name == "debian-binary" && is(control, "control.tar") && is(data, "data.tar")) {
        return Err(broken("the members of a Debian package do not stand in their order".into()));
    }
    let mut text = String::new();
    from.seek(SeekFrom::Start(version.at)).map_err(|error| ArchiveError::broken(&error))?;
    let read = (&mut from).take(version.size.min(VERSION_BYTES_MAX)).read_to_string(&mut text);
    read.map_err(|error| ArchiveError::broken(&error))?;
    if !text.starts_with("2.") {
        let found = text.lines().next().unwrap_or_default().escape_debug().to_string();
        return Err(broken(format!("it is a Debian package of format `{found}`, and known is 2.0")));
    }
    from.seek(SeekFrom::Start(data.at)).map_err(|error| ArchiveError::broken(&error))?;
    Ok((data.name.clone(), from.take(data.size)))
}

fn broken(cause: String) -> ArchiveError {
    ArchiveError::Broken(cause)
}

/// All members, in order. None is named twice, all lie within the file, and nothing but padding lies between them.
fn members<R: Read + Seek>(from: &mut R) -> Result<Vec<Member>, ArchiveError> {
    let failed = |error: io::Error| ArchiveError::broken(&error);
    let end = from.seek(SeekFrom::End(0)).map_err(failed)?;
    from.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut magic = [0; MAGIC.len()];
    if end < MAGIC.len() as u64 || from.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Err(broken("it is no Debian package".into()));
    }
    let mut members: Vec<Member> = Vec::new();
    let mut at = MAGIC.len() as u64;
    while at < end {
        if members.len() == MEMBERS_MAX {
            return Err(broken(format!("it has more than {MEMBERS_MAX} members")));
        }
        from.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).map_err(|_| broken("it ends in the header of a member".into()))?;
        let member = member(&header, at + HEADER_BYTES as u64)?;
        if member.size > end - member.at.min(end) {
            return Err(ArchiveError::refused(&member.name, "which is longer than what is there of the archive"));
        }
        if members.iter().any(|other| other.name == member.name) {
            return Err(ArchiveError::refused(&member.name, "which it holds twice"));
        }
        at = member.at + member.size;
        // The last one need not be filled up.
        if member.size % 2 == 1 && at < end {
            let mut padding = [0];
            from.seek(SeekFrom::Start(at)).and_then(|_| from.read_exact(&mut padding)).map_err(failed)?;
            if padding != *b"\n" {
                return Err(ArchiveError::refused(&member.name, "behind which there is something hidden"));
            }
            at += 1;
        }
        members.push(member);
    }
    Ok(members)
}

fn member(header: &[u8; HEADER_BYTES], at: u64) -> Result<Member, ArchiveError> {
    let malformed = || broken("the header of a member is malformed".into());
    if !header.is_ascii() || !header.ends_with(b"`\n") {
        return Err(malformed());
    }
    let text = |from: usize, to: usize| std::str::from_utf8(&header[from..to]).map(str::trim_end).ok();
    let name = text(0, 16).ok_or_else(malformed)?;
    // GNU ar ends names with a slash; what else has one is an index, a list of long names, or a path.
    let name = name.strip_suffix('/').unwrap_or(name);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(ArchiveError::refused(name, "which is no name of a member of a Debian package"));
    }
    let size = text(48, 58).filter(|size| !size.is_empty() && size.bytes().all(|digit| digit.is_ascii_digit()));
    let size = size.and_then(|size| size.parse().ok()).ok_or_else(malformed)?;
    Ok(Member { name: name.to_owned(), at, size })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn packed(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, content) in members {
            bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    fn found(bytes: &[u8]) -> Result<(String, Vec<u8>), String> {
        let (name, mut data) = data_of_package(Cursor::new(bytes)).map_err(|error| error.to_string())?;
        let mut read = Vec::new();
        data.read_to_end(&mut read).expect("a vector can be read");
        Ok((name, read))
    }

    const VERSION: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    const CONTROL: (&str, &[u8]) = ("control.tar.xz", b"odd");
    const DATA: (&str, &[u8]) = ("data.tar.zst", b"files");

    #[test]
    fn the_data_of_a_package_is_found() {
        let expect = Ok(("data.tar.zst".to_owned(), b"files".to_vec()));
        assert_eq!(found(&packed(&[VERSION, CONTROL, DATA])), expect);
        assert_eq!(found(&packed(&[VERSION, ("_a", b"1"), CONTROL, ("_b", b""), DATA, ("_gpgbuilder", b"2")])), expect);
        let slashed = packed(&[("debian-binary/", b"2.1\n"), ("control.tar/", b""), ("data.tar.zst/", b"files")]);
        assert_eq!(found(&slashed), expect);
        let mut bytes = packed(&[VERSION, CONTROL, DATA]);
        bytes.pop();
        assert_eq!(found(&bytes), expect, "without the last padding");
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let check = |bytes: &[u8], expect: &str| {
            let told = found(bytes).expect_err(expect);
            assert!(told.contains(expect), "{told}");
        };
        check(b"", "no Debian package");
        check(b"!<arch>", "no Debian package");
        check(b"!<thin>\nand more", "no Debian package");
        check(MAGIC, "and this has ``");
        check(&packed(&[VERSION, CONTROL]), "this has `debian-binary`, `control.tar.xz`");
        check(&packed(&[VERSION, CONTROL, DATA, ("data.tar.xz", b"")]), "this has");
        check(&packed(&[VERSION, CONTROL, DATA, DATA]), "`data.tar.zst`, which it holds twice");
        check(&packed(&[VERSION, CONTROL, ("_a", b""), ("_a", b""), DATA]), "`_a`, which it holds twice");
        check(&packed(&[VERSION, DATA, CONTROL]), "order");
        check(&packed(&[("_a", b""), VERSION, CONTROL, DATA]), "order");
        check(&packed(&[VERSION, CONTROL, ("data.target", b"")]), "order");
        check(&packed(&[("debian-binary", b"3.0\n"), CONTROL, DATA]), "format `3.0`");
        check(&packed(&[("debian-binary", b"\xff\xff"), CONTROL, DATA]), "broken");
        check(&packed(&[("debian-binary", b""), CONTROL, DATA]), "format ``");
        for name in ["../data.tar", "/", "//", "#1/20", "a b", "", "/0"] {
            check(&packed(&[VERSION, CONTROL, (name, b"")]), "no name of a member");
        }
        let names: Vec<String> = (0..20).map(|number| format!("_{number}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
        check(&packed(&many), "more than 16 members");
    }

    #[test]
    fn sizes_that_lie_and_bytes_between_members_are_refused() {
        let whole = packed(&[VERSION, CONTROL, DATA]);
        let data = whole.len() - 6 - HEADER_BYTES;
        let with_size = |text: &str| {
            let mut bytes = whole.clone();
            bytes[data + 48..data + 58].copy_from_slice(format!("{text:<10}").as_bytes());
            found(&bytes)
        };
        assert!(with_size("5").is_ok());
        for size in ["7", "9999999999"] {
            let told = with_size(size).expect_err(size);
            assert!(told.contains("longer than what is there"), "{told}");
        }
        for size in ["", "-1", "+5", "0x5", "5 5", " 5"] {
            let told = with_size(size).expect_err("malformed");
            assert!(told.contains("malformed"), "{told}");
        }
        assert!(with_size("3").is_err(), "what is left of it is no member");
        // An odd member with something else than a line feed behind it.
        let padding = 8 + HEADER_BYTES + 4 + HEADER_BYTES + 3;
        let mut bytes = whole.clone();
        assert_eq!(bytes[padding], b'\n');
        bytes[padding] = b'x';
        assert!(found(&bytes).expect_err("hidden").contains("hidden"));
        for end in 0..whole.len() - 1 {
            assert!(found(&whole[..end]).is_err(), "cut off after {end} bytes");
        }
    }
}
