//! The trials of results, run as wasm in Chromium.

mod browser;

use std::time::Duration;

use serde_json::Value;

/// How many browsers share the trials out. Chromium compiles all kernels in one thread, and that is what takes the time.
const BROWSERS: usize = 2;

#[test]
fn every_trial_holds_in_a_browser() {
    let results: Vec<Value> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..BROWSERS).map(|from| scope.spawn(move || run(from))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("a browser that runs its part")).collect()
    });
    let mut failed = Vec::new();
    for result in &results {
        let (name, error) = (result["name"].as_str().expect("a name"), &result["error"]);
        let seconds = result["seconds"].as_f64().expect("seconds");
        println!("{name}: {} ({seconds:.1} s)", if error.is_null() { "ok" } else { "FAILED" });
        if let Value::String(error) = error {
            failed.push(format!("{name}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{} of {} trials failed:\n{}", failed.len(), results.len(), failed.join("\n"));
    assert!(results.len() > 20, "only {} trials", results.len());
}

/// The results of every so many trials, from this one on.
fn run(from: usize) -> Vec<Value> {
    let site = browser::Site::open();
    let page = site.page(&format!("trials.html?every={BROWSERS}&from={from}"));
    page.wait_until("document.body.dataset.state === 'done'", Duration::from_secs(600));
    println!("{}", page.value("document.querySelector('#adapter').textContent"));
    let results = page.value("window.results");
    page.close();
    results.as_array().expect("a list of results").clone()
}
