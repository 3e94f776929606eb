//! Serves a folder over HTTP on this machine, for `scripts/web` and for the tests.
//!
//!     serve FOLDER [PORT]
//!
//! It prints the address, and serves until it is ended. A browser offers WebGPU to pages from this machine or by HTTPS, and not to
//! files. Needs nothing but the standard library, so that `rustc` alone builds it.
#![allow(dead_code, reason = "the tests have no use for `main`")]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::{fs, thread};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = || io::Error::other("usage: serve FOLDER [PORT]");
    let folder = PathBuf::from(arguments.next().ok_or_else(usage)?);
    let port = arguments.next().map_or(Ok(0), |port| port.parse()).map_err(|_| usage())?;
    let (address, serving) = serve(&folder, port)?;
    println!("{address}");
    serving.join().map_err(|_| io::Error::other("the server has panicked"))
}

/// Serves the files of a folder on a port, or on a free one for 0, from a thread. Gives the address.
pub fn serve(folder: &Path, port: u16) -> io::Result<(String, thread::JoinHandle<()>)> {
    let folder = folder.canonicalize()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let address = format!("http://localhost:{}/", listener.local_addr()?.port());
    let serving = thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            // A browser that goes away in the middle is no concern of ours.
            thread::spawn(move || answer(&folder, &stream).ok());
        }
    });
    Ok((address, serving))
}

/// Answers one request, and closes the connection.
fn answer(folder: &Path, mut stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    // What is left unread when the connection is closed may take the answer with it.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let file =
        request.strip_prefix("GET ").and_then(|rest| rest.split([' ', '?']).next()).and_then(|path| find(folder, path));
    let (status, kind, body) = match file.and_then(|file| Some((content_type(&file), fs::read(&file).ok()?))) {
        Some((kind, body)) => ("200 OK", kind, body),
        None => ("404 Not Found", "text/plain", b"There is no such file.\n".to_vec()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}

/// The file of a path, if that leads nowhere but into the folder.
fn find(folder: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path.strip_prefix('/')?);
    if !path.components().all(|component| matches!(component, Component::Normal(_))) {
        return None;
    }
    let file = folder.join(path);
    Some(if file.is_dir() { file.join("index.html") } else { file })
}

fn content_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        // Compiled while it is being received, which browsers do for this type alone.
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
