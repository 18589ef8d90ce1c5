//! A disk image does not have to fit into memory.

mod nightly {
    use crate::{artifacts::lengthen_disk, site::Site};
    use std::{fs, time::Duration};

    /// The most memory that a process has had resident, in bytes; `None` when it has ended.
    fn peak(process: u32) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024)
    }

    #[test]
    #[ignore = "nightly: writes 2 GiB"]
    fn two_gigabytes_are_published_in_little_memory() {
        let site = Site::new();
        lengthen_disk(&site.images(), 2 << 30);
        let mut child = site.publish(&["disk"], &[]).spawn().expect("starts");
        let mut most = 0;
        let status = loop {
            most = most.max(peak(child.id()).unwrap_or(0));
            if let Some(status) = child.try_wait().expect("a state") {
                break status;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}");
        // The control: the measurement is that of a program that did something.
        assert!(most > 5 << 20, "{most}");
        assert!(most < 100 << 20, "{most}");
        let sent = site.proxy.take().iter().map(|asked| asked.body).max();
        assert_eq!(sent, Some(2 << 30), "the image went in one piece");
        site.run(&mut site.publish(&["disk"], &[]))
            .expect(0, &["no blob was sent: the registries have them all"]);
        assert!(site.proxy.take().iter().all(|asked| asked.body == 0));
    }
}
