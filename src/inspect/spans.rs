//! Ranges of bytes: those that differ, those that are explained, and their places in the parts inside.

use super::part::PartExtent;
use crate::image::{ReadAt, Source};
use std::{io, ops::Range};

/// The bytes `start..end`. Spans in a list are sorted and do not touch.
pub(super) type Span = Range<u64>;

/// Bytes that are read at a time from each side.
const CHUNK: u64 = 1 << 20;
/// Bytes that are compared at a time within a differing chunk.
const BLOCK: usize = 4096;
/// Differing bytes nearer than this become one range, so that noise does not cost memory.
const NEAR: u64 = BLOCK as u64;

/// The ranges within `within` in which the two differ. Each begins and ends with a differing byte, and may have equal bytes inside.
/// Bytes behind the end of one side differ.
pub(super) fn scan(a: &Source, b: &Source, within: &[Span]) -> io::Result<Vec<Span>> {
    let (size_a, size_b) = (a.size()?, b.size()?);
    let (common, end) = (size_a.min(size_b), size_a.max(size_b));
    let mut found = Vec::new();
    let (mut left, mut right) = buffers(within);
    for span in within {
        let mut at = span.start;
        let until = span.end.min(common);
        while at < until {
            let n = (until - at).min(CHUNK) as usize;
            a.read_exact_at(&mut left[..n], at)?;
            b.read_exact_at(&mut right[..n], at)?;
            if left[..n] != right[..n] {
                let blocks = left[..n].chunks(BLOCK).zip(right[..n].chunks(BLOCK));
                for (index, (x, y)) in blocks.enumerate() {
                    if let Some((first, last)) = edges(x, y) {
                        let base = at + (index * BLOCK) as u64;
                        push(&mut found, base + first..base + last);
                    }
                }
            }
            at += n as u64;
        }
        let (from, to) = (span.start.max(common), span.end.min(end));
        if from < to {
            push(&mut found, from..to);
        }
    }
    Ok(found)
}

/// A buffer for each side, no larger than the longest range.
fn buffers(within: &[Span]) -> (Vec<u8>, Vec<u8>) {
    let longest = within.iter().map(|s| s.end.saturating_sub(s.start)).max().unwrap_or(0);
    let len = longest.min(CHUNK) as usize;
    (vec![0; len], vec![0; len])
}

/// Offset of the first differing byte, and the offset behind the last one.
fn edges(a: &[u8], b: &[u8]) -> Option<(u64, u64)> {
    if a == b {
        return None;
    }
    let differs = |(x, y): (&u8, &u8)| x != y;
    let first = a.iter().zip(b).position(differs)?;
    let last = a.iter().zip(b).rposition(differs)?;
    Some((first as u64, last as u64 + 1))
}

fn push(spans: &mut Vec<Span>, new: Span) {
    match spans.last_mut() {
        Some(last) if new.start <= last.end.saturating_add(NEAR) => last.end = last.end.max(new.end),
        _ => spans.push(new),
    }
}

/// Number of differing bytes within `within`.
pub(super) fn count(a: &Source, b: &Source, within: &[Span]) -> io::Result<u64> {
    let (size_a, size_b) = (a.size()?, b.size()?);
    let (common, end) = (size_a.min(size_b), size_a.max(size_b));
    let mut total = 0;
    let (mut left, mut right) = buffers(within);
    for span in within {
        let mut at = span.start;
        let until = span.end.min(common);
        while at < until {
            let n = (until - at).min(CHUNK) as usize;
            a.read_exact_at(&mut left[..n], at)?;
            b.read_exact_at(&mut right[..n], at)?;
            total += left[..n].iter().zip(&right[..n]).filter(|(x, y)| x != y).count() as u64;
            at += n as u64;
        }
        total += span.end.min(end).saturating_sub(span.start.max(common));
    }
    Ok(total)
}

/// Sorts `spans` and joins those that touch or overlap.
pub(super) fn normal(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|s| s.start < s.end);
    spans.sort_by_key(|s| (s.start, s.end));
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match out.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => out.push(span),
        }
    }
    out
}

/// The parts of `spans` outside of all `covered`.
pub(super) fn subtract(spans: &[Span], covered: &[Span]) -> Vec<Span> {
    let mut out = Vec::new();
    for span in spans {
        let mut at = span.start;
        let first = covered.partition_point(|c| c.end <= at);
        for cover in covered[first..].iter().take_while(|c| c.start < span.end) {
            if cover.start > at {
                out.push(at..cover.start);
            }
            at = at.max(cover.end);
        }
        if at < span.end {
            out.push(at..span.end);
        }
    }
    out
}

/// The spans that share bytes with one of `covered`, and the others.
pub(super) fn touching(spans: &[Span], covered: &[Span]) -> (Vec<Span>, Vec<Span>) {
    spans.iter().cloned().partition(|span| {
        let first = covered.partition_point(|c| c.end <= span.start);
        covered.get(first).is_some_and(|c| c.start < span.end)
    })
}

/// The parts of `spans` in the ranges of the holder that `extents` name, in offsets of the holder.
pub(super) fn within(spans: &[Span], extents: &[PartExtent]) -> Vec<Span> {
    let mut out = Vec::new();
    for extent in extents {
        let end = extent.from.saturating_add(extent.len);
        let first = spans.partition_point(|s| s.end <= extent.from);
        for span in spans[first..].iter().take_while(|s| s.start < end) {
            out.push(span.start.max(extent.from)..span.end.min(end));
        }
    }
    normal(out)
}

/// Like [`within`], in offsets of the part that the extents place.
pub(super) fn translate(spans: &[Span], extents: &[PartExtent]) -> Vec<Span> {
    let mut out = Vec::new();
    for extent in extents {
        let end = extent.from.saturating_add(extent.len);
        let first = spans.partition_point(|s| s.end <= extent.from);
        for span in spans[first..].iter().take_while(|s| s.start < end) {
            let start = extent.at + (span.start.max(extent.from) - extent.from);
            out.push(start..extent.at + (span.end.min(end) - extent.from));
        }
    }
    normal(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn source(bytes: &[u8]) -> Source {
        Arc::new(bytes.to_vec())
    }

    #[test]
    fn what_is_longer_differs_where_the_other_has_ended() {
        let (a, b) = (source(&[1; 5000]), source(&[1; 7000]));
        let whole = [Span { start: 0, end: 7000 }];
        assert_eq!(
            scan(&a, &b, &whole).expect("in memory"),
            [Span { start: 5000, end: 7000 }]
        );
        assert_eq!(count(&a, &b, &whole).expect("in memory"), 2000);
    }

    #[test]
    fn a_scattered_part_is_found_in_its_own_offsets() {
        let extents = [
            PartExtent {
                at: 0,
                from: 100,
                len: 10,
            },
            PartExtent {
                at: 10,
                from: 50,
                len: 10,
            },
        ];
        let spans = [Span { start: 55, end: 58 }, Span { start: 95, end: 103 }];
        let own = [Span { start: 0, end: 3 }, Span { start: 15, end: 18 }];
        assert_eq!(translate(&spans, &extents), own);
        let parents = [Span { start: 55, end: 58 }, Span { start: 100, end: 103 }];
        assert_eq!(within(&spans, &extents), parents);
    }

    proptest! {
        #[test]
        fn every_differing_byte_is_in_a_range_and_subtracting_loses_none(
            len in 1usize..60_000, flips in proptest::collection::vec(0usize..60_000, 1..20),
            covers in proptest::collection::vec((0u64..60_000, 0u64..9000), 0..6),
        ) {
            let a: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
            let mut b = a.clone();
            let flips: Vec<usize> = flips.into_iter().map(|f| f % len).collect();
            for flip in &flips {
                b[*flip] ^= 0x80;
            }
            let whole = [Span { start: 0, end: len as u64 }];
            let found = scan(&source(&a), &source(&b), &whole).expect("in memory");
            let inside = |spans: &[Span], at: u64| spans.iter().any(|s| s.contains(&at));
            let covers = normal(covers.into_iter().map(|(at, n)| at..at + n).collect());
            let rest = subtract(&found, &covers);
            for at in 0..len {
                if a[at] != b[at] {
                    prop_assert!(inside(&found, at as u64));
                }
                prop_assert_eq!(inside(&rest, at as u64), inside(&found, at as u64) && !inside(&covers, at as u64));
            }
            let (touched, others) = touching(&found, &covers);
            prop_assert_eq!(touched.len() + others.len(), found.len());
            let meets = |span: &Span| (span.start..span.end).any(|at| inside(&covers, at));
            prop_assert!(touched.iter().all(meets) && !others.iter().any(meets));
        }
    }
}
