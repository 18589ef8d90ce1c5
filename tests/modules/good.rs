//! A node with nginx as a module answers over HTTP.

use crate::{ground::*, project::*};
use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

/// What asks nginx for its page in the machine, and hands the answer to the server of the test.
const PROBE: &str = r#"#!/bin/bash
connect() {
    for _ in $(seq 120); do
        exec {fd}<>"/dev/tcp/$1" && return
        sleep 0.5
    done 2>/dev/null
    exit 1
}
connect 127.0.0.1/80
printf 'GET / HTTP/1.0\r\n\r\n' >&"$fd"
page=$(cat <&"$fd")
connect 10.0.2.100/80
printf 'POST /page HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s' "${#page}" "$page" >&"$fd"
cat <&"$fd"
"#;
const UNIT: &str = "[Unit]\nAfter=nginx.service\nBefore=powernode-ready.service\n\n\
                    [Service]\nType=oneshot\nStandardOutput=journal+console\nExecStart=/bin/bash -x /usr/share/probe\n\n[Install]\nWantedBy=multi-user.target\n";
const PAGE: &str = "usr/share/nginx/html/index.html";

/// What the server is sent: each connection up to the end of the page.
fn serve(listener: TcpListener) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // A slow machine is started once more.
        while let Ok((stream, _)) = listener.accept() {
            let sender = sender.clone();
            thread::spawn(move || {
                if let Ok(text) = take(stream) {
                    let _ = sender.send(text);
                }
            });
        }
    });
    receiver
}

fn take(mut stream: TcpStream) -> io::Result<String> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("</html>") {
        match stream.read(&mut buffer)? {
            0 => break,
            read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n")?;
    Ok(text)
}

/// A port that is free at this moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// Asks the node for its page through a port of this host until it answers, for as long as a slow boot takes.
fn ask_while_it_boots(port: u16) -> thread::JoinHandle<Option<String>> {
    let once = move || -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    thread::spawn(move || {
        let tries = (0..4_000).map(|_| {
            let answer = once().ok().filter(|text| text.contains("</html>"));
            if answer.is_none() {
                thread::sleep(Duration::from_millis(200));
            }
            answer
        });
        tries.flatten().next()
    })
}

fn page(nonce: &str) -> String {
    // More than 64 bytes: an object and no content of the image.
    format!("<html><body>{}{nonce}</body></html>\n", "x".repeat(100))
}

/// `pnb module build` into `place`; the printed line.
fn built(source: &Path, place: &Path, options: &[&str]) -> String {
    let mut command = pnb(repository(), &store());
    command
        .args(["--quiet", "module", "build"])
        .arg(source)
        .arg("--out")
        .arg(place)
        .args(options);
    good(&mut command).trim_end().to_owned()
}

#[test]
#[ignore = "long: a boot"]
fn nginx_from_pinned_packages_serves_the_page_of_the_module_on_top() {
    let share = tempfile::tempdir_in(scratch()).expect("scratch");
    let place = share.path().join("modules");
    let nonce = |name: &str| format!("{name}-{:016x}", rand::random::<u64>());
    let (top, low) = (nonce("top"), nonce("low"));

    let tree = share.path().join("tree");
    let put = |path: &str, text: &str| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().expect("below tree")).expect("made");
        fs::write(path, text).expect("written");
    };
    put(PAGE, &page(&low));
    let below = built(&tree, &place, &["--id", "below", "--priority", "90"]);
    put(PAGE, &page(&top));
    put("usr/share/probe", PROBE);
    put("etc/systemd/system/probe.service", UNIT);
    let wants = tree.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).expect("made");
    std::os::unix::fs::symlink("../probe.service", wants.join("probe.service")).expect("made");
    let above = built(&tree, &place, &["--id", "page", "--priority", "1000"]);
    let nginx = built(
        Path::new("nginx"),
        &place,
        &["--without", "usr/lib/systemd", "--priority", "500"],
    );
    fs::remove_dir_all(&tree).expect("ours");

    let text = list(INSTANCE, 7, LATER, &[above, nginx, below]);
    let path = place.join("modules.list");
    fs::write(&path, text).expect("written");
    let pnb = |step: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
        command.args(["module", step]);
        command
    };
    good(pnb("sign").arg(&path).arg("--key").arg(&ground().secret));
    good(pnb("verify").arg(&place).arg("--key").arg(&ground().public));

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let reach = format!("10.0.2.100:80={}", listener.local_addr().expect("bound"));
    let served = serve(listener);
    let port = free_port();
    let asked = ask_while_it_boots(port);
    let said = good_boot(
        boot(&ground().artifact, share.path())
            .args(["--reach", &reach, "--forward", &format!("{port}:80"), "--fw-cfg"])
            .arg(format!("instance_uuid={INSTANCE}")),
    );
    assert!(
        said.contains("powernode: modules: 3 of 3 stacked, counter=7 key=fleet"),
        "{said}"
    );
    let sent: Vec<String> = served.try_iter().collect();
    assert_ne!(sent.len(), 0, "nothing was sent:\n{said}");
    let page = sent.concat();
    assert!(page.contains("Server: nginx/"), "{page}");
    assert!(page.contains(&top) && !page.contains(&low), "{page}");
    // The same page through the port of this host.
    let way = format!("forward 127.0.0.1:{port} leads to port 80 of the machine: `curl http://127.0.0.1:{port}/`");
    assert!(said.contains(&way), "{said}");
    let page = asked
        .join()
        .expect("whole")
        .expect("an answer through the forwarded port");
    assert!(page.contains("Server: nginx/") && page.contains(&top), "{page}");
}
