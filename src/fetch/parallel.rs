//! Downloads many files at once; the result does not depend on which worker is faster.

use super::download::{Downloader, Fetched};
use super::error::FetchError;
use super::partial::Downloaded;
use super::plan::FetchItem;
use crate::model::lock;
use std::cmp::Reverse;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Default number of downloads at the same time.
pub const DEFAULT_WORKERS: usize = 8;

/// Fetches all items with `workers` downloads at the same time, the largest first. `have` says whether the store has an item by now;
/// `deliver` receives each checked file and is called from several threads.
///
/// After a failure, later items are not begun and running downloads of later items are stopped, while downloads of earlier items continue.
/// The error returned is therefore always that of the first item, in this order, that cannot be fetched.
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
    let fetch = |position: usize, item: &FetchItem| -> Result<(), FetchError> {
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
            let Err(error) = fetch(position, item) else { continue };
            limit.fetch_min(position, Ordering::Relaxed);
            let mut first = lock(&failure);
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
    let failure = lock(&failure).take();
    failure.map_or(Ok(()), |(_, error)| Err(error))
}
