//! The layers of a stage's sandbox, as it measured them from inside.

use serde_json::Value;

/// The namespaces that must be the stage's own.
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// The gaps that the measurements of a stage's sandbox show; empty when every layer was in force. A layer that was not measured
/// counts as a gap. The policy that the sandbox was given does not matter here.
pub fn gaps(measured: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let list = |name: &str| measured[name].as_array().map(Vec::as_slice);
    match list("namespaces") {
        None => out.push("namespaces were not measured".to_owned()),
        Some(own) => {
            let shared = NAMESPACES.iter().filter(|n| !own.iter().any(|o| o == **n));
            out.extend(shared.map(|n| format!("the {n} namespace is the host's")));
        }
    }
    for (name, want) in [
        ("no_new_privs", Value::Bool(true)),
        ("seccomp_mode", Value::from(2)),
        ("landlock", Value::from("fully enforced")),
        ("landlock_leaks", Value::Bool(false)),
        ("loopback_up", Value::Bool(false)),
    ] {
        match &measured[name] {
            Value::Null => out.push(format!("{name} was not measured")),
            found if *found != want => out.push(format!("{name} is {found}, not {want}")),
            _ => {}
        }
    }
    match list("network") {
        None => out.push("network interfaces were not measured".to_owned()),
        Some(seen) => {
            let others = seen.iter().filter(|n| **n != "lo");
            out.extend(others.map(|n| format!("the network interface {n} was visible")));
        }
    }
    match list("shared_inputs") {
        None => out.push("inodes of inputs were not looked at".to_owned()),
        Some(shared) => out.extend(shared.iter().map(|at| format!("the input {at} had inodes of the host"))),
    }
    match list("leaked_descriptors") {
        None => out.push("open descriptors were not measured".to_owned()),
        Some(open) => out.extend(open.iter().map(|fd| format!("the descriptor {fd} was open"))),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_layer_must_have_been_found_in_force() {
        let good = json!({
            "namespaces": NAMESPACES, "no_new_privs": true, "seccomp_mode": 2, "landlock_leaks": false, "landlock": "fully enforced",
            "network": ["lo"], "loopback_up": false, "leaked_descriptors": [], "shared_inputs": [], "cpus": 2,
        });
        assert_eq!(gaps(&good), Vec::<String>::new());
        for (name, value, want) in [
            (
                "namespaces",
                json!(["user", "mnt", "pid", "ipc", "uts", "cgroup"]),
                "the net namespace is the host's",
            ),
            ("namespaces", Value::Null, "namespaces were not measured"),
            ("no_new_privs", json!(false), "no_new_privs is false, not true"),
            ("seccomp_mode", json!(0), "seccomp_mode is 0, not 2"),
            ("seccomp_mode", Value::Null, "seccomp_mode was not measured"),
            ("landlock_leaks", json!(true), "landlock_leaks is true, not false"),
            (
                "landlock",
                json!("not enforced"),
                "landlock is \"not enforced\", not \"fully enforced\"",
            ),
            (
                "network",
                json!(["lo", "eth0"]),
                "the network interface \"eth0\" was visible",
            ),
            ("loopback_up", json!(true), "loopback_up is true, not false"),
            ("leaked_descriptors", json!([7]), "the descriptor 7 was open"),
            (
                "shared_inputs",
                json!(["/usr"]),
                "the input \"/usr\" had inodes of the host",
            ),
            ("shared_inputs", Value::Null, "inodes of inputs were not looked at"),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert_eq!(gaps(&bad), [want]);
        }
        assert_eq!(gaps(&Value::Null).len(), 9);
    }
}
