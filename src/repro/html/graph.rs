//! The graph of the stages as an SVG: columns from left to right, each stage to the right of every stage it needs. A line that other lines
//! imply is left out.

use super::{page::words, text::Text};
use crate::{
    model::{NodeId, visible},
    page::{BoxSize, Layered, layered, reduced},
    repro::StageResult,
};
use maud::{Markup, html};
use std::collections::{BTreeMap, BTreeSet};

/// Lengths in units of the picture, which are pixels as long as it is not scaled down.
const SIZE: BoxSize = BoxSize {
    width: 168,
    height: 44,
    passing: 10,
    gap_x: 36,
    gap_y: 14,
    margin: 6,
    band: 0,
};
/// Characters of a name that fit into a box.
const LABEL: usize = 22;

/// The picture and its width. The box of stage n is a link to `#stage-n`.
pub(super) fn svg(stages: &[StageResult]) -> (Markup, usize) {
    let number: BTreeMap<&NodeId, usize> = stages.iter().enumerate().map(|(n, s)| (&s.node, n)).collect();
    // A verdict lists each stage after the stages it needs; names that are not listed before it are not drawn.
    let needs = |stage: &StageResult| -> BTreeSet<usize> {
        let listed = stage.needs.iter().filter_map(|need| number.get(need).copied());
        listed.collect()
    };
    let needs: Vec<BTreeSet<usize>> = stages.iter().map(needs).collect();
    let places = layered(&reduced(&needs), &[], &SIZE);
    (draw(stages, &places), places.width)
}

fn draw(stages: &[StageResult], places: &Layered) -> Markup {
    let (width, height) = (places.width, places.height);
    html! {
        svg viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) style={ "min-width:" (width * 2 / 3) "px" }
            role="group" aria-label="Stages and the stages they need"
        {
            @for (line, _) in &places.lines { path class="line" d=(line) {} }
            @for (n, (stage, (x, y))) in stages.iter().zip(&places.boxes).enumerate() { (stage_box(n, stage, *x, *y)) }
        }
    }
}

/// The box of stage `n`, a link to its outputs.
fn stage_box(n: usize, stage: &StageResult, x: usize, y: usize) -> Markup {
    let (class, sign, word) = words(stage.state);
    let (left, right, above, below) = (x + 9, x + SIZE.width - 9, y + 18, y + 35);
    html! {
        a href={ "#stage-" (n) } {
            g class={ "state " (class) } {
                title { (Text(&stage.node)) ": " (word) }
                rect x=(x) y=(y) width=(SIZE.width) height=(SIZE.height) rx="6" {}
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
            assert!(x + SIZE.width <= width && y + SIZE.height <= height, "box {n}");
            for (other_x, other_y) in &boxes[n + 1..] {
                assert!(x != other_x || y.abs_diff(*other_y) >= SIZE.height, "box {n}");
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
