//! The passes over Burn's tensors: as rows, as a problem, as a plan, which is launched.

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use gpu_layer_norm::kernel::{Layout, Plan, Problem, Role};
use gpu_layer_norm::{Affine, Error, Normalization, StorageType};

use crate::capabilities::capabilities;
use crate::launch::launch;
use crate::layout::{MemoryOrder, Rows};

/// What a layer does, whatever it does it to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) normalization: Normalization,
    pub(crate) affine: Affine,
    pub(crate) epsilon: f64,
}

impl Layer {
    /// Whether the kernels can run it on a device, forward and backward, on rows and with parameters of these dtypes. (Where they cannot
    /// read a tensor as it lies, they read a copy.)
    pub(crate) fn runs_on(&self, device: &CubeDevice, count: u64, width: u64, rows: DType, parameters: DType) -> bool {
        let (Some(capabilities), Some(rows), Some(parameters)) =
            (capabilities(device, &device.client()), storage(rows), storage(parameters))
        else {
            return false;
        };
        let plan = |problem: Problem, of_rows: &[Role], of_parameters: &[Role]| {
            let of_rows = of_rows.iter().map(|&role| (role, rows));
            let of_parameters = of_parameters.iter().map(|&role| (role, parameters));
            let statistics = self.statistics().iter().map(|&role| (role, StorageType::F32));
            let mut tensors = of_rows.chain(of_parameters).chain(statistics);
            let problem = tensors.try_fold(problem, |problem, (role, storage)| problem.tensor(role, storage))?;
            Plan::new(&problem, &capabilities)
        };
        let plans = || {
            let problem = self.problem(&Rows { count, width, stride: None, grid: None })?;
            plan(problem, &[Role::Input, Role::Output], self.affine.parameters())?;
            let parameters = [&[Role::Weight], gradients_of(self.affine)].concat();
            plan(problem.backward(), &[Role::Input, Role::OutputGradient, Role::InputGradient], &parameters)
        };
        plans().is_ok()
    }

    fn problem(&self, rows: &Rows) -> Result<Problem, Error> {
        let problem = Problem::new(rows.count, rows.width)?.normalization(self.normalization)?;
        problem.affine(self.affine).eps(self.epsilon as f32)
    }

    /// What a forward pass can save of each row.
    fn statistics(&self) -> &'static [Role] {
        match self.normalization {
            Normalization::LayerNorm => &[Role::Mean, Role::Rstd],
            Normalization::RmsNorm => &[Role::Rstd],
        }
    }

    /// The normalized input, which lies in memory as the input does where that has no gaps; then the statistics of its rows, if they are to be
    /// saved: f32, of the shape of the input but for the last dimension, which is 1.
    pub(crate) fn forward(&self, input: CubeTensor, parameters: Vec<CubeTensor>, save: bool) -> Vec<CubeTensor> {
        let parameters: Vec<CubeTensor> = parameters.into_iter().map(into_contiguous).collect();
        let statistics: &[Role] = if save { self.statistics() } else { &[] };
        either_way(input, |input, order, rows| {
            let mut written = vec![(Role::Output, empty(&input, input.meta.shape(), input.dtype))];
            let mut sizes = input.meta.shape().to_vec();
            sizes[order.place_of_last()] = 1;
            written.extend(statistics.iter().map(|&role| (role, empty(&input, &sizes, DType::F32))));
            let mut tensors = vec![(Role::Input, &input, rows.stride)];
            tensors
                .extend(self.affine.parameters().iter().zip(&parameters).map(|(&role, tensor)| (role, tensor, None)));
            tensors.extend(written.iter().map(|(role, tensor)| (*role, tensor, None)));
            run(self.problem(&rows)?, &rows, &tensors)?;
            Ok(written.into_iter().map(|(_, tensor)| order.undo(tensor)).collect())
        })
    }

    /// The gradient by the input, then those by the parameters that are wanted.
    pub(crate) fn backward(
        &self,
        input: CubeTensor,
        weight: CubeTensor,
        output_gradient: CubeTensor,
        statistics: Vec<CubeTensor>,
        wanted: Affine,
    ) -> Vec<CubeTensor> {
        let weight = into_contiguous(weight);
        either_way(input, |input, order, rows| {
            let (output_gradient, stride) = rows.beside(output_gradient.clone(), &order);
            let statistics: Vec<_> =
                statistics.iter().map(|tensor| into_contiguous(order.apply(tensor.clone()))).collect();
            let input_gradient = empty(&input, input.meta.shape(), input.dtype);
            let of_parameters: Vec<_> = gradients_of(wanted)
                .iter()
                .map(|&role| (role, empty(&weight, weight.meta.shape(), weight.dtype)))
                .collect();
            let mut tensors = vec![
                (Role::Input, &input, rows.stride),
                (Role::Weight, &weight, None),
                (Role::OutputGradient, &output_gradient, stride),
                (Role::InputGradient, &input_gradient, None),
            ];
            tensors.extend(self.statistics().iter().zip(&statistics).map(|(&role, tensor)| (role, tensor, None)));
            tensors.extend(of_parameters.iter().map(|(role, tensor)| (*role, tensor, None)));
            run(self.problem(&rows)?.backward(), &rows, &tensors)?;
            let of_parameters = of_parameters.into_iter().map(|(_, tensor)| tensor);
            Ok([order.undo(input_gradient)].into_iter().chain(of_parameters).collect())
        })
    }
}

/// The gradients by the parameters of an affine map.
fn gradients_of(affine: Affine) -> &'static [Role] {
    &[Role::WeightGradient, Role::BiasGradient][..affine.parameters().len()]
}

/// Works on a tensor as it lies if the kernels can, otherwise on a contiguous copy.
///
/// # Panics
/// If they can run neither, which [`Layer::runs_on`] tells beforehand.
fn either_way(
    input: CubeTensor,
    work: impl Fn(CubeTensor, MemoryOrder, Rows) -> Result<Vec<CubeTensor>, Error>,
) -> Vec<CubeTensor> {
    let as_it_lies = Rows::as_they_lie(&input).and_then(|(view, order, rows)| work(view, order, rows).ok());
    as_it_lies.unwrap_or_else(|| {
        let (input, order, rows) = Rows::contiguous(input);
        work(input, order, rows).unwrap_or_else(|error| panic!("gpu-layer-norm cannot run this layer: {error}"))
    })
}

/// Plans the pass over these tensors, each with its row stride if it has gaps, and launches it.
fn run(problem: Problem, rows: &Rows, tensors: &[(Role, &CubeTensor, Option<u64>)]) -> Result<(), Error> {
    let (_, input, _) = tensors[0];
    let mut problem = problem;
    for &(role, tensor, row_stride) in tensors {
        let storage = storage(tensor.dtype).unwrap_or_default();
        let offset = tensor.handle.offset_start.unwrap_or(0) / storage.bytes();
        problem = problem.tensor(role, Layout { offset, row_stride, ..Layout::new(storage) })?;
    }
    if let Some(grid) = rows.grid {
        problem = problem.grid(grid)?;
    }
    let capabilities = capabilities(&input.device, &input.client).expect("no other device is sent here");
    let handles: Vec<_> = tensors.iter().map(|(role, tensor, _)| (*role, &tensor.handle)).collect();
    launch(&input.client, &Plan::new(&problem, &capabilities)?, &handles);
    Ok(())
}

fn storage(dtype: DType) -> Option<StorageType> {
    match dtype {
        DType::F32 => Some(StorageType::F32),
        DType::F16 => Some(StorageType::F16),
        DType::BF16 => Some(StorageType::Bf16),
        _ => None,
    }
}

/// A new tensor on the device and stream of another one.
fn empty(beside: &CubeTensor, sizes: &[usize], dtype: DType) -> CubeTensor {
    let bytes = sizes.iter().product::<usize>() * dtype.size();
    let (client, device) = (beside.client.clone(), beside.device.clone());
    let handle = client.empty(bytes);
    CubeTensor::new_contiguous(client, device, sizes.to_vec().into(), handle, dtype)
}
