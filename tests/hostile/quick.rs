//! The attacks of the table, in the whole sandbox and outside of it.

use crate::{
    ground::{HostGround, is_root, results, run},
    table::{ATTACKS, Attack},
};
use pnb::sandbox::Ids;

pub(crate) fn names(wanted: impl Fn(&Attack) -> bool) -> Vec<&'static str> {
    ATTACKS.iter().filter(|a| wanted(a)).map(|a| a.name).collect()
}

/// Both kinds of id maps: a range lets a process have other ids, which some attacks need.
pub(crate) fn every_attack_is_stopped() {
    let all = names(|_| true);
    for ids in [Ids::Single, Ids::Range] {
        let host = HostGround::new();
        let mut spec = host.spec(&all);
        spec.ids = ids;
        let (outcome, log) = run(&spec);
        let through: Vec<_> = results(&log, &all).into_iter().filter(|(_, got)| *got).collect();
        assert!(through.is_empty(), "{ids:?}: {through:?}\n{log}");
        assert!(
            outcome.is_ok(),
            "{ids:?}: {:?}\n{log}",
            outcome.map_err(|e| e.to_string())
        );
    }
    // What nobody may do even outside is shown to work in the matrix, which needs root. These work for everyone.
    let everyone = [
        "tcp",
        "udp",
        "dns",
        "abstract-socket",
        "pathname-socket",
        "host-read",
        "input-write",
        "mountinfo",
        "host-name",
    ];
    let outside = HostGround::new().outside(&everyone);
    assert!(
        outside.values().all(|got| *got),
        "control, root: {}: {outside:?}",
        is_root()
    );
}
