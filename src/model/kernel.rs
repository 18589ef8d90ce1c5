//! Kernels on which a root with `verity=require` does not work: a table.

/// A range of upstream releases with a fault of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelFault {
    /// The first release with the fault: version, patch level, sublevel.
    pub first: (u32, u32, u32),
    /// The last one.
    pub last: (u32, u32, u32),
    /// The fault, and what a node does on it.
    pub fault: &'static str,
    /// Where it is reported.
    pub source: &'static str,
}

/// The known ranges. A distribution may have mended its own kernel of such a release; there is no way to see that from the version, so
/// it is refused too.
const FAULTS: &[KernelFault] = &[KernelFault {
    // Commit f77f281b6118 ("fsverity: use a hashtable to find the fsverity_info") is in 7.0: overlayfs no longer loads the digest of a
    // file that nobody has opened. Release 7.0.6 is the last one without the fix.
    first: (7, 0, 0),
    last: (7, 0, 6),
    fault: "its overlayfs does not find the digests of files (verity=require), so that no root is read",
    source: "https://github.com/bootc-dev/bootc/issues/2174",
}];

/// The fault of the kernel with this release (`uname -r`) or version of a package, if it is known to have one.
pub fn kernel_fault(version: &str) -> Option<&'static KernelFault> {
    let release = release(version)?;
    FAULTS
        .iter()
        .find(|fault| fault.first <= release && release <= fault.last)
}

/// Why a kernel with a fault is refused; completes "failed to …".
pub fn refuse_kernel(version: &str) -> Result<(), String> {
    match kernel_fault(version) {
        None => Ok(()),
        Some(fault) => {
            let ((a, b, c), (d, e, f)) = (fault.first, fault.last);
            Err(format!(
                "use the kernel {version}: {}; releases {a}.{b}.{c} to {d}.{e}.{f} have this fault ({})",
                fault.fault, fault.source
            ))
        }
    }
}

/// The three numbers at the beginning; a missing one is 0. `None` if it does not begin with a number.
fn release(version: &str) -> Option<(u32, u32, u32)> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.');
    let mut numbers = version.get(..end.unwrap_or(version.len()))?.split('.');
    let first = numbers.next()?.parse().ok()?;
    let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Some((first, next(), next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_in_a_range_is_refused_by_its_fault_and_its_source() {
        for good in [
            "6.12.117+deb13-amd64",
            "6.19.14-1",
            "7.0.7-1",
            "7.0.10+deb14-arm64",
            "7.1-1",
            "70.0.3",
            "8",
            "x",
            "",
        ] {
            assert_eq!(refuse_kernel(good), Ok(()), "{good}");
        }
        for bad in [
            "7.0",
            "7.0-1",
            "7.0.1",
            "7.0.6-amd64",
            "7.0.3-arch1-2",
            "7.0.4+deb14-amd64",
            "7.0.6-1~bpo13+1",
        ] {
            let said = refuse_kernel(bad).expect_err(bad);
            for want in [bad, "verity=require", "7.0.0 to 7.0.6", "issues/2174"] {
                assert!(said.contains(want), "{want}: {said}");
            }
        }
    }
}
