//! The QEMU command line of a machine.
//!
//! | | amd64 | arm64 | Raspberry Pi 4 |
//! |---|---|---|---|
//! | machine | q35 | virt | raspi4b, as the board is: 4 processors, 2 GiB |
//! | disk, USB stick | virtio, xHCI | virtio, xHCI | — |
//! | optical drive | SATA | virtio SCSI | — |
//! | SD card | — | — | yes |
//! | network, fw_cfg, 9p | yes | yes | — |
//! | first serial port | `ttyS0` | `ttyAMA0` | `ttyAMA0` |

use super::{Accelerator, Attach, Firmware, Forward, ImageFormat, Inlet, Machine, Medium, Smbios};
use crate::model::{Arch, SectorSize};

/// Mount tag of the seed share; 90powernode mounts the share with this tag.
const SEED_TAG: &str = "powernode-seed";

/// The program that QEMU starts for each connection of the machine to a server that it reaches; its input and output are the connection.
const RELAY: &str = "/usr/bin/busybox nc";

const QEMU_AMD64: &str = "/usr/bin/qemu-system-x86_64";
const QEMU_ARM64: &str = "/usr/bin/qemu-system-aarch64";
/// All features QEMU can emulate. AAVMF boots from the network only on processors with an instruction for random numbers, which QEMU's
/// models of real processors lack. Pointer authentication is off: emulating it takes a third of a boot, and no test depends on it.
const CPU_AMD64: &str = "max";
const CPU_ARM64: &str = "max,pauth=off";
/// KVM has the processor of the host.
const CPU_HOST: &str = "host";

impl Machine {
    /// QEMU and its arguments: the serial console on standard output, no display, and no network except the one that
    /// the machine boots from, the servers that it reaches and the ports that lead to it. With `interactive`, QEMU's monitor shares the console.
    pub fn command(&self, interactive: bool) -> Vec<String> {
        let mut command = CommandLine(Vec::new());
        self.add_board(&mut command);
        command.add(&["-m", &self.memory.to_string(), "-display", "none", "-no-reboot"]);
        command.add(&["-serial", if interactive { "mon:stdio" } else { "stdio" }]);
        self.add_firmware(&mut command);
        if let Some(kernel) = &self.kernel {
            command.add(&["-kernel", &kernel.image, "-initrd", &kernel.initramfs]);
            command.add(&["-append", &kernel.command_line]);
            if let Some(device_tree) = &kernel.device_tree {
                command.add(&["-dtb", device_tree]);
            }
        }
        self.add_media(&mut command);
        self.add_network(&mut command);
        for values in Smbios::arguments(&self.smbios) {
            command.add(&["-smbios", &values]);
        }
        for (key, file) in &self.fw_cfg {
            command.add(&["-fw_cfg", &format!("name={key},file={file}")]);
        }
        if let Some(share) = &self.share {
            let share = format!("local,path={share},mount_tag={SEED_TAG},security_model=mapped-xattr,id=seed");
            command.add(&["-virtfs", &share]);
        }
        command.0
    }

    /// The program, the machine type and the processors.
    fn add_board(&self, command: &mut CommandLine) {
        let (program, machine) = match (self.arch, self.firmware) {
            (_, Firmware::RaspberryPi4) => (QEMU_ARM64, "raspi4b"),
            (Arch::Amd64, Firmware::SecureBoot) => (QEMU_AMD64, "q35,smm=on"),
            (Arch::Amd64, _) => (QEMU_AMD64, "q35"),
            // KVM emulates no other interrupt controller than the kind that the host has.
            (Arch::Arm64, _) if self.accelerator == Accelerator::Kvm => (QEMU_ARM64, "virt,gic-version=host"),
            (Arch::Arm64, _) => (QEMU_ARM64, "virt"),
        };
        command.add(&[program, "-nodefaults", "-no-user-config"]);
        for directory in ["/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe/qemu"] {
            command.add(&["-L", directory]);
        }
        let accelerator = match self.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg,thread=multi",
        };
        command.add(&["-machine", machine, "-accel", accelerator]);
        // A Raspberry Pi has fixed processors, and no PCI bus for the random number generator.
        if self.firmware != Firmware::RaspberryPi4 {
            let cpu = match (self.accelerator, self.arch) {
                (Accelerator::Kvm, _) => CPU_HOST,
                (Accelerator::Tcg, Arch::Amd64) => CPU_AMD64,
                (Accelerator::Tcg, Arch::Arm64) => CPU_ARM64,
            };
            let processors = self.processors.to_string();
            command.add(&["-cpu", cpu, "-smp", &processors, "-device", "virtio-rng-pci"]);
        }
    }

    /// The firmware's flash chips, and the devices that it needs.
    fn add_firmware(&self, command: &mut CommandLine) {
        if self.arch == Arch::Amd64 && self.firmware != Firmware::Direct {
            command.add(&["-device", "VGA"]);
        }
        // Only code in system management mode may write to the variables, or a running system could change the keys.
        if (self.arch, self.firmware) == (Arch::Amd64, Firmware::SecureBoot) {
            command.add(&["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        }
        for flash in flash(self.arch, self.firmware) {
            command.add(&["-drive", &flash]);
        }
    }

    /// The media, and the controllers that they are attached to.
    fn add_media(&self, command: &mut CommandLine) {
        let has = |attach| self.media.iter().any(|m| m.attach == attach);
        if has(Attach::Usb) {
            command.add(&["-device", "qemu-xhci"]);
        }
        if has(Attach::Cdrom) && self.arch == Arch::Arm64 {
            command.add(&["-device", "virtio-scsi-pci"]);
        }
        for (n, medium) in self.media.iter().enumerate() {
            let (drive, device) = medium.arguments(self.arch, n);
            command.add(&["-drive", &drive]);
            if let Some(device) = device {
                command.add(&["-device", &device]);
            }
        }
    }

    /// The network card, with the servers the machine boots from, those that it reaches, and the ports that lead to it.
    fn add_network(&self, command: &mut CommandLine) {
        let unused = self.network.is_none() && self.reach.is_empty() && self.forward.is_empty();
        if unused && self.capture.is_none() {
            return command.add(&["-nic", "none"]);
        }
        let mut user = format!("user,id=net,ipv6=off,net={}", self.card.argument());
        match &self.network {
            Some(network) => user += &format!(",tftp={},bootfile={}", network.tftp, network.bootfile),
            // The servers of a network boot are on QEMU's host, which a restricted machine does not reach.
            None => user += ",restrict=on",
        }
        for (reach, inlet) in self.reach.iter().zip(Inlet::all(&self.reach, "")) {
            user += &format!(",guestfwd=tcp:{}-cmd:{RELAY} 127.0.0.1 {}", reach.node, inlet.port);
        }
        for forward in Forward::arguments(&self.forward) {
            user += &format!(",hostfwd={forward}");
        }
        // UEFI has its own driver for the card. With the card's ROM, iPXE would boot instead of UEFI, or of the disk.
        let (order, rom) = match (&self.network, self.firmware) {
            (Some(_), Firmware::Bios) => (",bootindex=0", ""),
            (Some(_), _) => (",bootindex=0", ",romfile="),
            (None, _) => ("", ",romfile="),
        };
        let card = format!("virtio-net-pci,netdev=net{order}{rom}");
        command.add(&["-netdev", &user, "-device", &card]);
        if let Some(file) = &self.capture {
            command.add(&["-object", &format!("filter-dump,id=capture,netdev=net,file={file}")]);
        }
    }
}

/// A command line under construction.
struct CommandLine(Vec<String>);

impl CommandLine {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
    }
}

/// The flash chips of UEFI: that of the program and that of the variables. Writes of the firmware to them are dropped at the end.
fn flash(arch: Arch, firmware: Firmware) -> Vec<String> {
    let chips = match (arch, firmware) {
        (Arch::Amd64, Firmware::Uefi) => ["OVMF/OVMF_CODE_4M", "OVMF/OVMF_VARS_4M"],
        (Arch::Amd64, Firmware::SecureBoot) => ["OVMF/OVMF_CODE_4M.ms", "OVMF/OVMF_VARS_4M.ms"],
        (Arch::Arm64, Firmware::Uefi) => ["AAVMF/AAVMF_CODE.no-secboot", "AAVMF/AAVMF_VARS"],
        (Arch::Arm64, Firmware::SecureBoot) => ["AAVMF/AAVMF_CODE.ms", "AAVMF/AAVMF_VARS.ms"],
        (_, Firmware::Direct | Firmware::Bios | Firmware::RaspberryPi4) => return Vec::new(),
    };
    let units = chips.iter().zip(["readonly=on", "snapshot=on"]).enumerate();
    units
        .map(|(unit, (name, access))| format!("if=pflash,unit={unit},format=raw,{access},file=/usr/share/{name}.fd"))
        .collect()
}

impl Medium {
    /// The value of `-drive` for the medium number `n`, and of `-device`, unless the medium is in a slot of the board.
    fn arguments(&self, arch: Arch, n: usize) -> (String, Option<String>) {
        let format = match self.format {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        };
        let access = match (self.attach, self.keep) {
            (Attach::Cdrom, _) => "media=cdrom,readonly=on",
            (_, true) => "cache=writeback",
            (_, false) => "snapshot=on",
        };
        let device = match (self.attach, arch) {
            (Attach::Cdrom, Arch::Amd64) => "ide-cd",
            (Attach::Cdrom, Arch::Arm64) => "scsi-cd",
            (Attach::Usb, _) => "usb-storage,removable=on",
            (Attach::Disk | Attach::Net, _) => "virtio-blk-pci",
            (Attach::Card, _) => "",
        };
        let sectors = match (self.attach, self.sector_size) {
            (Attach::Disk | Attach::Usb, SectorSize::Bytes4096) => ",logical_block_size=4096,physical_block_size=4096",
            _ => "",
        };
        let file = self.file.replace(',', ",,");
        if device.is_empty() {
            return (format!("if=sd,format={format},{access},file={file}"), None);
        }
        (
            format!("if=none,id=medium{n},format={format},{access},file={file}"),
            Some(format!("{device}{sectors},drive=medium{n},bootindex={}", n + 1)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DirectKernel, NetworkBoot, NodeNetwork, Reach};
    use super::*;

    fn machine(arch: Arch, firmware: Firmware, attach: Attach) -> Machine {
        let medium = Medium {
            file: "/inputs/a,b".to_owned(),
            format: ImageFormat::Raw,
            attach,
            sector_size: SectorSize::Bytes512,
            keep: false,
        };
        Machine {
            arch,
            firmware,
            accelerator: Accelerator::Tcg,
            memory: 2048,
            processors: 1,
            kernel: None,
            media: vec![medium],
            network: None,
            card: NodeNetwork::PRIVATE,
            reach: Vec::new(),
            forward: Vec::new(),
            capture: None,
            smbios: Vec::new(),
            fw_cfg: Vec::new(),
            share: None,
        }
    }

    fn words(machine: &Machine) -> String {
        machine.command(false).join(" ")
    }

    #[test]
    fn each_architecture_has_the_flash_of_its_firmware() {
        let secure = words(&machine(Arch::Arm64, Firmware::SecureBoot, Attach::Disk));
        for want in [
            "/usr/bin/qemu-system-aarch64 ",
            "-machine virt ",
            "unit=0,format=raw,readonly=on,file=/usr/share/AAVMF/AAVMF_CODE.ms.fd",
            "unit=1,format=raw,snapshot=on,file=/usr/share/AAVMF/AAVMF_VARS.ms.fd",
            "file=/inputs/a,,b -device virtio-blk-pci,drive=medium0,bootindex=1",
        ] {
            assert!(secure.contains(want), "{want} is not in {secure}");
        }
        assert!(!secure.contains("VGA") && !secure.contains("smm"), "{secure}");
        let plain = words(&machine(Arch::Arm64, Firmware::Uefi, Attach::Disk));
        assert!(plain.contains("AAVMF_CODE.no-secboot.fd"), "{plain}");
        let amd64 = words(&machine(Arch::Amd64, Firmware::SecureBoot, Attach::Disk));
        assert!(
            amd64.contains("q35,smm=on") && amd64.contains("OVMF_CODE_4M.ms.fd"),
            "{amd64}"
        );
        assert!(
            amd64.contains("driver=cfi.pflash01,property=secure,value=on"),
            "{amd64}"
        );
    }

    #[test]
    fn a_disk_has_the_sectors_of_its_image() {
        for (attach, device) in [
            (Attach::Disk, "virtio-blk-pci"),
            (Attach::Usb, "usb-storage,removable=on"),
        ] {
            let mut node = machine(Arch::Amd64, Firmware::Uefi, attach);
            assert!(words(&node).contains(&format!("-device {device},drive=medium0")));
            node.media[0].sector_size = SectorSize::Bytes4096;
            let said = words(&node);
            let want = format!("-device {device},logical_block_size=4096,physical_block_size=4096,drive=medium0");
            assert!(said.contains(&want), "{said}");
        }
    }

    #[test]
    fn an_optical_drive_is_one_that_the_machine_and_its_firmware_have() {
        let amd64 = words(&machine(Arch::Amd64, Firmware::Uefi, Attach::Cdrom));
        assert!(
            amd64.contains("-device ide-cd,drive=medium0") && !amd64.contains("scsi"),
            "{amd64}"
        );
        let arm64 = words(&machine(Arch::Arm64, Firmware::Uefi, Attach::Cdrom));
        assert!(
            arm64.contains("-device virtio-scsi-pci -drive if=none,id=medium0,format=raw,media=cdrom,readonly=on"),
            "{arm64}"
        );
        assert!(arm64.contains("-device scsi-cd,drive=medium0"), "{arm64}");
    }

    #[test]
    fn a_raspberry_pi_has_its_card_and_nothing_else() {
        let mut pi = machine(Arch::Arm64, Firmware::RaspberryPi4, Attach::Card);
        pi.kernel = Some(DirectKernel {
            image: "/k".to_owned(),
            initramfs: "/i".to_owned(),
            device_tree: Some("/d".to_owned()),
            command_line: "a=b c".to_owned(),
        });
        let said = words(&pi);
        for want in [
            "-machine raspi4b ",
            "-m 2048 ",
            "-kernel /k -initrd /i -append a=b c -dtb /d",
            "-drive if=sd,format=raw,snapshot=on,file=/inputs/a,,b",
        ] {
            assert!(said.contains(want), "{want} is not in {said}");
        }
        for other in ["-device", "-cpu", "-smp", "pflash"] {
            assert!(!said.contains(other), "{other} is in {said}");
        }
    }

    #[test]
    fn kvm_has_the_processor_of_the_host_and_nothing_else_changes() {
        for (arch, board) in [(Arch::Amd64, "q35"), (Arch::Arm64, "virt,gic-version=host")] {
            for firmware in [Firmware::Direct, Firmware::Uefi] {
                let mut node = machine(arch, firmware, Attach::Disk);
                let emulated = words(&node);
                node.accelerator = Accelerator::Kvm;
                let said = words(&node);
                assert!(
                    said.contains(&format!("-machine {board} -accel kvm -cpu host -smp 1 ")),
                    "{said}"
                );
                let plain = board.split(',').next().expect("a name");
                let cpu = if arch == Arch::Amd64 { CPU_AMD64 } else { CPU_ARM64 };
                let same = said
                    .replace(board, plain)
                    .replace("-accel kvm", "-accel tcg,thread=multi")
                    .replace("-cpu host", &format!("-cpu {cpu}"));
                assert_eq!(same, emulated);
            }
        }
        let mut secure = machine(Arch::Amd64, Firmware::SecureBoot, Attach::Disk);
        secure.accelerator = Accelerator::Kvm;
        assert!(words(&secure).contains("-machine q35,smm=on -accel kvm -cpu host "));
    }

    #[test]
    fn a_network_boot_by_uefi_does_without_the_rom_of_the_card() {
        for arch in Arch::ALL {
            let mut node = machine(arch, Firmware::Uefi, Attach::Net);
            node.media.clear();
            node.network = Some(NetworkBoot::of(arch, Firmware::Uefi, "/bundle"));
            let said = words(&node);
            assert!(said.contains("tftp=/bundle,bootfile=ipxe.efi"), "{said}");
            assert!(!said.contains("restrict"), "{said}");
            assert!(said.contains("netdev=net,bootindex=0,romfile="), "{said}");
        }
    }
    #[test]
    fn a_machine_reaches_the_servers_it_is_given_and_nothing_else() {
        for (arch, firmware) in [(Arch::Amd64, Firmware::Bios), (Arch::Arm64, Firmware::Direct)] {
            let mut node = machine(arch, firmware, Attach::Disk);
            assert!(words(&node).contains("-nic none"));
            let texts = ["10.0.2.100:443=127.0.0.1:8443", "10.0.2.101:80=127.0.0.1:8080"].map(str::to_owned);
            node.reach = Reach::parse_all(&texts, NodeNetwork::PRIVATE).expect("valid");
            let said = words(&node);
            let want = "-netdev user,id=net,ipv6=off,net=10.0.2.0/24,restrict=on\
                ,guestfwd=tcp:10.0.2.100:443-cmd:/usr/bin/busybox nc 127.0.0.1 20000\
                ,guestfwd=tcp:10.0.2.101:80-cmd:/usr/bin/busybox nc 127.0.0.1 20001 \
                -device virtio-net-pci,netdev=net,romfile=";
            assert!(said.contains(want), "{want} is not in {said}");
            assert!(!said.contains("-nic"), "{said}");
            // Forwarded ports lead into the machine, and open no way out of it.
            node.forward = Forward::parse_all(&["2222:22", "[::1]:8080:80"].map(str::to_owned)).expect("valid");
            let said = words(&node);
            let ports = ",hostfwd=tcp:127.0.0.1:21000-:22,hostfwd=tcp:127.0.0.1:21001-:80 -device virtio-net-pci";
            assert!(
                said.contains(",restrict=on,guestfwd=") && said.contains(ports),
                "{said}"
            );
            node.reach.clear();
            let said = words(&node);
            assert!(said.contains(&format!("net=10.0.2.0/24,restrict=on{ports}")), "{said}");
            node.forward.clear();
            node.capture = Some("/inputs/capture".to_owned());
            node.card = NodeNetwork::LINK_LOCAL;
            let said = words(&node);
            for want in [
                "user,id=net,ipv6=off,net=169.254.0.0/16,restrict=on -device",
                "-object filter-dump,id=capture,netdev=net,file=/inputs/capture",
            ] {
                assert!(said.contains(want), "{want} is not in {said}");
            }
        }
    }
}
