//! Seccomp user notification: pid 1 answers sysinfo(2) and sched_getaffinity(2) of every stage, which would tell of the host, and with a
//! variation also getdents64(2) and uname(2), so that directories are listed in another order and the kernel has another release. It refuses
//! the calls whose refusal a program could ignore, and counts them ([`super::refusal`]). This works for every program, static ones and
//! built-ins included, and for an emulated one as far as its emulator makes the call: qemu-user answers calls that it does not know itself.
//!
//! ```text
//! stage     getdents64 ──► seccomp: notify the listener ─ ─ waits ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─► continues
//! pid 1                         └► pidfd_getfd · getdents64 · shuffle · process_vm_writev ┘
//! ```
//!
//! Entries change places within the result of one call only, so every entry is listed exactly once. sysinfo(2) is answered, not refused:
//! the C library uses its result without a look at the error. A stage sees as many processors as it declares, the first ones, whichever and
//! however many it runs on: programs choose their number of threads by them, and a host with fewer gives the same outputs.
//! Source: seccomp_unotify(2), getdents64(2), uname(2), sysinfo(2), sched_getaffinity(2).

use super::{
    Spec, SystemInfo, Variation,
    refusal::{DeclaredRefusals, Refusals, WaitingCaller},
    seccomp, sys,
    wire::{Fault, Step},
};
use seccompiler::{BackendError, BpfProgram};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Largest buffer of one getdents64 call; C libraries use smaller ones.
const LARGEST: usize = 1 << 20;
/// Offsets in `struct linux_dirent64`: of `d_off`, the position of the next entry, and of `d_reclen`, this entry's length.
const NEXT: usize = 8;
const LENGTH: usize = 16;
/// Bytes of each of the six texts in `struct utsname`, and the index of the release among them.
const TEXT: usize = 65;
const RELEASE: usize = 2;

/// The system calls that pid 1 answers.
fn calls(variation: &Variation) -> Vec<libc::c_long> {
    let list = variation.shuffle.map(|_| libc::SYS_getdents64);
    let name = variation.kernel.as_ref().map(|_| libc::SYS_uname);
    let always = [libc::SYS_sysinfo, libc::SYS_sched_getaffinity];
    always.into_iter().chain(list).chain(name).collect()
}

/// The filter that notifies the listener of those calls and of the refused ones that are reported.
pub(super) fn program(spec: &Spec) -> Result<BpfProgram, BackendError> {
    seccomp::notifying(spec, &calls(&spec.variation))
}

/// Installs the filter for this process; returns the notification descriptor for pid 1.
pub(super) fn install(program: &BpfProgram) -> Result<OwnedFd, Fault> {
    sys::seccomp_listener(program).step("install the seccomp notification filter")
}

/// Answers the notified calls of one stage.
pub(super) struct Answerer<'a> {
    listener: OwnedFd,
    /// The procfs of the sandbox, which tells who calls.
    proc: BorrowedFd<'a>,
    /// The spec, which selects the refused calls.
    spec: Spec,
    /// State of the random numbers that choose the order of entries.
    state: u64,
    release: String,
    machine: SystemInfo,
    processors: u32,
    buffer: Vec<u8>,
}

impl<'a> Answerer<'a> {
    pub(super) fn new(listener: OwnedFd, spec: &Spec, proc: BorrowedFd<'a>) -> Self {
        Self {
            listener,
            proc,
            spec: spec.clone(),
            state: spec.variation.shuffle.unwrap_or(0),
            release: spec.variation.kernel.clone().unwrap_or_default(),
            machine: spec.machine(),
            processors: spec.processors().count,
            buffer: Vec::new(),
        }
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers the next notification; counts it if the call is refused.
    pub(super) fn answer(&mut self, refusals: &mut Refusals) -> Result<(), Fault> {
        let step = "answer a seccomp notification";
        // The calling thread may have been killed by now.
        let Some(asked) = sys::receive_notification(&self.listener).step(step)? else {
            return Ok(());
        };
        let result = match asked.call {
            libc::SYS_uname => self.answer_uname(&asked),
            libc::SYS_sysinfo => self.answer_sysinfo(&asked),
            libc::SYS_sched_getaffinity => self.answer_affinity(&asked),
            libc::SYS_getdents64 => self.answer_getdents(&asked),
            _ => self.refuse(&asked, refusals),
        };
        sys::answer_notification(&self.listener, asked.id, result).step(step)
    }

    /// Refuses a call. The answer depends on the call's number and arguments alone, which the kernel has copied.
    fn refuse(&self, asked: &sys::Notification, refusals: &mut Refusals) -> io::Result<usize> {
        let Some(refused) = seccomp::refused(&self.spec, asked.call, &asked.args) else {
            // The filter was made of the same rows.
            return Err(io::Error::from(nix::Error::EPERM));
        };
        let caller = WaitingCaller {
            proc: self.proc,
            thread: asked.thread,
        };
        let program = caller.program();
        let silent = caller.only_sets_mode(refused.call, &asked.args);
        let none = DeclaredRefusals::new();
        let declared = self.spec.refused.as_ref().unwrap_or(&none);
        let known = refusals.has(&program, &refused, declared);
        let circumstances = (!known).then(|| caller.circumstances(refused.call, &asked.args));
        // A caller that was killed meanwhile does not go on without the call, and what was read may be another thread's.
        if !silent && sys::notification_is_valid(&self.listener, asked.id) {
            refusals.count(program, &refused, circumstances.unwrap_or_default(), declared);
        }
        Err(io::Error::from_raw_os_error(refused.errno))
    }

    fn answer_getdents(&mut self, asked: &sys::Notification) -> io::Result<usize> {
        let directory = sys::descriptor_of(asked.thread, asked.args[0] as i32)?;
        self.buffer.resize((asked.args[2] as usize).min(LARGEST), 0);
        let n = sys::list_entries(&directory, &mut self.buffer)?;
        shuffle(&mut self.buffer[..n], &mut self.state);
        self.write_back(asked, n, asked.args[1])?;
        Ok(n)
    }

    fn answer_uname(&mut self, asked: &sys::Notification) -> io::Result<usize> {
        self.buffer = sys::names_of_the_system()?;
        let release = &mut self.buffer[RELEASE * TEXT..][..TEXT];
        release.fill(0);
        let len = self.release.len().min(TEXT - 1);
        release[..len].copy_from_slice(&self.release.as_bytes()[..len]);
        self.write_back(asked, self.buffer.len(), asked.args[0])?;
        Ok(0)
    }

    fn answer_sysinfo(&mut self, asked: &sys::Notification) -> io::Result<usize> {
        self.buffer = described(&self.machine);
        self.write_back(asked, self.buffer.len(), asked.args[0])?;
        Ok(0)
    }

    /// The answer is the same for every thread: all of them start with the affinity of the stage, and none can set its own.
    fn answer_affinity(&mut self, asked: &sys::Notification) -> io::Result<usize> {
        self.buffer = affinity(self.processors, asked.args[1]).ok_or_else(|| io::Error::from(nix::Error::EINVAL))?;
        self.write_back(asked, self.buffer.len(), asked.args[2])?;
        Ok(self.buffer.len())
    }

    /// Writes the first `n` bytes of the buffer to `address` in the calling thread's memory.
    fn write_back(&self, asked: &sys::Notification, n: usize, address: u64) -> io::Result<()> {
        // The thread id could be another thread's by now; a valid notification proves that it is not.
        if !sys::notification_is_valid(&self.listener, asked.id) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        sys::write_memory(asked.thread, &self.buffer[..n], address)
    }
}

/// The set of the first `count` processors in words of 64 bits, as the kernel writes it into a buffer of `room` bytes: as many words as the
/// processors need. `None` where the kernel would refuse the buffer: its size is no number of words, or too small.
fn affinity(count: u32, room: u64) -> Option<Vec<u8>> {
    const WORD: u64 = 8;
    // The kernel takes the size as an unsigned int.
    let room = room & u64::from(u32::MAX);
    let words = u64::from(count.max(1)).div_ceil(64);
    if !room.is_multiple_of(WORD) || room < words * WORD {
        return None;
    }
    let word = |n: u64| {
        let set = u64::from(count).saturating_sub(n * 64).min(64) as u32;
        u64::MAX.checked_shr(64 - set).unwrap_or(0)
    };
    Some((0..words).flat_map(|n| word(n).to_ne_bytes()).collect())
}

/// The bytes of `struct sysinfo` (linux/sysinfo.h): uptime, three loads, memory in all, free, shared, buffers, swap in all and free, processes
/// (16 bits and padding), high memory in all and free, and the unit of memory, which fills the last word.
fn described(machine: &SystemInfo) -> Vec<u8> {
    let SystemInfo {
        uptime,
        load,
        memory: (all, free),
        processes,
    } = *machine;
    let words = [
        uptime,
        load,
        load,
        load,
        all,
        free,
        0,
        0,
        0,
        0,
        processes.into(),
        0,
        0,
        1,
    ];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The next number of a sequence (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Changes the order of the entries of one result. The `d_off` values stay in place, because they are positions, not properties of the
/// entries.
fn shuffle(entries: &mut [u8], state: &mut u64) {
    let mut found = Vec::new();
    let mut at = 0;
    while at + LENGTH + 2 <= entries.len() {
        let length = usize::from(u16::from_ne_bytes([entries[at + LENGTH], entries[at + LENGTH + 1]]));
        if length < LENGTH + 2 || at + length > entries.len() {
            return;
        }
        let entry = entries[at..at + length].to_vec();
        let next: [u8; 8] = std::array::from_fn(|i| entry[NEXT + i]);
        found.push((entry, next));
        at += length;
    }
    let nexts: Vec<[u8; 8]> = found.iter().map(|(_, next)| *next).collect();
    for i in (1..found.len()).rev() {
        found.swap(i, (next(state) % (i as u64 + 1)) as usize);
    }
    let mut at = 0;
    for ((entry, _), next) in found.iter().zip(nexts) {
        entries[at..at + entry.len()].copy_from_slice(entry);
        entries[at + NEXT..at + NEXT + 8].copy_from_slice(&next);
        at += entry.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: u8, length: u16, next: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(length)];
        bytes[0] = name;
        bytes[NEXT..NEXT + 8].copy_from_slice(&next.to_ne_bytes());
        bytes[LENGTH..LENGTH + 2].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_set_of_processors_is_that_of_the_first_ones() {
        let set = |count, room| affinity(count, room);
        assert_eq!(set(1, 8), Some(vec![1, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(set(2, 128), Some(vec![3, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(set(64, 8), Some(vec![0xff; 8]));
        let many = set(66, 16).expect("two words");
        assert_eq!(
            (&many[..8], &many[8..]),
            (&[0xff; 8][..], &[3, 0, 0, 0, 0, 0, 0, 0][..])
        );
        for (count, room) in [(1, 0), (1, 4), (1, 12), (65, 8), (1, 1 << 32)] {
            assert_eq!(set(count, room), None, "{count} in {room} bytes");
        }
    }

    #[test]
    fn every_entry_is_listed_once_and_positions_stay() {
        let given: Vec<u8> = (0..20)
            .flat_map(|i| entry(i, 24 + 8 * (u16::from(i) % 3), u64::from(i) + 100))
            .collect();
        let mut shuffled = given.clone();
        shuffle(&mut shuffled, &mut 7);
        assert_ne!(shuffled, given);
        let (mut names, mut at, mut place) = (Vec::new(), 0, 100u64);
        while at < shuffled.len() {
            names.push(shuffled[at]);
            assert_eq!(shuffled[at + NEXT..at + NEXT + 8], place.to_ne_bytes());
            at += usize::from(u16::from_ne_bytes([shuffled[at + LENGTH], shuffled[at + LENGTH + 1]]));
            place += 1;
        }
        names.sort_unstable();
        assert_eq!(names, (0..20).collect::<Vec<u8>>());
        let mut again = given.clone();
        shuffle(&mut again, &mut 7);
        assert_eq!(again, shuffled, "one number, one order");
    }

    #[test]
    fn a_malformed_list_of_entries_is_left_unchanged() {
        for length in [0u16, 3, 200] {
            let mut bytes = entry(1, 24, 5);
            bytes[LENGTH..LENGTH + 2].copy_from_slice(&length.to_ne_bytes());
            let given = bytes.clone();
            shuffle(&mut bytes, &mut 1);
            assert_eq!(bytes, given);
        }
    }
}
