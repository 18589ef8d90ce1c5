//! Many files at once, with one answer that does not depend on which worker was faster.

use super::download::{Downloader, Fetched};
use super::error::FetchError;
use super::partial::Downloaded;
use super::plan::FetchItem;
use std::cmp::Reverse;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Downloads at once, unless told otherwise.
pub const DEFAULT_WORKERS: usize = 8;

/// Fetches all items with `workers` downloads at once, the largest first. `have` says whether the store has an item by now;
/// `deliver` takes each checked file and is called from several threads.
///
/// After a failure no item that stands later is begun and those under way are stopped, while earlier ones go on: so the
/// error returned is always that of the first item, in that order, which cannot be fetched.
pub fn fetch_all(
    items: &[FetchItem],
    workers: usize,
    downloader: &Downloader<'_>,
    have: &(dyn Fn(&FetchItem) -> bool + Sync),
    deliver: &(dyn Fn(&FetchItem, Downloaded) -> io::Result<()> + Sync),
) -> Result<(), FetchError> {
    let mut order: Vec<&FetchItem> = items.iter().collect();
    order.sort_by_key(|item| Reverse(item.size));
    let next = AtomicUsize::new(0);
    let limit = AtomicUsize::new(usize::MAX);
    let failure: Mutex<Option<(usize, FetchError)>> = Mutex::new(None);
    let one = |position: usize, item: &FetchItem| -> Result<(), FetchError> {
        let stop = || limit.load(Ordering::Relaxed) < position;
        match downloader.get(item, &|| have(item), &stop)? {
            Fetched::Present => Ok(()),
            Fetched::Downloaded(file) => deliver(item, file).map_err(|source| FetchError::Deliver {
                what: item.what.clone(),
                source,
            }),
        }
    };
    let work = || {
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = order.get(position) else { return };
            if position > limit.load(Ordering::Relaxed) {
                return;
            }
            let Err(error) = one(position, item) else { continue };
            limit.fetch_min(position, Ordering::Relaxed);
            let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|(at, _)| position < *at) {
                *first = Some((position, error));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.clamp(1, order.len().max(1)) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(()),
        Some((_, error)) => Err(error),
    }
}
