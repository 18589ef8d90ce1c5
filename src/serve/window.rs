//! The blocks of one TFTP transfer that are under way, and the meaning of an acknowledgement; no I/O.
//!
//! RFC 7440 lets a client that misses a block of a window acknowledge the block before it. Some clients do so once, others for every
//! block that arrives after the missing one. An acknowledgement that arrives can therefore be the answer to a packet that was sent long
//! before. If each of them led to a retransmission, every retransmission would be answered with as many, and the traffic would grow with
//! every loss (RFC 1123, section 4.2.3.1). A window thus counts the packets that may still be answered. An acknowledgement of less than the
//! window leads to a retransmission only when it must be an answer to the newest packets, and one without progress only once until the
//! client makes progress or the timer expires.
//!
//! A client counts the blocks of its window from its last acknowledgement, so after each one the server sends up to a whole window
//! behind the acknowledged block; otherwise both would wait for each other.

use std::ops::RangeInclusive;

/// The meaning of an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckMeaning {
    /// The client has the whole window.
    Whole,
    /// The client has further blocks, but not the whole window.
    Part,
    /// The first block of the window was lost.
    Lost,
    /// None: the answer to an earlier packet, or to another transfer.
    Stale,
}

/// The blocks under way. Blocks are counted from 1; packets have the lower 16 bits of a number.
#[derive(Debug)]
pub struct SendWindow {
    /// Most blocks sent without an acknowledgement.
    size: u64,
    /// Number of blocks of the file.
    blocks: u64,
    /// Number of blocks that the client has acknowledged.
    acknowledged: u64,
    /// The last block of the window.
    last: u64,
    /// Whether the newest packet was the first one with its block.
    reaches_further: bool,
    /// Most acknowledgements that may still arrive.
    unanswered: u64,
    /// Most acknowledgements that may still arrive for packets before the newest window.
    earlier: u64,
    /// Whether an acknowledgement without progress has led to a retransmission since the last progress, or the last timer.
    repeated: bool,
    /// Whether the window is sent from its beginning, not only behind its end.
    back: bool,
}

impl SendWindow {
    /// The window of a transfer of `blocks` blocks, up to `size` of them without an acknowledgement; the client has the first `acknowledged`.
    pub fn new(blocks: u64, size: u64, acknowledged: u64) -> Self {
        Self {
            size,
            blocks,
            acknowledged,
            last: acknowledged,
            reaches_further: false,
            unanswered: 0,
            earlier: 0,
            repeated: false,
            back: true,
        }
    }

    /// Number of blocks that the client has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether the client has the whole file.
    pub fn is_done(&self) -> bool {
        self.acknowledged == self.blocks
    }

    /// A packet was sent that the client answers, before the blocks.
    pub fn sent_before(&mut self) {
        self.unanswered += 1;
    }

    /// The answer to such a packet has arrived.
    pub fn answered_before(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// The blocks to send now: at the start, after an acknowledgement with a meaning, or after the timer.
    pub fn next_blocks(&mut self) -> RangeInclusive<u64> {
        let first = match self.back {
            true => self.acknowledged + 1,
            false => self.last + 1,
        };
        if std::mem::take(&mut self.back) {
            self.earlier = self.unanswered;
        }
        let last = (self.acknowledged + self.size).min(self.blocks);
        self.reaches_further = last > self.last;
        self.last = last;
        self.unanswered += (last + 1).saturating_sub(first);
        first..=last
    }

    /// Interprets the acknowledgement of a block, by the lower 16 bits of its number.
    pub fn hear(&mut self, number: u16) -> AckMeaning {
        let may_be_earlier = self.earlier > 0;
        self.unanswered = self.unanswered.saturating_sub(1);
        self.earlier = self.earlier.saturating_sub(1);
        let count = u64::from(number.wrapping_sub(on_the_wire(self.acknowledged)));
        if count > self.last - self.acknowledged {
            return AckMeaning::Stale;
        }
        if count == 0 {
            // Without windows, an acknowledgement without progress is a delayed duplicate.
            if self.size == 1 || may_be_earlier || self.repeated {
                return AckMeaning::Stale;
            }
            self.repeated = true;
            self.back = true;
            return AckMeaning::Lost;
        }
        self.acknowledged += count;
        self.repeated = false;
        // Of blocks that arrive in order, only the last is answered.
        self.unanswered = self.unanswered.saturating_sub(count - 1);
        if self.acknowledged < self.last {
            // If it may be an answer to an earlier packet, the rest of the window may be on its way.
            self.back |= !may_be_earlier;
            return AckMeaning::Part;
        }
        if self.reaches_further {
            // The answer to the newest packet of all: the others were answered before, or are lost.
            self.unanswered = 0;
        }
        self.back = true;
        AckMeaning::Whole
    }

    /// The client has made no progress for the agreed time: nothing is under way any more but, perhaps, the answers to the window.
    pub fn timer(&mut self) {
        self.unanswered = self.last - self.acknowledged;
        self.repeated = false;
        self.back = true;
    }
}

/// The number of a block in packets.
pub(super) fn on_the_wire(block: u64) -> u16 {
    (block & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// How a client answers a block that is not the next one.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Manner {
        /// Each time, with the last block in order, as EDK2 does.
        Always,
        /// Once until the next block in order arrives.
        Once,
        /// When nothing more arrives.
        Late,
    }

    /// A client on a link with delays. Packets to it and from it arrive in order, or are lost.
    struct Client {
        manner: Manner,
        window: u64,
        expected: u64,
        since_answer: u64,
        told: bool,
    }

    impl Client {
        /// Its answer to a block.
        fn receive(&mut self, block: u16, blocks: u64) -> Option<u16> {
            if block == on_the_wire(self.expected) && self.expected <= blocks {
                self.expected += 1;
                self.told = false;
                self.since_answer += 1;
                if self.since_answer < self.window && self.expected <= blocks {
                    return None;
                }
            } else if self.manner == Manner::Late || (self.manner == Manner::Once && self.told) {
                return None;
            } else {
                self.told = true;
            }
            Some(self.answer())
        }

        fn answer(&mut self) -> u16 {
            self.since_answer = 0;
            on_the_wire(self.expected - 1)
        }
    }

    /// The cost of a transfer.
    #[derive(Debug, PartialEq)]
    struct Cost {
        packets: u64,
        timers: u64,
    }

    /// Transfers `blocks` blocks. `lost` decides on each packet from the server and, counted apart, from the client. Packets are on their way
    /// for as long as `delay` others take to be handled. With `quiet` the server repeats blocks only when nothing is on its way, as it does on a
    /// short link.
    fn transfer(
        blocks: u64,
        size: u64,
        manner: Manner,
        (delay, quiet): (usize, bool),
        lost: &mut dyn FnMut(bool) -> bool,
    ) -> Result<Cost, String> {
        let mut window = SendWindow::new(blocks, size, 0);
        let mut client = Client {
            manner,
            window: size,
            expected: 1,
            since_answer: 0,
            told: false,
        };
        let (mut down, mut up) = (VecDeque::new(), VecDeque::new());
        let mut cost = Cost { packets: 0, timers: 0 };
        // Whether blocks are sent at once, or when nothing else arrives.
        let (mut now, mut later) = (true, false);
        while !window.is_done() {
            if now {
                (now, later) = (false, false);
                for block in window.next_blocks() {
                    cost.packets += 1;
                    if !lost(true) {
                        down.push_back(on_the_wire(block));
                    }
                }
            }
            // The client handles some packets, then the server one answer.
            for _ in 0..=delay {
                if let Some(block) = down.pop_front()
                    && let Some(answer) = client.receive(block, blocks)
                    && !lost(false)
                {
                    up.push_back(answer);
                }
            }
            match up.pop_front().map(|answer| window.hear(answer)) {
                Some(AckMeaning::Whole) => now = true,
                Some(AckMeaning::Part | AckMeaning::Lost) if quiet => later = true,
                Some(AckMeaning::Part | AckMeaning::Lost) => now = true,
                Some(AckMeaning::Stale) => {}
                None if down.is_empty() && later => now = true,
                None if down.is_empty() => {
                    cost.timers += 1;
                    if manner != Manner::Always && !lost(false) {
                        up.push_back(client.answer());
                    }
                    window.timer();
                    now = true;
                }
                None => {}
            }
            if cost.packets > 100 * blocks + 10_000 {
                return Err(format!("{cost:?} for {blocks} blocks"));
            }
        }
        match client.expected - 1 == blocks {
            true => Ok(cost),
            false => Err(format!("the client has {} of {blocks}", client.expected - 1)),
        }
    }

    /// Loses `part` of `of` packets at random.
    fn losing(seed: u64, part: u64, of: u64) -> impl FnMut(bool) -> bool {
        let mut random = seed;
        move |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % of < part
        }
    }

    const SIZES: [u64; 5] = [2, 4, 8, 16, 64];

    #[test]
    fn a_lost_block_costs_one_window_and_no_more() {
        for size in SIZES {
            for manner in [Manner::Always, Manner::Once] {
                for delay in [0, 1, 3, 200] {
                    for (lose, quiet) in (1..=3 * size).flat_map(|n| [(n, false), (n, true)]) {
                        let mut sent = 0;
                        let mut lost = |down: bool| {
                            sent += u64::from(down);
                            down && sent == lose
                        };
                        let cost = transfer(1000, size, manner, (delay, quiet), &mut lost).expect("it ends");
                        // The last block of a window is followed by none that the client could answer.
                        let silent = u64::from(lose % size == 0);
                        assert_eq!(
                            cost.timers, silent,
                            "window {size}, {manner:?}, delay {delay}, lost {lose}"
                        );
                        assert!(
                            cost.packets <= 1000 + size,
                            "window {size}, {manner:?}, {lose}: {cost:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rare_losses_cost_few_packets() {
        for size in SIZES {
            for manner in [Manner::Always, Manner::Once, Manner::Late] {
                for quiet in [false, true] {
                    let mut lost = losing(1, 2, 1000);
                    let cost = transfer(28_000, size, manner, (3, quiet), &mut lost).expect("it ends");
                    assert!(cost.packets < 28_000 * 13 / 10, "window {size}, {manner:?}: {cost:?}");
                }
            }
        }
    }

    #[test]
    fn a_delayed_answer_leads_to_no_second_window() {
        let mut window = SendWindow::new(100, 4, 0);
        assert_eq!(window.next_blocks(), 1..=4);
        // Block 2 is lost: the client answers blocks 3 and 4.
        assert_eq!(window.hear(1), AckMeaning::Part);
        assert_eq!(window.next_blocks(), 2..=5);
        assert_eq!(window.hear(1), AckMeaning::Stale);
        assert_eq!(window.hear(5), AckMeaning::Whole);
        // Block 6 is lost: the client answers blocks 7, 8 and 9.
        assert_eq!(window.next_blocks(), 6..=9);
        assert_eq!(window.hear(5), AckMeaning::Lost);
        assert_eq!(window.next_blocks(), 6..=9);
        for _ in 0..10 {
            assert_eq!(window.hear(5), AckMeaning::Stale);
        }
        window.timer();
        assert_eq!(window.next_blocks(), 6..=9);
        // Block 9 is lost again, and the client answers blocks that it has.
        assert_eq!(window.hear(8), AckMeaning::Part);
        assert_eq!(window.next_blocks(), 10..=12);
        assert_eq!(window.hear(8), AckMeaning::Stale);
        assert_eq!(window.hear(12), AckMeaning::Whole);
        assert_eq!(window.next_blocks(), 13..=16);
        assert_eq!(window.hear(77), AckMeaning::Stale, "a block that was not sent");
        let mut single = SendWindow::new(100, 1, 0);
        single.next_blocks();
        assert_eq!(single.hear(0), AckMeaning::Stale);
        assert_eq!(single.hear(1), AckMeaning::Whole);
    }

    proptest! {
        #[test]
        fn every_transfer_ends_when_some_packets_arrive(
            blocks in 1u64..400,
            size in 1u64..70,
            manner in prop_oneof![Just(Manner::Always), Just(Manner::Once), Just(Manner::Late)],
            delay in 0usize..100,
            quiet in any::<bool>(),
            seed in any::<u64>(),
            percent in 0u64..30,
        ) {
            let mut lost = losing(seed, percent, 100);
            let cost = transfer(blocks, size, manner, (delay, quiet), &mut lost);
            prop_assert!(cost.is_ok(), "{cost:?}");
        }

        #[test]
        fn no_answers_of_a_client_lead_to_more_than_one_window_each(
            size in 2u64..70,
            numbers in proptest::collection::vec(0u16..6, 1..2000),
        ) {
            let mut window = SendWindow::new(100_000, size, 0);
            window.next_blocks();
            let mut repetitions = 0;
            for number in numbers {
                match window.hear(number) {
                    AckMeaning::Whole | AckMeaning::Part => repetitions = 0,
                    AckMeaning::Lost => repetitions += 1,
                    AckMeaning::Stale => continue,
                }
                window.next_blocks();
                prop_assert!(repetitions <= 1);
            }
        }
    }
}
