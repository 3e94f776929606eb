//! What the page in `web/page` calls: it opens the browser's GPU, runs the worked examples, the playground, the benchmark and the
//! measurement of the leak, and hands back plain values. JavaScript shows them and computes nothing.
//!
//! A mistake in what a person entered comes back as an array of [`Refusal`], each with the name of the field that it is about.
#![cfg_attr(
    not(target_arch = "wasm32"),
    allow(dead_code, reason = "only a page calls the exports; tests call what they rest on")
)]

mod adapter;
mod benchmark;
mod comparison;
mod copies;
mod examples;
mod form;
mod heat_map;
mod leak;
mod outcome;
mod task;
mod values;
mod words;

use gpu_layer_norm::GpuDevice;
use wasm_bindgen::prelude::*;
use web_sys::FormData;

use adapter::Adapter;
use benchmark::Benchmark;
use examples::Example;
use form::{Form, Refusal};
use leak::Leak;
use outcome::Outcome;
use task::{MAX_ELEMENTS, Task};

/// The page's device, and all that can be done on it.
#[wasm_bindgen]
pub struct Page {
    device: GpuDevice,
}

#[wasm_bindgen]
impl Page {
    /// Asks the browser for its adapter and makes a device on it. Throws the crate's own error where there is none.
    pub async fn open() -> Result<Page, JsError> {
        console_error_panic_hook::set_once();
        Ok(Self { device: GpuDevice::new_async().await? })
    }

    /// What the adapter is and can do, and what the crate makes of it.
    pub fn adapter(&self) -> Adapter {
        Adapter::of(&self.device)
    }

    /// The most elements that the playground takes.
    #[wasm_bindgen(getter)]
    pub fn max_elements(&self) -> u32 {
        MAX_ELEMENTS
    }

    /// Runs the worked examples, each beside the f64 reference.
    pub async fn examples(&self) -> Result<Vec<Example>, JsError> {
        Ok(examples::run(&self.device).await?)
    }

    /// Runs what the playground's form asks for. Throws an array of [`Refusal`] where it cannot.
    pub async fn play(&self, form: FormData) -> Result<Outcome, Vec<Refusal>> {
        let task = Task::read(&Form::from(form))?;
        outcome::run(&self.device, &task).await.map_err(|error| vec![Refusal::of(error)])
    }

    /// Prepares the benchmark that a form asks for. Throws an array of [`Refusal`] where it cannot.
    pub fn benchmark(&self, form: FormData) -> Result<Benchmark, Vec<Refusal>> {
        Benchmark::read(&self.device, &Form::from(form))
    }

    /// Measures which position sees which in the three norms. Throws an array of [`Refusal`] where the form asks for what it cannot.
    pub async fn leak(&self, form: FormData) -> Result<Vec<Leak>, Vec<Refusal>> {
        leak::measure(&self.device, &Form::from(form)).await
    }
}
