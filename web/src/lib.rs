//! gpu-layer-norm in the browser: the planner for JavaScript, the page, and the trials that run there.

#[cfg(feature = "page")]
mod page;
mod plan;
#[cfg(all(feature = "trials", target_arch = "wasm32"))]
mod trials;
