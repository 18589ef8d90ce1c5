//! `/etc/subuid` and `/etc/subgid` as newuidmap and newgidmap read them: subordinate ids of a user, and the lines that give none.
//!
//! Source: subuid(5), and shadow's `lib/subordinateio.c`: a line is `OWNER:FIRST:COUNT` with decimal numbers and nothing around them; the
//! owner is a name or a number; ranges of a user that meet count as one.

/// Highest id that can be mapped; the one above means "none" (user_namespaces(7)).
const LAST: u64 = u32::MAX as u64 - 1;
/// Where a first range of a user usually begins.
const USUAL: u64 = 100_000;
/// Most pieces of a map. The kernel takes 340 lines.
const MOST_PIECES: usize = 300;

/// The subordinate ids of a user.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct SubordinateIds {
    /// Ranges as first and last id, sorted, without the user's own id.
    ranges: Vec<(u64, u64)>,
    /// Lines of the user that give no ids, or fewer than they say, with the reason.
    faults: Vec<String>,
    /// A first id from which nobody has any.
    free: u64,
}

/// A piece of a map: first id inside, first id outside, number.
pub(super) type Piece = (u32, u32, u32);

impl SubordinateIds {
    /// Reads the text of a file for the user `name`, whose number is `uid`. `own` is the id that the map has already.
    pub(super) fn read(text: &str, name: Option<&str>, uid: u32, own: u32) -> Self {
        let mut found = Self {
            free: USUAL,
            ..Self::default()
        };
        let mut ranges = Vec::new();
        for (number, line) in text.split('\n').enumerate() {
            let Some((owner, rest)) = line.split_once(':') else {
                continue;
            };
            let mine = Some(owner) == name || owner.parse() == Ok(uid);
            let fault = |why: &str| format!("line {} ({:?}) {why}", number + 1, crate::model::excerpt(line));
            let parsed = rest
                .split_once(':')
                .and_then(|(first, count)| Some((decimal(first)?, decimal(count)?)));
            let Some((first, count)) = parsed else {
                if mine {
                    found.faults.push(fault(match line.ends_with('\r') {
                        true => "ends in a carriage return and is not read by newuidmap",
                        false => "is not OWNER:FIRST:COUNT and is not read by newuidmap",
                    }));
                }
                continue;
            };
            let last = first.saturating_add(count).saturating_sub(1);
            if last <= LAST {
                found.free = found.free.max(last + 1);
            }
            if !mine || count == 0 {
                continue;
            }
            if last > LAST {
                found.faults.push(fault("goes beyond the highest id, 4294967294"));
            }
            if first <= LAST {
                ranges.push((first, last.min(LAST)));
            }
        }
        ranges.sort_unstable();
        for (first, last) in ranges {
            match found.ranges.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => found.ranges.push((first, last)),
            }
        }
        found.leave_out(own.into());
        found
    }

    /// The kernel refuses a map that has an id twice.
    fn leave_out(&mut self, own: u64) {
        let split = |(first, last): (u64, u64)| {
            let before = (first < own).then(|| (first, last.min(own.saturating_sub(1))));
            let after = (last > own).then(|| (first.max(own + 1), last));
            match (first..=last).contains(&own) {
                true => [before, after],
                false => [Some((first, last)), None],
            }
        };
        self.ranges = self.ranges.drain(..).flat_map(split).flatten().collect();
    }

    /// A map of the ids from 1 on, `need` of them, in as many pieces as it takes.
    pub(super) fn pieces(&self, need: u32) -> Option<Vec<Piece>> {
        pieces(&self.ranges, need)
    }

    /// Why there are fewer than `need` ids in `file`, and the way out.
    pub(super) fn shortage(&self, file: &str, user: &str, need: u32) -> (String, String) {
        let have: u64 = self.ranges.iter().map(|(first, last)| last - first + 1).sum();
        let mut problem = match have {
            0 => format!("{file} gives user {user} no ids, {need} are needed"),
            have => format!("{file} gives user {user} {have} ids, {need} are needed"),
        };
        for fault in &self.faults {
            problem.push_str(&format!("; {fault}"));
        }
        let end = u64::from(need);
        let fix = if self.faults.iter().any(|fault| fault.contains("carriage return")) {
            format!("remove the carriage returns, as root: sed -i 's/\\r$//' {file}")
        } else if self.free + end > LAST {
            format!("give user {user} {need} ids that nobody has in {file}")
        } else {
            let option = if file.ends_with("subgid") {
                "--add-subgids"
            } else {
                "--add-subuids"
            };
            format!(
                "give the user ids that nobody has, as root: usermod {option} {}-{} {user}",
                self.free,
                self.free + end
            )
        };
        (problem, fix)
    }
}

/// A map of the ids from 1 on, `need` of them, to ids of these ranges.
pub(super) fn pieces(ranges: &[(u64, u64)], need: u32) -> Option<Vec<Piece>> {
    let (mut made, mut inside) = (Vec::new(), 1u32);
    for (first, last) in ranges {
        let left = need + 1 - inside;
        if left == 0 {
            break;
        }
        let count = u32::try_from(last - first + 1).unwrap_or(u32::MAX).min(left);
        made.push((inside, u32::try_from(*first).ok()?, count));
        inside += count;
    }
    (inside == need + 1 && made.len() <= MOST_PIECES).then_some(made)
}

fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: u32 = 65_535;

    fn of(text: &str) -> SubordinateIds {
        SubordinateIds::read(text, Some("me"), 1003, 1003)
    }

    #[test]
    fn ranges_by_name_and_number_are_added_up() {
        for (text, want) in [
            ("other:1:99999\nme:100000:65536\n", vec![(1, 100_000, NEED)]),
            ("1003:200000:65536", vec![(1, 200_000, NEED)]),
            ("me:100000:65535\n", vec![(1, 100_000, NEED)]),
            // Two halves, apart and meeting.
            (
                "me:100000:32768\nme:300000:32768\n",
                vec![(1, 100_000, 32_768), (32_769, 300_000, 32_767)],
            ),
            ("me:132768:32768\nme:100000:32768\n", vec![(1, 100_000, NEED)]),
            ("me:5:10\n1003:300000:65536\n", vec![(1, 5, 10), (11, 300_000, 65_525)]),
            // The user's own id lies in the range.
            ("me:1000:65537\n", vec![(1, 1000, 3), (4, 1004, 65_532)]),
            ("me:1003:65537\n", vec![(1, 1004, NEED)]),
            // A line that goes beyond the ids gives those below.
            ("me:4294901760:99999\n", vec![(1, 4_294_901_760, NEED)]),
        ] {
            assert_eq!(of(text).pieces(NEED), Some(want), "{text:?}");
        }
        assert_eq!(of("me:100000:65534\n").pieces(NEED), None);
        let many: String = (0..400).map(|n| format!("me:{}:200\n", 100_000 + n * 1000)).collect();
        assert_eq!(of(&many).pieces(NEED), None, "more lines than a map takes");
    }

    #[test]
    fn a_shortage_names_the_lines_and_ids_that_are_free() {
        let told = |text: &str| {
            let (problem, fix) = of(text).shortage("/etc/subuid", "me", NEED);
            format!("{problem} | {fix}")
        };
        assert_eq!(
            told("other:100000:65536\n"),
            "/etc/subuid gives user me no ids, 65535 are needed | give the user ids that nobody has, as root: usermod \
             --add-subuids 165536-231071 me"
        );
        assert_eq!(
            told("me:100000:100\n"),
            "/etc/subuid gives user me 100 ids, 65535 are needed | give the user ids that nobody has, as root: usermod \
             --add-subuids 100100-165635 me"
        );
        assert_eq!(
            told("me:100000:65536\r\n"),
            "/etc/subuid gives user me no ids, 65535 are needed; line 1 (\"me:100000:65536\\r\") ends in a carriage return and \
             is not read by newuidmap | remove the carriage returns, as root: sed -i 's/\\r$//' /etc/subuid"
        );
        assert!(told("me:4294967296:65536\n").contains("goes beyond the highest id"));
        for bad in [
            "me:100000\n",
            "me:1e5:65536\n",
            "me: 100000:65536\n",
            "me:100000:65536 \n",
            "me:-1:65536\n",
            "me:100000:65536:x\n",
        ] {
            assert!(told(bad).contains("is not OWNER:FIRST:COUNT"), "{bad:?}: {}", told(bad));
        }
        let group = of("").shortage("/etc/subgid", "me", NEED).1;
        assert!(group.ends_with("usermod --add-subgids 100000-165535 me"), "{group}");
        // Nothing free: no command that would not work.
        assert!(told("other:100000:4294867295\n").ends_with("ids that nobody has in /etc/subuid"));
    }
}
