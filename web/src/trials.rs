//! The correctness trials in a browser: what `tests/gpu.rs` checks natively, as far as it makes sense here, by the crate's asynchronous
//! calls, on the browser's WebGPU, against the same f64 reference within the same bounds. `trials.html` lists and runs them; all WGSL
//! that a plan can produce is handed to the browser's compiler there too.

mod axes;
#[path = "../../tests/common/mod.rs"]
#[allow(unused_imports, reason = "what blocks is left out here")]
mod common;
mod forward;
mod parts;
mod running;
mod samples;
#[path = "../../tests/common/variants.rs"]
mod variants;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use gpu_layer_norm::kernel::{ARGUMENTS_WGSL, Dialect, Kernel};
use gpu_layer_norm::{GpuDevice, wgpu};
use wasm_bindgen::prelude::*;

type Outcome = Result<(), String>;
type Trial = fn(GpuDevice) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// Each trial by its name.
macro_rules! trials {
    ($($name:literal: $trial:path),+ $(,)?) => {
        const TRIALS: &[(&str, Trial)] = &[$(($name, |device| Box::pin(async move { $trial(&device).await }))),+];
    };
}

trials! {
    "a tensor in, a tensor out": forward::tensors,
    "every strategy": forward::every_strategy,
    "widths": forward::widths,
    "row counts to 65537": forward::row_counts,
    "every access and reduction": forward::geometries,
    "unbiased variance and eps": forward::variance_and_eps,
    "accuracy at every mean and with an outlier": forward::accuracy,
    "a constant row gives exactly the bias": forward::constant_rows,
    "magnitudes 1e-30 to 1e37": forward::magnitudes,
    "NaN and infinity stay in their row": forward::nan_stays_in_its_row,
    "RMS normalization": forward::rms,
    "chunks of rows": forward::chunks,
    "a wrong kernel fails the comparison": forward::wrong_kernels,
    "storage types, offsets and strides": samples::storage_types,
    "tensors in place and side by side": samples::places,
    "fewer rows than prepared": samples::rows_set,
    "row counts on the device": samples::row_counts_on_device,
    "backward: every strategy and storage type": samples::backward,
    "backward: in chunks, in place, accumulated": samples::backward_places,
    "modulation: scale, shift and gate": samples::modulation,
    "modulation: the gradients": samples::modulation_gradients,
    "causal: every strategy": samples::causal,
    "causal: the gradients": samples::causal_gradients,
    "samples of the whole space": samples::whole_space,
    "a wrong byte fails the comparison": samples::wrong_bytes,
    "axes: any of them": axes::every_set,
    "axes: groups of channels": axes::groups,
    "axes: the gradients": axes::gradients,
    "parts: both passes of rows cut in two": parts::both_passes,
}

/// The trials, and the device that they run on.
#[wasm_bindgen]
pub struct Trials {
    device: GpuDevice,
    uncaptured: Arc<Mutex<Vec<String>>>,
}

#[wasm_bindgen]
impl Trials {
    /// # Errors
    /// Where the browser has no adapter, or gives no device.
    pub async fn start() -> Result<Self, JsError> {
        console_error_panic_hook::set_once();
        let device = GpuDevice::new_async().await?;
        let uncaptured = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&uncaptured);
        let tell = move |error: wgpu::Error| told.lock().expect("nothing panics here").push(error.to_string());
        device.device().on_uncaptured_error(Arc::new(tell));
        Ok(Self { device, uncaptured })
    }

    /// The adapter and what plans are made for.
    pub fn adapter(&self) -> String {
        let info = self.device.adapter_info();
        format!("{} ({:?}), {:?}", info.name, info.device_type, self.device.capabilities())
    }

    /// Every trial's name.
    pub fn names() -> Vec<String> {
        TRIALS.iter().map(|(name, _)| (*name).into()).collect()
    }

    /// Runs one.
    ///
    /// # Errors
    /// What it has found, or an error that nobody has caught.
    pub async fn run(&self, name: String) -> Result<(), JsError> {
        let Some((_, trial)) = TRIALS.iter().find(|(known, _)| *known == name) else {
            return Err(JsError::new(&format!("there is no trial \"{name}\"")));
        };
        trial(self.device.clone()).await.map_err(|error| JsError::new(&error))?;
        match self.uncaptured.lock().expect("nothing panics here").drain(..).next() {
            Some(error) => Err(JsError::new(&format!("an uncaptured error: {error}"))),
            None => Ok(()),
        }
    }
}

/// Every kernel variant that a plan can produce, and the kernel that reads a row count, as the browser's compiler is to read them.
#[wasm_bindgen]
pub struct Variants(Vec<Kernel>);

#[wasm_bindgen]
impl Variants {
    /// All of them, in an order that stays the same.
    pub fn all() -> Self {
        let mut kernels: Vec<_> = variants::all_kernels(Dialect::Browser).into_iter().collect();
        kernels.sort_by_cached_key(|kernel| format!("{kernel:?}"));
        Self(kernels)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len() + 1
    }

    /// Says which variant it is.
    pub fn label(&self, index: usize) -> String {
        self.0.get(index).map_or("row count".into(), Kernel::label)
    }

    /// Its WGSL.
    pub fn wgsl(&self, index: usize) -> String {
        self.0.get(index).map_or(ARGUMENTS_WGSL.into(), Kernel::wgsl)
    }

    /// Whether it needs a device with subgroups.
    pub fn uses_subgroups(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(Kernel::uses_subgroups)
    }
}
