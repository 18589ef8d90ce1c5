//! The graph of the stages as an SVG: columns from left to right, each stage to the right of every stage it needs.
//!
//! A layered layout after Sugiyama: each stage gets a column; a line that crosses a column gets a slot in it; the slots of a column
//! are sorted by the slots they are joined to; then every slot gets its coordinates. A line that other lines imply is left out.

use super::{page::words, text::Text};
use crate::{
    model::{NodeId, visible},
    repro::StageResult,
};
use maud::{Markup, html};
use std::collections::{BTreeMap, BTreeSet};

// Lengths in units of the picture, which are pixels as long as it is not scaled down.
const WIDTH: usize = 168;
const HEIGHT: usize = 44;
/// Height of a slot that a line only passes through.
const PASSING: usize = 10;
const GAP_X: usize = 36;
const GAP_Y: usize = 14;
const MARGIN: usize = 6;
/// Characters of a name that fit into a box.
const LABEL: usize = 22;
/// Number of times the columns are sorted, forwards and backwards in turn.
const SWEEPS: usize = 8;

/// A slot in a column: for a stage, or for a line that passes through.
struct ColumnSlot {
    /// The stage's number; `None` where only a line passes.
    stage: Option<usize>,
    /// Slots in the columns before and after that this slot is joined to.
    left: Vec<usize>,
    right: Vec<usize>,
    y: usize,
}

impl ColumnSlot {
    const fn height(&self) -> usize {
        if self.stage.is_some() { HEIGHT } else { PASSING }
    }
}

/// The picture and its width. The box of stage n is a link to `#stage-n`.
pub(super) fn svg(stages: &[StageResult]) -> (Markup, usize) {
    let needs = reduced(stages);
    let columns = columns(&needs);
    let mut slots: Vec<ColumnSlot> = Vec::new();
    let mut grid: Vec<Vec<usize>> = vec![Vec::new(); columns.iter().max().map_or(0, |last| last + 1)];
    let mut put = |stage, column: usize, slots: &mut Vec<ColumnSlot>| {
        let (left, right) = (Vec::new(), Vec::new());
        slots.push(ColumnSlot {
            stage,
            left,
            right,
            y: 0,
        });
        grid[column].push(slots.len() - 1);
        slots.len() - 1
    };
    // Slot n belongs to stage n.
    for (stage, column) in columns.iter().enumerate() {
        put(Some(stage), *column, &mut slots);
    }
    // Lines that begin at one stage share one slot in each column they pass.
    let mut passing: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (stage, needs) in needs.iter().enumerate() {
        for need in needs {
            let mut from = *need;
            for column in columns[*need] + 1..columns[stage] {
                let known = passing.get(&(*need, column)).copied();
                let next = known.unwrap_or_else(|| put(None, column, &mut slots));
                if known.is_none() {
                    passing.insert((*need, column), next);
                    join(&mut slots, from, next);
                }
                from = next;
            }
            join(&mut slots, from, stage);
        }
    }
    order(&mut grid, &slots);
    let tall = |column: &[usize]| column.iter().map(|p| slots[*p].height() + GAP_Y).sum::<usize>();
    let height = grid.iter().map(|c| tall(c)).max().unwrap_or(0).saturating_sub(GAP_Y) + 2 * MARGIN;
    let tops: Vec<usize> = grid.iter().map(|c| (height + GAP_Y - tall(c)) / 2).collect();
    for (column, top) in grid.iter().zip(tops) {
        let mut y = top;
        for slot in column {
            slots[*slot].y = y;
            y += slots[*slot].height() + GAP_Y;
        }
    }
    let width = (grid.len() * (WIDTH + GAP_X)).saturating_sub(GAP_X) + 2 * MARGIN;
    (draw(stages, &grid, &slots, (width, height)), width)
}

fn join(slots: &mut [ColumnSlot], from: usize, to: usize) {
    slots[from].right.push(to);
    slots[to].left.push(from);
}

/// The stages that each stage needs, by number, without those that it needs through another stage anyway.
fn reduced(stages: &[StageResult]) -> Vec<Vec<usize>> {
    let number: BTreeMap<&NodeId, usize> = stages.iter().enumerate().map(|(n, s)| (&s.node, n)).collect();
    let mut below: Vec<BTreeSet<usize>> = Vec::new();
    let mut out = Vec::new();
    for (n, stage) in stages.iter().enumerate() {
        // A verdict lists each stage after the stages it needs; names that are not listed before it are not drawn.
        let needs: BTreeSet<usize> = stage
            .needs
            .iter()
            .filter_map(|need| number.get(need).copied())
            .collect();
        let needs: BTreeSet<usize> = needs.into_iter().filter(|need| *need < n).collect();
        let deeper: BTreeSet<usize> = needs.iter().flat_map(|need| &below[*need]).copied().collect();
        out.push(needs.difference(&deeper).copied().collect());
        below.push(needs.union(&deeper).copied().collect());
    }
    out
}

/// The column of each stage: first as far left as the stages it needs allow, then moved right up to the stages that need it.
fn columns(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut column: Vec<usize> = Vec::new();
    for needs in needs {
        column.push(needs.iter().map(|n| column[*n] + 1).max().unwrap_or(0));
    }
    let mut limit: Vec<Option<usize>> = vec![None; needs.len()];
    for (stage, needs) in needs.iter().enumerate().rev() {
        column[stage] = limit[stage].unwrap_or(column[stage]);
        for need in needs {
            let before = column[stage].saturating_sub(1);
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
                let ranks: Vec<u64> = joined.iter().map(|j| rank[j] as u64).collect();
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

fn draw(stages: &[StageResult], grid: &[Vec<usize>], slots: &[ColumnSlot], (width, height): (usize, usize)) -> Markup {
    let mut x = vec![0; slots.len()];
    for (column, inside) in grid.iter().enumerate() {
        for slot in inside {
            x[*slot] = MARGIN + column * (WIDTH + GAP_X);
        }
    }
    html! {
        svg viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) style={ "min-width:" (width * 2 / 3) "px" }
            role="group" aria-label="Stages and the stages they need"
        {
            @for (n, slot) in slots.iter().enumerate() { (lines(n, slot, slots, &x)) }
            @for (n, stage) in stages.iter().enumerate() { (stage_box(n, stage, x[n], slots[n].y)) }
        }
    }
}

/// The lines that begin in a slot, and the line through it where no stage stands in it.
fn lines(n: usize, slot: &ColumnSlot, slots: &[ColumnSlot], x: &[usize]) -> Markup {
    let middle = |slot: usize| slots[slot].y + slots[slot].height() / 2;
    let through = slot
        .stage
        .is_none()
        .then(|| format!("M{} {}H{}", x[n], middle(n), x[n] + WIDTH));
    let onward = slot.right.iter().map(|to| {
        let (x1, y1, x2, y2) = (x[n] + WIDTH, middle(n), x[*to], middle(*to));
        let half = (x1 + x2) / 2;
        format!("M{x1} {y1}C{half} {y1} {half} {y2} {x2} {y2}")
    });
    html! {
        @for curve in through.into_iter().chain(onward) { path class="line" d=(curve) {} }
    }
}

/// The box of stage `n`, a link to its outputs.
fn stage_box(n: usize, stage: &StageResult, x: usize, y: usize) -> Markup {
    let (class, sign, word) = words(stage.state);
    let (left, right, above, below) = (x + 9, x + WIDTH - 9, y + 18, y + 35);
    html! {
        a href={ "#stage-" (n) } {
            g class={ "state " (class) } {
                title { (Text(&stage.node)) ": " (word) }
                rect x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="6" {}
                text class="name" x=(left) y=(above) { (short(&stage.node.stage)) }
                text x=(left) y=(below) { (sign) " " (word) }
                text class="arch" x=(right) y=(below) text-anchor="end" { (stage.node.arch) }
            }
        }
    }
}

/// A name that fits into a box: a long name is cut in the middle. Invisible characters are visible, HTML is not yet escaped.
fn short(name: &str) -> String {
    let all: Vec<char> = visible(name).chars().collect();
    // Other letters than those of usual stage names may be twice as wide.
    let narrow = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
    let room = if all.iter().all(narrow) { LABEL } else { LABEL / 2 };
    if all.len() <= room {
        return all.into_iter().collect();
    }
    let (begin, end) = (room / 2, room - room / 2 - 1);
    let text = |part: &[char]| part.iter().collect::<String>();
    format!("{}…{}", text(&all[..begin]), text(&all[all.len() - end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Arch, repro::State};

    fn stage(name: &str, needs: &[&str]) -> StageResult {
        let node = |name: &str| NodeId::new(name, Arch::Amd64);
        StageResult {
            node: node(name),
            needs: needs.iter().map(|n| node(n)).collect(),
            state: State::Equal,
            outputs: Vec::new(),
        }
    }

    #[test]
    fn lines_that_follow_from_others_are_left_out() {
        let stages = [
            stage("a", &[]),
            stage("b", &["a"]),
            stage("c", &["a", "b", "not in the picture"]),
            stage("d", &["a", "c"]),
        ];
        assert_eq!(reduced(&stages), [vec![], vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn a_stage_stands_right_of_what_it_needs_and_beside_what_needs_it() {
        // 0 -> 1 -> 2, and 3 -> 2.
        let needs = [vec![], vec![0], vec![1], vec![]];
        assert_eq!(columns(&needs)[..3], [0, 1, 2]);
        let needs = [vec![], vec![], vec![0], vec![1, 2]];
        assert_eq!(columns(&needs), [0, 1, 1, 2]);
    }

    #[test]
    fn no_two_boxes_lie_on_each_other() {
        let names: Vec<String> = (0..40).map(|n| format!("stage-{n}")).collect();
        let stages: Vec<StageResult> = (0..40)
            .map(|n: usize| {
                let needs: Vec<&str> = (0..n)
                    .filter(|m| (n * 7 + m * 3).is_multiple_of(11))
                    .map(|m| names[m].as_str())
                    .collect();
                stage(&names[n], &needs)
            })
            .collect();
        let picture = svg(&stages).0.into_string();
        let number = |text: &str, name: &str| -> usize {
            let from = text.find(name).expect("there") + name.len();
            text[from..]
                .split('"')
                .next()
                .expect("a value")
                .parse()
                .expect("a number")
        };
        let boxes: Vec<(usize, usize)> = picture
            .split("<rect ")
            .skip(1)
            .map(|rect| (number(rect, "x=\""), number(rect, "y=\"")))
            .collect();
        assert_eq!(boxes.len(), 40);
        let (width, height) = (number(&picture, "width=\""), number(&picture, "height=\""));
        for (n, (x, y)) in boxes.iter().enumerate() {
            assert!(x + WIDTH <= width && y + HEIGHT <= height, "box {n}");
            for (other_x, other_y) in &boxes[n + 1..] {
                assert!(x != other_x || y.abs_diff(*other_y) >= HEIGHT, "box {n}");
            }
        }
        assert_eq!(picture, svg(&stages).0.into_string());
    }

    #[test]
    fn a_long_name_keeps_both_its_ends() {
        assert_eq!(short("disk-image-arm64-uefi"), "disk-image-arm64-uefi");
        assert_eq!(short("the-longest-name-a-stage-has"), "the-longest…-stage-has");
        assert_eq!(short("a\nb"), "a\\nb");
        assert_eq!(short(&format!("{}-end", "ä".repeat(60))), "äääää…ä-end");
    }

    #[test]
    fn no_stages_make_an_empty_picture() {
        assert!(svg(&[]).0.into_string().contains("viewBox=\"0 0 12 12\""));
    }
}
