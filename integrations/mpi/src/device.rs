use std::time::Duration;

use gpu_layer_norm::GpuDevice;
use mpi::topology::Communicator;

use crate::Error;
use crate::ranks::wait_for_all;

/// A device for this rank. The best adapter of a machine, and the others of the same kind and backend, are dealt out to the ranks of that
/// machine in turn, and again from the first where there are more ranks than adapters. Collective.
///
/// ```no_run
/// # fn main() -> Result<(), gpu_layer_norm_mpi::Error> {
/// gpu_layer_norm_mpi::run(|world| {
///     let device = gpu_layer_norm_mpi::local_device(world)?;
///     println!("{}", device.adapter_info().name);
///     Ok::<(), gpu_layer_norm_mpi::Error>(())
/// })
/// # }
/// ```
///
/// # Errors
/// [`Error::Device`]: `NoAdapter`, `RequestDevice`, `DeviceTooSmall`. This rank alone knows.
pub fn local_device(communicator: &impl Communicator) -> Result<GpuDevice, Error> {
    wait_for_all(communicator, Duration::from_secs(60), "all ranks to choose a device");
    let place = usize::try_from(communicator.split_shared(communicator.rank()).rank()).unwrap_or(0);
    let builder = GpuDevice::builder();
    let adapters = pollster::block_on(builder.adapters());
    let kind = |adapter: &gpu_layer_norm::wgpu::Adapter| {
        let info = adapter.get_info();
        (info.device_type, info.backend)
    };
    let alike: Vec<_> = adapters.iter().filter(|adapter| kind(adapter) == kind(&adapters[0])).collect();
    match alike.get(place % alike.len().max(1)) {
        Some(adapter) => Ok(pollster::block_on(GpuDevice::from_adapter(adapter))?),
        // Says what there is.
        None => Ok(builder.build()?),
    }
}
