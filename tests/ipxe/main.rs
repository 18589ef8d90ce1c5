//! The template of the iPXE script, rendered by Ruby's ERB as the platform renders it. [`boots`] has machines that run the result.

mod boots;
#[path = "../node/csr.rs"]
mod csr;
#[path = "../node/platform.rs"]
#[expect(dead_code, reason = "shared with the tests of nodes, which use more of it")]
mod platform;
#[path = "../build/project.rs"]
#[expect(dead_code, reason = "shared with the tests of builds, which use more of it")]
mod project;
#[path = "../publish/server.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of publishing, which put faults at requests"
)]
mod server;
#[path = "../publish/tls.rs"]
#[expect(dead_code, reason = "shared with the tests of publishing, which use more of it")]
mod tls;
#[path = "../fixture/tools.rs"]
mod tools;

use std::{collections::BTreeMap, fs, path::Path};

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stages/ipxe/files/template.ipxe.erb");
const COMMAND_LINE: &str = "powernode.boot=1 lockdown=integrity ima_template=ima-ng initrd=initramfs.cpio.zst";
const UUID: &str = "0b8f2c1e-1111-4222-8333-444455556666";

/// What the platform does: the bindings are methods of an object, those of a certificate authority always exist, and the text is
/// rendered with the trim mode "-".
const RENDER: &str = r#"
require "erb"
require "json"
given = JSON.parse(File.read(ARGV[1]))
instance = Object.new
%w[instance_uuid bootstrap_token ca_pem_url ca_pem_inline image_base].each { |n| instance.define_singleton_method(n) { given[n] } }
instance.define_singleton_method(:platform_url) { given["platform_url"] } if given.key?("platform_url")
begin
  print ERB.new(File.read(ARGV[0]), trim_mode: "-").result(instance.instance_eval { binding })
rescue ArgumentError => error
  print "refused: #{error.message}"
end
"#;

/// A certificate of `lines` lines of base64.
fn certificate(lines: usize) -> String {
    let line = "MIIBszCCAVmgAwIBAgIUQMIIBszCCAVmgAwIBAgIUQMIIBszCCAVmgAwIBAgIUQ==\n";
    format!(
        "-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n",
        line.repeat(lines)
    )
}

fn rendered(bindings: &[(&str, &str)]) -> String {
    let template = fs::read_to_string(TEMPLATE).expect("readable");
    rendered_of(&template.replace("@COMMAND_LINE@", COMMAND_LINE), bindings)
}

/// The same of a template whose command line is filled in.
fn rendered_of(template: &str, bindings: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut given = BTreeMap::from([
        ("instance_uuid", UUID),
        ("bootstrap_token", "tok-1"),
        ("image_base", "https://images.test/v1"),
    ]);
    given.extend(bindings.iter().copied());
    let files = [
        ("template", template.to_owned()),
        ("render.rb", RENDER.to_owned()),
        ("bindings", serde_json::to_string(&given).expect("JSON")),
    ];
    let paths = files.map(|(name, text)| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path
    });
    let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
    tools::check(&paths, "ruby /inputs/1 /inputs/0 /inputs/2").0
}

#[test]
fn the_script_has_the_texts_that_the_platform_looks_for() {
    let script = rendered(&[
        ("ca_pem_inline", &certificate(8)),
        ("platform_url", "https://platform.test"),
    ]);
    for text in [
        "#!ipxe\n",
        "\nset arch ${buildarch}\niseq ${arch} i386 && set arch x86_64 ||\n",
        "\nkernel https://images.test/v1/${arch}/kernel powernode.boot=1 ",
        "\ninitrd --name initramfs.cpio.zst https://images.test/v1/${arch}/initramfs.cpio.zst || goto failed\n",
        "\nboot\n",
        "powernode.ca=-----BEGIN CERTIFICATE-----MIIB",
        "lockdown=integrity",
        "ima_template=ima-ng",
        " powernode.platform_url=https://platform.test ",
        &format!(" powernode.instance_uuid={UUID} powernode.bootstrap_token=tok-1 "),
    ] {
        assert!(script.contains(text), "{text:?} is not in:\n{script}");
    }
    // iPXE reads commands by lines: a certificate over several would be commands.
    let commands = script.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
    assert!(script.starts_with("#!ipxe\n") && !script.contains("<%"), "{script}");
    let words: Vec<&str> = commands.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(
        words,
        [
            "set", "iseq", "kernel", "initrd", "boot", "", ":failed", "echo", "sleep", "exit"
        ],
        "{script}"
    );
    let kernel = commands[2];
    assert_eq!(kernel.matches('"').count(), 2, "{kernel}");
    assert!(
        kernel.contains("\"powernode.ca=-----BEGIN CERTIFICATE-----")
            && kernel.contains("==-----END CERTIFICATE-----\" || goto failed")
    );
}

#[test]
fn the_authority_is_a_url_or_certificates_and_the_url_wins() {
    let url = ("ca_pem_url", "https://platform.test/ca.pem");
    for (bindings, has, has_not) in [
        (vec![], " || goto failed", "powernode.ca"),
        (
            vec![url],
            "powernode.ca_url=https://platform.test/ca.pem || ",
            "CERTIFICATE",
        ),
        (
            vec![url, ("ca_pem_inline", "nonsense")],
            "powernode.ca_url=",
            "powernode.ca=",
        ),
        (
            vec![("ca_pem_url", ""), ("ca_pem_inline", " ")],
            "tok-1 || goto failed",
            "powernode.ca",
        ),
        (vec![("platform_url", "")], "tok-1 || goto failed", "platform_url"),
    ] {
        let script = rendered(&bindings);
        assert!(
            script.contains(has) && !script.contains(has_not),
            "{bindings:?}\n{script}"
        );
    }
    // Text before and between the certificates, as openssl writes it.
    let (one, two) = (certificate(1), certificate(2));
    let script = rendered(&[("ca_pem_inline", &format!("subject=x y\r\n{one}issuer='$'\n{two}"))]);
    assert!(!script.contains("subject") && !script.contains("issuer"), "{script}");
    assert_eq!(script.matches("-----BEGIN CERTIFICATE-----MIIB").count(), 2, "{script}");
}

#[test]
fn a_value_that_would_be_another_command_is_refused() {
    for (name, value, problem) in [
        ("instance_uuid", "", "instance_uuid is empty"),
        (
            "bootstrap_token",
            "a b",
            "bootstrap_token holds a space, a quote or a control character",
        ),
        (
            "bootstrap_token",
            "a\nshell",
            "bootstrap_token holds a space, a quote or a control character",
        ),
        (
            "image_base",
            "https://x/${arch}",
            "image_base holds ${, which iPXE would expand",
        ),
        (
            "platform_url",
            "https://x\" init=/bin/sh",
            "platform_url holds a space, a quote or a control character",
        ),
        (
            "ca_pem_url",
            "https://x/é",
            "ca_pem_url holds a space, a quote or a control character",
        ),
        (
            "ca_pem_inline",
            "-----BEGIN CERTIFICATE-----\n$(id)\n-----END CERTIFICATE-----",
            "ca_pem_inline holds no PEM certificate",
        ),
    ] {
        assert_eq!(rendered(&[(name, value)]), format!("refused: {problem}"));
    }
    let long = rendered(&[("ca_pem_inline", &certificate(40))]);
    assert!(
        long.starts_with("refused: the kernel command line has ")
            && long.ends_with("give ca_pem_url instead of ca_pem_inline"),
        "{long}"
    );
}
