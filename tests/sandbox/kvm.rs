//! `/dev/kvm` is there for a machine that asks for it, and for nothing else.

use crate::host::*;
use pnb::sandbox::Spec;
use std::path::Path;

/// Opens a device and asks for the version of KVM's interface.
fn ask(device: &str) -> String {
    format!(
        "open(K,'+<','{device}') or (print('open: ',$!), exit); my $v = ioctl(K,0xAE00,0);\
         print defined $v ? qq(version $v) : qq(ioctl: $!)"
    )
}

fn with_kvm(mut spec: Spec) -> Spec {
    spec.kvm = true;
    spec
}

#[test]
fn kvm_is_there_only_where_it_is_asked_for_and_nothing_else_can_be_controlled() {
    let host = Host::new();
    let kvm = ask("/dev/kvm");
    let without = host.perl(&kvm);
    assert_eq!(printed(&without), "open: No such file or directory");
    assert_eq!(without.policy().mounts, with_kvm(host.perl(&kvm)).policy().mounts);

    // The answer of the host, or, where it has no KVM, of a node without a driver.
    let spec = with_kvm(host.perl(&kvm));
    if Path::new("/dev/kvm").exists() {
        let control = outside(&["/usr/bin/perl", "-e", &kvm], Path::new("/"));
        assert_eq!(printed(&spec), control);
    } else if nix::unistd::geteuid().is_root() {
        assert_eq!(printed(&spec), "open: No such device");
    } else {
        let (outcome, _) = run(&spec);
        assert!(outcome.is_err(), "an ordinary user has the host's nodes only");
    }

    // Another device takes no call of its driver, with KVM or without.
    let null = ask("/dev/null");
    let control = outside(&["/usr/bin/perl", "-e", &null], Path::new("/"));
    assert_eq!(control, "ioctl: Inappropriate ioctl for device");
    for spec in [host.perl(&null), with_kvm(host.perl(&null))] {
        assert_eq!(printed(&spec), "ioctl: Permission denied");
    }

    let policy = |spec: &Spec| serde_json::to_value(spec.policy()).expect("serializes");
    assert_eq!(policy(&host.perl("")).get("kvm"), None);
    assert_eq!(policy(&with_kvm(host.perl(""))).get("kvm"), Some(&true.into()));
}
