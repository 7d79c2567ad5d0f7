//! Continues a text, character by character. Each character is a call to the ONNX model `letters`:
//! it takes a character and the state of the text so far, and returns a score for each next
//! character and the new state. The state stays in the host: the plugin passes it from call to call
//! and never reads it.
//!
//! `prompt` is `BYTES [1]`; each response has one character in `token`. Parameters: `max_tokens`,
//! `temperature` (0 always takes the best character), `seed` (the same seed yields the same text),
//! `stop` (a text that ends the answer). The model ends a text with a line break, which is not
//! sent.

mod alphabet;
mod chance;

use alphabet::Alphabet;
use chance::Chance;
use hostler_plugin::concurrent::{Callable, Sink, StreamingMetadata, StreamingModel, model};
use hostler_plugin::{Datatype, Error, Request, Tensor, config, tensor};
use std::ops::RangeInclusive;

/// The token that marks the beginning and the end of a text.
const BREAK: i64 = 0;

/// The size of the model's state.
const STATE: usize = 96;

const PROMPT_CHARACTERS_MAX: usize = 1_000;
const MAX_TOKENS: RangeInclusive<i64> = 1..=1_000;
const MAX_TOKENS_DEFAULT: i64 = 100;
const TEMPERATURE: RangeInclusive<f64> = 0.0..=2.0;
const TEMPERATURE_DEFAULT: f64 = 0.7;
const STOP_BYTES_MAX: usize = 100;

struct Generator;

hostler_plugin::export!(Generator: streaming_model);

impl StreamingModel for Generator {
    fn metadata() -> StreamingMetadata {
        StreamingMetadata {
            inputs: vec![tensor::spec("prompt", Datatype::Bytes, &[1])],
            outputs: vec![tensor::spec("token", Datatype::Bytes, &[1])],
            streaming: true,
        }
    }

    /// Reads the alphabet, so that a plugin without it fails at load instead of at the first
    /// request.
    async fn initialize() -> Result<(), Error> {
        Alphabet::read().map(drop)
    }

    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        let wanted = Wanted::of(&request)?;
        let alphabet = Alphabet::read()?;
        let prompt = prompt(tensor::named(&inputs, "prompt")?, &alphabet)?;
        let name = config::get("model")?.unwrap_or_else(|| "letters".into());
        let mut text = Text::begin(model(&name, None)?)?;
        text.read(BREAK).await?;
        for token in prompt {
            text.read(token).await?;
        }
        let mut chance = Chance::new(wanted.seed);
        let mut written = String::new();
        for _ in 0..wanted.max_tokens {
            let token = choose(&text.scores, wanted.temperature, &mut chance);
            let Some(letter) = alphabet.letter(token).filter(|_| token != BREAK) else { break };
            responses.send(vec![tensor::bytes("token", &[1], &[letter.to_string()])?]).await?;
            written.push(letter);
            if wanted.stop.as_ref().is_some_and(|stop| written.ends_with(stop)) {
                break;
            }
            text.read(token).await?;
        }
        Ok(())
    }
}

/// The parameters of a request.
struct Wanted {
    max_tokens: i64,
    temperature: f64,
    seed: u64,
    stop: Option<String>,
}

impl Wanted {
    fn of(request: &Request) -> Result<Self, Error> {
        let max_tokens = request.integer("max_tokens")?.unwrap_or(MAX_TOKENS_DEFAULT);
        if !MAX_TOKENS.contains(&max_tokens) {
            return Err(out_of_range("max_tokens", "a whole number from 1 to 1000", max_tokens));
        }
        let temperature = request.number("temperature")?.unwrap_or(TEMPERATURE_DEFAULT);
        if !TEMPERATURE.contains(&temperature) {
            return Err(out_of_range("temperature", "a number from 0 to 2", temperature));
        }
        let seed = request.integer("seed")?.map(i64::cast_unsigned);
        let stop = request.text("stop")?;
        if let Some(stop) = &stop
            && (stop.is_empty() || stop.len() > STOP_BYTES_MAX)
        {
            return Err(out_of_range("stop", "a text of 1 to 100 bytes", format!("{} bytes", stop.len())));
        }
        Ok(Wanted { max_tokens, temperature, seed: seed.unwrap_or_else(chance::seed), stop })
    }
}

fn out_of_range(parameter: &str, expected: &str, got: impl std::fmt::Display) -> Error {
    Error::invalid(
        format!("parameters.{parameter}"),
        format!("parameter \"{parameter}\": expected {expected}, got {got}"),
    )
}

/// Returns the tokens of the prompt.
fn prompt(prompt: &Tensor, alphabet: &Alphabet) -> Result<Vec<i64>, Error> {
    let elements = prompt.to_bytes()?;
    let text = elements.first().map(Vec::as_slice).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|error| {
        let at = error.valid_up_to();
        Error::invalid("prompt", format!("expected a text in UTF-8; byte {at} is not"))
    })?;
    let count = text.chars().count();
    if count > PROMPT_CHARACTERS_MAX {
        let message = format!("prompt: expected at most {PROMPT_CHARACTERS_MAX} characters, got {count}");
        return Err(Error::too_large(message));
    }
    text.chars().enumerate().map(|(place, letter)| alphabet.token(place, letter)).collect()
}

/// A text that the model has read so far.
struct Text {
    model: Callable,
    state: Tensor,
    /// The score of each character as the next one.
    scores: Vec<f32>,
}

impl Text {
    fn begin(model: Callable) -> Result<Self, Error> {
        let state = tensor::fp32("state", &[1, STATE as i64], &[0.0; STATE])?;
        Ok(Text { model, state, scores: Vec::new() })
    }

    /// Reads one more character.
    async fn read(&mut self, token: i64) -> Result<(), Error> {
        let inputs = [tensor::int64("token", &[1], &[token])?, self.state.renamed("state")];
        let outputs = self.model.call(&inputs, None).await?;
        self.scores = tensor::named(&outputs, "scores")?.to_f32()?;
        self.state = tensor::named(&outputs, "next_state")?.renamed("state");
        Ok(())
    }
}

/// Draws a character with the probability that its score implies. A higher temperature reduces the
/// influence of the scores.
fn choose(scores: &[f32], temperature: f64, chance: &mut Chance) -> i64 {
    let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if temperature == 0.0 {
        return scores.iter().position(|score| *score == best).unwrap_or(0) as i64;
    }
    let share = |score: &f32| ((f64::from(*score) - f64::from(best)) / temperature).exp();
    let mut left = chance.fraction() * scores.iter().map(share).sum::<f64>();
    let mut shares = scores.iter().map(share);
    let chosen = shares.position(|share| {
        left -= share;
        left < 0.0
    });
    chosen.unwrap_or(scores.len().saturating_sub(1)) as i64
}
