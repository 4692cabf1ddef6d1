//! An encoder with its head, over the leaves of [`Parameters`]; what it computes is said by `quintet_nlp::encoder`.
use quintet_nlp::{
    batch::Batch,
    decoder::Decoder,
    encoder::{CrfLeaves, Encoder, EncoderConfig, Leaf},
    random::derive,
};
use tch::{Cuda, Device, Kind, Tensor};

use crate::{
    Error,
    crf::Crf,
    engine::{Engine, Kept},
    lora::Adapters,
    loss::Wanted,
    parameters::Parameters,
};

/// The computation.
pub(crate) struct Model {
    encoder: Encoder,
    leaves: Vec<Tensor>,
    adapters: Option<Adapters>,
    /// Of a head that scores labels by their neighbours.
    crf: Option<Crf>,
    kept: Kept,
    device: Device,
}

/// A batch on the device.
pub(crate) struct Input {
    /// [rows, length] indices into `words`.
    pub(crate) index: Tensor,
    /// Token ids, row-major.
    pub(crate) ids: Vec<i64>,
    /// [rows, 1, 1, length], true where there is a sub-token; none when no row is padded.
    pub(crate) mask: Option<Tensor>,
    /// Token types [rows, length]; none when all are 0.
    pub(crate) types: Option<Tensor>,
    /// What is right.
    pub(crate) wanted: Wanted,
    pub(crate) length: i64,
}

impl Input {
    /// 1 where there is a sub-token, else 0, [rows, length, 1]; none when no row is padded.
    pub(crate) fn tokens(&self, kind: Kind) -> Result<Option<Tensor>, Error> {
        match &self.mask {
            Some(mask) => Ok(Some(mask.f_view([-1, self.length, 1])?.f_to_kind(kind)?)),
            None => Ok(None),
        }
    }
}

/// The rows of the word table that a batch uses: an own leaf, so that the gradient has these rows alone.
pub(crate) struct WordRows {
    /// Rows of the table, ascending.
    pub(crate) ids: Vec<i64>,
    /// [ids, hidden], a leaf.
    pub(crate) tensor: Tensor,
}

impl Model {
    /// Binds the leaves; `config` says the task, dropout and sizes.
    pub(crate) fn new(parameters: &Parameters, config: &EncoderConfig, device: Device) -> Result<Self, Error> {
        let (encoder, layout) = Encoder::new(config);
        if layout.leaves.len() != parameters.tensors.len() {
            return Err(Error::Internal("the weights are those of another configuration"));
        }
        detect_processor()?;
        let leaves: Vec<Tensor> = parameters.tensors.iter().map(Tensor::shallow_clone).collect();
        let crf = encoder.crf().map(|CrfLeaves { transitions, start, end }| {
            let scores = |leaf: Leaf| leaves.get(leaf.0).map(Tensor::shallow_clone);
            Some(Crf { transitions: scores(transitions)?, start: scores(start)?, end: scores(end)? })
        });
        let crf = crf.map(|crf| crf.ok_or(Error::Internal("a CRF without scores"))).transpose()?;
        let adapters = parameters.adapters.as_ref().map(Adapters::shallow_clone);
        Ok(Self { encoder, leaves, adapters, crf, kept: Kept::default(), device })
    }

    /// Begins the masks of dropout anew: the same follow the same seed.
    pub(crate) fn seed_dropout(&self, seed: u64) {
        self.kept.draws.seed(seed);
        self.seed_generator(seed);
    }

    /// A place among the masks, for [`Self::draw_from`] to begin at: on the processor the present one, elsewhere one of the `layer`'s own.
    pub(crate) fn dropout_place(&self, layer: usize) -> u64 {
        let place = self.kept.draws.place();
        if self.device == Device::Cpu { place } else { derive(place, "layer", layer as u64) }
    }

    /// Goes to a place among the masks: the same follow as before.
    pub(crate) fn draw_from(&self, place: u64) {
        if self.device == Device::Cpu {
            self.kept.draws.seed(place);
        } else {
            self.seed_generator(place);
        }
    }

    /// Elsewhere than on the processor libtorch draws the masks.
    fn seed_generator(&self, seed: u64) {
        if self.device != Device::Cpu {
            // That of the GPU which is current on this thread.
            Cuda::manual_seed(seed);
        }
    }

    /// Moves a batch to the device, its indices into the whole word table.
    pub(crate) fn input(&self, batch: &Batch) -> Result<Input, Error> {
        self.input_of(batch, &batch.input_ids)
    }

    /// Moves a batch to the device, its indices into the rows of the word table that it uses.
    pub(crate) fn input_with_rows(&self, batch: &Batch) -> Result<(Input, WordRows), Error> {
        let mut ids = batch.input_ids.clone();
        ids.sort_unstable();
        ids.dedup();
        let index: Vec<i64> =
            batch.input_ids.iter().map(|id| ids.binary_search(id).map_or(0, |found| found as i64)).collect();
        let wanted = Tensor::f_from_slice(&ids)?.f_to_device(self.device)?;
        let table = self.leaves.first().ok_or(Error::Internal("no word table"))?;
        let tensor = tch::no_grad(|| table.f_index_select(0, &wanted))?.f_set_requires_grad(true)?;
        Ok((self.input_of(batch, &index)?, WordRows { ids, tensor }))
    }

    fn input_of(&self, batch: &Batch, index: &[i64]) -> Result<Input, Error> {
        let (rows, length) = (batch.rows as i64, batch.length as i64);
        let grid = |values: &[i64]| Tensor::f_from_slice(values)?.f_view([rows, length])?.f_to_device(self.device);
        let mask = if batch.attention_mask.contains(&0) {
            Some(grid(&batch.attention_mask)?.f_to_kind(Kind::Bool)?.f_view([rows, 1, 1, length])?)
        } else {
            None
        };
        let types = batch.type_ids.iter().any(|kind| *kind != 0).then(|| grid(&batch.type_ids)).transpose()?;
        let wanted = Wanted::new(&batch.targets, batch.rows, self.crf.as_ref(), self.device)?;
        Ok(Input { index: grid(index)?, ids: batch.input_ids.clone(), mask, types, wanted, length })
    }

    /// How logits become labels of words, with the present weights.
    pub(crate) fn decoder(&self, labels: usize) -> Result<Decoder, Error> {
        Ok(Decoder::new(self.crf.as_ref().map(Crf::values).transpose()?, labels))
    }

    /// Logits [rows, length, labels], or [rows, labels] of a sequence head; `words` as made with the input, or none for an input
    /// into the whole table.
    pub(crate) fn logits(&self, input: &Input, words: Option<&WordRows>, train: bool) -> Result<Tensor, Error> {
        self.encoder.forward(&mut self.engine(input, words, train))
    }

    /// The operations over a batch.
    pub(crate) fn engine<'a>(&'a self, input: &'a Input, words: Option<&'a WordRows>, train: bool) -> Engine<'a> {
        Engine::new(&self.leaves, self.adapters.as_ref(), &self.kept, input, words, train)
    }

    /// What is computed, for computing it piece by piece.
    pub(crate) fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

/// Lets MKL's vector functions find out about the processor before threads use them. They look when they are first called; two
/// threads of one `tanh` that both look may get functions of different accuracy, and the process would compute other values than
/// the next one.
fn detect_processor() -> Result<(), Error> {
    // So few elements are computed by one thread.
    let _ = Tensor::f_zeros([8], (Kind::Float, Device::Cpu))?.f_tanh()?;
    Ok(())
}
