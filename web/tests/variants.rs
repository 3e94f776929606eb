//! All WGSL that a plan can produce, by Chromium's compiler, Tint. `GPU_LAYER_NORM_ALL_VARIANTS=1` takes every variant, not some of them.

mod browser;

use std::process::Command;
use std::time::Duration;

/// Of how many variants one is taken.
const EVERY: u32 = 16;

#[test]
fn the_compiler_of_a_browser_takes_every_variant() {
    let every = if std::env::var_os("GPU_LAYER_NORM_ALL_VARIANTS").is_some() { 1 } else { EVERY };
    let site = browser::Site::open();
    let page = site.page(&format!("variants.html?every={every}"));
    page.wait_until("document.body.dataset.state === 'done'", Duration::from_secs(600));
    println!("{}", page.value("document.querySelector('#summary').textContent"));
    let results = page.value("window.results");
    assert_eq!(results["errors"], serde_json::json!([]));
    let number = |what: &str| results[what].as_u64().expect("a number");
    let skipped = results["skipped"].as_array().expect("a list");
    assert!(number("count") > 1000, "{results}");
    assert_eq!(number("compiled") + skipped.len() as u64, number("count").div_ceil(every.into()));
    if !skipped.is_empty() {
        compile_by_tint(skipped);
    }
    page.close();
}

/// By the `tint` of the command line, where there is one, what the browser's device cannot take.
fn compile_by_tint(variants: &[serde_json::Value]) {
    if Command::new("tint").arg("--version").output().is_err() {
        println!("there is no `tint` here to compile the others by");
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tint");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("variant.wgsl");
    for variant in variants {
        std::fs::write(&file, variant["code"].as_str().expect("WGSL")).expect("a file");
        let ran =
            Command::new("tint").args(["--format", "wgsl", "-o", "/dev/null"]).arg(&file).output().expect("tint runs");
        assert!(ran.status.success(), "{}: {}", variant["label"], String::from_utf8_lossy(&ran.stderr));
    }
}
