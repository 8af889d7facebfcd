//! Whatever can be lowered is read again as it was.

use super::lower;
use crate::base::compact::{Bytes, Compact, Pool, Reader, Writer};
use crate::manifest::model::Task;

/// Writes the tasks of a text and reads them again, each alone and from the last to the first.
pub(super) fn check(text: &str) {
    let lowered = lower(text);
    let mut writer = Writer::new();
    let written = |task: &Task, writer: &mut Writer| {
        task.put(writer);
        writer.drain()
    };
    let encoded: Vec<Vec<u8>> = lowered.tasks.iter().map(|task| written(task, &mut writer)).collect();
    lowered.workspace.put(&mut writer);
    let workspace = writer.drain();
    let (ends, pool) = writer.into_pool();
    let pool = Pool::new(Bytes::new(ends), Bytes::new(pool));
    for (task, bytes) in lowered.tasks.iter().zip(&encoded).rev() {
        let mut reader = Reader::new(bytes, &pool);
        let read = Task::take(&mut reader).expect("a task");
        assert!(reader.is_at_end());
        assert_eq!(format!("{read:#?}"), format!("{task:#?}"));
        for end in 0..bytes.len() {
            let mut reader = Reader::new(&bytes[..end], &pool);
            assert!(Task::take(&mut reader).is_none_or(|_| !reader.is_at_end()), "cut at {end}");
        }
    }
    let read: Option<crate::manifest::model::WorkspaceConfig> =
        Compact::take(&mut Reader::new(&workspace, &pool)).expect("a configuration");
    assert_eq!(format!("{read:?}"), format!("{:?}", lowered.workspace));
}
