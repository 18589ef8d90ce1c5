//! Differences between a Raspberry Pi 4 and QEMU's raspi4b, as changes to the device tree and the command line.
//!
//! The changes are made to copies for one run; the card is not at fault. The kernel trusts its device tree, and with the board's own tree
//! the emulated machine stops at the first register that is not emulated. QEMU itself disables PCIe, Ethernet, the random number generator
//! and the thermometer in the tree, and reports it; the changes here are for the other devices.

use dtoolkit::{
    Node,
    fdt::{Fdt, FdtNode},
    model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty},
};

/// Largest device tree, bytes; the board's has 39 KiB.
const MAX_DEVICE_TREE: usize = 1 << 20;
/// Deepest nesting of nodes; the board's tree has 6.
const MAX_DEPTH: usize = 32;
/// Position of a flattened tree's length: a big-endian word.
const TOTAL_SIZE: std::ops::Range<usize> = 4..8;
/// The emulated machine's only console: its first serial port, because it has no display.
const CONSOLE: &str = "console=ttyAMA0,115200";

/// A change to a node.
#[derive(Debug)]
enum Change {
    /// Disables a device.
    Disable,
    /// Enables a device.
    Enable,
    /// Removes properties.
    Remove(&'static [&'static str]),
    /// Removes a child node.
    RemoveChild(&'static str),
}

/// The controller to which QEMU attaches the card.
const CARD: &str = "/soc/mmc@7e300000";
const NO_HDMI: &str = "HDMI is not emulated: reading a register of it is an external abort";

/// Path of a node, the change, and its reason. Where the tree lacks the node, no change is needed.
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
        "the board has its card here and QEMU has none; with two controllers, the card would not always be the first device",
    ),
    (
        CARD,
        Change::Enable,
        "the board has its wireless module here, QEMU has the card",
    ),
    (
        CARD,
        Change::Remove(&["mmc-pwrseq", "non-removable"]),
        "the driver would wait for the pin of the firmware that resets the wireless module, which is not emulated; a card can be removed",
    ),
    (CARD, Change::RemoveChild("wifi@1"), "there is no wireless module"),
    (
        "/soc/serial@7e201000",
        Change::RemoveChild("bluetooth"),
        "the board has its Bluetooth at this port, QEMU has the console; the Bluetooth driver would take the port and wait for a control line",
    ),
    (
        "/wifi-pwrseq",
        Change::Disable,
        "the same pin: without this change, the kernel reports three errors about it",
    ),
];

/// Adapts the device tree `dtb` to QEMU's machine.
///
/// # Errors
/// The bytes are not a flattened device tree, or the tree lacks the controller of the card; the text says which.
pub(super) fn device_tree(dtb: &[u8]) -> Result<Vec<u8>, String> {
    let mut tree = read(dtb)?;
    for (place, change, _) in CHANGES {
        match tree.find_node_mut(place) {
            Some(node) => change.make(node)?,
            None if *place == CARD => return Err(format!("it has no node {CARD}, to which QEMU attaches the card")),
            None => {}
        }
    }
    Ok(tree.to_dtb())
}

/// Parses a flattened tree from an untrusted source.
fn read(dtb: &[u8]) -> Result<DeviceTree, String> {
    let none = |problem: String| format!("it is not a flattened device tree: {problem}");
    let size = dtb
        .get(TOTAL_SIZE)
        .and_then(|b| Some(u32::from_be_bytes(b.try_into().ok()?)));
    let size = size.map_or(usize::MAX, |size| size as usize);
    // Loaders leave unused bytes after the tree.
    let dtb = dtb
        .get(..size)
        .ok_or_else(|| none(format!("it ends after {} bytes", dtb.len())))?;
    if dtb.len() > MAX_DEVICE_TREE {
        return Err(format!("it has {} bytes, more than {MAX_DEVICE_TREE}", dtb.len()));
    }
    let flat = Fdt::new(dtb).map_err(|e| none(e.to_string()))?;
    // The library recurses once per level.
    if deeper(&flat.root(), MAX_DEPTH) {
        return Err(format!("its nodes are nested more than {MAX_DEPTH} deep"));
    }
    Ok(DeviceTree::from_fdt(&flat))
}

/// Whether nodes are nested more than `levels` deep below a node.
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

/// Replaces all consoles in the command line with that of the emulated machine.
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

    /// The nodes of the board's tree that are changed, and some that are not.
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
            (whole[..whole.len() - 1].to_vec(), "it ends after"),
            (whole[..7].to_vec(), "it ends after"),
            (Vec::new(), "it ends after"),
            (vec![0; 64], "not a flattened device tree"),
            (other.to_dtb(), "no node /soc/mmc@7e300000"),
        ] {
            let problem = device_tree(&bytes).expect_err(why);
            assert!(problem.contains(why), "{problem}");
        }
    }

    /// A tree of nested nodes, written by hand, because the library recurses when it writes one.
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
            assert!(problem.contains("more than 32 deep"), "{problem}");
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
