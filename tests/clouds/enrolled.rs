//! The whole way of an identity: from the user data of each cloud to the platform, which is sent this token and this name, once, over TLS 1.3.
//!
//! Each cloud gives its user data in another form. The metadata service is asked by the initramfs alone: the agent, which would ask the
//! clouds too, finds the identity before.

use crate::{
    AWS, Cloud,
    platform::{Enrolled, NODE_ADDRESS, Platform},
    project::{INSTANCE, good_boot, scratch},
    tls::{Authority, base64},
    {aws, boot, packets},
};
use serde_json::json;
use std::{path::Path, sync::Arc};

const TOKEN: &str = "t-cloud-7";
/// The address of the platform in the network of a machine in a cloud.
const ADDRESS: &str = "169.254.1.100:8443";
const ADDRESS_BYTES: [u8; 4] = [169, 254, 1, 100];

fn platform() -> Platform {
    let platform = Platform::start(Arc::new(Authority::new()), &ADDRESS_BYTES, &[&rustls::version::TLS13]);
    platform.expect(TOKEN, INSTANCE);
    platform
}

/// Boots with the platform at `address`, and looks at who enrolled there, and at the ready line.
#[track_caller]
fn enrolls(platform: &Platform, address: &str, source: &str, arguments: &[&str]) -> String {
    let reach = platform.reach_at(address);
    // Enough for an agent that is emulated beside other programs; the ready line may come first.
    let said = good_boot(boot(arguments).args(["--settle", "60", "--reach", &reach]));
    let line = format!("powernode: ready instance={INSTANCE} source={source} root=");
    let ready = said.lines().find(|said| said.contains(&line));
    assert!(
        ready.is_some_and(|ready| ready.contains(" agent=active restarts=0")),
        "{line}… agent=active restarts=0 is not in:\n{said}"
    );
    let want = [Enrolled {
        token: TOKEN.to_owned(),
        common_name: INSTANCE.to_owned(),
    }];
    assert_eq!(platform.enrolled(), want, "{:?}\n{said}", platform.refused());
    assert_eq!(platform.refused(), [""; 0], "{said}");
    said
}

/// User data in JSON.
fn json_of(platform: &Platform) -> String {
    json!({
        "instance_uuid": INSTANCE,
        "bootstrap_token": TOKEN,
        "platform_url": format!("https://{ADDRESS}"),
        "ca_pem": platform.ca(),
        "something_else": { "of": ["ours", 7, null] },
    })
    .to_string()
}

/// User data in words of a command line.
fn words_of(platform: &Platform) -> String {
    let ca = platform.ca().trim_end().replace('\n', " ");
    format!(
        "powernode.instance_uuid={INSTANCE} powernode.bootstrap_token={TOKEN} powernode.platform_url=https://{ADDRESS} \
         powernode.ca_pem=\"{ca}\"\n"
    )
}

/// User data in lines of identity.cfg, between lines of somebody else.
fn lines_of(platform: &Platform) -> String {
    let ca = platform.ca().trim_end().replace('\n', "\\n");
    format!(
        "#!/bin/sh\n# ours\nID={INSTANCE}\nKEY={TOKEN}\nSERVER=https://{ADDRESS}\nCA_PEM={ca}\nexport HOSTNAME=web-7\n"
    )
}

#[test]
#[ignore = "long: one boot; cargo test -- --include-ignored"]
fn a_node_on_aws_enrolls_as_its_user_data_says() {
    let platform = platform();
    let cloud = Cloud::new(&aws(&json_of(&platform)));
    let capture = cloud.0.path().join("packets");
    let capture_to = capture.to_str().expect("UTF-8");
    let arguments = [&AWS[..], &["--metadata", cloud.dir(), "--capture", capture_to]].concat();
    enrolls(&platform, ADDRESS, "cloud", &arguments);
    // Once, with a session, and nothing else: the second answer is about somebody else.
    assert_eq!(
        cloud.requests(),
        [
            "200 PUT /latest/api/token Content-Length:0 X-aws-ec2-metadata-token-ttl-seconds:60",
            "200 GET /latest/user-data X-aws-ec2-metadata-token:TOKEN==",
        ]
    );
    assert!(packets(&capture) > 0, "the capture has packets");
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    /// The user data of a cloud is asked for with these requests, each of which must be made once and in this order.
    fn in_a_cloud(smbios: &str, answers: &serde_json::Value, platform: &Platform, requests: &[String]) {
        let cloud = Cloud::new(answers);
        enrolls(
            platform,
            ADDRESS,
            "cloud",
            &["--smbios", smbios, "--metadata", cloud.dir()],
        );
        assert_eq!(cloud.requests(), requests, "{smbios}");
    }

    #[test]
    #[ignore = "nightly: a boot; cargo test -- --ignored nightly::"]
    fn a_node_on_google_enrolls_as_its_user_data_says() {
        let platform = platform();
        let flavor = json!({ "Metadata-Flavor": "Google" });
        let answers = json!([
            { "path": "/computeMetadata/v1/", "headers": flavor, "body": "instance/" },
            { "path": "/computeMetadata/v1/instance/attributes/user-data", "headers": flavor, "body": lines_of(&platform) },
        ]);
        let requests = [
            "200 GET /computeMetadata/v1/ Metadata-Flavor:Google".to_owned(),
            "200 GET /computeMetadata/v1/instance/attributes/user-data Metadata-Flavor:Google".to_owned(),
        ];
        in_a_cloud("product_name=Google Compute Engine", &answers, &platform, &requests);
    }

    #[test]
    #[ignore = "nightly: a boot; cargo test -- --ignored nightly::"]
    fn a_node_on_azure_enrolls_as_its_user_data_says() {
        let platform = platform();
        let version = "api-version=2021-01-01&format=text";
        let user_data = format!("/metadata/instance/compute/userData?{version}");
        let metadata = json!({ "Metadata": "true" });
        let encoded = base64(words_of(&platform).as_bytes());
        let answers = json!([
            { "path": format!("/metadata/instance?{version}"), "headers": metadata, "body": "compute/" },
            { "path": user_data, "headers": metadata, "body": encoded },
        ]);
        let requests = [
            format!("200 GET /metadata/instance?{version} Metadata:true"),
            format!("200 GET {user_data} Metadata:true"),
        ];
        let smbios = "chassis_asset_tag=7783-7084-3265-9085-8269-3286-77";
        in_a_cloud(smbios, &answers, &platform, &requests);
    }

    #[test]
    #[ignore = "nightly: a boot; cargo test -- --ignored nightly::"]
    fn a_node_on_digitalocean_enrolls_as_its_user_data_says() {
        let platform = platform();
        let answers = json!([
            { "path": "/metadata/v1/id", "body": "1" },
            { "path": "/metadata/v1/user-data", "body": words_of(&platform) },
        ]);
        let requests = ["/metadata/v1/id", "/metadata/v1/user-data"].map(|path| format!("200 GET {path}"));
        in_a_cloud("sys_vendor=DigitalOcean", &answers, &platform, &requests);
    }

    #[test]
    #[ignore = "nightly: a boot; cargo test -- --ignored nightly::"]
    fn a_node_on_openstack_enrolls_as_its_user_data_says() {
        let platform = platform();
        let answers = json!([{ "path": "/openstack/latest/user_data", "body": json_of(&platform) }]);
        let requests = ["200 GET /openstack/latest/user_data".to_owned()];
        in_a_cloud("product_name=OpenStack Nova", &answers, &platform, &requests);
    }

    /// A service that does not exist costs a bounded time, and the next source counts.
    #[test]
    #[ignore = "nightly: one boot; cargo test -- --ignored nightly::"]
    fn a_cloud_without_its_service_is_said_and_the_next_source_counts() {
        let platform = Platform::for_machines(Arc::new(Authority::new()));
        platform.expect(TOKEN, INSTANCE);
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let capture: &Path = &dir.path().join("packets");
        let given = [
            format!("instance_uuid={INSTANCE}"),
            format!("bootstrap_token={TOKEN}"),
            format!("platform_url=https://{NODE_ADDRESS}"),
            format!("ca_pem={}", platform.ca()),
        ];
        let mut arguments = AWS.to_vec();
        arguments.extend(["--append", "powernode.identity.timeout=5", "--capture"]);
        arguments.push(capture.to_str().expect("UTF-8"));
        arguments.extend(given.iter().flat_map(|value| ["--fw-cfg", value]));
        let said = enrolls(&platform, NODE_ADDRESS, "fw_cfg", &arguments);
        assert!(
            said.contains("powernode: identity: the metadata service of aws gives none: nobody answers"),
            "{said}"
        );
        assert!(packets(capture) > 0, "it was asked for");
    }
}
