//! The comparison of two artifacts as one HTML file: the same as `pnb diff` prints, foldable.

use super::text::{Text, count};
use crate::{
    inspect::{ChangeGroup, ChangeRow, ChangedPart, Compared, Mark, Overview},
    page::{PALETTE, PROHIBITION},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("report.css");
const CHANGES: &str = include_str!("changes.css");
/// A group with more rows is folded.
const OPEN: usize = 24;

/// The page about the comparison of `a` with `b`; of every part at most `limit` rows, and of the differences as many.
pub fn changes_html(a: &str, b: &str, compared: &Compared, limit: usize) -> String {
    let Compared { found, overview } = compared;
    let equal = found.equal();
    let headline = match found.total {
        0 => "No byte differs".to_owned(),
        total => count(total, "difference"),
    };
    let (class, sign) = if equal { ("equal", "=") } else { ("first", "≠") };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(PROHIBITION);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (Text(&headline)) }
                style { (PreEscaped(PALETTE)) (PreEscaped(STYLE)) (PreEscaped(CHANGES)) }
            }
            body {
                header class=(class) {
                    h1 { span aria-hidden="true" { (sign) } " " (Text(&headline)) "." }
                    p { "First: " code { (Text(a)) } }
                    p { "Second: " code { (Text(b)) } }
                    nav {
                        @for part in &overview.sections {
                            a href={ "#" (part.name) } { (part.name) } " "
                        }
                    }
                }
                main {
                    (summary(overview))
                    @for part in &overview.sections { (section(part, limit)) }
                    @if found.total > 0 { (every(compared, limit)) }
                }
            }
        }
        "\n"
    };
    page.into_string()
}

fn summary(overview: &Overview) -> Markup {
    html! {
        section id="summary" {
            @for note in &overview.notes { p { (Text(note)) "." } }
            dl class="aspects" {
                @for aspect in &overview.summary {
                    dt { (aspect.name) }
                    dd {
                        @let (class, sign, word) = if aspect.equal { ("equal", "=", "equal") } else { ("differs", "≠", "changed") };
                        span class={ "state " (class) } { (sign) " " (word) } " "
                        span class="words" { (Text(&aspect.text)) }
                    }
                }
            }
        }
    }
}

fn section(part: &ChangedPart, limit: usize) -> Markup {
    let all: usize = part.groups.iter().map(|group| group.rows.len()).sum();
    let mut left = limit;
    let mut shown: Vec<(&ChangeGroup, &[ChangeRow])> = Vec::new();
    for group in &part.groups {
        let rows = &group.rows[..group.rows.len().min(left)];
        left -= rows.len();
        if !rows.is_empty() {
            shown.push((group, rows));
        }
    }
    html! {
        section id=(part.name) {
            h2 { (capital(part.name)) }
            @for (group, rows) in shown {
                @if group.name.is_empty() && !part.derived && rows.len() <= OPEN {
                    (table(rows))
                } @else {
                    details open[!part.derived && rows.len() <= OPEN] {
                        summary {
                            b { (Text(if group.name.is_empty() { part.name } else { &group.name })) } " "
                            small { (count(group.rows.len() as u64, "change")) }
                        }
                        (table(rows))
                    }
                }
            }
            @if all > limit { p { (all - limit) " more, not listed here." } }
            @if part.implied > 0 {
                p class="implied" { (count(part.implied, "difference")) " in its stored form." }
            }
        }
    }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn table(rows: &[ChangeRow]) -> Markup {
    html! {
        ul class="changes" {
            @for row in rows {
                li class=(row.mark.as_str()) {
                    span class="mark" title=(row.mark.as_str()) { (sign(row.mark)) }
                    span class="what" {
                        b { (Text(&row.name)) }
                        @if !row.detail.is_empty() { " " span class="detail" { (Text(&row.detail)) } }
                        @if let Some(hint) = row.hint { " " span class="hint" { "looks like " (hint.as_str()) } }
                    }
                }
            }
        }
    }
}

/// A minus sign as wide as the others.
const fn sign(mark: Mark) -> char {
    match mark {
        Mark::Removed => '−',
        other => other.sign(),
    }
}

fn every(compared: &Compared, limit: usize) -> Markup {
    let found = &compared.found;
    let listed = found.differences.len().min(limit);
    html! {
        section id="every" {
            h2 { "Every difference" }
            details {
                summary { (count(listed as u64, "difference")) " with their places in the bytes" }
                ol {
                    @for difference in &found.differences[..listed] { li { (Text(difference.sentence())) } }
                }
            }
            @if found.total > listed as u64 { p { (found.total - listed as u64) " more, not listed here." } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Aspect, Comparison, Difference, What};

    const HOSTILE: &str = "</style><script>x</script>\u{202e}";

    fn compared() -> Compared {
        let row = |name: &str| ChangeRow {
            mark: Mark::Removed,
            name: name.to_owned(),
            detail: HOSTILE.to_owned(),
            hint: None,
        };
        let groups = vec![ChangeGroup {
            name: HOSTILE.to_owned(),
            rows: (0..30).map(|n| row(&format!("file{n}"))).collect(),
        }];
        let what = What::About { offset: 1, bytes: 2 };
        Compared {
            found: Comparison {
                differences: vec![Difference {
                    path: vec![HOSTILE.to_owned()],
                    what,
                    hint: None,
                    structure: false,
                }],
                total: 41,
            },
            overview: Overview {
                notes: vec![HOSTILE.to_owned()],
                summary: vec![Aspect {
                    name: "root",
                    equal: false,
                    text: HOSTILE.to_owned(),
                    counts: None,
                }],
                sections: vec![ChangedPart {
                    name: "root",
                    groups,
                    derived: false,
                    implied: 7,
                }],
                total: 41,
            },
        }
    }

    #[test]
    fn nothing_from_the_files_is_markup_and_what_is_left_out_is_counted() {
        let page = changes_html(HOSTILE, HOSTILE, &compared(), 25);
        assert!(!page.contains("<script>") && !page.contains('\u{202e}'), "{page}");
        for text in [
            "41 differences.",
            "5 more, not listed here.",
            "7 differences in its stored form.",
            "40 more, not listed here.",
            "<details><summary>",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
        assert_eq!(page.matches("<li class=\"removed\">").count(), 25);
        let equal = Compared {
            found: Comparison::default(),
            overview: Overview::default(),
        };
        assert!(changes_html("a", "b", &equal, 9).contains("No byte differs."));
    }
}
