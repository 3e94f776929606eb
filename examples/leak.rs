//! A mistake that has been published, reproduced: in knowledge tracing, layer normalization over `[length, d_model]`.
//!
//! Knowledge tracing predicts whether a student will answer the next question rightly, from the questions and answers so far. What a
//! model makes of position t may therefore not depend on a position after t. Layer normalization over the last dimension respects
//! that, and so does causal layer normalization, which takes mean and variance of position t from the positions up to t. Over
//! `[length, d_model]` they are those of the whole sequence, and tell of answers that are still to come.
//!
//! First it is measured which positions depend on which, with each of the three norms. That is printed, `#` for a dependence on the
//! position itself or an earlier one, `!` for one on a later position; and drawn, as three squares in the same order from left to
//! right: a row for each position of the output, a column for each of the input, red where the output depends on a later position.
//! Then the same small predictor is trained with each of the norms:
//!
//!     x[t] = question[q[t]] + interaction[q[t−1], a[t−1]] + position[t]
//!     y = norm(x),  m[t] = mean of y[0..=t],  p[t] = sigmoid(w · relu([y[t], m[t]] · A + b[t]) + c)
//!
//! as in SAKT (Pandey and Karypis, 2019), but with a mean in place of attention. Position t is not given answer t, only the answers
//! before it: nothing but the norm can leak. The norm runs on the GPU, forward and backward, and the rest on the processor.
//!
//! The students follow the Rasch model, so the true probability of each of their answers is known, and with it the best log loss
//! that there can be. The predictor with the leak seems to be far better than that. Asked as it would be in use, when there is no
//! later position yet (another student's stand in for them), it is worse than the other two.
//!
//!     cargo run --release --example leak -- [PNG]
//!
//! wgpu's environment variables WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.

use std::array;
use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpu_layer_norm::{Affine, Dependence, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, Tensor, wgpu};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

const QUESTIONS: usize = 8;
const LENGTH: usize = 16;
const MODEL: usize = 16;
const HIDDEN: usize = 32;

const TRAINING_STUDENTS: usize = 8192;
const HELD_OUT_STUDENTS: usize = 2048;
const BATCH: usize = 128;
const STEPS: usize = 800;
const LEARNING_RATE: f32 = 0.02;

/// By how much the log loss of all held-out answers together may be below that of their true probabilities p.
///
/// Let a predictor that is given nothing of an answer, nor of later ones, say q. The expected value of q(a) / p(a) is then
/// Σ p(a) · q(a) / p(a) = 1 for each answer, whatever was before it, and so it is for the product over all answers. By Markov's
/// inequality the product is over e^20 with a probability below e^-20 = 2e-9. Its logarithm is the difference of the two losses.
const MARGIN: f64 = 20.0;

const HELP: &str = "\
Shows that layer normalization over [length, d_model] leaks what is still to come, and what that does to a predictor's score.

  PNG     draw there which positions depend on which; default target/leak.png
  --help  show this and stop";

fn main() -> Result<(), Box<dyn Error>> {
    use lexopt::prelude::*;
    let mut png = PathBuf::from("target/leak.png");
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(path) => png = path.into(),
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(());
            }
            _ => return Err(format!("{}\n\n{HELP}", argument.unexpected()).into()),
        }
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(wgpu::util::initialize_adapter_from_env_or_default(&instance, None))?;
    println!("adapter: {} ({:?})", adapter.get_info().name, adapter.get_info().backend);
    let gpu = pollster::block_on(GpuDevice::from_adapter(&adapter))?;

    // Without weight and bias, so that nothing but their statistics tells the norms apart.
    let configs = [
        ("over [d_model]", LayerNormConfig::new(MODEL)),
        ("over [length, d_model]", LayerNormConfig::new([LENGTH, MODEL])),
        ("causal", LayerNormConfig::new(MODEL).causal(true)),
    ];
    let mut norms = Vec::new();
    for (name, config) in configs {
        let layer = GpuLayerNorm::new(&gpu, &config.affine(Affine::None).expect_nothing())?;
        let dependence = Dependence::measure(&[2, LENGTH, MODEL], 1, |input| layer.run(&gpu, input))?;
        println!("\nlayer norm {name}: {} leaks\n{dependence}", dependence.leaks().count());
        norms.push((name, Norm { gpu: &gpu, layer }, dependence));
    }
    draw(&png, norms.iter().map(|(_, _, dependence)| dependence)).map_err(|e| format!("{}: {e}", png.display()))?;
    println!("\ndrawn: {}\n", png.display());

    let mut rng = StdRng::seed_from_u64(2019);
    let training: Vec<Student> = (0..TRAINING_STUDENTS).map(|_| Student::random(&mut rng)).collect();
    let held_out: Vec<Student> = (0..HELD_OUT_STUDENTS).map(|_| Student::random(&mut rng)).collect();
    println!("{:<30} log loss  accuracy  log loss of answer {}", "", LENGTH - 1);
    let score = |name: &str, logits: Vec<[f64; LENGTH]>| {
        let score = Score::new(&held_out, &logits);
        let (loss, accuracy) = (score.loss(), 100.0 * score.accuracy());
        println!("{name:<30} {loss:>8.3} {accuracy:>8.1}%  {:>8.3}", score.last_seen / HELD_OUT_STUDENTS as f64);
        score
    };
    let truth = score("the true probabilities", held_out.iter().map(Student::true_logits).collect());
    score("the best without the skill", held_out.iter().map(Student::best_logits).collect());
    let mut problems = Vec::new();
    for (name, norm, dependence) in &norms {
        let begun = Instant::now();
        let predictor = Predictor::train(norm, &training)?;
        let seconds = begun.elapsed().as_secs_f64();
        let logits = predictor.logits(norm, &held_out)?;
        let in_use = predictor.logits_in_use(norm, &held_out, &training)?;
        let is_changed = logits != in_use;
        let claimed = truth.sum - score(name, logits).sum;
        let real = truth.sum - score("  in use", in_use).sum;
        println!(
            "  better than the true probabilities by {claimed:.0} nats, in use by {real:.0}; trained in {seconds:.1} s"
        );
        // What the predictor is given in use is independent of the answers still to come, whatever the norm.
        if (claimed > MARGIN) == dependence.is_causal() || is_changed == dependence.is_causal() || real > MARGIN {
            problems.push(*name);
        }
    }
    if norms.iter().map(|(_, _, dependence)| dependence.is_causal()).ne([true, false, true]) {
        return Err("the norm over [length, d_model], and no other, should leak".into());
    }
    if !problems.is_empty() {
        return Err(format!("the scores are not what the dependence says: {}", problems.join(", ")).into());
    }
    Ok(())
}

/// Draws matrices side by side.
fn draw<'a>(path: &Path, matrices: impl Iterator<Item = &'a Dependence>) -> Result<(), Box<dyn Error>> {
    const CELL: usize = 12;
    const SIDE: usize = (LENGTH + 2) * CELL;
    let matrices: Vec<_> = matrices.collect();
    let width = matrices.len() * SIDE;
    let mut pixels = Vec::with_capacity(width * SIDE * 3);
    for y in 0..SIDE {
        for x in 0..width {
            // A margin of one cell around each matrix, and a line of one pixel between cells.
            let place =
                |at: usize| (at / CELL).checked_sub(1).filter(|&cell| cell < LENGTH && !at.is_multiple_of(CELL));
            pixels.extend(match (place(y), place(x % SIDE)) {
                (Some(output), Some(input)) if !matrices[x / SIDE].depends(output, input) => [228_u8, 230, 234],
                (Some(output), Some(input)) if input > output => [208, 48, 48],
                (Some(_), Some(_)) => [44, 92, 168],
                _ => [255, 255, 255],
            });
        }
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut encoder = png::Encoder::new(file, width as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}

/// A student by the Rasch model: the log odds of a right answer are the difference of skill and difficulty.
struct Student {
    skill: f64,
    questions: [usize; LENGTH],
    answers: [bool; LENGTH],
}

/// What the input of a position is made of: the question, and the interaction before it, which is 0 where there is none.
type Token = (usize, usize);

impl Student {
    fn random(rng: &mut StdRng) -> Self {
        let skill = rng.sample::<f64, _>(StandardNormal);
        let questions = array::from_fn(|_| rng.random_range(0..QUESTIONS));
        let answers = questions.map(|question| rng.random_bool(sigmoid(log_odds(skill, question))));
        Self { skill, questions, answers }
    }

    fn tokens(&self) -> [Token; LENGTH] {
        let interaction = |t: usize| 1 + 2 * self.questions[t] + usize::from(self.answers[t]);
        array::from_fn(|t| (self.questions[t], if t == 0 { 0 } else { interaction(t - 1) }))
    }

    fn true_logits(&self) -> [f64; LENGTH] {
        self.questions.map(|question| log_odds(self.skill, question))
    }

    /// The best that can be said by who knows the process, and of the student the answers so far: how likely which skill is by Bayes'
    /// rule, on a grid.
    fn best_logits(&self) -> [f64; LENGTH] {
        let skills = (-60..=60).map(|i| f64::from(i) / 10.0);
        let mut grid: Vec<(f64, f64)> = skills.map(|skill| (skill, (-skill * skill / 2.0).exp())).collect();
        array::from_fn(|t| {
            let [mut right, mut wrong] = [0.0; 2];
            for (skill, weight) in &mut grid {
                let probability = sigmoid(log_odds(*skill, self.questions[t]));
                right += *weight * probability;
                wrong += *weight * (1.0 - probability);
                *weight *= if self.answers[t] { probability } else { 1.0 - probability };
            }
            (right / wrong).ln()
        })
    }
}

/// The log odds of a right answer. Skills have variance 1; difficulties lie evenly from −1 to 1.
fn log_odds(skill: f64, question: usize) -> f64 {
    1.5 * (skill - (2.0 * question as f64 / (QUESTIONS - 1) as f64 - 1.0))
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// How good log odds are, given the answers.
struct Score {
    /// Log loss of all answers together, in nats.
    sum: f64,
    /// That of the last answer that the norm is given, one before the last answer of a sequence.
    last_seen: f64,
    right: usize,
    answers: usize,
}

impl Score {
    fn new(students: &[Student], logits: &[[f64; LENGTH]]) -> Self {
        let mut score = Self { sum: 0.0, last_seen: 0.0, right: 0, answers: 0 };
        for (student, logits) in students.iter().zip(logits) {
            for (t, (&answer, &logit)) in student.answers.iter().zip(logits).enumerate() {
                let wrong_way = if answer { -logit } else { logit };
                // ln(1 + e^x), which does not overflow.
                let loss = wrong_way.max(0.0) + (-wrong_way.abs()).exp().ln_1p();
                score.sum += loss;
                score.last_seen += if t + 2 == LENGTH { loss } else { 0.0 };
                score.right += usize::from((logit > 0.0) == answer);
                score.answers += 1;
            }
        }
        score
    }

    fn loss(&self) -> f64 {
        self.sum / self.answers as f64
    }

    fn accuracy(&self) -> f64 {
        self.right as f64 / self.answers as f64
    }
}

struct Norm<'a> {
    gpu: &'a GpuDevice,
    layer: GpuLayerNorm,
}

// Where the predictor's parameters lie, one after another.
const QUESTION: Range<usize> = 0..QUESTIONS * MODEL;
const INTERACTION: Range<usize> = after(QUESTION, (1 + 2 * QUESTIONS) * MODEL);
const POSITION: Range<usize> = after(INTERACTION, LENGTH * MODEL);
const MATRIX: Range<usize> = after(POSITION, 2 * MODEL * HIDDEN);
const BIAS: Range<usize> = after(MATRIX, LENGTH * HIDDEN);
const OUTPUT: Range<usize> = after(BIAS, HIDDEN);
const OUTPUT_BIAS: usize = OUTPUT.end;

const fn after(previous: Range<usize>, count: usize) -> Range<usize> {
    previous.end..previous.end + count
}

struct Predictor {
    parameters: Vec<f32>,
}

impl Predictor {
    fn random(rng: &mut StdRng) -> Self {
        let mut parameters = vec![0.0; OUTPUT_BIAS + 1];
        let spreads =
            [(QUESTION, 1.0), (INTERACTION, 1.0), (POSITION, 1.0), (MATRIX, root(2 * MODEL)), (OUTPUT, root(HIDDEN))];
        for (range, spread) in spreads {
            parameters[range].fill_with(|| rng.sample::<f32, _>(StandardNormal) / spread);
        }
        Self { parameters }
    }

    /// Adam, with a learning rate that falls to 0.
    fn train(norm: &Norm, students: &[Student]) -> Result<Self, gpu_layer_norm::Error> {
        let mut rng = StdRng::seed_from_u64(1607);
        let mut predictor = Self::random(&mut rng);
        let mut moments = vec![[0.0; 2]; predictor.parameters.len()];
        for step in 0..STEPS {
            let batch: Vec<&Student> = (0..BATCH).map(|_| &students[rng.random_range(0..students.len())]).collect();
            let gradient = predictor.gradient(norm, &batch)?;
            let rate = LEARNING_RATE * (1.0 - step as f32 / STEPS as f32);
            let [first, second] = [0.9_f32, 0.999].map(|beta| 1.0 - beta.powi(step as i32 + 1));
            for ((value, moments), gradient) in predictor.parameters.iter_mut().zip(&mut moments).zip(gradient) {
                moments[0] += 0.1 * (gradient - moments[0]);
                moments[1] += 0.001 * (gradient * gradient - moments[1]);
                *value -= rate * moments[0] / first / ((moments[1] / second).sqrt() + 1e-8);
            }
        }
        Ok(predictor)
    }

    /// The gradient of the mean log loss by the parameters.
    fn gradient(&self, norm: &Norm, students: &[&Student]) -> Result<Vec<f32>, gpu_layer_norm::Error> {
        let tokens: Vec<_> = students.iter().map(|student| student.tokens()).collect();
        let input = GpuTensor::upload(norm.gpu, &self.embed(&tokens)?)?;
        let (output, statistics) = norm.layer.forward_for_training(norm.gpu, &input)?;
        let mut gradient = vec![0.0; self.parameters.len()];
        let output_gradient = self.head_gradient(&output.download()?.values(), students, &mut gradient);
        let output_gradient = GpuTensor::upload(norm.gpu, &Tensor::from_f32(input.shape(), output_gradient)?)?;
        let gradients = norm.layer.backward(norm.gpu, &input, &output_gradient, Some(&statistics))?;
        let input_gradient = gradients.input.download()?;
        let places = tokens.iter().flatten().enumerate();
        for ((place, &token), row) in places.zip(input_gradient.values().chunks_exact(MODEL)) {
            for range in embeddings(token, place % LENGTH) {
                add(&mut gradient[range], row, 1.0);
            }
        }
        Ok(gradient)
    }

    /// The input of the norm: [batch, length, d_model].
    fn embed(&self, tokens: &[[Token; LENGTH]]) -> Result<Tensor, gpu_layer_norm::Error> {
        let mut values = vec![0.0; tokens.len() * LENGTH * MODEL];
        for ((place, &token), row) in tokens.iter().flatten().enumerate().zip(values.chunks_exact_mut(MODEL)) {
            for range in embeddings(token, place % LENGTH) {
                add(row, &self.parameters[range], 1.0);
            }
        }
        Tensor::from_f32([tokens.len(), LENGTH, MODEL], values)
    }

    /// What the hidden layer makes of a position.
    fn hidden(&self, t: usize, input: &[f32; 2 * MODEL]) -> [f32; HIDDEN] {
        let bias = &self.parameters[BIAS][t * HIDDEN..][..HIDDEN];
        let mut hidden = array::from_fn(|i| bias[i]);
        for (&x, weights) in input.iter().zip(self.parameters[MATRIX].chunks_exact(HIDDEN)) {
            add(&mut hidden, weights, x);
        }
        hidden.map(|z| z.max(0.0))
    }

    fn logit(&self, hidden: &[f32; HIDDEN]) -> f32 {
        self.parameters[OUTPUT_BIAS] + dot(hidden, &self.parameters[OUTPUT])
    }

    /// Adds the gradient by the parameters of the head, and returns that by the output of the norm.
    fn head_gradient(&self, normalized: &[f32], students: &[&Student], gradient: &mut [f32]) -> Vec<f32> {
        let mut output_gradient = vec![0.0; normalized.len()];
        let sequences = normalized.chunks_exact(LENGTH * MODEL).zip(output_gradient.chunks_exact_mut(LENGTH * MODEL));
        for (student, (sequence, result)) in students.iter().zip(sequences) {
            let inputs = head_inputs(sequence);
            // Of the loss by the sum of a position and those before it: the sum over this position and those after it.
            let mut by_sum = [0.0; MODEL];
            for (t, row) in result.chunks_exact_mut(MODEL).enumerate().rev() {
                let hidden = self.hidden(t, &inputs[t]);
                let answer = f32::from(u8::from(student.answers[t]));
                let error = (sigmoid(self.logit(&hidden).into()) as f32 - answer) / (students.len() * LENGTH) as f32;
                gradient[OUTPUT_BIAS] += error;
                add(&mut gradient[OUTPUT], &hidden, error);
                let weights = &self.parameters[OUTPUT];
                let by_hidden: [f32; HIDDEN] =
                    array::from_fn(|i| if hidden[i] > 0.0 { error * weights[i] } else { 0.0 });
                add(&mut gradient[BIAS][t * HIDDEN..][..HIDDEN], &by_hidden, 1.0);
                for (&x, sums) in inputs[t].iter().zip(gradient[MATRIX].chunks_exact_mut(HIDDEN)) {
                    add(sums, &by_hidden, x);
                }
                let matrix = &self.parameters[MATRIX];
                let by_input: [f32; 2 * MODEL] = array::from_fn(|i| dot(&by_hidden, &matrix[i * HIDDEN..][..HIDDEN]));
                add(&mut by_sum, &by_input[MODEL..], 1.0 / (t + 1) as f32);
                add(row, &by_input[..MODEL], 1.0);
                add(row, &by_sum, 1.0);
            }
        }
        output_gradient
    }

    fn logits(&self, norm: &Norm, students: &[Student]) -> Result<Vec<[f64; LENGTH]>, gpu_layer_norm::Error> {
        let tokens: Vec<_> = students.iter().map(Student::tokens).collect();
        let output = norm.layer.run(norm.gpu, &self.embed(&tokens)?)?;
        let sequences = output.values();
        let sequences = sequences.chunks_exact(LENGTH * MODEL).map(head_inputs);
        Ok(sequences.map(|inputs| array::from_fn(|t| self.logit(&self.hidden(t, &inputs[t])).into())).collect())
    }

    /// The log odds for position t when what comes after it is not known yet, and is another student's.
    fn logits_in_use(
        &self,
        norm: &Norm,
        students: &[Student],
        others: &[Student],
    ) -> Result<Vec<[f64; LENGTH]>, gpu_layer_norm::Error> {
        let mut logits = vec![[0.0; LENGTH]; students.len()];
        for t in 0..LENGTH {
            let cut = |(student, other): (&Student, &Student)| -> [Token; LENGTH] {
                let (known, unknown) = (student.tokens(), other.tokens());
                array::from_fn(|at| if at <= t { known[at] } else { unknown[at] })
            };
            let tokens: Vec<_> = students.iter().zip(others).map(cut).collect();
            let output = norm.layer.run(norm.gpu, &self.embed(&tokens)?)?;
            for (logits, sequence) in logits.iter_mut().zip(output.values().chunks_exact(LENGTH * MODEL)) {
                logits[t] = self.logit(&self.hidden(t, &head_inputs(sequence)[t])).into();
            }
        }
        Ok(logits)
    }
}

/// Where the embeddings lie whose sum is the input of a position.
fn embeddings((question, interaction): Token, t: usize) -> [Range<usize>; 3] {
    [(QUESTION, question), (INTERACTION, interaction), (POSITION, t)].map(|(range, row)| {
        let begin = range.start + row * MODEL;
        begin..begin + MODEL
    })
}

/// For each position what the norm has made of it, and the mean of that over the positions up to it.
fn head_inputs(sequence: &[f32]) -> [[f32; 2 * MODEL]; LENGTH] {
    let mut sum = [0.0; MODEL];
    array::from_fn(|t| {
        let row = &sequence[t * MODEL..][..MODEL];
        add(&mut sum, row, 1.0);
        array::from_fn(|i| if i < MODEL { row[i] } else { sum[i - MODEL] / (t + 1) as f32 })
    })
}

/// Adds a multiple of values to others.
fn add(to: &mut [f32], values: &[f32], factor: f32) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += factor * value);
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn root(size: usize) -> f32 {
    (size as f32).sqrt()
}
