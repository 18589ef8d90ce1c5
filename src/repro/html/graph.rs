//! The stages as a picture: columns from left to right, each stage right of all it needs.
//!
//! After Sugiyama: stages get columns, lines that pass a column get a place in it, places in a column are put in the order of
//! what they hang on, and then everything has coordinates. A line that follows from two others is left out.

use super::text::{Text, visible};
use crate::repro::StageResult;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

// Lengths in units of the picture: pixels, where it is not made smaller.
const WIDTH: usize = 168;
const HEIGHT: usize = 44;
/// Height of the place of a line that only passes.
const PASSING: usize = 10;
const GAP_X: usize = 36;
const GAP_Y: usize = 14;
const MARGIN: usize = 6;
/// Characters of a name that fit in a box.
const LABEL: usize = 22;
/// How often the columns are put in order, forth and back.
const SWEEPS: usize = 8;

/// A place in a column: of a stage, or of a line on its way.
struct ColumnSlot {
    stage: Option<usize>,
    /// Places in the columns before and after that it is joined to.
    left: Vec<usize>,
    right: Vec<usize>,
    y: usize,
}

impl ColumnSlot {
    const fn height(&self) -> usize {
        if self.stage.is_some() { HEIGHT } else { PASSING }
    }
}

/// The picture, and its width; the box of stage n leads to `#stage-n`.
pub(super) fn svg(stages: &[StageResult]) -> (String, usize) {
    let needs = reduced(stages);
    let columns = columns(&needs);
    let mut places: Vec<ColumnSlot> = Vec::new();
    let mut grid: Vec<Vec<usize>> = vec![Vec::new(); columns.iter().max().map_or(0, |last| last + 1)];
    let mut put = |stage, column: usize, places: &mut Vec<ColumnSlot>| {
        let (left, right) = (Vec::new(), Vec::new());
        places.push(ColumnSlot {
            stage,
            left,
            right,
            y: 0,
        });
        grid[column].push(places.len() - 1);
        places.len() - 1
    };
    // The place of stage n is the n-th.
    for (stage, column) in columns.iter().enumerate() {
        put(Some(stage), *column, &mut places);
    }
    // Lines from one stage share their way: one place of it in a column is enough.
    let mut passing: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (stage, needs) in needs.iter().enumerate() {
        for need in needs {
            let mut from = *need;
            for column in columns[*need] + 1..columns[stage] {
                let known = passing.get(&(*need, column)).copied();
                let next = known.unwrap_or_else(|| put(None, column, &mut places));
                if known.is_none() {
                    passing.insert((*need, column), next);
                    join(&mut places, from, next);
                }
                from = next;
            }
            join(&mut places, from, stage);
        }
    }
    order(&mut grid, &places);
    let tall = |column: &[usize]| column.iter().map(|p| places[*p].height() + GAP_Y).sum::<usize>();
    let height = grid.iter().map(|c| tall(c)).max().unwrap_or(0).saturating_sub(GAP_Y) + 2 * MARGIN;
    let tops: Vec<usize> = grid.iter().map(|c| (height + GAP_Y - tall(c)) / 2).collect();
    for (column, top) in grid.iter().zip(tops) {
        let mut y = top;
        for place in column {
            places[*place].y = y;
            y += places[*place].height() + GAP_Y;
        }
    }
    let width = (grid.len() * (WIDTH + GAP_X)).saturating_sub(GAP_X) + 2 * MARGIN;
    (draw(stages, &grid, &places, (width, height)), width)
}

fn join(places: &mut [ColumnSlot], from: usize, to: usize) {
    places[from].right.push(to);
    places[to].left.push(from);
}

/// What each stage needs, by number, without what another of its needs needs already.
fn reduced(stages: &[StageResult]) -> Vec<Vec<usize>> {
    let number: BTreeMap<&str, usize> = stages.iter().enumerate().map(|(n, s)| (s.node.as_str(), n)).collect();
    let mut below: Vec<BTreeSet<usize>> = Vec::new();
    let mut out = Vec::new();
    for (n, stage) in stages.iter().enumerate() {
        // Each stage stands after those it needs; whatever does not is no stage of the picture.
        let needs: BTreeSet<usize> = stage
            .needs
            .iter()
            .filter_map(|name| number.get(name.as_str()).copied())
            .collect();
        let needs: BTreeSet<usize> = needs.into_iter().filter(|need| *need < n).collect();
        let deeper: BTreeSet<usize> = needs.iter().flat_map(|need| &below[*need]).copied().collect();
        out.push(needs.difference(&deeper).copied().collect());
        below.push(needs.union(&deeper).copied().collect());
    }
    out
}

/// The column of each stage: as far left as what it needs lets it, then as far right as what needs it.
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

/// Puts the places of each column in the order of the middle of what they are joined to, in turns from both sides.
fn order(grid: &mut [Vec<usize>], places: &[ColumnSlot]) {
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
            for (own, place) in grid[column].iter().enumerate() {
                let joined = if forth {
                    &places[*place].left
                } else {
                    &places[*place].right
                };
                let ranks: Vec<u64> = joined.iter().map(|j| rank[j] as u64).collect();
                let middle = match ranks.len() as u64 {
                    0 => own as u64 * 1000,
                    n => ranks.iter().sum::<u64>() * 1000 / n,
                };
                keyed.push((middle, *place));
            }
            keyed.sort_by_key(|(middle, _)| *middle);
            grid[column] = keyed.into_iter().map(|(_, place)| place).collect();
        }
    }
}

fn draw(stages: &[StageResult], grid: &[Vec<usize>], places: &[ColumnSlot], (width, height): (usize, usize)) -> String {
    let mut x = vec![0; places.len()];
    for (column, inside) in grid.iter().enumerate() {
        for place in inside {
            x[*place] = MARGIN + column * (WIDTH + GAP_X);
        }
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" style=\"min-width:{}px\" role=\"group\" \
         aria-label=\"Stages and what they need\">",
        width * 2 / 3
    );
    for (from, place) in places.iter().enumerate() {
        let middle = |p: usize| places[p].y + places[p].height() / 2;
        if place.stage.is_none() {
            let (x, y) = (x[from], middle(from));
            let _ = writeln!(out, "<path class=\"line\" d=\"M{x} {y}H{}\"/>", x + WIDTH);
        }
        for to in &place.right {
            let (x1, y1, x2, y2) = (x[from] + WIDTH, middle(from), x[*to], middle(*to));
            let half = (x1 + x2) / 2;
            let _ = writeln!(
                out,
                "<path class=\"line\" d=\"M{x1} {y1}C{half} {y1} {half} {y2} {x2} {y2}\"/>"
            );
        }
    }
    for (n, stage) in stages.iter().enumerate() {
        let (x, y) = (x[n], places[n].y);
        let (name, arch) = stage.node.rsplit_once('/').unwrap_or((&stage.node, ""));
        let (class, sign, word) = super::words(stage.state);
        let _ = writeln!(
            out,
            "<a href=\"#stage-{n}\"><g class=\"state {class}\"><title>{}: {word}</title>\
             <rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>\
             <text class=\"name\" x=\"{tx}\" y=\"{}\">{}</text><text x=\"{tx}\" y=\"{}\">{sign} {word}</text>\
             <text class=\"arch\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text></g></a>",
            Text(&stage.node),
            y + 18,
            Text(&short(name)),
            y + 35,
            x + WIDTH - 9,
            y + 35,
            Text(&short(arch)),
            tx = x + 9,
        );
    }
    out.push_str("</svg>\n");
    out
}

/// A name that fits: of a long one the beginning and the end. It is text as [`Text`] shows it, but not yet for HTML.
fn short(name: &str) -> String {
    let all: Vec<char> = visible(name).chars().collect();
    // Letters that no name of a stage has may be twice as wide.
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
    use crate::repro::State;

    fn stage(node: &str, needs: &[&str]) -> StageResult {
        StageResult {
            node: node.to_owned(),
            needs: needs.iter().map(|n| (*n).to_owned()).collect(),
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
        let names: Vec<String> = (0..40).map(|n| format!("stage-{n}/amd64")).collect();
        let stages: Vec<StageResult> = (0..40)
            .map(|n: usize| {
                let needs: Vec<&str> = (0..n)
                    .filter(|m| (n * 7 + m * 3).is_multiple_of(11))
                    .map(|m| names[m].as_str())
                    .collect();
                stage(&names[n], &needs)
            })
            .collect();
        let (picture, _) = svg(&stages);
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
        assert_eq!(picture, svg(&stages).0);
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
        assert!(svg(&[]).0.contains("viewBox=\"0 0 12 12\""));
    }
}
