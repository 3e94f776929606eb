//! Ranks that do not come back. All but one of these scenarios end the job.

use std::error::Error as AnyError;
use std::process::Command;
use std::time::Duration;

use gpu_layer_norm::{GpuDevice, GpuTensor, LayerNormConfig};
use gpu_layer_norm_mpi::mpi::topology::SimpleCommunicator;
use gpu_layer_norm_mpi::mpi::traits::Communicator;
use gpu_layer_norm_mpi::{Error, Options, ShardedLayerNorm};

type Outcome = Result<(), Box<dyn AnyError>>;

/// One pass of all ranks, then `end` of one of them, then another pass, which that rank does not take part in.
fn two_passes(world: &SimpleCommunicator, rank: i32, end: impl FnOnce() -> Outcome) -> Outcome {
    let device = GpuDevice::new()?;
    let options = Options::default().rows_per_chunk(8).timeout(Duration::from_secs(3));
    let layer = ShardedLayerNorm::with_options(world, &device, &LayerNormConfig::new(32), &options)?;
    let input = GpuTensor::zeros(&device, [64, 32])?;
    layer.forward(&input)?;
    if world.rank() == rank {
        return end();
    }
    let outcome = layer.forward(&input);
    Err(format!("rank {} went on: {outcome:?}", world.rank()).into())
}

pub fn panics(world: &SimpleCommunicator) -> Outcome {
    two_passes(world, 1, || panic!("on purpose"))
}

pub fn returns_an_error(world: &SimpleCommunicator) -> Outcome {
    two_passes(world, 3, || Err("on purpose".into()))
}

/// A pass of many chunks, in the middle of which `end` comes over one of the ranks.
fn in_a_pass(world: &SimpleCommunicator, rank: i32, end: impl FnOnce() + Send + 'static) -> Outcome {
    let device = GpuDevice::new()?;
    let options = Options::default().rows_per_chunk(1).timeout(Duration::from_secs(3));
    let layer = ShardedLayerNorm::with_options(world, &device, &LayerNormConfig::new(4096), &options)?;
    let input = GpuTensor::zeros(&device, [20_000, 4096])?;
    // Kernels are compiled in the first pass.
    layer.forward(&GpuTensor::zeros(&device, [4, 4096])?)?;
    if world.rank() == rank {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            end();
        });
    }
    let outcome = layer.forward(&input);
    Err(format!("rank {} went on: {outcome:?}", world.rank()).into())
}

pub fn killed(world: &SimpleCommunicator) -> Outcome {
    in_a_pass(world, 2, || signal("-KILL"))
}

/// It lives on, and says nothing.
pub fn stops(world: &SimpleCommunicator) -> Outcome {
    in_a_pass(world, 1, || signal("-STOP"))
}

pub fn exits(world: &SimpleCommunicator) -> Outcome {
    in_a_pass(world, 1, || std::process::exit(3))
}

pub fn exits_in_peace(world: &SimpleCommunicator) -> Outcome {
    two_passes(world, 1, || std::process::exit(0))
}

pub fn leaves(world: &SimpleCommunicator) -> Outcome {
    two_passes(world, 0, || Ok(()))
}

fn signal(signal: &str) {
    let status = Command::new("kill").args([signal, &std::process::id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill {signal} failed");
}

pub fn never_makes_a_layer(world: &SimpleCommunicator) -> Outcome {
    if world.rank() == 1 {
        std::thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    let device = GpuDevice::new()?;
    let options = Options::default().timeout(Duration::from_secs(3));
    let outcome = ShardedLayerNorm::with_options(world, &device, &LayerNormConfig::new(32), &options);
    Err(format!("a layer was made by one rank alone: {outcome:?}").into())
}

/// A device that is lost while a pass of many chunks goes on: its rank has its own error, and the others are told.
pub fn device_lost(world: &SimpleCommunicator) -> Outcome {
    let device = GpuDevice::new()?;
    let options = Options::default().rows_per_chunk(1);
    let layer = ShardedLayerNorm::with_options(world, &device, &LayerNormConfig::new(4096), &options)?;
    let input = GpuTensor::zeros(&device, [20_000, 4096])?;
    // Kernels are compiled in the first pass.
    layer.forward(&GpuTensor::zeros(&device, [4, 4096])?)?;
    let victim = (world.rank() == 2).then(|| {
        let device = device.device().clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            device.destroy();
        })
    });
    let outcome = layer.forward(&input);
    if let Some(victim) = victim {
        victim.join().map_err(|_| "the thread panicked")?;
    }
    match (outcome, world.rank()) {
        (Err(Error::Device(gpu_layer_norm::Error::DeviceLost { .. })), 2) => Ok(()),
        (Err(Error::OtherRank { rank: 2, message }), rank) if rank != 2 && message.contains("lost") => {
            // This rank's device is as it was.
            let tensor = GpuTensor::zeros(&device, [2])?;
            tensor.download()?;
            Ok(())
        }
        (outcome, rank) => Err(format!("rank {rank}: {outcome:?}").into()),
    }
}
