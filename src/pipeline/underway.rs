//! [`Underway`]: the actions that an engine has at the moment, so that a program that ends can cancel them.

use crate::{model::lock, remote::RemoteError};
use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The actions that an engine has at the moment.
#[derive(Debug, Default)]
pub struct Underway {
    state: Mutex<UnderwayState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct UnderwayState {
    cancelled: bool,
    /// The number of the next action.
    next: u64,
    running: BTreeMap<u64, String>,
    ended: CancelledWork,
}

/// What became of the actions of an engine that were cancelled.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CancelledWork {
    /// Those that the engine has taken back.
    pub cancelled: Vec<String>,
    /// Those of which it did not say so: they may go on.
    pub left: Vec<String>,
}

impl Underway {
    /// Runs an action that messages call `name`: `work` is given the question whether it is to be cancelled.
    pub(super) fn run<T>(
        &self,
        name: &str,
        server: &str,
        work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let mut state = lock(&self.state);
        if state.cancelled {
            let server = server.to_owned();
            return Err(RemoteError::Cancelled { server, told: true });
        }
        let number = state.next;
        state.next += 1;
        state.running.insert(number, name.to_owned());
        drop(state);
        let running = Running { underway: self, number };
        let result = work(&|| lock(&self.state).cancelled);
        if let Err(error) = &result {
            let mut state = lock(&self.state);
            match error {
                RemoteError::Cancelled { told: true, .. } => state.ended.cancelled.push(name.to_owned()),
                // The engine was lost before it could be told.
                _ if state.cancelled => state.ended.left.push(name.to_owned()),
                _ => {}
            }
        }
        drop(running);
        result
    }

    /// Whether an action is under way.
    pub fn is_busy(&self) -> bool {
        !lock(&self.state).running.is_empty()
    }

    /// Cancels every action, lets none begin any more, and waits for the engine, but no longer than `longest`.
    pub fn cancel(&self, longest: Duration) -> CancelledWork {
        let begin = Instant::now();
        let mut state = lock(&self.state);
        state.cancelled = true;
        while !state.running.is_empty() {
            let Some(left) = longest.checked_sub(begin.elapsed()) else {
                break;
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut ended = state.ended.clone();
        ended.left.extend(state.running.values().cloned());
        ended.cancelled.sort();
        ended.left.sort();
        ended
    }
}

/// An action that is under way until this is dropped, also by a panic.
struct Running<'a> {
    underway: &'a Underway,
    number: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.underway.state).running.remove(&self.number);
        self.underway.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread};

    #[test]
    fn what_is_under_way_is_cancelled_and_named() {
        let underway = Underway::default();
        underway.run("early", "server", |_| Ok(())).expect("runs");
        let (begun, began) = mpsc::channel();
        let wait = |name: &'static str, told: bool| {
            let (underway, begun) = (&underway, begun.clone());
            move || {
                underway.run(name, "server", |cancelled| {
                    begun.send(()).expect("heard");
                    while !cancelled() {
                        thread::yield_now();
                    }
                    let server = "server".to_owned();
                    Err::<(), _>(RemoteError::Cancelled { server, told })
                })
            }
        };
        let ended = thread::scope(|scope| {
            scope.spawn(wait("one", true));
            scope.spawn(wait("two", false));
            (0..2).for_each(|_| began.recv().expect("begins"));
            assert!(underway.is_busy());
            underway.cancel(Duration::from_secs(60))
        });
        let expected = CancelledWork {
            cancelled: vec!["one".to_owned()],
            left: vec!["two".to_owned()],
        };
        assert_eq!(ended, expected);
        assert!(!underway.is_busy());
        let late = underway.run("late", "server", |_| Ok(()));
        assert!(
            matches!(late, Err(RemoteError::Cancelled { .. })),
            "nothing begins any more"
        );
    }

    #[test]
    fn an_engine_that_says_nothing_is_not_waited_for() {
        let underway = Underway::default();
        let (begun, began) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let ended = thread::scope(|scope| {
            let underway = &underway;
            scope.spawn(move || {
                underway.run("silent", "server", |_| {
                    begun.send(()).expect("heard");
                    let _ = ends.recv();
                    Ok(())
                })
            });
            began.recv().expect("begins");
            let ended = underway.cancel(Duration::from_millis(10));
            drop(end);
            ended
        });
        assert_eq!((ended.cancelled.len(), ended.left), (0, vec!["silent".to_owned()]));
    }
}
