//! Registries that send without end, and tokens that end too early.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod registries;
mod shell;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use registries::Registry;
use shell::Shell;
use support::require;

/// A server on loopback that hands each request's head to `answer`.
fn serve(answer: impl Fn(String, TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut byte) {
                        // TLS is tried first, and begins with this.
                        Ok(1) if head.is_empty() && byte == [0x16] => return,
                        Ok(1) => head.push(byte[0]),
                        _ => return,
                    }
                }
                answer(String::from_utf8_lossy(&head).into_owned(), stream);
            });
        }
    });
    port
}

/// Answers and closes; whoever has gone already need not be told.
fn close_with(mut stream: TcpStream, status: &str, headers: &str, body: &str) {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    if stream.write_all(answer.as_bytes()).is_ok() {
        drop(stream.shutdown(Shutdown::Write));
        drop(stream.read_to_end(&mut Vec::new()));
    }
}

#[test]
fn a_manifest_without_end_is_not_read_to_it() {
    let sent = Arc::new(AtomicU64::new(0));
    for headers in ["Transfer-Encoding: chunked", "Content-Length: 999999999999"] {
        let (count, chunked) = (Arc::clone(&sent), headers.starts_with('T'));
        let port = serve(move |head, mut stream| {
            if !head.contains("/manifests/") {
                return close_with(stream, "200 OK", "", "{}");
            }
            let head = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n");
            drop(stream.write_all(head.as_bytes()));
            let piece = vec![b' '; 64 << 10];
            let chunk = [b"10000\r\n", piece.as_slice(), b"\r\n"].concat();
            let part = if chunked { &chunk } else { &piece };
            while stream.write_all(part).is_ok() {
                count.fetch_add(part.len() as u64, Ordering::SeqCst);
            }
        });
        let shell = Shell::new();
        let refusal = shell.fails(&["pull", &format!("127.0.0.1:{port}/endless:1")]);
        assert!(refusal.ends_with("its manifest is larger than 4194304 bytes"), "{refusal}");
    }
    // What lies in the buffers of the kernel was sent, too.
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < 64 << 20, "{sent} bytes were sent");
}

/// A registry behind one that wants tokens; the first one is good for so many requests, the others
/// for ever. Returns its port.
fn guarded(registry: &Registry, uses: u64, issued: &Arc<AtomicU64>) -> u16 {
    let (far_port, issued, used) = (registry.port, Arc::clone(issued), AtomicU64::new(0));
    serve(move |head, near| {
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
        };
        if head.starts_with("GET /token") {
            let token = issued.fetch_add(1, Ordering::SeqCst);
            return close_with(near, "200 OK", "", &format!("{{\"token\":\"t{token}\"}}"));
        }
        let good = match header("authorization").as_deref() {
            Some("Bearer t0") => used.fetch_add(1, Ordering::SeqCst) < uses,
            Some(token) => token.starts_with("Bearer t"),
            None => false,
        };
        if !good {
            let host = header("host").unwrap();
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"test\"\r\n"
            );
            let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"no","detail":null}]}"#;
            return close_with(near, "401 Unauthorized", &challenge, body);
        }
        let Ok(mut far) = TcpStream::connect(("127.0.0.1", far_port)) else { return };
        let once = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        drop(far.write_all(once.as_bytes()));
        let (mut asking, mut asked) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || drop(std::io::copy(&mut asking, &mut asked)));
        let mut near = near;
        drop(std::io::copy(&mut far, &mut near));
        drop(near.shutdown(Shutdown::Both));
    })
}

#[test]
fn a_token_that_ends_anywhere_is_renewed() {
    if !require("tool:docker-registry") {
        return;
    }
    let (shell, registry) = (Shell::new(), Registry::start());
    let archive = shell.dir.path().join("small.tar");
    let small = images::image("small", &[&[("a", "1")]]);
    std::fs::write(&archive, images::archive(&images::docker_files(&[small]))).unwrap();
    shell.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
    let mut ends = Vec::new();
    for uses in 1..9 {
        let issued = Arc::new(AtomicU64::new(0));
        let name = format!("127.0.0.1:{}/small{uses}:1", guarded(&registry, uses, &issued));
        shell.ok(&["push", "-q", "small", &name]);
        ends.push(issued.load(Ordering::SeqCst));
        let again = guarded(&registry, uses, &Arc::new(AtomicU64::new(0)));
        let other = Shell::new();
        other.ok(&["pull", "-q", &format!("127.0.0.1:{again}/small{uses}:1")]);
    }
    // One for writing and one for reading, and a third where one ended too early.
    assert!(ends.first() == Some(&3) && ends.last() == Some(&2), "{ends:?}");
}
