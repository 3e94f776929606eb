//! Rows whose features are dealt out over the ranks, forward and backward, beside whole rows on the first rank's device.
//!
//! mpirun -n 4 target/release/examples/sharded 4096

use gpu_layer_norm::{GpuLayerNorm, GpuTensor, LayerNormConfig, Tensor};
use gpu_layer_norm_mpi::mpi::traits::Communicator;
use gpu_layer_norm_mpi::{ShardedLayerNorm, local_device};

fn main() -> Result<(), gpu_layer_norm_mpi::Error> {
    gpu_layer_norm_mpi::run(|world| {
        let width: usize = std::env::args().nth(1).map_or(Ok(4096), |width| width.parse())?;
        let (rank, ranks, rows) = (world.rank() as usize, world.size() as usize, 8);
        let own = width * rank / ranks..width * (rank + 1) / ranks;
        // A mean a million times the deviation.
        let value = |row: usize, column: usize| 1e6 + ((row * 31 + column * 17) % 101) as f32 * 0.0625;
        let values = |columns: std::ops::Range<usize>| -> Vec<f32> {
            (0..rows).flat_map(|row| columns.clone().map(move |column| value(row, column))).collect()
        };

        let slope = |row: usize, column: usize| ((row + column) % 7) as f32 - 3.0;
        let slopes = |columns: std::ops::Range<usize>| -> Vec<f32> {
            (0..rows).flat_map(|row| columns.clone().map(move |column| slope(row, column))).collect()
        };

        let device = local_device(world)?;
        let upload = |width: usize, values| GpuTensor::upload(&device, &Tensor::from_f32([rows, width], values)?);
        let layer_norm = ShardedLayerNorm::new(world, &device, &LayerNormConfig::new(own.len()))?;
        let (input, output_gradient) =
            (upload(own.len(), values(own.clone()))?, upload(own.len(), slopes(own.clone()))?);
        let (output, moments) = layer_norm.forward(&input)?;
        let gradients = layer_norm.backward(&input, &output_gradient, &moments)?;
        let (y, dx) = (output.download()?, gradients.input.download()?);
        let first = moments.download()?[0];
        println!(
            "rank {rank} of {ranks} on {}: elements {own:?} of {}, mean {}, deviation {:.6}, y {:.6?}, dx {:.6?}",
            device.adapter_info().name,
            layer_norm.row_width(),
            first.mean(),
            first.variance().sqrt(),
            y.values().first(),
            dx.values().first(),
        );
        if rank == 0 {
            let whole = GpuLayerNorm::new(&device, &LayerNormConfig::new(width))?;
            let (input, output_gradient) = (upload(width, values(0..width))?, upload(width, slopes(0..width))?);
            let (output, statistics) = whole.forward_for_training(&device, &input)?;
            let gradients = whole.backward(&device, &input, &output_gradient, Some(&statistics))?;
            for (what, shard, whole) in [("y", y, output.download()?), ("dx", dx, gradients.input.download()?)] {
                let rows = whole.values();
                let expected = rows.chunks(width).flat_map(|row| &row[own.clone()]);
                let most = shard.values().iter().zip(expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
                println!(
                    "{what} of the first shard differs from that of whole rows on one device by {most:.1e} at most"
                );
            }
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })
}
