//! Chromium on the files of a folder, for all tests in a browser: it is started without a window, a page is opened, and what goes
//! wrong there is collected.
//!
//! ```ignore
//! let site = Site::open();
//! let page = site.page("index.html");
//! page.tab.wait_for_element("#run")?.click()?;
//! page.wait_until("document.querySelector('#result').textContent !== ''", Duration::from_secs(20));
//! page.screenshot("after a run");
//! page.close(); // fails on what the console has heard
//! ```
//!
//! The browser is driven by the DevTools protocol; `page.tab` has everything of `headless_chrome` that is not here. It is ended when the
//! `Site` is dropped, also where a test panics.
#![allow(dead_code, reason = "each test that includes this uses a part of it")]

#[path = "../../serve.rs"]
mod serve;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Log, Page as PageDomain, Runtime};
use headless_chrome::{Browser, LaunchOptions, Tab};
use serde_json::Value;

/// What makes Chromium offer WebGPU on a processor: SwiftShader, which comes with it.
const FLAGS: [&str; 4] =
    ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--disable-gpu-sandbox"];

/// How long a page may be silent: that of the slowest trial, and some.
const SILENCE: Duration = Duration::from_secs(600);

/// A folder that is served, and a browser.
pub struct Site {
    browser: Browser,
    address: String,
}

impl Site {
    /// On what `scripts/test-web` has built.
    pub fn open() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/site");
        assert!(folder.exists(), "{} is not there; scripts/test-web builds it", folder.display());
        Self::of(&folder)
    }

    /// On any folder.
    pub fn of(folder: &Path) -> Self {
        let (address, _) = serve::serve(folder, 0).expect("a free port");
        let options = LaunchOptions {
            // The sandbox needs namespaces that containers do not have. All pages are our own.
            sandbox: false,
            enable_gpu: true,
            args: FLAGS.iter().map(OsStr::new).collect(),
            window_size: Some((1280, 900)),
            idle_browser_timeout: SILENCE,
            ..LaunchOptions::default()
        };
        let browser = Browser::new(options).expect("a browser; scripts/test-web installs Chromium");
        Self { browser, address }
    }

    /// Opens a page, and waits until it is loaded.
    pub fn page(&self, path: &str) -> Page {
        let tab = self.browser.new_tab().expect("a tab");
        let errors = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&errors);
        let listen = move |event: &Event| {
            if let Some(error) = error_of(event) {
                heard.lock().expect("no listener panics").push(error);
            }
        };
        tab.add_event_listener(Arc::new(listen)).expect("a listener");
        tab.enable_runtime().and_then(|tab| tab.enable_log()).expect("the console");
        // A page may work before it answers: that of all kernels enumerates them, for some ten seconds on an idle machine.
        tab.set_default_timeout(Duration::from_secs(120));
        let url = format!("{}{path}", self.address);
        tab.navigate_to(&url)
            .and_then(|tab| tab.wait_until_navigated())
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        tab.set_default_timeout(Duration::from_secs(20));
        Page { tab, errors }
    }
}

/// What a test may not pass over: an error in the console, an uncaught exception, or what the browser itself complains of, files that
/// are missing and uncaptured errors of WebGPU among them.
fn error_of(event: &Event) -> Option<String> {
    match event {
        Event::RuntimeExceptionThrown(event) => {
            let details = &event.params.exception_details;
            let description = details.exception.as_ref().and_then(|exception| exception.description.clone());
            Some(format!("uncaught: {}", description.unwrap_or_else(|| details.text.clone())))
        }
        Event::RuntimeConsoleAPICalled(event)
            if event.params.Type == Runtime::ConsoleAPICalledEventTypeOption::Error =>
        {
            let words = event.params.args.iter().map(|argument| match (&argument.value, &argument.description) {
                (Some(Value::String(text)), _) | (None, Some(text)) => text.clone(),
                (Some(value), _) => value.to_string(),
                (None, None) => "undefined".into(),
            });
            Some(format!("console: {}", words.collect::<Vec<_>>().join(" ")))
        }
        Event::LogEntryAdded(event) => {
            let entry = &event.params.entry;
            let complains = entry.level == Log::LogEntryLevel::Error
                || entry.level == Log::LogEntryLevel::Warning && entry.text.contains("WebGPU");
            complains.then(|| format!("{}: {}", entry.url.as_deref().unwrap_or("browser"), entry.text))
        }
        _ => None,
    }
}

/// An open page.
pub struct Page {
    /// To drive it by.
    pub tab: Arc<Tab>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Page {
    /// The value of an expression, or of what it promises.
    ///
    /// # Panics
    /// If it throws.
    pub fn value(&self, expression: &str) -> Value {
        self.try_value(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    fn try_value(&self, expression: &str) -> Result<Value, String> {
        let evaluate = Runtime::Evaluate {
            expression: expression.into(),
            return_by_value: Some(true),
            await_promise: Some(true),
            object_group: None,
            include_command_line_api: None,
            silent: None,
            context_id: None,
            generate_preview: None,
            user_gesture: Some(true),
            throw_on_side_effect: None,
            timeout: None,
            disable_breaks: None,
            repl_mode: None,
            allow_unsafe_eval_blocked_by_csp: None,
            unique_context_id: None,
            serialization_options: None,
        };
        let evaluated = self.tab.call_method(evaluate).map_err(|error| error.to_string())?;
        match evaluated.exception_details {
            Some(details) => {
                let description = details.exception.and_then(|exception| exception.description);
                Err(description.unwrap_or(details.text))
            }
            None => Ok(evaluated.result.value.unwrap_or(Value::Null)),
        }
    }

    /// Waits until an expression is true, and gives up early where the console has heard an error.
    ///
    /// # Panics
    /// If it is not true in time.
    pub fn wait_until(&self, expression: &str, limit: Duration) {
        let start = Instant::now();
        while self.value(expression) != Value::Bool(true) {
            self.no_errors();
            assert!(start.elapsed() < limit, "not true within {limit:?}: {expression}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the console has heard so far.
    pub fn errors(&self) -> Vec<String> {
        self.errors.lock().expect("no listener panics").clone()
    }

    /// Forgets what the console has heard, where a test has provoked it.
    pub fn forget_errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock().expect("no listener panics"))
    }

    /// # Panics
    /// If the console has heard any error.
    pub fn no_errors(&self) {
        let errors = self.errors();
        assert!(errors.is_empty(), "the console has heard:\n{}", errors.join("\n"));
    }

    /// A picture of what is seen, in `target/screenshots`.
    pub fn screenshot(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        let picture = self
            .tab
            .capture_screenshot(PageDomain::CaptureScreenshotFormatOption::Png, None, None, true)
            .expect("a screenshot");
        let file = folder.join(format!("{}.png", name.replace([' ', '/'], "-")));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&file, picture))
            .expect("a place for screenshots");
        file
    }

    /// Closes the page.
    ///
    /// # Panics
    /// If the console has heard any error.
    pub fn close(self) {
        self.no_errors();
        self.tab.close(false).expect("the page closes");
    }
}
