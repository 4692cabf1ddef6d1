//! Gradient checkpointing (Chen et al. 2016): of the forward pass only the input of each layer is kept, and each layer is computed again,
//! with the same masks of dropout, when its gradients are taken. It costs one more forward pass, and the memory of one layer instead of
//! all of them. Gradients are those of the ordinary backward pass.
use quintet_nlp::encoder;
use tch::Tensor;

use crate::{
    Error,
    loss::Wanted,
    model::{Input, Model, WordRows},
};

/// Gradients of tensors, summed up over the parts of a backward pass.
struct Sums<'a> {
    of: &'a [&'a Tensor],
    found: Vec<Option<Tensor>>,
}

impl<'a> Sums<'a> {
    fn new(of: &'a [&'a Tensor]) -> Self {
        Self { of, found: of.iter().map(|_| None).collect() }
    }

    /// Takes the gradients of the sum of `roots`; gives those of `inputs`, none of one that the roots do not depend on.
    fn add(&mut self, roots: &[Tensor], inputs: &[&Tensor]) -> Result<Vec<Option<Tensor>>, Error> {
        let all: Vec<&Tensor> = inputs.iter().chain(self.of).copied().collect();
        let gradients = Tensor::f_run_backward(roots, &all, false, false)?;
        let mut gradients = gradients.into_iter().map(|gradient| gradient.defined().then_some(gradient));
        let of_inputs = gradients.by_ref().take(inputs.len()).collect();
        for (sum, gradient) in self.found.iter_mut().zip(gradients) {
            add_to(sum, gradient)?;
        }
        Ok(of_inputs)
    }

    /// The sums; 0 where nothing came.
    fn finish(self) -> Result<Vec<Tensor>, Error> {
        let whole = |(sum, tensor): (Option<Tensor>, &&Tensor)| match sum {
            Some(sum) => Ok(sum),
            None => Ok(tensor.f_zeros_like()?),
        };
        self.found.into_iter().zip(self.of).map(whole).collect()
    }
}

fn add_to(sum: &mut Option<Tensor>, term: Option<Tensor>) -> Result<(), Error> {
    *sum = match (sum.take(), term) {
        (Some(sum), Some(term)) => Some(sum.f_add(&term)?),
        (one, other) => one.or(other),
    };
    Ok(())
}

/// A number whose gradient is the given one of `output`; its own value says nothing.
fn carrier(output: &Tensor, gradient: &Tensor) -> Result<Tensor, Error> {
    Ok(output.f_mul(gradient)?.f_sum(output.kind())?)
}

/// A tensor with the same elements that is a leaf of a graph of its own.
fn leaf(tensor: &Tensor, trained: bool) -> Result<Tensor, Error> {
    Ok(tensor.f_detach()?.f_set_requires_grad(trained)?)
}

/// The loss that `loss` computes of the logits, and the gradients of `leaves`. Nothing below the depth `lowest` (see
/// [`crate::parameters::Leaf::depth`]) is trained.
pub(crate) fn backward(
    model: &Model,
    input: &Input,
    words: Option<&WordRows>,
    train: bool,
    lowest: usize,
    leaves: &[&Tensor],
    loss: impl FnOnce(&Tensor, &Wanted) -> Result<Tensor, Error>,
) -> Result<(Tensor, Vec<Tensor>), Error> {
    let encoder = model.encoder();
    let mut engine = model.engine(input, words, train);
    let embedded = encoder.embed(&mut engine)?;
    let shared = embedded.shared.as_ref().map(|shared| leaf(shared, shared.requires_grad())).transpose()?;

    // Input of each layer, and the place of its masks among those drawn.
    let mut kept: Vec<(Tensor, u64)> = Vec::with_capacity(encoder.layers());
    let mut hidden = embedded.hidden.f_detach()?;
    for index in 0..encoder.layers() {
        let place = model.dropout_place(index);
        model.draw_from(place);
        // With a graph, which goes at once: without one, libtorch would choose other kernels here than when it computes again.
        let layer_input = encoder::Input { hidden: &hidden, shared: shared.as_ref() };
        let out = encoder.layer(index, layer_input, &mut engine)?.f_detach()?;
        kept.push((std::mem::replace(&mut hidden, out), place));
    }

    let mut sums = Sums::new(leaves);
    let top = leaf(&hidden, lowest <= encoder.layers())?;
    let loss = loss(&encoder.head(top.shallow_clone(), &mut engine)?, &input.wanted)?;
    let mut incoming = sums.add(&[loss.shallow_clone()], trained(&[&top]).as_slice())?.pop().flatten();
    let mut of_shared = None;
    for (index, (hidden, place)) in kept.into_iter().enumerate().rev() {
        // The layer's depth is one more than its index.
        let Some(gradient) = incoming.take().filter(|_| lowest <= index + 1) else { break };
        let hidden = leaf(&hidden, lowest <= index)?;
        model.draw_from(place);
        let layer_input = encoder::Input { hidden: &hidden, shared: shared.as_ref() };
        let out = encoder.layer(index, layer_input, &mut engine)?;
        let inputs: Vec<&Tensor> = [Some(&hidden), shared.as_ref()].into_iter().flatten().collect();
        let wanted = trained(&inputs);
        let mut found = sums.add(&[carrier(&out, &gradient)?], &wanted)?.into_iter();
        if hidden.requires_grad() {
            incoming = found.next().flatten();
        }
        add_to(&mut of_shared, found.next().flatten())?;
    }

    let of_embedded = [(Some(&embedded.hidden), incoming), (embedded.shared.as_ref(), of_shared)];
    let mut roots = Vec::new();
    for (output, gradient) in of_embedded {
        if let (Some(output), Some(gradient)) = (output, gradient) {
            roots.push(carrier(output, &gradient)?);
        }
    }
    if !roots.is_empty() {
        sums.add(&roots, &[])?;
    }
    Ok((loss, sums.finish()?))
}

/// Those of which gradients can be asked.
fn trained<'a>(tensors: &[&'a Tensor]) -> Vec<&'a Tensor> {
    tensors.iter().filter(|tensor| tensor.requires_grad()).copied().collect()
}

#[cfg(test)]
mod tests;
