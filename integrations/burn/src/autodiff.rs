use burn::backend::Autodiff;
use burn::backend::Backend;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use gpu_layer_norm::Affine;

use crate::layer::Layer;
use crate::ops::{Normalize, Tensors, Train};

/// The backward pass of a normalization. Its parents are the input, the weight and, with N = 3, the bias.
#[derive(Debug)]
struct NormalizeBackward;

/// Where input and weight are kept, mean and rstd of the rows, and the layer.
type State<B> = (NodeId, NodeId, Tensors<B>, Layer);

impl<B: Backend + Train, const N: usize> Backward<B, N> for NormalizeBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let output_gradient = gradients.consume::<B>(&ops.node);
        let (input, weight, statistics, layer) = ops.state;
        let input = checkpointer.retrieve_node_output::<FloatTensor<B>>(input);
        let weight = checkpointer.retrieve_node_output::<FloatTensor<B>>(weight);
        let wanted = match ops.parents.iter().rposition(Option::is_some) {
            Some(2) => Affine::WeightAndBias,
            Some(1) => Affine::Weight,
            _ => Affine::None,
        };
        let written = B::normalize_backward(input, weight, output_gradient, statistics, layer, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(written.into_vec()) {
            if let Some(parent) = parent {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: Backend + Normalize + Train, C: CheckpointStrategy> Normalize for Autodiff<B, C> {
    fn normalize(input: FloatTensor<Self>, parameters: Tensors<Self>, layer: Layer) -> FloatTensor<Self> {
        match parameters {
            Tensors::One(weight) => tracked::<B, C, 2>([input, weight], layer),
            Tensors::Two(weight, bias) | Tensors::Three(weight, bias, _) => {
                tracked::<B, C, 3>([input, weight, bias], layer)
            }
        }
    }
}

/// The input normalized with the parameters that follow it.
fn tracked<B: Backend + Normalize + Train, C: CheckpointStrategy, const N: usize>(
    tensors: [FloatTensor<Autodiff<B, C>>; N],
    layer: Layer,
) -> FloatTensor<Autodiff<B, C>> {
    let prepared = NormalizeBackward.prepare::<C>(tensors.each_ref().map(|tensor| tensor.node())).compute_bound();
    let kept = [tensors[0].clone(), tensors[1].clone()];
    let mut primitives = tensors.into_iter().map(|tensor| tensor.into_primitive());
    let input = primitives.next().expect("there is an input");
    let parameters = Tensors::new(primitives.next().expect("there is a weight"), primitives);
    match prepared.stateful() {
        OpsKind::Tracked(mut prepared) => {
            let [input_kept, weight_kept] = kept.each_ref().map(|tensor| prepared.checkpoint(tensor));
            let mut written = B::normalize_for_training(input, parameters, layer).into_vec().into_iter();
            let output = written.next().expect("there is an output");
            let statistics = Tensors::new(written.next().expect("there is an rstd"), written);
            prepared.finish((input_kept, weight_kept, statistics, layer), output)
        }
        OpsKind::UnTracked(prepared) => {
            drop(kept);
            prepared.finish(B::normalize(input, parameters, layer))
        }
    }
}
