//! The layout of a graph: columns from left to right, each node to the right of every node it needs.
//!
//! A layered layout after Sugiyama: each node gets a column; a line that crosses a column gets a slot in it; the slots of a column are
//! sorted by the slots they are joined to; then every slot gets its coordinates. Nodes of several bands lie in bands one above the other.

use std::collections::{BTreeMap, BTreeSet};

/// Lengths of a picture, in its own units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BoxSize {
    /// Width of a box.
    pub width: usize,
    /// Height of a box.
    pub height: usize,
    /// Height of a slot that a line only passes through.
    pub passing: usize,
    /// Space between columns.
    pub gap_x: usize,
    /// Space between slots of a column.
    pub gap_y: usize,
    /// Space around the picture.
    pub margin: usize,
    /// Space above each band, for its name.
    pub band: usize,
}

/// The places of boxes and lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layered {
    /// Left upper corner of each node's box.
    pub boxes: Vec<(usize, usize)>,
    /// Lines as SVG path data, each with whether it ends at a box.
    pub lines: Vec<(String, bool)>,
    /// Upper edge of each band.
    pub bands: Vec<usize>,
    /// Width of the picture.
    pub width: usize,
    /// Height of the picture.
    pub height: usize,
}

/// Number of times the columns are sorted, forwards and backwards in turn.
const SWEEPS: usize = 8;

/// A slot in a column: for a node, or for a line that passes through.
struct ColumnSlot {
    /// The node's number; `None` where only a line passes.
    node: Option<usize>,
    band: usize,
    /// Slots in the columns before and after that this slot is joined to.
    left: Vec<usize>,
    right: Vec<usize>,
    y: usize,
}

/// The nodes that each node needs, without those that it needs through another node anyway. A node comes after those that it needs;
/// others are left out.
pub fn reduced(needs: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let mut below: Vec<BTreeSet<usize>> = Vec::new();
    let mut out = Vec::new();
    for (n, needs) in needs.iter().enumerate() {
        let needs: BTreeSet<usize> = needs.iter().copied().filter(|need| *need < n).collect();
        let deeper: BTreeSet<usize> = needs.iter().flat_map(|need| &below[*need]).copied().collect();
        out.push(needs.difference(&deeper).copied().collect());
        below.push(needs.union(&deeper).copied().collect());
    }
    out
}

/// Lays out nodes that need each other as `needs` says, each in its band.
pub fn layered(needs: &[Vec<usize>], bands: &[usize], size: &BoxSize) -> Layered {
    let columns = columns(needs);
    let band_of = |node: usize| bands.get(node).copied().unwrap_or(0);
    let band_count = (0..needs.len()).map(band_of).max().map_or(1, |last| last + 1);
    let mut slots: Vec<ColumnSlot> = Vec::new();
    let mut grid: Vec<Vec<usize>> = vec![Vec::new(); columns.iter().max().map_or(0, |last| last + 1)];
    let mut put = |node, band, column: usize, slots: &mut Vec<ColumnSlot>| {
        slots.push(ColumnSlot {
            node,
            band,
            left: Vec::new(),
            right: Vec::new(),
            y: 0,
        });
        grid[column].push(slots.len() - 1);
        slots.len() - 1
    };
    // Slot n belongs to node n.
    for (node, column) in columns.iter().enumerate() {
        put(Some(node), band_of(node), *column, &mut slots);
    }
    // Lines that begin at one node share one slot in each column they pass, in each band.
    let mut passing: BTreeMap<(usize, usize, usize), usize> = BTreeMap::new();
    for (node, needs) in needs.iter().enumerate() {
        for need in needs {
            let mut from = *need;
            let band = band_of(node);
            for column in columns[*need] + 1..columns[node] {
                let known = passing.get(&(*need, band, column)).copied();
                let next = known.unwrap_or_else(|| put(None, band, column, &mut slots));
                if known.is_none() {
                    passing.insert((*need, band, column), next);
                    join(&mut slots, from, next);
                }
                from = next;
            }
            join(&mut slots, from, node);
        }
    }
    order(&mut grid, &slots);
    for column in &mut grid {
        column.sort_by_key(|slot| slots[*slot].band);
    }
    place(&grid, &mut slots, band_count, size)
}

/// Gives every slot its coordinates, and draws the lines.
fn place(grid: &[Vec<usize>], slots: &mut [ColumnSlot], band_count: usize, size: &BoxSize) -> Layered {
    let height = |slot: &ColumnSlot| if slot.node.is_some() { size.height } else { size.passing };
    let of_band = |column: &[usize], band: usize, slots: &[ColumnSlot]| -> Vec<usize> {
        column
            .iter()
            .copied()
            .filter(|slot| slots[*slot].band == band)
            .collect()
    };
    let tall = |column: &[usize], slots: &[ColumnSlot]| {
        column
            .iter()
            .map(|slot| height(&slots[*slot]) + size.gap_y)
            .sum::<usize>()
    };
    let mut bands = Vec::new();
    let mut top = size.margin;
    for band in 0..band_count {
        bands.push(top);
        top += size.band;
        let tallest = grid
            .iter()
            .map(|column| tall(&of_band(column, band, slots), slots))
            .max()
            .unwrap_or(0);
        for column in grid {
            let inside = of_band(column, band, slots);
            let mut y = top + (tallest - tall(&inside, slots)) / 2;
            for slot in inside {
                slots[slot].y = y;
                y += height(&slots[slot]) + size.gap_y;
            }
        }
        top += tallest;
    }
    let mut x = vec![0; slots.len()];
    for (column, inside) in grid.iter().enumerate() {
        for slot in inside {
            x[*slot] = size.margin + column * (size.width + size.gap_x);
        }
    }
    let middle = |slot: usize| slots[slot].y + height(&slots[slot]) / 2;
    let mut lines = Vec::new();
    for (n, slot) in slots.iter().enumerate() {
        if slot.node.is_none() {
            lines.push((format!("M{} {}H{}", x[n], middle(n), x[n] + size.width), false));
        }
        for to in &slot.right {
            let (x1, y1, x2, y2) = (x[n] + size.width, middle(n), x[*to], middle(*to));
            let half = (x1 + x2) / 2;
            let curve = format!("M{x1} {y1}C{half} {y1} {half} {y2} {x2} {y2}");
            lines.push((curve, slots[*to].node.is_some()));
        }
    }
    let nodes = slots.iter().enumerate().filter(|(_, slot)| slot.node.is_some());
    Layered {
        boxes: nodes.map(|(n, slot)| (x[n], slot.y)).collect(),
        lines,
        bands,
        width: (grid.len() * (size.width + size.gap_x)).saturating_sub(size.gap_x) + 2 * size.margin,
        height: top.saturating_sub(if grid.is_empty() { 0 } else { size.gap_y }) + size.margin,
    }
}

fn join(slots: &mut [ColumnSlot], from: usize, to: usize) {
    slots[from].right.push(to);
    slots[to].left.push(from);
}

/// The column of each node: first as far left as the nodes it needs allow, then moved right up to the nodes that need it.
fn columns(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut column: Vec<usize> = Vec::new();
    for needs in needs {
        column.push(needs.iter().map(|n| column[*n] + 1).max().unwrap_or(0));
    }
    let mut limit: Vec<Option<usize>> = vec![None; needs.len()];
    for (node, needs) in needs.iter().enumerate().rev() {
        column[node] = limit[node].unwrap_or(column[node]);
        for need in needs {
            let before = column[node].saturating_sub(1);
            limit[*need] = Some(limit[*need].map_or(before, |l| l.min(before)));
        }
    }
    column
}

/// Sorts the slots of each column by the mean rank of the slots they are joined to, in turns from the left and from the right.
fn order(grid: &mut [Vec<usize>], slots: &[ColumnSlot]) {
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        for step in 1..grid.len() {
            let (column, other) = if forth {
                (step, step - 1)
            } else {
                (grid.len() - 1 - step, grid.len() - step)
            };
            let rank: BTreeMap<usize, usize> = grid[other].iter().enumerate().map(|(r, p)| (*p, r)).collect();
            let mut keyed: Vec<(u64, usize)> = Vec::new();
            for (own, slot) in grid[column].iter().enumerate() {
                let joined = if forth { &slots[*slot].left } else { &slots[*slot].right };
                let ranks: Vec<u64> = joined.iter().filter_map(|j| rank.get(j)).map(|r| *r as u64).collect();
                let middle = match ranks.len() as u64 {
                    0 => own as u64 * 1000,
                    n => ranks.iter().sum::<u64>() * 1000 / n,
                };
                keyed.push((middle, *slot));
            }
            keyed.sort_by_key(|(middle, _)| *middle);
            grid[column] = keyed.into_iter().map(|(_, slot)| slot).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: BoxSize = BoxSize {
        width: 100,
        height: 40,
        passing: 10,
        gap_x: 30,
        gap_y: 10,
        margin: 5,
        band: 20,
    };

    #[test]
    fn lines_that_follow_from_others_are_left_out() {
        let needs = [vec![], vec![0], vec![0, 1, 7], vec![0, 2]].map(BTreeSet::from_iter);
        assert_eq!(reduced(&needs), [vec![], vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn a_node_stands_right_of_what_it_needs_and_beside_what_needs_it() {
        // 0 -> 1 -> 2, and 3 -> 2.
        let needs = [vec![], vec![0], vec![1], vec![]];
        assert_eq!(columns(&needs)[..3], [0, 1, 2]);
        let needs = [vec![], vec![], vec![0], vec![1, 2]];
        assert_eq!(columns(&needs), [0, 1, 1, 2]);
    }

    #[test]
    fn no_two_boxes_lie_on_each_other_and_bands_do_not_mix() {
        let needs: Vec<Vec<usize>> = (0..40usize)
            .map(|n| (0..n).filter(|m| (n * 7 + m * 3).is_multiple_of(11)).collect())
            .collect();
        let bands: Vec<usize> = (0..40).map(|n| n % 2).collect();
        let found = layered(&needs, &bands, &SIZE);
        assert_eq!(found, layered(&needs, &bands, &SIZE));
        let second = found.bands[1];
        for (n, (x, y)) in found.boxes.iter().enumerate() {
            assert!(
                x + SIZE.width <= found.width && y + SIZE.height <= found.height,
                "box {n}"
            );
            assert_eq!(*y >= second, bands[n] == 1, "box {n}");
            for (other_x, other_y) in &found.boxes[n + 1..] {
                assert!(x != other_x || y.abs_diff(*other_y) >= SIZE.height, "box {n}");
            }
        }
    }

    #[test]
    fn no_nodes_make_an_empty_picture() {
        let found = layered(&[], &[], &SIZE);
        assert_eq!((found.boxes.len(), found.lines.len(), found.width), (0, 0, 10));
    }
}
