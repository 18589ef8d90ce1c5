//! A verdict as one HTML file that needs nothing else.
//!
//! The page loads no script, picture, font or style, and its content security policy forbids them. [`maud`] escapes every value and
//! closes every tag; a value from outside also goes through [`text::Text`], which makes invisible characters visible. Each state has
//! a word and a sign, so the page can be read without colours.

mod changes;
mod findings;
mod graph;
mod page;
#[cfg(test)]
mod tests;
mod text;

pub use changes::changes_html;
pub use page::html;
