//! Why pid 1 ends before its work is done.

use super::wire::Fault;

/// Why pid 1 ends before its work is done.
#[derive(Debug)]
pub(super) enum Ending {
    /// The run failed; the executor is told.
    Fault(Fault),
    /// The executor cannot be told: it or the helper is gone, or the stream to it broke off in the middle of a file.
    Disconnected,
}

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Self {
        Ending::Fault(fault)
    }
}

/// Turns an error of the stream to the executor or the helper into [`Ending::Disconnected`].
pub(super) trait OrDisconnected<T> {
    fn or_disconnected(self) -> Result<T, Ending>;
}

impl<T> OrDisconnected<T> for std::io::Result<T> {
    fn or_disconnected(self) -> Result<T, Ending> {
        self.map_err(|_| Ending::Disconnected)
    }
}
