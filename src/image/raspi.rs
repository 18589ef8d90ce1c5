//! `config.txt`, as the firmware of a Raspberry Pi 4 Model B reads it.
//!
//! ```text
//! # comment
//! [pi4]                              a filter: the lines below are for these boards only
//! kernel=vmlinuz                     a setting; the last one counts
//! initramfs initrd.img followkernel  no "=": file and address
//! include more.txt                   the lines of another file
//! ```
//!
//! Source: the chapter "config.txt" of the Raspberry Pi documentation, sections "What is config.txt?", "Boot options" and
//! "Conditional filters". The firmware's source is not published. Where the chapter is silent, this file chooses the behaviour that
//! makes mistakes visible: an unknown filter matches no board.

use std::collections::BTreeMap;

/// Characters of a line that the firmware reads.
const MAX_LINE: usize = 98;
/// Deepest include; the firmware has no documented limit.
const MAX_DEPTH: usize = 8;
/// Most bytes of the file and its includes together.
const MAX_BYTES: usize = 1 << 20;
/// The filter of this board by name, and its number as a board type.
const MODEL: &str = "pi4";
const BOARD_TYPE: u32 = 0x11;
/// The default kernel.
const KERNEL: &str = "kernel8.img";
/// The default device tree of this board; it has the same name in upstream kernels and the Raspberry Pi's own.
const DEVICE_TREE: &str = "bcm2711-rpi-4-b.dtb";
const COMMAND_LINE: &str = "cmdline.txt";
/// Prefix of the operating system's files with `upstream_kernel=1`, if the files exist there.
const UPSTREAM: &str = "upstream/";

/// Settings that do not replace each other: overlays of the device tree, and their parameters, which belong to the overlay before.
const LISTED: [&str; 3] = ["dtoverlay", "dtparam", "device_tree_overlay"];
/// The file that names another boot partition, and its largest size in bytes.
pub const AUTOBOOT: &str = "autoboot.txt";
/// Largest `autoboot.txt`, bytes.
pub const MAX_AUTOBOOT: u64 = 512;

/// The settings that apply to this board.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    settings: BTreeMap<String, String>,
    /// Settings that are a list, in their order.
    listed: Vec<(String, String)>,
}

/// The files that the firmware loads, by their paths on the boot partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootFiles {
    /// The firmware's second stage: its program, and the file with its memory adjustments.
    pub firmware: [String; 2],
    /// The kernel.
    pub kernel: String,
    /// The files whose concatenation is the initramfs; empty for a kernel without one.
    pub initramfs: Vec<String>,
    /// The device tree; `None` when the configuration disables it.
    pub device_tree: Option<String>,
    /// The kernel's command line.
    pub command_line: String,
}

/// The current filter of each kind, and whether it matches this board. A filter replaces the one of the same kind.
#[derive(Default)]
struct Filters(BTreeMap<&'static str, bool>);

impl Filters {
    fn set(&mut self, name: &str) {
        let starts = |prefix| name.starts_with(prefix);
        let (kind, holds) = match name {
            "all" => {
                self.0.clear();
                return;
            }
            "tryboot" => ("tryboot", false),
            _ if starts("EDID=") => ("display", false),
            _ if starts("0x") => ("serial number", false),
            _ if starts("gpio") => ("pin", false),
            // Limits settings to one HDMI port; the settings read here have no port.
            _ if starts("HDMI:") => ("port", true),
            _ => match name.strip_prefix("board-type=") {
                Some(number) => ("model", integer(number) == BOARD_TYPE),
                None => ("model", name == MODEL),
            },
        };
        self.0.insert(kind, holds);
    }

    fn hold(&self) -> bool {
        self.0.values().all(|holds| *holds)
    }
}

impl Config {
    /// Parses the text of `config.txt`; `include` returns the text of another file of the boot partition. No text is malformed: unknown
    /// lines are ignored, as the firmware does.
    ///
    /// # Errors
    /// An error of `include`, or includes that are too deep or too large; the text says which.
    pub fn parse(text: &str, include: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        let mut config = Self::default();
        let mut left = MAX_BYTES;
        config.read(text, include, &mut Filters::default(), 0, &mut left)?;
        Ok(config)
    }

    fn read(
        &mut self,
        text: &str,
        include: &dyn Fn(&str) -> Result<String, String>,
        filters: &mut Filters,
        depth: usize,
        left: &mut usize,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("its includes are more than {MAX_DEPTH} deep"));
        }
        // One more than its length, so that empty files that include each other reach the limit too.
        *left = left
            .checked_sub(text.len() + 1)
            .ok_or_else(|| format!("it has more than {MAX_BYTES} bytes, its includes counted"))?;
        for line in text.lines() {
            let end = line.char_indices().nth(MAX_LINE).map_or(line.len(), |(at, _)| at);
            let line = line[..end].trim();
            if line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                filters.set(name);
                continue;
            }
            if !filters.hold() {
                continue;
            }
            if let Some((word, rest)) = line.split_once([' ', '\t'])
                && !word.contains('=')
            {
                let file = rest.split_whitespace().next().unwrap_or_default();
                match word {
                    "include" => self.read(&include(file)?, include, filters, depth + 1, left)?,
                    "initramfs" => {
                        self.settings.insert("ramfsfile".to_owned(), file.to_owned());
                    }
                    _ => {}
                }
            } else if let Some((key, value)) = line.split_once('=') {
                if LISTED.contains(&key) {
                    self.listed.push((key.to_owned(), value.to_owned()));
                }
                self.settings.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    /// A setting's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    /// The overlays of the device tree and their parameters, in the order in which the firmware applies them. An empty `dtoverlay=` ends
    /// the parameters of the overlay before it, and those behind it are the board's.
    pub fn overlays(&self) -> impl Iterator<Item = (&str, &str)> {
        self.listed.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The number of the partition to boot from, as `autoboot.txt` names it; `None` where it names none.
    pub fn boot_partition(&self) -> Option<u32> {
        self.get("boot_partition").map(integer).filter(|number| *number > 0)
    }

    fn is_set(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| integer(value) != 0)
    }

    /// The files to load; `exists` returns whether the boot partition has a file.
    ///
    /// # Errors
    /// An error of `exists`, or a kernel that would start in 32-bit mode; the text says which.
    pub fn files(&self, exists: &dyn Fn(&str) -> Result<bool, String>) -> Result<BootFiles, String> {
        if self.get("arm_64bit").is_some() && !self.is_set("arm_64bit") {
            return Err("arm_64bit=0 starts the processors in 32-bit mode".to_owned());
        }
        let part = match (self.is_set("start_x"), self.is_set("start_debug")) {
            (true, _) => "x",
            (false, true) => "db",
            (false, false) => "",
        };
        let own = |key, name: String| self.get(key).map_or(name, str::to_owned);
        let kernel = self.get("kernel").unwrap_or(KERNEL);
        let device_tree = self.get("device_tree").unwrap_or(DEVICE_TREE);
        let default = if self.is_set("upstream_kernel") { UPSTREAM } else { "" };
        let mut prefix = self.get("os_prefix").unwrap_or(default);
        // The prefix applies only if the kernel and the device tree exist under it.
        for file in [kernel, device_tree] {
            if !prefix.is_empty() && !file.is_empty() && !exists(&prefixed(prefix, file))? {
                prefix = "";
            }
        }
        let mut initramfs = self.get("ramfsfile").unwrap_or_default().to_owned();
        // `auto_initramfs` takes the file whose name follows from that of the kernel: kernel8.img has initramfs8.
        if initramfs.is_empty()
            && self.is_set("auto_initramfs")
            && let Some(kind) = kernel.strip_prefix("kernel").and_then(|rest| rest.strip_suffix(".img"))
        {
            let file = format!("initramfs{kind}");
            if exists(&prefixed(prefix, &file))? {
                initramfs = file;
            }
        }
        let initramfs = initramfs.split(',');
        Ok(BootFiles {
            firmware: [
                own("start_file", format!("start4{part}.elf")),
                own("fixup_file", format!("fixup4{part}.dat")),
            ],
            kernel: prefixed(prefix, kernel),
            initramfs: initramfs
                .filter(|f| !f.is_empty())
                .map(|f| prefixed(prefix, f))
                .collect(),
            device_tree: (!device_tree.is_empty()).then(|| prefixed(prefix, device_tree)),
            command_line: prefixed(prefix, self.get("cmdline").unwrap_or(COMMAND_LINE)),
        })
    }
}

/// The path of a file of the operating system; an absolute path gets no prefix.
fn prefixed(prefix: &str, file: &str) -> String {
    match file.strip_prefix('/') {
        Some(absolute) => absolute.to_owned(),
        None => format!("{prefix}{file}"),
    }
}

/// Parses a number, decimal or with `0x`; malformed text counts as 0.
fn integer(text: &str) -> u32 {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn none(name: &str) -> Result<String, String> {
        Err(format!("{name} is not there"))
    }

    fn parse(text: &str) -> Config {
        Config::parse(text, &none).expect("no includes")
    }

    fn files(text: &str, there: &[&str]) -> BootFiles {
        parse(text).files(&|f| Ok(there.contains(&f))).expect("64 bits")
    }

    #[test]
    fn the_last_setting_counts_and_comments_and_filters_of_other_boards_do_not() {
        let config = parse(
            "# kernel=a\n  kernel=b  \r\nkernel=c\nkernel =d\n[pi3]\nkernel=e\n[cm4]\nkernel=f\n[none]\nkernel=g\n\
             [no such board]\nkernel=h\n[all]\nkernel_address=0\nunknown\n\n=\n",
        );
        assert_eq!(config.get("kernel"), Some("c"));
        assert_eq!(config.get("kernel_address"), Some("0"));
        for (filter, holds) in [
            ("pi4", true),
            ("board-type=0x11", true),
            ("board-type=0x13", false),
            ("pi400", false),
            ("tryboot", false),
            ("EDID=VSC-TD2220", false),
            ("0x12345678", false),
            ("gpio4=1", false),
            ("HDMI:1", true),
        ] {
            let config = parse(&format!("[{filter}]\nkernel=x\n"));
            assert_eq!(config.get("kernel").is_some(), holds, "{filter}");
        }
    }

    #[test]
    fn filters_of_one_kind_replace_each_other_and_of_several_combine() {
        let config = parse("[pi3]\n[pi4]\na=1\n[0x1]\nb=1\n[pi4]\nc=1\n[all]\nd=1\n[0x1]\n[none]\n[pi4]\ne=1\n");
        let there = ["a", "b", "c", "d", "e"].map(|key| config.get(key).is_some());
        assert_eq!(there, [true, false, false, true, false]);
    }

    #[test]
    fn the_rest_of_a_long_line_is_ignored() {
        let long = format!("kernel={}\n", "k".repeat(200));
        assert_eq!(parse(&long).get("kernel").map(str::len), Some(98 - "kernel=".len()));
        let wide = format!("kernel={}\n", "ü".repeat(200));
        assert_eq!(
            parse(&wide).get("kernel").map(|v| v.chars().count()),
            Some(98 - "kernel=".len())
        );
    }

    #[test]
    fn included_lines_replace_the_include() {
        let include = |name: &str| match name {
            "a.txt" => Ok("kernel=a\n[pi3]\n".to_owned()),
            "self.txt" => Ok("include self.txt\n".to_owned()),
            "many.txt" => Ok("include many.txt\n".repeat(1000)),
            "large.txt" => Ok("x".repeat(MAX_BYTES)),
            _ => none(name),
        };
        let parse = |text: &str| Config::parse(text, &include);
        let config = parse("kernel=x\ninclude a.txt\nkernel=y\n[all]\n[pi3]\ninclude no.txt\n").expect("readable");
        assert_eq!(config.get("kernel"), Some("a"));
        for (text, why) in [
            ("include no.txt", "no.txt is not there"),
            ("include", ""),
            ("include self.txt", "more than 8 deep"),
            ("include many.txt", "more than 8 deep"),
            ("include large.txt", "more than 1048576 bytes"),
        ] {
            match parse(text) {
                Ok(config) => assert!(why.is_empty() && config == Config::default(), "{text}"),
                Err(problem) => assert!(problem.contains(why), "{text}: {problem}"),
            }
        }
    }

    #[test]
    fn without_settings_the_files_are_those_of_the_documentation() {
        let want = BootFiles {
            firmware: ["start4.elf", "fixup4.dat"].map(str::to_owned),
            kernel: "kernel8.img".to_owned(),
            initramfs: Vec::new(),
            device_tree: Some("bcm2711-rpi-4-b.dtb".to_owned()),
            command_line: "cmdline.txt".to_owned(),
        };
        assert_eq!(files("", &[]), want);
    }

    #[test]
    fn files_are_named_one_by_one() {
        let found = files(
            "arm_64bit=1\nkernel=vmlinuz\ninitramfs a.img,b.img followkernel\ndevice_tree=my.dtb\ncmdline=c.txt\nstart_x=1\n",
            &[],
        );
        assert_eq!(found.firmware, ["start4x.elf", "fixup4x.dat"]);
        assert_eq!(found.kernel, "vmlinuz");
        assert_eq!(found.initramfs, ["a.img", "b.img"]);
        assert_eq!(found.device_tree.as_deref(), Some("my.dtb"));
        assert_eq!(found.command_line, "c.txt");
        let found = files("ramfsfile=r\nstart_file=s.elf\nfixup_file=f.dat\ndevice_tree=\n", &[]);
        assert_eq!(found.firmware, ["s.elf", "f.dat"]);
        assert_eq!(
            (found.initramfs.as_slice(), found.device_tree),
            (&["r".to_owned()][..], None)
        );
        let problem = parse("arm_64bit=0").files(&|_| Ok(true)).expect_err("32 bits");
        assert!(problem.contains("32-bit"), "{problem}");
    }

    #[test]
    fn the_initramfs_of_a_kernel_is_found_by_its_name_when_asked_for() {
        let there = [
            "initramfs8",
            "os/kernel8.img",
            "os/bcm2711-rpi-4-b.dtb",
            "os/initramfs8",
        ];
        for (text, want) in [
            ("auto_initramfs=1", Some("initramfs8")),
            ("auto_initramfs=0", None),
            ("", None),
            ("auto_initramfs=1\nos_prefix=os/", Some("os/initramfs8")),
            ("auto_initramfs=1\ninitramfs mine", Some("mine")),
            ("auto_initramfs=1\nkernel=vmlinuz", None),
            ("auto_initramfs=1\nkernel=kernel9.img", None),
        ] {
            assert_eq!(
                files(text, &there).initramfs.first().map(String::as_str),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn overlays_and_parameters_keep_their_order_and_filters() {
        let config = parse(
            "dtparam=audio=on\n[pi3]\ndtoverlay=other\n[pi4]\ndtoverlay=vc4-kms-v3d\ndtparam=cma-512\n[all]\ndtoverlay=\n\
             dtparam=i2c_arm=on\n",
        );
        let want = [
            ("dtparam", "audio=on"),
            ("dtoverlay", "vc4-kms-v3d"),
            ("dtparam", "cma-512"),
            ("dtoverlay", ""),
            ("dtparam", "i2c_arm=on"),
        ];
        assert_eq!(config.overlays().collect::<Vec<_>>(), want);
        let auto = parse("[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n");
        assert_eq!(auto.boot_partition(), Some(2));
        assert_eq!(parse("boot_partition=0").boot_partition(), None);
    }

    #[test]
    fn a_prefix_applies_when_kernel_and_device_tree_exist_under_it() {
        let text = "os_prefix=new/\nkernel=k\ninitramfs i\ncmdline=/c.txt\n";
        let both = ["new/k", "new/bcm2711-rpi-4-b.dtb"];
        let found = files(text, &both);
        assert_eq!((found.kernel.as_str(), found.initramfs[0].as_str()), ("new/k", "new/i"));
        assert_eq!(found.command_line, "c.txt");
        assert_eq!(found.device_tree.as_deref(), Some(both[1]));
        for there in [&both[..1], &both[1..], &[]] {
            assert_eq!(files(text, there).kernel, "k", "{there:?}");
        }
        let upstream = ["upstream/kernel8.img", "upstream/bcm2711-rpi-4-b.dtb"];
        assert_eq!(files("upstream_kernel=1", &upstream).kernel, upstream[0]);
        assert_eq!(files("upstream_kernel=1", &[]).kernel, "kernel8.img");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "([a-z0_]{0,9}[=\\[\\]# \t\r\n,/é]{0,3}){0,40}|\\PC*") {
            let include = |name: &str| Ok(format!("{name}\n"));
            if let Ok(config) = Config::parse(&text, &include) {
                let _ = config.files(&|file| Ok(file.len() % 2 == 0));
            }
        }
    }
}
