//! ISO 9660 as genisoimage and xorriso make it: the names of each kind, UDF beside it, compressed files, moved directories, tables.

use super::{child, compared, holds, looked, names, part, problem, problems, scratch, tools::check};
use pnb::inspect::survey;

/// Files with long names, umlauts, several dots, and a directory below nine others.
const FILES: &str = "mkdir -p d/sub d/1/2/3/4/5/6/7/8/9
    printf '#cloud-config\\n' >d/user-data; printf 'instance-id: i-1\\n' >d/meta-data; printf x >'d/a long name with Capitals.txt'
    printf ö >d/grün.txt; printf z >d/two.dots.tar.gz; printf s >d/sub/inside; printf deep >d/1/2/3/4/5/6/7/8/9/deep\n";

#[test]
fn names_are_those_that_the_kernel_shows() {
    let script = format!(
        "{FILES} export LC_ALL=C.UTF-8
        genisoimage -quiet -input-charset utf-8 -D -J -V cidata -o out/joliet d 2>/dev/null
        genisoimage -quiet -input-charset utf-8 -J -r -V cidata -o out/both d 2>/dev/null
        genisoimage -quiet -input-charset utf-8 -D -V plain -o out/plain d 2>/dev/null
        xorriso -report_about SORRY -as mkisofs -quiet -J -V cidata -o out/xorriso d
        xorriso -report_about SORRY -rockridge off -joliet on -outdev out/off -map d / -commit"
    );
    let (_, made) = check(&[], &script);
    let long = [
        "/a long name with Capitals.txt",
        "/grün.txt",
        "/meta-data",
        "/two.dots.tar.gz",
        "/user-data",
        "/sub/inside",
        "/1/2/3/4/5/6/7/8/9/deep",
    ];
    for (image, origin) in [
        ("joliet", "Joliet"),
        ("both", "Rock Ridge"),
        ("xorriso", "Rock Ridge"),
        ("off", "Joliet"),
    ] {
        let node = looked(&made[image]);
        assert_eq!(problems(&node), Vec::<String>::new(), "{image}");
        assert_eq!(node.content["names"], origin, "{image}: {:?}", node.content);
        for name in long {
            assert!(names(&node).contains(&name), "{image}, {name}: {:?}", names(&node));
        }
        assert!(holds(child(&node, "/user-data"), b"#cloud-config\n"), "{image}");
        assert!(holds(child(&node, "/1/2/3/4/5/6/7/8/9/deep"), b"deep"), "{image}");
        assert!(
            !names(&node).iter().any(|n| n.contains(";1")),
            "{image}: {:?}",
            names(&node)
        );
        // Every byte of the image is explained, also the tree whose names are not shown.
        let mut changed = made[image].clone();
        let at = memchr::memmem::find(&changed, b"#cloud-config").expect("stored");
        changed[at + 1] = b'C';
        let found = compared(&made[image], &changed);
        assert_eq!(found.total, 1, "{image}: {found:?}");
        assert_eq!(found.differences[0].path.last().map(String::as_str), Some("/user-data"));
    }
    let node = looked(&made["plain"]);
    assert!(node.content["names"].starts_with("ISO 9660"), "{:?}", node.content);
    assert!(
        holds(child(&node, "/USER_DAT"), b"#cloud-config\n"),
        "{:?}",
        names(&node)
    );
    assert!(!names(&node).iter().any(|n| n.contains(';')), "{:?}", names(&node));
}

#[test]
fn udf_is_named_beside_iso_9660_and_alone() {
    let script = format!(
        "{FILES} genisoimage -quiet -D -udf -V x -o out/bridge d 2>/dev/null
        genisoimage -quiet -udf -J -r -V x -o out/all d 2>/dev/null; genisoimage -quiet -J -r -V x -o out/none d 2>/dev/null"
    );
    let (_, made) = check(&[], &script);
    let node = looked(&made["bridge"]);
    assert_eq!(node.content["UDF"], "yes (NSR02), not read");
    assert!(
        node.content["names"].contains("those of UDF are not read"),
        "{:?}",
        node.content
    );
    let node = looked(&made["all"]);
    assert_eq!(
        (node.content["names"].as_str(), problems(&node)),
        ("Rock Ridge", Vec::new())
    );
    assert!(node.content.contains_key("UDF"));
    assert!(!looked(&made["none"]).content.contains_key("UDF"));
    // A medium with UDF alone has its descriptors in the place of those of ISO 9660.
    let mut alone = vec![0; 64 * 2048];
    for (sector, identifier) in [(16, b"BEA01"), (17, b"NSR03"), (18, b"TEA01")] {
        alone[sector * 2048 + 1..][..5].copy_from_slice(identifier);
    }
    let node = looked(&alone);
    assert_eq!(node.format, Some("UDF"));
    assert!(problem(&node).contains("not read"), "{node:#?}");
    assert!(problem(&node).contains("not read"), "{node:#?}");
}

#[test]
fn a_difference_in_a_path_table_is_named() {
    let script = format!("{FILES} genisoimage -quiet -D -J -V x -o out/x d 2>/dev/null");
    let (_, made) = check(&[], &script);
    for (table, field) in [("path table", 140), ("path table of Joliet", 0)] {
        let mut changed = made["x"].clone();
        let descriptor = match field {
            140 => 16 * 2048,
            _ => (16..32)
                .map(|sector| sector * 2048)
                .find(|at| changed[*at] == 2)
                .expect("a supplementary descriptor"),
        };
        let block = u32::from_le_bytes(changed[descriptor + 140..][..4].try_into().expect("four"));
        changed[block as usize * 2048 + 2] ^= 1;
        let found = compared(&made["x"], &changed);
        let way = found.differences[0].path.last().expect("a way");
        assert_eq!((found.total, way.as_str()), (1, table), "{found:?}");
    }
}

#[test]
fn damaged_joliet_names_hide_no_others() {
    let script = format!("{FILES} genisoimage -quiet -D -J -V x -o out/x d 2>/dev/null");
    let (_, made) = check(&[], &script);
    let mut bytes = made["x"].clone();
    // A lone surrogate and a NUL in a name.
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let meta = memchr::memmem::find(&bytes, &utf16("meta-data")).expect("stored");
    bytes[meta..meta + 2].copy_from_slice(&[0xd8, 0x00]);
    let user = memchr::memmem::find(&bytes, &utf16("user-data")).expect("stored");
    bytes[user..user + 2].fill(0);
    let node = survey(&part(&bytes), &scratch(), 16, true).expect("in memory");
    assert!(names(&node).contains(&"/\u{fffd}eta-data"), "{:?}", names(&node));
    assert!(names(&node).contains(&"/two.dots.tar.gz"), "{:?}", names(&node));
    assert!(problem(&node).contains("is not a valid name"), "{:?}", node.problem);
}

#[test]
fn the_newest_session_is_listed_and_the_others_are_named() {
    let xorriso = "xorriso -report_about SORRY";
    let script = format!(
        "mkdir one two three; echo first >one/first; echo second >two/second; echo third >three/third
        {xorriso} -outdev grow -volid FIRST -map one / -commit
        {xorriso} -dev grow -volid SECOND -map two/second /second -commit
        {xorriso} -dev grow -volid THIRD -map three/third /third -rm /first -- -commit
        xorriso -indev grow -toc >out/toc 2>/dev/null
        # A file that is an image of its own is no session.
        {xorriso} -outdev single -volid SINGLE -map grow /grow.iso -commit
        # Nor is one that a later session has removed.
        genisoimage -quiet -r -V INNER -o inner one; {xorriso} -outdev gone -volid OUTER -map inner /inner -commit
        {xorriso} -dev gone -volid LATER -rm /inner -- -map two/second /second -commit; mv gone out/
        # A write-once medium: the second session behind the first, which stays where it was.
        genisoimage -quiet -r -V FIRST -o once one; truncate -s %65536 once
        at=$(($(stat -c %s once) / 2048)); genisoimage -quiet -r -V SECOND -M once -C 0,$at -o more two
        cat more >>once; echo $at >out/at; mv grow single once out/"
    );
    let (_, made) = check(&[], &script);
    let node = looked(&made["grow"]);
    assert_eq!(problems(&node), Vec::<String>::new());
    assert!(
        holds(child(&node, "/second"), b"second\n") && holds(child(&node, "/third"), b"third\n"),
        "{node:#?}"
    );
    assert!(!names(&node).contains(&"/first"));
    assert_eq!(node.content["label"], "THIRD");
    // xorriso's own list: `ISO session  :   1 ,        32 ,        24s , FIRST`.
    let toc = String::from_utf8_lossy(&made["toc"]).into_owned();
    let lines: Vec<Vec<String>> = toc
        .lines()
        .filter_map(|line| line.strip_prefix("ISO session  :"))
        .map(|line| line.split(',').map(|word| word.trim().to_owned()).collect())
        .collect();
    assert_eq!(lines.len(), 3, "{toc}");
    let said = &node.content["sessions"];
    let parts: Vec<&str> = said.split("; ").collect();
    assert_eq!(parts.len(), 3, "{said}");
    for (n, (part, line)) in parts.iter().zip(&lines).enumerate() {
        assert!(part.starts_with(&format!("\"{}\" ", line[3])), "{said}\n{toc}");
        let end = format!(" at block {}{}", line[1], if n == 2 { ", which is listed" } else { "" });
        assert!(part.ends_with(&end), "{said}\n{toc}");
    }
    // A root that does not name itself is that of something else.
    let mut image = made["grow"].clone();
    let descriptor = (32 + 16) * 2048;
    let root = u32::from_le_bytes(image[descriptor + 158..descriptor + 162].try_into().expect("4 bytes")) as usize;
    image.copy_within(root * 2048..(root + 1) * 2048, 5 * 2048);
    image[descriptor + 158..descriptor + 166].copy_from_slice(&[5, 0, 0, 0, 0, 0, 0, 5]);
    let said = looked(&image).content["sessions"].clone();
    assert!(!said.contains("FIRST") && said.contains("SECOND"), "{said}");
    let node = looked(&made["single"]);
    assert!(!node.content.contains_key("sessions"), "{:?}", node.content);
    let said = looked(&made["gone"]).content["sessions"].clone();
    assert!(
        said.starts_with("\"OUTER\" ") && said.contains("; \"LATER\" ") && !said.contains("INNER"),
        "{said}"
    );
    let node = looked(&made["once"]);
    let at = String::from_utf8_lossy(&made["at"]).trim().to_owned();
    let said = &node.content["sessions"];
    assert!(
        said.starts_with("the first, at block 0, is listed; \"SECOND\" "),
        "{said}"
    );
    assert!(
        said.ends_with(&format!(
            " at block {at}; a disc drive shows the last one, as mount does with -o sbsector"
        )),
        "{said}"
    );
    assert!(holds(child(&node, "/first"), b"first\n"), "{node:#?}");
}
