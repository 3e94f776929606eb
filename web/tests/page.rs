//! The page, driven as a person would: by clicks and keys, and read as it is shown. Each test fails on any error in the console, and on
//! an uncaptured error of WebGPU.

mod browser;
#[path = "page/person.rs"]
mod person;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use browser::Site;
use gpu_layer_norm::{Affine, Error};
use headless_chrome::protocol::cdp::Browser;
use person::Person;
use serde_json::Value;

/// Two browsers at a time, because most of a test is waiting for one: more would slow each other down until what is waited for takes too
/// long.
fn turn() -> MutexGuard<'static, ()> {
    static BROWSERS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    static TURNS: AtomicUsize = AtomicUsize::new(0);
    let turn = TURNS.fetch_add(1, Ordering::Relaxed);
    BROWSERS[turn % BROWSERS.len()].lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_adapter_is_shown_and_what_the_crate_makes_of_it() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    let name = person.text("#adapter .status");
    // What Chromium's software adapter is called.
    assert!(name.to_lowercase().contains("swiftshader"), "{name}");
    let facts = person.texts("#adapter .capabilities dt");
    assert!(facts.contains(&"planned for as".into()) && facts.contains(&"subgroups".into()), "{facts:?}");
    // The device's own limit, as the browser tells it, is what is shown.
    let expression = "navigator.gpu.requestAdapter().then(({ limits }) => limits.maxComputeInvocationsPerWorkgroup)";
    let limit = person.page.value(expression).to_string();
    let place = facts.iter().position(|fact| fact == "invocations a workgroup").expect("that fact");
    assert_eq!(person.texts("#adapter .capabilities dd")[place], limit);
    assert!(!person.sees("#adapter .limits"));
    person.clicks("#adapter summary");
    assert!(person.sees("#adapter .limits"));
    assert!(!person.sees("#help"));
    person.page.close();
}

#[test]
fn plans_are_for_as_many_cores_as_the_browser_tells_of() {
    let _turn = turn();
    let site = Site::open();
    for (told, planned_for) in [("7", "7"), ("undefined", "1")] {
        let person = Person::at(&site);
        person
            .comes_back_with(&format!("Object.defineProperty(navigator, 'hardwareConcurrency', {{ value: {told} }})"));
        let facts = person.texts("#adapter .capabilities dt");
        let place = facts.iter().position(|fact| fact == "processor cores").expect("that fact");
        assert_eq!(person.texts("#adapter .capabilities dd")[place], planned_for, "where the browser says {told}");
        person.page.close();
    }
}

#[test]
fn every_worked_example_agrees_with_the_reference() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    assert_eq!(person.text("#examples .status"), "5 of 5 examples agree with the reference.");
    assert_eq!(person.count("#examples .verdict.good"), 5);
    let row = |example: usize, table: usize, line: usize| {
        let lines =
            format!("#examples article:nth-child({example}) .scroll:nth-of-type({table}) tr:nth-child({line}) td");
        person.texts(&lines)
    };
    // By hand: 1 to 6 have mean 3.5 and variance 35/12, and 2.5 / √(35/12 + 1e-5) = 1.463848.
    let whole_sample = ["−1.463848", "−0.878309", "−0.292770", "0.292770", "0.878309", "1.463848"];
    assert_eq!(
        (row(1, 1, 2), row(1, 1, 3)),
        (whole_sample.map(String::from).into(), whole_sample.map(String::from).into())
    );
    // Three neighbouring numbers have variance 2/3.
    assert_eq!(row(2, 1, 2), ["−1.224736", "0.000000", "1.224736"]);
    // 1 2 4 1 has mean 2 and variance 1.5.
    assert_eq!(row(3, 1, 2), ["−0.816494", "0.000000", "1.632988", "−0.816494"]);
    // The variance of 1.11 that one of the texts asks about, and what becomes of it.
    let after = |example, line| {
        person.texts(&format!("#examples article:nth-child({example}) .scroll:last-of-type tr:nth-child({line}) td"))
    };
    assert_eq!(after(4, 2), ["1.00"; 20]);
    assert_eq!(after(4, 3), ["1.11"; 20]);
    assert_eq!(after(5, 3), ["1.00"; 20]);
    person.page.close();
}

#[test]
fn shapes_and_eps_are_typed_and_the_result_is_shown_beside_the_reference() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    assert!(person.waits_for_play().starts_with("Agrees with the f64 reference"));
    person.clicks("[data-preset*='typed']");
    assert!(person.waits_for_play().starts_with("Agrees"));
    let gpu = || person.texts("#playground .values .scroll:nth-of-type(1) tr.GPU td");
    assert_eq!(gpu()[0], "−1.463848");
    // A large eps makes everything small: 2.5 / √(35/12 + 100).
    assert!(person.plays("eps", "100").starts_with("Agrees"));
    assert_eq!(gpu()[0], "−0.246432");
    // Over three elements: the deviation of 1 from 2 by √(2/3 + 100).
    assert!(person.plays("normalized_shape", "3").starts_with("Agrees"));
    assert_eq!(gpu()[0], "−0.09966832");
    assert_eq!(person.count("#playground .values .scroll"), 3);
    person.enters("#first-row", "3");
    assert!(person.text("#playground .values caption").starts_with("row 3 of 4"));
    // Constant values come out as zeros, the bias.
    person.enters("#play-values", "7 7 7 7 7 7 7 7 7 7 7 7");
    person.clicks("#play .main");
    assert!(person.waits_for_play().starts_with("Agrees"));
    assert_eq!(gpu(), ["0"; 3]);
    // What was set is in the address, and comes back by it.
    let address = person.page.value("location.search").as_str().expect("an address").to_string();
    let again = Person::at_address(&site, &format!("index.html{address}"));
    assert_eq!(again.page.value("document.querySelector('#play-eps').value"), Value::from("100"));
    assert_eq!(again.texts("#playground .values .scroll:nth-of-type(1) tr.GPU td"), ["0"; 3]);
    again.page.close();
    person.page.close();
}

#[test]
fn every_choice_of_the_playground_agrees_with_the_reference() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    // Of what is causal, one shape has all that differs by choice; others would take long.
    let cases =
        [("2, 6, 30", "30", false), ("3, 5, 7", "5, 7", false), ("2, 3000", "3000", false), ("2, 6, 30", "30", true)];
    for (shape, normalized_shape, is_causal) in cases {
        person.enters("#play-shape", shape);
        person.plays("normalized_shape", normalized_shape);
        if is_causal {
            person.clicks("#play-causal");
            assert!(person.waits_for_play().starts_with("Agrees"));
            assert!(person.text("#playground .plan").contains("causal in sequences of 6 rows"));
        }
        let names = person.page.value("Array.from(document.querySelectorAll('#play select'), ({ name }) => name)");
        for name in names.as_array().expect("names").iter().filter_map(Value::as_str) {
            let selector = format!("#play-{name}");
            // Typed values are as many as they are; and what depends on another choice may not be shown.
            if name == "source" || !person.sees(&selector) {
                continue;
            }
            person.focuses(&selector);
            for option in (1..person.count(&format!("{selector} option"))).chain([0]) {
                person.presses(if option > 0 { "ArrowDown" } else { "Home" });
                let said = person.waits_for_play();
                let chosen = person.page.value("location.search").as_str().expect("an address").to_string();
                assert!(said.starts_with("Agrees"), "{chosen}: {said}");
                // The address has what is not as it was at first, once it has run.
                assert_eq!(chosen.contains(&format!("{name}=")), option > 0, "{name}: {chosen}");
            }
        }
    }
    // Two choices at a time, which the above has not.
    for preset in person.texts("[data-preset]") {
        let place = format!(
            "document.querySelectorAll('[data-preset]').values().find((button) => button.textContent === {preset:?})"
        );
        person.page.value(&format!("{place}.click()"));
        assert!(person.waits_for_play().starts_with("Agrees"), "{preset}: {}", person.waits_for_play());
    }
    // The mean is a million deviations, and the bound is the same.
    person.clicks("[data-preset='']");
    person.waits_for_play();
    person.plays("deviation", "1e-3");
    assert!(person.plays("mean", "1e3").starts_with("Agrees"));
    assert!(person.plays("mean", "-1e30").starts_with("Agrees"));
    person.page.close();
}

#[test]
fn mistakes_are_answered_beside_their_fields_in_the_words_of_the_crate() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    person.clicks("[data-preset='']");
    person.waits_for_play();
    let shape = || vec![4, 24, 96];
    let cases = [
        ("eps", "-1", Error::Eps { eps: -1.0 }.to_string()),
        ("eps", "NaN", Error::Eps { eps: f32::NAN }.to_string()),
        ("eps", "1e99", Error::Eps { eps: f32::INFINITY }.to_string()),
        ("normalized_shape", "", Error::NormalizedShape { normalized_shape: vec![] }.to_string()),
        ("normalized_shape", "0", Error::NormalizedShape { normalized_shape: vec![0] }.to_string()),
        ("normalized_shape", "24", Error::ShapeMismatch { normalized_shape: vec![24], shape: shape() }.to_string()),
        ("weight", "1 2 3", Error::ValueCount { shape: vec![96], expected: 96, actual: 3 }.to_string()),
        ("shape", "1,1,1,1,1,1,1,1,96", Error::Rank { shape: vec![1, 1, 1, 1, 1, 1, 1, 1, 96], max: 8 }.to_string()),
        ("eps", "small", "\"small\" is no number; write one such as 1e-5".into()),
        ("mean", "inf", "\"inf\" is no finite number; write one such as 1e6 or -0.5".into()),
        ("seed", "-3", "\"-3\" is no whole number; write one such as 7".into()),
        ("shape", "4, many, 96", "\"many\" is no dimension; write whole numbers up to 4294967295, such as 2, 3".into()),
        (
            "shape",
            "<img src=x onerror=alert(1)>",
            "\"<img\" is no dimension; write whole numbers up to 4294967295, such as 2, 3".into(),
        ),
        ("shape", "4000, 24, 96", "shape [4000, 24, 96] has 9216000 elements; this page takes at most 65536".into()),
    ];
    for (field, text, message) in cases {
        let before = person.page.value(&format!("document.querySelector('#play-{field}').value"));
        let said = person.plays(field, text);
        assert_eq!(person.text(&format!("#play-{field}-error")), message, "{field} {text}");
        assert_eq!(said, "One field is to be changed.");
        assert!(person.sees(&format!("#play-{field}-error")) && !person.sees("#playground .outcome"));
        let field_of =
            |property: &str| person.page.value(&format!("document.querySelector('#play-{field}').{property}"));
        assert_eq!(field_of("ariaInvalid"), Value::from("true"));
        assert_eq!(field_of("matches(':focus')"), Value::Bool(true), "the field is where the focus goes");
        // And the page goes on.
        let said = person.plays(field, before.as_str().expect("a text"));
        assert!(said.starts_with("Agrees"), "{field} {text}: {said}");
        assert_eq!(person.text(&format!("#play-{field}-error")), "");
        assert_eq!(field_of("ariaInvalid"), Value::Null);
    }
    // Two at once.
    person.enters("#play-shape", "none");
    assert_eq!(person.plays("eps", "none"), "2 fields are to be changed.");
    person.enters("#play-shape", "2, 1");
    person.plays("normalized_shape", "1");
    person.plays("eps", "1e-5");
    person.focuses("#play-variance");
    person.presses("ArrowDown");
    person.waits_for_play();
    assert_eq!(person.text("#play-variance-error"), Error::UnbiasedWidth { width: 1 }.to_string());
    person.enters("#play-shape", "2, 4");
    assert!(person.plays("normalized_shape", "4").starts_with("Agrees"));
    person.focuses("#play-norm");
    person.presses("ArrowDown");
    person.waits_for_play();
    assert_eq!(person.text("#play-variance-error"), Error::RmsNorm { what: "an unbiased variance" }.to_string());
    // A condition of no rows, and one that most rows share.
    person.clicks("[data-preset*='adaptive']");
    person.waits_for_play();
    person.plays("rows_per_condition", "0");
    let expected = Error::RowsPerCondition { rows_per_condition: 0 }.to_string();
    assert_eq!(person.text("#play-rows_per_condition-error"), expected);
    assert!(person.plays("rows_per_condition", "95").starts_with("Agrees"));
    // No rows at all are no mistake.
    person.plays("rows_per_condition", "");
    assert_eq!(person.plays("shape", "0, 24, 96"), "There are no rows, and nothing to compare.");
    // The other forms.
    person.enters("#bench-widths", "64, 2000000");
    person.presses("Enter");
    let said = person.text("#bench-widths-error");
    assert_eq!(said, "[64, 2000000] is not from 1 to 16 widths of 1 to 1048576 elements");
    person.enters("#leak-form-length", "33");
    person.presses("Enter");
    person.waits_for("#leak .status");
    assert_eq!(person.text("#leak-form-length-error"), "\"33\" is not from 1 to 32");
    // A layer without a parameter has no field for it; the crate would say the same.
    assert_eq!(
        Error::NoParameter { name: "bias", affine: Affine::None }.to_string(),
        "this layer has no bias: its affine map is None"
    );
    assert!(!person.sees("#play-bias"));
    person.page.close();
}

#[test]
fn the_plan_is_told_in_words_and_its_wgsl_can_be_copied() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    let words = person.texts("#playground .words li");
    assert!(words.iter().any(|sentence| sentence.starts_with("Dispatch 1 normalizes whole rows: ")), "{words:?}");
    assert!(person.text("#playground .plan").contains("layer norm of 96 rows of 96 elements"));
    let wgsl = person.text("#playground .wgsl");
    assert!(wgsl.contains("@compute") && wgsl.contains("fn main("), "{wgsl}");
    assert!(!person.sees("#playground .wgsl"));
    person.clicks("#playground .kernels summary");
    assert!(person.sees("#playground .wgsl"));
    let permissions =
        vec![Browser::PermissionType::ClipboardReadWrite, Browser::PermissionType::ClipboardSanitizedWrite];
    let grant = Browser::GrantPermissions { permissions, origin: None, browser_context_id: None };
    person.page.tab.call_method(grant).expect("the permission to copy");
    person.page.tab.bring_to_front().expect("a page to the front");
    person.clicks("#playground .kernels button");
    person.page.wait_until(
        "document.querySelector('#playground .kernels .status').textContent.startsWith('copied')",
        person::LONG,
    );
    assert_eq!(person.page.value("navigator.clipboard.readText()").as_str().expect("a text").trim(), wgsl);
    person.page.close();
}

#[test]
fn the_keyboard_alone_is_enough() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    let focused = || person.page.value("document.activeElement.id || document.activeElement.textContent.trim()");
    // Every place where the focus comes by is seen to have it.
    let tab_to = |place: &str| {
        for _ in 0..80 {
            person.presses("Tab");
            let outline = person.page.value("getComputedStyle(document.activeElement).outlineStyle");
            assert_eq!(outline, Value::from("solid"), "{}", focused());
            if focused() == place {
                return;
            }
        }
        panic!("no key leads to {place}");
    };
    person.presses("Tab");
    assert_eq!(focused(), Value::from("Skip to the playground"));
    person.presses("Enter");
    tab_to("play-shape");
    person.types("3, 8");
    person.presses("Tab");
    assert_eq!(focused(), Value::from("play-normalized_shape"));
    person.types("8");
    person.presses("Enter");
    assert!(person.waits_for_play().starts_with("Agrees"));
    tab_to("play-causal");
    person.presses(" ");
    assert!(person.waits_for_play().starts_with("Agrees"));
    assert_eq!(person.page.value("document.activeElement.checked"), Value::Bool(true));
    tab_to("play-norm");
    person.presses("ArrowDown");
    assert!(person.waits_for_play().starts_with("Agrees"));
    assert!(person.text("#playground .plan").contains("RMS norm of 3 rows of 8 elements"));
    tab_to("As the crate prints it");
    person.presses("Enter");
    assert!(person.sees("#playground .plan"));
    tab_to("bench-widths");
    person.types("64");
    tab_to("Measure");
    person.presses("Enter");
    assert!(person.waits_for("#benchmark .status").starts_with("Done"));
    assert_eq!(focused(), Value::from("Measure"), "the focus is where it was");
    tab_to("leak-form-length");
    person.types("3");
    person.presses("Enter");
    person.waits_for("#leak .status");
    assert_eq!(person.text("#leak pre"), "#..\n.#.\n..#");
    // Every field has a name that is read out, and every place where errors go is named by its field.
    let nameless = person.page.value(
        "Array.from(document.querySelectorAll('input, select, textarea, button'))
            .filter((field) => !field.labels?.[0]?.textContent.trim() && !field.textContent.trim())
            .map(({ outerHTML }) => outerHTML)",
    );
    assert_eq!(nameless, Value::Array(vec![]));
    let undescribed = person.page.value(
        "Array.from(document.querySelectorAll('.error'))
            .filter(({ id }) => !document.querySelector(`[aria-describedby~='${id}']`))
            .map(({ id }) => id)",
    );
    assert_eq!(undescribed, Value::Array(vec![]));
    person.page.close();
}

#[test]
fn the_benchmark_measures_is_cancelled_and_measures_again() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    let status = "#benchmark .status";
    assert!(!person.sees("#benchmark .outcome"));
    person.enters("#bench-widths", "64, 256, 1000");
    for norm in ["layer", "rms", "causal"] {
        person.clicks("#benchmark .main");
        let said = person.waits_for(status);
        assert_eq!(said, "Done: 3 widths, every result within the bound.", "{norm}");
        let cells: Vec<f64> = person
            .texts("#benchmark tbody td")
            .iter()
            .map(|text| {
                text.replace(',', "").replace('−', "-").parse().unwrap_or_else(|_| panic!("{text} is no number"))
            })
            .collect();
        let rows: Vec<_> = cells.chunks(8).collect();
        assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [64.0, 256.0, 1000.0]);
        assert_eq!(rows.iter().map(|row| row[1]).collect::<Vec<_>>(), [16_384.0, 4096.0, 1048.0]);
        for row in rows {
            assert!(row[2..7].iter().all(|value| *value > 0.0), "{row:?}");
            // The figures of a row agree with each other, as far as they are rounded: bytes by time, and time by time.
            let gigabytes = 2.0 * 4.0 * row[0] * row[1] / 1e9;
            assert!((row[4] * row[2] / 1e3 / gigabytes - 1.0).abs() < 0.1, "{row:?}");
            assert!((row[2] / row[3] / row[6] - 1.0).abs() < 0.1, "{row:?}");
            assert!(row[7] > 0.0 && row[7] < 1e-5, "{row:?}");
        }
        assert_eq!(person.count("#benchmark svg .point"), 3);
        assert_eq!(person.page.value("document.querySelector('progress').value"), Value::from(1));
        person.focuses("#bench-norm");
        person.presses("ArrowDown");
    }
    person.enters("#bench-widths", "64, 128, 256, 512, 768, 1024, 2048, 4096, 8192");
    person.clicks("#benchmark .main");
    person.page.wait_until("document.querySelector('progress').value > 0.05", person::LONG);
    assert_eq!(person.page.value("document.querySelector('#benchmark .main').disabled"), Value::Bool(true));
    person.clicks("#benchmark .cancel");
    let said = person.waits_for(status);
    assert!(said.starts_with("Cancelled after ") && said.ends_with(" of 9 widths."), "{said}");
    assert_eq!(person.page.value("document.querySelector('#benchmark .cancel').disabled"), Value::Bool(true));
    person.enters("#bench-widths", "128");
    person.presses("Enter");
    assert_eq!(person.waits_for(status), "Done: 1 width, every result within the bound.");
    person.page.close();
}

#[test]
fn the_leak_is_seen_where_it_is_and_nowhere_else() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    person.enters("#leak-form-length", "4");
    person.enters("#leak-form-d_model", "8");
    person.clicks("#leak .main");
    assert_eq!(person.waits_for("#leak .status"), "Sees later positions: over [length, d_model].");
    let matrices = ["#...\n.#..\n..#.\n...#", "#!!!\n##!!\n###!\n####", "#...\n##..\n###.\n####"];
    assert_eq!(person.texts("#leak pre"), matrices);
    let verdicts =
        ["no position sees a later one", "6 leaks: positions see later ones", "no position sees a later one"];
    assert_eq!(person.texts("#leak .verdict"), verdicts);
    // The picture shows the same.
    let kinds =
        ["earlier", "later", "none"].map(|kind| person.count(&format!("#leak article:nth-child(2) .cell.{kind}")));
    assert_eq!(kinds, [10, 6, 0]);
    // A sequence of one position has no later one.
    person.enters("#leak-form-length", "1");
    person.presses("Enter");
    assert_eq!(person.waits_for("#leak .status"), "None sees a later position.");
    assert_eq!(person.texts("#leak pre"), ["#"; 3]);
    person.page.close();
}

#[test]
fn a_phone_scrolls_down_and_not_to_the_side_in_dark_and_in_light() {
    let _turn = turn();
    let site = Site::open();
    let person = Person::at(&site);
    person.enters("#bench-widths", "64, 256, 1024, 4096");
    person.presses("Enter");
    person.waits_for("#benchmark .status");
    for details in 0..person.count("#playground details, #leak details, #adapter details") {
        let all = "document.querySelectorAll('#playground details, #leak details, #adapter details')";
        person.page.value(&format!("{all}[{details}].open = true"));
    }
    for (name, width) in [("phone", 360), ("tablet", 768), ("desktop", 1280)] {
        person.has_window(width, 800);
        let wide = person.page.value("document.documentElement.scrollWidth").as_u64().expect("a width");
        assert!(wide <= width.into(), "{name}: {wide}");
    }
    person.page.value("document.querySelectorAll('details').forEach((details) => (details.open = false))");
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        person.prefers(scheme);
        for (name, width) in [("phone", 360), ("desktop", 1280)] {
            person.takes_pictures(&format!("page {name} {scheme}"), width);
        }
        papers.push(person.page.value("getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(papers[0], papers[1]);
    person.page.close();
}

#[test]
fn a_browser_without_webgpu_is_told_what_to_do() {
    let _turn = turn();
    let site = Site::open();
    let cases = [
        ("Object.defineProperty(navigator, 'gpu', { value: undefined })", "navigator.gpu is missing"),
        ("navigator.gpu.requestAdapter = async () => null", "no adapter for"),
    ];
    for (script, reason) in cases {
        let person = Person::at(&site);
        person.comes_back_with(script);
        assert!(person.sees("#help") && !person.sees("#playground") && !person.sees("#adapter"));
        let said = person.text("#help-reason");
        assert!(said.contains(reason), "{said}");
        assert!(person.text("#help").contains("A newer browser"));
        person.has_window(360, 800);
        let wide = person.page.value("document.documentElement.scrollWidth").as_u64().expect("a width");
        assert!(wide <= 360, "{wide}");
        person.takes_pictures("page without WebGPU", 360);
        person.page.close();
    }
}
