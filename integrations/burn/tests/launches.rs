//! What is launched: the kernels of this crate alone, so that nothing is copied; where something must be, what copies it.

mod common;

use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Tensor};
use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};
use common::{device, tensor};
use gpu_layer_norm_burn::LayerNormConfig;

#[derive(Default)]
struct Launches(Mutex<Vec<&'static str>>);

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        self.0.lock().expect("no observer panics").push(kernel);
    }
}

/// An observer is told of all launches of the process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Names of the kernels that the layer launches for an input, forward and backward.
fn launches<const D: usize>(input: impl FnOnce(&Device) -> Tensor<D>) -> Vec<&'static str> {
    let _alone = ONE_AT_A_TIME.lock();
    let device = device().autodiff();
    let input = input(&device).detach().require_grad();
    let layer = LayerNormConfig::new(input.dims()[D - 1]).init(&device);
    // Whatever is made lazily is there now.
    layer.forward(input.clone()).sum().backward();
    device.sync().expect("the device is there");
    let launches = Arc::new(Launches::default());
    let observation = LaunchObservation::new(launches.clone());
    let output = layer.forward(input);
    device.sync().expect("the device is there");
    drop(observation);
    drop(output);
    launches.0.lock().expect("no observer panics").clone()
}

fn is_own(launches: &[&str]) -> bool {
    !launches.is_empty() && launches.iter().all(|name| *name == "gpu-layer-norm")
}

#[test]
fn tensors_are_read_and_written_where_they_are() {
    assert!(is_own(&launches(|device| tensor::<2>(1, [8, 64], device))));
    assert!(is_own(&launches(|device| tensor::<2>(1, [192, 63], device).narrow(0, 64, 64))));
    assert!(is_own(&launches(|device| tensor::<2>(1, [8, 192], device).slice([0..8, 64..128]))));
    assert!(is_own(&launches(|device| tensor::<3>(1, [2, 64, 20], device).swap_dims(1, 2))));
    assert!(is_own(&launches(|device| tensor::<3>(1, [4, 5, 20], device).swap_dims(0, 1))));
}

#[test]
fn rows_with_gaps_that_are_not_even_are_copied() {
    let launches = launches(|device| tensor::<3>(1, [4, 8, 64], device).slice([0..4, 2..6]));
    assert!(!is_own(&launches), "{launches:?}");
    assert!(launches.contains(&"gpu-layer-norm"), "{launches:?}");
}
