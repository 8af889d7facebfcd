//! LCOV tracefiles (geninfo(1), FILES) put one after the other. Reads only as much of them as it takes to keep records whole.

/// The records of all files, in their order; `None` if one of them is no tracefile. A file without any record is one.
pub(super) fn concatenated(files: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut all = Vec::with_capacity(files.iter().map(Vec::len).sum::<usize>() + files.len());
    for file in files {
        if !is_tracefile(file) {
            return None;
        }
        all.extend_from_slice(file);
        if file.last().is_some_and(|last| *last != b'\n') {
            all.push(b'\n');
        }
    }
    Some(all)
}

/// Whether it begins where a record begins and ends where one ends.
fn is_tracefile(file: &[u8]) -> bool {
    let mut lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let Some(first) = lines.next() else { return true };
    let last = lines.next_back().unwrap_or(first);
    (first.starts_with(b"TN:") || first.starts_with(b"SF:")) && last == b"end_of_record"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_each_other_whole() {
        let check = |files: &[&str], expect: Option<&str>| {
            let files: Vec<Vec<u8>> = files.iter().map(|file| file.as_bytes().to_vec()).collect();
            assert_eq!(concatenated(&files).as_deref(), expect.map(str::as_bytes), "{files:?}");
        };
        let one = "TN:\nSF:a.py\nDA:1,1\nend_of_record\n";
        let two = "SF:b.py\nDA:1,0\nend_of_record";
        check(&[one, two, one], Some(&format!("{one}{two}\n{one}")));
        check(&["", one, "\n"], Some(&format!("{one}\n")));
        check(&[one, "SF:b.py\nDA:1"], None);
        check(&[one, "<coverage/>"], None);
        check(&["end_of_record"], None);
    }
}
