//! The trials of results, run as wasm in Chromium.

mod browser;

use std::time::Duration;

use serde_json::Value;

#[test]
fn every_trial_holds_in_a_browser() {
    let site = browser::Site::open();
    let page = site.page("trials.html");
    page.wait_until("document.body.dataset.state === 'done'", Duration::from_secs(600));
    println!("{}", page.value("document.querySelector('#adapter').textContent"));
    let results = page.value("window.results");
    let results = results.as_array().expect("a list of results");
    let mut failed = Vec::new();
    for result in results {
        let (name, error) = (result["name"].as_str().expect("a name"), &result["error"]);
        println!(
            "{name}: {} ({:.1} s)",
            if error.is_null() { "ok" } else { "FAILED" },
            result["seconds"].as_f64().expect("seconds")
        );
        if let Value::String(error) = error {
            failed.push(format!("{name}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{} of {} trials failed:\n{}", failed.len(), results.len(), failed.join("\n"));
    assert!(results.len() > 20, "only {} trials", results.len());
    page.close();
}
