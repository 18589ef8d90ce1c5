//! Errors for people: a message with its causes in one line, and a hint at the way out.

use super::visible_message;
use std::{borrow::Cow, error::Error};

/// An error with a hint at the way out.
///
/// The hint is not a part of the message: a message may quote text from outside, and such text could imitate a hint.
pub trait Hint: Error {
    /// The way out of the error in one or two sentences, without a prefix and without a full stop at the end; `None` where no
    /// general one exists.
    fn hint(&self) -> Option<Cow<'_, str>> {
        None
    }
}

/// The message of an error and those of its causes, separated by `": "`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = message(error);
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&message(cause));
        next = cause.source();
    }
    text
}

/// The message of one error. Those of parsers contain values of the file, of any length and with any characters.
fn message(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    match error.is::<serde_json::Error>() || error.is::<toml::de::Error>() {
        true => visible_message(&text),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("read the file")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_chain_has_every_cause_once() {
        let error = Outer(io::Error::other("the disk is gone"));
        assert_eq!(chain(&error), "read the file: the disk is gone");
    }
}
