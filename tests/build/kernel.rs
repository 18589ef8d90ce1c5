//! The indexes of the kernel's modules, and the modules of the initramfs, against the programs that are the measure of them.

use crate::{project::*, tools::run};
use pnb::image::cpio::CpioReader;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// An output of a stage that has been built for these tests.
fn output_of(stage: &str, arch: &str, output: &str) -> PathBuf {
    good(pnb(repository(), &store()).args(["build", "--stage", stage, "--arch", arch]));
    let node = format!("{stage}/{arch}");
    let path = good(pnb(repository(), &store()).args(["store", "path", &node, "--output", output]));
    PathBuf::from(path.trim())
}

/// Runs `script` with the pinned build tools over `files`; what it prints.
fn with_tools(files: &[&Path], script: &str) -> String {
    run(&tree_of("tools"), files, script).expect("the script ends well").0
}

/// What sha256sum says of each file.
fn sums(said: &str) -> BTreeMap<&str, &str> {
    let lines = said.lines().filter_map(|l| l.split_once("  "));
    lines
        .map(|(sum, name)| (name, sum))
        .filter(|(_, sum)| sum.len() == 64)
        .collect()
}

#[test]
fn the_indexes_are_those_of_depmod() {
    // depmod only reads the modules: those of the other machine too.
    for arch in ["amd64", "arm64"] {
        let package = output_of("kernel-package", arch, "tree");
        let indexes = output_of("kernel", arch, "indexes");
        let said = with_tools(
            &[&package, &indexes],
            "
            version=$(cd /inputs/0/usr/lib/modules && echo *)
            base=base/lib/modules/$version
            mkdir -p $base
            cd /inputs/0/usr/lib/modules/$version
            # The modules that no artifact carries are not in the indexes.
            { cut -d: -f1 /inputs/1/usr/lib/modules/$version/modules.dep; ls -d modules.*; } | tar -c -T - | tar -x -C /build/$base
            cd /build
            depmod -b base -o /build -F /inputs/0/boot/System.map-$version $version
            cd lib/modules/$version
            sha256sum *
            echo and
            cd /inputs/1/usr/lib/modules/$version
            sha256sum *
            ",
        );
        let (theirs, ours) = said.split_once("\nand\n").expect("two lists");
        assert_eq!(sums(theirs).len(), 11, "{said}");
        assert_eq!(sums(theirs), sums(ours), "{arch}");
    }
}

#[test]
fn no_artifact_carries_an_omitted_module_that_nothing_needs() {
    let package = output_of("kernel-package", "amd64", "tree");
    let root = output_of("root", "amd64", "root.dump");
    let indexes = output_of("kernel", "amd64", "indexes");
    let root = std::fs::read_to_string(root).expect("a dump");
    let has = |module: &str| {
        root.lines()
            .any(|line| line.split(' ').next().is_some_and(|p| p.ends_with(module)))
    };
    let said = with_tools(
        &[&package, &indexes],
        "cd /inputs/0/usr/lib/modules/*/ && find kernel -name '*.ko.xz'; echo and; cat /inputs/1/usr/lib/modules/*/modules.dep",
    );
    let (all, kept) = said.split_once("\nand\n").expect("two lists");
    let kept: Vec<&str> = kept.lines().filter_map(|line| line.split(':').next()).collect();
    assert!(
        kept.len() > 2000 && kept.len() + 1500 < all.lines().count(),
        "{} of {}",
        kept.len(),
        all.lines().count()
    );
    for (module, carried) in [
        ("kernel/fs/ext4/ext4.ko.xz", true),
        // Listed, and needed by a network card that is not.
        ("kernel/drivers/mtd/mtd.ko.xz", true),
        ("kernel/drivers/net/ethernet/sfc/sfc.ko.xz", true),
        ("kernel/drivers/gpu/drm/i915/i915.ko.xz", false),
        ("kernel/sound/usb/snd-usb-audio.ko.xz", false),
    ] {
        assert!(all.lines().any(|line| line == module), "{module} is not in the package");
        assert_eq!((kept.contains(&module), has(module)), (carried, carried), "{module}");
    }
    assert_eq!(
        root.lines()
            .filter(|line| line.split(' ').next().is_some_and(|p| p.ends_with(".ko.xz")))
            .count(),
        kept.len()
    );
}

#[test]
fn the_initramfs_has_the_modules_that_dracut_would_install() {
    let package = output_of("kernel-package", "amd64", "tree");
    let indexes = output_of("kernel", "amd64", "indexes");
    let lists = repository().join("dracut/dracut.conf.d");
    let said = with_tools(
        &[&package, &indexes, &lists],
        "
        version=$(cd /inputs/0/usr/lib/modules && echo *)
        modules=/build/base/lib/modules/$version
        mkdir -p $modules /build/out
        ln -s /inputs/0/usr/lib/modules/$version/* /inputs/1/usr/lib/modules/$version/* $modules
        # As dracut reads them.
        wanted=$(bash -c '. /inputs/2/powernode.conf && . /inputs/2/powernode-amd64.conf && echo $add_drivers')
        export DRACUT_NO_XATTR=1
        /usr/lib/dracut/dracut-install -D /build/out --kerneldir $modules -o -m $wanted
        cp $modules/modules.order $modules/modules.builtin $modules/modules.builtin.modinfo /build/out/lib/modules/$version
        depmod -b /build/out $version
        cd /build/out
        find lib/modules -type f -exec sha256sum {} +
        ",
    );
    let theirs = sums(&said);
    let mut ours = BTreeMap::new();
    let file = File::open(output_of("initramfs", "amd64", "dracut.cpio")).expect("there");
    let mut archive = CpioReader::new(BufReader::new(file));
    while let Some(entry) = archive.next_entry().expect("an archive") {
        let name = entry.name();
        if let Some(path) = name.strip_prefix("usr/").filter(|p| p.starts_with("lib/modules/")) {
            let mut content = Vec::new();
            archive.read_to_end(&mut content).expect("readable");
            if entry.mode & 0o170_000 == 0o100_000 {
                ours.insert(path.to_owned(), hex::encode(Sha256::digest(&content)));
            }
        }
    }
    assert!(theirs.len() > 300, "{said}");
    let theirs: BTreeMap<String, String> = theirs.iter().map(|(n, s)| ((*n).to_owned(), (*s).to_owned())).collect();
    assert_eq!(ours, theirs);
}

/// The names in the part of an initramfs that dracut made.
fn names_in(artifact: &Path) -> Vec<String> {
    let mut file = File::open(artifact.join("initramfs.cpio.zst")).expect("there");
    let segments = pnb::image::cpio::segments(&mut file).expect("an initramfs");
    let mut packed = vec![0; usize::try_from(segments[1].len).expect("fits")];
    file.read_exact_at(&mut packed, segments[1].offset).expect("whole");
    let plain = zstd::decode_all(&packed[..]).expect("zstd");
    let mut archive = CpioReader::new(&plain[..]);
    let mut names = Vec::new();
    while let Some(entry) = archive.next_entry().expect("an archive") {
        names.push(entry.name().to_owned());
    }
    names
}

#[test]
#[ignore = "long: a build with other drivers; cargo test -- --include-ignored"]
fn the_option_graphics_brings_drivers_and_firmware_and_stands_in_the_manifest() {
    let made = tempfile::tempdir_in(scratch()).expect("scratch");
    let mut command = build(repository(), &store());
    command.args(["--variant", "kernel-initrd", "--with", "graphics", "--output"]);
    good(command.arg(made.path()));
    for (artifact, graphics) in [(artifact(), false), (&*made.path().join("kernel-initrd/amd64"), true)] {
        let manifest = std::fs::read(artifact.join("build-manifest.json")).expect("there");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        assert_eq!(manifest["graphics"], graphics);
        assert_eq!(
            (&manifest["recovery"], &manifest["unsigned_modules"]),
            (&false.into(), &false.into())
        );
        let names = names_in(artifact);
        for end in [
            "/i915.ko.xz",
            "/amdgpu.ko.xz",
            "firmware/i915/kbl_dmc_ver1_04.bin",
            "firmware/amdgpu/navi10_smc.bin",
        ] {
            assert_eq!(names.iter().any(|name| name.ends_with(end)), graphics, "{end}");
        }
        good(pnb(repository(), &store()).arg("audit").arg(artifact));
    }
}
