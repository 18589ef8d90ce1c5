//! A verdict as one file for a browser, which needs nothing else.

use super::Verdict;

/// The page.
pub fn html(verdict: &Verdict) -> String {
    format!("<!doctype html><title>{}</title>", verdict.equal)
}
