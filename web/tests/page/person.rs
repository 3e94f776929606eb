//! What a person does with the page: looks, clicks, types, and waits for the words that say how it has come out.

use std::time::Duration;

use headless_chrome::protocol::cdp::types::Method;
use headless_chrome::protocol::cdp::{Emulation, Input, Page as PageDomain};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::browser::{Page, Site};

/// Until sections have run on a processor that others use too.
pub const LONG: Duration = Duration::from_secs(120);

/// A person in front of a page.
pub struct Person {
    pub page: Page,
}

impl Person {
    /// Opens the page, and waits until every section has run once.
    pub fn at(site: &Site) -> Self {
        Self::at_address(site, "index.html")
    }

    pub fn at_address(site: &Site, address: &str) -> Self {
        let person = Self { page: site.page(address) };
        person.sees_all_open();
        person
    }

    /// Waits until every section has run once.
    pub fn sees_all_open(&self) {
        self.page.wait_until("document.documentElement?.dataset.state === 'open'", LONG);
    }

    /// What an element says, whether it can be seen or not.
    pub fn text(&self, selector: &str) -> String {
        let value = self.page.value(&format!("document.querySelector({}).textContent", json!(selector)));
        value.as_str().expect("a text").trim().to_string()
    }

    /// What each of these elements says.
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let all =
            format!("Array.from(document.querySelectorAll({}), ({{ textContent }}) => textContent)", json!(selector));
        serde_json::from_value(self.page.value(&all)).expect("texts")
    }

    pub fn count(&self, selector: &str) -> usize {
        self.texts(selector).len()
    }

    /// Whether an element takes any place.
    pub fn sees(&self, selector: &str) -> bool {
        self.page.value(&format!("document.querySelector({}).checkVisibility()", json!(selector))) == Value::Bool(true)
    }

    /// Clicks the middle of an element, which must be in sight and not be covered.
    ///
    /// Each call to the browser takes some 100 ms, and `Element::click` takes nine of them.
    pub fn clicks(&self, selector: &str) {
        let find = format!(
            "(() => {{
                const element = document.querySelector({});
                element.scrollIntoView({{ block: 'center', behavior: 'instant' }});
                const {{ x, y, width, height }} = element.getBoundingClientRect();
                const middle = [x + width / 2, y + height / 2];
                return element.contains(document.elementFromPoint(...middle)) ? middle : null;
            }})()",
            json!(selector)
        );
        let middle: Option<[f64; 2]> = serde_json::from_value(self.page.value(&find)).expect("a place");
        let [x, y] = middle.unwrap_or_else(|| panic!("{selector} is covered, or is not to be seen"));
        for kind in ["mousePressed", "mouseReleased"] {
            self.tells::<Input::DispatchMouseEvent>(json!({
                "type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1,
            }));
        }
    }

    pub fn focuses(&self, selector: &str) {
        self.page.value(&format!("document.querySelector({}).focus()", json!(selector)));
    }

    pub fn presses(&self, key: &str) {
        self.page.tab.press_key(key).unwrap_or_else(|error| panic!("{key}: {error}"));
    }

    /// Replaces the text of the field that has the focus.
    pub fn types(&self, text: &str) {
        self.page.value("document.activeElement.select()");
        if text.is_empty() {
            self.presses("Delete");
        } else {
            // As an input method hands it over: in one piece, without a key for each character.
            let insert = Input::InsertText { text: text.into() };
            self.page.tab.call_method(insert).expect("a field to type into");
        }
    }

    /// Clicks into a field and replaces its text.
    pub fn enters(&self, selector: &str, text: &str) {
        self.clicks(selector);
        self.types(text);
    }

    /// Waits until a line of status says how it has come out, and returns it.
    pub fn waits_for(&self, status: &str) -> String {
        let is_over = format!("!/…$/.test(document.querySelector({}).textContent)", json!(status));
        self.page.wait_until(&is_over, LONG);
        self.text(status)
    }

    /// Waits for the playground.
    pub fn waits_for_play(&self) -> String {
        self.waits_for("#play .status")
    }

    /// Enters one field of the playground and runs it by the Enter key.
    pub fn plays(&self, field: &str, text: &str) -> String {
        self.enters(&format!("#play [name={field}]"), text);
        self.presses("Enter");
        self.waits_for_play()
    }

    /// Makes the window of this size, as of a phone where it is narrow.
    pub fn has_window(&self, width: u32, height: u32) {
        self.tells::<Emulation::SetDeviceMetricsOverride>(json!({
            "width": width, "height": height, "deviceScaleFactor": if width < 600 { 2 } else { 1 }, "mobile": width < 600,
        }));
    }

    /// Prefers `dark` or `light`.
    pub fn prefers(&self, scheme: &str) {
        self.tells::<Emulation::SetEmulatedMedia>(json!({
            "features": [{ "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" }],
        }));
    }

    /// Opens the page again in a browser in which this script has run before, and waits until every section has run once.
    pub fn comes_back_with(&self, script: &str) {
        self.tells::<PageDomain::AddScriptToEvaluateOnNewDocument>(json!({ "source": script }));
        self.page.tab.reload(true, None).expect("the page again");
        self.page.tab.wait_until_navigated().expect("the page again");
        self.sees_all_open();
    }

    /// Calls a method of the DevTools protocol with these parameters.
    fn tells<C: Method + DeserializeOwned + serde::Serialize + std::fmt::Debug>(&self, parameters: Value) {
        let method = serde_json::from_value::<C>(parameters).expect("parameters");
        self.page.tab.call_method(method).expect("a browser that does so");
    }

    /// Pictures of the parts of the page that are to be seen, each as a whole, in a window of this width.
    pub fn takes_pictures(&self, name: &str, width: u32) {
        self.has_window(width, 900);
        for part in ["header", "#help", "#adapter", "#examples", "#playground", "#benchmark", "#leak"] {
            if !self.sees(part) {
                continue;
            }
            let bounds = format!("document.querySelector({}).getBoundingClientRect()", json!(part));
            let height = self.page.value(&format!("Math.ceil({bounds}.height)")).as_u64().expect("a height");
            // No taller than what a GPU can draw at once.
            self.has_window(width, height.min(7000) as u32);
            self.page.value(&format!("scrollTo(0, scrollY + {bounds}.top)"));
            self.page.screenshot(&format!("{name} {}", part.trim_start_matches('#')));
            self.has_window(width, 900);
        }
    }
}
