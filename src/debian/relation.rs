//! Relations between packages: `Depends` and similar fields.
//!
//! `a (>= 1) | b:any, c` is a list of groups; of each group one alternative must hold. See
//! [deb-control(5)](https://manpages.debian.org/deb-control). A package index has about 20 MB of relations, so a [`Relations`] keeps
//! only the checked text, and its parts are parsed again on each use.

use super::{control::is_package_name, version};
use crate::model::excerpt;
use std::{cmp::Ordering, fmt};

/// A checked list of relations; empty when the field is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relations(Box<str>);

/// Alternatives, one of which must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alternatives<'a>(&'a str);

/// How a version must compare to the stated version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `<<`
    Less,
    /// `<=`, also written `<`
    LessEqual,
    /// `=`
    Equal,
    /// `>=`, also written `>`
    GreaterEqual,
    /// `>>`
    Greater,
}

/// One alternative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Name of a package, real or virtual.
    pub name: &'a str,
    /// The qualifier behind the colon: `any` or an architecture.
    pub qualifier: Option<&'a str>,
    /// Version restriction.
    pub version: Option<(Op, &'a str)>,
}

impl Relations {
    /// Checks the text of a field. Empty groups are skipped, as Debian's own tools do.
    ///
    /// # Errors
    /// The invalid relation and the problem with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let relations = Self(text.trim().into());
        for group in relations.groups() {
            for part in group.0.split('|') {
                parse_relation(part).map_err(|problem| format!("relation {:?}: {problem}", excerpt(part.trim())))?;
            }
        }
        Ok(relations)
    }

    /// The groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = Alternatives<'_>> {
        self.0
            .split(',')
            .map(str::trim)
            .filter(|g| !g.is_empty())
            .map(Alternatives)
    }

    /// Every alternative of every group, in order.
    pub fn iter(&self) -> impl Iterator<Item = Relation<'_>> {
        self.groups().flat_map(Alternatives::alternatives)
    }
}

impl<'a> Alternatives<'a> {
    /// The alternatives, in order of preference.
    pub fn alternatives(self) -> impl Iterator<Item = Relation<'a>> {
        // Every group comes from a `Relations`, whose text was checked.
        self.0.split('|').filter_map(|part| parse_relation(part).ok())
    }

    /// The group as it was written.
    pub fn text(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for Alternatives<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.split_whitespace().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

impl Relation<'_> {
    /// Whether the version `found` satisfies the restriction, if there is one.
    pub fn accepts(&self, found: &str) -> bool {
        let Some((op, wanted)) = self.version else {
            return true;
        };
        let order = version::compare(found, wanted);
        match op {
            Op::Less => order == Ordering::Less,
            Op::LessEqual => order != Ordering::Greater,
            Op::Equal => order == Ordering::Equal,
            Op::GreaterEqual => order != Ordering::Less,
            Op::Greater => order == Ordering::Greater,
        }
    }
}

fn parse_relation(text: &str) -> Result<Relation<'_>, &'static str> {
    let text = text.trim();
    let (head, version) = match text.split_once('(') {
        None => (text, None),
        Some((head, rest)) => {
            let inner = rest.strip_suffix(')').ok_or("parenthesis is not closed")?.trim();
            let end = inner
                .find(|c: char| !matches!(c, '<' | '=' | '>'))
                .ok_or("no version in the parentheses")?;
            let (op, version) = inner.split_at(end);
            let op = match op {
                "<<" => Op::Less,
                "<=" | "<" => Op::LessEqual,
                "=" => Op::Equal,
                ">=" | ">" => Op::GreaterEqual,
                ">>" => Op::Greater,
                _ => return Err("unknown comparison"),
            };
            let version = version.trim();
            if version::version_problem(version).is_some() {
                return Err("not a version in the parentheses");
            }
            (head.trim_end(), Some((op, version)))
        }
    };
    let (name, qualifier) = match head.split_once(':') {
        None => (head, None),
        Some((name, qualifier)) => (name, Some(qualifier)),
    };
    if !is_package_name(name) {
        return Err("not a package name");
    }
    if qualifier.is_some_and(|q| {
        q.is_empty()
            || !q
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }) {
        return Err("not an architecture after the colon");
    }
    Ok(Relation {
        name,
        qualifier,
        version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_alternatives_versions_and_qualifiers() {
        let list = Relations::parse("a (>= 1.0-1) | b:any,c(<<2),\n d:arm64 ( = 3 ) ,").expect("well-formed");
        let all: Vec<Relation<'_>> = list.iter().collect();
        let names: Vec<&str> = all.iter().map(|r| r.name).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!(all[0].version, Some((Op::GreaterEqual, "1.0-1")));
        assert_eq!(all[1].qualifier, Some("any"));
        assert_eq!(all[2].version, Some((Op::Less, "2")));
        assert_eq!(
            (all[3].qualifier, all[3].version),
            (Some("arm64"), Some((Op::Equal, "3")))
        );
        assert_eq!(list.groups().count(), 3);
        assert!(all[0].accepts("1.0-1") && !all[0].accepts("1.0-1~"));
        assert!(all[2].accepts("2~") && !all[2].accepts("2"));
    }

    #[test]
    fn refuses_what_is_no_relation() {
        for (text, problem) in [
            ("a (1)", "unknown comparison"),
            ("a (>=)", "no version in the parentheses"),
            ("a (>= 1", "parenthesis is not closed"),
            ("a (=> 1)", "unknown comparison"),
            ("a (>= x_y)", "not a version in the parentheses"),
            ("a || b", "not a package name"),
            ("a b", "not a package name"),
            ("a [amd64]", "not a package name"),
            ("a:", "not an architecture after the colon"),
        ] {
            let err = Relations::parse(text).expect_err(text);
            assert!(err.ends_with(problem), "{text}: {err}");
        }
    }
}
