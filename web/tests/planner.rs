//! The npm package in Chromium: its plans, run by the browser's own calls, against f64.

mod browser;

use std::time::Duration;

use serde_json::Value;

#[test]
fn plans_run_by_a_browser_s_own_calls() {
    let site = browser::Site::open();
    let page = site.page("planner.html");
    page.wait_until("document.body.dataset.state === 'done'", Duration::from_secs(120));
    let results = page.value("window.results");
    let results = results.as_array().expect("a list of results");
    let failed = results.iter().filter_map(|result| match &result["error"] {
        Value::Null => None,
        error => Some(format!("{}: {error}", result["name"])),
    });
    let failed: Vec<_> = failed.collect();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), results.len(), failed.join("\n"));
    assert!(results.len() > 10, "only {} trials", results.len());
    page.close();
}
