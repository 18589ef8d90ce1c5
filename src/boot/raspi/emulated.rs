//! What QEMU's raspi4b is not: the differences between the board and the emulation, as changes to what the card holds.
//!
//! They are made to copies for one run. Nothing here is a fault of the card: the kernel believes its device tree, and with the
//! board's own the emulated machine stops at the first register that is not there. QEMU itself disables PCIe, Ethernet, the
//! random number generator and the thermometer, and says so; what follows is what it leaves.

use dtoolkit::{
    Node,
    fdt::{Fdt, FdtNode},
    model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty},
};

/// A device tree larger than this is refused; the board's has 39 KiB.
const MAX_DEVICE_TREE: usize = 1 << 20;
/// So is one with nodes in more nodes than this; the board's has 6.
const MAX_DEPTH: usize = 32;
/// Where a flattened tree says its length: a big-endian word.
const TOTAL_SIZE: std::ops::Range<usize> = 4..8;
/// The emulated machine's console: its first serial port, and no other, as there is no display to be seen.
const CONSOLE: &str = "console=ttyAMA0,115200";

/// A change to a node.
#[derive(Debug)]
enum Change {
    /// The device is not there.
    Disable,
    /// The device is there, whatever the tree says.
    Enable,
    /// It has not these properties.
    Remove(&'static [&'static str]),
    /// It does not have this node below it.
    RemoveChild(&'static str),
}

/// The controller that QEMU puts the card into.
const CARD: &str = "/soc/mmc@7e300000";
const NO_HDMI: &str = "HDMI is not emulated: reading a register of it is an external abort";

/// Where, what, and why. A node that is not there needs no change.
const CHANGES: &[(&str, Change, &str)] = &[
    ("/soc/clock@7ef00000", Change::Disable, NO_HDMI),
    ("/soc/interrupt-controller@7ef00100", Change::Disable, NO_HDMI),
    ("/soc/i2c@7ef04500", Change::Disable, NO_HDMI),
    ("/soc/i2c@7ef09500", Change::Disable, NO_HDMI),
    ("/soc/hdmi@7ef00700", Change::Disable, NO_HDMI),
    ("/soc/hdmi@7ef05700", Change::Disable, NO_HDMI),
    (
        "/emmc2bus/mmc@7e340000",
        Change::Disable,
        "the board has its card here and QEMU has nothing; two controllers would take turns at being the first",
    ),
    (
        CARD,
        Change::Enable,
        "the board has its wireless module here, QEMU has the card",
    ),
    (
        CARD,
        Change::Remove(&["mmc-pwrseq", "non-removable"]),
        "the module is reset by a pin of the firmware, which is not emulated, and the driver would wait for it; a card is no part of the board",
    ),
    (CARD, Change::RemoveChild("wifi@1"), "there is no wireless module"),
    (
        "/soc/serial@7e201000",
        Change::RemoveChild("bluetooth"),
        "the board has its Bluetooth at this port, QEMU has the console; its driver would take the port for itself and wait for a line to be ready",
    ),
    (
        "/wifi-pwrseq",
        Change::Disable,
        "the same pin: three lines about it would be all that is heard of it",
    ),
];

/// The device tree `dtb` with everything changed that QEMU's machine differs in.
///
/// # Errors
/// Bytes that are no flattened device tree, and one without the controller of the card: why, in words.
pub(super) fn device_tree(dtb: &[u8]) -> Result<Vec<u8>, String> {
    let mut tree = read(dtb)?;
    for (place, change, _) in CHANGES {
        match tree.find_node_mut(place) {
            Some(node) => change.make(node)?,
            None if *place == CARD => return Err(format!("it has no node {CARD}, where QEMU has the card")),
            None => {}
        }
    }
    Ok(tree.to_dtb())
}

/// Reads a flattened tree that anybody may have made.
fn read(dtb: &[u8]) -> Result<DeviceTree, String> {
    let none = |problem: String| format!("it is no flattened device tree: {problem}");
    let size = dtb
        .get(TOTAL_SIZE)
        .and_then(|b| Some(u32::from_be_bytes(b.try_into().ok()?)));
    let size = size.map_or(usize::MAX, |size| size as usize);
    // Loaders leave room behind the tree.
    let dtb = dtb
        .get(..size)
        .ok_or_else(|| none(format!("{} bytes are not all of it", dtb.len())))?;
    if dtb.len() > MAX_DEVICE_TREE {
        return Err(format!("it has {} bytes, more than {MAX_DEVICE_TREE}", dtb.len()));
    }
    let flat = Fdt::new(dtb).map_err(|e| none(e.to_string()))?;
    // The library calls itself for each level.
    if deeper(&flat.root(), MAX_DEPTH) {
        return Err(format!("it has nodes in more than {MAX_DEPTH} nodes"));
    }
    Ok(DeviceTree::from_fdt(&flat))
}

/// Whether a node has more than `levels` of nodes below it.
fn deeper(node: &FdtNode<'_>, levels: usize) -> bool {
    let mut children = node.children();
    match levels.checked_sub(1) {
        None => children.next().is_some(),
        Some(left) => children.any(|child| deeper(&child, left)),
    }
}

impl Change {
    fn make(&self, node: &mut DeviceTreeNode) -> Result<(), String> {
        let property = match self {
            Change::Disable => DeviceTreeProperty::new("status", "disabled"),
            Change::Enable => DeviceTreeProperty::new("status", "okay"),
            Change::Remove(names) => {
                for name in *names {
                    node.remove_property(name);
                }
                return Ok(());
            }
            Change::RemoveChild(name) => {
                node.remove_child(name);
                return Ok(());
            }
        };
        node.add_property(property.map_err(|e| e.to_string())?);
        Ok(())
    }
}

/// The command line with the emulated machine's console in the place of all that it names.
pub(super) fn command_line(words: &str) -> String {
    let others = words.split_whitespace().filter(|word| !word.starts_with("console="));
    others.chain([CONSOLE]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::Property;
    use proptest::prelude::*;

    fn node(name: &str) -> DeviceTreeNode {
        DeviceTreeNode::new(name).expect("a name")
    }

    fn text(name: &str, value: &str) -> DeviceTreeProperty {
        DeviceTreeProperty::new(name, value).expect("a name")
    }

    /// What of the board's tree is changed, and beside it what is not.
    fn board() -> DeviceTree {
        let mut tree = DeviceTree::new();
        let mut soc = node("soc");
        for name in ["clock@7ef00000", "serial@7e201000"] {
            soc.add_child(node(name));
        }
        let mut card = node("mmc@7e300000");
        for name in ["mmc-pwrseq", "non-removable", "bus-width"] {
            card.add_property(text(name, "x"));
        }
        card.add_property(text("status", "disabled"));
        card.add_child(node("wifi@1"));
        soc.add_child(card);
        tree.root.add_child(soc);
        tree
    }

    #[test]
    fn the_card_is_in_the_other_controller_and_hdmi_is_gone() {
        let changed = device_tree(&board().to_dtb()).expect("the board's");
        let tree = read(&changed).expect("written here");
        let value = |path: &str, name: &str| {
            let node = tree.find_node(path).expect(path);
            node.property(name).map(|p| p.value().to_vec())
        };
        assert_eq!(value("/soc/clock@7ef00000", "status"), Some(b"disabled\0".to_vec()));
        assert_eq!(value("/soc/serial@7e201000", "status"), None);
        assert_eq!(value(CARD, "status"), Some(b"okay\0".to_vec()));
        assert_eq!(value(CARD, "mmc-pwrseq"), None);
        assert_eq!(value(CARD, "non-removable"), None);
        assert_eq!(value(CARD, "bus-width"), Some(b"x\0".to_vec()));
        assert!(tree.find_node("/soc/mmc@7e300000/wifi@1").is_none());
    }

    #[test]
    fn every_change_has_a_reason_and_is_made_below_the_root() {
        for (place, change, reason) in CHANGES {
            assert!(place.starts_with('/') && reason.len() > 20, "{place} {change:?}");
        }
    }

    #[test]
    fn what_is_no_device_tree_of_the_board_is_refused() {
        let whole = board().to_dtb();
        let mut longer = whole.clone();
        longer.extend([0; 100]);
        assert_eq!(device_tree(&longer), device_tree(&whole), "room behind the tree");
        let mut other = board();
        other.root.child_mut("soc").expect("there").remove_child("mmc@7e300000");
        for (bytes, why) in [
            (whole[..whole.len() - 1].to_vec(), "are not all of it"),
            (whole[..7].to_vec(), "are not all of it"),
            (Vec::new(), "are not all of it"),
            (vec![0; 64], "no flattened device tree"),
            (other.to_dtb(), "no node /soc/mmc@7e300000"),
        ] {
            let problem = device_tree(&bytes).expect_err(why);
            assert!(problem.contains(why), "{problem}");
        }
    }

    /// A tree of nodes in nodes, written by hand: the library would call itself as often to write it.
    fn deep(levels: usize) -> Vec<u8> {
        let mut nodes = Vec::new();
        nodes.extend([[0, 0, 0, 1], [0; 4]].concat());
        for _ in 0..levels {
            nodes.extend([[0, 0, 0, 1], *b"n\0\0\0"].concat());
        }
        nodes.extend([0, 0, 0, 2].repeat(levels + 1));
        nodes.extend([0, 0, 0, 9]);
        let (header, reserved) = (40, 16);
        let strings = header + reserved + nodes.len();
        let words = [
            0xd00d_feed,
            strings,
            header + reserved,
            strings,
            header,
            17,
            16,
            0,
            0,
            nodes.len(),
        ];
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| (*w as u32).to_be_bytes()).collect();
        bytes.extend([0; 16]);
        bytes.extend(nodes);
        bytes
    }

    #[test]
    fn nodes_in_nodes_end_somewhere() {
        assert!(read(&deep(MAX_DEPTH)).is_ok());
        for levels in [MAX_DEPTH + 1, 80_000] {
            let problem = device_tree(&deep(levels)).expect_err("deep");
            assert!(problem.contains("more than 32 nodes"), "{problem}");
        }
        let problem = device_tree(&deep(100_000)).expect_err("large");
        assert!(problem.contains("more than 1048576"), "{problem}");
    }

    #[test]
    fn the_console_is_the_serial_port_and_nothing_else_changes() {
        assert_eq!(
            command_line("powernode.boot=1 console=tty1 console=ttyS1,115200 a=b"),
            "powernode.boot=1 a=b console=ttyAMA0,115200"
        );
        assert_eq!(command_line(""), "console=ttyAMA0,115200");
    }

    proptest! {
        #[test]
        fn no_tree_is_too_strange(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = board().to_dtb();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = device_tree(&bytes);
        }
    }
}
