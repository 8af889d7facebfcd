//! Several transfers at a time. The first that fails stops the others; what they tell is told on the caller's thread.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use crate::registry::error::RegistryError;

/// Does `work` with every item, on up to `threads` threads. After the first error no other is begun, and `stop` is set for those
/// that have begun. The error is the first that came.
pub fn each<T: Sync, E: Send>(
    items: &[T],
    threads: usize,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(E),
    work: impl Fn(&T, &dyn Fn(E)) -> Result<(), RegistryError> + Sync,
) -> Result<(), RegistryError> {
    let next = AtomicUsize::new(0);
    let first = Mutex::new(None);
    let (sender, receiver) = channel();
    let drain = |sender: &Sender<E>| {
        // The receiver lives longer than all of this.
        let tell = |event| drop(sender.send(event));
        while !stop.load(Ordering::SeqCst) {
            let Some(item) = items.get(next.fetch_add(1, Ordering::SeqCst)) else { return };
            if let Err(error) = work(item, &tell) {
                // Those that are stopped fail as well; only the first says why.
                first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                stop.store(true, Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        let drain = &drain;
        for number in 0..threads.min(items.len()) {
            let own = sender.clone();
            let thread = std::thread::Builder::new().name("transfer".into()).spawn_scoped(scope, move || drain(&own));
            // Where the system gives no thread, fewer do; and if none, this one.
            if thread.is_err() {
                if number == 0 {
                    drain(&sender);
                }
                break;
            }
        }
        drop(sender);
        receiver.iter().for_each(&mut *tell);
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_all_is_told() {
        let items: Vec<usize> = (0..100).collect();
        let mut told = Vec::new();
        let work = |item: &usize, tell: &dyn Fn(usize)| {
            tell(*item);
            Ok(())
        };
        each(&items, 4, &AtomicBool::new(false), &mut |event| told.push(event), work).expect("no error");
        told.sort_unstable();
        assert_eq!(told, items);
        each(&[], 4, &AtomicBool::new(false), &mut |_: ()| {}, |(): &(), _| Err(RegistryError::Cancelled))
            .expect("nothing to do");
    }

    #[test]
    fn the_first_error_ends_it() {
        let (items, stop) = (vec![0; 1000], AtomicBool::new(false));
        let begun = AtomicUsize::new(0);
        let work = |_: &i32, _: &dyn Fn(())| {
            begun.fetch_add(1, Ordering::SeqCst);
            Err(RegistryError::Cancelled)
        };
        assert!(each(&items, 4, &stop, &mut |()| {}, work).is_err());
        assert!(begun.into_inner() <= 4 && stop.into_inner());
    }
}
